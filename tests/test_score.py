"""Scores equal the reference model's losses, row by row, also after an interruption."""
import os

import numpy as np
import pytest
import torch

import score
from common import held_out_loss
from data import Scores, Tokens
from engine.checkpoints import load_model
from engine.cli import BadInput
from engine.ranks import Ranks


@pytest.fixture(scope="module")
def reference(demo, scores):
    """A checkpoint and its model."""
    path = os.path.join(os.path.dirname(scores), "ref", "best.pt")
    return path, load_model(path, Tokens(demo, "noisy", 32).tokenizer_sha256, demo, "cpu")[0]


def run_score(reference, demo, out, **options):
    score.main(score.Config(ckpt=reference[0], data=demo, out=str(out), device="cpu", **{"batch_rows": 7} | options))
    return {name: (out / name).read_bytes() for name in os.listdir(out) if name.endswith(".bin")}


@pytest.mark.parametrize("T", [32, 16])
def test_scores_equal_the_loss_of_each_row_on_its_own(reference, demo, tmp_path, T):
    run_score(reference, demo, tmp_path, block_size=T)
    tokens = Tokens(demo, "noisy", T)
    scores = Scores(str(tmp_path), tokens)
    raw = np.fromfile(os.path.join(demo, "noisy.bin"), dtype=np.uint16).astype(np.int64)
    assert scores.rows(np.arange(tokens.n_rows)).shape == (tokens.n_rows, T)
    for r in (0, 3, tokens.n_rows - 1):
        with torch.no_grad():
            hidden = reference[1](torch.from_numpy(raw[None, r * T:(r + 1) * T]))
            logp = torch.log_softmax(reference[1].logits(hidden)[0].double(), dim=-1)
        expected = -logp[torch.arange(T), raw[r * T + 1:(r + 1) * T + 1]]
        torch.testing.assert_close(scores.rows([r])[0].double(), expected, rtol=1e-3, atol=1e-3)  # float16 on disk


def test_an_interrupted_run_goes_on_and_ends_with_the_same_file(reference, demo, tmp_path, monkeypatch):
    whole = run_score(reference, demo, tmp_path / "whole")
    calls, real = [], score.score_rows

    def dies_after_five(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)
    monkeypatch.setattr(score, "score_rows", dies_after_five)
    with pytest.raises(KeyboardInterrupt):
        run_score(reference, demo, tmp_path / "cut")
    monkeypatch.undo()
    with open(tmp_path / "cut" / "loss.bin", "r+b") as f:
        f.truncate(100 + 2 * 32 * 20)  # a kill can come in the middle of a row, and of a batch of 7 rows
    with pytest.raises(BadInput, match="not complete"):
        Scores(str(tmp_path / "cut"), Tokens(demo, "noisy", 32))
    assert run_score(reference, demo, tmp_path / "cut") == whole
    monkeypatch.setattr(score, "score_rows", None)  # nothing is scored a second time
    assert run_score(reference, demo, tmp_path / "cut") == whole


def test_mean_scores_by_true_label_are_printed(reference, demo, tmp_path, capsys):
    run_score(reference, demo, tmp_path)
    printed = capsys.readouterr().out
    losses = np.fromfile(tmp_path / "loss.bin", dtype=np.float16).astype(np.float64)
    labels = np.fromfile(os.path.join(demo, "noisy.labels.bin"), dtype=np.uint8)[1:losses.size + 1]
    assert f"mean reference loss {losses.mean():.3f}" in printed
    for label, name in enumerate(["question", "solution", "result"]):
        mean = losses[labels == label].mean()
        assert f"{name:<10} {(labels == label).mean():6.1%} of the tokens, mean reference loss {mean:.3f}" in printed


def test_held_out_loss_is_the_mean_of_all_its_tokens(reference, demo):
    tokens = Tokens(demo, "test", 32)
    model = reference[1]
    loss, solution_loss = held_out_loss(model, tokens, Ranks("cpu"), max_rows=10**6, batch_rows=3)
    x, y = tokens.rows(np.arange(tokens.n_rows))
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model.logits(model(x)).transpose(1, 2), y, reduction="none")
    labels = tokens.row_labels(np.arange(tokens.n_rows))
    assert loss == pytest.approx(losses.mean().item(), rel=1e-5)
    assert held_out_loss(model, tokens, Ranks("cpu"), max_rows=2)[0] == pytest.approx(losses[:2].mean().item(), rel=1e-5)
    assert solution_loss == pytest.approx(losses[(labels == 1) | (labels == 2)].mean().item(), rel=1e-5)


def test_another_checkpoint_or_block_size_needs_another_folder(reference, demo, tmp_path):
    before = run_score(reference, demo, tmp_path)
    with pytest.raises(BadInput, match="holds scores of another"):
        run_score(reference, demo, tmp_path, block_size=16)
    assert run_score(reference, demo, tmp_path) == before
