"""analysis/measures.py: what masking does to a loss, against direct computation."""
import json
import os
import shutil

import numpy as np
import pytest
import torch

from analysis import measures
from data import Tokens
from engine.checkpoints import load_model
from engine.ranks import Ranks
from model import GPT, GPTConfig, token_loss


@pytest.fixture
def ckpt(scores):
    return os.path.join(os.path.dirname(scores), "ref", "best.pt")


def test_measures_of_a_run_by_hand(demo, ckpt, tmp_path):
    path = shutil.copy(ckpt, tmp_path)
    measures.main(measures.Config(ckpt=[path], data=demo, device="cpu"))
    [record] = map(json.loads, (tmp_path / "eval" / "measures.jsonl").read_text().splitlines())
    test = Tokens(demo, "test", 32)
    model, _ = load_model(ckpt, test.tokenizer_sha256, demo, "cpu")
    x, y = test.rows(np.arange(test.n_rows))
    with torch.no_grad():
        logits = model.logits(model(x))
    labels = test.row_labels(np.arange(test.n_rows))
    loss = token_loss(logits, y)
    right = (logits.argmax(-1) == y)[labels == 2].double()
    assert record["likeliest_result"] == pytest.approx(right.mean().item())
    possible = {t for name in ("curated", "val") for t in Tokens(demo, name, 32).tokens.tolist()}
    assert len(possible) < test.vocab_size / 2
    logits[..., sorted(set(range(test.vocab_size)) - possible)] = -torch.inf
    known = torch.tensor([[t in possible for t in row] for row in y.tolist()])
    assert record["impossible_targets"] == pytest.approx(1 - known.double().mean().item())
    masked = token_loss(logits, y)
    groups = {"": labels >= 0, "_solution": (labels == 1) | (labels == 2), "_result": labels == 2}
    for group, members in groups.items():
        assert record[f"raw{group}"] == pytest.approx(loss[members].mean().item(), rel=1e-5)
        assert record[f"masked{group}"] == pytest.approx(masked[members & known].mean().item(), rel=1e-5)
    assert record["masked"] < record["raw"]


def test_a_checkpoint_is_measured_once(demo, ckpt, tmp_path, monkeypatch):
    path, out = shutil.copy(ckpt, tmp_path), tmp_path / "eval" / "measures.jsonl"
    cfg = measures.Config(ckpt=[path], data=demo, device="cpu")
    measures.main(cfg)
    before = out.read_text()
    assert before.count("\n") == 1
    monkeypatch.setattr(measures, "measure", lambda *args: {"raw": 1.0, "masked": 1.0})
    measures.main(cfg)
    assert out.read_text() == before
    cfg.max_rows = 4  # otherwise: anew
    measures.main(cfg)
    assert json.loads(out.read_text())["raw"] == 1.0


def test_without_results_there_are_no_figures_of_results(demo, monkeypatch):
    """A corpus of one's own labels `solution` at most, and a mean of nothing would be NaN."""
    def all_solution(tokens, rows):
        return torch.ones(len(rows), tokens.T, dtype=torch.uint8)
    monkeypatch.setattr(Tokens, "row_labels", all_solution)
    model = GPT(GPTConfig(32, Tokens(demo, "test", 32).vocab_size, 1, 1, 8)).eval()
    record = measures.measure(model, measures.Config(data=demo, max_rows=4), Ranks("cpu"))
    assert "masked_solution" in record and not any(name.endswith("_result") for name in record)
    assert all(value == value for value in record.values())
