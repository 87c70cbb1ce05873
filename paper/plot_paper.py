"""
The paper's figures and tables from the runs of runs/paper.sh.

    python plot_paper.py --runs out/paper --out out/paper/figures     # results.json, table.md and the figures

Figures: token_dynamics.png (3, 10), loss_dynamics.png (6), accuracy_vs_loss.png (7), selected_sets.png (8),
keep_ratio.png (9) and variants.png (tables 3 to 5, and what the paper names as future work). Intervals are 95%
t-intervals over seeds; differences are paired by seed. What has not been run is left out.
"""
import glob
import os
from dataclasses import dataclass

import numpy as np

from common import BadInput, read_json, replacing, run, write_json
from dynamics import CATEGORIES
from plot import MEASURES, interval, millions, read_run, save_figure, selection_curves

ARMS = {  # run folder: (what it is, the arms it is compared with)
    "clm": ("CLM (all tokens)", []),
    "slm": ("SLM, keep 0.3", ["clm", "random"]),
    "random": ("random tokens, keep 0.3", ["clm"]),
    "keep_0.1": ("SLM, keep 0.1", ["clm", "slm"]), "keep_0.2": ("SLM, keep 0.2", ["clm", "slm"]),
    "keep_0.4": ("SLM, keep 0.4", ["clm", "slm"]), "keep_0.6": ("SLM, keep 0.6", ["clm", "slm"]),
    "keep_0.8": ("SLM, keep 0.8", ["clm", "slm"]),
    "rank_1": ("SLM, each row ranked by itself", ["slm"]), "rank_2": ("SLM, 2 of 8 rows ranked together", ["slm"]),
    "rank_4": ("SLM, 4 of 8 rows ranked together", ["slm"]),
    "self_low_ref": ("self-reference: low loss", ["clm", "random"]),
    "self_low_entropy": ("self-reference: low entropy", ["clm", "random"]),
    "self_intersection": ("self-reference: both low", ["clm", "random"]),
    "self_union": ("self-reference: one of them low", ["clm", "random"]),
    "fresh_clm": ("CLM from scratch", []),
    "fresh_self": ("self-reference from scratch: both low", ["fresh_clm"]),
    "weak": ("SLM, small reference model", ["clm", "slm"]),
    "soft_1": ("weights softmax(excess / 1)", ["clm", "slm"]),
    "soft_0.3": ("weights softmax(excess / 0.3)", ["clm", "slm"]),
    "soft_0.3_max_5": ("the same, none above 5", ["clm", "slm"]),
    "several_mean": ("two reference models, mean loss", ["slm", "weak"]),
    "several_min": ("two reference models, lowest loss", ["slm", "weak"]),
    "warmup": ("SLM, keep from 1.0 to 0.3", ["slm"]),
    "answers": ("answers only (fine-tuning)", ["clm"]),
    "answers_slm": ("half of the answers, by excess", ["answers", "answers_random"]),
    "answers_random": ("half of the answers, at random", ["answers"]),
}
REFERENCES = {"ref": "reference model alone", "weak_ref": "small reference model alone"}
RATIOS = {"keep_0.1": 0.1, "keep_0.2": 0.2, "slm": 0.3, "keep_0.4": 0.4, "keep_0.6": 0.6, "keep_0.8": 0.8, "clm": 1.0}
NAMES = {"target_loss": "loss on held-out curated text", "solution_loss": "... on its solution tokens",
         "accuracy": "few-shot accuracy"}
COLOURS = {"H->L": "tab:blue", "L->H": "tab:red", "L->L": "tab:green", "H->H": "goldenrod"}


@dataclass
class Config:
    runs: str = "out/paper"  # folder with seed0, seed1, ...
    out: str = ""            # where the figures go (default: the same folder)

    def validate(self):
        return []


def collect(folder):
    """results.json: final figures of every arm and their differences from its controls, and the means of dynamics.json."""
    seeds = [os.path.dirname(os.path.dirname(p)) for p in sorted(glob.glob(os.path.join(folder, "seed*", "slm", "done.json")))]
    if not seeds:
        raise BadInput(f"{folder} has no seed*/slm with a finished run: run `bash runs/paper.sh main` first")
    runs = {name: {os.path.basename(s): r for s in seeds if (r := read_run(os.path.join(s, name)))}
            for name in [*ARMS, *REFERENCES]}
    results = {"seeds": [os.path.basename(s) for s in seeds], "arms": {},
               "source": read_json(os.path.join(seeds[0], "slm", "config.json"))["source"]}
    for name, per_seed in runs.items():
        if not per_seed:
            continue
        final = {s: {k: r["final"].get(k) for k in MEASURES} for s, r in per_seed.items()}
        results["arms"][name] = {
            "what": ARMS[name][0] if name in ARMS else REFERENCES[name], "seeds": final,
            **{k: interval([f[k] for f in final.values()]) for k in MEASURES},
            "minus": {control: {k: interval([
                None if (a := final[s][k]) is None or (b := r["final"].get(k)) is None else a - b
                for s, r in runs[control].items() if s in final]) for k in MEASURES}
                for control in (ARMS[name][1] if name in ARMS else []) if runs[control]}}
        if kept := selection_curves(per_seed.values(), 1):  # one mean over all of training
            results["arms"][name]["kept"] = {k: v[0] for k, v in kept.items() if k != "tokens"}
    if all(results["arms"].get(a, {}).get("accuracy") for a in RATIOS):
        results["best"] = {}  # the best ratio, and by how much it beats the paper's, on the seeds that chose it
        for k, sign in (("target_loss", 1), ("accuracy", -1)):
            order = sorted(RATIOS, key=lambda a: sign * results["arms"][a][k]["mean"])
            arm, rival = order[0], "keep_0.6" if order[0] != "keep_0.6" else order[1]
            of = [results["arms"][a]["seeds"] for a in (arm, rival)]
            results["best"][k] = {"arm": arm, "rival": rival,
                                  "less": interval([of[0][s][k] - of[1][s][k] for s in of[0] if s in of[1]])}
    for name in ("clm", "slm"):
        results["arms"][name]["curve"] = {
            "tokens": next(iter(runs[name].values()))["tokens"],
            "target_loss": np.mean([r["target_loss"] for r in runs[name].values()], axis=0).tolist()}
    dynamics = [read_json(os.path.join(s, "dynamics.json")) for s in seeds if os.path.exists(os.path.join(s, "dynamics.json"))]
    if dynamics:
        results["dynamics"] = summary(dynamics)
        tokens = read_json(os.path.join(seeds[0], "slm", "config.json"))["config"]["batch_tokens"]
        results["dynamics"]["tokens"] = [s * tokens for s in results["dynamics"]["steps"]]
    return results


def mean_of(values):
    """The mean over seeds of equally built dicts, lists or numbers; of dicts only what all have."""
    if isinstance(values[0], dict):
        return {k: mean_of([v[k] for v in values]) for k in values[0] if all(k in v for v in values)}
    return np.mean(values, axis=0).tolist()


def summary(dynamics):
    """Means over seeds of their dynamics.json, with intervals where a number is quoted, and the fits of figure 7."""
    first, categories = dynamics[0], [d["categories"] for d in dynamics]
    out = {k: first[k] for k in ("n_tokens", "keep", "steps")} | {"n_seeds": len(dynamics)}
    out["share"] = {name: interval([c["share"][name] for c in categories]) for name in CATEGORIES}
    out["share_by_label"] = mean_of([c.get("share_by_label", {}) for c in categories])
    out["mean_loss"] = mean_of([c["mean_loss"] for c in categories])
    out["examples"] = categories[0]["examples"]
    out["losses"] = mean_of([d["losses"] for d in dynamics])
    # On the tokens selected before the first step, which no arm had a part in:
    out["slm_minus_clm"] = interval([d["before"]["slm"]["selected"][-1] - d["before"]["clm"]["selected"][-1] for d in dynamics])
    out["unselected_change"] = interval([d["before"]["slm"]["unselected"][-1] - d["before"]["slm"]["unselected"][0]
                                         for d in dynamics])
    out["before"] = mean_of([d["before"] for d in dynamics])
    out["sets"] = mean_of([d["sets"] for d in dynamics])
    last = str(first["steps"][-1])
    change = [(d["sets"][last][-1] - d["sets"][last][0], d["last_set_of_clm"][-1] - d["last_set_of_clm"][0]) for d in dynamics]
    out["last_set_change"] = {"slm": interval([slm for slm, _ in change]),
                              "slm_minus_clm": interval([slm - clm for slm, clm in change])}
    out["points"] = [{**p, "seed": n} for n, d in enumerate(dynamics) for p in d["accuracy"]]

    def r(d, arm, kind):
        return (fit([p for p in d["accuracy"] if p["arm"] == arm], kind) or {}).get("r")

    out["correlation"] = {arm: {kind: interval_of_r([r(d, arm, kind) for d in dynamics]) for kind in ("selected", "unselected")}
                          for arm in first["losses"]}
    pairs = {arm: [(r(d, arm, "unselected"), r(d, arm, "selected")) for d in dynamics] for arm in first["losses"]}
    for arm in pairs:
        out["correlation"][arm]["difference"] = interval([u - v for u, v in pairs[arm] if None not in (u, v)])
    out["fits"] = {kind: {arm: [fit([p for p in d["accuracy"] if p["arm"] == arm], kind) for d in dynamics]
                          for arm in first["losses"]} for kind in ("selected", "unselected")}
    return out


def interval_of_r(values):
    """Mean and interval of correlations, by Fisher's transformation: no interval then leaves -1 to 1."""
    v = interval([np.arctanh(x) for x in values if x is not None])
    return v and {k: x if k == "n" or x is None else float(np.tanh(x)) for k, x in v.items()}


def fit(points, kind):
    """Least squares of accuracy on the loss `kind`: slope (accuracy per nat), intercept and correlation r."""
    x, y = np.array([p[kind] for p in points]), np.array([p["accuracy"] for p in points])
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return None
    slope, intercept = np.polyfit(x, y, 1)
    return {"slope": float(slope), "intercept": float(intercept), "r": float(np.corrcoef(x, y)[0, 1]), "n": len(x)}


def cell(v, measure, sign=False):
    """A mean and its interval as text. An accuracy's interval is cut at 0 and 100%; a difference (`sign`) is not."""
    if v is None:
        return ""
    if measure == "accuracy" and not sign and v["n"] > 1:
        v = v | {"low": max(0.0, v["low"]), "high": min(1.0, v["high"])}
    scale, unit, digits = (100, "%", 1) if measure == "accuracy" else (1, "", 3)
    f = f"{{:{'+' if sign else ''}.{digits}f}}"
    text = f.format(scale * v["mean"]) + unit
    return text + (f" ({f.format(scale * v['low'])}{unit} to {f.format(scale * v['high'])}{unit})" if v["n"] > 1 else "")


def table(results):
    """All arms, then the differences from their controls, in Markdown."""
    n = len(results["seeds"])
    lines = [f"Mean over {n} seed{'s' * (n > 1)}" + (" (95% interval)" if n > 1 else "") + ":", "",
             "| arm | target loss | on solution tokens | few-shot accuracy |", "|---|---|---|---|"]
    arms = results["arms"]
    for name in [*REFERENCES, *ARMS]:
        if name in arms:
            lines.append(f"| {arms[name]['what']} | " + " | ".join(cell(arms[name][k], k) for k in MEASURES) + " |")
    lines += ["", "Differences, paired by seed:", "", "| arm | less | target loss | on solution tokens | few-shot accuracy |",
              "|---|---|---|---|---|"]
    for name in ARMS:
        for control, d in arms.get(name, {"minus": {}})["minus"].items():
            lines.append(f"| {arms[name]['what']} | {arms[control]['what']} | "
                         + " | ".join(cell(d[k], k, sign=True) for k in MEASURES) + " |")
    labels = [k for k in next((arms[n]["kept"] for n in ARMS if "kept" in arms.get(n, {})), {}) if k.startswith("kept_")]
    lines += ["", "What the selections kept, mean over training: the loss of the kept tokens, and the fraction kept of each label:", "",
              "| arm | loss | " + " | ".join(k[5:] for k in labels) + " |", "|---|---|" + "---|" * len(labels)]
    lines += [f"| {arms[name]['what']} | {kept['selected_loss']:.3f} | " + " | ".join(f"{100 * kept[k]:.1f}%" for k in labels) + " |"
              for name in ARMS if (kept := arms.get(name, {}).get("kept"))]
    if "dynamics" in results:
        d = results["dynamics"]
        lines += ["", f"{d['n_tokens']:,} tokens of held-out noisy text over {len(d['steps'])} checkpoints of CLM, by the paper's rule:",
                  "", "| | " + " | ".join(CATEGORIES) + " |", "|---|---|---|---|---|",
                  "| all tokens | " + " | ".join(cell(d["share"][c], "accuracy") for c in CATEGORIES) + " |"]
        lines += [f"| {label} | " + " | ".join(f"{100 * share[c]:.1f}%" for c in CATEGORIES) + " |"
                  for label, share in d["share_by_label"].items()]
        lines += ["", "Correlation of accuracy with loss over the checkpoints of a run:", "",
                  "| run | tokens selected before the first step | the others |", "|---|---|---|"]
        lines += [f"| {arm.upper()} | {cell(c['selected'], '', sign=True)} | {cell(c['unselected'], '', sign=True)} |"
                  for arm, c in d["correlation"].items()]
        lines += ["", "Loss on held-out noisy text, first and last checkpoint:", "", "| tokens | CLM | SLM |", "|---|---|---|"]
        for what, kinds in (("selected before the first step", "selected"), ("the others", "unselected")):
            lines.append(f"| {what} | " + " | ".join(f"{d['before'][arm][kinds][0]:.3f} to {d['before'][arm][kinds][-1]:.3f}"
                                                     for arm in ("clm", "slm")) + " |")
    return "\n".join(lines) + "\n"


def verdict(v, sign):
    """Of a difference v that the paper expects to have this sign: does its interval agree?"""
    if v is None or v["n"] < 2:
        return "not measured"
    if v["low"] <= 0 <= v["high"]:
        return "cannot tell"
    return "agrees" if v["mean"] * sign > 0 else "disagrees"


def claims(results):
    """A row for each of the paper's claims: the claim, what came out here, and whether the interval agrees. By computation."""
    arms, d = results["arms"], results.get("dynamics")
    rows = []

    def difference(claim, arm, control):
        """arm is better than control: lower loss, higher accuracy."""
        assert control in ARMS[arm][1], (arm, control)
        if control in arms.get(arm, {"minus": {}})["minus"]:
            minus = arms[arm]["minus"][control]
            rows.append((claim, "; ".join(f"{name} {cell(minus[k], k, sign=True)}" for k, name in (
                ("target_loss", "target loss"), ("solution_loss", "solution loss"), ("accuracy", "accuracy"))),
                "; ".join(f"{name}: {verdict(minus[k], sign)}" for k, name, sign in (
                    ("target_loss", "target loss", -1), ("solution_loss", "solution loss", -1), ("accuracy", "accuracy", 1)))))

    def value(claim, what, v, sign, measure="target_loss"):
        rows.append((claim, f"{what} {cell(v, measure, sign=True)}", verdict(v, sign)))

    if d:
        learned = d["share"]["H->L"]
        rows.append(("The loss of a minority of the tokens falls during CLM (26%; fig. 3)",
                     f"H->L {cell(learned, 'accuracy')}", "not measured" if learned["n"] < 2 else
                     "agrees" if learned["high"] < 0.5 else "disagrees" if learned["low"] > 0.5 else "cannot tell"))
    difference("SLM beats CLM at equal tokens (table 1; here keep 0.3)", "slm", "clm")
    difference("... and beats random tokens at the same ratio (our control)", "slm", "random")
    if d:
        value("SLM ends below CLM on the tokens it selects (fig. 6; here those selected before the first step)", "SLM less CLM",
              d["slm_minus_clm"], -1)
        value("... and its loss on the others rises (2.82 to 3.52; fig. 6)", "last less first checkpoint",
              d["unselected_change"], 1)
        for arm in ("clm", "slm"):
            value(f"Accuracy rises as the loss on selected tokens falls (fig. 7), {arm.upper()}", "correlation",
                  d["correlation"][arm]["selected"], -1)
            value(f"... and less so with the loss on unselected tokens, {arm.upper()}", "correlation with unselected less selected",
                  d["correlation"][arm]["difference"], 1)
        value("Tokens that SLM selects at the end have had their loss rise (fig. 8)", "last less first checkpoint",
              d["last_set_change"]["slm"], 1)
        value("... and not only because they are chosen for a high loss at the end: more than those that CLM would select",
              "the same, SLM less CLM", d["last_set_change"]["slm_minus_clm"], 1)
    if "best" in results:
        here, verdicts = [], []
        for k, name, sign in (("target_loss", "target loss", -1), ("accuracy", "accuracy", 1)):
            best = results["best"][k]
            here.append(f"{name}: best {RATIOS[best['arm']]}, less {RATIOS[best['rival']]}: {cell(best['less'], k, sign=True)}")
            clear = verdict(best["less"], sign) == "agrees"
            verdicts.append(f"{name}: " + (("agrees" if best["arm"] == "keep_0.6" else "disagrees") if clear else "cannot tell"))
        rows.append(("Keeping about 60% is best (fig. 9; the best of seven, chosen on the seeds it is judged by)",
                     "; ".join(here), "; ".join(verdicts)))
    for how in ("low_ref", "low_entropy", "intersection", "union"):
        difference(f"{ARMS[f'self_{how}'][0].capitalize()}, beats CLM (tables 3, 4)", f"self_{how}", "clm")
    difference("... and for a model that has seen nothing yet: both low, against CLM", "fresh_self", "fresh_clm")
    difference("A small reference model helps a larger model (table 5): against CLM", "weak", "clm")
    return "\n".join(["| the paper's claim | here, with 95% interval | verdict |", "|---|---|---|",
                      *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


# ---------------------------------------------------------------------------------------------------- figures

def pyplot():
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    return plt


def finish(fig, axes, title, path):
    for ax in np.ravel(axes):
        ax.grid(alpha=0.2)
    fig.suptitle(title)
    save_figure(fig, path)


def token_dynamics(results, path):
    """Figure 3: mean loss of each category over CLM's training, example tokens, and what the categories are made of."""
    d, plt = results["dynamics"], pyplot()
    fig, axes = plt.subplots(1, 4, figsize=(20, 4.8))
    x = millions(d["tokens"])
    for name, curve in d["mean_loss"].items():
        axes[0].plot(x, curve, color=COLOURS[name], label=f"{name} ({d['share'][name]['mean']:.0%})")
    axes[0].set(title="mean loss of the paper's four categories", xlabel="million tokens of CLM", ylabel="loss")
    axes[0].legend()
    for ax, names in ((axes[1], ("H->L", "L->H")), (axes[2], ("L->L", "H->H"))):
        for name in names:
            for e, style in zip(d["examples"].get(name, []), ("-", "--", ":")):
                ax.plot(x, e["losses"], style, color=COLOURS[name], label=f"{name}: {e['token']!r}")
        ax.set(title="single tokens", xlabel="million tokens of CLM")
        ax.legend(fontsize=8)
    left = np.zeros(len(d["share_by_label"]))
    for name in CATEGORIES:
        widths = np.array([share[name] for share in d["share_by_label"].values()])
        axes[3].barh(list(d["share_by_label"]), widths, left=left, color=COLOURS[name], label=name)
        left += widths
    axes[3].invert_yaxis()
    axes[3].set(title="categories by true label", xlabel="share of the tokens")
    finish(fig, axes, f"Tokens of held-out noisy text during CLM, {d['n_seeds']} seeds", path)


def loss_dynamics(results, path):
    """Figure 6: loss on what SLM selects at each checkpoint, on the rest, and on the target, under both models."""
    d, plt = results["dynamics"], pyplot()
    fig, axes = plt.subplots(1, 3, figsize=(15, 4.5))
    for arm, colour in (("clm", "tab:gray"), ("slm", "tab:blue")):
        for ax, kind in zip(axes, ("selected", "unselected")):
            ax.plot(millions(d["tokens"]), d["losses"][arm][kind], color=colour, marker=".", label=arm.upper())
            ax.set(title=f"held-out noisy text: tokens {kind} by SLM", xlabel="million tokens")
        curve = results["arms"][arm]["curve"]
        axes[2].plot(millions(curve["tokens"]), curve["target_loss"], color=colour, label=arm.upper())
    axes[2].set(title="target: held-out curated text", xlabel="million tokens")
    axes[0].set_ylabel("loss")
    axes[0].legend()
    finish(fig, axes, f"Where the loss falls, {d['n_seeds']} seeds", path)


def accuracy_vs_loss(results, path):
    """Figure 7: a point for each checkpoint, arm and seed; a line of least squares for each arm and seed."""
    d, plt = results["dynamics"], pyplot()
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for ax, kind in zip(axes, ("selected", "unselected")):
        for arm, colour in (("clm", "tab:gray"), ("slm", "tab:blue")):
            r = d["correlation"][arm][kind]
            for seed, f in enumerate(d["fits"][kind][arm]):
                points = [p for p in d["points"] if p["arm"] == arm and p["seed"] == seed]
                x = np.array([p[kind] for p in points])
                label = f"{arm.upper()}, correlation {r['mean']:+.2f}" if seed == 0 and r else None
                ax.scatter(x, [p["accuracy"] for p in points], 14, color=colour, label=label)
                if f:
                    ends = np.array([x.min(), x.max()])
                    ax.plot(ends, f["slope"] * ends + f["intercept"], color=colour, lw=1)
        ax.set(title=f"tokens {kind} before the first step", xlabel="loss on held-out noisy text")
        ax.legend()
    axes[0].set_ylabel("few-shot accuracy")
    finish(fig, axes, "Accuracy against loss over checkpoints, a line for each run", path)


def selected_sets(results, path):
    """Figure 8: loss over SLM's training of the tokens selected at five of its checkpoints."""
    d, plt = results["dynamics"], pyplot()
    fig, ax = plt.subplots(figsize=(7, 4.5))
    for (step, curve), shade in zip(d["sets"].items(), np.linspace(0.2, 0.9, len(d["sets"]))):
        colour = plt.cm.viridis(shade)
        i = d["steps"].index(int(step))
        ax.plot(millions(d["tokens"]), curve, color=colour, label=f"selected at {millions(d['tokens'][i]):.1f}M")
        ax.plot(millions(d["tokens"])[i], curve[i], "o", color=colour)
    ax.set(xlabel="million tokens of SLM", ylabel="loss on held-out noisy text")
    ax.legend()
    finish(fig, ax, f"Tokens selected at five checkpoints, {d['n_seeds']} seeds", path)


def keep_ratio(results, path):
    """Figure 9: target loss, loss on solution tokens and accuracy against the ratio of tokens kept."""
    plt, arms = pyplot(), {r: results["arms"][a] for a, r in RATIOS.items() if a in results["arms"]}
    fig, axes = plt.subplots(1, 3, figsize=(15, 4.5))
    for ax, key in zip(axes, MEASURES):
        for r, a in arms.items():
            ax.plot([r] * len(a["seeds"]), [f[key] for f in a["seeds"].values()], ".", color="tab:blue", alpha=0.4)
        ax.plot(list(arms), [a[key]["mean"] if a[key] else np.nan for a in arms.values()], "o-", color="tab:blue", label="SLM (1.0: CLM)")
        if results["arms"].get("random", {}).get(key):
            ax.plot(0.3, results["arms"]["random"][key]["mean"], "s", color="tab:olive", label="random tokens")
        if results["arms"].get("ref", {}).get(key):
            ax.axhline(results["arms"]["ref"][key]["mean"], color="black", ls=":", lw=1, label="reference model alone")
        ax.set(title=NAMES[key], xlabel="share of tokens kept")
    axes[0].legend()
    finish(fig, axes, f"How many tokens to keep, {len(results['seeds'])} seeds (dots)", path)


def variants_figure(results, path):
    """All arms side by side, each seed a dot. (Intervals over three seeds are in the table; here they would hide the arms.)"""
    plt, names = pyplot(), [n for n in [*REFERENCES, *ARMS] if n in results["arms"]]
    fig, axes = plt.subplots(1, 3, figsize=(15, 1.5 + 0.27 * len(names)), sharey=True)
    for ax, key in zip(axes, MEASURES):
        for i, name in enumerate(names):
            v = results["arms"][name][key]
            if v:
                colour = {"clm": "tab:gray", "slm": "tab:blue"}.get(name, "black")
                dots = [f[key] for f in results["arms"][name]["seeds"].values() if f[key] is not None]
                ax.plot(dots, [i] * len(dots), ".", color=colour, alpha=0.35)
                ax.plot(v["mean"], i, "D", color=colour)
        for name, colour in (("clm", "tab:gray"), ("slm", "tab:blue")):
            if results["arms"][name][key]:
                ax.axvline(results["arms"][name][key]["mean"], color=colour, lw=1, ls="--")
        ax.set(title=NAMES[key])
    axes[0].set_yticks(range(len(names)), [results["arms"][n]["what"] for n in names])
    axes[0].invert_yaxis()
    finish(fig, axes, f"All arms, {len(results['seeds'])} seeds (dots); lines: CLM and SLM at keep 0.3", path)


def main(cfg):
    results = collect(cfg.runs)
    out = cfg.out or cfg.runs
    os.makedirs(out, exist_ok=True)
    write_json(os.path.join(out, "results.json"), results)
    text = claims(results) + "\n" + table(results)
    with replacing(os.path.join(out, "table.md")) as f:
        f.write(text)
    figures = {"keep_ratio.png": keep_ratio, "variants.png": variants_figure}
    if "dynamics" in results:
        figures |= {"token_dynamics.png": token_dynamics, "loss_dynamics.png": loss_dynamics,
                    "accuracy_vs_loss.png": accuracy_vs_loss, "selected_sets.png": selected_sets}
    for name, draw in figures.items():
        draw(results, os.path.join(out, name))
    print(text)
    print(f"{out}: results.json, table.md, {', '.join(figures)}")


if __name__ == "__main__":
    run(main, Config, __doc__)
