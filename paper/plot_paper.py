"""
The paper's figures and tables from the runs of runs/paper.sh.

    python -m paper.plot_paper --runs out/paper     # results.json, table.md, and the figures

Figures: token_dynamics.png (3, 10), loss_dynamics.png (6), accuracy_vs_loss.png (7), selected_sets.png (8),
keep_ratio.png (9) and variants.png (tables 3 to 5, and what the paper names as future work). Intervals are
95% t-intervals over seeds; differences are paired by seed. What has not been run is left out, and named.

collect.py holds the arms and reads the runs, claims.py judges the paper's claims, tables.py and figures.py
show the rest.
"""
import os
from dataclasses import dataclass

from engine.cli import run
from engine.report import write_report
from paper import figures
from paper.claims import claims
from paper.collect import ARMS, REFERENCES, collect
from paper.tables import table


@dataclass
class Config:
    runs: str = "out/paper"  # folder with seed0, seed1, ...
    out: str = ""            # where they go (default: RUNS/figures)

    def validate(self):
        return []


def main(cfg):
    results = collect(cfg.runs)
    drawings = {"keep_ratio.png": figures.keep_ratio, "variants.png": figures.all_arms}
    if "dynamics" in results:
        drawings |= {"token_dynamics.png": figures.token_dynamics,
                     "loss_dynamics.png": figures.loss_dynamics,
                     "accuracy_vs_loss.png": figures.accuracy_vs_loss,
                     "selected_sets.png": figures.selected_sets}
    out = cfg.out or os.path.join(cfg.runs, "figures")
    write_report(out, results, claims(results) + "\n" + table(results), drawings)
    not_run = [name for name in [*REFERENCES, *ARMS] if name not in results["arms"]]
    if not_run:
        print(f"not run yet: {', '.join(not_run)}")


if __name__ == "__main__":
    run(main, Config, __doc__)
