"""
Figures and tables from run folders alone: results.json, table.md, headline.png, selection.png.

    python plot.py                                # what you trained by hand: out/ref, out/clm, out/slm
    python plot.py --runs out/demo                # seeds: out/demo/seed0/slm, seed1/slm, ...
    python plot.py --runs out/distill --base fire # on-policy distillation, against FiRe-OPD

RUNS holds a folder per seed, seed*/, or is itself that of one seed. Any finished run in it is shown, with
what eval_math.py and analysis/measures.py have measured of it. NAME_tuned, the run NAME fine-tuned on the
curated text, is compared with BASE_tuned. Intervals: 95%, t, over seeds.
"""
import glob
import os
from dataclasses import dataclass

from analysis.report import (MEASURES, SHARES, cell, interval, mean_curve, millions, pyplot, read_run,
                             save_figure, selection_curves, table_lines, write_report)
from engine.cli import BadInput, launch

STEPS = {"base": "the base", "start": "what all arms start from", "student": "the student before",
         "form2": "what the student began with", "form3": "what the teacher began with"}
REFERENCES = {"ref": "the reference model alone", "teacher": "the teacher"}  # dashed lines in the figures
ARMS = {  # the ways of training that are compared, by run folder
    "slm": "SLM (excess loss)",
    "clm": "CLM (all tokens)",
    "clm_mixed": "CLM on noisy + curated",
    "documents": "whole documents (lowest reference loss)",
    "distill": "distillation from the reference",
    "random": "random tokens",
    "low_ref": "lowest reference loss",
    "high_loss": "highest loss (no reference)",
    "labels": "the true labels as selection",
    "fire": "FiRe-OPD: filter and reweight",
    "opd": "plain on-policy distillation",
    "filter": "filter alone",
    "reweight": "reweight alone",
    "exact_kl": "exact reverse KL",
    "sft": "the teacher's answers (not on-policy)",
    "random_drop": "a fifth dropped at random",
    "permuted_weights": "weights permuted",
}
PANELS = (("accuracy_0", "accuracy"), ("masked", "test_loss"), ("masked_result", "solution_loss"))


@dataclass
class Config:
    runs: str = "out"        # folder with run folders, or with seed*/ that have them
    out: str = ""            # where the results go (default: the same folder)
    base: str = "slm"        # the run that the others are compared with

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
    """What results.json holds: of each arm the figures of every seed, and what the run `base` has more."""
    runs = read_runs(folder)
    results = {"base": base, "seeds": list(runs), "arms": {}, "base_less": {}}
    for name in sorted(set().union(*runs.values()), key=place):
        results["arms"][name] = summary({seed: r[name] for seed, r in runs.items() if name in r})
        other = f"{base}_tuned" if name.endswith("_tuned") else base  # like is compared with like
        pairs = [(r[other]["final"], r[name]["final"]) for r in runs.values() if {other, name} <= set(r)]
        if pairs and name != other and name not in STEPS:
            # By seed, whose common ups and downs cancel.
            results["base_less"][name] = {m: interval([a[m] - b[m] for a, b in pairs if m in a and m in b])
                                          for m in MEASURES}
    results["measures"] = [m for m in MEASURES if any(a["final"][m] for a in results["arms"].values())]
    results["sources"] = sorted({str(run["source"]) for arms in runs.values() for run in arms.values()})
    return results


def place(run):
    """How runs are sorted: those with a name, the others, then what is fine-tuned."""
    known, arm = [*STEPS, *REFERENCES, *ARMS], run.removesuffix("_tuned")
    number = known.index(arm) if arm in known else len(known)
    return run.endswith("_tuned"), number, run


def summary(per_seed):
    """One arm over its seeds. per_seed: {seed: read_run}."""
    runs = list(per_seed.values())
    return {"final": {m: interval([r["final"].get(m) for r in runs]) for m in ("tokens", *MEASURES)},
            "seeds": {seed: {k: r[k] for k in ("curves", "final")} for seed, r in per_seed.items()},
            "selection": selection_curves(runs), "on_policy": any(r["on_policy"] for r in runs)}


def name_of(run):
    arm = run.removesuffix("_tuned")
    name = {**STEPS, **REFERENCES, **ARMS}.get(arm, arm)
    return f"{name}, fine-tuned" if run.endswith("_tuned") else name


def drawn_arms(results):
    """{run folder: colour} of the arms that get a line. Tokens read and tokens generated do not belong on
    one axis: only arms of the base's kind are drawn, or of the first one's."""
    arms = {name: arm["on_policy"] for name, arm in results["arms"].items()
            if not name.endswith("_tuned") and name not in (*STEPS, *REFERENCES)}
    kind = arms.get(results["base"], next(iter(arms.values()), None))
    drawn = [name for name in arms if arms[name] == kind]
    return {name: f"C{i % 10}" for i, name in enumerate(drawn)}  # matplotlib's ten colours


def draw_arm(ax, arm, measure, colour, **style):
    """An arm's mean over seeds, and a band from the lowest seed to the highest."""
    curves = [run["curves"][measure] for run in arm["seeds"].values() if measure in run["curves"]]
    if curves:
        # Means are over steps: the tokens generated by a step differ a little from seed to seed.
        curve = mean_curve([(steps, values) for steps, _, values in curves])
        at = millions(mean_curve([(steps, tokens) for steps, tokens, _ in curves])["mean"])
        ax.plot(at, curve["mean"], color=colour, marker="o" if len(at) == 1 else None, **style)
        ax.fill_between(at, curve["low"], curve["high"], color=colour, alpha=0.08, lw=0)


def headline(results, path):
    """A line for each arm. Of each pair in PANELS the measure that more arms have is shown."""
    plt, arms, drawn = pyplot(), results["arms"], drawn_arms(results)
    n_arms = {m: sum(arms[name]["final"][m] is not None for name in drawn) for m in MEASURES}
    measures = [m for m in (max(pair, key=n_arms.get) for pair in PANELS) if n_arms[m]]
    n = len(measures)
    fig, axes = plt.subplots(1, n, figsize=(1 + 5 * n, 5.5), squeeze=False, sharex=True)
    generated = " generated" if any(arms[name]["on_policy"] for name in drawn) else ""
    for ax, measure in zip(axes[0], measures):
        for name, colour in drawn.items():
            width = 2.2 if name == results["base"] else 1.2
            draw_arm(ax, arms[name], measure, colour, label=name_of(name), lw=width)
        for name in REFERENCES:
            if name in arms and arms[name]["final"][measure]:
                value = arms[name]["final"][measure]["mean"]
                ax.axhline(value, color="black", ls="--", lw=1, label=name_of(name))
        values = [value for line in ax.lines for value in line.get_ydata()]
        if measure not in SHARES and values:  # or the first losses leave no room for the others
            ax.set_ylim(0.9 * min(values), min(3 * min(values), 1.02 * max(values)))
        ax.set(title=MEASURES[measure], xlabel=f"million tokens{generated}")
    named = {line.get_label(): line for ax in axes[0] for line in ax.lines}
    fig.legend(named.values(), named, loc="outside lower center", ncol=n, fontsize=9)
    save_figure(fig, path, f"seeds: {len(results['seeds'])}; band: their lowest to highest")


def selecting_arms(results):
    """{run folder: its selection_curves} of the arms that selected tokens."""
    curves = {name: results["arms"][name]["selection"] for name in drawn_arms(results)}
    return {name: of_arm for name, of_arm in curves.items() if of_arm}


def selection_figure(results, path):
    """Precision and recall of each arm; of one, the share selected of each true label, and its losses."""
    plt, arms = pyplot(), selecting_arms(results)
    one = results["base"] if results["base"] in arms else next(iter(arms))
    fig, (precision, shares, losses) = plt.subplots(1, 3, figsize=(15, 4.8))
    precision.set_title("selection of useful tokens, by true label")
    shares.set_title(f"{name_of(one)}: share selected of each true label")
    losses.set_title(f"{name_of(one)}: loss on the text it reads")
    for name, curves in arms.items():
        colour, x = drawn_arms(results)[name], millions(curves["tokens"])
        for key, style in (("precision", "-"), ("recall", "--")):
            if key in curves:
                precision.plot(x, curves[key], style, color=colour, label=f"{name_of(name)}: {key}")
    x = millions(arms[one]["tokens"])
    for key, curve in arms[one].items():
        if key in ("selected_loss", "unselected_loss"):
            losses.plot(x, curve, label=key.replace("_", " "))
        elif key.startswith("selected_"):
            shares.plot(x, curve, label=key.removeprefix("selected_"))
    for ax in (precision, shares, losses):
        ax.set_xlabel("million tokens")
        if ax.lines:
            ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=2)
        else:
            ax.set_title("the corpus has no true labels")
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
    differences = [d[m] for d in results["base_less"].values() for m in measures if d[m] and d[m]["n"] > 1]
    if differences:
        n, n_clear = len(differences), sum(d["low"] > 0 or d["high"] < 0 for d in differences)
        rows = [[name_of(name), *(cell(d[m], m, sign=True) for m in measures)]
                for name, d in results["base_less"].items()]
        lines += ["", f"{name_of(results['base'])} less the arm, paired by seed (95% interval). Of these "
                  f"{n} intervals {n_clear} exclude 0; by chance {0.05 * n:.1f} would:", "",
                  *table_lines(["arm", *headings], rows)]
    return "\n".join(lines) + "\n"


def main(cfg):
    results = collect(cfg.runs, cfg.base)
    drawings = {"headline.png": headline} if drawn_arms(results) else {}
    if selecting_arms(results):
        drawings["selection.png"] = selection_figure
    write_report(cfg.out or cfg.runs, results, table(results), drawings)
    if cfg.base not in results["arms"]:
        print(f"no finished run {cfg.base!r} to compare with: --base may be {', '.join(results['arms'])}")


if __name__ == "__main__":
    launch(main, Config, __doc__)
