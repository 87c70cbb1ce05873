"""extras/steady.py and runs/steady.sh: the table is that of the files, and the script makes these at a tiny size."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from engine.cli import BadInput
from engine.files import write_json, write_jsonl
from extras import steady
from helpers import ROOT


def make_run(folder, value):
    """A finished run of 10 steps whose figures are all `value`, and 1 at its start."""
    os.makedirs(folder)
    write_json(folder / "done.json", {"val_loss": value, "parameters": 7})
    write_json(folder / "config.json", {"config": {"patience": 0}})
    losses = ("val_loss", "test_loss", "solution_loss")
    write_jsonl(folder / "metrics.jsonl", [
        {"kind": "eval", "step": step, "tokens": 100 * step, "seconds": 1.0, **dict.fromkeys(losses, v)}
        for step, v in ((0, 1.0), (10, value))])
    for name in ("eval", "eval0"):
        os.makedirs(folder / name)
        write_jsonl(folder / name / "summary.jsonl", [
            {"ckpt": "step_000001", "step": 1, "tokens": 100, "accuracy": 0.0},
            {"ckpt": "ckpt", "step": 10, "tokens": 1000, "accuracy": value + (name == "eval") / 100}])
    rest = ("likeliest_result", "masked", "masked_result", "calibrated")
    write_jsonl(folder / "eval" / "measures.jsonl", [
        {"ckpt": "ckpt", "step": 10, "tokens": 1000, **dict.fromkeys(rest, value)}])


def test_the_table_holds_means_and_standard_deviations_over_seeds(tmp_path, capsys):
    values = {"seed0": 0.5, "seed1": 0.6, "seed2": 0.9}
    for seed, value in values.items():
        make_run(tmp_path / "lr5e-3" / seed / "slm", value)
    make_run(tmp_path / "lr1e-2" / "seed0" / "clm_tuned", 0.25)
    make_run(tmp_path / "lr1e-2" / "seed0" / "ref", 0.25)
    os.makedirs(tmp_path / "lr1e-2" / "seed1" / "clm")  # not finished yet
    steady.main(steady.Config(runs=str(tmp_path)))
    text = (tmp_path / "table.md").read_text()
    mean, sd = np.mean(list(values.values())), np.std(list(values.values()), ddof=1)
    loss, share = f"{mean:.3f} ± {sd:.3f}", f"{100 * mean:.1f} ± {100 * sd:.1f}"
    assert f"| slm | 0.005 | 3 | {loss} | {share} | {100 * mean + 1:.1f} ± {100 * sd:.1f} | {share} | {loss} |" in text
    assert "| clm_tuned | 0.01 | 1 | 0.250 | 25.0 | 26.0 | 25.0 | 0.250 | 0.250 | 0.250 | 0.250 |" in text
    assert text.count("\n") == 4 and text.strip() in capsys.readouterr().out
    assert steady.table(json.loads((tmp_path / "results.json").read_text())) == text


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no lr\*/seed\*/ARM with a finished run: run runs/steady\.sh"):
        steady.main(steady.Config(runs=str(tmp_path)))


@pytest.mark.slow
def test_the_script_from_start_to_table_and_again(tmp_path):
    environment = os.environ | {
        "SEEDS": "3", "LRS": "5e-3 1e-2", "ARMS": "clm slm", "TOKENS": "15360", "TUNE_TOKENS": "15360",
        "BASE_TOKENS": "15360", "START_TOKENS": "15360", "REF_TOKENS": "15360", "NOISY": "40000", "PROBLEMS": "4", "ROWS": "16",
        "OUT": str(tmp_path / "out"), "DATA": str(tmp_path / "data"), "PYTHON": sys.executable}
    script = ["bash", os.path.join(ROOT, "runs", "steady.sh")]
    assert subprocess.run(script, env=environment).returncode == 0
    cells = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(c["arm"], c["lr"]) for c in cells] == [
        (arm, lr) for arm in ("clm", "clm_tuned", "slm", "slm_tuned") for lr in (0.005, 0.01)]
    assert all(set(steady.SHOWN) <= set(c["seeds"]["seed3"]) for c in cells)
    weights = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.pt")}
    again = subprocess.run(script, env=environment | {"LRS": "1e-2", "ARMS": "slm"}, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("finished before") == 5  # base, start, reference, slm, slm_tuned
    assert cells == json.loads((tmp_path / "out" / "results.json").read_text())  # the others are in the table still
    assert weights == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.pt")}
