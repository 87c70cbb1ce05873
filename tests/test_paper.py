"""dynamics.py, highlight.py, plot_paper.py, and all of runs/paper.sh at a tiny size."""
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import dynamics
import highlight
import plot_paper
from common import BadInput

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def test_categories_follow_the_papers_rule():
    """Against a fit by numpy, on curves of each kind."""
    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.random((7, 40)) * 6, np.linspace(0, 1, 7)[:, None] * rng.normal(size=40) + 3], axis=1)
    expected = []
    for curve in losses.T:
        change = np.polyfit(np.arange(7), curve, 1)[0] * 6
        expected.append(0 if change < -0.2 else 1 if change > 0.2 else 2 if curve[-1] <= losses[-1].mean() else 3)
    assert dynamics.categories(losses).tolist() == expected and set(expected) == {0, 1, 2, 3}


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """All parts of runs/paper.sh for one seed, and some of them again."""
    folder = tmp_path_factory.mktemp("paper")
    environment = os.environ | {"SIZE": "tiny", "SEEDS": "3", "PYTHON": sys.executable, "OUT": str(folder / "out"),
                                "DATA": str(folder / "data")}
    script = ["bash", os.path.join(ROOT, "runs", "paper.sh")]
    first = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-2000:]
    weights = {p: p.stat().st_mtime_ns for p in folder.rglob("*.pt")}
    again = subprocess.run([*script, "self", "dynamics", "figures"], env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("finished before") == 2 and "made before" in again.stdout
    assert weights == {p: p.stat().st_mtime_ns for p in folder.rglob("*.pt")}
    return folder


def test_every_arm_and_figure_of_the_paper(paper):
    results = json.loads((paper / "out" / "figures" / "results.json").read_text())
    arms = {"clm", "slm", "random", "keep_0.1", "rank_1", "self_low_ref", "fresh_clm", "weak", "soft_1", "several_mean", "warmup", "answers"}
    assert set(results["arms"]) == arms | set(plot_paper.REFERENCES) and results["seeds"] == ["seed3"]
    for name, arm in results["arms"].items():
        assert arm["target_loss"]["n"] == arm["accuracy"]["n"] == 1, name
        finals = [arm["seeds"][s]["target_loss"] for s in results["seeds"]]
        assert arm["target_loss"]["mean"] == pytest.approx(np.mean(finals))
        for control, difference in arm["minus"].items():
            others = [results["arms"][control]["seeds"][s]["target_loss"] for s in results["seeds"]]
            assert difference["target_loss"]["mean"] == pytest.approx(np.mean(finals) - np.mean(others))
    d = results["dynamics"]
    assert sum(v["mean"] for v in d["share"].values()) == pytest.approx(1)
    assert all(sum(share.values()) == pytest.approx(1) for share in d["share_by_label"].values())
    assert d["losses"]["clm"]["selected"][0] == d["losses"]["slm"]["selected"][0]  # both start from the same weights
    assert len(d["points"]) == 2 * len(d["steps"]) and len(d["sets"]) == 5
    for name in ("token_dynamics", "loss_dynamics", "accuracy_vs_loss", "selected_sets", "keep_ratio", "variants", "highlight"):
        assert (paper / "out" / "figures" / f"{name}.png").stat().st_size > 10_000, name
    text = (paper / "out" / "figures" / "table.md").read_text()
    assert plot_paper.table(results) in text and plot_paper.claims(results) in text


def test_the_reading_group_shows_the_committed_results():
    """Its table of claims is what plot_paper.py makes of results/paper/results.json, and so is every figure in its text and
    in the README's section."""
    def text(*path):
        with open(os.path.join(ROOT, *path), encoding="utf-8") as f:
            return f.read()
    results, guide = json.loads(text("results", "paper", "results.json")), text("docs", "reading_group.md")
    claims, table = plot_paper.claims(results), plot_paper.table(results)
    assert "beats random tokens" in claims and claims.count("\n") > 15
    assert claims in guide and text("results", "paper", "table.md") == claims + "\n" + table
    assert set(results["arms"]) == {*plot_paper.ARMS, *plot_paper.REFERENCES} and results["dynamics"]["n_seeds"] == 3
    assert all(arm["target_loss"]["n"] == 3 for arm in results["arms"].values())
    readme = re.search(r"## The paper, claim by claim\n(.*?)\n## ", text("README.md"), re.S)[1]
    ours = [p for p in (guide.replace(claims, "") + "\n\n" + readme).split("\n\n") if not re.match(r"#|\*(The paper|Exercise|Question)", p)]
    known = set(re.findall(r"\d+\.\d+%?", claims + table))
    for number in re.findall(r"(?<![\w./])\d+\.\d+%?(?![\w.]*M)", re.sub(r"\]\([^)]*\)|```.*?```", "", "\n\n".join(ours), flags=re.S)):
        assert number in known, number
    for path in re.findall(r"\]\(\.\./(results/[^)#]+)\)", guide):
        assert os.path.exists(os.path.join(ROOT, path)), path


def test_verdicts_are_by_interval():
    def v(low, high, n=3):
        return {"mean": (low + high) / 2, "low": low, "high": high, "n": n}
    assert plot_paper.verdict(v(0.1, 0.3), 1) == plot_paper.verdict(v(-0.3, -0.1), -1) == "agrees"
    assert plot_paper.verdict(v(0.1, 0.3), -1) == plot_paper.verdict(v(-0.3, -0.1), 1) == "disagrees"
    assert plot_paper.verdict(v(-0.1, 0.3), 1) == "cannot tell"
    assert plot_paper.verdict({"mean": 1.0, "low": None, "high": None, "n": 1}, 1) == plot_paper.verdict(None, 1) == "not measured"


def test_selected_loss_of_the_dynamics_by_brute_force(paper):
    """The loss of a checkpoint's own selection, from score.py's losses of the same text."""
    import score
    seed, held_out = paper / "out" / "seed3", str(paper / "data" / "held_out")
    d = json.loads((seed / "dynamics.json").read_text())
    losses = {}
    for name, ckpt in (("ref", seed / "ref" / "best.pt"), ("slm", seed / "slm" / f"step_{d['steps'][2]:06}.pt")):
        score.main(score.Config(ckpt=str(ckpt), data=held_out, out=str(paper / f"by_score_{name}"), device="cpu"))
        losses[name] = np.fromfile(paper / f"by_score_{name}" / "loss.bin", dtype=np.float16).astype(float)
    best = np.argsort(losses["ref"] - losses["slm"], kind="stable")[:round(d["keep"] * d["n_tokens"])]
    assert d["losses"]["slm"]["selected"][2] == pytest.approx(losses["slm"][best].mean(), abs=2e-3)
    rest = np.setdiff1d(np.arange(d["n_tokens"]), best)
    assert d["losses"]["slm"]["unselected"][2] == pytest.approx(losses["slm"][rest].mean(), abs=2e-3)


def test_a_part_that_is_not_there():
    done = subprocess.run(["bash", os.path.join(ROOT, "runs", "paper.sh"), "figure"], capture_output=True, text=True)
    assert done.returncode == 2 and "no part figure" in done.stderr


def test_highlight_any_text(paper, tmp_path, capsys):
    seed, data = paper / "out" / "seed3", str(paper / "data" / "seed3")
    text = "Question: Tom has 4 apples.\nHe buys 3 more. $100 %%"
    (tmp_path / "a.txt").write_text(text)
    ckpts = sorted(map(str, (seed / "slm").glob("step_*.pt")))
    options = dict(data=data, ref=str(seed / "ref" / "best.pt"), text=str(tmp_path / "a.txt"), device="cpu")
    highlight.main(highlight.Config(ckpt=ckpts[-1:], keep=0.5, out=str(tmp_path / "a.png"), **options))
    out = capsys.readouterr().out
    body = out[out.index("\n") + 1:out.rindex("\n", 0, -1)]
    assert re.sub(r"\033\[[\d;]*m", "", body) == text
    n = len(highlight.load_tokenizer(data).encode_ordinary(text))
    assert round(0.5 * n) - 1 <= len(re.findall(r"\033\[1;4;", body)) <= round(0.5 * n) and (tmp_path / "a.png").stat().st_size > 5000
    highlight.main(highlight.Config(ckpt=ckpts, by="category", out=str(tmp_path / "b.png"), **options))
    assert (tmp_path / "b.png").stat().st_size > 5000
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(BadInput, match="empty"):
        highlight.main(highlight.Config(ckpt=ckpts, **options | {"text": str(tmp_path / "empty.txt")}))
    with pytest.raises(BadInput, match="cannot read"):
        highlight.main(highlight.Config(ckpt=ckpts, **options | {"text": str(tmp_path / "none.txt")}))
    assert list(highlight.Config(by="category").validate())


def test_losses_of_a_text_are_cut_in_rows(paper):
    """A text longer than the context: each piece on its own, as rows of a corpus are."""
    import torch
    from common import load_checkpoint
    from model import GPT, GPTConfig
    path = str(paper / "out" / "seed3" / "ref" / "best.pt")
    ckpt = load_checkpoint(path)
    model = GPT(GPTConfig(**ckpt["model_config"])).eval()
    model.load_state_dict(ckpt["model"])
    T = model.config.block_size
    ids = np.random.default_rng(0).integers(400, size=2 * T + 5).tolist()
    losses = highlight.text_losses(path, ids, ckpt["tokenizer_sha256"], "cpu")
    expected = []
    with torch.no_grad():
        for a in range(0, len(ids) - 1, T):
            piece = torch.tensor(ids[a:a + T + 1])
            logp = torch.log_softmax(model.logits(model(piece[None, :-1]))[0], dim=-1)
            expected += (-logp[torch.arange(len(piece) - 1), piece[1:]]).tolist()
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
