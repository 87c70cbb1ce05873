"""
The table and the figure of runs/distill.sh: accuracy against generated tokens, of each loss and control.

    python -m extras.distill_table --runs out/distill    # its results.json, table.md and accuracy.png

RUNS holds a folder for each setting (strong, pair) with seed*/LOSS, runs of extras/distill.py, and beside
them seed*/teacher_*. Intervals are 95% t-intervals over seeds; differences are paired by seed.
"""
import glob
import os
from dataclasses import dataclass

import numpy as np

from engine.cli import BadInput, run
from engine.files import read_jsonl
from engine.report import (cell, interval, mean_curve, paired_interval, pyplot, save_figure, table_lines,
                           write_report)

SETTINGS = {"strong": "from a strong teacher", "pair": "from two teachers of one skill each"}
ARMS = {  # by run folder: name and colour
    "fire": ("FiRe-OPD: filter and reweight", "tab:blue"),
    "opd": ("plain on-policy distillation", "black"),
    "filter": ("filter alone", "tab:cyan"),
    "reweight": ("reweight alone", "tab:green"),
    "exact_kl": ("exact reverse KL", "tab:red"),
    "exact_kl_twice": ("exact reverse KL, twice as long", "firebrick"),
    "fire_exact": ("exact reverse KL, filtered and reweighted", "magenta"),
    "entropy_half": ("half of the tokens, by entropy", "tab:olive"),
    "first_k": ("first 10 tokens", "tab:brown"),
    "random_drop": ("a fifth dropped at random", "tab:gray"),
    "permuted_weights": ("weights permuted", "tab:pink"),
    "sft": ("the teacher's answers (not on-policy)", "tab:orange"),
    "reward_answer": ("reward: right answer", "tab:purple"),
    "reward_reference": ("reward: the teacher's probability of the answer", "navy"),
}
LAST = 10  # steps at the end over which what the log says is averaged


@dataclass
class Config:
    runs: str = "out/distill"   # folder that runs/distill.sh made
    out: str = ""               # where the results go (default: the same folder)

    def validate(self):
        return []


def read(folder):
    """What a finished run of extras/distill.py logged: {"curve": [tokens, accuracies], "final": {...}}; None
    while it is not finished."""
    if not os.path.exists(os.path.join(folder, "done.json")):
        return None
    records = read_jsonl(os.path.join(folder, "metrics.jsonl"))
    evals = [r for r in records if r["kind"] == "eval"]
    last = [r for r in records if r["kind"] == "train"][-LAST:]
    final = {name: float(np.mean([r[name] for r in last])) for name in ("kept", "ended", "length")}
    if "reverse_kl" in last[0] and os.path.basename(folder) != "sft":  # there it is of the teacher's answers
        final["reverse_kl"] = float(np.mean([r["reverse_kl"] for r in last]))
    final |= {name: evals[-1][name] for name in ("accuracy", "test_loss", "tokens", "seconds")}
    accuracies = [r["accuracy"] for r in evals]
    final |= {"start": accuracies[0], "mean_accuracy": float(np.mean(accuracies[1:]))}
    # By steps: the tokens at an evaluation differ a little from seed to seed, and from loss to loss.
    return {"steps": [r["step"] for r in evals], "tokens": [r["tokens"] for r in evals],
            "accuracies": accuracies, "final": final}


def teacher_accuracy(folder):
    """Without shots, as the students are asked; None where it was not measured."""
    found = [r for r in read_jsonl(os.path.join(folder, "summary.jsonl"))
             if r["shots"] == 0 and r["task"] == "demo"]
    return found[-1]["accuracy"] if found else None


def collect(runs):
    """{setting: {"teachers": {name: {seed: accuracy}}, "arms": {arm: {seed: run}}}}. Raises BadInput."""
    results = {}
    for setting in SETTINGS:
        arms, seeds = {}, set()
        for path in sorted(glob.glob(os.path.join(runs, setting, "seed*", "*"))):
            seed, arm = path.split(os.sep)[-2:]
            found = read(path) if arm in ARMS else None
            if found:
                arms.setdefault(arm, {})[seed] = found
                seeds.add(seed)
        teachers = {}
        for path in sorted(glob.glob(os.path.join(runs, "seed*", "teacher_*"))):
            seed, name = path.split(os.sep)[-2:]
            of_setting = os.path.join(path, "eval" if setting == "strong" else "pair")
            accuracy = teacher_accuracy(of_setting)
            if seed in seeds and accuracy is not None and (setting == "pair" or name == "teacher_both"):
                teachers.setdefault(name.removeprefix("teacher_"), {})[seed] = accuracy
        if arms:
            results[setting] = {"teachers": teachers, "arms": {a: arms[a] for a in ARMS if a in arms}}
    if not results:
        raise BadInput(f"{runs} has no strong/ or pair/ with a finished run: run runs/distill.sh first")
    return results


def table(results):
    """The settings in Markdown."""
    lines = []
    for setting, found in results.items():
        arms, plain = found["arms"], found["arms"].get("opd", {})
        lines += [f"On-policy distillation {SETTINGS[setting]}; mean over seeds (95% interval):", ""]
        of_seeds = {seed: r["final"]["start"] for of_seed in arms.values() for seed, r in of_seed.items()}
        start = interval(list(of_seeds.values()))
        rows = [["the student before", str(start["n"]), cell(start, "accuracy")] + [""] * 6]
        for name, of_seed in found["teachers"].items():
            v = interval(list(of_seed.values()))
            rows.append([f"the teacher ({name})", str(v["n"]), cell(v, "accuracy")] + [""] * 6)
        for arm, of_seed in arms.items():
            def over_seeds(measure):
                return interval([r["final"].get(measure) for r in of_seed.values()])
            less = paired_interval([(r["final"]["accuracy"], plain[seed]["final"]["accuracy"])
                                    for seed, r in of_seed.items() if seed in plain and arm != "opd"])
            rows.append([ARMS[arm][0], str(len(of_seed)), cell(over_seeds("accuracy"), "accuracy"),
                         cell(less, "accuracy", sign=True), cell(over_seeds("mean_accuracy"), "accuracy"),
                         cell(over_seeds("reverse_kl")), cell(over_seeds("test_loss")),
                         f"{over_seeds('tokens')['mean']:,.0f}", f"{over_seeds('seconds')['mean']:.0f}"])
        lines += table_lines(["loss", "seeds", "accuracy", "less plain", "mean along the run",
                              "reverse KL at the end", "test loss", "tokens generated", "seconds"], rows)
        lines.append("")
    return "\n".join(lines)


def draw(results, path):
    """Accuracy against generated tokens, a panel for each setting."""
    plt = pyplot()
    fig, axes = plt.subplots(1, len(results), figsize=(7.5 * len(results), 5.5), squeeze=False)
    for ax, (setting, found) in zip(axes[0], results.items()):
        for arm, of_seed in found["arms"].items():
            name, colour = ARMS[arm]
            curve = mean_curve([[r["steps"], r["accuracies"]] for r in of_seed.values()])
            tokens = mean_curve([[r["steps"], r["tokens"]] for r in of_seed.values()])["mean"]
            ax.plot(tokens / 1e3, 100 * curve["mean"], color=colour, label=name,
                    linewidth=2.5 if arm in ("fire", "opd") else 1.2)
        for name, of_seed in found["teachers"].items():
            ax.axhline(100 * np.mean(list(of_seed.values())), color="black", linestyle=":", linewidth=1)
            ax.annotate(f"teacher ({name})", (0, 100 * np.mean(list(of_seed.values())) + 0.5), fontsize=8)
        ax.set(title=SETTINGS[setting], xlabel="thousand tokens generated",
               ylabel="accuracy without shots (%)")
        ax.legend(fontsize=8)
    save_figure(fig, path)


def main(cfg):
    results = collect(cfg.runs)
    write_report(cfg.out or cfg.runs, results, table(results), {"accuracy.png": draw})


if __name__ == "__main__":
    run(main, Config, __doc__)
