"""
Figures and tables from run folders alone: results.json, table.md, headline.png, selection.png.

    python plot.py                                # what you trained by hand: out/ref, out/clm, out/slm
    python plot.py --runs out/controls            # seeds: out/controls/seed10/slm, seed11/slm, ...
    python plot.py --runs out/distill --base opd  # on-policy distillation, against its plain form

RUNS holds a folder per seed, seed*/, or is itself that of one seed. Any finished run in it is shown, with
what eval_math.py has measured of it. BASE is compared with all others, and so is BASE_tuned, which is the run
BASE fine-tuned on the curated text. Intervals: 95%, t, over seeds.
"""
import glob
import os
import re
from dataclasses import dataclass

import numpy as np

from analysis.report import (LABEL_COLOURS, MEASURES, cell, interval, mean_curve, millions, paired, pyplot,
                             read_run, save_figure, selection_curves, table_lines, write_report)
from engine.cli import BadInput, launch

STEPS = {"base": "the base", "student": "the student before"}
REFERENCES = {"ref": "the reference", "teacher": "the teacher"}
ARMS = {  # the ways of training that are compared, by run folder
    "slm": "SLM",
    "clm": "CLM",
    "curated": "CLM on the curated text alone",
    "mixture": "CLM on noisy + curated",
    "distill": "distillation from the reference",
    "distill_half": "distillation, half of the usual loss",
    "labels": "the true labels as selection",
    "low_ref": "lowest reference loss",
    "frozen": "reference less base, frozen",
    "documents": "whole documents (lowest reference loss)",
    "high_loss": "highest loss (no reference)",
    "random": "random tokens",
    "fire": "FiRe-OPD: filter and reweight",
    "opd": "plain on-policy distillation",
    "filter": "filter alone",
    "reweight": "reweight alone",
    "exact_kl": "exact reverse KL",
    "random_drop": "a fifth dropped at random",
    "permuted_weights": "weights permuted",
}
SETTINGS = {"keep": "keep {}", "lr": "rate {}", "x": "{} times the tokens", "repeat": "curated {} times",
            "base": "from the base"}
# The lines of a figure, which differ in grey too; the first is the base arm's.
STYLES = [("#8b0000", "-"), ("#5a9bd4", "-"), ("0.3", "--"), ("#c08000", "-."), ("#2e7d32", ":"),
          ("#7b4fa0", "--"), ("0.6", "-"), ("#00838f", "-."), ("#d81b60", ":")]


@dataclass
class Config:
    runs: str = "out"        # folder with run folders, or with seed*/ that have them
    out: str = ""            # where the results go (default: the same folder)
    base: str = "slm"        # the run that the others are compared with; BASE_tuned is, too

    def validate(self):
        if self.base.endswith("_tuned"):
            yield f"--base {self.base}: leave out _tuned, what is fine-tuned is compared anyway"


def read_runs(folder):
    """{seed: {run folder: read_run of it}} of the finished runs. Raises BadInput where there are none."""
    seeds = glob.glob(os.path.join(glob.escape(folder), "seed*"))
    runs = {}
    for path in filter(os.path.isdir, sorted(seeds) or [folder]):
        found = {name: run for name in os.listdir(path) if (run := read_run(os.path.join(path, name)))}
        if found:
            runs[os.path.basename(os.path.normpath(path))] = found
    if not runs:
        raise BadInput(f"{folder} has no finished run, neither in seed*/ nor of its own: give another --runs")
    return runs


def collect(folder, base):
    """What results.json holds: of each arm the figures of every seed, and what the run `base`, and that
    fine-tuned, have more."""
    runs = read_runs(folder)
    names = sorted(set().union(*runs.values()), key=place)
    results = {"base": base, "seeds": list(runs), "arms": {}}
    for name in names:
        results["arms"][name] = summary({seed: r[name] for seed, r in runs.items() if name in r})
    finals = {name: {seed: r[name]["final"] for seed, r in runs.items() if name in r} for name in names}
    results["less"] = {one: {name: differences(finals[one], finals[name]) for name in names
                             if name not in (one, *STEPS) and finals[one].keys() & finals[name].keys()}
                       for one in (base, f"{base}_tuned") if one in names}
    results["measures"] = [m for m in MEASURES if any(a["final"][m] for a in results["arms"].values())]
    results["sources"] = sorted({str(run["source"]) for arms in runs.values() for run in arms.values()})
    return results


def differences(one, other):
    """{measure: the interval of one arm less the other}. one, other: {seed: final figures}."""
    def of_seeds(arm, measure):
        return {seed: final[measure] for seed, final in arm.items() if measure in final}
    return {m: paired(of_seeds(one, m), of_seeds(other, m)) for m in MEASURES}


def place(run):
    """How runs are sorted: those with a name, the others, then what is fine-tuned."""
    known, kind = [*STEPS, *REFERENCES, *ARMS], run.removesuffix("_tuned").split("-")[0]
    number = known.index(kind) if kind in known else len(known)
    return run.endswith("_tuned"), number, run


def summary(per_seed):
    """One arm over its seeds. per_seed: {seed: read_run}."""
    runs = list(per_seed.values())
    return {"final": {m: interval([r["final"].get(m) for r in runs]) for m in ("tokens", *MEASURES)},
            "seeds": {seed: {k: r[k] for k in ("curves", "final")} for seed, r in per_seed.items()},
            "selection": selection_curves(runs), "on_policy": any(r["on_policy"] for r in runs)}


def name_of(run):
    """What a table says of a run folder: 'clm-x2_tuned' is 'CLM, 2 times the tokens, fine-tuned'."""
    kind, *settings = run.removesuffix("_tuned").split("-")
    words = [{**STEPS, **REFERENCES, **ARMS}.get(kind, kind)]
    for setting in settings:
        letters, number = re.fullmatch(r"([a-z]*)(.*)", setting).groups()
        words.append(SETTINGS.get(letters, letters + "{}").format(number))
    if run.endswith("_tuned"):
        words.append("fine-tuned")
    return ", ".join(words)


def drawn_arms(results):
    """The arms that get a line: the base arm and CLM, or where one is missing, all. Tokens read and tokens
    generated do not belong on one axis: only arms of the base's kind are drawn, or of the first one's."""
    arms = {name: arm["on_policy"] for name, arm in results["arms"].items()
            if not name.endswith("_tuned") and name not in (*STEPS, *REFERENCES)}
    base = results["base"]
    if base != "clm" and {base, "clm"} <= set(arms) and arms[base] == arms["clm"]:
        return [base, "clm"]
    kind = arms.get(base, next(iter(arms.values()), None))
    return sorted((name for name in arms if arms[name] == kind), key=lambda name: name != base)


def drawn_measure(results):
    """The accuracy where it was measured along the runs that are drawn, else the test loss."""
    for measure in ("accuracy_0", "accuracy"):
        curves = [run["curves"].get(measure, [[]]) for name in drawn_arms(results)
                  for run in results["arms"][name]["seeds"].values()]
        if all(len(steps) > 2 for steps, *_ in curves):
            return measure
    return "test_loss"


def headline(results, path):
    """A line for each arm that is drawn, named at its end: the mean over seeds; a thin one for each seed."""
    plt, arms, measure = pyplot(), results["arms"], drawn_measure(results)
    fig, ax = plt.subplots(figsize=(8.5, 4.8))
    scale = 1 if measure == "test_loss" else 100                # accuracies in per cent
    ends = []                                                   # (height of a line's end, its name, colour)
    for number, name in enumerate(drawn_arms(results)):
        colour, line = STYLES[number % len(STYLES)]
        runs = [run["curves"][measure] for run in arms[name]["seeds"].values() if measure in run["curves"]]
        if not runs:
            continue
        # Means are over steps: the tokens generated by a step differ a little from seed to seed.
        curve = mean_curve([(steps, values) for steps, _, values in runs])
        at = millions(mean_curve([(steps, tokens) for steps, tokens, _ in runs]))
        ax.plot(at, scale * curve, line, color=colour, lw=2.5)
        for _, tokens, values in runs if len(runs) > 1 else []:
            ax.plot(millions(tokens), scale * np.array(values), line, color=colour, lw=0.6, alpha=0.6)
        ends.append((scale * curve[-1], name_of(name), colour))
    for name in REFERENCES:
        if name in arms and arms[name]["final"][measure]:
            value = scale * arms[name]["final"][measure]["mean"]
            ax.axhline(value, color="black", ls="--", lw=1.2)
            ends.append((value, name_of(name), "black"))
    values = [value for line in ax.lines for value in line.get_ydata()]
    if measure == "test_loss":  # or the first losses leave no room for the others
        ax.set_ylim(0.9 * min(values), min(3 * min(values), 1.02 * max(values)))
    low, high = ax.get_ylim()
    gap, free = 0.055 * (high - low), low       # the height of a line of text, and where the next may stand
    for value, name, colour in sorted(ends):
        free = max(value, free)
        ax.annotate(name, (1.01, free), xycoords=ax.get_yaxis_transform(), va="center", color=colour)
        free += gap
    generated = " generated" if any(arms[name]["on_policy"] for name in drawn_arms(results)) else ""
    n = len(results["seeds"])
    what = "test loss" if measure == "test_loss" else "right answers, %"
    ax.set(ylabel=what, xlabel=f"million tokens{generated}",
           title=f"mean of {n} seeds, and each seed" if n > 1 else "")
    save_figure(fig, path)


def selecting_arms(results):
    """{run folder: its selection_curves} of the arms that selected tokens whose true labels are known."""
    curves = {name: arm["selection"] for name, arm in results["arms"].items() if not name.endswith("_tuned")}
    return {name: of_arm for name, of_arm in curves.items() if of_arm and "selected_result" in of_arm}


def selection_figure(results, path):
    """What the selected tokens are, by true label: of each arm over all of training, with the accuracy that
    came of it; and of the base arm along training."""
    plt, arms = pyplot(), selecting_arms(results)
    one = results["base"] if results["base"] in arms else next(iter(arms))
    fig, (bars, along) = plt.subplots(1, 2, figsize=(13, 1.6 + 0.4 * max(len(arms), 6)))
    for row, (name, curves) in enumerate(arms.items()):
        left = 0.0
        for label, colour in LABEL_COLOURS.items():
            shares = [share for share in curves.get(f"selected_{label}", []) if share is not None]
            width = sum(shares) / max(1, len(shares))
            bars.barh(row, width, left=left, color=colour)
            left += width
        accuracy = results["arms"][name]["final"]["accuracy_0"]
        if accuracy:
            bars.annotate(f"{accuracy['mean']:.0%} right", (1.02, row), va="center")
    bars.set_yticks(range(len(arms)), [name_of(name) for name in arms])
    bars.set(xlim=(0, 1.2), title="selected tokens by true label, over all of training")
    bars.invert_yaxis()
    x, height = millions(arms[one]["tokens"]), 0
    for label, colour in LABEL_COLOURS.items():
        if f"selected_{label}" not in arms[one]:
            continue
        upper = height + np.array([share or 0.0 for share in arms[one][f"selected_{label}"]])
        along.fill_between(x, height, upper, color=colour, label=label, lw=0)
        height = upper
    along.set(xlabel="million tokens", title=f"the same along training: {name_of(one)}", ylim=(0, 1))
    fig.legend(*along.get_legend_handles_labels(), loc="outside lower center", ncol=6, fontsize=9)
    save_figure(fig, path)


def table(results):
    """The results in Markdown: final figures of each arm, and the base arm less each other."""
    measures, rows = results["measures"], []
    headings = [MEASURES[m] for m in measures]
    for name, arm in results["arms"].items():
        tokens = f"{arm['final']['tokens']['mean']:,.0f}"
        cells = [cell(arm["final"][m], m) for m in measures]
        rows.append([name_of(name), str(len(arm["seeds"])), tokens, *cells])
    over = "mean over seeds (95% interval)" if len(results["seeds"]) > 1 else "one seed"
    lines = [f"Final figures, {over}:", "", *table_lines(["arm", "seeds", "tokens", *headings], rows)]
    for one, less in results["less"].items():
        intervals = [d[m] for d in less.values() for m in measures if d[m] and d[m]["n"] > 1]
        if intervals:
            n, n_clear = len(intervals), sum(d["low"] > 0 or d["high"] < 0 for d in intervals)
            rows = [[name_of(name), *(cell(d[m], m, sign=True) for m in measures)]
                    for name, d in less.items()]
            lines += ["", f"{name_of(one)} less the arm, paired by seed (95% interval). Of these {n} "
                      f"intervals {n_clear} exclude 0; by chance {0.05 * n:.1f} would:", "",
                      *table_lines(["arm", *headings], rows)]
    return "\n".join(lines) + "\n"


def main(cfg):
    results = collect(cfg.runs, cfg.base)
    arms = results["arms"]
    drawings = {"headline.png": headline} if drawn_arms(results) else {}
    if selecting_arms(results):
        drawings["selection.png"] = selection_figure
    write_report(cfg.out or cfg.runs, results, table(results), drawings)
    if cfg.base not in arms:
        print(f"no finished run {cfg.base!r} to compare with: --base may be {', '.join(arms)}")
    shown = ("base", "ref", "clm", "slm")
    shown = [name for name in shown if name in arms and arms[name]["final"]["accuracy_0"]]
    if shown:
        shares = [f"{name_of(name)} {arms[name]['final']['accuracy_0']['mean']:.1%}" for name in shown]
        print(f"right answers without shots: {', '.join(shares)}")


if __name__ == "__main__":
    launch(main, Config, __doc__)
