"""analysis/measures.py: the share of results that are the likeliest token, against direct computation."""
import json
import os
import shutil

import numpy as np
import pytest
import torch

from analysis import measures
from data import Tokens
from engine.checkpoints import load_model
from engine.cli import BadInput
from engine.ranks import Ranks


@pytest.fixture
def ckpt(scores):
    return os.path.join(os.path.dirname(scores), "ref", "best.pt")


def test_the_share_by_hand_and_once(demo, ckpt, tmp_path, monkeypatch):
    path, out = shutil.copy(ckpt, tmp_path), tmp_path / "eval" / "measures.jsonl"
    cfg = measures.Config(ckpt=[path], data=demo, device="cpu")
    measures.main(cfg)
    [record] = map(json.loads, out.read_text().splitlines())
    test = Tokens(demo, "test", 32)
    model, _ = load_model(ckpt, test.tokenizer_sha256, demo, "cpu")
    x, y = test.rows(np.arange(test.n_rows))
    with torch.no_grad():
        right = model.logits(model(x)).argmax(-1) == y
    labels = test.row_labels(np.arange(test.n_rows))
    assert record["likeliest_result"] == right[labels == 2].double().mean().item() != right.double().mean().item()
    before = out.read_text()
    monkeypatch.setattr(measures, "likeliest_result", lambda *args: 0.5)
    measures.main(cfg)
    assert out.read_text() == before
    cfg.max_rows = 4  # otherwise: anew
    measures.main(cfg)
    assert json.loads(out.read_text())["likeliest_result"] == 0.5


def test_without_results_it_says_so(demo, ckpt, monkeypatch):
    tokens = Tokens(demo, "test", 32)
    model, _ = load_model(ckpt, tokens.tokenizer_sha256, demo, "cpu")
    tokens.label_names = ["question", "solution"]
    with pytest.raises(BadInput, match="no tokens labelled .result."):
        measures.likeliest_result(model, tokens, 4, Ranks("cpu"))
