"""extras/against_reference.py: its bands against a loop over tokens, and what does not fit together."""
import json

import numpy as np
import pytest
import torch

import train_ref
from common import load_model
from corpora.tokenizers import load_tokenizer, tokenizer_hash
from data import Tokens
from engine.cli import BadInput
from extras import against_reference
from helpers import train


@pytest.fixture(scope="module")
def runs(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, options in (("ref", {"train": "curated"}), ("seed0/slm", {"seed": 1}), ("seed0/clm", {"seed": 2})):
        train(train_ref, folder / name, demo, **options)
    return folder


def test_bands_equal_a_loop_over_tokens(demo, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(against_reference, "BANDS", (5.6, 6.2))  # of hardly trained models
    arms = {name: str(runs / "seed0" / name / "ckpt.pt") for name in ("slm", "clm")}
    cfg = against_reference.Config(ref=[str(runs / "ref" / "ckpt.pt")], ckpt=list(arms.values()), data=[demo],
                                   out=str(tmp_path), device="cpu")
    assert list(cfg.validate()) == []
    against_reference.main(cfg)
    bands = json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "bands.png").stat().st_size > 5_000 and "above 6.2" in (tmp_path / "table.md").read_text()

    test = Tokens(demo, "test", 32)
    sha256 = tokenizer_hash(load_tokenizer(demo))
    found = {}
    for name, path in {"ref": cfg.ref[0], **arms}.items():
        model, losses = load_model(path, sha256, demo, "cpu")[0], []
        for row in range(test.n_rows):
            x, y = test.rows(np.array([row]))
            with torch.no_grad():
                logp = torch.log_softmax(model.logits(model(x))[0].double(), dim=-1)
            for t in np.flatnonzero(test.row_labels(np.array([row]))[0] == test.label_names.index("result")):
                losses.append((-logp[t, y[0, t]].item(), logp[t].argmax().item() == y[0, t].item()))
        found[name] = np.array(losses)
    reference = found["ref"][:, 0]
    assert len(bands) > 1 and sum(b["share"] for b in bands) == pytest.approx(1)
    for band, (low, high) in zip(bands, ((0, 5.6), (5.6, 6.2), (6.2, np.inf)), strict=True):
        inside = (low <= reference) & (reference < high)
        assert band["share"] == pytest.approx(inside.mean())
        assert band["reference"] == pytest.approx(reference[inside].mean())
        for name in arms:
            loss, right = found[name][inside].T
            assert band["arms"][name] == pytest.approx({
                "loss": loss.mean(), "ahead": (loss < reference[inside]).mean(), "likeliest": right.mean()}, rel=1e-4)


def test_seeds_and_arms_have_to_fit(demo, runs):
    ref, ckpt = str(runs / "ref" / "ckpt.pt"), str(runs / "seed0" / "slm" / "ckpt.pt")
    for options, message in (({"ref": [ref], "ckpt": [ckpt]}, "as many files as folders"),
                             ({"ref": [ref, ref], "data": [demo, demo], "ckpt": [ckpt]}, "for each of the 2 seeds")):
        [problem] = against_reference.Config(**options).validate()
        assert message in problem
    cfg = against_reference.Config(ref=[ref, ref], data=[demo, demo], ckpt=[ckpt, ref], device="cpu")
    with pytest.raises(BadInput, match="has not 2 checkpoints of each of slm, ref"):
        against_reference.main(cfg)


def test_contexts_of_other_lengths_are_refused(demo, runs, tmp_path):
    train(train_ref, tmp_path / "long", demo, block_size=64)
    cfg = against_reference.Config(ref=[str(runs / "ref" / "ckpt.pt")], ckpt=[str(tmp_path / "long" / "ckpt.pt")],
                                   data=[demo], device="cpu")
    with pytest.raises(BadInput, match="another context"):
        against_reference.main(cfg)
