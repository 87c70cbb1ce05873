"""What paper/, extras/dynamics.py, extras/highlight.py and plot.py make of runs; runs/paper.sh, tiny."""
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import plot
import score
import train_slm
from common import load_checkpoint, load_model
from engine import report, savings
from engine.cli import BadInput
from engine.ranks import Ranks
from extras import dynamics, highlight
from helpers import FIRST_SET_UP_ONLY, train
from model import GPT, GPTConfig
from paper import claims, collect, plot_paper

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def test_categories_follow_the_papers_rule():
    """Against a fit by numpy, on curves of each kind."""
    rng = np.random.default_rng(0)
    lines = np.linspace(0, 1, 7)[:, None] * rng.normal(size=40) + 3
    losses = np.concatenate([rng.random((7, 40)) * 6, lines], axis=1)
    expected = []
    for curve in losses.T:
        change = np.polyfit(np.arange(7), curve, 1)[0] * 6
        steady = 2 if curve[-1] <= losses[-1].mean() else 3
        if abs(change) > 0.2:
            expected.append(0 if change < 0 else 1)
        else:
            expected.append(steady)
    assert dynamics.categories(losses).tolist() == expected and set(expected) == {0, 1, 2, 3}


def test_fluctuation_is_the_distance_from_the_line_that_numpy_fits():
    rng = np.random.default_rng(1)
    losses = rng.random((9, 50)) * rng.random(50) * 4
    x = np.arange(9)
    expected = [np.sqrt(np.mean((curve - np.polyval(np.polyfit(x, curve, 1), x)) ** 2)) for curve in losses.T]
    assert dynamics.fluctuation(losses) == pytest.approx(expected)
    straight = 0.3 * x[:, None] + rng.random(5)
    assert dynamics.fluctuation(straight) == pytest.approx(np.zeros(5), abs=1e-9)
    some = np.array([3, 8, 9, 30, 41])
    assert dynamics.fluctuating(some, losses).tolist() == sorted(some, key=lambda i: -expected[i])
    odd_ones_left_out = sorted(range(50), key=lambda i: -expected[i])[2:]
    assert dynamics.fluctuating(np.arange(50), losses).tolist() == odd_ones_left_out


def test_top_takes_the_highest_and_among_equals_the_earlier():
    scores = np.array([1.0, 3.0, 2.0, 3.0, 2.0])
    assert dynamics.top(scores, 0.4).tolist() == [False, True, False, True, False]
    assert dynamics.top(scores, 0.6).tolist() == [False, True, True, True, False]
    assert dynamics.top(scores, 0.01).tolist() == [False, True, False, False, False]  # one at least


@pytest.fixture(scope="module")
def runs(demo, scores, tmp_path_factory):
    """Like a seed's folder of runs/paper.sh, but tiny: the reference model, clm and slm with step_*.pt."""
    folder = tmp_path_factory.mktemp("runs")
    os.symlink(os.path.join(os.path.dirname(scores), "ref"), folder / "ref")
    os.symlink(folder / "clm", folder / "base")  # any model that no arm has a part in would do
    for arm, keep in (("clm", 1.0), ("slm", 0.3)):
        train(train_slm, folder / arm, demo, scores=scores, keep=keep, snapshot_every=4)
    return folder


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """All parts of runs/paper.sh for one seed, and some of them again."""
    folder = tmp_path_factory.mktemp("paper")
    environment = os.environ | {"SIZE": "tiny", "SEEDS": "3", "PYTHON": sys.executable,
                                "OUT": str(folder / "out"), "DATA": str(folder / "data")}
    script = ["bash", os.path.join(ROOT, "runs", "paper.sh")]
    first = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-2000:]
    weights = {p: p.stat().st_mtime_ns for p in folder.rglob("*.pt")}
    again = subprocess.run([*script, "self", "dynamics", "figures"], env=environment, capture_output=True,
                           text=True)
    assert again.returncode == 0 and again.stdout.count("finished before") == 1
    assert "made before" in again.stdout
    assert weights == {p: p.stat().st_mtime_ns for p in folder.rglob("*.pt")}
    return folder


@pytest.mark.slow
def test_every_arm_and_figure_of_the_paper(paper):
    results = json.loads((paper / "out" / "figures" / "results.json").read_text())
    arms = {"clm", "slm", "random", "keep_1.0", "self_low_ref", "weak", "soft_1", "several_mean", "warmup",
            "answers"}
    assert set(results["arms"]) == arms | set(plot_paper.REFERENCES) and results["seeds"] == ["seed3"]
    for name, arm in results["arms"].items():
        assert arm["masked"]["n"] == arm["accuracy"]["n"] == arm["accuracy_0"]["n"] == 1, name
        finals = [arm["seeds"][s]["masked"] for s in results["seeds"]]
        assert arm["masked"]["mean"] == pytest.approx(np.mean(finals))
        for control, difference in arm["minus"].items():
            others = [results["arms"][control]["seeds"][s]["masked"] for s in results["seeds"]]
            assert difference["masked"]["mean"] == pytest.approx(np.mean(finals) - np.mean(others))
    d = results["dynamics"]
    assert sum(v["mean"] for v in d["share"].values()) == pytest.approx(1)
    assert all(sum(share.values()) == pytest.approx(1) for share in d["share_by_label"].values())
    assert len(d["points"]) == 2 * len(d["steps"]) and len(d["sets"]) == 5
    for name in ("token_dynamics", "loss_dynamics", "accuracy_vs_loss", "selected_sets", "keep_ratio",
                 "variants", "highlight"):
        assert (paper / "out" / "figures" / f"{name}.png").stat().st_size > 10_000, name
    text = (paper / "out" / "figures" / "table.md").read_text()
    assert plot_paper.table(results) in text and plot_paper.claims(results) in text


def test_the_committed_tables_are_what_the_code_makes_of_the_committed_results():
    """The pages that show them are tested in test_docs.py."""
    def results_and_table(name):
        folder = os.path.join(ROOT, "results", name)
        with open(os.path.join(folder, "results.json")) as f, open(os.path.join(folder, "table.md")) as g:
            return json.load(f), g.read()
    for name in ("demo", "real"):
        results, table = results_and_table(name)
        assert plot.table(results) == table, name
    results, table = results_and_table("paper")
    assert plot_paper.claims(results) + "\n" + plot_paper.table(results) == table
    assert set(results["arms"]) == {*plot_paper.ARMS, *plot_paper.REFERENCES} - FIRST_SET_UP_ONLY


def run_of(test_loss, tokens=(0, 10, 20, 40)):
    return {"curves": {"test_loss": [list(tokens), test_loss]}, "final": {"test_loss": test_loss[-1], "tokens": tokens[-1]}}


def test_a_saving_read_at_the_first_point_of_the_grid_is_censored():
    clm = run_of([4, 3.5, 3, 2])
    half = savings.token_saving(run_of([4, 3, 2, 1]), clm, "test_loss")
    assert half == {"times": 2.0, "censored": False}
    at_once = savings.token_saving(run_of([4, 1, 1, 1]), clm, "test_loss")  # somewhere between 0 and 10 tokens
    assert at_once == {"times": 4.0, "censored": True}
    later = savings.token_saving(run_of([1, 1, 1, 1], (10, 20, 30, 40)), clm, "test_loss")  # no evaluation at the start
    assert later == {"times": 4.0, "censored": True}
    early = run_of([4, 2, 2, 2])  # had its final figure at 10 tokens, as SLM has
    assert savings.token_saving(run_of([4, 2, 1.9, 1.8]), early, "test_loss") == {"times": 1.0, "censored": True}
    assert savings.token_saving(run_of([4, 3, 2, 1.9]), early, "test_loss") == {"times": 0.5, "censored": False}
    never = savings.token_saving(run_of([4, 3, 3, 3]), clm, "test_loss")
    assert never == {"times": None, "censored": False}
    assert savings.token_saving(run_of([4, 3, 2, 1]), clm, "accuracy") is None  # not measured

    def text(*of_seeds):
        return savings.saving_text(list(of_seeds))
    assert text(half) == "2.0x" and text(half, half) == "2.0x (2.0 to 2.0)" and text(None, None) == ""
    more = {"times": 3.5, "censored": False}
    assert text(half, more, half) == "2.0x (2.0 to 3.5)"
    assert text(at_once) == "&ge; 4.0x" and text(half, at_once, at_once) == "&ge; 4.0x (2.0 to &ge; 4.0)"
    assert text(half, half, at_once) == "2.0x (2.0 to &ge; 4.0)"  # the censored one is above the median, whatever it is
    assert text(half, at_once) == "&ge; 3.0x (2.0 to &ge; 4.0)"  # it is one of the two in the middle
    assert text(half, more, never) == "2.0x (not reached to 3.5)"
    assert text(half, never) == "reached in 1 of 2 seeds" and text(never) == "not reached"


def test_the_headline_has_a_line_for_each_arm_and_a_star_for_its_fine_tuning(tmp_path, monkeypatch):
    def seeds(*values):
        return {f"seed{i}": {"curves": {m: [[0, 10, 20], [1.0, 0.5, v]] for m in ("accuracy_0", "masked")}}
                for i, v in enumerate(values)}

    def final(value):
        names = ("accuracy_0", "masked")
        return {m: report.interval([value]) if m in names else None for m in report.MEASURES}
    arms = {"clm": {"final": final(0.3), "seeds": seeds(0.2, 0.4)}, "clm_tuned": {"final": final(0.35), "seeds": {}},
            "ref": {"final": final(0.1), "seeds": {}}}
    drawn = []
    plt = report.pyplot()
    plot_line = plt.Axes.plot

    def record(ax, x, y, *style, **options):
        drawn.append((np.ravel(x).tolist(), np.ravel(y).tolist(), style))
        return plot_line(ax, x, y, *style, **options)
    monkeypatch.setattr(plt.Axes, "plot", record)
    plot.headline({"arms": arms, "seeds": ["seed0", "seed1"]}, tmp_path / "a.png")
    (x, y, _), (star_x, star_y, star) = drawn[:2]
    assert x == [0, 1e-5, 2e-5] and y == pytest.approx([1.0, 0.5, 0.3])
    assert star == ("*",) and star_y == [0.35] and star_x > x[-1:] and len(drawn) == 4  # two panels


def test_curves_of_a_selection_leave_out_what_was_not_logged():
    def record(tokens, ratio, **values):
        return {"tokens": tokens, "ratio": ratio, "selected_loss": 1.0, **values}
    run = {"train": [
        record(0, 1.0, unselected_loss=None, selected_loss=9.0),  # keep is still 1: nothing is selected
        record(10, 0.5, unselected_loss=3.0, corpus_loss=None, selected_noise=0.2),
        record(20, 0.5, unselected_loss=None, corpus_loss=None, selected_noise=0.4),  # low_ref, say
        record(30, 0.5, unselected_loss=5.0, corpus_loss=None, selected_noise=None)]}
    assert report.selection_curves([run], n_bins=1) == {
        "tokens": [16.0], "selected_loss": [1.0], "unselected_loss": [4.0],
        "selected_noise": [pytest.approx(0.3)]}
    assert report.selection_curves([run], n_bins=3)["unselected_loss"] == [3.0, None, 5.0]
    assert report.selection_curves([{"train": [record(0, 1.0), {"tokens": 10, "loss": 2.0}]}]) is None


def test_verdicts_are_by_interval():
    def v(low, high, n=3):
        return {"mean": (low + high) / 2, "low": low, "high": high, "n": n}
    assert report.verdict(v(0.1, 0.3), 1) == report.verdict(v(-0.3, -0.1), -1) == "agrees"
    assert report.verdict(v(0.1, 0.3), -1) == report.verdict(v(-0.3, -0.1), 1) == "disagrees"
    assert report.verdict(v(-0.1, 0.3), 1) == "cannot tell"
    of_one_seed = {"mean": 1.0, "low": None, "high": None, "n": 1}
    assert report.verdict(of_one_seed, 1) == report.verdict(None, 1) == "not measured"
    assert report.verdict(v(0.2, 0.4), -1, than=0.5) == "agrees" == report.verdict(v(0.6, 0.8), 1, than=0.5)
    assert report.verdict(v(0.4, 0.6), -1, than=0.5) == "cannot tell"


def test_the_rules_of_the_verdicts_on_claims():
    """On results whose signs are known: each rule can agree, disagree, and leave open."""
    def v(mean, half=0.01):
        return {"mean": mean, "low": mean - half, "high": mean + half, "n": 3}
    share = {"H->L": v(0.3), "L->L": v(0.5), "H->H": v(0.3), "L->H": v(0.6)}
    less = {name: v(share[name]["mean"] - 0.3) for name in ("L->L", "H->H", "L->H")}
    rows = claims.rows_of_categories({"share": share, "share_less_falling": less})
    assert [row.verdict for row in rows] == ["agrees", "agrees", "cannot tell", "disagrees"]

    r = {"selected": v(-0.5), "difference": v(0.5)}
    losses = {"slm_minus_clm": v(-0.3), "unselected_change": v(-0.2), "correlation": {"clm": r, "slm": r},
              "last_set_change": {"slm": v(0.1), "slm_minus_clm": v(0.0)}}
    verdicts = [row.verdict for row in claims.rows_of_token_losses(losses)]
    assert verdicts == ["agrees", "disagrees", *["agrees"] * 5, "cannot tell"]

    lower_is_better = {"masked": v(-0.1), "masked_solution": v(0.1), "accuracy_0": v(0.1), "accuracy": v(-0.1)}
    row, = claims.difference({"arms": {"slm": {"minus": {"clm": lower_is_better}}}}, "claim", "slm", "clm")
    assert re.findall("agrees|disagrees", row.verdict) == ["agrees", "disagrees", "agrees", "disagrees"]
    assert claims.difference({"arms": {}}, "claim", "slm", "clm") == []


def test_differences_of_correlations_are_taken_after_fishers_transformation():
    fits = {kind: {"clm": [{"r": r} for r in values]}
            for kind, values in (("selected", (-0.9, -0.8)), ("unselected", (-0.5, -0.7)))}
    found = collect.correlation(fits, "clm")
    expected = [np.arctanh(-0.5) - np.arctanh(-0.9), np.arctanh(-0.7) - np.arctanh(-0.8)]
    assert found["difference"]["mean"] == pytest.approx(np.mean(expected))
    assert found["selected"]["mean"] == pytest.approx(np.tanh(np.arctanh([-0.9, -0.8]).mean()))
    fits["selected"]["clm"][0] = None  # no line there
    assert collect.correlation(fits, "clm")["difference"]["n"] == 1


@pytest.mark.slow
def test_selected_loss_of_the_dynamics_of_the_paper_by_brute_force(paper):
    selected_loss_by_brute_force(paper / "out" / "seed3", str(paper / "data" / "held_out"), paper)


def test_selected_loss_of_the_dynamics_by_brute_force(runs, demo, tmp_path, capsys):
    """The same for a few tiny runs, and what else dynamics.json holds."""
    dynamics.main(dynamics.Config(runs=str(runs), data=demo, device="cpu"))
    selected_loss_by_brute_force(runs, demo, tmp_path)
    d = json.loads((runs / "dynamics.json").read_text())
    assert sum(d["categories"]["share"].values()) == pytest.approx(1) and d["steps"] == [4, 8, 12]
    # The fixture's base is CLM's last checkpoint: what it selects is the set of the control of figure 8.
    assert d["fixed"]["clm"]["selected"] == pytest.approx(d["last_set_of_clm"])
    assert d["fixed"]["slm"]["selected"] != pytest.approx(d["losses"]["slm"]["selected"])
    assert set(d["sets"]) == {"4", "8", "12"}
    assert all(e["token"] for found in d["categories"]["examples"].values() for e in found)
    capsys.readouterr()
    dynamics.main(dynamics.Config(runs=str(runs), data=demo, device="cpu"))
    assert "made before" in capsys.readouterr().out


def selected_loss_by_brute_force(seed, held_out, folder):
    """The loss of a checkpoint's own selection, from score.py's losses of the same text."""
    d = json.loads((seed / "dynamics.json").read_text())
    losses = {}
    ckpts = {"ref": seed / "ref" / "best.pt", "slm": seed / "slm" / f"step_{d['steps'][1]:06}.pt"}
    for name, ckpt in ckpts.items():
        out = str(folder / f"by_score_{name}")
        score.main(score.Config(ckpt=str(ckpt), data=held_out, out=out, device="cpu"))
        losses[name] = np.fromfile(folder / f"by_score_{name}" / "loss.bin", dtype=np.float16).astype(float)
    best = np.argsort(losses["ref"] - losses["slm"], kind="stable")[:round(d["keep"] * d["n_tokens"])]
    assert d["losses"]["slm"]["selected"][1] == pytest.approx(losses["slm"][best].mean(), abs=2e-3)
    rest = np.setdiff1d(np.arange(d["n_tokens"]), best)
    assert d["losses"]["slm"]["unselected"][1] == pytest.approx(losses["slm"][rest].mean(), abs=2e-3)


def test_a_part_that_is_not_there():
    script = os.path.join(ROOT, "runs", "paper.sh")
    done = subprocess.run(["bash", script, "figure"], capture_output=True, text=True)
    assert done.returncode == 2 and "no part figure" in done.stderr


@pytest.mark.slow
def test_highlight_with_the_models_of_the_paper(paper, tmp_path, capsys):
    highlight_any_text(paper / "out" / "seed3", str(paper / "data" / "seed3"), tmp_path, capsys)


def test_highlight_any_text(runs, demo, tmp_path, capsys):
    highlight_any_text(runs, demo, tmp_path, capsys)


def highlight_any_text(seed, data, tmp_path, capsys):
    text = "Question: Tom has 4 apples.\nHe buys 3 more. $100 %%"
    (tmp_path / "a.txt").write_text(text)
    ckpts = sorted(map(str, (seed / "slm").glob("step_*.pt")))
    options = dict(data=data, ref=str(seed / "ref" / "best.pt"), text=str(tmp_path / "a.txt"), device="cpu")
    highlight.main(highlight.Config(ckpt=ckpts[-1:], keep=0.5, out=str(tmp_path / "a.png"), **options))
    out = capsys.readouterr().out
    body = out[out.index("\n") + 1:out.rindex("\n", 0, -1)]
    assert re.sub(r"\033\[[\d;]*m", "", body) == text
    n = len(highlight.load_tokenizer(data).encode_ordinary(text))
    assert round(0.5 * n) - 1 <= len(re.findall(r"\033\[1;4;", body)) <= round(0.5 * n)
    assert (tmp_path / "a.png").stat().st_size > 5000
    highlight.main(highlight.Config(ckpt=ckpts, by="category", out=str(tmp_path / "b.png"), **options))
    assert (tmp_path / "b.png").stat().st_size > 5000
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(BadInput, match="empty"):
        highlight.main(highlight.Config(ckpt=ckpts, **options | {"text": str(tmp_path / "empty.txt")}))
    with pytest.raises(BadInput, match="cannot read"):
        highlight.main(highlight.Config(ckpt=ckpts, **options | {"text": str(tmp_path / "none.txt")}))
    assert list(highlight.Config(by="category").validate())


@pytest.mark.slow
def test_losses_of_a_text_are_cut_in_rows_with_the_models_of_the_paper(paper):
    losses_of_a_text_are_cut_in_rows(str(paper / "out" / "seed3" / "ref" / "best.pt"))


def test_losses_of_a_text_are_cut_in_rows(runs):
    losses_of_a_text_are_cut_in_rows(str(runs / "ref" / "best.pt"))


def losses_of_a_text_are_cut_in_rows(path):
    """A text longer than the context: each piece on its own, as rows of a corpus are."""
    ckpt = load_checkpoint(path)
    model = GPT(GPTConfig(**ckpt["model_config"])).eval()
    model.load_state_dict(ckpt["model"])
    T = model.config.block_size
    ids = np.random.default_rng(0).integers(400, size=2 * T + 5).tolist()
    loaded, _ = load_model(path, ckpt["tokenizer_sha256"], "the text", "cpu")
    losses = highlight.text_losses(loaded, ids, T, Ranks("cpu"))
    expected = []
    with torch.no_grad():
        for a in range(0, len(ids) - 1, T):
            piece = torch.tensor(ids[a:a + T + 1])
            logp = torch.log_softmax(model.logits(model(piece[None, :-1]))[0], dim=-1)
            expected += (-logp[torch.arange(len(piece) - 1), piece[1:]]).tolist()
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
