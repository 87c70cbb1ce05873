"""
What the paper's figures and tables are made from: the arms of runs/paper.sh, and results.json.
"""
import glob
import os

import numpy as np

from engine import report
from engine.cli import BadInput
from engine.files import read_json
from engine.report import Arm, interval, mean_curve, paired_interval, read_run, selection_curves
from extras.dynamics import CATEGORIES

MEASURES = {name: report.MEASURES[name] for name in ("masked", "masked_solution", "accuracy_0", "accuracy")}

ARMS = {  # by run folder
    "clm": Arm("CLM (all tokens)", "tab:gray"),
    "slm": Arm("SLM, keep 0.3", "tab:blue", controls=("clm", "random")),
    "random": Arm("random tokens, keep 0.3", "tab:olive", controls=("keep_1.0",)),
    "keep_0.1": Arm("SLM, keep 0.1", controls=("keep_1.0", "slm")),
    "keep_0.6": Arm("SLM, keep 0.6", controls=("keep_1.0", "slm")),
    "keep_0.8": Arm("SLM, keep 0.8", controls=("keep_1.0", "slm")),
    "keep_1.0": Arm("CLM at SLM's learning rate", controls=("clm", "slm")),
    "self_low_ref": Arm("self-reference: low loss", controls=("clm", "keep_1.0", "random")),
    "self_low_entropy": Arm("self-reference: low entropy", controls=("clm", "keep_1.0", "random")),
    "self_intersection": Arm("self-reference: both low", controls=("clm", "keep_1.0", "random")),
    "self_union": Arm("self-reference: one of them low", controls=("clm", "keep_1.0", "random")),
    "weak": Arm("SLM, small reference model", controls=("clm", "keep_1.0", "slm")),
    "soft_1": Arm("weights softmax(excess / 1)", controls=("keep_1.0", "slm")),
    "soft_0.3": Arm("weights softmax(excess / 0.3)", controls=("keep_1.0", "slm")),
    "soft_0.3_max_5": Arm("the same, none above 5", controls=("keep_1.0", "slm")),
    "several_mean": Arm("two reference models, mean loss", controls=("slm", "weak")),
    "several_min": Arm("two reference models, lowest loss", controls=("slm", "weak")),
    "warmup": Arm("SLM, keep from 1.0 to 0.3", controls=("slm",)),
    "answers": Arm("answers only", controls=("keep_1.0",)),
    "answers_slm": Arm("half of the answers, by excess", controls=("answers", "answers_random")),
    "answers_random": Arm("half of the answers, at random", controls=("answers",)),
}
REFERENCES = {"start": Arm("what all arms start from"), "ref": Arm("reference model alone"),
              "weak_ref": Arm("small reference model alone")}
# At one learning rate:
RATIOS = {"keep_0.1": 0.1, "slm": 0.3, "keep_0.6": 0.6, "keep_0.8": 0.8, "keep_1.0": 1.0}
KINDS = ("selected", "unselected")


def collect(folder):
    """What results.json holds: final figures of every arm and their differences from its controls, and the
    means of dynamics.json. Raises BadInput where no seed has a finished run of SLM."""
    finished = sorted(glob.glob(os.path.join(folder, "seed*", "slm", "done.json")))
    seeds = [os.path.dirname(os.path.dirname(path)) for path in finished]
    if not seeds:
        raise BadInput(f"{folder} has no seed*/slm with a finished run: run `bash runs/paper.sh main` first")
    runs = {}  # {arm: {seed: read_run}}
    for name in [*ARMS, *REFERENCES]:
        found = {os.path.basename(seed): read_run(os.path.join(seed, name)) for seed in seeds}
        runs[name] = {seed: r for seed, r in found.items() if r}
    slm = read_json(os.path.join(seeds[0], "slm", "config.json"))
    results = {"seeds": [os.path.basename(seed) for seed in seeds], "source": slm["source"],
               "arms": {name: summary_of_arm(name, runs) for name, per_seed in runs.items() if per_seed}}
    for name in ("clm", "slm"):
        curves = [r["curves"]["masked"] for r in runs[name].values() if "masked" in r["curves"]]
        if curves:
            curve = mean_curve(curves)
            results["arms"][name]["curve"] = {"tokens": curve["x"].tolist(), "masked": curve["mean"].tolist()}
    paths = [os.path.join(seed, "dynamics.json") for seed in seeds]
    dynamics = [read_json(path) for path in paths if os.path.exists(path)]
    if dynamics:
        results["dynamics"] = summary_of_dynamics(dynamics)
        batch_tokens = slm["config"]["batch_tokens"]
        results["dynamics"]["tokens"] = [step * batch_tokens for step in results["dynamics"]["steps"]]
    return results


def summary_of_arm(name, runs):
    """Final figures of an arm by seed and over seeds, its differences from its controls, and what it
    selected."""
    arm = {**ARMS, **REFERENCES}[name]
    final = {seed: {measure: r["final"].get(measure) for measure in MEASURES}
             for seed, r in runs[name].items()}
    out = {"what": arm.name, "seeds": final}
    for measure in MEASURES:
        out[measure] = interval([of_seed[measure] for of_seed in final.values()])
    out["minus"] = {}
    for control in arm.controls:
        pairs = [(final[seed], r["final"]) for seed, r in runs[control].items() if seed in final]
        if runs[control]:
            out["minus"][control] = {
                measure: paired_interval([(ours[measure], theirs.get(measure)) for ours, theirs in pairs])
                for measure in MEASURES}
    selection = selection_curves(runs[name].values(), n_bins=1)  # one mean over all of training
    if selection:
        out["selected"] = {key: curve[0] for key, curve in selection.items() if key != "tokens"}
    return out


# ------------------------------------------------------------------------------ losses of single tokens

def summary_of_dynamics(dynamics):
    """Means over seeds of their dynamics.json (extras/dynamics.py), with intervals where a number is
    quoted, and the fits of figure 7."""
    first, categories = dynamics[0], [d["categories"] for d in dynamics]
    out = {key: first[key] for key in ("n_tokens", "keep", "steps")}
    out["n_seeds"] = len(dynamics)
    out["share"] = {name: interval([c["share"][name] for c in categories]) for name in CATEGORIES}
    out["share_less_falling"] = {
        name: paired_interval([(c["share"][name], c["share"]["H->L"]) for c in categories])
        for name in CATEGORIES if name != "H->L"}
    out["fluctuating"] = {name: interval([c["fluctuating"].get(name) for c in categories])
                          for name in CATEGORIES}
    out["share_by_label"] = mean_of([c.get("share_by_label", {}) for c in categories])
    out["mean_loss"] = mean_of([c["mean_loss"] for c in categories])
    out["examples"] = categories[0]["examples"]
    for key in ("losses", "fixed", "sets"):
        out[key] = mean_of([d[key] for d in dynamics])
    # On the tokens that SLM would select with the base as its model, which no arm had a part in:
    slm, clm = [d["fixed"]["slm"] for d in dynamics], [d["fixed"]["clm"] for d in dynamics]
    out["slm_minus_clm"] = paired_interval([(s["selected"][-1], c["selected"][-1]) for s, c in zip(slm, clm)])
    out["unselected_change"] = interval([s["unselected"][-1] - s["unselected"][0] for s in slm])
    # Each model's own set, the tokens that its last checkpoint would select:
    last = str(first["steps"][-1])
    slm_change = [d["sets"][last][-1] - d["sets"][last][0] for d in dynamics]
    clm_change = [d["last_set_of_clm"][-1] - d["last_set_of_clm"][0] for d in dynamics]
    out["last_set_change"] = {"slm": interval(slm_change),
                              "slm_minus_clm": paired_interval(list(zip(slm_change, clm_change)))}
    out["points"] = [{**point, "seed": seed} for seed, d in enumerate(dynamics) for point in d["accuracy"]]
    out["fits"] = {kind: {arm: [fit(d, arm, kind) for d in dynamics] for arm in first["losses"]}
                   for kind in KINDS}
    out["correlation"] = {arm: correlation(out["fits"], arm) for arm in first["losses"]}
    return out


def mean_of(values):
    """The mean over seeds of equally built dicts, lists or numbers; of dicts only what all have."""
    if isinstance(values[0], dict):
        return {k: mean_of([v[k] for v in values]) for k in values[0] if all(k in v for v in values)}
    return np.mean(values, axis=0).tolist()


def fit(dynamics, arm, kind):
    """Least squares of accuracy on the loss of the `kind` tokens over an arm's checkpoints in one seed:
    slope (accuracy per nat), intercept and correlation r; None where there is no line."""
    points = [p for p in dynamics["accuracy"] if p["arm"] == arm]
    x, y = np.array([p[kind] for p in points]), np.array([p["accuracy"] for p in points])
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return None
    slope, intercept = np.polyfit(x, y, 1)
    r = np.corrcoef(x, y)[0, 1]
    return {"slope": float(slope), "intercept": float(intercept), "r": float(r), "n": len(x)}


def correlation(fits, arm):
    """Of the correlations of an arm's accuracy with both losses, mean and interval, and of their
    difference, that of their Fisher transforms."""
    r = {kind: [f["r"] if f else None for f in fits[kind][arm]] for kind in KINDS}
    out = {kind: interval_of_r(r[kind]) for kind in KINDS}
    out["difference"] = paired_interval([tuple(None if x is None else float(np.arctanh(x)) for x in pair)
                                         for pair in zip(r["unselected"], r["selected"])])
    return out


def interval_of_r(values):
    """Mean and interval of correlations, by Fisher's transformation: no interval then leaves -1 to 1."""
    v = interval([np.arctanh(r) for r in values if r is not None])
    if v is None:
        return None
    back = {key: None if v[key] is None else float(np.tanh(v[key])) for key in ("mean", "low", "high")}
    return {**back, "n": v["n"]}
