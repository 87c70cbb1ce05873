"""A training step never makes the host wait for a GPU: the scripts run on torch's `meta` device, which has shapes but no
values, so that `.item()`, `nonzero()` and a CPU tensor among the others raise."""
import os

import pytest
import torch

import common
import train_ref
import train_slm
from distillation import corpus
from engine.checkpoints import RunFolder
from engine.ranks import Ranks
from helpers import train

TWO_STEPS = 2 * 256


@pytest.fixture
def on_meta(monkeypatch):
    """What is meant to wait, evaluating, saving and logging, is left out; so is the copy back of a log line."""
    monkeypatch.setattr(common, "held_out_loss", lambda *args: (1.0, None))
    monkeypatch.setattr(train_slm, "selection_stats", lambda *args: {})
    monkeypatch.setattr(RunFolder, "save", lambda *args: None)
    monkeypatch.setattr(Ranks, "sum", lambda self, t: 1.0)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("micro_rows", [0, 2])
@pytest.mark.parametrize("options", [{"keep": 1.0}, {"keep": 0.3}, {"rank_by": "ref"}, {"rank_by": "loss"},
                                     {"keep": 0.3, "arch": "llama"}], ids=str)
def test_a_step_of_slm(demo, scores, tmp_path, on_meta, fast, micro_rows, options):
    train(train_slm, tmp_path / "slm", demo, scores=scores, device="meta", train_tokens=TWO_STEPS, fast=fast,
          micro_rows=micro_rows, **options)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("micro_rows", [0, 2])
def test_a_step_of_clm(demo, tmp_path, on_meta, fast, micro_rows):
    train(train_ref, tmp_path / "ref", demo, device="meta", train_tokens=TWO_STEPS, fast=fast, micro_rows=micro_rows)


@pytest.mark.parametrize("lm_share", [0.0, 0.5])
def test_a_step_of_distillation_on_the_corpus(demo, scores, tmp_path, on_meta, lm_share):
    ref = os.path.join(os.path.dirname(scores), "ref", "ckpt.pt")
    train(corpus, tmp_path / "distill", demo, device="meta", train_tokens=TWO_STEPS, ref=ref, lm_share=lm_share)


@pytest.mark.parametrize("waits", [
    lambda loss: loss.sum().item(), lambda loss: loss.nonzero(), lambda loss: loss[loss > 1], lambda loss: loss + torch.ones(4),
    lambda loss: bool(loss.isnan().any())])
def test_the_instrument_works(demo, scores, tmp_path, on_meta, monkeypatch, waits):
    """Each way to wait, put into the step, is found."""
    def waiting_rank(loss, ref_loss):
        waits(loss.flatten()[:5])
        return loss - ref_loss
    monkeypatch.setitem(train_slm.RANK_BY, "excess", waiting_rank)
    with pytest.raises((RuntimeError, NotImplementedError)):
        train(train_slm, tmp_path / "slm", demo, scores=scores, device="meta", train_tokens=TWO_STEPS)
