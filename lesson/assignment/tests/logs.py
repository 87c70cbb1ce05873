"""What the folders of runs say: of results.json nothing else is believed."""
import json

import numpy as np

from adapters import FOLDER

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # by number of values


def arms_of(results):
    """{arm: {seed: accuracy}} of a results.json with SLM, CLM and a control on the same three seeds or more."""
    arms = results["accuracy"]
    assert set(arms) >= {"slm", "clm"} and len(arms) >= 3, "results.json needs slm, clm and a control of your choice"
    seeds = set(arms["slm"])
    assert len(seeds) >= 3 and all(set(of_seed) == seeds for of_seed in arms.values()), \
        "each arm needs the same seeds, three or more"
    return arms


def read(seed, arm, name):
    path = FOLDER / "runs" / f"seed{seed}" / arm / name
    assert path.exists(), f"{path} is missing: hand in config.json, done.json and eval/summary.jsonl of each arm"
    return path.read_text()


def started(seed, arm):
    """(the run's seed, its tokens, the hash of the weights that it started from)."""
    about = json.loads(read(seed, arm, "config.json"))
    return about["config"]["seed"], about["config"]["train_tokens"], about["init_from_sha256"]


def accuracy_of(seed, arm):
    """The accuracy without shots of the run's last weights."""
    end = json.loads(read(seed, arm, "done.json"))["step"]
    lines = [json.loads(line) for line in read(seed, arm, "eval/summary.jsonl").splitlines()]
    asked = {"shots": 0, "step": end, "n": 0}
    found = [line["accuracy"] for line in lines if asked.items() <= line.items() and "tool" not in line]
    assert found, f"{arm} of seed {seed} has no accuracy of all problems without shots, of the last weights: --shots 0"
    return found[-1]


def slm_less(arm, seeds):
    """SLM minus an arm, paired by seed, in percentage points: [mean, low, high] of the 95% interval."""
    pairs = [100 * (accuracy_of(seed, "slm") - accuracy_of(seed, arm)) for seed in seeds]
    mean, half = np.mean(pairs), T95[len(pairs)] * np.std(pairs, ddof=1) / len(pairs) ** 0.5
    return [mean, mean - half, mean + half]
