"""plot.py --pool: seeds of one setting that lie in several folders, in one table."""
import json
import os
import subprocess
import sys

import pytest

import plot
from engine.cli import BadInput
from engine.files import write_json

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def halves(tmp_path):
    """results/crawl, and two folders with its seeds 0 to 2, and 3 and 4."""
    with open(os.path.join(ROOT, "results", "crawl", "results.json")) as f:
        whole = json.load(f)
    folders = []
    for seeds in (["seed0", "seed1", "seed2"], ["seed3", "seed4"]):
        arms = {name: {**arm, "seeds": {s: arm["seeds"][s] for s in seeds}}
                for name, arm in whole["arms"].items()}
        folders.append(str(tmp_path / seeds[0]))
        os.makedirs(folders[-1])
        write_json(os.path.join(folders[-1], "results.json"), {**whole, "arms": arms, "seeds": seeds})
    return whole, folders


def test_pooled_halves_are_the_whole(halves):
    whole, folders = halves
    pooled = plot.pool(folders)
    for key in ("seeds", "slm_minus", "token_saving"):
        assert pooled[key] == whole[key]
    for name, arm in whole["arms"].items():
        assert pooled["arms"][name]["final"] == arm["final"]
    assert plot.table(whole).startswith(plot.table(pooled).rstrip("\n"))
    assert "Cost" not in plot.table(pooled)


def test_a_seed_counts_once(halves):
    with pytest.raises(BadInput, match="seed3 is in .* a seed counts once"):
        plot.pool([halves[1][1], halves[1][1]])


def test_command(halves, tmp_path):
    command = [sys.executable, "plot.py", "--out", str(tmp_path / "out"), "--pool"]
    made = subprocess.run([*command, *halves[1]], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "out" / "headline.png").exists() and (tmp_path / "out" / "table.md").exists()
    for folders, message in ([halves[1][:1], "two at least"], [[*halves[1], "nowhere"], "run plot.py"]):
        refused = subprocess.run([*command, *folders], cwd=ROOT, capture_output=True, text=True)
        assert refused.returncode == 2 and message in refused.stderr
        assert refused.stderr.count("\n") == 1
    before = open(os.path.join(halves[1][0], "results.json")).read()
    onto = [sys.executable, "plot.py", "--out", halves[1][0] + "/", "--pool", *halves[1]]  # would replace a half
    refused = subprocess.run(onto, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "--out another one" in refused.stderr
    assert open(os.path.join(halves[1][0], "results.json")).read() == before
