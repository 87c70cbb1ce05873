"""controls/rescore.py: what it writes against brute force on the written scores, and through train_slm.py."""
import numpy as np
import pytest
import torch

import train_slm
from controls import rescore
from data import Scores, Tokens, about_scores, batch, write_scores
from engine.checkpoints import load_model
from engine.cli import BadInput
from helpers import TINY, records, same_weights, train
from model import token_loss

T = 32


@pytest.fixture(scope="module")
def others(demo, scores, tmp_path_factory):
    """Scores as of another reference model, two of them not known."""
    folder, tokens = tmp_path_factory.mktemp("others"), Tokens(demo, "noisy", T)
    values = Scores(scores, tokens).all() * np.random.default_rng(3).random(tokens.n_rows * T)
    values[[3, 70]] = np.inf
    write_scores(str(folder), about_scores(tokens, "noisy", {"by": "hand"}), values)
    return str(folder)


def rescored(demo, out, **options):
    """What rescore writes, (n_rows * T,) float32."""
    cfg = rescore.Config(data=demo, block_size=T, out=str(out), **options)
    assert list(cfg.validate()) == []
    rescore.main(cfg)
    return Scores(str(out), Tokens(demo, "noisy", T)).all()


def test_less_of_two_models(demo, scores, others, tmp_path):
    tokens = Tokens(demo, "noisy", T)
    a, b = Scores(scores, tokens).all().astype(np.float64), Scores(others, tokens).all().astype(np.float64)
    less = rescored(demo, tmp_path / "less", how="less", scores=[scores, others])
    np.testing.assert_allclose(less, np.where(np.isinf(b), np.inf, a - b), rtol=1e-3, atol=2e-3)
    assert np.isinf(less).sum() == 2  # never selected, where one of the two is not known


def test_documents_have_the_mean_of_their_tokens(demo, scores, tmp_path):
    """Against a walk over the flat file."""
    tokens, documents = Tokens(demo, "noisy", T), [[]]
    ours, loss = rescored(demo, tmp_path / "s", how="documents", scores=[scores]), Scores(scores, tokens).all()
    for i, token in enumerate(tokens.tokens[1:len(loss) + 1].tolist()):
        documents[-1].append(i)
        if token == tokens.meta["end_of_text"]:
            documents.append([])
    assert len(documents) > 20
    for members in filter(None, documents):
        np.testing.assert_allclose(ours[members], loss[members].mean(), rtol=1e-3)
    ours = rescored(demo, tmp_path / "l", how="documents", scores=[scores], labels=["solution", "result"])
    for members in map(np.array, filter(None, documents)):  # with labels, of the wanted tokens alone
        wanted = np.isin(tokens.labels[members + 1], [1, 2])
        assert np.isinf(ours[members[~wanted]]).all()
        if wanted.any():
            np.testing.assert_allclose(ours[members[wanted]], loss[members[wanted]].mean(), rtol=1e-3)


def test_random(demo, tmp_path):
    a, again = (rescored(demo, tmp_path / name, how="random", seed=4) for name in ("a", "again"))
    other = rescored(demo, tmp_path / "other", how="random", seed=5)
    assert (a == again).all() and (a != other).mean() > 0.99 and abs(a.mean() - 0.5) < 0.02


def test_only_tokens_of_these_labels_count(demo, scores, tmp_path):
    """The first loss, by hand."""
    rescored(demo, tmp_path / "s", labels=["solution", "result"], scores=[scores])
    train(train_slm, tmp_path / "run", demo, keep=0.5, scores=str(tmp_path / "s"), snapshot_every=12)
    trace, tokens = records(tmp_path / "run"), Tokens(demo, "noisy", T)
    assert all(r["selected_noise"] in (0, None) and r["selected_irrelevant"] in (0, None) for r in trace)
    model, _ = load_model(str(tmp_path / "run" / "step_000000.pt"), tokens.tokenizer_sha256, demo, "cpu")
    rows = batch(tokens.n_rows, 8, 0, 0)
    x, y = tokens.rows(rows)
    losses = token_loss(model.logits(model(x)), y)
    of_label = torch.isin(tokens.row_labels(rows), torch.tensor([1, 2]))
    excess = losses - Scores(scores, tokens).rows(rows)
    best = excess[of_label].argsort(descending=True, stable=True)[:round(0.5 * int(of_label.sum()))]
    assert trace[0]["loss"] == pytest.approx(losses[of_label][best].mean().item(), rel=1e-4)


def test_scores_alone_know_what_they_were_made_of(demo, scores, others, tmp_path, capsys):
    """Another way to make them is another folder; the same again changes nothing; runs tell them apart."""
    first = rescored(demo, tmp_path / "s", how="less", scores=[scores, others])
    assert "mean reference loss" in capsys.readouterr().out
    before = (tmp_path / "s" / "loss.bin").stat().st_mtime_ns
    assert (rescored(demo, tmp_path / "s", how="less", scores=[scores, others]) == first).all()
    assert before == (tmp_path / "s" / "loss.bin").stat().st_mtime_ns  # nothing is done twice
    with pytest.raises(BadInput, match="holds other scores"):
        rescored(demo, tmp_path / "s", how="less", scores=[others, scores])
    train(train_slm, tmp_path / "run", demo, scores=str(tmp_path / "s"))
    with pytest.raises(BadInput, match="made from other files"):
        train(train_slm, tmp_path / "run", demo, scores=scores, resume=True)
    assert not same_weights(tmp_path / "run", train(train_slm, tmp_path / "plain", demo, scores=scores))


@pytest.mark.parametrize("options, message", [
    ({"how": "max"}, "how must be"), ({"how": "less", "scores": ["a", "b", "c"]}, "takes 2 to 2 folders"), ({"how": "documents"}, "takes 1 to 1 folders"),
    ({"scores": ["a", "b"]}, "takes 0 to 1"), ({"seed": -1}, "seed")])
def test_bad_options(options, message):
    assert any(message in problem for problem in rescore.Config(**options).validate())


def test_what_cannot_be_made_is_refused_in_a_line(demo, scores, tmp_path):
    with pytest.raises(BadInput, match="block_size must be at least 1"):
        rescore.main(rescore.Config(data=demo, how="random", block_size=0, out=str(tmp_path / "a")))
    with pytest.raises(BadInput, match="question, solution"):
        rescored(demo, tmp_path / "a", labels=["answer"])
    tokens = Tokens(demo, "noisy", T)
    write_scores(str(tmp_path / "nan"), about_scores(tokens, "noisy", {}), np.full(tokens.n_rows * T, np.nan))
    with pytest.raises(BadInput, match="not numbers"):
        rescored(demo, tmp_path / "c", how="documents", scores=[str(tmp_path / "nan")])
    with pytest.raises(BadInput, match="not numbers"):
        train_slm.main(train_slm.Config(data=demo, out=str(tmp_path / "x"), scores=str(tmp_path / "nan"), **TINY))
