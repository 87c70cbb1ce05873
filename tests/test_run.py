"""What Run and RunFolder promise: however often a run is killed or stopped it comes to the same files, and
several processes do the same. A stand-in replaces the model; Run, RunFolder, AdamW and the files are real."""
import contextlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

import common
from common import Run, TrainConfig, initial_model, learning_rate
from engine import checkpoints, files
from engine.checkpoints import RunFolder
from engine.ranks import Ranks

CORPUS = SimpleNamespace(vocab_size=8, tokenizer_sha256="")
TRACED = {common.__file__, checkpoints.__file__, files.__file__, __file__}
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="what is killed is a fork of this process")


def noise(*values):
    """A number from 0 to 1 that is a hash of the values."""
    return torch.tensor([random.Random(repr(values)).random()], dtype=torch.float64)


class Model(torch.nn.Module):
    """One weight. Each gradient is a hash of the weight and the step, so the weight tells all its updates: a
    step that is taken twice, left out or out of order shows."""
    def __init__(self, config):
        super().__init__()
        self.config, self.weight = config, torch.nn.Parameter(noise(torch.initial_seed()))


def held_out_loss(model, tokens, ranks, max_rows):
    """It goes up and down at random, so that a run has a best step and loses patience."""
    return ranks.gather(noise(model.weight.item()))[0].item(), None


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.setattr(common, "GPT", Model)
    monkeypatch.setattr(checkpoints, "GPT", Model)
    monkeypatch.setattr(common, "held_out_loss", held_out_loss)
    monkeypatch.setattr(checkpoints, "source_revision", lambda: "")  # it asks git, which takes long
    monkeypatch.setattr(os, "fsync", lambda file: None)              # only a power cut needs it
    monkeypatch.setattr("time.time", lambda: 0.0)                    # or runs differ in their `seconds`


def train(folder, ranks=None, steps=12, **options):
    """The loop of a training script; a run that the folder holds goes on. Returns {file name: what the run
    left in it}."""
    cfg = TrainConfig(out=str(folder), resume=True, device="cpu", block_size=4, batch_tokens=4,
                      train_tokens=4 * steps, warmup_steps=2, lr=0.1, **options)
    run = Run(cfg, ranks or Ranks("cpu"), initial_model(cfg, *[CORPUS] * 3), [CORPUS] * 2, {})
    for step in run.steps():
        weight = run.raw_model.weight
        weight.grad = noise(step, weight.item())
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(step, cfg)
        run.optimizer.step()
        if step % cfg.log_every == 0:
            run.log(step, weight.grad.sum())
    texts = {path.name: path.read_text() for path in (*folder.glob("*.json"), folder / "metrics.jsonl")}
    return texts | {path.name: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


def differs(folder, seed):
    """Whether a run that is killed or stopped again and again leaves other files than one that is not."""
    rng = random.Random(seed)
    choices = {"steps": [5, 9, 12], "eval_every": [1, 2, 3, 4, 100], "patience": [0, 0, 1, 2, 3],
               "log_every": [1, 2, 10], "snapshot_every": [0, 0, 1, 3]}
    options = {"seed": seed} | {name: rng.choice(values) for name, values in choices.items()}
    whole = train(folder, **options)
    shutil.rmtree(folder)

    def trace(frame, event, argument):
        if event == "line" and rng.random() < 1 / 400:
            if rng.random() < 0.7:
                os._exit(9)  # as with kill -9 nothing is flushed or cleaned up
            signal.raise_signal(signal.SIGINT)
        return trace if frame.f_code.co_filename in TRACED else None

    def train_traced():
        sys.settrace(trace)
        with contextlib.suppress(KeyboardInterrupt):
            train(folder, **options)

    while not (folder / "done.json").exists():
        process = multiprocessing.get_context("fork").Process(target=train_traced)
        process.start()
        process.join()
        assert process.exitcode in (0, 9)
        rng.seed(rng.random())  # the next process is interrupted somewhere else
    return train(folder, **options) != whole


@needs_fork
def test_interrupted_at_any_line_a_run_comes_to_the_same_files(tmp_path):
    assert [seed for seed in range(10) if differs(tmp_path / str(seed), seed)] == []


EVALUATE, OPEN_LOG = Run.evaluate, RunFolder.open_log


@needs_fork
@pytest.mark.parametrize("owner, name, faulty", [
    # What ckpt.pt holds has counted the evaluation that is made again.
    (Run, "evaluate", lambda run: (EVALUATE(run), run.check_and_save())),
    # The log keeps the lines of steps that are taken again.
    (RunFolder, "open_log", lambda folder, step: OPEN_LOG(folder, math.inf))])
def test_the_test_above_sees_faults(tmp_path, monkeypatch, owner, name, faulty):
    monkeypatch.setattr(owner, name, faulty)
    assert any(differs(tmp_path / str(seed), seed) for seed in range(40))


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_patience_ends_a_run_and_recording_changes_no_weight(tmp_path, patience):
    often = train(tmp_path / "often", steps=40, log_every=1, eval_every=1, snapshot_every=1)
    patient = train(tmp_path / "patient", steps=40, eval_every=2, patience=patience)
    lines = map(json.loads, often["metrics.jsonl"].splitlines())
    losses = [line["val_loss"] for line in lines if line["kind"] == "eval"][::2]  # at every second step
    n = patience + 1  # evaluations: the first so many of which none of the last `patience` is the best
    while min(losses[:n]) < min(losses[:n - patience]):
        n += 1
    last = 2 * (n - 1)
    assert patient["ckpt.pt"]["step"] == last < 40 and patient["best.pt"]["val_loss"] == min(losses[:n])
    assert patient["ckpt.pt"]["model"] == often[f"step_{last:06}.pt"]["model"]


class Rank(Ranks):
    """One of three threads that stand for processes. It is told to stop after so many steps, or never."""
    world, device, parts = 3, torch.device("cpu"), [None] * 3
    meeting = threading.Barrier(3, timeout=10)  # raises BrokenBarrierError where one waits in vain

    def __init__(self, rank, stop_after):
        self.rank, self.main, self.stop_after, self.calls = rank, rank == 0, stop_after, []

    def gather(self, t, name="gather"):
        self.calls.append(name)
        self.parts[self.rank] = t
        self.meeting.wait()
        together = torch.cat(self.parts)
        self.meeting.wait()
        return together

    def sum(self, t):
        return self.gather(t.view(1), "sum").sum().item()

    def any(self, flag):
        told = self.calls.count("any") == self.stop_after  # it is asked before each step
        return bool(self.gather(torch.tensor([flag or told]), "any").any())


@pytest.mark.parametrize("told", [0, 2])
@pytest.mark.parametrize("stop_after", [None, 0, 1, 5, 12])
def test_all_ranks_end_together_whichever_is_told_to_stop(tmp_path, monkeypatch, told, stop_after):
    # In a thread there are no signals.
    monkeypatch.setattr(common, "StopSignal", lambda: contextlib.nullcontext(SimpleNamespace(received=False)))
    Rank.meeting.reset()

    def work(rank):
        ranks = Rank(rank, stop_after if rank == told else None)
        with contextlib.suppress(KeyboardInterrupt):
            train(tmp_path, ranks, eval_every=5, log_every=3)
        return ranks.calls
    with ThreadPoolExecutor(3) as pool:
        calls = list(pool.map(work, range(3)))
    assert calls[0] == calls[1] == calls[2]
    assert (tmp_path / "done.json").exists() == (stop_after is None)
