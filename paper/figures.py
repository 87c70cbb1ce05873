"""
The paper's figures, redrawn from results.json (paper/collect.py). Each function writes one PNG.
"""
import numpy as np

from engine.report import millions, pyplot, save_figure, seeds_text
from extras.dynamics import CATEGORIES, FLUCTUATES
from paper.collect import ARMS, KINDS, MEASURES, RATIOS, REFERENCES

COLOURS = {"H->L": "tab:blue", "L->H": "tab:red", "L->L": "tab:green", "H->H": "goldenrod"}
TWO_ARMS = ("clm", "slm")  # those whose checkpoints are looked at


def token_dynamics(results, path):
    """Figure 3: mean loss of each category over CLM's training, what the categories are made of, how many of
    their tokens fluctuate, and example tokens: of those that change the ones nearest to the mean curve, of
    the others fluctuating ones (3b and 3c)."""
    d, plt = results["dynamics"], pyplot()
    fig, ((means, shares, moves), singles) = plt.subplots(2, 3, figsize=(17, 9.5))
    x = millions(d["tokens"])
    for name, curve in d["mean_loss"].items():
        means.plot(x, curve, color=COLOURS[name], label=f"{name} ({d['share'][name]['mean']:.0%})")
    means.set(title="mean loss of the paper's four categories", xlabel="million tokens of CLM", ylabel="loss")
    means.legend()
    left = np.zeros(len(d["share_by_label"]))
    for name in CATEGORIES:
        widths = np.array([share[name] for share in d["share_by_label"].values()])
        shares.barh(list(d["share_by_label"]), widths, left=left, color=COLOURS[name], label=name)
        left += widths
    shares.invert_yaxis()
    shares.set(title="categories by true label", xlabel="share of the tokens")
    for name in CATEGORIES:
        if d["fluctuating"][name]:
            moves.bar(name, d["fluctuating"][name]["mean"], color=COLOURS[name])
    moves.set(title=f"tokens {FLUCTUATES} nats and more from their line", ylabel="share of the category")
    panels = (("the loss falls, or rises", ("H->L", "L->H")),
              ("low all along, and fluctuating", ("L->L",)), ("high all along, and fluctuating", ("H->H",)))
    for ax, (title, names) in zip(singles, panels):
        for name in names:
            for example, style in zip(d["examples"].get(name, []), ("-", "--", ":")):
                ax.plot(x, example["losses"], style, color=COLOURS[name],
                        label=f"{name}: {example['token']!r}")
        ax.set(title=f"single tokens: {title}", xlabel="million tokens of CLM", ylabel="loss")
        ax.legend(fontsize=8)
    save_figure(fig, path, f"Tokens of held-out noisy text during CLM, {seeds_text(d['n_seeds'])}")


def loss_dynamics(results, path):
    """Figure 6: loss on what SLM selects at each checkpoint, on the rest, and on the test text, under both
    models."""
    d, plt = results["dynamics"], pyplot()
    fig, axes = plt.subplots(1, 3, figsize=(15, 4.5))
    for arm in TWO_ARMS:
        colour, name = ARMS[arm].colour, arm.upper()
        for ax, kind in zip(axes, KINDS):
            ax.plot(millions(d["tokens"]), d["losses"][arm][kind], color=colour, marker=".", label=name)
            ax.set(title=f"held-out noisy text: tokens {kind} by SLM", xlabel="million tokens")
        curve = results["arms"][arm].get("curve")
        if curve:
            axes[2].plot(millions(curve["tokens"])[1:], curve["masked"][1:], color=colour, marker=".",
                         label=name)
    axes[2].set(title="held-out curated text, noise ids masked", xlabel="million tokens")
    axes[0].set_ylabel("loss")
    axes[0].legend()
    save_figure(fig, path, f"Where the loss falls, {seeds_text(d['n_seeds'])}")


def accuracy_vs_loss(results, path):
    """Figure 7: a point for each checkpoint, arm and seed; a line of least squares for each arm and seed."""
    d, plt = results["dynamics"], pyplot()
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for ax, kind in zip(axes, KINDS):
        for arm in TWO_ARMS:
            colour, r = ARMS[arm].colour, d["correlation"][arm][kind]
            for seed, line in enumerate(d["fits"][kind][arm]):
                points = [p for p in d["points"] if p["arm"] == arm and p["seed"] == seed]
                x = np.array([p[kind] for p in points])
                label = f"{arm.upper()}, correlation {r['mean']:+.2f}" if seed == 0 and r else None
                ax.scatter(x, [p["accuracy"] for p in points], 14, color=colour, label=label)
                if line:
                    ends = np.array([x.min(), x.max()])
                    ax.plot(ends, line["slope"] * ends + line["intercept"], color=colour, lw=1)
        ax.set(title=f"tokens {kind} with the base as model", xlabel="loss on held-out noisy text")
        ax.legend()
    axes[0].set_ylabel("accuracy without shots")
    save_figure(fig, path, "Accuracy against loss over checkpoints, a line for each run")


def selected_sets(results, path):
    """Figure 8: loss over SLM's training of the tokens selected at five of its checkpoints."""
    d, plt = results["dynamics"], pyplot()
    fig, ax = plt.subplots(figsize=(7, 4.5))
    x = millions(d["tokens"])
    for (step, curve), shade in zip(d["sets"].items(), np.linspace(0.2, 0.9, len(d["sets"]))):
        colour = plt.cm.viridis(shade)
        at = d["steps"].index(int(step))
        ax.plot(x, curve, color=colour, label=f"selected at {x[at]:.1f}M")
        ax.plot(x[at], curve[at], "o", color=colour)
    ax.set(xlabel="million tokens of SLM", ylabel="loss on held-out noisy text")
    ax.legend()
    save_figure(fig, path, f"Tokens selected at five checkpoints, {seeds_text(d['n_seeds'])}")


def keep_ratio(results, path):
    """Figure 9: losses and accuracies against the share of tokens selected."""
    plt, arms = pyplot(), results["arms"]
    by_ratio = {ratio: arms[name] for name, ratio in RATIOS.items() if name in arms}
    fig, axes = plt.subplots(1, len(MEASURES), figsize=(19, 4.5))
    for ax, measure in zip(axes, MEASURES):
        for ratio, arm in by_ratio.items():
            dots = [final[measure] for final in arm["seeds"].values()]
            ax.plot([ratio] * len(dots), dots, ".", color="tab:blue", alpha=0.4)
        means = [arm[measure]["mean"] if arm[measure] else np.nan for arm in by_ratio.values()]
        ax.plot(list(by_ratio), means, "o-", color="tab:blue", label="SLM (1.0: CLM at its learning rate)")
        if arms.get("random", {}).get(measure):
            ax.plot(0.3, arms["random"][measure]["mean"], "s", color=ARMS["random"].colour,
                    label="random tokens")
        if arms.get("ref", {}).get(measure):
            ax.axhline(arms["ref"][measure]["mean"], color="black", ls=":", lw=1,
                       label=REFERENCES["ref"].name)
        ax.set(title=MEASURES[measure].title, xlabel="share of tokens selected")
    axes[0].legend()
    save_figure(fig, path, f"How many tokens to select, {seeds_text(len(results['seeds']))} (dots)")


def all_arms(results, path):
    """All arms side by side, each seed a dot. (Intervals over three seeds are in the table; here they would
    hide the arms.)"""
    plt, arms = pyplot(), results["arms"]
    names = [name for name in [*REFERENCES, *ARMS] if name in arms]
    fig, axes = plt.subplots(1, len(MEASURES), figsize=(19, 1.5 + 0.27 * len(names)), sharey=True)
    for ax, measure in zip(axes, MEASURES):
        for i, name in enumerate(names):
            if arms[name][measure]:
                colour = ARMS[name].colour if name in TWO_ARMS else "black"
                dots = [final[measure] for final in arms[name]["seeds"].values()]
                dots = [dot for dot in dots if dot is not None]
                ax.plot(dots, [i] * len(dots), ".", color=colour, alpha=0.35)
                ax.plot(arms[name][measure]["mean"], i, "D", color=colour)
        for name in TWO_ARMS:
            if arms[name][measure]:
                ax.axvline(arms[name][measure]["mean"], color=ARMS[name].colour, lw=1, ls="--")
        ax.set_title(MEASURES[measure].title)
    axes[0].set_yticks(range(len(names)), [arms[name]["what"] for name in names])
    axes[0].invert_yaxis()
    title = f"All arms, {seeds_text(len(results['seeds']))} (dots); lines: CLM and SLM at keep 0.3"
    save_figure(fig, path, title)
