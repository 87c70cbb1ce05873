"""
Learning rate against arm, from the runs of runs/steady.sh: does the same recipe give the same figures twice?

    python -m extras.steady --runs out/steady

An instrument is steady where the standard deviation of the accuracy over seeds is small (3 points are asked
for), and where neighbouring learning rates do not change the order of the arms. RUNS holds a folder for each
learning rate (lr5e-3, ...), which holds what runs/demo.sh makes. Writes RUNS/results.json and RUNS/table.md:
for each arm and learning rate the loss on val, by which the rate is chosen, and the mean over seeds and the
standard deviation of what plot.py shows.
"""
import glob
import os
from dataclasses import dataclass

import numpy as np

from engine.cli import BadInput, run
from engine.files import read_json, replacing, write_json
from engine.report import IN_PERCENT, MEASURES, read_run, table_lines

SHOWN = ("accuracy_0", "accuracy", "likeliest_result", "masked", "masked_result", "calibrated", "test_loss")


@dataclass
class Config:
    runs: str = "out/steady"   # folder with lr5e-3, lr1e-2, ...
    out: str = ""              # where results.json and table.md go (default: the same folder)

    def validate(self):
        return []


def collect(runs):
    """[{"arm", "lr", "seeds": {seed: {measure: value}}}], by arm and learning rate. Raises BadInput."""
    cells = {}
    for path in sorted(glob.glob(os.path.join(runs, "lr*", "seed*", "*"))):
        lr, seed, arm = path.split(os.sep)[-3:]
        r = read_run(path) if arm not in ("base", "ref", "scores") else None
        if r and "accuracy_0" in r["final"]:
            val = read_json(os.path.join(path, "done.json"))["val_loss"]
            cells.setdefault((arm, float(lr[2:])), {})[seed] = {"val_loss": val, **r["final"]}
    if not cells:
        raise BadInput(f"{runs} holds no lr*/seed*/ARM with a finished run: run runs/steady.sh first")
    return [{"arm": arm, "lr": lr, "seeds": seeds} for (arm, lr), seeds in sorted(cells.items())]


def spread(records, measure):
    """'96.1 ± 1.2' (percent) or '0.412 ± 0.010': mean and standard deviation over seeds."""
    values = np.array([r[measure] for r in records if r.get(measure) is not None])
    if not values.size:
        return ""
    scale, digits = (100, 1) if measure in IN_PERCENT else (1, 3)
    text = f"{scale * values.mean():.{digits}f}"
    return text + (f" ± {scale * values.std(ddof=1):.{digits}f}" if values.size > 1 else "")


def table(cells):
    """The cells in Markdown."""
    rows = []
    for c in cells:
        records = list(c["seeds"].values())
        rows.append([c["arm"], f"{c['lr']:g}", str(len(records)), spread(records, "val_loss"),
                     *(spread(records, m) for m in SHOWN)])
    headings = ["arm", "learning rate", "seeds", "val loss", *(MEASURES[m].heading for m in SHOWN)]
    return "\n".join(table_lines(headings, rows)) + "\n"


def main(cfg):
    results = collect(cfg.runs)
    out = cfg.out or cfg.runs
    os.makedirs(out, exist_ok=True)
    write_json(os.path.join(out, "results.json"), results)
    text = table(results)
    with replacing(os.path.join(out, "table.md")) as f:
        f.write(text)
    print(text)


if __name__ == "__main__":
    run(main, Config, __doc__)
