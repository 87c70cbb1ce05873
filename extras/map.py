"""
Where selecting tokens wins, ties and loses against the best control: one figure over several settings.

    python -m extras.map --cells out/seeds out/threads out/hard --names "38% useful" "16% useful" "unknown to the reference"

Each cell is a folder with the results.json of plot.py. In each, SLM is compared with what others can do who
have the same at hand:

    the reference alone       CLM, random tokens, whole documents, distillation, the reference model itself
    the curated text too      the mixture, and every arm after the same fine-tuning; SLM is fine-tuned as well

Best is the control of the best mean over the seeds that are reported, by each measure: whatever luck there is
in that choice is the control's. Writes OUT/map.png, OUT/table.md and OUT/results.json.
"""
import os
from dataclasses import dataclass, field

from engine.cli import BadInput, run
from engine.files import read_json
from engine.report import (MEASURES, cell, paired_interval, pyplot, save_figure, seeds_text, table_lines,
                           write_report)

HANDS = {  # what is at hand: (SLM's run, the controls' runs)
    "the reference alone": ("slm", ("clm", "random", "low_ref", "documents", "distill", "ref")),
    "the curated text too": ("slm_tuned", ("clm_mixed", "clm_mixed_tuned", "clm_tuned", "random_tuned",
                                           "documents_tuned", "distill_tuned", "ref")),
}
SHOWN = ("accuracy_0", "masked", "masked_result")
COLOURS = {"wins": "tab:blue", "ties": "tab:gray", "loses": "tab:red"}


@dataclass
class Config:
    cells: list[str] = field(default_factory=list)   # folders with results.json
    names: list[str] = field(default_factory=list)   # what to call them (default: the folders' names)
    out: str = "out/map"                             # where the figure goes

    def validate(self):
        if not self.cells:
            yield "--cells names the folders to compare"
        if self.names and len(self.names) != len(self.cells):
            yield f"--names has {len(self.names)} names for {len(self.cells)} cells"


def best_control(arms, controls, measure):
    """The control with the best mean of a measure; None where there is none."""
    there = [name for name in controls if name in arms and arms[name]["final"].get(measure)]
    return max(there, key=lambda name: MEASURES[measure].better * arms[name]["final"][measure]["mean"],
               default=None)


def compare(results, hand, measure):
    """SLM less the best control, paired by seed: {"control", "difference", "slm", "verdict"}; None where
    something was not run."""
    slm, controls = HANDS[hand]
    arms = results["arms"]
    control = best_control(arms, controls, measure)
    if control is None or slm not in arms:
        return None
    ours, theirs = arms[slm]["seeds"], arms[control]["seeds"]
    difference = paired_interval([(ours[seed]["final"].get(measure), theirs[seed]["final"].get(measure))
                                  for seed in ours if seed in theirs])
    verdict = "ties"
    if difference["n"] > 1 and (difference["low"] > 0 or difference["high"] < 0):
        verdict = "wins" if difference["mean"] * MEASURES[measure].better > 0 else "loses"
    return {"control": control, "slm": arms[slm]["final"][measure], "difference": difference,
            "verdict": verdict}


def collect(cells, names):
    """[{"cell", "hand", "seeds", measure: compare}]. Raises BadInput."""
    rows = []
    for folder, name in zip(cells, names):
        path = os.path.join(folder, "results.json")
        if not os.path.exists(path):
            raise BadInput(f"{path} is not there: run plot.py --runs {folder} first")
        results = read_json(path)
        for hand in HANDS:
            found = {measure: compare(results, hand, measure) for measure in SHOWN}
            if any(found.values()):
                rows.append({"cell": name, "hand": hand, "seeds": len(results["seeds"]), **found})
    return rows


def table(rows):
    """The map in Markdown."""
    lines = []
    for row in rows:
        texts = []
        for measure in SHOWN:
            c = row[measure]
            text = f"{c['verdict']}: {cell(c['difference'], measure, sign=True)} against {c['control']}" if c else ""
            texts.append(text)
        lines.append([row["cell"], row["hand"], str(row["seeds"]), *texts])
    headings = ["setting", "at hand", "seeds", *(f"SLM, {MEASURES[m].short}" for m in SHOWN)]
    return "\n".join(table_lines(headings, lines)) + "\n"


def figure(rows, path):
    """A row for each setting and what is at hand, a panel for each measure: SLM less the best control."""
    plt = pyplot()
    fig, axes = plt.subplots(1, len(SHOWN), figsize=(5 + 3.4 * len(SHOWN), 1.6 + 0.45 * len(rows)), sharey=True)
    for ax, measure in zip(axes, SHOWN):
        better = MEASURES[measure].better
        scale = 100 if measure == "accuracy_0" else 1
        for y, row in enumerate(rows):
            c = row[measure]
            if not c:
                continue
            d, colour = c["difference"], COLOURS[c["verdict"]]
            if d["n"] > 1:
                ax.plot([scale * d["low"], scale * d["high"]], [y, y], color=colour, lw=2)
            ax.plot(scale * d["mean"], y, "o", color=colour)
            ax.annotate(c["control"], (scale * d["mean"], y), xytext=(0, 5), textcoords="offset points",
                        fontsize=7, ha="center")
        ax.axvline(0, color="black", lw=0.8)
        ax.set_title(MEASURES[measure].title, fontsize=10)
        ax.set_xlabel("SLM less the best control" + (", points" if scale == 100 else ""))
        if better < 0:
            ax.invert_xaxis()  # better is to the right in all panels
    axes[0].set_yticks(range(len(rows)), [f"{row['cell']}\n{row['hand']}" for row in rows], fontsize=8)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    counts = sorted({row["seeds"] for row in rows})
    seeds = " or ".join(seeds_text(n) for n in counts)
    save_figure(fig, path, f"Blue: SLM wins. Gray: a tie. Red: it loses. 95% intervals, {seeds}")


def main(cfg):
    names = cfg.names or [os.path.basename(os.path.normpath(folder)) for folder in cfg.cells]
    rows = collect(cfg.cells, names)
    write_report(cfg.out, rows, table(rows), {"map.png": figure})


if __name__ == "__main__":
    run(main, Config, __doc__)
