"""
Where selecting tokens wins and loses against the best control: one figure over several settings.

    python -m extras.map --cells out/seeds out/hard --names "38% useful" "unknown to the reference"

Each cell is a folder with the results.json of plot.py. In each, SLM is compared with what others can do who
have the same at hand:

    the reference alone       CLM, random tokens, whole documents, distillation, the reference model itself
    the curated text too      these, the mixture, and all of them after the same fine-tuning, as SLM is

Best is the control against which SLM's mean lead, paired by seed, is smallest, by each measure. Whatever luck
there is in that choice is the control's: "wins" is cautious, and "loses" is by chance more often than 5%
says. A control must have half of SLM's seeds at least. Writes OUT/map.png, OUT/table.md and OUT/results.json.
"""
import os
from dataclasses import dataclass, field

from engine.cli import run
from engine.report import (MEASURES, cell, paired_interval, pyplot, read_results, save_figure, seeds_text,
                           table_lines, verdict, write_report)

ALONE = ("clm", "random", "low_ref", "documents", "documents_excess", "distill", "ref")
TUNED = tuple(f"{name}_tuned" for name in (*ALONE[:-1], "clm_mixed"))
HANDS = {  # what is at hand: (SLM's run, the controls' runs)
    "the reference alone": ("slm", ALONE),
    "the curated text too": ("slm_tuned", (*ALONE, "clm_mixed", "clm_curated", *TUNED)),
}
SHOWN = ("accuracy_0", "masked", "masked_solution", "masked_result")
VERDICTS = {"agrees": "wins", "disagrees": "loses", "cannot tell": "cannot tell", "not measured": "one seed"}
COLOURS = {"wins": "tab:blue", "cannot tell": "tab:gray", "loses": "tab:red", "one seed": "black"}


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


def compare(results, hand, measure):
    """SLM less the best control, paired by seed: {"control", "difference", "verdict"}; None where SLM or all
    controls are missing."""
    slm, names = HANDS[hand]

    def values(name):
        found = {seed: r["final"].get(measure)
                 for seed, r in results["arms"].get(name, {"seeds": {}})["seeds"].items()}
        return {seed: value for seed, value in found.items() if value is not None}
    ours, better, differences = values(slm), MEASURES[measure].better, {}
    for name in names:
        theirs = values(name)
        common = ours.keys() & theirs.keys()
        if common and len(common) >= len(ours) / 2:
            differences[name] = paired_interval([(ours[seed], theirs[seed]) for seed in sorted(common)])
    if not differences:
        return None
    best = min(differences, key=lambda name: better * differences[name]["mean"])
    return {"control": best, "difference": differences[best],
            "verdict": VERDICTS[verdict(differences[best], better)]}


def collect(cells, names):
    """[{"cell", "hand", measure: compare}]. Raises BadInput."""
    rows = []
    for folder, name in zip(cells, names):
        results = read_results(folder)
        for hand in HANDS:
            found = {measure: compare(results, hand, measure) for measure in SHOWN}
            if any(found.values()):
                rows.append({"cell": name, "hand": hand, **found})
    return rows


def table(rows):
    """The map in Markdown."""
    lines = []
    for row in rows:
        line = [row["cell"], row["hand"]]
        for measure in SHOWN:
            c = row[measure]
            line.append("")
            if c:
                difference = cell(c["difference"], measure, sign=True)
                line[-1] = (f"{c['verdict']}: {difference} against {c['control']}, "
                            f"{seeds_text(c['difference']['n'])}")
        lines.append(line)
    headings = ["setting", "at hand", *(f"SLM less the best, {MEASURES[m].short}" for m in SHOWN)]
    return "\n".join(table_lines(headings, lines)) + "\n"


def figure(rows, path):
    """A row for each setting and what is at hand, a panel for each measure: SLM less the best control."""
    plt = pyplot()
    size = 5 + 3.4 * len(SHOWN), 1.6 + 0.45 * len(rows)
    fig, axes = plt.subplots(1, len(SHOWN), figsize=size, sharey=True)
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
    save_figure(fig, path, "Blue: SLM wins. Gray: cannot tell. Red: it loses. 95% intervals over seeds")


def main(cfg):
    names = cfg.names or [os.path.basename(os.path.normpath(folder)) for folder in cfg.cells]
    rows = collect(cfg.cells, names)
    write_report(cfg.out, rows, table(rows), {"map.png": figure})


if __name__ == "__main__":
    run(main, Config, __doc__)
