"""A training step never makes the host wait for a GPU: both scripts run on torch's `meta` device, which has shapes but no
values, so that `.item()`, `nonzero()` and a CPU tensor among the others raise."""
import os
import pytest
import torch

import common
import train_ref
import train_slm
from extras import variants
from engine.ranks import Ranks
from helpers import train


@pytest.fixture
def on_meta(monkeypatch):
    """What is meant to wait, evaluating, saving and logging, is left out; so is the copy back of a log line."""
    for module in (train_ref, train_slm):
        monkeypatch.setattr(module, "held_out_loss", lambda *args: (1.0, None))
    monkeypatch.setattr(variants, "selection_stats", lambda *args: {})
    monkeypatch.setattr(common.RunFolder, "save", lambda *args, **state: None)
    monkeypatch.setattr(Ranks, "sum", lambda self, t: 1.0)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("micro_rows", [0, 2])
@pytest.mark.parametrize("options", [
    {"keep": 1.0}, {"keep": 0.3}, {"keep": 0.3, "dropout": 0.1}, {"select": "random"}, {"select": "low_ref"},
    {"select": "high_loss"}, {"labels": ["solution", "result"]}, {"softmax_tau": 0.7}, {"keep_warmup": 3},
    {"keep": 0.3, "arch": "llama", "n_kv_head": 1},
    {"filter_backward": True}, {"distill": "the reference", "keep": 1.0}], ids=str)
def test_a_step_of_slm(demo, scores, tmp_path, on_meta, fast, micro_rows, options):
    if "distill" in options:
        options = options | {"distill": os.path.join(os.path.dirname(scores), "ref", "ckpt.pt")}
    train(train_slm, tmp_path / "slm", demo, scores=scores, device="meta", fast=fast, micro_rows=micro_rows, **options)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("micro_rows", [0, 2])
def test_a_step_of_clm(demo, tmp_path, on_meta, fast, micro_rows):
    train(train_ref, tmp_path / "ref", demo, device="meta", fast=fast, micro_rows=micro_rows)


@pytest.mark.parametrize("waits", [
    lambda loss: loss.sum().item(), lambda loss: loss.nonzero(), lambda loss: loss[loss > 1], lambda loss: loss + torch.ones(4),
    lambda loss: bool(loss.isnan().any())])
def test_the_instrument_works(demo, tmp_path, on_meta, monkeypatch, waits):
    """Each way to wait, put into the step, is found."""
    plain = train_slm.excess_loss

    def waiting_score(loss, ref_loss):
        waits(loss.flatten()[:5])
        return plain(loss, ref_loss)
    monkeypatch.setattr(train_slm, "excess_loss", waiting_score)
    monkeypatch.setattr(train_slm.variants.Reference, "__call__", lambda self, rows, step: torch.zeros(len(rows), 32))
    with pytest.raises((RuntimeError, NotImplementedError)):
        train(train_slm, tmp_path / "slm", demo, scores="", device="meta", select="excess", keep=1.0, fast=False)
