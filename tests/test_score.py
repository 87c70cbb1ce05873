"""Scores equal the reference model's losses, row by row, also after an interruption."""
import json
import os

import numpy as np
import pytest
import torch

import score
from common import held_out_loss
from corpora.tokenizers import demo_tokenizer, tokenizer_hash
from data import Scores, Tokens
from engine.cli import BadInput
from engine.ranks import Ranks
from model import GPT, GPTConfig


@pytest.fixture(scope="module")
def reference(demo, tmp_path_factory):
    """A model with dropout, saved as a checkpoint."""
    torch.manual_seed(0)
    config = dict(block_size=32, vocab_size=demo_tokenizer().n_vocab, n_layer=1, n_head=2, n_embd=16, dropout=0.5)
    model = GPT(GPTConfig(**config))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    path = str(tmp_path_factory.mktemp("model") / "ckpt.pt")
    torch.save({"model": model.state_dict(), "model_config": config, "tokenizer_sha256": tokenizer_hash(demo_tokenizer())}, path)
    return path, model.eval()


def run_score(reference, demo, out, **options):
    score.main(score.Config(ckpt=reference[0], data=demo, out=str(out), device="cpu", **{"batch_rows": 7} | options))
    return {name: (out / name).read_bytes() for name in os.listdir(out) if name.endswith(".bin")}


@pytest.mark.parametrize("T", [32, 16])
def test_scores_equal_the_loss_of_each_row_on_its_own(reference, demo, tmp_path, T):
    """Also that dropout is off: the model of the checkpoint has a rate of a half."""
    run_score(reference, demo, tmp_path, entropy=True, block_size=T)
    tokens = Tokens(demo, "noisy", T)
    scores = Scores(str(tmp_path), tokens)
    entropy = Scores(str(tmp_path), tokens, "entropy")
    raw = np.fromfile(os.path.join(demo, "noisy.bin"), dtype=np.uint16).astype(np.int64)
    assert scores.rows(np.arange(tokens.n_rows)).shape == (tokens.n_rows, T)
    for r in (0, 3, tokens.n_rows - 1):
        with torch.no_grad():
            logp = torch.log_softmax(reference[1].logits(reference[1](torch.from_numpy(raw[None, r * T:(r + 1) * T])))[0].double(), -1)
        expected = -logp[torch.arange(T), raw[r * T + 1:(r + 1) * T + 1]]
        torch.testing.assert_close(scores.rows([r])[0].double(), expected, rtol=1e-3, atol=1e-3)  # float16 on disk
        torch.testing.assert_close(entropy.rows([r])[0].double(), -(logp.exp() * logp).sum(-1), rtol=1e-3, atol=1e-3)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_file(reference, demo, tmp_path, monkeypatch):
    whole = run_score(reference, demo, tmp_path / "whole")
    calls, real = [], score.score_rows

    def dies_after_five(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)
    monkeypatch.setattr(score, "score_rows", dies_after_five)
    clock = iter(range(0, 10**6, 2))  # time flies: it saves after every few batches
    monkeypatch.setattr(score.time, "time", lambda: float(next(clock)))
    with pytest.raises(KeyboardInterrupt):
        run_score(reference, demo, tmp_path / "cut")
    monkeypatch.undo()
    state = json.loads((tmp_path / "cut" / "scores.json").read_text())
    assert 0 < state["rows_done"] <= 35 < state["n_rows"]
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
        assert f"{name:<10} {(labels == label).mean():6.1%} of the tokens, mean reference loss {losses[labels == label].mean():.3f}" in printed


def test_held_out_loss_is_the_mean_of_all_its_tokens(reference, demo):
    tokens = Tokens(demo, "test", 32)
    model = reference[1].train()  # it must switch dropout off, and back on
    loss, solution_loss = held_out_loss(model, tokens, Ranks("cpu"), max_rows=10**6, batch_rows=3)
    assert model.training
    model.eval()
    x, y = tokens.rows(np.arange(tokens.n_rows))
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model.logits(model(x)).transpose(1, 2), y, reduction="none")
    labels = tokens.row_labels(np.arange(tokens.n_rows))
    assert loss == pytest.approx(losses.mean().item(), rel=1e-5)
    assert held_out_loss(model, tokens, Ranks("cpu"), max_rows=2)[0] == pytest.approx(losses[:2].mean().item(), rel=1e-5)
    assert solution_loss == pytest.approx(losses[(labels == 1) | (labels == 2)].mean().item(), rel=1e-5)
