"""
Figures and tables from run folders alone.

    python plot.py --runs out/demo       # out/demo/results.json, headline.png, selection.png, table.md

RUNS holds a folder per seed (seed0, seed1, ...), each with the runs base, ref, scores and one per arm (a
way of training), as runs/demo.sh and runs/seeds.sh make them. Intervals are 95% t-intervals over seeds.
"""
import glob
import os
from dataclasses import dataclass

import numpy as np

from engine.cli import BadInput, run
from engine.files import read_json, read_jsonl
from engine.report import (HEADINGS, MEASURES, Arm, cell, cells, interval, mean_curve, mean_text, millions,
                           paired_interval, pyplot, read_run, save_figure, seeds_text, selection_curves,
                           table_lines, write_report)

ARMS = {  # by run folder
    "clm": Arm("CLM (all tokens)", "tab:gray"),
    "clm_mixed": Arm("CLM on noisy + curated", "tab:brown"),
    "clm_curated": Arm("CLM on curated alone", "black"),
    "random": Arm("random tokens", "tab:olive"),
    "high_loss": Arm("highest loss (no reference)", "tab:red"),
    "low_ref": Arm("lowest reference loss", "tab:purple"),
    "clm_lr3": Arm("CLM, learning rate x 3", "tab:pink"),
    "slm": Arm("SLM (excess loss)", "tab:blue"),
    "slm_filtered": Arm("SLM, filtered backward", "tab:green"),
    "clm_tuned": Arm("CLM, then fine-tuned on curated", "tab:orange"),
    "slm_tuned": Arm("SLM, then fine-tuned on curated", "tab:cyan"),
}
NAMES = {"start": "the weights all began with", "ref": "reference model alone",
         **{folder: arm.name for folder, arm in ARMS.items()}}
COSTS = {"base": "base model (shared by all arms)", "ref": "reference model",
         "score": "scoring (forward only)", "clm": "one CLM run", "slm": "one SLM run"}
LABEL_COLOURS = {"question": "tab:cyan", "solution": "tab:green", "result": "lime", "wrong": "tab:red",
                 "irrelevant": "gray", "noise": "tab:purple"}


@dataclass
class Config:
    runs: str = "out/demo"   # folder with seed0, seed1, ...
    out: str = ""            # where the figures go (default: the same folder)

    def validate(self):
        return []


# --------------------------------------------------------------------------------------------- tokens saved

def tokens_to_reach(tokens, values, goal, higher_is_better=False):
    """Tokens at which a curve gets past `goal` and stays there (linear between points), or None if it does
    not.

    'Stays' because curves are noisy at the full learning rate: a passing dip does not count.
    """
    sign = 1 if higher_is_better else -1
    lead = sign * (np.asarray(values) - goal)
    behind = np.flatnonzero(lead < 0)
    if behind.size == 0:
        return float(tokens[0])
    i = behind[-1]
    if i == len(lead) - 1:
        return None
    return float(tokens[i] + (tokens[i + 1] - tokens[i]) * -lead[i] / (lead[i + 1] - lead[i]))


def token_saving(clm, arm, measure):
    """How many times fewer tokens a run of an arm needs for the final figure of CLM; both as read_run gives
    them.

    Returns {"times": None where it does not get there, "censored", "most"}, or None where the measure was
    not taken. The goal is CLM's figure at the end of its learning-rate decay, read off a curve whose own
    decay comes later: a conservative reading. All runs share their first point, the model they start from,
    so the next one is the first that counts. A run that is past the goal there may have passed it at any time
    before: its saving is censored, and at least `most`.
    """
    x = "accuracy_tokens" if measure == "accuracy" else "tokens"
    if not clm[measure] or len(arm[measure]) < 2:
        return None
    at = tokens_to_reach(arm[x], arm[measure], clm[measure][-1], MEASURES[measure].better > 0)
    first, end = arm[x][1], clm[x][-1]
    return {"times": None if at is None else end / max(at, first), "censored": at is not None and at <= first,
            "most": end / first}


def saving_over_seeds(savings):
    """One entry of results["token_saving"], from the `token_saving` of each seed.

    The geometric mean and its interval, where all seeds get there and no saving is censored. Where all get
    there and one is censored, its true value may be anything above, and the median of the seeds stands
    alone.
    """
    not_measured = {"times": None, "censored": False, "most": 0}
    savings = [s or not_measured for s in savings]
    times = [s["times"] for s in savings]
    entry = {"per_seed": times, "censored": [s["censored"] for s in savings],
             "most": max(s["most"] for s in savings)}
    if None in times:
        return entry  # a mean over those that get there would flatter the arm
    if any(entry["censored"]):
        entry["median"] = float(np.median(times))
    else:
        entry |= interval(times, ratios=True)
    return entry


def saving_text(saving):
    """An entry of results["token_saving"] as text: '2.3x (1.6 to 3.3)', or '>= 40.0x (first point of the
    grid)' where no more is known."""
    n = len(saving["per_seed"])
    n_reached = sum(times is not None for times in saving["per_seed"])
    if not saving["most"]:
        return ""  # not measured
    if n_reached == 0:
        return "not reached"
    if n_reached < n:
        return f"reached in {n_reached} of {seeds_text(n)}"
    n_censored = sum(saving["censored"])
    if n_censored:
        where = "first point of the grid" + (f" in {n_censored} of {n} seeds" if n_censored < n else "")
        known = [times for times, censored in zip(saving["per_seed"], saving["censored"]) if not censored]
        # A censored saving is above all known ones. Where the median is too, it is that of a censored seed.
        at_least = "" if known and saving["median"] <= max(known) else ">= "
        return f"{at_least}{saving['median']:.1f}x ({where})"
    text = f"{saving['mean']:.1f}x"
    if n > 1 and saving["low"] < saving["high"]:
        text += f" ({saving['low']:.1f} to {saving['high']:.1f})"
    return text


# -------------------------------------------------------------------------------------------------- results

def collect(folder):
    """What results.json holds: of each arm the curves and final figures of every seed, SLM less the arm,
    the tokens saved, and the costs. Raises BadInput where no seed has a finished run of CLM."""
    runs = {}  # {seed: {run folder: read_run of it}}
    for path in sorted(glob.glob(os.path.join(folder, "seed*"))):
        found = {name: read_run(os.path.join(path, name)) for name in [*ARMS, "base", "ref"]}
        if found["clm"]:
            runs[os.path.basename(path)] = {name: r for name, r in found.items() if r}
    if not runs:
        raise BadInput(f"{folder} has no seed*/clm with a finished run: run runs/demo.sh first")
    results = {"seeds": list(runs), "arms": {}, "slm_minus": {}, "token_saving": {}, "cost": {}}
    for name in [*ARMS, "ref"]:
        per_seed = {seed: r[name] for seed, r in runs.items() if name in r}
        if not per_seed:
            continue
        results["arms"][name] = summary(per_seed)
        pairs = [(runs[seed]["slm"]["final"], r["final"]) for seed, r in per_seed.items()
                 if "slm" in runs[seed]]
        if pairs and name != "slm":
            results["slm_minus"][name] = {
                measure: paired_interval([(slm.get(measure), other.get(measure)) for slm, other in pairs])
                for measure in MEASURES}
        if name not in ("ref", "clm") and not name.endswith("_tuned"):
            clm_and_arm = [(runs[seed]["clm"], r) for seed, r in per_seed.items()]
            results["token_saving"][name] = {
                measure: saving_over_seeds([token_saving(clm, r, measure) for clm, r in clm_and_arm])
                for measure in MEASURES}
    results["cost"] = costs(folder, runs)
    tasks = {name: public_tasks(folder, name) for name in ["start", "ref", *ARMS]}
    if any(tasks.values()):
        results["tasks"] = {name: found for name, found in tasks.items() if found}
    results["source"] = read_json(os.path.join(folder, next(iter(runs)), "clm", "config.json"))["source"]
    return results


def summary(per_seed):
    """One arm over its seeds. per_seed: {seed: read_run}."""
    ends = [r["final"] for r in per_seed.values()]
    return {
        "final": {measure: interval([end.get(measure) for end in ends]) for measure in MEASURES},
        "correct": sum(end.get("correct", 0) for end in ends),
        "n_problems": sum(end.get("total", 0) for end in ends),
        "seeds": {seed: {k: v for k, v in r.items() if k != "train"} for seed, r in per_seed.items()},
        "selection": selection_curves(per_seed.values()),
    }


def costs(folder, runs):
    """{step of the method: {"tokens", "seconds"}}, means over seeds."""
    found = {name: [r[name]["cost"] for r in runs.values() if name in r]
             for name in ("base", "ref", "clm", "slm")}
    paths = [os.path.join(folder, seed, "scores", "scores.json") for seed in runs]
    scores = [read_json(path) for path in paths if os.path.exists(path)]
    found["score"] = [{"tokens": s["rows_done"] * s["block_size"], "seconds": s["seconds"]} for s in scores]
    return {name: {k: float(np.mean([c[k] for c in per_seed])) for k in ("tokens", "seconds")}
            for name, per_seed in found.items() if per_seed}


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


# -------------------------------------------------------------------------------------------------- figures

def headline(results, path):
    """Test loss, loss on solution tokens and few-shot accuracy against tokens for all arms, a band from the
    lowest seed to the highest. An arrow for the tokens that SLM saves, where that is known: not for the
    test loss, where CLM ends about where it starts, so that SLM is past it before the first evaluation."""
    plt, arms = pyplot(), results["arms"]
    # Your own text may have no labels or problems.
    panels = [measure for measure in MEASURES if arms["clm"]["final"][measure]]
    fig, axes = plt.subplots(1, len(panels), figsize=(1 + 5 * len(panels), 4.6), squeeze=False)
    for ax, measure in zip(axes[0], panels):
        x = "accuracy_tokens" if measure == "accuracy" else "tokens"
        top = 0.0
        for name, arm in ARMS.items():
            if name not in arms or name.endswith("_tuned"):
                continue
            if not any(seed[measure] for seed in arms[name]["seeds"].values()):
                continue  # it has figures of its end alone
            curve = mean_curve(arms[name]["seeds"], x, measure)
            strong = name in ("clm", "slm")
            at = millions(curve["x"])
            ax.plot(at, curve["mean"], color=arm.colour, label=arm.name, lw=2.2 if strong else 1.2,
                    zorder=3 if strong else 2)
            ax.fill_between(at, curve["low"], curve["high"], color=arm.colour, alpha=0.15, lw=0)
            if name in ("clm", "slm", "clm_mixed"):
                top = max(top, curve["mean"].max())
        if "ref" in arms and arms["ref"]["final"][measure]:
            ax.axhline(arms["ref"]["final"][measure]["mean"], color="black", ls=":", lw=1,
                       label="reference model alone (best)")
        if measure != "test_loss":
            saving_arrow(ax, results, measure, x)
        if measure != "accuracy":
            ax.set_ylim(top=top * 1.15)
        ax.set(title=MEASURES[measure].title, xlabel="million tokens after the base model")
    axes[0][0].legend(fontsize=8)
    n = len(results["seeds"])
    band = ", band: lowest to highest" if n > 1 else ""
    save_figure(fig, path, f"Selected tokens against all; {seeds_text(n)}{band}")


def saving_arrow(ax, results, measure, x):
    """From where CLM ends to where SLM is as far, unless a seed never is or its saving is censored."""
    saving = results["token_saving"].get("slm", {}).get(measure, {})
    if not saving.get("mean") or any(saving["censored"]) or None in saving["per_seed"]:
        return
    clm = results["arms"]["clm"]
    end, goal = millions(clm["seeds"][results["seeds"][0]][x][-1]), clm["final"][measure]["mean"]
    at = end / saving["mean"]
    ax.annotate("", (at, goal), (end, goal), arrowprops={"arrowstyle": "->", "lw": 1.5}, zorder=5)
    ax.text((at + end) / 2, goal, f"{saving['mean']:.1f}x fewer tokens", ha="center", va="bottom", zorder=5)


def selection_figure(results, path):
    """Why it works: precision and recall of the useful tokens by true label, the share selected of each
    label, and the loss of the selected and the unselected."""
    plt = pyplot()
    arms = [name for name in ("slm", "random", "high_loss", "low_ref")
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
        ax.set_xlabel("million tokens after the base model")
        if ax.lines:
            ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=2)
        else:
            ax.text(0.5, 0.5, "not logged: no such run, or no true labels", ha="center",
                    transform=ax.transAxes)
    save_figure(fig, path)


def table(results):
    """The results in Markdown: final figures of each arm, the tokens saved, and what it all cost."""
    n, arms = len(results["seeds"]), results["arms"]
    rows = []
    for name in ["ref", *ARMS]:
        if name in arms:
            n_problems = arms[name]["n_problems"]
            correct = f"{arms[name]['correct']} / {n_problems}" if n_problems else ""
            rows.append([NAMES[name], *cells(arms[name]["final"]), correct])
    lines = [f"Final figures, {mean_text(n)}", "", *table_lines(["arm", *HEADINGS, "correct"], rows)]
    if n > 1:
        rows = [[NAMES[name], *cells(less, sign=True)] for name, less in results["slm_minus"].items()]
        lines += ["", "SLM less the arm, paired by seed (95% interval):", "",
                  *table_lines(["arm", *HEADINGS], rows)]
    rows = [[NAMES[name], *(saving_text(saving[measure]) for measure in MEASURES)]
            for name, saving in results["token_saving"].items()]
    what = "Tokens CLM needs for its final figure, over the tokens the arm needs to reach it and stay there"
    how = " (geometric mean, 95% interval)" if n > 1 else ""
    lines += ["", f"{what}{how}:", "", *table_lines(["arm", *HEADINGS], rows)]
    if any("first point" in text for row in rows for text in row):
        lines += ["", "First point of the grid: there at the first evaluation, and perhaps before. A seed's "
                  "saving is then a lower bound, and the cell is the median over seeds."]
    if "tasks" in results:
        lines += ["", "Few-shot accuracy on public tasks, and loss of the right solutions:", "",
                  *task_lines(results["tasks"])]
    rows = [[label, f"{results['cost'][name]['tokens']:,.0f}", f"{results['cost'][name]['seconds']:.0f}"]
            for name, label in COSTS.items() if name in results["cost"]]
    lines += ["", "Cost (mean over seeds):", "", *table_lines(["step", "tokens", "seconds"], rows)]
    return "\n".join(lines) + "\n"


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
    results = collect(cfg.runs)
    write_report(cfg.out or cfg.runs, results, table(results),
                 {"headline.png": headline, "selection.png": selection_figure})


if __name__ == "__main__":
    run(main, Config, __doc__)
