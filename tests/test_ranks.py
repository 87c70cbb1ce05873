"""Several processes (gloo, on a processor) come to what one comes to: training, FSDP, scores, few-shot answers."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import eval_math
import score
import train_slm
from helpers import ROOT, command, records, same_weights, start_ranks, train


def wait(ranks):
    ends = [p.communicate(timeout=120)[1] for p in ranks]
    assert [p.returncode for p in ranks] == [0] * len(ranks), ends


@pytest.mark.parametrize("arch", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_the_same_micro_rows_give_the_same_trace_on_any_number_of_processes(demo, scores, tmp_path, arch):
    """1 process with 4 micro-batches of 2 rows, 2 with 2, 4 with 1, and FSDP: what is ranked are always 2 rows."""
    options = dict(scores=scores, keep=0.3, micro_rows=2, arch=arch)
    one = train(train_slm, tmp_path / "one", demo, **options)
    runs = {"two": (2, {}), "fsdp": (2, {"fsdp": True, "eval_every": 1})}
    if arch == "llama":  # in the slow tier
        runs["four"] = (4, {})
    for name, (n, extra) in runs.items():
        wait(start_ranks(n, command("train_slm.py", tmp_path / name, demo, **options | extra)))
        for a, b in zip(records(one), records(tmp_path / name), strict=True):
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-4) and a["ratio"] == b["ratio"]
        assert same_weights(one, tmp_path / name, tolerance=2e-3)
    worse = train(train_slm, tmp_path / "worse", demo, **options | {"seed": 1})
    assert not same_weights(one, worse, tolerance=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_a_dead_rank_ends_the_run_and_another_number_of_processes_goes_on(demo, scores, tmp_path, fsdp):
    options = dict(scores=scores, keep=0.3, train_tokens=256 * 300, eval_every=50, micro_rows=4)
    whole, cut = train(train_slm, tmp_path / "whole", demo, **options), tmp_path / "cut"
    ranks = start_ranks(2, command("train_slm.py", cut, demo, **options, **({"fsdp": True} if fsdp else {})))
    deadline = time.time() + 60
    while time.time() < deadline and not (cut / "ckpt.pt").exists():
        time.sleep(0.01)
    ranks[1].send_signal(signal.SIGKILL)
    message = ranks[0].communicate(timeout=60)[1]
    assert ranks[0].returncode == 2 and "Traceback" not in message
    assert "another process of the run is gone" in message and "--resume" in message
    assert 0 <= torch.load(cut / "ckpt.pt", weights_only=True)["step"] < 300
    other = shutil.copytree(cut, tmp_path / "other")
    train(train_slm, cut, demo, resume=True, **options)
    wait(start_ranks(2, command("train_slm.py", other, demo, resume=True, fsdp=not fsdp, **options)))
    for folder in (cut, other):
        assert [r["step"] for r in records(folder)] == list(range(300))
        for a, b in zip(records(folder), records(whole)):
            assert a["loss"] == pytest.approx(b["loss"], abs=0.05)


def torchrun(n, *command):
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n),
                           os.path.join(ROOT, command[0]), *map(str, command[1:])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.parametrize("n", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_scores_do_not_depend_on_the_number_of_processes(demo, scores, tmp_path, n):
    """With rows that neither the number of processes nor the batch divides."""
    ckpt = os.path.join(os.path.dirname(scores), "ref", "best.pt")
    score.main(score.Config(ckpt=ckpt, data=demo, out=str(tmp_path / "one"), batch_rows=7, device="cpu"))
    torchrun(n, "score.py", "--ckpt", ckpt, "--data", demo, "--out", tmp_path / "some", "--batch_rows", 7,
             "--device", "cpu")
    files = [bytearray((tmp_path / folder / "loss.bin").read_bytes()) for folder in ("one", "some")]
    a, b = (torch.frombuffer(file, dtype=torch.float16) for file in files)
    torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)
    assert len(a) == len(b)


@pytest.mark.slow
def test_answers_do_not_depend_on_the_number_of_processes(demo, scores, tmp_path):
    ckpt = os.path.join(os.path.dirname(scores), "ref", "best.pt")
    options = dict(data=demo, shots=1, max_new_tokens=8, batch_size=2, likelihood=True, device="cpu")
    eval_math.main(eval_math.Config(ckpt=[ckpt], out=str(tmp_path / "one"), **options))
    flags = [f"--{k}" if v is True else f"--{k}={v}" for k, v in options.items()]
    done = torchrun(2, "eval_math.py", "--ckpt", ckpt, "--out", tmp_path / "two", *flags)
    assert done.stdout.count("correct =") == 1
    one, two = (sorted(os.listdir(tmp_path / d)) for d in ("one", "two"))
    assert one == two and len(one) == 2
    rows = [(tmp_path / d / one[0]).read_text().splitlines() for d in ("one", "two")]
    assert len(rows[0]) == 12
    for a, b in zip(*(map(json.loads, r) for r in rows)):
        assert a.pop("solution_loss", 0) == pytest.approx(b.pop("solution_loss", 0), rel=1e-4) and a == b
