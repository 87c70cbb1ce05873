"""P4: an interval, and a results.json that says what the logs say."""
import json

import numpy as np
import pytest

from adapters import FOLDER, run_t_interval

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # by number of values


@pytest.mark.points("P4", 10)
@pytest.mark.parametrize("values, expected", [
    ([1.0, 3.0], (2.0, -10.706, 14.706)), ([20.0, 22.0, 27.0], (23.0, 14.043, 31.957)),
    ([0.1, 0.2, 0.3, 0.4], (0.25, 0.0446, 0.4554)), ([5.0, 5.0, 5.0, 5.0, 5.0], (5.0, 5.0, 5.0))])
def test_the_interval_of_given_numbers(values, expected):
    assert tuple(run_t_interval(values)) == pytest.approx(expected, abs=2e-3), \
        "mean plus and minus t times the standard error: the standard deviation (n - 1) over the root of n"


def accuracy_of(run):
    """What the logs of a run say: the accuracy without shots of its last weights."""
    end = json.loads((run / "done.json").read_text())["step"]
    lines = [json.loads(line) for line in (run / "eval" / "summary.jsonl").read_text().splitlines()]
    asked = {"shots": 0, "step": end, "n": 0}
    found = [line["accuracy"] for line in lines if asked.items() <= line.items() and "tool" not in line]
    assert found, f"{run}/eval has no accuracy of all problems without shots, of the last weights: eval_math.py --shots 0"
    return found[-1]


@pytest.mark.points("P4", 10)
def test_results_are_those_of_the_logs():
    results = json.loads((FOLDER / "results.json").read_text())
    arms = results["accuracy"]                                   # {arm: {seed: share of right answers}}
    assert set(arms) >= {"slm", "clm"} and len(arms) >= 3, "results.json needs slm, clm and a control of your choice"
    seeds = set(arms["slm"])
    assert len(seeds) >= 3 and all(set(of_seed) == seeds for of_seed in arms.values()), \
        "each arm needs the same seeds, three or more"
    for arm, of_seed in arms.items():
        for seed, accuracy in of_seed.items():
            assert accuracy == pytest.approx(accuracy_of(FOLDER / "runs" / f"seed{seed}" / arm)), \
                f"results.json has {accuracy} for {arm}, seed {seed}: the logs of that run say something else"
    for arm in set(arms) - {"slm"}:
        pairs = [100 * (arms["slm"][seed] - arms[arm][seed]) for seed in seeds]
        mean, half = np.mean(pairs), T95[len(pairs)] * np.std(pairs, ddof=1) / len(pairs) ** 0.5
        assert results["slm_less"][arm] == pytest.approx([mean, mean - half, mean + half], abs=0.06), \
            f"slm_less {arm} is the mean and 95% interval, in percentage points, of the differences by seed"
