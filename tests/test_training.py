"""Runs of the two training scripts: CLM is SLM with keep 1, a step is that of brute force, a killed run goes on."""
import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch

import common
import train_ref
import train_slm
from common import learning_rate
from data import Tokens, batch
from engine.checkpoints import load_checkpoint, load_model, save_checkpoint
from engine.cli import BadInput
from helpers import command, records, same_weights, train


@pytest.mark.parametrize("fast", [True, False])
def test_keep_1_is_clm_bit_for_bit(demo, scores, tmp_path, fast):
    train(train_ref, tmp_path / "clm", demo, fast=fast)
    train(train_slm, tmp_path / "slm", demo, scores=scores, fast=fast, keep=1.0)
    a, b = records(tmp_path / "clm"), records(tmp_path / "slm")
    assert len(a) == 12 and [r["loss"] for r in a] == [r["loss"] for r in b]
    assert records(tmp_path / "clm", "eval") == records(tmp_path / "slm", "eval")
    assert same_weights(tmp_path / "clm", tmp_path / "slm")
    train(train_slm, tmp_path / "other", demo, scores=scores, keep=0.5)  # and the test can tell the difference
    assert not same_weights(tmp_path / "clm", tmp_path / "other")


@pytest.mark.parametrize("rank_by, micro_rows", [("excess", 8), ("excess", 2), ("loss", 8), ("ref", 8)])
def test_a_step_of_slm_equals_brute_force(demo, scores, tmp_path, rank_by, micro_rows):
    """The logged loss of the first step, from tokens, model and scores, in float64: a ranking per forward pass."""
    train(train_slm, tmp_path, demo, scores=scores, keep=0.3, snapshot_every=12, rank_by=rank_by, micro_rows=micro_rows)
    tokens = Tokens(demo, "noisy", 32)
    model, _ = load_model(str(tmp_path / "step_000000.pt"), tokens.tokenizer_sha256, demo, "cpu")
    model.double()
    raw = np.fromfile(os.path.join(demo, "noisy.bin"), dtype=np.uint16).astype(np.int64)
    ref = np.fromfile(os.path.join(scores, "loss.bin"), dtype=np.float16)
    losses, ranks = [], []
    for row in batch(tokens.n_rows, 8, 0, 0):
        context = torch.from_numpy(raw[row * 32:row * 32 + 32])[None]
        logp = torch.log_softmax(model.logits(model(context))[0], dim=-1)
        for t in range(32):
            loss, ref_loss = -logp[t, raw[row * 32 + t + 1]].item(), float(ref[row * 32 + t])
            losses.append(loss)
            ranks.append({"excess": loss - ref_loss, "loss": loss, "ref": -ref_loss}[rank_by])
    selected = []
    for losses_of_pass, ranks_of_pass in zip(np.split(np.array(losses), 8 // micro_rows),
                                             np.split(np.array(ranks), 8 // micro_rows)):
        best = np.argsort(-ranks_of_pass, kind="stable")[:round(0.3 * 32 * micro_rows)]
        selected += losses_of_pass[best].tolist()
    assert records(tmp_path)[0]["loss"] == pytest.approx(np.mean(selected), rel=1e-5)
    assert {r["ratio"] for r in records(tmp_path)} == {round(0.3 * 32 * micro_rows) / 32 / micro_rows}


def test_kill_9_and_resume_is_bit_identical(demo, scores, tmp_path):
    """Killed for real, somewhere after a save; the same command again ends in the weights of the uninterrupted run.
    (tests/test_run.py has every place where a run can be killed.)"""
    options = dict(scores=scores, train_tokens=256 * 300, eval_every=50)
    whole = train(train_slm, tmp_path / "whole", demo, **options)
    cut = tmp_path / "cut"
    process = subprocess.Popen(command("train_slm.py", cut, demo, resume=True, **options), stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while time.time() < deadline and not (cut / "best.pt").exists():
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (cut / "done.json").exists()
    step = torch.load(cut / "ckpt.pt", weights_only=True)["step"]
    assert 0 <= step < 300
    with open(cut / "metrics.jsonl", "a") as f:
        f.write('{"kind": "train", "st')  # a kill can tear the last line of the log
    train(train_slm, cut, demo, resume=True, **options)
    assert same_weights(whole, cut)
    assert records(whole) == records(cut) and records(whole, "eval") == records(cut, "eval")


def test_init_from_starts_at_the_other_runs_weights(demo, scores, tmp_path):
    train(train_ref, tmp_path / "base", demo)
    train(train_slm, tmp_path / "slm", demo, scores=scores, init_from=str(tmp_path / "base" / "ckpt.pt"))
    assert records(tmp_path / "slm", "eval")[0]["test_loss"] == records(tmp_path / "base", "eval")[-1]["test_loss"]


def test_learning_rate():
    cfg = train_ref.Config(train_tokens=100 * 1536, warmup_steps=10, lr=1.0)
    rates = [learning_rate(step, cfg) for step in range(101)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)]) and rates[10] == 1.0
    assert rates[100] == pytest.approx(0, abs=1e-12) and all(a > b for a, b in zip(rates[10:], rates[11:]))
    assert rates[78] == pytest.approx(0.5 * (1 + np.cos(np.pi * 68 / 90)))


def test_a_run_says_how_many_logits_it_holds_where_they_are_many(demo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(common, "MANY_BYTES", 2**15)
    train(train_ref, tmp_path / "many", demo)
    assert "GiB of logits" in capsys.readouterr().out
    train(train_ref, tmp_path / "fast", demo, fast=True)
    assert "logits" not in capsys.readouterr().out


class Payload:
    """What a pickle can do: run code of its own when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("payload-ran",)


def test_checkpoints_are_replaced_once_they_are_on_the_disk_and_run_no_code(tmp_path, monkeypatch):
    good = {"model": {"w": torch.ones(3)}, "tokenizer_sha256": "x", "model_config": {"n_layer": 1}}
    path, calls = str(tmp_path / "ckpt.pt"), []
    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, lambda *a, real=getattr(os, name), name=name: (calls.append(name), real(*a))[1])
    save_checkpoint(path, good)
    assert calls == ["fsync", "replace"] and load_checkpoint(path)["model"]["w"].tolist() == [1, 1, 1]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    torch.save(good | {"extra": Payload()}, "evil.pt")
    with pytest.raises(BadInput, match="evil.pt"):
        load_checkpoint("evil.pt")
    assert not os.path.exists("payload-ran")


def test_val_of_another_tokenizer_is_refused(demo, tmp_path):
    shutil.copytree(demo, tmp_path / "demo")
    about = json.loads((tmp_path / "demo" / "val.json").read_text())
    (tmp_path / "demo" / "val.json").write_text(json.dumps(about | {"tokenizer_sha256": "other"}))
    with pytest.raises(BadInput, match="another tokenizer"):
        train(train_ref, tmp_path / "run", str(tmp_path / "demo"))
