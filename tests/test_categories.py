"""What analysis/categories.py and analysis/highlight.py make of runs and their snapshots."""
import json
import os
import shutil

import numpy as np
import pytest
import torch

import train_ref
import train_slm
from analysis import categories, highlight
from analysis.report import LABEL_COLOURS
from data import Tokens
from engine.checkpoints import load_model
from engine.cli import BadInput
from helpers import train
from model import token_loss


@pytest.fixture(scope="module")
def runs(demo, scores, tmp_path_factory):
    """The folders of two seeds, each with the reference model and tiny clm and slm with step_*.pt."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        at = folder / f"seed{seed}"
        shutil.copytree(os.path.join(os.path.dirname(scores), "ref"), at / "ref")
        train(train_ref, at / "clm", demo, seed=seed, snapshot_every=4)
        train(train_slm, at / "slm", demo, seed=seed, snapshot_every=4, scores=scores, keep=0.3)
    return folder


@torch.no_grad()
def losses_of(path, tokens):
    """The plain loss of every target of a corpus, (n_tokens,)."""
    model, _ = load_model(path, tokens.tokenizer_sha256, "the corpus", "cpu")
    x, y = tokens.rows(np.arange(tokens.n_rows))                                   # (n_rows, T) each
    return token_loss(model.logits(model(x)), y).flatten().double().numpy()        # (n_tokens,)


def test_categories_follow_the_papers_rule():
    """Against a fit by numpy, on curves of each kind."""
    rng = np.random.default_rng(0)
    lines = np.linspace(0, 1, 7)[:, None] * rng.normal(size=40) + 3
    losses = np.concatenate([rng.random((7, 40)) * 6, lines], axis=1)
    expected = []
    for curve in losses.T:
        change = np.polyfit(np.arange(7), curve, 1)[0] * 6
        expected.append("L->L" if curve[-1] <= losses[-1].mean() else "H->H")
        if abs(change) > 0.2:
            expected[-1] = "H->L" if change < 0 else "L->H"
    assert categories.categories(losses).tolist() == expected
    assert set(expected) == set(categories.CATEGORIES)


def test_top_takes_the_highest_and_among_equals_the_earlier():
    scores = np.array([1.0, 3.0, 2.0, 3.0, 2.0])
    assert np.flatnonzero(categories.top(scores, 0.6)).tolist() == [1, 2, 3]
    assert np.flatnonzero(categories.top(scores, 0.01)).tolist() == [1]  # one at least


def test_what_the_categories_are_made_of():
    clm = np.array([[4.0, 1, 1, 3, 5], [3.0, 1, 2, 3, 3], [1.0, 1, 3, 3, 1]])
    labels = torch.tensor([[0, 1, 1, 1, 1]])
    found = categories.category_shares(clm, labels, ["useful", "noise"])
    assert found["share"] == {"H->L": 0.4, "L->H": 0.2, "L->L": 0.2, "H->H": 0.2}
    assert found["mean_loss"]["H->L"] == [4.5, 3, 1] and found["mean_loss"]["L->H"] == [1, 2, 3]
    assert found["labels"]["H->L"] == {"useful": 0.5, "noise": 0.5}
    only_low = categories.category_shares(clm[:, 1:2], None, None)
    assert only_low["mean_loss"] == {"L->L": [1, 1, 1]} and only_low["labels"] == {}
    mean = categories.mean_of([found, only_low])
    assert mean["share"]["L->L"] == pytest.approx(0.6) and list(mean["mean_loss"]) == ["L->L"]


def test_results_by_brute_force(runs, demo, tmp_path, capsys):
    """Of two seeds, each number from the plain losses."""
    folders = [str(runs / "seed0"), str(runs / "seed1")]
    categories.main(categories.Config(runs=folders, data=demo, keep=0.3, out=str(tmp_path), device="cpu"))
    results, tokens = json.loads((tmp_path / "results.json").read_text()), Tokens(demo, "noisy", 32)
    assert (tmp_path / "categories.png").stat().st_size > 10_000
    assert (results["tokens"], results["n_tokens"]) == ([1024, 2048, 3072], tokens.n_rows * 32)
    for folder, found in zip(folders, results["seeds"]):
        ref_loss = losses_of(f"{folder}/ref/ckpt.pt", tokens)
        of_arm = {arm: [losses_of(f"{folder}/{arm}/step_{step:06}.pt", tokens) for step in (4, 8, 12)]
                  for arm in ("clm", "slm")}
        clm, slm = of_arm["clm"], of_arm["slm"]
        k = round(0.3 * len(ref_loss))
        for at in range(3):
            best, rest = np.split(np.argsort(ref_loss - slm[at], kind="stable"), [k])
            for arm, losses in of_arm.items():
                expected = {"selected": losses[at][best].mean(), "unselected": losses[at][rest].mean()}
                ours = {kind: curve[at] for kind, curve in found["losses"][arm].items()}
                assert ours == pytest.approx(expected, abs=1e-4)
            assert found["sets"]["slm"][str(at)] == pytest.approx([l[best].mean() for l in slm], abs=1e-4)
        best = np.argsort(ref_loss - clm[-1], kind="stable")[:k]
        assert found["sets"]["clm"] == pytest.approx([l[best].mean() for l in clm], abs=1e-4)
        falls = np.polyfit(np.arange(3), np.stack(clm), 1)[0] * 2 < -0.2
        assert found["categories"]["share"]["H->L"] == pytest.approx(falls.mean(), abs=1e-3)
    mean = np.mean([found["categories"]["share"]["H->L"] for found in results["seeds"]])
    assert f"| H->L | {mean:.1%} |" in capsys.readouterr().out


def test_runs_that_do_not_fit(runs, demo, tmp_path):
    def refused(says, *folders):
        with pytest.raises(BadInput, match=says):
            categories.main(categories.Config(runs=[str(f) for f in folders], data=demo, device="cpu"))
    refused(r"none/clm has 0 step_\*\.pt.*--snapshot_every", tmp_path / "none")
    shutil.copytree(runs / "seed0", tmp_path / "fewer")
    (tmp_path / "fewer" / "slm" / "step_000016.pt").write_bytes(b"")
    refused("fewer/slm and .*seed0/clm have weights of other steps", runs / "seed0", tmp_path / "fewer")
    assert len(list(categories.Config(keep=1.0, max_rows=0).validate())) == 2


@pytest.fixture
def panels(monkeypatch):
    """What highlight.draw was asked to draw, and drew."""
    asked, draw = [], highlight.draw
    monkeypatch.setattr(highlight, "draw", lambda panels, path: (asked.extend(panels), draw(panels, path)))
    return asked


def test_highlight_a_row_of_the_corpus(runs, demo, tmp_path, panels):
    """Its true labels above, and the tokens ranked with those of the rows after it."""
    ref, slm = str(runs / "seed0/ref/best.pt"), str(runs / "seed0/slm/step_000012.pt")
    cfg = highlight.Config(data=demo, ref=ref, ckpt=[slm], device="cpu", keep=0.3, row=7, out=str(tmp_path / "a"))
    highlight.main(cfg)
    (_, pieces, colours, _), (title, shown, _, selected) = panels
    assert title.startswith("slm/step_000012.pt") and "the 30% that are selected" in title
    assert os.path.getsize(cfg.out) > 5000
    tokens = Tokens(demo, "noisy", 32)
    labels = tokens.row_labels([7])[0].tolist()
    assert pieces[:32] == shown and "".join(shown) == highlight.load_tokenizer(demo).decode(tokens.rows([7])[1][0].tolist())
    assert colours[:32] == [LABEL_COLOURS[tokens.label_names[label]] for label in labels]
    excess = (losses_of(slm, tokens) - losses_of(ref, tokens)).reshape(-1, 32)[7:7 + highlight.RANKED_ROWS].flatten()
    assert selected[:32].tolist() == highlight.top(excess, 0.3)[:32].tolist()
    cfg.row = tokens.n_rows
    with pytest.raises(BadInput, match="rows of 32 tokens: give a smaller --row"):
        highlight.main(cfg)


def test_a_token_that_does_not_fit_begins_the_next_line():
    pieces = ["a" * (highlight.WIDTH - 1), " bc", "\nd", "\n"]
    places = [(0, 0, 0, pieces[0]), (1, 1, 0, "bc"), (2, 2, 0, "d")]
    assert highlight.lay_out(pieces) == (places, 4)
