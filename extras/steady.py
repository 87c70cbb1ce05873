"""
Learning rate against arm, from the runs of runs/steady.sh: does the same recipe give the same figures twice?

    python -m extras.steady --runs out/steady

An instrument is steady where the standard deviation of the accuracy over seeds is small (3 points are asked
for), and where neighbouring learning rates do not change the order of the arms. Writes RUNS/results.json and
RUNS/table.md: for each learning rate and arm, before (`second`) and after (`tuned`) the short fine-tuning,
the mean over seeds and the standard deviation of

    accuracy with two shots and with none; the test loss as it is, masked, and calibrated; the loss on result
    tokens, masked; how often a result is the likeliest token (extras/measures.py says what these are)
"""
import glob
import os
from dataclasses import dataclass

import numpy as np

from engine.cli import BadInput, run
from engine.files import read_jsonl, replacing, write_json

STAGES = ("second", "tuned")
MEASURES = {"accuracy_2": "accuracy, 2 shots", "accuracy_0": "accuracy, no shots", "raw": "test loss",
            "masked": "masked", "calibrated": "calibrated", "masked_result": "results, masked",
            "likeliest_result": "results likeliest"}
IN_PERCENT = ("accuracy_2", "accuracy_0", "likeliest_result")


@dataclass
class Config:
    runs: str = "out/steady"   # folder with seed0, seed1, ...
    out: str = ""              # where results.json and table.md go (default: the same folder)

    def validate(self):
        return []


def read_record(folder, name="ckpt"):
    """{measure: value} of the checkpoint NAME.pt in a run folder, or None where one of them is missing."""
    record = {}
    for shots in (2, 0):
        for r in read_jsonl(os.path.join(folder, f"eval{shots}", "summary.jsonl")):
            if r["ckpt"] == name:
                record[f"accuracy_{shots}"] = r["accuracy"]
    for r in read_jsonl(os.path.join(folder, "eval", "measures.jsonl")):
        if r["ckpt"] == name:
            record |= {k: r[k] for k in MEASURES if k in r}
    return record if set(record) == set(MEASURES) else None


def collect(runs):
    """{"ref": {seed: record}, "cells": [{"lr", "arm", "stage", "seeds": {seed: record}}]}. Raises
    BadInput."""
    results = {"ref": {}, "cells": []}
    cells = {}
    for path in sorted(glob.glob(os.path.join(runs, "seed*", "lr*", "*", "*"))):
        seed, lr, arm, stage = path.split(os.sep)[-4:]
        record = read_record(path)
        if stage in STAGES and record:
            cells.setdefault((float(lr[2:]), arm, stage), {})[seed] = record
    for path in sorted(glob.glob(os.path.join(runs, "seed*", "ref"))):
        record = read_record(path, "best")
        if record:
            results["ref"][path.split(os.sep)[-2]] = record
    if not cells:
        raise BadInput(f"{runs} holds no measured runs: run runs/steady.sh first")
    for (lr, arm, stage), seeds in sorted(cells.items()):
        results["cells"].append({"lr": lr, "arm": arm, "stage": stage, "seeds": seeds})
    return results


def cell(records, measure):
    """'96.1 ± 1.2' (percent) or '0.412 ± 0.010': mean and standard deviation over seeds."""
    values = np.array([r[measure] for r in records])
    scale, digits = (100, 1) if measure in IN_PERCENT else (1, 3)
    text = f"{scale * values.mean():.{digits}f}"
    if len(values) > 1:
        text += f" ± {scale * values.std(ddof=1):.{digits}f}"
    return text


def table(results):
    """The results in Markdown."""
    lines = ["| arm | learning rate | after | seeds | " + " | ".join(MEASURES.values()) + " |",
             "|---|---|---|---|" + "---|" * len(MEASURES)]
    if results["ref"]:
        records = list(results["ref"].values())
        values = " | ".join(cell(records, m) for m in MEASURES)
        lines.append(f"| reference model | | | {len(records)} | {values} |")
    for c in results["cells"]:
        records = list(c["seeds"].values())
        after = "two stages" if c["stage"] == "second" else "fine-tuning"
        values = " | ".join(cell(records, m) for m in MEASURES)
        lines.append(f"| {c['arm']} | {c['lr']:g} | {after} | {len(records)} | {values} |")
    return "\n".join(lines) + "\n"


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
