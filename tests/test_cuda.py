"""What only a GPU can show: bfloat16, compiling, and that it agrees with a processor. Skipped without one."""
import os

import numpy as np
import pytest
import torch

import common
import score
import train_ref
import train_slm
from engine import fast_loss
from engine.generation import generate
from helpers import records, train
from test_model import make, uncached

DEVICE = "cuda"
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def example():
    """Hidden states, an output matrix of 1,001 ids (which the fast form pads), targets, reference losses."""
    torch.manual_seed(0)
    hidden = torch.randn(4, 256, 64, device=DEVICE, requires_grad=True)
    weight = (0.2 * torch.randn(1001, 64, device=DEVICE)).requires_grad_()
    targets = torch.randint(1001, (4, 256), device=DEVICE)
    return hidden, weight, targets, 10 * torch.rand(4, 256, device=DEVICE)


@pytest.mark.parametrize("k", [1, 307, 614, 1024])
def test_the_fast_loss_equals_the_plain_one_in_bfloat16(monkeypatch, k):
    """Under autocast, as in training, with a ranking that rounding does not change."""
    monkeypatch.setattr(fast_loss, "chunks", lambda n, weight: [(a, min(a + 100, n)) for a in range(0, n, 100)])
    hidden, weight, targets, ref_loss = example()
    rank_by = train_slm.RANK_BY["ref"]
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        plain = train_slm.selected_loss(hidden, weight, targets, ref_loss, k, rank_by)
        fast = fast_loss.selected_loss(hidden, weight, targets, ref_loss, k, rank_by)
    assert fast[1].dtype == torch.float32 and fast[2].equal(plain[2])
    torch.testing.assert_close(fast[1], plain[1], rtol=0, atol=0.05)
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-2, atol=0.05)
    for ours, expected in zip(*(torch.autograd.grad(loss, (hidden, weight)) for loss in (fast[0], plain[0]))):
        assert ours.dtype == torch.float32 and (ours - expected).norm() < 0.02 * expected.norm()


def assert_same_trace(a, b):
    """The same steps, and losses that differ by bfloat16's rounding and the few tokens that it exchanges."""
    a, b = records(a), records(b)
    assert [r["step"] for r in a] == [r["step"] for r in b] == list(range(12))
    assert [r["loss"] for r in a] == pytest.approx([r["loss"] for r in b], abs=0.1)


SLM = {"keep": 0.3}


@pytest.mark.parametrize("script, options", [
    (train_ref, {"fast": True}), (train_slm, SLM), (train_slm, SLM | {"rank_by": "ref", "fast": True}),
    (train_slm, SLM | {"micro_rows": 2, "arch": "llama"})])
def test_an_interrupted_run_is_that_of_a_processor(demo, scores, tmp_path, monkeypatch, script, options):
    options = options | ({"scores": scores} if script is train_slm else {})
    train(script, tmp_path / "cpu", demo, **options)

    def interrupted(step, cfg):
        if step == 6:  # the last weights were saved at step 4
            raise KeyboardInterrupt
        return common.learning_rate(step, cfg)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(script, "learning_rate", interrupted)
        train(script, tmp_path / "gpu", demo, device=DEVICE, **options)
    train(script, tmp_path / "gpu", demo, device=DEVICE, resume=True, **options)
    assert_same_trace(tmp_path / "cpu", tmp_path / "gpu")
    ours, expected = ([r["val_loss"] for r in records(tmp_path / name, "eval")] for name in ("gpu", "cpu"))
    assert ours == pytest.approx(expected, abs=0.1) and ours[-1] < ours[0]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("script", [train_ref, train_slm])
def test_a_compiled_run_equals_one_that_is_not(demo, scores, tmp_path, monkeypatch, script, fast):
    for name in ("token_loss", "softmax_minus_one_hot"):  # what --compile exchanges is put back afterwards
        monkeypatch.setattr(fast_loss, name, getattr(fast_loss, name))
    options = {"device": DEVICE, "fast": fast} | (SLM | {"scores": scores} if script is train_slm else {})
    train(script, tmp_path / "plain", demo, **options)
    train(script, tmp_path / "compiled", demo, compile=True, **options)
    assert_same_trace(tmp_path / "plain", tmp_path / "compiled")


def test_scores_are_those_of_a_processor(demo, scores, tmp_path):
    ckpt = os.path.join(os.path.dirname(scores), "ref", "best.pt")
    score.main(score.Config(ckpt=ckpt, data=demo, out=str(tmp_path), device=DEVICE))
    ours, expected = (np.fromfile(os.path.join(folder, "loss.bin"), dtype=np.float16).astype(np.float32)
                      for folder in (tmp_path, scores))
    difference = abs(ours - expected)
    assert len(ours) == len(expected) and difference.max() < 0.1 and difference.mean() < 0.01


def test_cached_generation_equals_uncached():
    """Token for token in float64; under autocast, where rounding may decide, as many tokens."""
    model, shared = make().to(DEVICE), list(range(9))
    prompts = [shared + torch.randint(50, (n,)).tolist() for n in (1, 5, 8, 12)]
    assert generate(model, prompts, 10) == [uncached(model, prompt, 10) for prompt in prompts]
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert [len(new) for new in generate(model.float(), prompts, 10)] == [10] * 4
