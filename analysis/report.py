"""What plot.py and this folder share: run folders as they are read, intervals, tables, figures."""
import os
import sys

import numpy as np

from engine.cli import BadInput
from engine.files import read_json, read_jsonl, replacing, write_json

MEASURES = {  # what a run is judged by, as tables say it
    "accuracy_0": "accuracy, no shots",
    "accuracy": "few-shot accuracy",
    "accuracy_tool": "accuracy, with a tool",
    "test_loss": "test loss",
    "solution_loss": "loss on solutions",
}
SHARES = ("accuracy_0", "accuracy", "accuracy_tool")  # higher is better; the other measures are losses
LABEL_COLOURS = {  # of the true labels: what is useful blue, the rest grey, a mistake red
    "question": (0.78, 0.87, 0.95), "solution": (0.42, 0.68, 0.84), "result": (0.03, 0.19, 0.42),
    "irrelevant": (0.95, 0.95, 0.95), "noise": (0.78, 0.78, 0.78), "wrong": (0.85, 0.2, 0.15),
    "output": (0.6, 0.6, 0.6)}
# Two-sided 95% points of Student's t, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def read_run(folder):
    """What a training run logged, and what was measured of it; None if it is unfinished. Raises BadInput.

        curves       {measure: [steps, tokens, values]}
        final        {measure: value}, and its `tokens`: of the last weights, or with --patience of the best
        train        the records of its steps
        on_policy    whether its tokens are generated ones (distillation/on_policy.py)
        source       the revision that trained it
    """
    if not os.path.exists(os.path.join(folder, "done.json")):
        return None
    records = read_jsonl(os.path.join(folder, "metrics.jsonl"))
    evals = [r for r in records if r["kind"] == "eval"]
    if not evals:
        raise BadInput(f"{folder} is a finished run without evaluations in metrics.jsonl: train it again")
    about, end = read_json(os.path.join(folder, "config.json")), evals[-1]
    if about["config"].get("patience", 0):
        end = min(evals, key=lambda r: r["val_loss"])
    curves, final = {}, {"tokens": end["tokens"]}
    for measure, points in measured(folder, evals).items():
        by_step = {step: (tokens, value) for step, tokens, value in points}  # of two results the later counts
        if by_step:
            in_order = [(step, *by_step[step]) for step in sorted(by_step)]
            curves[measure] = [list(column) for column in zip(*in_order)]
        if end["step"] in by_step:
            final[measure] = by_step[end["step"]][1]
    return {"curves": curves, "final": final, "train": [r for r in records if r["kind"] == "train"],
            "on_policy": "accuracy" in end, "source": about.get("source")}


def measured(folder, evals):
    """{measure: [(step, tokens, value)]}, by the run and eval_math.py."""
    graded = [r for name in ("eval", "eval0") for r in read_jsonl(os.path.join(folder, name, "summary.jsonl"))
              if r["task"] == "demo"]
    with_tool = [r for r in graded if "tool" in r]
    without_shots = [r for r in graded if "tool" not in r and r["shots"] == 0]
    with_shots = [r for r in graded if "tool" not in r and r["shots"] != 0]
    for results in (with_tool, without_shots, with_shots):
        must_be_comparable(folder, results, "tool", "shots", "total", "max_new_tokens")
    # On-policy distillation asks without shots too, and logs the answer at each evaluation.
    return {"test_loss": points(evals, "test_loss"), "solution_loss": points(evals, "solution_loss"),
            "accuracy": points(with_shots, "accuracy"), "accuracy_tool": points(with_tool, "accuracy"),
            "accuracy_0": points(evals, "accuracy") + points(without_shots, "accuracy")}


def points(records, name):
    """(step, tokens, value) of each record that has a value of this name."""
    return [(r["step"], r["tokens"], r[name]) for r in records if r.get(name) is not None]


def must_be_comparable(folder, records, *settings):
    """Raises BadInput where results of one run were measured with different settings."""
    for setting in settings:
        values = sorted({r.get(setting) for r in records}, key=str)
        if len(values) > 1:
            raise BadInput(f"{folder}/eval has results of different settings, which cannot be compared "
                           f"({setting}: {', '.join(map(str, values))}): delete those you do not want")


def selection_curves(runs, n_bins=20):
    """{name: [mean over the runs in each of n_bins stretches of training]} of what common.selection_stats
    logs, and the `tokens` of the stretches. None where all tokens were selected; in a curve, no value."""
    records = [r for run in runs for r in run["train"] if r.get("ratio", 1) < 1]
    if not records:
        return None
    tokens = np.array([r["tokens"] for r in records])
    n_bins = min(n_bins, len(set(tokens.tolist())))
    edges = np.linspace(0, tokens.max() + 1, n_bins + 1)
    which = np.digitize(tokens, edges) - 1                         # the stretch of each record
    curves = {"tokens": ((edges[:-1] + edges[1:]) / 2).round().tolist()}
    of_labels = [name for name in records[0] if name.startswith("selected_") and name != "selected_loss"]
    for name in ("selected_loss", "unselected_loss", "precision", "recall", *of_labels):
        means = []
        for stretch in range(n_bins):
            values = [r[name] for r, at in zip(records, which) if at == stretch and r.get(name) is not None]
            means.append(float(np.mean(values)) if values else None)
        if any(mean is not None for mean in means):
            curves[name] = means
    return curves


def mean_curve(curves):
    """The mean of the seeds' curves, [[x, values]], at each x that all have."""
    of_seed = [dict(zip(*curve)) for curve in curves]
    common = sorted(set.intersection(*map(set, of_seed)))
    return np.array([[curve[at] for at in common] for curve in of_seed]).mean(axis=0)     # of (seeds, points)


def interval(values):
    """{"mean", "low", "high", "n"}: of the values but None the mean, and the 95% t-interval from two on."""
    v = np.array([x for x in values if x is not None], dtype=float)
    if v.size == 0:
        return None
    found = {"mean": float(v.mean()), "low": None, "high": None, "n": v.size}
    if v.size > 1:
        half = T95.get(v.size - 1, T95[9]) * v.std(ddof=1) / np.sqrt(v.size)  # beyond ten seeds a little wide
        found |= {"low": float(v.mean() - half), "high": float(v.mean() + half)}
    return found


def paired(one, other):
    """The interval of one less the other, {seed: value} each, by seed: ups and downs that a seed has in both
    cancel."""
    return interval([one[seed] - other[seed] for seed in one if seed in other])


def cell(v, measure="", sign=False):
    """A mean and its interval as text, '0.443 (0.418 to 0.468)'. sign: v is a difference, not cut at 100%."""
    if v is None:
        return ""
    numbers = [v[key] for key in ("mean", "low", "high") if v[key] is not None]
    form = ".1%" if measure in SHARES else ".3f"
    if sign:
        form = f"+{form}"
    elif measure in SHARES:
        numbers = [min(1.0, max(0.0, x)) for x in numbers]
    mean, *ends = [format(x, form) for x in numbers]
    return f"{mean} ({' to '.join(ends)})" if ends else mean


def table_lines(headings, rows):
    """Lines of a Markdown table, of texts."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def pyplot():
    """matplotlib.pyplot without a window, set up so that nothing in a figure overlaps."""
    import matplotlib  # takes a second: only where a figure is drawn
    if "matplotlib.pyplot" not in sys.modules:  # else a notebook has chosen where its figures appear
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
    return plt


def millions(tokens):
    return np.asarray(tokens) / 1e6


def save_figure(fig, path, title=None):
    """Write a figure as PNG, under a title, with a faint grid in all its panels."""
    for ax in fig.axes:
        ax.grid(alpha=0.2)
    if title:
        fig.suptitle(title)
    with replacing(path, "wb") as f:
        fig.savefig(f, format="png", dpi=110)


def write_report(folder, results, text, figures):
    """Write results.json, table.md and the figures, {file name: function(results, path)}; print the text."""
    os.makedirs(folder, exist_ok=True)
    write_json(os.path.join(folder, "results.json"), results)
    with replacing(os.path.join(folder, "table.md")) as f:
        f.write(text)
    for name, draw in figures.items():
        draw(results, os.path.join(folder, name))
    print(text)
    print(f"{folder}: {', '.join(['results.json', 'table.md', *figures])}")
