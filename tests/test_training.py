"""Traces of the two training scripts: CLM is SLM with keep 1, resuming and logging change nothing, accumulation and
several processes come to the same."""
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch

import train_ref
import train_slm
from common import learning_rate, load_checkpoint, save_checkpoint
from data import Tokens, batch
from engine.cli import BadInput
from helpers import command, records, same_weights, train
from model import GPT, GPTConfig


@pytest.mark.parametrize("fast", [True, False])
def test_keep_1_is_clm_bit_for_bit(demo, tmp_path, fast):
    train(train_ref, tmp_path / "clm", demo, fast=fast)
    train(train_slm, tmp_path / "slm", demo, fast=fast, keep=1.0)
    a, b = records(tmp_path / "clm"), records(tmp_path / "slm")
    assert len(a) == 12 and [r["loss"] for r in a] == [r["loss"] for r in b]
    assert records(tmp_path / "clm", "eval") == records(tmp_path / "slm", "eval")
    assert same_weights(tmp_path / "clm", tmp_path / "slm")
    train(train_slm, tmp_path / "other", demo, keep=0.5, select="high_loss")  # and the test can tell the difference
    assert not same_weights(tmp_path / "clm", tmp_path / "other")


def test_the_fast_form_trains_as_the_plain_one_does(demo, scores, tmp_path):
    for name, fast in (("fast", True), ("plain", False)):
        train(train_slm, tmp_path / name, demo, scores=scores, fast=fast, micro_rows=4)
        train(train_ref, tmp_path / f"ref_{name}", demo, fast=fast)
    for prefix in ("", "ref_"):
        for a, b in zip(records(tmp_path / f"{prefix}fast"), records(tmp_path / f"{prefix}plain")):
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-5) and a.get("ratio") == b.get("ratio")
        assert same_weights(tmp_path / f"{prefix}fast", tmp_path / f"{prefix}plain", tolerance=1e-3)


@pytest.mark.parametrize("how", ["excess", "random", "high_loss", "low_ref"])
def test_every_selection_keeps_its_share_and_learns(demo, scores, tmp_path, how):
    train(train_slm, tmp_path / how, demo, scores=scores, keep=0.25, select=how)
    trace = records(tmp_path / how)
    assert all(r["ratio"] == 0.25 for r in trace)
    for r in trace:
        if how in ("random", "low_ref"):  # chosen before the loss is known, so that of the others is not computed
            assert r["corpus_loss"] is r["unselected_loss"] is None
        else:
            assert r["corpus_loss"] == pytest.approx(0.25 * r["selected_loss"] + 0.75 * r["unselected_loss"])
    assert trace[0]["loss"] == pytest.approx(trace[0]["selected_loss"], rel=1e-6)
    if how == "high_loss":
        assert all(r["selected_loss"] > r["unselected_loss"] for r in trace)
    evals = records(tmp_path / how, "eval")
    assert evals[-1]["val_loss"] < evals[0]["val_loss"]


@pytest.mark.parametrize("micro_rows", [8, 2])
def test_a_step_of_slm_equals_brute_force(demo, scores, tmp_path, micro_rows):
    """The logged loss of the first step, from tokens, model and scores, in float64: a ranking per forward pass."""
    train(train_slm, tmp_path / "slm", demo, scores=scores, keep=0.3, snapshot_every=12, micro_rows=micro_rows)
    ckpt = torch.load(tmp_path / "slm" / "step_000000.pt", weights_only=True)
    model = GPT(GPTConfig(**ckpt["model_config"]))
    model.load_state_dict(ckpt["model"])
    model.double()
    tokens = Tokens(demo, "noisy", 32)
    raw = np.fromfile(os.path.join(demo, "noisy.bin"), dtype=np.uint16).astype(np.int64)
    ref = np.fromfile(os.path.join(scores, "loss.bin"), dtype=np.float16)
    losses, excess = [], []
    for row in batch(tokens.n_rows, 8, 0, 0):
        context = torch.from_numpy(raw[row * 32:row * 32 + 32])[None]
        logp = torch.log_softmax(model.logits(model(context))[0], dim=-1)
        for t in range(32):
            losses.append(-logp[t, raw[row * 32 + t + 1]].item())
            excess.append(losses[-1] - float(ref[row * 32 + t]))
    selected = []
    for losses_of_pass, excess_of_pass in zip(np.split(np.array(losses), 8 // micro_rows),
                                              np.split(np.array(excess), 8 // micro_rows)):
        best = np.argsort(-excess_of_pass, kind="stable")[:round(0.3 * 32 * micro_rows)]
        selected += losses_of_pass[best].tolist()
    assert records(tmp_path / "slm")[0]["loss"] == pytest.approx(np.mean(selected), rel=1e-5)


def test_logging_evaluating_and_saving_change_nothing(demo, scores, tmp_path):
    options = dict(scores=scores, dropout=0.1)
    train(train_slm, tmp_path / "a", demo, **options)
    train(train_slm, tmp_path / "b", demo, **options, eval_every=1, log_every=5, save_every=1, snapshot_every=2)
    assert same_weights(tmp_path / "a", tmp_path / "b")
    trace = {r["step"]: r for r in records(tmp_path / "a")}
    assert all(trace[r["step"]] == r for r in records(tmp_path / "b"))


def test_kill_9_and_resume_is_bit_identical(demo, scores, tmp_path):
    """Killed somewhere between two saves; the same command again ends in the weights of the uninterrupted run."""
    options = dict(scores=scores, dropout=0.1, train_tokens=256 * 300, save_every=50, eval_every=100)
    whole = train(train_slm, tmp_path / "whole", demo, **options)
    cut = tmp_path / "cut"
    process = subprocess.Popen(command("train_slm.py", cut, demo, resume=True, **options), stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while time.time() < deadline and not (cut / "ckpt.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (cut / "done.json").exists()
    step = torch.load(cut / "ckpt.pt", weights_only=True)["step"]
    assert 0 < step < 300
    with open(cut / "metrics.jsonl", "a") as f:
        f.write('{"kind": "train", "st')  # a kill can tear the last line of the log
    train(train_slm, cut, demo, resume=True, **options)
    assert same_weights(whole, cut)
    assert records(whole) == records(cut) and records(whole, "eval") == records(cut, "eval")
    before = os.path.getmtime(cut / "ckpt.pt")
    train(train_slm, cut, demo, resume=True, **options)  # finished: nothing is done again
    assert os.path.getmtime(cut / "ckpt.pt") == before


def test_early_stopping_keeps_the_best_weights(demo, tmp_path):
    folder = train(train_ref, tmp_path / "ref", demo, train="curated", train_tokens=256 * 400, eval_every=10, patience=2,
                   lr=3e-2)
    evals = records(folder, "eval")
    best = min(evals, key=lambda r: r["val_loss"])
    ckpt = torch.load(folder / "best.pt", weights_only=True)
    assert ckpt["step"] == best["step"] and ckpt["val_loss"] == best["val_loss"]
    assert evals[-1]["step"] < 400 and [r["val_loss"] > best["val_loss"] for r in evals[-2:]] == [True, True]


def test_init_from_starts_at_the_other_runs_weights(demo, tmp_path):
    train(train_ref, tmp_path / "base", demo)
    train(train_slm, tmp_path / "slm", demo, keep=1.0, init_from=str(tmp_path / "base" / "ckpt.pt"))
    assert records(tmp_path / "slm", "eval")[0]["test_loss"] == records(tmp_path / "base", "eval")[-1]["test_loss"]


def test_learning_rate():
    cfg = train_ref.Config(train_tokens=100 * 1536, warmup_steps=10, lr=1.0, min_lr=0.1, decay=0.5)
    rates = [learning_rate(step, cfg) for step in range(101)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)]) and rates[10:56] == [1.0] * 46
    assert rates[100] == pytest.approx(0.1) and all(a >= b for a, b in zip(rates[10:], rates[11:]))
    assert rates[78] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * 23 / 45)))


class Payload:
    """What a pickle can do: run code of its own when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("payload-ran",)


def test_checkpoints_are_replaced_whole_and_run_no_code(tmp_path, monkeypatch):
    good = {"model": {"w": torch.ones(3)}, "tokenizer_sha256": "x", "model_config": {"n_layer": 1}}
    path, calls = str(tmp_path / "ckpt.pt"), []
    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, lambda *a, real=getattr(os, name), name=name: (calls.append(name), real(*a))[1])
    save_checkpoint(path, good)
    assert calls == ["fsync", "replace"] and load_checkpoint(path)["model"]["w"].tolist() == [1, 1, 1]

    def half(checkpoint, f):
        f.write(b"half of it")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(BadInput, match="No space left"):
        save_checkpoint(path, good)
    assert os.listdir(tmp_path) == ["ckpt.pt"] and load_checkpoint(path)["model"]["w"].tolist() == [1, 1, 1]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    torch.save(good | {"extra": Payload()}, "evil.pt")
    with pytest.raises(BadInput, match="evil.pt"):
        load_checkpoint("evil.pt")
    assert not os.path.exists("payload-ran")
