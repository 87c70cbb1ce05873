"""runs/demo.sh and runs/controls.sh at a tiny size: every step on a fresh folder, and nothing done twice."""
import json
import os
import re
import subprocess
import sys

import pytest

import prepare
from helpers import ROOT, copy_of_repository, records, sh

# What a tiny run has behind the options that are typed. (A later option replaces an earlier one.)
TINY = {"prepare.py": "--noisy_tokens 40000 --curated_problems 200 --held_out_problems 20",
        "train_ref.py": "--train_tokens 15360 --eval_every 5", "train_slm.py": "--train_tokens 15360 --eval_every 5"}
ARMS = ("slm", "clm-x2", "documents", "labels", "mixture")


def commands(path):
    """The commands in Python of a page or script, in order, without --resume and comments."""
    with open(os.path.join(ROOT, path)) as f:
        lines = re.findall(r"^(?:\$ |\[.*\] \|\| |OMP_NUM_THREADS=1 )?(python \w+\.py.*)$", f.read(), re.M)
    return [re.sub(r" --resume|\s+#.*| &$", "", line) for line in lines]


def test_readme_demo_and_prepare_give_the_same_commands():
    lines = ["python prepare.py", *prepare.NEXT.strip().splitlines()]
    assert len(lines) == 8 and commands("runs/demo.sh") == lines
    assert commands("README.md")[:8] == lines


@pytest.mark.slow
def test_demo_from_start_to_figure_and_again(tmp_path):
    """In a copy of the repository, with a `python` that adds the options of a tiny run."""
    repository, python = tmp_path / "repository", tmp_path / "bin" / "python"
    copy_of_repository(repository, "*.py", "*.sh", "*.txt")
    python.parent.mkdir()
    cases = "".join(f"{script}) set -- \"$@\" {options} ;;\n" for script, options in TINY.items())
    python.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}esac\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environment = os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}"}

    def demo():
        done = subprocess.run(["bash", "runs/demo.sh"], cwd=repository, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout
    out = demo()
    assert prepare.NEXT in out
    assert re.search(r"right answers without shots: the base \S+%, the reference \S+%, CLM \S+%, SLM \S+%\n$", out)
    results = json.loads((repository / "out" / "results.json").read_text())
    assert list(results["arms"]) == ["base", "ref", "slm", "clm"]
    end_of_base = json.loads((repository / "out" / "base" / "done.json").read_text())["test_loss"]
    for arm in ("ref", "slm", "clm"):
        assert records(repository / "out" / arm, "eval")[0]["test_loss"] == end_of_base
    assert [r["ratio"] for r in records(repository / "out" / "slm")] == [pytest.approx(0.07, abs=0.001)]
    for name in ("headline.png", "selection.png"):
        assert (repository / "out" / name).stat().st_size > 10_000
    assert demo().count("finished before") == 4


@pytest.mark.slow
def test_controls_from_start_to_table_and_again(tmp_path):
    how, seed3 = dict(SEEDS=3, TUNED="slm", DATA=tmp_path / "data", OUT=tmp_path / "out"), tmp_path / "out" / "seed3"
    sh("controls.sh", tmp_path, **how, ARMS=" ".join(ARMS))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["arms"]) == {"base", "ref", *ARMS, "slm_tuned"}
    end_of_base = json.loads((seed3 / "base" / "done.json").read_text())["test_loss"]
    for arm in ARMS:
        run, n = results["arms"][arm]["seeds"]["seed3"], 61440 if arm == "clm-x2" else 30720
        losses, (steps, *_) = run["curves"]["test_loss"], run["curves"]["accuracy_0"]
        assert losses[2][0] == end_of_base and losses[1][-1] == run["final"]["tokens"] == n, arm
        assert steps == (list(range(0, n // 1536 + 1, 10)) if arm == "slm" else [n // 1536]), arm
        assert "accuracy" in run["final"]
    assert results["arms"]["slm_tuned"]["final"]["accuracy_0"]["n"] == 1
    # Each selects otherwise: a share of the tokens, all of the useful ones, or what is not logged, since it is all.
    first = {arm: records(seed3 / arm)[0] for arm in ARMS}
    assert all("ratio" not in first[arm] for arm in ("clm-x2", "mixture"))
    assert [first[arm]["ratio"] for arm in ("slm", "documents")] == pytest.approx([0.07, 0.3], abs=0.001)
    assert first["labels"]["precision"] == first["labels"]["recall"] == 1 and first["labels"]["ratio"] < 0.5
    before = {p: p.stat().st_mtime_ns for folder in (tmp_path / "data-tiny", seed3) for p in folder.rglob("*")
              if p.is_file() and p.parent.name not in ("scores", "eval", "eval0")}  # these are written anew
    assert sh("controls.sh", tmp_path, **how, ARMS="slm").count("finished before") == 4
    assert before == {p: p.stat().st_mtime_ns for p in before}
