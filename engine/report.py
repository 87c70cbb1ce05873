"""
What reports share: run folders as they are read, intervals over seeds, cells of tables, figures.

plot.py makes its report with it, and so do the files of paper/.
"""
import os
from dataclasses import dataclass

import numpy as np

from engine.cli import BadInput
from engine.files import read_json, read_jsonl, replacing, write_json


@dataclass
class Arm:
    """One way of training, which is a run folder in the folder of each seed, as tables and figures show
    it."""
    name: str
    colour: str = "black"
    controls: tuple = ()    # the arms that it is compared with


@dataclass
class Measure:
    """What a run is judged by."""
    heading: str            # in tables
    short: str              # in a sentence
    title: str              # of a figure
    better: int             # -1 where lower is better, 1 where higher is


MEASURES = {  # extras/measures.py says what masked and calibrated are; what was not taken is left out
    "accuracy_0": Measure("accuracy, no shots", "accuracy without shots", "accuracy without shots", 1),
    "accuracy": Measure("few-shot accuracy", "few-shot accuracy", "few-shot accuracy", 1),
    "likeliest_result": Measure("results likeliest", "likeliest results", "results that are likeliest", 1),
    "masked": Measure("test loss, masked", "masked test loss", "test loss, noise ids masked", -1),
    "masked_result": Measure("on results, masked", "masked loss of results", "... on its results", -1),
    "masked_solution": Measure("on solution tokens, masked", "masked loss of solution tokens",
                               "... on its solution tokens", -1),
    "calibrated": Measure("calibrated", "calibrated test loss", "test loss, calibrated", -1),
    "test_loss": Measure("test loss", "test loss", "loss on held-out curated text", -1),
    "solution_loss": Measure("on solution tokens", "solution loss", "... on its solution tokens", -1),
}
IN_PERCENT = ("accuracy_0", "accuracy", "likeliest_result")
LABELS = ("question", "solution", "result", "irrelevant", "noise", "wrong")  # of the built-in corpus
SELECTION = ("corpus_loss", "selected_loss", "unselected_loss", "precision", "recall",
             *(f"selected_{label}" for label in LABELS))
# Two-sided 95% points of Student's t, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


# ---------------------------------------------------------------------------------------------- run folders

def read_run(folder):
    """What a finished training run logged: {"curves": {measure: [tokens, values]}, "final": {measure: value},
    "train": records of the log, "cost"}; None while it is not finished.

    The final figures are those of the last weights; of a run that stops by val loss (--patience), those of
    its best weights (best.pt), which are the ones that are used.
    """
    if not os.path.exists(os.path.join(folder, "done.json")):
        return None
    records = read_jsonl(os.path.join(folder, "metrics.jsonl"))
    evals = [r for r in records if r["kind"] == "eval"]
    stops = read_json(os.path.join(folder, "config.json"))["config"].get("patience", 0)
    end = min(evals, key=lambda r: r["val_loss"]) if stops else evals[-1]
    found = {"test_loss": evals, "solution_loss": [r for r in evals if r["solution_loss"] is not None],
             "accuracy": graded(folder, "eval"), "accuracy_0": graded(folder, "eval0")}
    measured = read_jsonl(os.path.join(folder, "eval", "measures.jsonl"))
    for measure in [m for m in MEASURES if m not in found]:
        found[measure] = [r for r in measured if measure in r]
    curves, final = {}, {"tokens": end["tokens"]}
    for measure, points in found.items():
        key = "accuracy" if measure == "accuracy_0" else measure
        along = {r["step"]: r for r in points if not r.get("ckpt", "").startswith("best")}
        if along:
            along = [along[step] for step in sorted(along)]
            curves[measure] = [[r["tokens"] for r in along], [r[key] for r in along]]
        at_end = [r for r in points if r["step"] == end["step"]]
        if at_end:
            final[measure] = at_end[-1][key]
    parameters = read_json(os.path.join(folder, "done.json")).get("parameters", 0)
    return {
        "curves": curves, "final": final, "train": [r for r in records if r["kind"] == "train"],
        "cost": {"tokens": evals[-1]["tokens"], "seconds": evals[-1]["seconds"],
                 "operations": 6 * parameters * evals[-1]["tokens"]},
    }


def graded(folder, name):
    """The accuracies of a run on its own problems, from NAME/summary.jsonl. Raises BadInput."""
    path = os.path.join(folder, name, "summary.jsonl")
    found = [r for r in read_jsonl(path) if r.get("task", "demo") == "demo"]
    kinds = {(r.get("shots"), r.get("n"), r.get("max_new_tokens"), r.get("separator")) for r in found}
    if len(kinds) > 1:
        raise BadInput(f"{path} has results with different settings of eval_math.py, which cannot be "
                       f"compared: evaluate with the others into another --out")
    return found


def selection_curves(runs, n_bins=20):
    """What was selected and its loss: {name: [mean over the runs in each of n_bins stretches of training]}.

    Only forward passes count in which not all tokens were selected; None where there were none. A selection
    that needs no losses logs none of the unselected tokens: what is null in the log is left out of the mean.
    A stretch in which a value was never logged has None, and a value that was never logged no curve.
    """
    records = [r for run in runs for r in run["train"] if r.get("ratio", 1) < 1]
    if not records:
        return None
    tokens = np.array([r["tokens"] for r in records])
    n_bins = min(n_bins, len(set(tokens.tolist())))
    edges = np.linspace(0, tokens.max() + 1, n_bins + 1)
    which = np.digitize(tokens, edges) - 1                         # the stretch of each record
    curves = {"tokens": ((edges[:-1] + edges[1:]) / 2).round().tolist()}
    for name in SELECTION:
        means = []
        for stretch in range(n_bins):
            values = [r[name] for r, at in zip(records, which) if at == stretch and r.get(name) is not None]
            means.append(float(np.mean(values)) if values else None)
        if any(mean is not None for mean in means):
            curves[name] = means
    return curves


def mean_curve(curves):
    """The seeds' curves, [[tokens, values]], as one, {"x", "mean", "low", "high"}: the mean, lowest and
    highest value at each x that all of them have."""
    of_seed = [dict(zip(*curve)) for curve in curves]
    common = sorted(set.intersection(*(set(curve) for curve in of_seed)))
    values = np.array([[curve[at] for at in common] for curve in of_seed])  # (seeds, points)
    return {"x": np.array(common), "mean": values.mean(axis=0), "low": values.min(axis=0),
            "high": values.max(axis=0)}


def read_results(folder):
    """The results.json that plot.py wrote in a folder. Raises BadInput."""
    path = os.path.join(folder, "results.json")
    if not os.path.exists(path):
        raise BadInput(f"{path} is not there: run plot.py --runs {folder} first")
    return read_json(path)


# ------------------------------------------------------------------------------------------------ intervals

def interval(values):
    """{"mean", "low", "high", "n"}: the mean over seeds and its 95% t-interval (one value has none).

    A value of None is left out; where nothing is left, returns None.
    """
    v = np.array([x for x in values if x is not None], dtype=float)
    if v.size == 0:
        return None
    if v.size == 1:
        return {"mean": float(v[0]), "low": None, "high": None, "n": 1}
    half = T95.get(v.size - 1, 2.262) * v.std(ddof=1) / np.sqrt(v.size)
    return {"mean": float(v.mean()), "low": float(v.mean() - half), "high": float(v.mean() + half),
            "n": int(v.size)}


def paired_interval(pairs):
    """Interval of a - b over the pairs (a, b), one for each seed: the seeds' common ups and downs cancel.

    Pairs in which one is None are left out.
    """
    return interval([a - b for a, b in pairs if a is not None and b is not None])


def verdict(v, sign, than=0.0):
    """Does an interval agree with the expectation that its value is above (sign 1) or below (-1) `than`?"""
    if v is None or v["n"] < 2:
        return "not measured"
    if v["low"] <= than <= v["high"]:
        return "cannot tell"
    return "agrees" if (v["mean"] - than) * sign > 0 else "disagrees"


# --------------------------------------------------------------------------------------------------- tables

def cell(v, measure="", sign=False):
    """A mean and its interval as text, '0.443 (0.418 to 0.468)'; of a share in per cent; '' for None.

    sign: v is a difference, and is shown with its sign. The interval of a share is cut at 0 and 100%.
    """
    if v is None:
        return ""
    numbers = [v["mean"]]
    if v["n"] > 1:
        numbers += [v["low"], v["high"]]
    plus = "+" if sign else ""
    if measure in IN_PERCENT:
        if not sign:
            numbers = [min(1.0, max(0.0, x)) for x in numbers]
        texts = [f"{100 * x:{plus}.1f}%" for x in numbers]
    else:
        texts = [f"{x:{plus}.3f}" for x in numbers]
    return texts[0] + (f" ({texts[1]} to {texts[2]})" if v["n"] > 1 else "")


def table_lines(headings, rows):
    """Lines of a Markdown table. headings: [text]. rows: [[text]]."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def seeds_text(n):
    """'1 seed', '5 seeds'."""
    return f"{n} seed" if n == 1 else f"{n} seeds"


# -------------------------------------------------------------------------------------------------- figures

def pyplot():
    """matplotlib.pyplot without a window, set up so that nothing in a figure overlaps."""
    import matplotlib  # takes a second: only where a figure is drawn
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    plt.rcParams["figure.constrained_layout.use"] = True
    return plt


def millions(tokens):
    return np.asarray(tokens) / 1e6


def save_figure(fig, path, title=""):
    """Write a figure as PNG, under a title, with a faint grid in all its panels."""
    for ax in fig.axes:
        if ax.axison:
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
    print(f"{folder}: results.json, table.md, {', '.join(figures)}")
