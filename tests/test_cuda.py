"""What only a GPU can show: bfloat16, compiling, and that it agrees with a processor. Skipped without one."""
import json
import os

import numpy as np
import pytest
import torch

import score
import train_ref
import train_slm
from bench import step as bench_step
from bench.work import SHAPES, STEPS, Work
from engine import fast_loss
from engine.generation import generate
from engine.ranks import Ranks
from extras import variants
from helpers import records, train
from model import GPT, GPTConfig

DEVICE = "cuda"
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.fixture
def chunks_of_100(monkeypatch):
    """Several chunks, although the tensors of a test are small."""
    def chunks(n, weight):
        return [(a, min(a + 100, n)) for a in range(0, n, 100)]
    monkeypatch.setattr(fast_loss, "chunks", chunks)


def example(dtype):
    """Hidden states, an output matrix of 1,001 ids (which the fast form pads), targets, reference losses."""
    torch.manual_seed(0)
    hidden = torch.randn(4, 256, 64, dtype=dtype, device=DEVICE, requires_grad=True)
    weight = (0.2 * torch.randn(1001, 64, dtype=dtype, device=DEVICE)).requires_grad_()
    targets = torch.randint(1001, (4, 256), device=DEVICE)
    return hidden, weight, targets, 10 * torch.rand(4, 256, dtype=dtype, device=DEVICE)


@pytest.mark.parametrize("k", [1, 307, 614, 1024])
def test_the_fast_loss_equals_the_plain_one_in_float64(chunks_of_100, k):
    hidden, weight, targets, ref_loss = example(torch.float64)
    plain = train_slm.selected_loss(hidden, weight, targets, ref_loss, k)
    fast = fast_loss.selected_loss(hidden, weight, targets, ref_loss, k, train_slm.excess_loss)
    assert fast[2].equal(plain[2]) and fast[2].sum() == k
    torch.testing.assert_close(fast[:2], plain[:2], rtol=1e-11, atol=1e-11)
    ours, expected = (torch.autograd.grad(loss, (hidden, weight)) for loss in (fast[0], plain[0]))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("k", [1, 307, 614, 1024])
@pytest.mark.parametrize("of", [train_slm.excess_loss, variants.low_ref])
def test_the_fast_loss_equals_the_plain_one_in_bfloat16(chunks_of_100, k, of):
    """Under autocast, as in training. Rounding may exchange tokens of nearly the same excess loss."""
    hidden, weight, targets, ref_loss = example(torch.float32)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        plain = train_slm.selected_loss(hidden, weight, targets, ref_loss, k, of)
        fast = fast_loss.selected_loss(hidden, weight, targets, ref_loss, k, of)
        all_tokens = fast_loss.token_losses(hidden, weight, targets)
    assert fast[1].dtype == torch.float32
    torch.testing.assert_close(fast[1], plain[1], rtol=0, atol=0.05)
    torch.testing.assert_close(all_tokens, plain[1], rtol=0, atol=0.05)
    assert fast[2].equal(train_slm.top_k(of(fast[1], ref_loss), k))  # the best by its own losses
    if of is train_slm.excess_loss:
        assert (fast[2] != plain[2]).sum() <= 20
        return
    assert fast[2].equal(plain[2])
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-2, atol=0.05)
    for ours, expected in zip(*(torch.autograd.grad(loss, (hidden, weight)) for loss in (fast[0], plain[0]))):
        assert ours.dtype == torch.float32 and (ours - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("name", STEPS)
def test_a_step_does_not_wait_for_the_gpu(chunks_of_100, name):
    step = STEPS[name]
    work = Work(GPTConfig(64, 101, 2, 2, 32), 4, 2, Ranks(DEVICE), filtered=step.filtered)
    step.take(work, 2, step.keep)  # the first step sets up the libraries
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.take(work, 2, step.keep)
        with pytest.raises(RuntimeError):
            work.model.wte.weight.sum().item()  # the instrument works
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_bench_weighs_each_step_alone(tmp_path):
    """The naive way holds a second model; what it leaves behind must not count in the steps after it."""
    bench_step.main(bench_step.Config(part=["demo"], rows=1, rounds=1, seconds=0, device=DEVICE, out=str(tmp_path)))
    steps = json.loads((tmp_path / "demo.json").read_text())["steps"]["8"]
    weights = 4 * sum(p.numel() for p in GPT(SHAPES["demo"]).parameters())
    assert set(steps) == set(STEPS) and steps["slm_naive_0.6"]["memory"] - steps["slm_0.6"]["memory"] > 0.9 * weights
    assert 3 * weights < steps["slm_0.3"]["memory"] < 3 * steps["clm_nanogpt"]["memory"]


def assert_same_trace(a, b, steps=12):
    """The same steps, and losses that differ by bfloat16's rounding and the few tokens that it exchanges."""
    a, b = records(a), records(b)
    assert [r["step"] for r in a] == [r["step"] for r in b] == list(range(steps))
    assert [r["loss"] for r in a] == pytest.approx([r["loss"] for r in b], abs=0.1)


@pytest.mark.parametrize("options", [
    {"keep": 1.0}, {"keep": 0.3}, {"keep": 0.3, "fast": False}, {"keep": 0.3, "micro_rows": 2},
    {"keep": 0.3, "arch": "llama", "n_kv_head": 1}], ids=str)
def test_slm_trains_as_on_a_processor(demo, scores, tmp_path, options):
    train(train_slm, tmp_path / "cpu", demo, scores=scores, **options)
    train(train_slm, tmp_path / "gpu", demo, scores=scores, device=DEVICE, **options)
    assert_same_trace(tmp_path / "cpu", tmp_path / "gpu")
    evals = records(tmp_path / "gpu", "eval")
    assert evals[-1]["val_loss"] < evals[0]["val_loss"]
    expected = [r["val_loss"] for r in records(tmp_path / "cpu", "eval")]
    assert [r["val_loss"] for r in evals] == pytest.approx(expected, abs=0.1)


def test_clm_trains_as_on_a_processor(demo, tmp_path):
    train(train_ref, tmp_path / "cpu", demo)
    train(train_ref, tmp_path / "gpu", demo, device=DEVICE)
    assert_same_trace(tmp_path / "cpu", tmp_path / "gpu")


@pytest.mark.parametrize("script", [train_ref, train_slm])
def test_a_compiled_run_equals_one_that_is_not(demo, scores, tmp_path, monkeypatch, script):
    for name in ("token_loss", "softmax_minus_one_hot"):  # what --compile exchanges is put back afterwards
        monkeypatch.setattr(fast_loss, name, getattr(fast_loss, name))
    options = {"device": DEVICE}
    if script is train_slm:
        options |= {"scores": scores, "keep": 0.3}
    train(script, tmp_path / "plain", demo, **options)
    train(script, tmp_path / "compiled", demo, compile=True, **options)
    assert_same_trace(tmp_path / "plain", tmp_path / "compiled")


class StopAfterSixSteps:
    """In the place of StopSignal: as if Ctrl-C had come in the seventh turn of the loop."""
    turns = 0

    @property
    def received(self):
        self.turns += 1
        return self.turns > 6


def test_an_interrupted_run_goes_on(demo, scores, tmp_path, monkeypatch):
    options = {"scores": scores, "keep": 0.3, "device": DEVICE}
    train(train_slm, tmp_path / "whole", demo, **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_slm, "StopSignal", StopAfterSixSteps)
        train(train_slm, tmp_path / "cut", demo, **options)
    assert torch.load(tmp_path / "cut" / "ckpt.pt", weights_only=True)["step"] == 6
    train(train_slm, tmp_path / "cut", demo, resume=True, **options)
    assert_same_trace(tmp_path / "whole", tmp_path / "cut")


def test_scores_are_those_of_a_processor(demo, scores, tmp_path):
    ckpt = os.path.join(os.path.dirname(scores), "ref", "best.pt")
    score.main(score.Config(ckpt=ckpt, data=demo, out=str(tmp_path), device=DEVICE))
    ours, expected = (np.fromfile(os.path.join(folder, "loss.bin"), dtype=np.float16).astype(np.float32)
                      for folder in (tmp_path, scores))
    difference = abs(ours - expected)
    assert len(ours) == len(expected) and difference.max() < 0.1 and difference.mean() < 0.01


def test_cached_generation_equals_uncached():
    """Token for token in float64; under autocast, where rounding may decide, as many tokens."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(block_size=64, vocab_size=97, n_layer=2, n_head=2, n_embd=32))
    model = model.to(DEVICE).double().eval()
    shared = torch.randint(97, (9,)).tolist()
    prompts = [shared + torch.randint(97, (n,)).tolist() for n in (1, 5, 12, 30)]
    expected = []
    for prompt in prompts:
        idx = torch.tensor([prompt], device=DEVICE)
        for _ in range(20):
            with torch.no_grad():
                token = model.logits(model(idx)[:, -1]).argmax(dim=-1, keepdim=True)  # (1, 1)
            idx = torch.cat([idx, token], dim=1)
        expected.append(idx[0, len(prompt):].tolist())
    assert generate(model, prompts, 20) == expected
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert [len(new) for new in generate(model.float(), prompts, 20)] == [20] * 4
