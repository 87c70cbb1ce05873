"""extras/steady.py and runs/steady.sh: the table is that of the files, and the script makes these at a tiny size."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from engine.cli import BadInput
from engine.files import write_jsonl
from extras import steady
from helpers import ROOT


def make_run(folder, value, name="ckpt"):
    for shots in (2, 0):
        os.makedirs(folder / f"eval{shots}")
        old = {"ckpt": "step_000001", "accuracy": 0.0}
        write_jsonl(folder / f"eval{shots}" / "summary.jsonl", [old, {"ckpt": name, "accuracy": value + shots / 100}])
    os.makedirs(folder / "eval")
    record = {"ckpt": name} | {m: value for m in steady.MEASURES if not m.startswith("accuracy")}
    write_jsonl(folder / "eval" / "measures.jsonl", [record])


def test_the_table_holds_means_and_standard_deviations_over_seeds(tmp_path, capsys):
    values = {"seed0": 0.5, "seed1": 0.6, "seed2": 0.9}
    for seed, value in values.items():
        make_run(tmp_path / seed / "lr5e-3" / "slm" / "tuned", value)
    make_run(tmp_path / "seed0" / "lr1e-2" / "clm" / "second", 0.25)
    make_run(tmp_path / "seed0" / "ref", 0.7, "best")
    os.makedirs(tmp_path / "seed1" / "lr1e-2" / "clm" / "second")  # not measured yet
    os.makedirs(tmp_path / "seed1" / "lr1e-2" / "clm" / "first")
    steady.main(steady.Config(runs=str(tmp_path)))
    text = (tmp_path / "table.md").read_text()
    mean, sd = np.mean(list(values.values())), np.std(list(values.values()), ddof=1)
    accuracy = f"| slm | 0.005 | fine-tuning | 3 | {100 * mean + 2:.1f} ± {100 * sd:.1f} | {100 * mean:.1f} ± {100 * sd:.1f} |"
    assert accuracy in text and f"| {mean:.3f} ± {sd:.3f} |" in text
    assert "| clm | 0.01 | two stages | 1 | 27.0 | 25.0 | 0.250 |" in text
    assert "| reference model | | | 1 | 72.0 | 70.0 |" in text and text.count("\n") == 5
    assert json.loads((tmp_path / "results.json").read_text())["cells"][0]["seeds"]["seed0"]["raw"] == 0.5
    assert text.strip() in capsys.readouterr().out


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no measured runs: run runs/steady\.sh"):
        steady.main(steady.Config(runs=str(tmp_path)))


@pytest.mark.slow
def test_the_script_from_start_to_table_and_again(tmp_path):
    environment = os.environ | {
        "SEEDS": "3", "LRS": "5e-3", "FIRST": "15360", "SECOND": "15360", "TUNE": "15360", "BASE": "15360",
        "NOISY": "40000", "PROBLEMS": "4", "OUT": str(tmp_path / "out"), "DATA": str(tmp_path / "data"),
        "PYTHON": sys.executable}
    script = ["bash", os.path.join(ROOT, "runs", "steady.sh")]
    assert subprocess.run(script, env=environment).returncode == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(c["arm"], c["stage"]) for c in results["cells"]} == {
        (arm, stage) for arm in ("clm", "clm_mixed", "slm", "slm_warm") for stage in ("second", "tuned")}
    assert set(results["ref"]) == {"seed3"}
    weights = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.pt")}
    again = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("finished before") == 14  # base, reference, 4 x 3 stages
    assert weights == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.pt")}
