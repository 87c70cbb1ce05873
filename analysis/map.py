"""
When does selection pay? The accuracy of SLM and its controls against what decides it, in four panels.

    bash runs/map.sh                                              # makes the runs, and then calls
    python -m analysis.map --runs out/map --data data/seeds       # this

RUNS holds seed*/ with run folders whose names say in what they differ from `slm`, `clm`, `low_ref` and
`random` (runs/steps.sh): slm-clean250 has a reference of 250 problems, slm-keep0.3 keeps 30%, slm-chatter0.9
read a corpus with more chatter, slm-x0.5 half of the tokens. Writes results.json, table.md and map.png.
"""
import glob
import os
import re
from dataclasses import dataclass

import numpy as np

from analysis.report import cell, interval, paired, pyplot, read_run, save_figure, table_lines, write_report
from data import Tokens
from engine.cli import BadInput, launch
from engine.files import read_json

LINES = {  # kind of run: (name, colour, style of its line)
    "slm": ("SLM", "#8b0000", "-"),
    "clm": ("CLM", "#5a9bd4", "-"),
    "ref": ("the reference", "black", "--"),
    "low_ref": ("lowest reference loss", "#c08000", "-."),
    "random": ("random tokens", "0.5", ":"),
}
PANELS = {  # setting: (what it is, whether its axis is logarithmic, the kinds that it does not change)
    "clean": ("clean problems that the reference has read", True, ("clm",)),
    "keep": ("share of the tokens that is selected", True, ("ref",)),
    "chatter": ("share of the text that is useful", False, ("ref",)),
    "x": ("million tokens", True, ("ref",)),
}


@dataclass
class Config:
    runs: str = "out/map"        # folder with seed*/ that have run folders
    data: str = "data/seeds"     # folder of their corpora, seed*/ and seed*-chatter*/
    out: str = ""                # where the results go (default: the same folder as the runs)


def useful_share(folder):
    """The share of the tokens of a corpus's noisy side that are useful by their true label."""
    tokens = Tokens(folder, "noisy", 1)
    return float(np.isin(tokens.labels, tokens.label_numbers("useful").numpy()).mean())


def place_of(panel, path, results, corpus):
    """Where on the axis of a panel a run stands. path: its folder; corpus: that of its noisy side; results:
    report.read_run of it."""
    if panel == "chatter":
        return useful_share(corpus)
    if panel == "x":
        return results["final"]["tokens"] / 1e6
    if panel == "keep":
        return read_json(os.path.join(path, "config.json"))["config"].get("keep", 1.0)
    setting = os.path.basename(path).partition("-clean")[2]
    return float(setting or 1500)    # prepare.py --curated_problems


def collect(runs, data):
    """{panel: {kind: {setting: {seed: (place, accuracy)}}}}. Raises BadInput where there is nothing."""
    found = {panel: {} for panel in PANELS}
    for path in sorted(glob.glob(os.path.join(glob.escape(runs), "seed*", "*"))):
        seed, run = path.split(os.sep)[-2:]
        named = re.fullmatch(r"([a-z_]+)(-([a-z]+)[0-9.]+)?", run)    # of kind, or of kind and one setting
        results = read_run(path) if named and named[1] in LINES else None
        if not results or "accuracy_0" not in results["final"]:
            continue
        kind, setting, name = named.groups()
        corpus = os.path.join(data, seed + (setting if name == "chatter" else ""))
        for panel in PANELS:
            if name in (None, panel):  # a run without a setting stands in each panel
                point = place_of(panel, path, results, corpus), results["final"]["accuracy_0"]
                found[panel].setdefault(kind, {}).setdefault(setting, {})[seed] = point
    if not found["keep"]:
        raise BadInput(f"{runs} has no finished runs that were evaluated without shots: bash runs/map.sh")
    return found


def panels_of(found):
    """{panel: {kind: [{"place": the mean over seeds, "accuracy" with its interval, "seeds"}]}}, by place. Of
    what was tried at one place only, those stay that the setting does not change, and CLM. SLM's points have
    `less` besides: {kind: SLM less that, with the same setting, paired by seed}, of CLM and the reference."""
    panels = {panel: {} for panel in found}
    for panel, kinds in found.items():
        for kind, settings in kinds.items():
            if len(settings) == 1 and kind not in PANELS[panel][2] and (panel, kind) != ("keep", "clm"):
                continue
            points = [{"place": float(np.mean([place for place, _ in of_seed.values()])),
                       "accuracy": interval([accuracy for _, accuracy in of_seed.values()]),
                       "seeds": {seed: accuracy for seed, (_, accuracy) in of_seed.items()}}
                      for of_seed in settings.values()]
            if kind == "slm":
                for setting, point in zip(settings, points):
                    point["less"] = {}
                    for other in {"clm", "ref"} & kinds.keys():  # of this setting, or not changed by it
                        of_other = kinds[other].get(setting, kinds[other].get(None, {}))
                        accuracies = {seed: accuracy for seed, (_, accuracy) in of_other.items()}
                        point["less"][other] = paired(point["seeds"], accuracies)
            panels[panel][kind] = sorted(points, key=lambda point: point["place"])
    return panels


def figure(results, path):
    """Means over seeds, and each seed as a dot. What a setting does not change is a level line."""
    plt = pyplot()
    fig, axes = plt.subplots(2, 2, figsize=(11, 8), sharey=True)
    for ax, (panel, kinds) in zip(axes.flat, results["panels"].items()):
        what, logarithmic, level = PANELS[panel]
        for kind, points in kinds.items():
            name, colour, line = LINES[kind]
            means = [100 * point["accuracy"]["mean"] for point in points]
            if kind in level:
                ax.axhline(means[0], color=colour, ls=line, lw=1.2, label=name)
                continue
            places = [point["place"] for point in points]
            ax.plot(places, means, line, color=colour, lw=2, marker="o", label=name)
            for point in points:
                for accuracy in point["seeds"].values():
                    ax.plot(point["place"], 100 * accuracy, ".", color=colour, ms=4, alpha=0.5)
        ax.set(xlabel=what, ylabel="% right, no shots", ylim=(0, 100))
        if logarithmic:
            ax.set_xscale("log")
            places = {point["place"] for kind in kinds.keys() - level for point in kinds[kind]}
            tried = {f"{round(place, 2 if place < 1 else 1):g}": place for place in places}
            ax.set_xticks(list(tried.values()), list(tried))
            ax.minorticks_off()
    named = {line.get_label(): line for ax in axes.flat for line in ax.lines if line.get_label()[0] != "_"}
    fig.legend(named.values(), named, loc="outside lower center", ncol=len(named))
    save_figure(fig, path)


def table(results):
    """A Markdown table for each panel, with SLM's differences from CLM and from the reference."""
    lines = []
    for panel, kinds in results["panels"].items():
        rows = [[LINES[kind][0], "any" if kind in PANELS[panel][2] else f"{round(point['place'], 3):g}",
                 cell(point["accuracy"], "accuracy_0"),
                 *(cell(point.get("less", {}).get(other), "accuracy_0", True) for other in ("clm", "ref"))]
                for kind, points in kinds.items() for point in points]
        headings = ["arm", PANELS[panel][0], "accuracy, no shots", "less CLM", "less the reference"]
        lines += [*table_lines(headings, rows), ""]
    return "\n".join(lines)


def main(cfg):
    results = {"panels": panels_of(collect(cfg.runs, cfg.data))}
    write_report(cfg.out or cfg.runs, results, table(results), {"map.png": figure})


if __name__ == "__main__":
    launch(main, Config, __doc__)
