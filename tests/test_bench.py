"""bench/: that its steps are the steps it says, that it measures all of them, and that runs/gpu.sh runs."""
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from bench import generation, step
from bench.work import STEPS, Step, Work, slm_naive
from engine.ranks import Ranks
from helpers import ROOT
from model import GPT, GPTConfig, token_loss

SHAPE = GPTConfig(16, 50, 2, 2, 32)


def change_of_weights(kind, rows=4, n_micro=1, micro_batches=None, reference_model=None):
    """By how much a step of this kind, a Step, changes the weights, all of them in one vector."""
    work = Work(SHAPE, rows, n_micro, Ranks("cpu"), filtered=kind.filtered)
    work.micro_batches = micro_batches or work.micro_batches
    if reference_model:
        work.reference_model = reference_model
    before = torch.cat([p.detach().flatten().clone() for p in work.model.parameters()])
    for group in work.optimizer.param_groups:
        # AdamW's first step is the sign of the gradient, otherwise, and rounding decides small ones.
        group["lr"], group["eps"] = 1.0, 1.0
    kind.take(work, n_micro, kind.keep)
    return torch.cat([p.detach().flatten() for p in work.model.parameters()]) - before


def test_the_naive_and_our_steps_update_the_weights_alike():
    """The same arithmetic: after a step, nanoGPT's CLM and ours have the same weights to rounding."""
    clm = change_of_weights(STEPS["clm_nanogpt"])
    torch.testing.assert_close(change_of_weights(STEPS["clm"]), clm, rtol=1e-3, atol=1e-7)
    exact, filtered = change_of_weights(STEPS["slm_0.3"]), change_of_weights(STEPS["slm_0.3_filtered"])
    assert (exact - clm).abs().max() > 1e-4 and (filtered - exact).abs().max() > 1e-5  # these are other steps
    assert set(step.Config().steps) == {*STEPS, "forward", "score"}


def test_eight_micro_batches_of_one_row_add_up():
    """CLM, nanoGPT's and ours: what one pass of eight rows gives, and not what one row gives."""
    rows = Work(SHAPE, 1, 8, Ranks("cpu")).micro_batches
    together = [tuple(torch.cat(some) for some in zip(*rows))]  # (8, T) each
    naive = change_of_weights(STEPS["clm_nanogpt"], 1, 8, rows)
    torch.testing.assert_close(change_of_weights(STEPS["clm"], 1, 8, rows), naive, rtol=1e-3, atol=1e-7)
    for name in ("clm_nanogpt", "clm"):
        at_once = change_of_weights(STEPS[name], 8, 1, together)
        torch.testing.assert_close(at_once, naive, rtol=1e-3, atol=1e-7)
    assert (change_of_weights(STEPS["clm"], 1, 1, rows) - naive).abs().max() > 1e-4


@pytest.mark.parametrize("keep", [0.6, 0.3])
def test_slm_with_eight_micro_batches_of_one_row_is_the_naive_way_accumulated(keep):
    """Ours, given the reference losses, and the naive way, which runs the reference model itself."""
    torch.manual_seed(7)
    reference_model, rows = GPT(SHAPE).eval(), []
    for x, y, _ in Work(SHAPE, 1, 8, Ranks("cpu")).micro_batches:
        with torch.no_grad():
            ref_loss = token_loss(reference_model.logits(reference_model(x)), y)                  # (1, T)
        rows.append((x, y, ref_loss))
    naive = change_of_weights(Step(slm_naive, keep), 1, 8, rows, reference_model)
    ours = change_of_weights(STEPS[f"slm_{keep}"], 1, 8, rows)
    torch.testing.assert_close(ours, naive, rtol=1e-3, atol=1e-7)
    # and this is another step than with the ranking over all eight rows, and than CLM's
    together = [tuple(torch.cat(some) for some in zip(*rows))]  # (8, T) each
    for other in (change_of_weights(STEPS[f"slm_{keep}"], 8, 1, together),
                  change_of_weights(STEPS["clm"], 1, 8, rows)):
        assert (ours - other).abs().max() > 1e-4


def test_every_part_is_measured_and_written(tmp_path, capsys):
    chosen = ["clm_nanogpt", "clm", "slm_naive_0.6", "forward", "score"]  # fewer processes
    step.main(step.Config(part=["demo"], steps=chosen, micro_batches=[2, 3], rows=2, rounds=1, seconds=0,
                          out=str(tmp_path), device="cpu"))
    result = json.loads((tmp_path / "demo.json").read_text())
    assert set(result["steps"]) == {"2", "3"} and set(result["passes"]) == {"forward", "score"}
    for steps in result["steps"].values():
        assert set(steps) == {"clm_nanogpt", "clm", "slm_naive_0.6"}
        for r in [*steps.values(), *result["passes"].values()]:
            assert r["seconds"] > 0 and r["tokens_per_s"] > 0
        assert steps["clm_nanogpt"]["ratio"] == 1 and 0 < steps["clm"]["mfu"] < 1
        assert steps["clm"]["memory"] > 50e6 and result["loading_seconds"] > 0
    assert step.table(result) in capsys.readouterr().out
    assert step.table(result).count("| clm_nanogpt |") == 2 and "| 2 micro-batches |" in step.table(result)


def test_what_ratios_are_to_must_be_measured():
    assert list(step.Config().validate()) == []
    for steps in (["slm_0.3"], ["score"], ["clm_nanogpt", "slm_0.5"]):
        assert len(list(step.Config(steps=steps).validate())) == 1


def test_generation_writes_the_same_tokens_as_nanogpt(tmp_path):
    generation.main(generation.Config(
        n_layer=2, n_head=2, n_embd=32, vocab_size=40, prefix=20, question=6, new_tokens=5, questions=4,
        naive_questions=2, batch_size=2, out=str(tmp_path), device="cpu"))
    assert json.loads((tmp_path / "generation.json").read_text())["same_tokens"] == 1


def gpu_script(folder, **variables):
    """runs/gpu.sh at its tiny size without a GPU, its results in `folder`. Returns the finished process."""
    tiny = {"SIZE": "tiny", "DEVICE": "cpu", "PYTHON": sys.executable, "OUT": str(folder),
            "WORK": str(folder / "work")}
    script = ["bash", os.path.join(ROOT, "runs", "gpu.sh")]
    return subprocess.run(script, env=os.environ | tiny | variables, capture_output=True, text=True)


def summary(folder):
    """[part, exit code] of each line of summary.tsv."""
    return [line.split("\t")[:2] for line in (folder / "summary.tsv").read_text().splitlines()]


@pytest.mark.slow
def test_the_gpu_script_runs_without_a_gpu(tmp_path):
    """All parts end well, their results are there, and a second time nothing is done again."""
    start = time.time()
    done = gpu_script(tmp_path)
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs[-3000:]
    assert time.time() - start < 300
    parts = ["environment", "tests", "training", "scoring", "generation", "demo"]
    assert summary(tmp_path) == [[name, "0"] for name in parts]

    def result(path):
        return json.loads((tmp_path / path).read_text())
    measured = {n: set(steps) for n, steps in result("training/demo.json")["steps"].items()}
    assert measured == {"1": {"clm_nanogpt", "slm_0.3"}, "8": {"clm_nanogpt", "slm_0.3"}}
    assert set(result("scoring/demo.json")["passes"]) == {"forward", "score"}
    assert result("generation/generation.json")["questions_per_s"] > 0
    assert set(result("demo/results.json")["arms"]) == {"ref", "clm", "slm"}
    again = gpu_script(tmp_path)
    assert again.returncode == 0 and again.stdout.count("done before") == 6


def test_a_part_of_the_gpu_script_that_fails_does_not_stop_the_others(tmp_path):
    """With a Python that is none, each part is in the summary with its exit code, and is tried again."""
    for _ in range(2):
        done = gpu_script(tmp_path, PYTHON="false", PARTS="environment training scoring")
        assert done.returncode == 1 and done.stdout.count("exit code 1, see") == 3
        assert summary(tmp_path) == [["environment", "1"], ["training", "1"], ["scoring", "1"]]
