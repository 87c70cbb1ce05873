"""
Figures and tables from run folders alone.

    python plot.py --runs out/demo       # out/demo/results.json, headline.png, selection.png, table.md

RUNS holds a folder per seed (seed0, seed1, ...), each with the runs base, ref, scores and one per arm, as
runs/demo.sh and runs/seeds.sh make them. Intervals are 95% t-intervals over seeds.
"""
import glob
import os
from dataclasses import dataclass

import numpy as np

from common import BadInput, read_json, read_jsonl, replacing, run, write_json

ARMS = {  # run folder: (name in figures and tables, colour)
    "clm": ("CLM (all tokens)", "tab:gray"),
    "clm_mixed": ("CLM on noisy + curated", "tab:brown"),
    "clm_curated": ("CLM on curated alone", "black"),
    "random": ("random tokens", "tab:olive"),
    "high_loss": ("highest loss (no reference)", "tab:red"),
    "low_ref": ("lowest reference loss", "tab:purple"),
    "clm_lr3": ("CLM, learning rate x 3", "tab:pink"),
    "slm": ("SLM (excess loss)", "tab:blue"),
    "slm_filtered": ("SLM, filtered backward", "tab:green"),
    "clm_tuned": ("CLM, then fine-tuned on curated", "tab:orange"),
    "slm_tuned": ("SLM, then fine-tuned on curated", "tab:cyan"),
}
MEASURES = ("target_loss", "solution_loss", "accuracy")
# Two-sided 95% points of Student's t, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass
class Config:
    runs: str = "out/demo"   # folder with seed0, seed1, ...
    out: str = ""            # where the figures go (default: the same folder)

    def validate(self):
        return []


def interval(values, ratios=False):
    """{"mean", "low", "high", "n"} of the values (None is left out): mean and 95% t-interval over seeds (one seed has no
    interval). Of ratios, the geometric mean: 2x and 1/2 cancel, and the interval cannot fall below 0."""
    v = np.array([x for x in values if x is not None], dtype=float)
    if v.size == 0:
        return None
    v, back = (np.log(v), np.exp) if ratios else (v, float)
    if v.size == 1:
        return {"mean": float(back(v[0])), "low": None, "high": None, "n": 1}
    half = T95.get(v.size - 1, 2.262) * v.std(ddof=1) / np.sqrt(v.size)
    return {"mean": float(back(v.mean())), "low": float(back(v.mean() - half)), "high": float(back(v.mean() + half)),
            "n": int(v.size)}


def tokens_to_reach(tokens, values, goal, higher_is_better=False):
    """Tokens at which a curve gets past `goal` and stays there (linear between points), or None if it does not.

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


def read_run(folder):
    """What a finished training run logged: curves, final figures, cost; None while it is not finished.

    The final figures are those of the last weights; of a run on the curated side, which can overfit, those of its
    best weights by dev loss (best.pt), which are the ones that are used.
    """
    if not os.path.exists(os.path.join(folder, "done.json")):
        return None
    records = read_jsonl(os.path.join(folder, "metrics.jsonl"))
    evals = [r for r in records if r["kind"] == "eval"]
    summary = [r for r in read_jsonl(os.path.join(folder, "eval", "summary.jsonl")) if r.get("task", "demo") == "demo"]
    accuracy = sorted({r["step"]: r for r in summary if r["ckpt"].startswith(("step_", "ckpt"))}.values(), key=lambda r: r["step"])
    if read_json(os.path.join(folder, "config.json"))["config"]["train"] == "curated":
        end, graded = min(evals, key=lambda r: r["dev_loss"]), [r for r in summary if r["ckpt"] == "best"]
    else:
        end, graded = evals[-1], accuracy
    return {
        "tokens": [r["tokens"] for r in evals], "target_loss": [r["target_loss"] for r in evals],
        "solution_loss": [r["solution_loss"] for r in evals if r["solution_loss"] is not None],
        "accuracy_tokens": [r["tokens"] for r in accuracy], "accuracy": [r["accuracy"] for r in accuracy],
        "train": [r for r in records if r["kind"] == "train"],
        "cost": {"tokens": evals[-1]["tokens"], "seconds": evals[-1]["seconds"]},
        "final": {"tokens": end["tokens"], "target_loss": end["target_loss"], "solution_loss": end["solution_loss"],
                  **({k: graded[-1][k] for k in ("accuracy", "correct", "total", "low", "high")} if graded else {})},
    }


def token_saving(clm, run):
    """How many times fewer tokens `run` needs for the final figures of `clm`; None where it does not get there.

    The goal is CLM's figure at the end of its learning-rate decay, read off a curve whose own decay comes later: a
    conservative reading. All runs share their first point, so the second is the earliest that counts.
    """
    saving = {"most": {}}  # what a run that is there at its second point gets: the true saving is at least that
    for name, x, higher in (("target_loss", "tokens", False), ("solution_loss", "tokens", False),
                            ("accuracy", "accuracy_tokens", True)):
        saving[name] = saving["most"][name] = None
        if clm[name] and run[name]:
            at = tokens_to_reach(run[x], run[name], clm[name][-1], higher)
            saving["most"][name] = clm[x][-1] / run[x][1]
            saving[name] = clm[x][-1] / max(at, run[x][1]) if at is not None else None
    return saving


def collect(folder):
    """results.json: per arm and seed the curves and final figures, token_saving over seeds, and the costs."""
    seeds = sorted(glob.glob(os.path.join(folder, "seed*")))
    runs = {os.path.basename(s): {name: r for name in [*ARMS, "base", "ref"] if (r := read_run(os.path.join(s, name)))}
            for s in seeds}
    runs = {s: r for s, r in runs.items() if "clm" in r}
    if not runs:
        raise BadInput(f"{folder} has no seed*/clm with a finished run: run runs/demo.sh first")
    results = {"seeds": list(runs), "arms": {}, "slm_minus": {}, "token_saving": {}, "cost": {}}
    for arm in [*ARMS, "ref"]:
        per_seed = {s: r[arm] for s, r in runs.items() if arm in r}
        if per_seed:
            ends = [r["final"] for r in per_seed.values()]
            results["arms"][arm] = {
                "final": {k: interval([e.get(k) for e in ends]) for k in MEASURES},
                "correct": sum(e.get("correct", 0) for e in ends), "n_problems": sum(e.get("total", 0) for e in ends),
                "seeds": {s: {k: v for k, v in r.items() if k != "train"} for s, r in per_seed.items()},
                "selection": selection_curves(per_seed.values()),
            }
        pairs = [(r["slm"]["final"], r[arm]["final"]) for r in runs.values() if "slm" in r and arm in r]
        if pairs and arm != "slm":  # paired by seed: the seeds' common ups and downs cancel
            results["slm_minus"][arm] = {
                k: interval([a[k] - b[k] for a, b in pairs if a.get(k) is not None and b.get(k) is not None])
                for k in MEASURES}
        if arm in ARMS and arm != "clm" and not arm.endswith("_tuned"):
            savings = [token_saving(r["clm"], r[arm]) for r in runs.values() if arm in r]
            if savings:
                results["token_saving"][arm] = {
                    k: {**(interval([x[k] for x in savings], ratios=True) or {}), "per_seed": [x[k] for x in savings],
                        "most": max(x["most"][k] or 0 for x in savings)}
                    for k in MEASURES}
    for name in ("base", "ref", "clm", "slm"):
        costs = [r[name]["cost"] for r in runs.values() if name in r]
        if costs:
            results["cost"][name] = {k: float(np.mean([c[k] for c in costs])) for k in ("tokens", "seconds")}
    paths = [os.path.join(folder, s, "scores", "scores.json") for s in runs]
    scores = [read_json(p) for p in paths if os.path.exists(p)]
    if scores:
        results["cost"]["score"] = {"tokens": float(np.mean([s["rows_done"] * s["block_size"] for s in scores])),
                                    "seconds": float(np.mean([s["seconds"] for s in scores]))}
    tasks = {arm: found for arm in ["start", "ref", *ARMS] if (found := public_tasks(folder, arm))}
    if tasks:
        results["tasks"] = tasks
    results["source"] = read_json(os.path.join(folder, next(iter(runs)), "clm", "config.json"))["source"]
    return results


def public_tasks(folder, arm):
    """{task: {measure: mean over seeds}} of an arm's last (of `ref` best) weights on eval_math.py's public tasks. `start` are
    the weights that all arms began with (runs/gpt2_math.sh)."""
    pattern = os.path.join(folder, "start_eval" if arm == "start" else os.path.join("seed*", arm, "eval"), "summary.jsonl")
    found = {}
    for path in sorted(glob.glob(pattern)):
        for r in read_jsonl(path):
            if r.get("task", "demo") != "demo" and (arm == "start" or r["ckpt"] == ("best" if arm == "ref" else "ckpt")):
                found.setdefault(r["task"], []).append(r)
    return {task: {k: interval([r.get(k) for r in rows]) for k in ("accuracy", "solution_loss")} for task, rows in found.items()}


def selection_curves(runs, n_bins=20):
    """Means over seeds and over `n_bins` stretches of training of what was selected and its loss."""
    keys = ("corpus_loss", "selected_loss", "unselected_loss", "precision", "recall", "kept_question", "kept_solution",
            "kept_result", "kept_irrelevant", "kept_noise", "kept_wrong")
    records = [r for run in runs for r in run["train"] if r.get("unselected_loss") is not None]
    if not records:
        return None
    tokens = np.array([r["tokens"] for r in records])
    n_bins = min(n_bins, len(set(tokens.tolist())))
    edges = np.linspace(0, tokens.max() + 1, n_bins + 1)
    which = np.digitize(tokens, edges) - 1
    curves = {"tokens": ((edges[:-1] + edges[1:]) / 2).round().tolist()}
    for key in keys:
        values = np.array([np.nan if r.get(key) is None else r[key] for r in records], dtype=float)
        if not np.isnan(values).all():
            curves[key] = [float(np.nanmean(values[which == b])) for b in range(n_bins)]
    return curves


# ---------------------------------------------------------------------------------------------------- figures

def millions(tokens):
    return np.asarray(tokens) / 1e6


def mean_curve(seeds, x, y):
    """Mean of the seeds' curves and their lowest and highest, at the x of the first seed."""
    curves = np.array([s[y] for s in seeds.values() if s[y]])
    grid = next(iter(seeds.values()))[x]
    return grid, curves.mean(axis=0), curves.min(axis=0), curves.max(axis=0)


def headline(results, path):
    """Target loss, loss on solution tokens and few-shot accuracy against tokens for all arms, the saving marked."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    panels = [("target_loss", "tokens", "loss on held-out curated text"),
              ("solution_loss", "tokens", "... on its solution tokens"),
              ("accuracy", "accuracy_tokens", "few-shot accuracy")]
    panels = [p for p in panels if results["arms"]["clm"]["final"][p[0]]]  # your own text may have no labels or problems
    fig, axes = plt.subplots(1, len(panels), figsize=(1 + 5 * len(panels), 4.6), squeeze=False)
    for ax, (key, x, title) in zip(axes[0], panels):
        top = 0.0
        for arm, (label, colour) in ARMS.items():
            if arm not in results["arms"] or arm.endswith("_tuned") or not results["arms"][arm]["final"][key]:
                continue
            grid, mean, low, high = mean_curve(results["arms"][arm]["seeds"], x, key)
            strong = arm in ("clm", "slm")
            ax.plot(millions(grid), mean, color=colour, label=label, lw=2.2 if strong else 1.2, zorder=3 if strong else 2)
            ax.fill_between(millions(grid), low, high, color=colour, alpha=0.15, lw=0)
            top = max(top, mean.max() if arm in ("clm", "slm", "clm_mixed") else 0)
        clm, saving = results["arms"]["clm"]["final"][key], results["token_saving"].get("slm", {}).get(key, {})
        if results["arms"].get("ref") and results["arms"]["ref"]["final"][key]:
            ax.axhline(results["arms"]["ref"]["final"][key]["mean"], color="black", ls=":", lw=1,
                       label="reference model alone (best)")
        if clm and saving.get("mean") and all(saving["per_seed"]):
            end = millions(results["arms"]["clm"]["seeds"][results["seeds"][0]][x][-1])
            at = end / saving["mean"]
            ax.annotate("", (at, clm["mean"]), (end, clm["mean"]), arrowprops={"arrowstyle": "->", "lw": 1.5}, zorder=5)
            ax.text((at + end) / 2, clm["mean"], saving_text(saving) + " fewer tokens", ha="center", va="bottom", zorder=5)
        if key != "accuracy":
            ax.set_ylim(top=top * 1.15)
        ax.set(title=title, xlabel="million tokens after the base model")
        ax.grid(alpha=0.2)
    axes[0][0].legend(fontsize=8)
    n = len(results["seeds"])
    fig.suptitle(f"Selected tokens against all; {n} seed{'s' * (n > 1)}"
                 + (", band: lowest to highest" if n > 1 else ""))
    save_figure(fig, path)


def saving_text(saving):
    """'4.2x', or 'at least 40.0x' where a seed was there at the first evaluation that counts: it may have been earlier."""
    censored = max(saving["per_seed"]) >= saving["most"] * 0.999
    return f"{'at least ' * censored}{saving['mean']:.1f}x"


def selection_figure(results, path):
    """Why it works: precision and recall against the true labels, fractions kept by label, loss on selected and unselected."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    arms = [a for a in ("slm", "random", "high_loss", "low_ref") if results["arms"].get(a, {}).get("selection")]
    fig, axes = plt.subplots(1, 3, figsize=(15, 4.8))
    for arm in arms:
        label, colour = ARMS[arm]
        curves = results["arms"][arm]["selection"]
        if "precision" in curves:
            axes[0].plot(millions(curves["tokens"]), curves["precision"], color=colour, label=f"{label}: precision")
            axes[0].plot(millions(curves["tokens"]), curves["recall"], color=colour, ls="--", label=f"{label}: recall")
    slm = results["arms"].get("slm", {}).get("selection") or {}
    for label, colour in (("question", "tab:cyan"), ("solution", "tab:green"), ("result", "lime"), ("wrong", "tab:red"),
                          ("irrelevant", "gray"), ("noise", "tab:purple")):
        if f"kept_{label}" in slm:
            axes[1].plot(millions(slm["tokens"]), slm[f"kept_{label}"], color=colour, label=label)
    for key, style in (("selected_loss", "-"), ("unselected_loss", "--")):
        if key in slm:
            axes[2].plot(millions(slm["tokens"]), slm[key], style, color="tab:blue", label=key.replace("_", " "))
    for ax, title in zip(axes, ("selection of useful tokens, by true label", "SLM: fraction selected of each true label",
                                "SLM: loss on the noisy corpus")):
        ax.set(title=title, xlabel="million tokens after the base model")
        ax.grid(alpha=0.2)
        if not ax.lines:
            ax.text(0.5, 0.5, "this corpus has no true labels", ha="center", transform=ax.transAxes)
            continue
        ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=3)
    save_figure(fig, path)


def save_figure(fig, path):
    fig.tight_layout()
    with replacing(path, "wb") as f:
        fig.savefig(f, format="png", dpi=110)


def table(results):
    """The results in Markdown: final figures of each arm, the saving, and what it all cost."""
    n = len(results["seeds"])

    def cell(v, percent=False):
        if v is None:
            return ""
        f = (lambda x: f"{100 * x:.1f}%") if percent else (lambda x: f"{x:.3f}")
        return f(v["mean"]) + (f" ({f(v['low'])} to {f(v['high'])})" if v["n"] > 1 else "")

    names = {"ref": "reference model alone", **{arm: name for arm, (name, _) in ARMS.items()}}
    lines = [f"Final figures, mean over {n} seed{'s' * (n > 1)}" + (" (95% interval)" if n > 1 else "") + ":", "",
             "| arm | target loss | on solution tokens | few-shot accuracy | correct |", "|---|---|---|---|---|"]
    for arm in ["ref", *ARMS]:
        if arm in results["arms"]:
            a = results["arms"][arm]
            lines.append(f"| {names[arm]} | {cell(a['final']['target_loss'])} | {cell(a['final']['solution_loss'])} "
                         f"| {cell(a['final']['accuracy'], True)} "
                         f"| {str(a['correct']) + ' / ' + str(a['n_problems']) if a['n_problems'] else ''} |")
    if n > 1:
        lines += ["", "SLM less the arm, paired by seed (95% interval):", "",
                  "| arm | target loss | on solution tokens | few-shot accuracy |", "|---|---|---|---|"]
        for arm, difference in results["slm_minus"].items():
            lines.append(f"| {names[arm]} | {cell(difference['target_loss'])} | {cell(difference['solution_loss'])} "
                         f"| {cell(difference['accuracy'], True)} |")
    lines += ["", "Tokens CLM needs for its final figure, over the tokens the arm needs to reach it and stay there"
              + (" (geometric mean, 95% interval):" if n > 1 else ":"), "",
              "| arm | target loss | on solution tokens | few-shot accuracy |", "|---|---|---|---|"]
    for arm, saving in results["token_saving"].items():
        cells = []
        for key in MEASURES:
            reached = [x for x in saving[key]["per_seed"] if x]
            if not saving[key]["most"]:
                cells.append("")  # not measured
            elif not reached:
                cells.append("not reached")
            elif len(reached) < n:
                cells.append(f"reached in {len(reached)} of {n} seeds")
            else:
                low, high = saving[key]["low"], saving[key]["high"]
                cells.append(saving_text(saving[key]) + (f" ({low:.1f} to {high:.1f})" if n > 1 and low < high else ""))
        lines.append(f"| {names[arm]} | " + " | ".join(cells) + " |")
    if "tasks" in results:
        lines += ["", "Few-shot accuracy on public tasks, and loss of the right solutions:", ""]
        tasks = list(dict.fromkeys(task for found in results["tasks"].values() for task in found))
        lines += ["| arm | " + " | ".join(tasks) + " |", "|---|" + "---|" * len(tasks)]
        for arm, found in results["tasks"].items():
            cells = [f"{cell(t['accuracy'], True)}, {cell(t['solution_loss'])}" if (t := found.get(task)) else "" for task in tasks]
            lines.append(f"| {(names | {'start': 'the weights all began with'})[arm]} | " + " | ".join(cells) + " |")
    lines += ["", "Cost (mean over seeds):", "", "| step | tokens | seconds |", "|---|---|---|"]
    steps = {"base": "base model (shared by all arms)", "ref": "reference model", "score": "scoring (forward only)",
             "clm": "one CLM run", "slm": "one SLM run"}
    for name, label in steps.items():
        if name in results["cost"]:
            lines.append(f"| {label} | {results['cost'][name]['tokens']:,.0f} | {results['cost'][name]['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def main(cfg):
    results = collect(cfg.runs)
    out = cfg.out or cfg.runs
    os.makedirs(out, exist_ok=True)
    write_json(os.path.join(out, "results.json"), results)
    text = table(results)
    with replacing(os.path.join(out, "table.md")) as f:
        f.write(text)
    headline(results, os.path.join(out, "headline.png"))
    selection_figure(results, os.path.join(out, "selection.png"))
    print(text)
    print(f"{out}: results.json, table.md, headline.png, selection.png")


if __name__ == "__main__":
    run(main, Config, __doc__)
