"""
Figures and tables from run folders alone.

    python plot.py --runs out/demo       # out/demo/results.json, headline.png, selection.png, table.md
    python plot.py --runs out/demo --measures accuracy_0 accuracy masked masked_solution masked_result
    python plot.py --pool out/crawl out/more_seeds --out out/pooled   # of two results.json, one table

RUNS holds a folder per seed (seed0, seed1, ...), each with the runs base, ref, scores and one per arm (a
way of training), as runs/demo.sh and runs/seeds.sh make them; ARM_tuned is the run ARM and then a short
fine-tuning on the curated text. Intervals are 95% t-intervals over seeds.
"""
import glob
import os
from dataclasses import dataclass, field

import numpy as np

from engine.cli import BadInput, run
from engine.files import read_json, read_jsonl
from engine.report import (MEASURES, Arm, cell, interval, mean_curve, millions, paired_interval, pyplot,
                           read_results, read_run, save_figure, seeds_text, selection_curves, table_lines,
                           write_report)
from engine.savings import saving_text, token_saving

ARMS = {  # by run folder
    "slm": Arm("SLM (excess loss)", "tab:blue"),
    "clm": Arm("CLM (all tokens)", "tab:gray"),
    "clm_long": Arm("CLM on 1.5 times the tokens", "dimgray"),
    "clm_mixed": Arm("CLM on noisy + curated", "tab:brown"),
    "clm_curated": Arm("CLM on curated alone", "black"),
    "documents": Arm("whole documents (lowest reference loss)", "tab:orange"),
    "documents_excess": Arm("whole documents (highest excess)", "gold"),
    "distill": Arm("distillation from the reference", "tab:pink"),
    "random": Arm("random tokens", "tab:olive"),
    "low_ref": Arm("lowest reference loss", "tab:purple"),
    "high_loss": Arm("highest loss (no reference)", "tab:red"),
    "labels": Arm("the true labels as selection", "tab:green"),
    "slm_filtered": Arm("SLM, filtered backward", "navy"),
}
RUNS = (*ARMS, *(f"{name}_tuned" for name in ARMS))
NAMES = {"start": "the weights all began with", "ref": "the reference model alone",
         **{folder: arm.name for folder, arm in ARMS.items()},
         **{f"{folder}_tuned": f"{arm.name}, fine-tuned" for folder, arm in ARMS.items()}}
STEPS = {"base": "base of the reference model", "ref": "reference model", "score": "scoring (forward only)",
         "start": "what all arms start from"}
LABEL_COLOURS = {"question": "tab:cyan", "solution": "tab:green", "result": "lime", "wrong": "tab:red",
                 "irrelevant": "gray", "noise": "tab:purple"}


@dataclass
class Config:
    runs: str = "out/demo"   # folder with seed0, seed1, ...
    out: str = ""            # where the figures go (default: the same folder)
    measures: list[str] = field(default_factory=list)  # of the tables (default: all that were taken)
    pool: list[str] = field(default_factory=list)      # folders whose results.json are pooled, into --out

    def validate(self):
        pooled = [os.path.realpath(folder) for folder in self.pool]
        if self.pool and (len(self.pool) < 2 or not self.out or os.path.realpath(self.out) in pooled):
            yield "--pool names the folders whose seeds belong together, two at least, and --out another one"
        for name in self.measures:
            if name not in MEASURES:
                yield f"there is no measure {name!r}; there are {', '.join(MEASURES)}"


# -------------------------------------------------------------------------------------------------- results

def collect(folder):
    """What results.json holds: of each arm the curves and final figures of every seed, SLM less the arm,
    the tokens saved, and the costs. Raises BadInput where no seed has a finished arm."""
    runs = {}  # {seed: {run folder: read_run of it}}
    for path in sorted(glob.glob(os.path.join(folder, "seed*"))):
        found = {name: read_run(os.path.join(path, name)) for name in ("base", "start", "ref", *RUNS)}
        found = {name: r for name, r in found.items() if r}
        if found.keys() & ARMS.keys():
            runs[os.path.basename(path)] = found
    if not runs:
        raise BadInput(f"{folder} has no seed*/ with a finished arm ({', '.join(ARMS)}): run runs/demo.sh "
                       f"first")
    results = {**compare(runs), "cost": costs(folder, runs)}
    tasks = {name: public_tasks(folder, name) for name in ["start", "ref", *RUNS]}
    if any(tasks.values()):
        results["tasks"] = {name: found for name, found in tasks.items() if found}
    seed, of_seed = next(iter(runs.items()))
    arm = next(name for name in of_seed if name in ARMS)
    results["source"] = read_json(os.path.join(folder, seed, arm, "config.json"))["source"]
    return results


def compare(runs):
    """What results.json says of the arms: {"seeds", "arms", "slm_minus", "token_saving"}. runs: {seed: {run
    folder: read_run of it}}."""
    results = {"seeds": list(runs), "arms": {}, "slm_minus": {}, "token_saving": {}}
    for name in ("ref", *RUNS):
        per_seed = {seed: r[name] for seed, r in runs.items() if name in r}
        if not per_seed:
            continue
        results["arms"][name] = summary(per_seed)
        slm = "slm_tuned" if name.endswith("_tuned") else "slm"  # like is compared with like
        pairs = [(runs[seed][slm], r) for seed, r in per_seed.items() if slm in runs[seed] and name != slm]
        if pairs:
            results["slm_minus"][name] = {
                m: paired_interval([(s["final"].get(m), r["final"].get(m)) for s, r in pairs])
                for m in MEASURES}
        if pairs and slm == "slm" and name not in ("ref", "labels"):
            results["token_saving"][name] = {m: [token_saving(s, r, m) for s, r in pairs] for m in MEASURES}
    return results


def pool(folders):
    """The results of all seeds in the results.json of several folders: one setting, run on several machines.

    Differences are paired by seed, and so within a machine. There are no costs in it, as seconds of different
    machines do not belong in one mean, and no curves of the selection, which are made from the runs
    themselves. Raises BadInput.
    """
    runs, found_in = {}, {}
    for folder in folders:
        results = read_results(folder)
        for seed in results["seeds"]:
            if seed in found_in:
                raise BadInput(f"{seed} is in {found_in[seed]} and in {folder}: a seed counts once")
            found_in[seed], runs[seed] = folder, {}
        for name, arm in results["arms"].items():
            for seed, of_seed in arm["seeds"].items():
                runs[seed][name] = {**of_seed, "train": []}
    return {**compare(runs), "pooled": folders}


def summary(per_seed):
    """One arm over its seeds. per_seed: {seed: read_run}."""
    ends = [r["final"] for r in per_seed.values()]
    return {
        "final": {measure: interval([end.get(measure) for end in ends]) for measure in MEASURES},
        "seeds": {seed: {k: v for k, v in r.items() if k != "train"} for seed, r in per_seed.items()},
        "selection": selection_curves(per_seed.values()),
    }


def costs(folder, runs):
    """{run: {"tokens", "seconds", "operations"}}, means over seeds, of the scoring too. Operations are 6 a
    parameter and token of training, 2 of a forward pass; distillation has one of its reference in each
    step."""
    found = {}
    for seed, of_seed in runs.items():
        for name, r in of_seed.items():
            found.setdefault(name, []).append(dict(r["cost"]))
        if "ref" not in of_seed:
            continue
        forward = of_seed["ref"]["cost"]["operations"] / of_seed["ref"]["cost"]["tokens"] / 3  # of a token
        if "distill" in of_seed:
            found["distill"][-1]["operations"] += forward * found["distill"][-1]["tokens"]
        path = os.path.join(folder, seed, "scores", "scores.json")
        if os.path.exists(path):
            scores = read_json(path)
            tokens = scores["rows_done"] * scores["block_size"]
            found.setdefault("score", []).append({"tokens": tokens, "seconds": scores["seconds"],
                                                  "operations": forward * tokens})
    return {name: {k: float(np.mean([c[k] for c in per_seed])) for k in ("tokens", "seconds", "operations")}
            for name, per_seed in found.items()}


def public_tasks(folder, name):
    """{task: {measure: mean over seeds}} of an arm's last (of `ref` best) weights on eval_math.py's public
    tasks. `start` are the weights that all arms began with (runs/gpt2_math.sh)."""
    where, weights = os.path.join("seed*", name, "eval"), "ckpt"
    if name == "start":
        where, weights = "start_eval", None  # whatever their file is called
    elif name == "ref":
        weights = "best"
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, where, "summary.jsonl"))):
        latest = {}  # {task: record}: one a seed, however often it was evaluated
        for r in read_jsonl(path):
            if r.get("task", "demo") != "demo" and weights in (None, r["ckpt"]):
                latest[r["task"]] = r
        for task, r in latest.items():
            found.setdefault(task, []).append(r)
    return {task: {k: interval([r.get(k) for r in rows]) for k in ("accuracy", "solution_loss")}
            for task, rows in found.items()}


def taken(results):
    """The measures that were taken of any arm."""
    return [m for m in MEASURES if any(arm["final"].get(m) for arm in results["arms"].values())]


def drawn_over_time(results, measure):
    """Whether an arm has more than its end of a measure."""
    arms = [results["arms"][name] for name in ARMS if name in results["arms"]]
    runs = [run for arm in arms for run in arm["seeds"].values()]
    return any(len(run["curves"].get(measure, [[]])[0]) > 1 for run in runs)


# -------------------------------------------------------------------------------------------------- figures

def headline(results, path):
    """Accuracy, test loss and the loss on results against tokens: a line for each arm, a band from the lowest
    seed to the highest, and a star where its fine-tuning ends."""
    plt, arms = pyplot(), results["arms"]
    measures = [m for m in taken(results) if drawn_over_time(results, m)] or taken(results)
    panels = [pick for pick in (
        next((m for m in ("accuracy_0", "accuracy") if m in measures), None),
        next((m for m in ("masked", "test_loss") if m in measures), None),
        next((m for m in ("masked_result", "solution_loss") if m in measures), None)) if pick]
    fig, axes = plt.subplots(1, len(panels), figsize=(1 + 5 * len(panels), 5), squeeze=False)
    for ax, measure in zip(axes[0], panels):
        floor, top = [], 0.0
        for name, arm in ARMS.items():
            if name not in arms or not all(measure in s["curves"] for s in arms[name]["seeds"].values()):
                continue  # it has figures of its end alone
            curve = mean_curve([s["curves"][measure] for s in arms[name]["seeds"].values()])
            at, strong = millions(curve["x"]), name in ("clm", "slm")
            ax.plot(at, curve["mean"], color=arm.colour, label=arm.name, lw=2.2 if strong else 1.2,
                    zorder=3 if strong else 2)
            ax.fill_between(at, curve["low"], curve["high"], color=arm.colour, alpha=0.12, lw=0)
            floor.append(curve["mean"].min())
            top = max(top, curve["mean"].max())
            tuned = arms.get(f"{name}_tuned")
            if tuned and tuned["final"][measure]:
                floor.append(tuned["final"][measure]["mean"])
                ax.plot(at[-1] * 1.04, tuned["final"][measure]["mean"], "*", ms=11, color=arm.colour)
        if "ref" in arms and arms["ref"]["final"][measure]:
            ax.axhline(arms["ref"]["final"][measure]["mean"], color="black", ls=":", lw=1,
                       label="reference model alone")
        if MEASURES[measure].better < 0 and floor:
            ax.set_ylim(0.9 * min(floor), min(3 * min(floor), 1.02 * top))
        ax.set(title=MEASURES[measure].title, xlabel="million tokens")
    axes[0][0].legend(fontsize=8)
    stars = ", stars: fine-tuned afterwards" if any(name.endswith("_tuned") for name in arms) else ""
    n = len(results["seeds"])
    band = ", band: lowest to highest" if n > 1 else ""
    save_figure(fig, path, f"What the loss counts, and what comes of it; {seeds_text(n)}{band}{stars}")


def selection_figure(results, path):
    """Why it works: precision and recall of the useful tokens by true label, the share selected of each
    label, and the loss of the selected and the unselected."""
    plt = pyplot()
    arms = [name for name in ("slm", "documents", "random", "high_loss", "low_ref")
            if results["arms"].get(name, {}).get("selection")]
    fig, (precision, shares, losses) = plt.subplots(1, 3, figsize=(15, 4.8))
    for name in arms:
        curves, arm = results["arms"][name]["selection"], ARMS[name]
        for key, style in (("precision", "-"), ("recall", "--")):
            if key in curves:
                precision.plot(millions(curves["tokens"]), curves[key], style, color=arm.colour,
                               label=f"{arm.name}: {key}")
    slm = results["arms"].get("slm", {}).get("selection") or {}
    for label, colour in LABEL_COLOURS.items():
        if f"selected_{label}" in slm:
            shares.plot(millions(slm["tokens"]), slm[f"selected_{label}"], color=colour, label=label)
    for key, style in (("selected_loss", "-"), ("unselected_loss", "--")):
        if key in slm:
            losses.plot(millions(slm["tokens"]), slm[key], style, color="tab:blue",
                        label=key.replace("_", " "))
    precision.set_title("selection of useful tokens, by true label")
    shares.set_title("SLM: fraction selected of each true label")
    losses.set_title("SLM: loss on the noisy corpus")
    for ax in (precision, shares, losses):
        ax.set_xlabel("million tokens")
        if ax.lines:
            ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=2)
        else:
            ax.text(0.5, 0.5, "not logged: no such run, or no true labels", ha="center",
                    transform=ax.transAxes)
    save_figure(fig, path)


# --------------------------------------------------------------------------------------------------- tables

def table(results, measures=()):
    """The results in Markdown: final figures of each arm, SLM less each control, the tokens saved, and what
    it all cost. measures: those to show, all if none is named."""
    n, measures = len(results["seeds"]), [m for m in taken(results) if not measures or m in measures]
    headings = [MEASURES[m].heading for m in measures]
    rows = [[NAMES[name], str(len(arm["seeds"])), *(cell(arm["final"][m], m) for m in measures)]
            for name, arm in results["arms"].items()]
    lines = ["Final figures, mean over seeds" + (" (95% interval)" if n > 1 else "") + ":", "",
             *table_lines(["arm", "seeds", *headings], rows)]
    if n > 1:
        differences = [d[m] for d in results["slm_minus"].values() for m in measures
                       if d[m] and d[m]["n"] > 1]
        n_clear = sum(d["low"] > 0 or d["high"] < 0 for d in differences)
        rows = [[NAMES[name], *(cell(less[m], m, sign=True) for m in measures)]
                for name, less in results["slm_minus"].items()]
        lines += ["", f"SLM less the arm, paired by seed (95% interval); fine-tuned SLM less what is "
                  f"fine-tuned. Of these {len(differences)} intervals {n_clear} exclude 0; if nothing "
                  f"differed, {0.05 * len(differences):.1f} would by chance:", "",
                  *table_lines(["arm", *headings], rows)]
    saved = [m for m in measures if any(any(s[m]) for s in results["token_saving"].values())]
    if "masked" in saved:
        saved = [m for m in saved if m not in ("test_loss", "solution_loss")]  # these count unlearned noise
    rows = [[NAMES[name], *(saving_text(saving[m]) for m in saved)]
            for name, saving in results["token_saving"].items()]
    if saved:
        lines += ["", "Tokens that the arm needs for its final figure, over the tokens that SLM needs to "
                  "reach it and stay there: the median of the seeds (lowest to highest). &ge; where SLM was "
                  "there at its first evaluation, and perhaps before:", "",
                  *table_lines(["arm", *(MEASURES[m].heading for m in saved)], rows)]
    if "tasks" in results:
        lines += ["", "Few-shot accuracy on public tasks, and loss of the right solutions:", "",
                  *task_lines(results["tasks"])]
    if "cost" in results:
        lines += ["", "Cost (mean over seeds):", "", *cost_lines(results["cost"])]
    return "\n".join(lines) + "\n"


def cost_lines(cost):
    """Two accounts: what a run costs where the reference model exists, and what all costs from the
    beginning, with what the arms start from (the base, where there is no run `start`), what they were before
    their fine-tuning, and for those that need it the reference model and its scoring."""
    def operations(*names):
        return sum(cost[name]["operations"] for name in names if name in cost)
    rows = []
    for name, c in cost.items():
        all_of_it = ""
        if name not in STEPS:
            arm = name.removesuffix("_tuned")
            parts = {name, arm, "start" if "start" in cost else "base"}
            if arm in ("slm", "slm_filtered", "documents", "documents_excess", "low_ref"):
                parts |= {"base", "ref", "score"}
            elif arm == "distill":
                parts |= {"base", "ref"}
            again = operations("score") if arm == "documents_excess" else 0  # the base scores the text too
            all_of_it = f"{(operations(*sorted(parts)) + again) / 1e12:.1f}"
        rows.append([{**NAMES, **STEPS}[name], f"{c['tokens']:,.0f}", f"{c['seconds']:.0f}",
                     f"{c['operations'] / 1e12:.1f}", all_of_it])
    return table_lines(["run", "tokens", "seconds", "operations, 10^12", "from the beginning"], rows)


def task_lines(by_arm):
    """The table of the public tasks. by_arm: {arm: {task: {measure: interval}}}."""
    tasks = list(dict.fromkeys(task for found in by_arm.values() for task in found))
    rows = []
    for name, found in by_arm.items():
        row = [NAMES[name]]
        for task in tasks:
            if task in found:
                accuracy, loss = cell(found[task]["accuracy"], "accuracy"), cell(found[task]["solution_loss"])
                row.append(f"{accuracy}, {loss}")
            else:
                row.append("")
        rows.append(row)
    return table_lines(["arm", *tasks], rows)


def main(cfg):
    results = pool(cfg.pool) if cfg.pool else collect(cfg.runs)
    for name in set(cfg.measures) - set(taken(results)):
        raise BadInput(f"{name} was measured of no run in {' '.join(cfg.pool) or cfg.runs}; there are "
                       f"{', '.join(taken(results))}")
    drawings = {"headline.png": headline}
    if not cfg.pool:
        drawings["selection.png"] = selection_figure
    write_report(cfg.out or cfg.runs, results, table(results, cfg.measures), drawings)


if __name__ == "__main__":
    run(main, Config, __doc__)
