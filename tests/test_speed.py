"""analysis/speed.py: its steps are the steps it says, all are measured, and its arithmetic."""
import json
import subprocess
import sys

import pytest
import torch

import train_slm
from analysis import speed
from engine.generation import generate
from engine.ranks import Ranks
from helpers import ROOT
from model import GPTConfig, token_loss

SHAPE = GPTConfig(64, 50, 2, 2, 32)


def tiny_work():
    """Three micro-batches, with the reference losses that slm_naive computes itself."""
    work = speed.Work(SHAPE, 2, 3, Ranks("cpu"))
    work.micro_batches = [(x, y, token_loss(work.reference_model.logits(work.reference_model(x)), y).detach())
                          for x, y, _ in work.micro_batches]  # (B, T) each
    return work


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def expected_gradients(keep):
    """Those of the mean loss of all tokens that train_slm.py selects in the three micro-batches."""
    work, loss_sum, n_selected = tiny_work(), 0, 0
    for x, y, ref_loss in work.micro_batches:
        k = round(keep * y.numel())
        loss_sum += train_slm.selected_loss(work.model(x), work.model.output_weight, y, ref_loss, k)[0]
        n_selected += k
    (loss_sum / n_selected).backward()
    return gradients(work.model)


@pytest.mark.parametrize("name", speed.STEPS)
def test_a_step_has_the_gradients_of_train_slm(name, monkeypatch):
    keep = 1.0 if name.startswith("clm") else float(name[-3:])
    work = tiny_work()
    work.optimizer.zero_grad = lambda **options: None  # they stay
    monkeypatch.setattr(speed, "GRAD_CLIP", torch.inf)
    speed.take_step(work, name, 3)
    torch.testing.assert_close(gradients(work.model), expected_gradients(keep), rtol=1e-3, atol=1e-6)
    for other in {1.0, 0.6, 0.3} - {keep}:
        assert (expected_gradients(other) - gradients(work.model)).abs().max() > 1e-3


def test_nanogpts_loop_generates_the_same_tokens():
    model, (prompts, n) = tiny_work().model.eval(), speed.random_prompts(SHAPE)
    assert len(prompts) == speed.QUESTIONS and len(set(map(len, prompts))) > 3
    with torch.no_grad():
        alone = [speed.generate_nanogpt(model, prompt, n) for prompt in prompts]
    assert generate(model, prompts, n) == alone and len(alone[0]) == n


def test_a_ratio_is_the_median_of_those_within_rounds():
    rows, memory = {"first": (print, 10), "other": (print, 20)}, {"first": 0, "other": 7}
    seconds = {"first": [1.0, 2.0, 4.0, 8.0, 3.0], "other": [3.0, 1.0, 2.0, 8.0, 3.0]}
    records = speed.records_of(rows, seconds, memory)  # ratios 1.5, 0.25, 0.25, 0.5, 0.5
    assert records["first"]["ratio"] == 1
    assert records["other"] == {"seconds": 3, "tokens_per_s": pytest.approx(20 / 3), "memory": 7,
                                "ratio": 0.5, "ratio_quartiles": [0.25, 0.5]}


def test_options_that_make_no_sense():
    bad = speed.Config(part=["gpt3"], measure=["step", "step_0"], rows=0)
    assert len(list(bad.validate())) == 3 and list(speed.Config().validate()) == []


def measured(folder, *options):
    """Run it for the demo's shape. Returns (the tables, what was printed)."""
    options = ["--part", "demo", "--rounds", "1", "--out", folder, *options]
    command = [sys.executable, "-m", "analysis.speed", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((folder / "demo.json").read_text())
    assert {"source", "device", "threads", "config"} <= result.keys()
    return result["tables"], done.stdout


def test_every_row_is_measured_and_written(tmp_path):
    options = ["--measure", "step", "step_3", "generate"]
    tables, printed = measured(tmp_path, "--device", "cpu", "--rows", "1", *options)
    steps = list(speed.STEPS)
    assert {table: list(records) for table, records in tables.items()} == {
        "step": steps, "step_3": steps, "generate": ["nanogpt", "batched"]}
    for record in tables["step_3"].values():
        assert f" {record['ratio']:.3g} (" in printed and record["seconds"] > 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_compiles_and_weighs_each_step_alone(tmp_path):
    tables, _ = measured(tmp_path, "--device", "cuda", "--compile", "--rows", "32")
    weights = 4 * sum(p.numel() for p in speed.GPT(speed.SHAPES["demo"]).parameters())  # bytes
    for steps in (tables["step"], tables["step_8"]):
        assert steps["slm_naive_0.6"]["memory"] - steps["slm_plain_0.6"]["memory"] > 0.9 * weights
        assert 3 * weights < steps["slm_fast_0.3"]["memory"] < 3 * steps["clm_nanogpt"]["memory"]
