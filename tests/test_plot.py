"""plot.py and analysis/report.py on run folders made by hand."""
import shutil

import numpy as np
import pytest

import plot
from analysis import map as analysis_map
from analysis import report
from corpora.writer import LABELS
from engine.cli import BadInput, parse
from engine.files import read_json, write_json, write_jsonl


def make_run(folder, losses=(4, 3, 2), patience=0, train=(), graded=(), **more):
    """A finished run, evaluated every 10 steps, and what was graded of it."""
    for name in ("eval", "eval0"):
        (folder / name).mkdir(parents=True)
    evals = []
    for i, loss in enumerate(losses):
        evals.append({"kind": "eval", "step": 10 * i, "tokens": 1000 * i, "val_loss": loss})
        evals[i] |= {"test_loss": loss + 0.5, **{name: values[i] for name, values in more.items()}}
    write_json(folder / "config.json", {"config": {"patience": patience}, "source": "abc"})
    write_jsonl(folder / "metrics.jsonl", evals + [{"kind": "train", **r} for r in train])
    write_jsonl(folder / "eval" / "summary.jsonl", graded)
    write_json(folder / "done.json", evals[-1])


def result(step, accuracy, **about):
    about = {"task": "demo", "shots": 2, "total": 50} | about
    return about | {"step": step, "tokens": 100 * step, "accuracy": accuracy}


def test_intervals_and_pairs_of_seeds_by_hand(tmp_path):
    for seed, slm, clm in (("seed0", 1, 1.5), ("seed1", 2, 2.7)):
        losses = {"slm": slm, "clm": clm, "slm_tuned": slm - 0.2, "clm_tuned": clm - 0.1}
        for arm, loss in losses.items():
            make_run(tmp_path / seed / arm, losses=(5, loss))
    make_run(tmp_path / "seed2" / "slm", losses=(5, 4.5))
    (tmp_path / "seed2" / "clm").mkdir()  # unfinished
    results = plot.collect(str(tmp_path), "slm")
    of_slm = results["arms"]["slm"]["final"]["test_loss"]
    half = 4.303 * np.std([1.5, 2.5, 5], ddof=1) / np.sqrt(3)
    assert list(of_slm.values()) == pytest.approx([3, 3 - half, 3 + half, 3])
    assert {one: set(less) for one, less in results["less"].items()} == {
        "slm": {"clm", "slm_tuned", "clm_tuned"}, "slm_tuned": {"slm", "clm", "clm_tuned"}}
    assert results["less"]["slm_tuned"]["clm_tuned"]["test_loss"]["mean"] == pytest.approx(-0.7)
    assert results["less"]["slm_tuned"]["clm"]["test_loss"]["mean"] == pytest.approx(-0.8)
    text = plot.table(results)
    assert "| CLM | -0.600 (-1.871 to +0.671) |" in text  # a standard error of 0.1
    assert "| CLM | 2 | 1,000 | 2.600 (" in text
    assert "Of these 3 intervals 1 exclude 0" in text and "SLM, fine-tuned less the arm" in text


def test_where_the_figures_of_a_run_come_from(tmp_path):
    """With patience, of its best weights."""
    graded = [result(10, 0.4), result(20, 0.9), result(10, 0.1, shots=5, task="gsm8k")]
    run = tmp_path / "run"
    make_run(run, losses=(4, 2, 3), patience=1, graded=graded)
    write_jsonl(run / "eval0" / "summary.jsonl", [result(10, 0.2, shots=0), result(10, 0.7, shots=0, tool="calculator")])
    best = {"tokens": 1000, "test_loss": 2.5, "accuracy": 0.4, "accuracy_0": 0.2, "accuracy_tool": 0.7}
    assert report.read_run(run)["final"] == best
    assert report.read_run(run)["curves"]["accuracy"] == [[10, 20], [1000, 2000], [0.4, 0.9]]
    write_json(run / "config.json", {"config": {"patience": 0}})
    last = {"tokens": 2000, "test_loss": 3.5, "accuracy": 0.9}
    assert report.read_run(run)["final"] == last


def test_curves_of_a_selection():
    train = [{"tokens": 0, "ratio": 1.0, "selected_loss": 9.0},  # nothing is left out
             {"tokens": 10, "ratio": 0.5, "unselected_loss": 3.0, "selected_noise": 0.2},
             {"tokens": 20, "ratio": 0.5, "unselected_loss": None, "selected_noise": 0.4},
             {"tokens": 30, "ratio": 0.5, "unselected_loss": 5.0, "selected_noise": None}]
    assert report.selection_curves([{"train": train}], n_bins=3) == {
        "tokens": [5, 16, 26], "unselected_loss": [3.0, None, 5.0],
        "selected_noise": [0.2, 0.4, None]}
    assert report.selection_curves([{"train": train[:1]}]) is None


def test_one_seed_whose_base_arm_finishes_later(tmp_path, capsys):
    """An arm may have any name."""
    selected = {"ratio": 0.5, "precision": 0.9, **{f"selected_{label}": 1 / 6 for label in LABELS}}
    for arm in ("my_idea", "clm", "base", "ref"):
        make_run(tmp_path / arm)
    make_run(tmp_path / "random", train=[{"tokens": 10 * i, **selected} for i in range(3)])
    plot.main(plot.Config(runs=str(tmp_path)))
    out = capsys.readouterr().out
    assert "no finished run 'slm'" in out and "less the arm" not in out
    assert "| my_idea | 1 | 2,000 | 2.500 |" in out  # no interval
    for name in ("table.md", "headline.png", "selection.png"):
        assert (tmp_path / name).exists()
    make_run(tmp_path / "slm")
    plot.main(plot.Config(runs=str(tmp_path)))
    assert "no finished run" not in capsys.readouterr().out
    arms = list(read_json(tmp_path / "results.json")["arms"])
    assert arms == ["base", "ref", "slm", "clm", "random", "my_idea"]


def test_the_headline_of_on_policy_distillation(tmp_path, monkeypatch):
    """Means at the same step; what is not on-policy is left out."""
    for seed, more in (("seed0", 0), ("seed1", 0.1)):
        at, tokens = tmp_path / seed, [0, 100, 200 + 200 * more]
        make_run(at / "fire", accuracy=[0.2, 0.3, 0.6 + more], tokens=tokens)
        make_run(at / "opd", accuracy=[0.2, 0.3, 0.5 + more])
        make_run(at / "teacher", graded=[result(20, 0.9, shots=0)])
        make_run(at / "form")
        make_run(at / "clm", graded=[result(step, 0.4, shots=0) for step in (0, 10, 20)])  # on tokens read
    axes = []
    monkeypatch.setattr(plot, "save_figure", lambda fig, path: axes.extend(fig.axes))
    plot.headline(plot.collect(str(tmp_path), "fire"), "")
    fire, *seeds, teacher = axes[0].lines
    np.testing.assert_allclose(fire.get_xydata(), [[0, 20], [100e-6, 30], [210e-6, 65]])
    np.testing.assert_allclose(seeds[1].get_xydata(), [[0, 20], [100e-6, 30], [220e-6, 70]])
    assert len(seeds) == 5  # of two arms, and the other's mean
    assert teacher.get_ydata()[0] == 90 and axes[0].get_xlabel() == "million tokens generated"
    assert [text.get_text() for text in axes[0].texts] == ["plain on-policy distillation", "FiRe-OPD: filter and reweight", "the teacher"]


def test_names_say_in_what_an_arm_differs():
    assert plot.name_of("clm-x2_tuned") == "CLM, 2 times the tokens, fine-tuned"
    assert plot.name_of("low_ref-keep0.15") == "lowest reference loss, keep 0.15"


def test_the_map_by_hand(tmp_path, demo):
    """Where a run stands on each axis, what is a level line, and what was tried at one place alone."""
    for seed, more in (("seed0", 0.0), ("seed1", 0.1)):
        shutil.copytree(demo, tmp_path / "data" / seed)
        chatter = shutil.copytree(demo, tmp_path / "data" / f"{seed}-chatter0.9")
        labels = np.fromfile(chatter / "noisy.labels.bin", dtype=np.uint8)
        useful = labels < 3
        np.where(np.arange(len(labels)) % 2, labels, 3).astype(np.uint8).tofile(chatter / "noisy.labels.bin")
        for run, accuracy, keep in (("slm", 0.8, 0.07), ("slm-keep0.3", 0.5, 0.3), ("slm-clean250", 0.3, 0.07),
                                    ("slm-chatter0.9", 0.7, 0.07), ("slm-x0.5", 0.4, 0.07), ("clm", 0.6, None),
                                    ("ref", 0.65, None), ("ref-clean250", 0.2, None), ("low_ref", 0.55, 0.25),
                                    ("slm-keep0.3-lr0.01", 0.0, 0.3), ("slm_tuned", 0.0, None)):
            losses = (5, 4) if run == "slm-x0.5" else (5, 4, 3)
            step = 10 * (len(losses) - 1)
            at = tmp_path / "out" / seed / run
            make_run(at, losses=losses, graded=[result(step, accuracy + more, shots=0)])
            write_json(at / "config.json", {"config": {"patience": 0} | ({"keep": keep} if keep else {})})
    analysis_map.main(analysis_map.Config(runs=str(tmp_path / "out"), data=str(tmp_path / "data")))
    panels = read_json(tmp_path / "out" / "results.json")["panels"]
    found = {panel: {kind: [(point["place"], round(point["accuracy"]["mean"], 3)) for point in points]
                     for kind, points in kinds.items()} for panel, kinds in panels.items()}
    assert found["clean"] == {"slm": [(250, 0.35), (1500, 0.85)], "ref": [(250, 0.25), (1500, 0.7)], "clm": [(1500, 0.65)]}
    assert found["keep"] == {"slm": [(0.07, 0.85), (0.3, 0.55)], "ref": [(1.0, 0.7)], "clm": [(1.0, 0.65)]}
    assert found["x"] == {"slm": [(0.001, 0.45), (0.002, 0.85)], "ref": [(0.002, 0.7)]}
    (less, at_less), (more, at_more) = found["chatter"]["slm"]
    assert (less, more) == pytest.approx((useful[1::2].sum() / len(useful), useful.mean()))
    assert (at_less, at_more) == (0.75, 0.85)
    assert (tmp_path / "out" / "map.png").stat().st_size > 10_000
    assert "| SLM | 250 | 35.0% (" in (tmp_path / "out" / "table.md").read_text()
    of_250, of_1500 = (point["less"] for point in panels["clean"]["slm"])
    assert {other: round(d["mean"], 3) for other, d in of_250.items()} == {"clm": -0.3, "ref": 0.1}
    assert {other: round(d["mean"], 3) for other, d in of_1500.items()} == {"clm": 0.2, "ref": 0.15}


def test_bad_input_is_one_line(tmp_path):
    def refused(text, **options):
        options = {"runs": tmp_path} | options
        words = [f"--{name}={value}" for name, value in options.items()]
        with pytest.raises(BadInput, match=f"^.*{text}.*$"):  # a dot is not the end of a line
            plot.main(parse(plot.Config, "", words))
    refused("no finished run, neither in seed", runs=tmp_path / "nowhere")
    refused("leave out _tuned", base="clm_tuned")
    make_run(tmp_path / "slm", graded=[result(10, 0.4), result(20, 0.5, total=100)])
    refused("slm/eval has results of different settings.*total: 100, 50")
    write_jsonl(tmp_path / "slm" / "metrics.jsonl", [])
    refused("slm is a finished run without evaluations")
