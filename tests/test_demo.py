"""runs/demo.sh at a tiny size: every step on a fresh folder, the results on disk, and nothing done twice."""
import json
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.mark.slow
def test_demo_from_start_to_figure_and_again(tmp_path):
    environment = os.environ | {
        "TOKENS": "30720", "START_TOKENS": "15360", "BASE_TOKENS": "30720", "REF_TOKENS": "30720", "TUNE_TOKENS": "3072", "NOISY": "40000",
        "PROBLEMS": "10", "ROWS": "16", "SNAPSHOT": "10", "PYTHON": sys.executable, "ARMS": "clm slm distill",
        "DATA": str(tmp_path / "data"), "OUT": str(tmp_path / "out")}
    script = ["bash", os.path.join(ROOT, "runs", "demo.sh")]
    assert subprocess.run(script, env=environment).returncode == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["arms"]) == {"ref", "clm", "slm", "distill", "clm_tuned", "slm_tuned", "distill_tuned"}
    start = results["arms"]["clm"]["seeds"]["seed0"]["curves"]["test_loss"][1][0]
    end_of_start = json.loads((tmp_path / "out" / "seed0" / "start" / "done.json").read_text())["test_loss"]
    assert start == end_of_start  # the arms have its weights
    for arm in ("clm", "slm"):
        run = results["arms"][arm]["seeds"]["seed0"]
        tokens, losses = run["curves"]["test_loss"]
        assert tokens[-1] == run["final"]["tokens"] == 30720 and losses[0] == start  # the same first weights
        for measure in ("accuracy_0", "masked", "masked_result", "likeliest_result"):
            assert run["curves"][measure][0] == [0, 15360, 30720], measure
        assert run["curves"]["accuracy"][0] == [30720] and "calibrated" in run["final"]
    assert results["arms"]["slm_tuned"]["final"]["accuracy_0"]["n"] == 1
    assert set(results["slm_minus"]) == {"ref", "clm", "distill", "clm_tuned", "distill_tuned"}
    assert results["token_saving"]["clm"]["masked"][0].keys() == {"times", "censored"}
    assert results["cost"]["score"]["tokens"] > 39000 and results["arms"]["slm"]["selection"]["precision"]
    # 6 operations a parameter and token of training, 2 of scoring
    cost = results["cost"]
    assert cost["slm"]["operations"] == 6 * 189184 * 30720
    assert cost["score"]["operations"] == pytest.approx(2 * 139200 * cost["score"]["tokens"])
    assert (tmp_path / "out" / "headline.png").stat().st_size > 10_000
    files = [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".bin", ".jsonl")]
    before = {p: p.stat().st_mtime_ns for p in files if "scores" not in str(p) and "eval" not in str(p)}
    again = subprocess.run(script, env=environment | {"ARMS": "slm"}, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("finished before") == 5
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.slow
def test_the_reference_may_come_from_another_corpus(tmp_path):
    environment = os.environ | {
        "TOKENS": "15360", "START_TOKENS": "3072", "BASE_TOKENS": "15360", "REF_TOKENS": "15360", "TUNE_TOKENS": "0",
        "NOISY": "20000", "PROBLEMS": "5", "ROWS": "0", "SNAPSHOT": "10", "PYTHON": sys.executable, "SEEDS": "3",
        "ARMS": "slm distill", "DATA": str(tmp_path / "crawl"), "REF_DATA": str(tmp_path / "better"),
        "OUT": str(tmp_path / "out")}
    script = ["bash", os.path.join(ROOT, "runs", "crawl.sh")]
    assert subprocess.run(script, env=environment).returncode == 0
    assert "chatter_words 200" in (tmp_path / "crawl" / "seed3" / "options.txt").read_text()
    corpora = {name: json.loads((tmp_path / name / "seed3" / "noisy.json").read_text())["sha256"]
               for name in ("crawl", "better")}
    made_from = {name: json.loads((tmp_path / "out" / "seed3" / name / "config.json").read_text())
                 for name in ("base", "slm", "distill")}
    assert made_from["base"]["corpus_sha256"] == corpora["better"] != corpora["crawl"]
    assert made_from["slm"]["corpus_sha256"] == made_from["distill"]["corpus_sha256"] == corpora["crawl"]
    assert made_from["slm"]["config"]["keep"] == 0.2 and made_from["distill"]["config"]["lr"] == 2e-2


def test_the_arms_may_be_wider_than_their_reference(tmp_path):
    """What runs/wide.sh calls, with a Python that only writes down its arguments and makes its output folders."""
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text('#!/bin/sh\necho "$@" >> "$LOG"\n'
                      'while [ $# -gt 0 ]; do if [ "$1" = --out ]; then mkdir -p "$2"; fi; shift; done\n')
    python.chmod(0o755)
    inherited = ("LR", "CONTROL_LR", "KEEP", "REFS")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    environment |= {"PYTHON": str(python), "LOG": str(log), "SEEDS": "3", "JOBS": "1", "OUT": str(tmp_path / "out"),
                    "DATA": str(tmp_path / "crawl"), "REF_DATA": str(tmp_path / "better")}
    script = ["bash", os.path.join(ROOT, "runs", "wide.sh")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    called = {}  # {run: the options of its training, and its script}
    for words in map(str.split, log.read_text().splitlines()):
        if words[0].startswith("train_"):
            called[os.path.basename(words[words.index("--out") + 1])] = words
    assert set(called) == {"base", "ref", "start", "slm", "clm", "distill", "documents"}

    def option(run, name):
        return called[run][called[run].index(name) + 1] if name in called[run] else None
    assert {run: option(run, "--lr") for run in called} == {
        "base": "5e-3", "ref": "2e-3", "start": "1e-3", "slm": "5e-4", "clm": "1e-3", "distill": "1e-3",
        "documents": "1e-3"}
    wide = {run for run in called if option(run, "--n_embd") == "256" and option(run, "--n_head") == "4"}
    assert wide == set(called) - {"base", "ref"}
    assert option("slm", "--keep") == "0.2" and option("clm", "--keep") == "1.0"
    assert option("base", "--data").startswith(str(tmp_path / "better"))
    assert option("slm", "--init_from").endswith("seed3/start/ckpt.pt")
