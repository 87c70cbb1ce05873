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

from analysis.report import cell, interval, pyplot, read_run, save_figure, table_lines, write_report
from data import Tokens
from engine.cli import BadInput, launch

LINES = {  # kind of run: (name, colour, style of its line)
    "slm": ("SLM", "#8b0000", "-"),
    "clm": ("CLM", "#5a9bd4", "-"),
    "ref": ("the reference", "black", "--"),
    "low_ref": ("lowest reference loss", "#c08000", "-."),
    "random": ("random tokens", "0.5", ":"),
}
PANELS = {  # setting: (what it is, whether its axis is logarithmic, what a run without it has)
    "clean": ("clean problems that the reference has read", True, 2000),
    "keep": ("share of the tokens that is selected", True,
             {"slm": 0.07, "low_ref": 0.25, "random": 0.3, "clm": 1.0, "ref": 1.0}),
    "chatter": ("share of the text that is useful", False, ""),
    "x": ("million tokens", True, 1),
}


@dataclass
class Config:
    runs: str = "out/map"        # folder with seed*/ that have run folders
    data: str = "data/seeds"     # folder of their corpora, seed*/ and seed*-chatter*/
    out: str = ""                # where the results go (default: the same folder as the runs)

    def validate(self):
        return []


def useful_share(folder):
    """The share of the tokens of a corpus's noisy side that are useful by their true label."""
    tokens = Tokens(folder, "noisy", 1)
    return float(np.isin(tokens.labels, tokens.label_numbers("useful").numpy()).mean())


def place_of(panel, kind, value, seed, data):
    """Where on the axis of a panel a run stands: value is the number in its name, or None."""
    if panel == "chatter":
        return useful_share(os.path.join(data, seed if value is None else f"{seed}-chatter{value}"))
    if value is None:
        default = PANELS[panel][2]
        value = default[kind] if isinstance(default, dict) else default
    return 4.992 * float(value) if panel == "x" else float(value)


def collect(runs, data):
    """{panel: {line: [(place, {seed: accuracy})]}}, by place. Raises BadInput where there is nothing."""
    found = {panel: {} for panel in PANELS}
    for path in sorted(glob.glob(os.path.join(glob.escape(runs), "seed*", "*"))):
        seed, run = path.split(os.sep)[-2:]
        kind, _, setting = run.partition("-")
        results = read_run(path) if kind in LINES else None
        if not results or "accuracy_0" not in results["final"]:
            continue
        name, value = re.fullmatch(r"([a-z]*)(.*)", setting).groups()
        for panel in PANELS:
            if name in ("", panel):  # a run without a setting stands in each panel
                line = found[panel].setdefault(kind, {})
                line.setdefault(value or None, {})[seed] = results["final"]["accuracy_0"]
    if not found["keep"]:
        raise BadInput(f"{runs} has no finished runs that were evaluated without shots: bash runs/map.sh")
    for panel, lines in found.items():
        for kind, points in lines.items():
            placed = []
            for value, accuracies in points.items():
                places = [place_of(panel, kind, value, seed, data) for seed in accuracies]
                placed.append((float(np.mean(places)), accuracies))
            lines[kind] = sorted(placed, key=lambda point: point[0])
    return found


def figure(results, path):
    """Means over seeds, and each seed as a dot. What a setting does not change is a level line."""
    plt = pyplot()
    fig, axes = plt.subplots(2, 2, figsize=(11, 8), sharey=True)
    for ax, (panel, lines) in zip(axes.flat, results["panels"].items()):
        for kind, points in lines.items():
            name, colour, line = LINES[kind]
            means = [100 * point["accuracy"]["mean"] for point in points]
            if len(points) == 1 and kind != "clm":
                ax.axhline(means[0], color=colour, ls=line, lw=1.2, label=name)
                continue
            places = [point["place"] for point in points]
            ax.plot(places, means, line, color=colour, lw=2, marker="o", label=name)
            for place, point in zip(places, points):
                for accuracy in point["seeds"].values():
                    ax.plot(place, 100 * accuracy, ".", color=colour, ms=4, alpha=0.5)
        what, logarithmic, _ = PANELS[panel]
        ax.set(xlabel=what, ylabel="% right, no shots", ylim=(0, 100))
        if logarithmic:
            ax.set_xscale("log")
    named = {line.get_label(): line for ax in axes.flat for line in ax.lines if line.get_label()[0] != "_"}
    fig.legend(named.values(), named, loc="outside lower center", ncol=len(named))
    save_figure(fig, path)


def table(results):
    """A Markdown table for each panel."""
    lines = []
    for panel, of_panel in results["panels"].items():
        rows = [[LINES[kind][0], f"{point['place']:.3g}", cell(point["accuracy"], "accuracy_0")]
                for kind, points in of_panel.items() for point in points]
        lines += [*table_lines(["arm", PANELS[panel][0], "accuracy, no shots"], rows), ""]
    return "\n".join(lines)


def main(cfg):
    panels = {panel: {kind: [{"place": place, "accuracy": interval(seeds.values()), "seeds": seeds}
                             for place, seeds in points] for kind, points in lines.items()}
              for panel, lines in collect(cfg.runs, cfg.data).items()}
    write_report(cfg.out or cfg.runs, {"panels": panels}, table({"panels": panels}), {"map.png": figure})


if __name__ == "__main__":
    launch(main, Config, __doc__)
