"""P4: an interval, and a results.json that says what the logs say."""
import json

import pytest

from adapters import FOLDER, run_t_interval
from logs import accuracy_of, arms_of, slm_less, started


@pytest.mark.points("P4", 10)
@pytest.mark.parametrize("values, expected", [
    ([1.0, 3.0], (2.0, -10.706, 14.706)), ([20.0, 22.0, 27.0], (23.0, 14.043, 31.957)),
    ([0.1, 0.2, 0.3, 0.4], (0.25, 0.0446, 0.4554)), ([5.0, 5.0, 5.0, 5.0, 5.0], (5.0, 5.0, 5.0))])
def test_the_interval_of_given_numbers(values, expected):
    assert tuple(run_t_interval(values)) == pytest.approx(expected, abs=2e-3), \
        "mean plus and minus t times the standard error: the standard deviation (n - 1) over the root of n"


@pytest.mark.points("P4", 10)
def test_results_are_those_of_the_logs():
    results = json.loads((FOLDER / "results.json").read_text())
    arms, starts = arms_of(results), set()
    for arm, of_seed in arms.items():
        for seed, accuracy in of_seed.items():
            assert accuracy == pytest.approx(accuracy_of(seed, arm)), \
                f"results.json has {accuracy} for {arm}, seed {seed}: the logs of that run say something else"
            its_seed, *start = started(seed, arm)
            assert str(its_seed) == seed, f"the run {arm} of seed {seed} was trained with --seed {its_seed}"
            assert start == [*started(seed, "slm")[1:]], \
                f"seed {seed}: {arm} and slm need the same number of tokens, and the same base to start from"
            starts.add(start[1])
    assert len(starts) == len(arms["slm"]), "each seed needs a base of its own"
    for arm in set(arms) - {"slm"}:
        assert results["slm_less"][arm] == pytest.approx(slm_less(arm, arms["slm"]), abs=0.06), \
            f"slm_less {arm} is the mean and 95% interval, in percentage points, of the differences by seed"
