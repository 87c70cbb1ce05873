"""distillation/corpus.py: its loss against the divergence written out, and a run."""
import os

import pytest
import torch
from torch.nn import functional as F

import train_ref
from distillation import corpus
from distillation.corpus import distillation_loss
from engine.cli import BadInput
from helpers import records, same_weights, train
from model import token_loss


@pytest.mark.parametrize("lm_share", [0.0, 0.3, 1.0])
def test_the_gradient_is_that_of_the_forward_kl_and_of_the_usual_loss(lm_share):
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 6, 5, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 5, generator=g, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(9, (2, 6), generator=g)
    teacher = torch.randn(2, 6, 9, generator=g, dtype=torch.float64).log_softmax(dim=-1)
    loss = distillation_loss(hidden, weight, targets, teacher.exp(), lm_share)
    student = F.linear(hidden, weight).log_softmax(dim=-1)
    kl = (teacher.exp() * (teacher - student)).sum()
    expected = (1 - lm_share) * kl + lm_share * token_loss(F.linear(hidden, weight), targets).sum()
    for a, b in zip(torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(expected, (hidden, weight))):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)  # the softmax is taken in float32


def test_a_run_goes_towards_its_reference_and_resumes(demo, scores, tmp_path):
    ref = os.path.join(os.path.dirname(scores), "ref", "ckpt.pt")
    train(corpus, tmp_path / "a", demo, ref=ref)
    losses = [r["loss"] for r in records(tmp_path / "a")]
    assert losses[-1] < losses[0]
    clm = train(train_ref, tmp_path / "clm", demo)
    assert not same_weights(tmp_path / "a", clm)
    with pytest.raises(BadInput, match="made from other files"):
        train(corpus, tmp_path / "a", demo, ref=str(clm / "ckpt.pt"), resume=True)
    only_lm = train(corpus, tmp_path / "lm", demo, ref=ref, lm_share=1.0)  # nothing of the reference
    assert same_weights(only_lm, clm, tolerance=1e-4)


def test_bad_options(demo, scores, tmp_path):
    assert any("lm_share" in p for p in corpus.Config(lm_share=1.5).validate())
    assert any("fast" in p for p in corpus.Config(fast=True).validate())
    ref = os.path.join(os.path.dirname(scores), "ref", "ckpt.pt")
    with pytest.raises(BadInput, match="context of 32 tokens"):
        train(corpus, tmp_path / "long", demo, ref=ref, block_size=64, batch_tokens=512)
