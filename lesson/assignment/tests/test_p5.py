"""P5: when does it pay? Rules on four score folders, and predictions against what came out."""
import json
import os
import pathlib

import numpy as np
import pytest

from adapters import FOLDER, run_will_pay
from data import Scores, Tokens
from logs import arms_of, slm_less

MADE = pathlib.Path(os.environ.get("SLM_SCORES", pathlib.Path(__file__).parents[1] / "scores"))
# Whether SLM by each ends above CLM (lesson/solution/answers.md has how that was measured).
PAYS = {"strong": True, "some": True, "few": False, "knows_the_junk": False}


@pytest.mark.points("P5", 10)
@pytest.mark.parametrize("name", sorted(PAYS))
def test_a_rule_that_reads_reference_losses_alone(name):
    assert (MADE / name / "scores.json").exists(), "first make the score folders: make_scores.py"
    tokens = Tokens(str(MADE / "corpus"), "noisy", 192)
    loss = Scores(str(MADE / name), tokens).all()                            # (n,), of the targets
    labels = np.array(tokens.label_names)[tokens.labels[1:len(loss) + 1]]    # (n,) texts
    assert bool(run_will_pay(loss, labels)) == PAYS[name], f"training by the scores {name!r} turned out otherwise"


@pytest.mark.points("P5", 15)
def test_predictions_hold():
    """{arm: [least, most]}: the range in which SLM minus this arm was expected, before anything was trained."""
    predictions = json.loads((FOLDER / "predictions.json").read_text())
    arms = arms_of(json.loads((FOLDER / "results.json").read_text()))
    assert set(predictions) == set(arms) - {"slm"}, "predict SLM less each other arm of results.json"
    for arm, (least, most) in predictions.items():
        mean = slm_less(arm, arms["slm"])[0]
        assert most - least <= 30, f"the range for {arm} is {most - least} percentage points wide: 30 at most"
        assert least <= mean <= most, f"SLM minus {arm} came to {mean:.1f} percentage points"
