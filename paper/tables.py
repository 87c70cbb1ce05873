"""
The tables of all arms, of what they selected, and of the losses of single tokens.
"""
from engine.report import LABELS, cell, seeds_text, table_lines
from extras.dynamics import CATEGORIES, FLUCTUATES
from paper.collect import ARMS, KINDS, MEASURES, REFERENCES

HEADINGS = [measure.heading for measure in MEASURES.values()]
KIND_NAMES = {"selected": "of highest excess under the base", "unselected": "the others"}


def cells(by_measure, sign=False):
    """A cell for each of MEASURES of {measure: interval}."""
    return [cell(by_measure[measure], measure, sign) for measure in MEASURES]


def mean_text(n):
    """Over a table of means over n seeds: 'mean over 5 seeds (95% interval):'."""
    return f"mean over {seeds_text(n)}" + (" (95% interval):" if n > 1 else ":")


def table(results):
    """All arms, the differences from their controls, and what stands behind them, in Markdown."""
    arms = results["arms"]
    there = [arms[name] for name in [*REFERENCES, *ARMS] if name in arms]
    lines = [mean_text(len(results["seeds"])).capitalize(), "",
             *table_lines(["arm", *HEADINGS], [[arm["what"], *cells(arm)] for arm in there])]
    rows = []
    for name in ARMS:
        for control, less in arms.get(name, {"minus": {}})["minus"].items():
            rows.append([arms[name]["what"], arms[control]["what"], *cells(less, sign=True)])
    lines += ["", "Differences, paired by seed:", "", *table_lines(["arm", "less", *HEADINGS], rows)]
    lines += ["", *selection_lines(there)]
    if "dynamics" in results:
        lines += ["", *dynamics_lines(results["dynamics"])]
    return "\n".join(lines) + "\n"


def selection_lines(arms):
    """What the arms selected, as lines of Markdown. arms: [entry of results["arms"]]."""
    arms = [arm for arm in arms if "selected" in arm]
    labels = [label for label in LABELS if any(f"selected_{label}" in arm["selected"] for arm in arms)]
    rows = []
    for arm in arms:
        row = [arm["what"], f"{arm['selected']['selected_loss']:.3f}"]
        for label in labels:
            share = arm["selected"].get(f"selected_{label}")
            row.append("" if share is None else f"{100 * share:.1f}%")
        rows.append(row)
    return ["What was selected, mean over training: the loss of the selected tokens, and the fraction "
            "selected of each label:", "", *table_lines(["arm", "loss", *labels], rows)]


def dynamics_lines(d):
    """The losses of single tokens during training, as lines of Markdown. d: results["dynamics"]."""
    rows = [["all tokens", *(cell(d["share"][category], "accuracy") for category in CATEGORIES)]]
    for label, share in d["share_by_label"].items():
        rows.append([label, *(f"{100 * share[category]:.1f}%" for category in CATEGORIES)])
    lines = [f"{d['n_tokens']:,} tokens of held-out noisy text over {len(d['steps'])} checkpoints of CLM, by "
             "the paper's rule:", "", *table_lines(["", *CATEGORIES], rows)]
    rows = [[cell(d["fluctuating"][category], "accuracy") for category in CATEGORIES]]
    lines += ["", f"Of these, fluctuating ({FLUCTUATES} nats and more from their line):", "",
              *table_lines(CATEGORIES, rows)]
    rows = []
    for arm, r in d["correlation"].items():
        rows.append([arm.upper(), *(cell(r[kind], sign=True) for kind in KINDS)])
    lines += ["", "Correlation of accuracy with loss over the checkpoints of a run:", "",
              *table_lines(["run", f"tokens {KIND_NAMES['selected']}", KIND_NAMES["unselected"]], rows)]
    rows = []
    for kind in KINDS:
        curves = [d["fixed"][arm][kind] for arm in ("clm", "slm")]
        rows.append([KIND_NAMES[kind], *(f"{curve[0]:.3f} to {curve[-1]:.3f}" for curve in curves)])
    return lines + ["", "Loss on held-out noisy text, first and last checkpoint:", "",
                    *table_lines(["tokens", "CLM", "SLM"], rows)]
