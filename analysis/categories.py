"""
What happens to single tokens during training: figures 3, 6 and 8 of the paper, for your own runs.

    python prepare.py --out data/held_out --seed 9000 --noisy_tokens 100000
    python -m analysis.categories --keep 0.07 --runs out/controls/seed1? --data data/held_out

RUNS are folders, one for each seed, with the runs `clm` and `slm` (weights saved along the way by
--snapshot_every) and the reference model `ref`. --data is noisy text that none of them has read. From the
loss of each of its tokens at each of these checkpoints, OUT/results.json gets, by seed and in mean:

    categories  figure 3: whose loss falls, rises, stays low or stays high during CLM, and their true labels
    losses      figure 6: the loss of the tokens that SLM selects at each checkpoint, and of the others
    sets        figure 8: the loss, all along, of the tokens that it selects at each of five checkpoints
"""
import glob
import os
from dataclasses import dataclass, field

import numpy as np
import torch

from analysis.report import millions, pyplot, save_figure, table_lines, write_report
from data import Tokens
from engine import fast_loss
from engine.checkpoints import load_model
from engine.cli import BadInput, Progress, launch
from engine.files import read_json, source_revision
from engine.ranks import Ranks

# High to low: learned; low to high: forgotten; low all along; high all along.
CATEGORIES = ("H->L", "L->H", "L->L", "H->H")


@dataclass
class Config:
    runs: list[str] = field(default_factory=lambda: ["out/controls/seed10"])  # folders with ref, clm and slm
    data: str = "data/held_out"     # corpus folder, whose noisy side is read
    keep: float = 0.6               # share of the tokens that is selected
    max_rows: int = 512             # of the text
    out: str = "out/categories"     # folder of the results
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not 0 < self.keep < 1:
            yield f"keep must lie between 0 and 1, not {self.keep}"
        if self.max_rows < 1:
            yield f"max_rows must be at least 1, not {self.max_rows}"


def read_steps(run):
    """(steps after which a run saved its weights, tokens of a step, length of a row). Raises BadInput."""
    steps = sorted(int(name[5:-3]) for name in glob.glob("step_*.pt", root_dir=run))  # of step_000123.pt
    steps = [step for step in steps if step > 0]  # the weights before the first would outweigh all else
    if len(steps) < 3:
        raise BadInput(f"{run} has {len(steps)} step_*.pt after step 0, not 3: train with --snapshot_every")
    options = read_json(os.path.join(run, "config.json"))["config"]
    return steps, options["batch_tokens"], options["block_size"]


@torch.no_grad()
def losses_under(path, tokens, rows, ranks, batch_rows=64):
    """Loss of every target of the rows under a checkpoint, (len(rows) * T,)."""
    model, _ = load_model(path, tokens.tokenizer_sha256, f"{tokens.path}.bin", ranks.device, tokens)
    losses = []
    for first in range(0, len(rows), batch_rows):
        x, y = map(ranks.to_device, tokens.rows(rows[first:first + batch_rows]))      # (B, T) each
        with ranks.autocast():
            losses.append(fast_loss.token_losses(model(x), model.output_weight, y))   # (B, T)
    return torch.cat(losses).flatten().double().cpu().numpy()


def categories(losses):
    """The paper's four categories, by name, (n_tokens,), from losses (n_checkpoints, n_tokens): by the change
    along a line fitted to a token's losses, or else by whether its last loss is up to the mean of all."""
    n = len(losses) - 1
    x = np.arange(n + 1) - n / 2                                 # centred: the slope is then x . l / x . x
    change = n * (x @ losses) / (x @ x)                          # (n_tokens,)
    category = np.where(losses[-1] <= losses[-1].mean(), "L->L", "H->H")
    category[change < -0.2] = "H->L"
    category[change > 0.2] = "L->H"
    return category


def top(scores, keep):
    """Mask of the highest `keep` of all scores, (n,) bool; among equals the earlier are taken."""
    mask = np.zeros(len(scores), dtype=bool)
    mask[np.argsort(-scores, kind="stable")[:max(1, round(keep * len(scores)))]] = True
    return mask


# clm, slm: the losses under these arms, (n_checkpoints, n_tokens). ref_loss: (n_tokens,).
def category_shares(clm, labels, label_names):
    """Figure 3: of each category the share, mean losses, shares of the true labels (n_rows, T) or None."""
    category = categories(clm)
    found = {"share": {}, "mean_loss": {}, "labels": {}}
    for name in CATEGORIES:
        members = category == name                                                    # (n_tokens,) bool
        found["share"][name] = float(members.mean())
        if members.any():
            found["mean_loss"][name] = clm[:, members].mean(axis=1).tolist()
            if labels is not None:
                of_members = labels.numpy().ravel()[members]
                found["labels"][name] = {label: float((of_members == number).mean())
                                         for number, label in enumerate(label_names)}
    return found


def selected_losses(clm, slm, ref_loss, keep):
    """Figure 6: at each checkpoint the mean loss of what SLM would select there, and of the rest, under both
    arms. Beware: what a model's own loss chooses looks worse under it than under the other."""
    selected = np.stack([top(excess, keep) for excess in slm - ref_loss])   # (n_checkpoints, n_tokens) bool
    found = {}
    for arm, losses in (("clm", clm), ("slm", slm)):
        found[arm] = {"selected": losses.mean(axis=1, where=selected).tolist(),
                      "unselected": losses.mean(axis=1, where=~selected).tolist()}
    return found


def set_losses(clm, slm, ref_loss, keep):
    """Figure 8: for five of SLM's checkpoints, {its number: the loss under SLM, all along, of the tokens that
    it selects}. The control is CLM's, of what its last checkpoint would select: by choice high there."""
    curves = {}
    for at in sorted({round(at) for at in np.linspace(0, len(slm) - 1, 5)}):
        curves[str(at)] = slm[:, top(slm[at] - ref_loss, keep)].mean(axis=1).tolist()
    return {"slm": curves, "clm": clm[:, top(clm[-1] - ref_loss, keep)].mean(axis=1).tolist()}


def mean_of(values):
    """The mean of equally built dicts, lists or numbers; of dicts only what all of them have."""
    if isinstance(values[0], dict):
        return {key: mean_of([v[key] for v in values]) for key in values[0] if all(key in v for v in values)}
    return np.mean(values, axis=0).tolist()


def table(results):
    """The categories, in Markdown: means over the seeds."""
    found, rows = results["mean"]["categories"], []
    for name, share in found["share"].items():
        labels = [f"{label} {part:.0%}" for label, part in found["labels"].get(name, {}).items()]
        rows.append([name, f"{share:.1%}", ", ".join(labels)])
    return "\n".join(table_lines(["during CLM", "share of the tokens", "their true labels"], rows)) + "\n"


def figure(results, path):
    """A panel for each of the paper's figures; curves are means over the seeds."""
    plt, mean, x = pyplot(), results["mean"], millions(results["tokens"])
    fig, axes = plt.subplots(1, 3, figsize=(16, 6))
    axes[0].set_title("figure 3: categories of tokens during CLM")
    for name, curve in mean["categories"]["mean_loss"].items():
        share = mean["categories"]["share"][name]
        axes[0].plot(x, curve, marker=".", label=f"{name}: {share:.0%} of the tokens")
    axes[1].set_title("figure 6: what SLM selects at each checkpoint")
    for arm, colour in (("clm", "tab:gray"), ("slm", "tab:blue")):
        for kind, style in (("selected", "-"), ("unselected", "--")):
            label = f"{kind} by SLM, under {arm.upper()}"
            axes[1].plot(x, mean["losses"][arm][kind], style, color=colour, label=label)
    axes[2].set_title("figure 8: the same tokens all along")
    for at, curve in mean["sets"]["slm"].items():
        axes[2].plot(x, curve, marker="o", markevery=[int(at)], label=f"by SLM at {x[int(at)]:.2f}M")
    axes[2].plot(x, mean["sets"]["clm"], "--", color="tab:gray", label="by CLM at the end, under CLM")
    for ax in axes:
        ax.set(xlabel="million tokens", ylabel="loss")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncol=2, fontsize=9)
    save_figure(fig, path, f"Tokens of held-out noisy text, seeds: {len(results['seeds'])}")


def main(cfg):
    ranks = Ranks(cfg.device)
    runs = [os.path.join(folder, arm) for folder in cfg.runs for arm in ("clm", "slm")]
    steps, batch_tokens, T = read_steps(runs[0])
    for run in runs:
        if read_steps(run) != (steps, batch_tokens, T):
            raise BadInput(f"{run} and {runs[0]} have weights of other steps, or rows of another length: "
                           f"train both with the same --batch_tokens, --block_size and --snapshot_every")
    tokens = Tokens(cfg.data, "noisy", T)
    rows = np.arange(min(tokens.n_rows, cfg.max_rows))
    snapshots, seeds = [f"step_{step:06}.pt" for step in steps], []
    progress = Progress("seeds", len(cfg.runs), "seeds")
    for folder in cfg.runs:
        progress.show(len(seeds))
        ref_loss = losses_under(os.path.join(folder, "ref", "ckpt.pt"), tokens, rows, ranks)
        clm, slm = (np.stack([losses_under(os.path.join(folder, arm, name), tokens, rows, ranks)
                              for name in snapshots]) for arm in ("clm", "slm"))
        seeds.append({"categories": category_shares(clm, tokens.row_labels(rows), tokens.label_names),
                      "losses": selected_losses(clm, slm, ref_loss, cfg.keep),
                      "sets": set_losses(clm, slm, ref_loss, cfg.keep)})
    progress.close()
    results = {"source": source_revision(), "corpus_sha256": tokens.sha256, "n_tokens": len(rows) * T,
               "keep": cfg.keep, "runs": cfg.runs, "tokens": [step * batch_tokens for step in steps],
               "seeds": seeds, "mean": mean_of(seeds)}
    write_report(cfg.out, results, table(results), {"categories.png": figure})


if __name__ == "__main__":
    launch(main, Config, __doc__)
