"""runs/demo.sh at a tiny size: every step on a fresh folder, the results on disk, and nothing done twice."""
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def test_demo_from_start_to_figure_and_again(tmp_path):
    environment = os.environ | {
        "TOKENS": "30720", "REF_TOKENS": "30720", "NOISY": "40000", "PROBLEMS": "10", "PYTHON": sys.executable,
        "ARMS": "clm slm", "TUNED": "slm_tuned", "DATA": str(tmp_path / "data"), "OUT": str(tmp_path / "out")}
    script = ["bash", os.path.join(ROOT, "runs", "demo.sh")]
    assert subprocess.run(script, env=environment).returncode == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["arms"]) == {"ref", "clm", "slm", "slm_tuned"}
    for arm in ("clm", "slm"):
        run = results["arms"][arm]["seeds"]["seed0"]
        assert run["tokens"][-1] == run["accuracy_tokens"][-1] == 30720 and run["final"]["total"] == 10
        assert run["test_loss"][0] == results["arms"]["clm"]["seeds"]["seed0"]["test_loss"][0]  # same start
    assert set(results["token_saving"]["slm"]) == {"test_loss", "solution_loss", "accuracy"}
    assert results["cost"]["score"]["tokens"] > 39000 and results["arms"]["slm"]["selection"]["precision"]
    assert (tmp_path / "out" / "headline.png").stat().st_size > 10_000
    files = [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".bin", ".jsonl")]
    before = {p: p.stat().st_mtime_ns for p in files if "scores" not in str(p)}
    again = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("finished before") == 5
    assert before == {p: p.stat().st_mtime_ns for p in before}
