"""runs/demo.sh at a tiny size: every step on a fresh folder, the results on disk, and nothing done twice. And the
results in the README are those of results/."""
import json
import os
import re
import subprocess
import sys

import bench
import plot

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
        assert run["target_loss"][0] == results["arms"]["clm"]["seeds"]["seed0"]["target_loss"][0]  # same start
    assert set(results["token_saving"]["slm"]) == {"target_loss", "solution_loss", "accuracy"}
    assert results["cost"]["score"]["tokens"] > 39000 and results["arms"]["slm"]["selection"]["precision"]
    assert (tmp_path / "out" / "headline.png").stat().st_size > 10_000
    files = [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".bin", ".jsonl")]
    before = {p: p.stat().st_mtime_ns for p in files if "scores" not in str(p)}
    again = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("finished before") == 5
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_readme_shows_the_committed_results():
    """The table in the README is what plot.py makes of results/demo/results.json; the real-text figures likewise."""
    with open(os.path.join(ROOT, "results", "demo", "results.json")) as f:
        results = json.load(f)
    with open(os.path.join(ROOT, "results", "real", "results.json")) as f:
        real = json.load(f)
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        readme = f.read()
    table = plot.table(results).split("\n\nCost")[0]
    assert table in readme
    names = {"ref": "reference model alone", "clm": "CLM", "slm": "SLM", "random": "random tokens",
             "clm_mixed": "CLM on noisy + curated", "clm_curated": "CLM on curated alone"}
    assert len(real["seeds"]) == 3 and set(real["arms"]) == set(names)

    def cell(v):
        return f"{v['mean']:.3f} ({v['low']:.3f} to {v['high']:.3f})" if v else ""
    for arm, name in names.items():
        less = real["slm_minus"].get(arm, {}).get("target_loss")
        assert f"| {name} | {cell(real['arms'][arm]['final']['target_loss'])} | {cell(less)}".rstrip() + " |" in readme
    words = " ".join(readme.split())
    assert f"{real['token_saving']['slm']['target_loss']['mean']:.1f} times fewer tokens" in words
    less = {arm: real["slm_minus"][arm]["target_loss"]["mean"] for arm in ("clm_mixed", "clm_curated")}
    assert f"gives {less['clm_mixed']:.3f} less loss than SLM" in words and f"for as many tokens {less['clm_curated']:.3f} less" in words
    for path in re.findall(r"\]\((results/[^)]+)\)", readme):
        assert os.path.exists(os.path.join(ROOT, path)), path


def test_readme_shows_the_evaluation_results():
    """Figures of `bash runs/gsm8k.sh` and `python bench.py`, from the files they wrote."""
    with open(os.path.join(ROOT, "results", "gsm8k", "summary.jsonl")) as f:
        [s] = [json.loads(line) for line in f]
    with open(os.path.join(ROOT, "results", "speed", "generation.json")) as f:
        speed = json.load(f)
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        readme = " ".join(f.read().split())
    for figure in (f"{s['correct']} of {s['total']:,} = {s['accuracy']:.1%} (95% interval {s['low']:.1%} to {s['high']:.1%})",
                   f'always answering "5" gets {s["same_guess"]:.1%}', f"{s['samples']} samples ({s['majority']:.1%})",
                   f"of the {s['samples']} is right for {s['pass_at_k'][str(s['samples'])]:.1%}",
                   f"right solutions, {s['solution_loss']:.3f},", f"**{speed['ratio']:.0f} times**",
                   f"{speed['questions_per_s']:.2f} questions a second", f"against {speed['naive_questions_per_s']:.5f} when"):
        assert figure in readme, figure
    assert speed["same_tokens"] == 1


def test_readme_shows_the_speed():
    """The tables of `python bench.py`, and what --filter_backward does to the losses."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        readme = f.read()
    for part in bench.SHAPES:
        with open(os.path.join(ROOT, "results", "speed", f"{part}.json")) as f:
            result = json.load(f)
        assert set(result["steps"]) == {*bench.STEPS, "forward", "score"} and bench.table(result) in readme, part
    with open(os.path.join(ROOT, "results", "speed", "filter_backward.json")) as f:
        arms = json.load(f)
    for measure in ("target_loss", "solution_loss"):
        for arm in ("slm", "slm_filtered"):
            assert f"{arms[arm][measure]['mean']:.4f}" in readme
