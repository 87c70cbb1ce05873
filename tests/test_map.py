"""extras/map.py: the best control of those who have the same at hand, and the verdict by the paired interval."""
import json

import pytest

from engine.cli import BadInput
from engine.files import write_json
from engine.report import interval
from extras import map as slm_map


def cell_of(**arms):
    """results.json of a cell: {arm: accuracies of the seeds}; the losses are 1 less the accuracy."""
    out = {"seeds": [f"seed{i}" for i in range(len(next(iter(arms.values()))))], "arms": {}}
    for name, values in arms.items():
        losses = [1 - v for v in values]
        finals = [{"accuracy_0": v, "masked": w, "masked_result": w} for v, w in zip(values, losses)]
        out["arms"][name] = {"seeds": {f"seed{i}": {"final": f} for i, f in enumerate(finals)},
                             "final": {"accuracy_0": interval(values), "masked": interval(losses),
                                       "masked_result": interval(losses)}}
    return out


def test_slm_is_compared_with_the_best_of_those_who_have_the_same(tmp_path):
    results = cell_of(slm=[0.9, 0.8, 0.91], clm=[0.5, 0.4, 0.5], documents=[0.7, 0.61, 0.7], clm_mixed=[0.99, 0.9, 0.98],
                      slm_tuned=[0.9, 0.85, 0.9], clm_tuned=[0.9, 0.9, 0.7], labels=[1.0, 1.0, 1.0])
    alone = slm_map.compare(results, "the reference alone", "accuracy_0")
    assert alone["control"] == "documents" and alone["verdict"] == "wins"  # the mixture needs the text
    assert alone["difference"]["mean"] == pytest.approx((0.2 + 0.19 + 0.21) / 3)
    assert slm_map.compare(results, "the reference alone", "masked")["verdict"] == "wins"  # lower is better
    text = slm_map.compare(results, "the curated text too", "accuracy_0")
    assert text["control"] == "clm_mixed" and text["verdict"] == "loses"
    del results["arms"]["clm_mixed"]
    assert slm_map.compare(results, "the curated text too", "masked_result")["verdict"] == "cannot tell"
    results["arms"]["clm_mixed"] = {"seeds": {"seed0": {"final": {"masked_result": 0.0}}}}  # of one seed: no control
    assert slm_map.compare(results, "the curated text too", "masked_result")["control"] == "clm_tuned"
    half = {seed: r for seed, r in results["arms"]["clm_tuned"]["seeds"].items() if seed != "seed1"}
    results["arms"]["clm_tuned"]["seeds"] = half  # two of three seeds are enough, and paired with those of SLM
    assert slm_map.compare(results, "the curated text too", "accuracy_0")["difference"] == pytest.approx(
        slm_map.paired_interval([(0.9, 0.9), (0.9, 0.7)]))
    results["arms"]["slm_tuned"]["seeds"] = {}
    assert slm_map.compare(results, "the curated text too", "masked") is None
    write_json(tmp_path / "results.json", results)
    slm_map.main(slm_map.Config(cells=[str(tmp_path)], out=str(tmp_path / "out")))
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["hand"] for row in rows] == ["the reference alone"]
    assert "wins: +20.0%" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "map.png").stat().st_size > 10_000


def test_a_cell_that_was_not_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match="run plot.py"):
        slm_map.main(slm_map.Config(cells=[str(tmp_path)], out=str(tmp_path / "out")))
    assert list(slm_map.Config().validate()) and list(slm_map.Config(cells=["a"], names=["b", "c"]).validate())
