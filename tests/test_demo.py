"""runs/demo.sh at a tiny size: every step on a fresh folder, the results on disk, and nothing done twice."""
import json
import os
import subprocess
import sys

import pytest

from helpers import ROOT, records

ARMS = ("slm", "clm", "documents", "distill", "low_ref", "labels")


@pytest.mark.slow
def test_demo_from_start_to_figure_and_again(tmp_path):
    environment = os.environ | {"SIZE": "tiny", "PYTHON": sys.executable, "ARMS": " ".join(ARMS), "SEEDS": "0",
                                "DATA": str(tmp_path / "data"), "OUT": str(tmp_path / "out")}
    script, seed0 = ["bash", os.path.join(ROOT, "runs", "demo.sh")], tmp_path / "out" / "seed0"
    assert subprocess.run(script, env=environment).returncode == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    tuned = [f"{arm}_tuned" for arm in ARMS]
    assert list(results["arms"]) == ["base", "start", "ref", *ARMS, *tuned]
    assert set(results["base_less"]) == {"ref", *ARMS, *tuned} - {"slm", "slm_tuned"}
    end_of_start = json.loads((seed0 / "start" / "done.json").read_text())["test_loss"]
    for arm in ARMS:
        run = results["arms"][arm]["seeds"]["seed0"]
        steps, tokens, losses = run["curves"]["test_loss"]
        assert losses[0] == end_of_start and tokens[-1] == run["final"]["tokens"] == 30720, arm
        for measure in ("accuracy_0", "masked", "masked_result", "likeliest_result"):
            assert run["curves"][measure][:2] == [[0, 10, 20], [0, 15360, 30720]], (arm, measure)
        assert run["curves"]["accuracy"][1] == run["curves"]["calibrated"][1] == [30720]
    assert results["arms"]["slm_tuned"]["final"]["accuracy_0"]["n"] == 1
    # Each selects otherwise: 60% of the tokens, all of the useful ones, or what is not logged, since it is everything.
    first = {arm: records(seed0 / arm)[0] for arm in ARMS}
    assert all("ratio" not in first[arm] for arm in ("clm", "distill"))
    assert [first[arm]["ratio"] for arm in ("slm", "documents", "low_ref")] == pytest.approx([0.6] * 3, abs=0.001)
    assert len({first[arm]["precision"] for arm in ("slm", "documents", "low_ref")}) == 3
    assert first["labels"]["precision"] == first["labels"]["recall"] == 1 and first["labels"]["ratio"] < 0.5
    for name in ("headline.png", "selection.png"):
        assert (tmp_path / "out" / name).stat().st_size > 10_000
    before = {p: p.stat().st_mtime_ns for folder in (tmp_path / "data", seed0) for p in folder.rglob("*")
              if p.is_file() and not p.parent.name.endswith("scores")}  # scores are computed anew
    again = subprocess.run(script, env=environment | {"ARMS": "slm"}, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("finished before") == 5
    assert before == {p: p.stat().st_mtime_ns for p in before}
