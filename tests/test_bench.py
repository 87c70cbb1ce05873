"""bench.py: that its steps are the steps it says, and that it measures all of them."""
import json

import torch

import bench
from common import Ranks
from model import GPTConfig


def test_the_naive_and_our_steps_update_the_weights_alike():
    """The same arithmetic: after a step, nanoGPT's CLM and ours have the same weights to rounding."""
    shape = GPTConfig(16, 50, 2, 2, 32)

    def weights_after(name):
        model, _, _, _, optimizer, steps = bench.training_steps(shape, 4, Ranks("cpu"), False)
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        for group in optimizer.param_groups:
            group["lr"], group["eps"] = 1.0, 1.0  # AdamW's first step is the sign of the gradient, otherwise, and rounding decides small ones
        steps[name]()
        return torch.cat([p.detach().flatten() for p in model.parameters()]) - before

    clm = weights_after("clm_nanogpt")
    torch.testing.assert_close(weights_after("clm"), clm, rtol=1e-3, atol=1e-7)
    exact, filtered = weights_after("slm_0.3"), weights_after("slm_0.3_filtered")
    assert (exact - clm).abs().max() > 1e-4 and (filtered - exact).abs().max() > 1e-5  # and these are other steps
    assert set(bench.training_steps(shape, 4, Ranks("cpu"), False)[5]) == set(bench.STEPS)


def test_every_part_is_measured_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "STEPS", ("clm_nanogpt", "clm", "slm_naive_0.6"))  # fewer processes
    bench.main(bench.Config(part=["demo"], rows=2, rounds=1, seconds=0, out=str(tmp_path), device="cpu"))
    result = json.loads((tmp_path / "demo.json").read_text())
    assert set(result["steps"]) == {"clm_nanogpt", "clm", "slm_naive_0.6", "forward", "score"}
    for r in result["steps"].values():
        assert r["seconds"] > 0 and r["tokens_per_s"] > 0
    assert result["steps"]["clm_nanogpt"]["ratio"] == 1 and 0 < result["steps"]["clm"]["mfu"] < 1
    assert result["steps"]["clm"]["memory"] > 50e6 and result["loading_seconds"] > 0
    assert bench.table(result) in capsys.readouterr().out


def test_generation_writes_the_same_tokens_as_nanogpt(tmp_path):
    bench.main(bench.Config(part=["generation"], n_layer=2, n_head=2, n_embd=32, vocab_size=40, prefix=20, question=6,
                            new_tokens=5, questions=4, naive_questions=2, batch_size=2, out=str(tmp_path), device="cpu"))
    assert json.loads((tmp_path / "generation.json").read_text())["same_tokens"] == 1

