"""
What happens to single tokens during training: the losses of held-out noisy text at every checkpoint of a run.

    python -m extras.dynamics --runs out/paper/seed0 --data data/paper/held_out

RUNS is a seed's folder of runs/paper.sh: `base` and `ref` (the reference model, before and after it learned
from the curated text), and the runs `clm` and `slm`, with weights saved along the way (step_*.pt) and their
accuracy. --data is another corpus than theirs. The weights before the first step are left out: the runs start
from a model that has never read such text, and in all that is measured here the first tenth of the training
would outweigh the rest. Writes RUNS/dynamics.json:

    categories  figures 3 and 10: tokens whose loss falls, rises, stays low or stays high during CLM, and how
                many of them fluctuate
    losses      figure 6: loss of the tokens that SLM selects, and of the others, under SLM and under CLM
    fixed       figure 7: the same for one set of tokens, those of highest excess under the base
    accuracy    figure 7: accuracy without shots against the loss on these and on the other tokens
    sets        figure 8: losses over training of the tokens that SLM selects at five of its checkpoints

paper/figures.py draws them.
"""
import glob
import os
from dataclasses import dataclass

import numpy as np
import torch

from common import load_checkpoint, load_model
from corpora.tokenizers import load_tokenizer
from data import Tokens
from engine import fast_loss
from engine.cli import BadInput, Progress, run
from engine.files import file_hash, read_json, read_jsonl, write_json
from engine.ranks import Ranks

# High to low: learned; low to high: forgotten; low all along; high all along.
CATEGORIES = ("H->L", "L->H", "L->L", "H->H")
STEADY = ("L->L", "H->H")
METHOD = 2         # goes up when what is measured changes: an older dynamics.json is then made anew
FLUCTUATES = 0.2   # nats from its line, root mean square: as much as `categories` calls a change


@dataclass
class Config:
    runs: str = "out/paper/seed0"       # folder with base, ref, clm and slm
    data: str = "data/paper/held_out"   # corpus folder
    corpus: str = "noisy"               # which of its token files
    keep: float = 0.3                   # share of the tokens in the selections that are looked at
    max_rows: int = 0                   # only the first so many rows (0: all)
    device: str = "auto"                # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not 0 < self.keep < 1:
            yield f"keep must lie between 0 and 1, not {self.keep}"
        if self.max_rows < 0:
            yield f"max_rows must not be negative, but is {self.max_rows}"


def slopes(losses):
    """The line of least squares through the losses of each token: the checkpoints x, counted from their
    middle, (n_checkpoints,), and its slope in nats a checkpoint, (n_tokens,). losses: (n_checkpoints,
    n_tokens).
    """
    x = np.arange(len(losses)) - (len(losses) - 1) / 2           # centred: the slope is then x . l / x . x
    return x, (x @ losses) / (x @ x)


def categories(losses):
    """The paper's four categories. losses: (n_checkpoints, n_tokens). Returns (n_tokens,), indices into
    CATEGORIES.

    A line l = a x + b is fitted to the losses of a token at checkpoints x = 0, 1, ..., n. If it falls by
    more than 0.2 over all of them (a n < -0.2), H->L; if it rises by more, L->H; else by the last loss:
    L->L up to the mean of all tokens' last losses, H->H above.
    """
    _, slope = slopes(losses)
    change = slope * (len(losses) - 1)                           # (n_tokens,)
    low_at_last = losses[-1] <= losses[-1].mean()
    category = np.where(low_at_last, CATEGORIES.index("L->L"), CATEGORIES.index("H->H"))
    category[change < -0.2] = CATEGORIES.index("H->L")
    category[change > 0.2] = CATEGORIES.index("L->H")
    return category


def fluctuation(losses):
    """How far the losses of each token lie from its line, root mean square over the checkpoints, in nats.

    losses: (n_checkpoints, n_tokens). Returns (n_tokens,). The line is the one of `categories`. The paper
    shows tokens that fluctuate and gives no measure of it; this is ours.
    """
    x, slope = slopes(losses)
    from_line = losses - losses.mean(axis=0) - x[:, None] * slope      # (n_checkpoints, n_tokens)
    return np.sqrt((from_line ** 2).mean(axis=0))


def top(scores, keep):
    """Mask of the top `keep` of the scores, (n,) bool, among equals the earlier: one ranking over the whole
    text."""
    mask = np.zeros(len(scores), dtype=bool)
    mask[np.argsort(-scores, kind="stable")[:max(1, round(keep * len(scores)))]] = True
    return mask


@dataclass
class Run:
    """A training run whose weights were saved along the way."""
    steps: list         # of the checkpoints, in order
    paths: list         # of the checkpoints
    accuracy: dict      # {step: accuracy without shots} where it was evaluated


def read_snapshots(folder):
    """The Run in a folder. Raises BadInput where it has too few checkpoints to fit a line to."""
    by_step = {int(os.path.basename(path)[len("step_"):-len(".pt")]): path
               for path in glob.glob(os.path.join(folder, "step_*.pt"))}
    steps = sorted(step for step in by_step if step > 0)
    if len(steps) < 3:
        raise BadInput(f"{folder} has {len(steps)} step_*.pt after step 0 where a line needs at least 3: "
                       f"train it with --snapshot_every")
    summary = read_jsonl(os.path.join(folder, "eval0", "summary.jsonl"))
    accuracy = {r["step"]: r["accuracy"] for r in summary if r.get("task") == "demo" and r["step"] in steps}
    return Run(steps, [by_step[step] for step in steps], accuracy)


@torch.no_grad()
def losses_at(path, tokens, rows, ranks, batch_rows=64):
    """Loss of every target of the rows under the checkpoint at path, (len(rows) * T,) float32."""
    model, _ = load_model(path, tokens.tokenizer_sha256, f"{tokens.path}.bin", ranks.device, tokens)
    losses = []
    for first in range(0, len(rows), batch_rows):
        x, y = map(ranks.to_device, tokens.rows(rows[first:first + batch_rows]))      # (B, T) each
        with ranks.autocast():
            loss = fast_loss.token_losses(model(x), model.output_weight, y)           # (B, T)
        losses.append(loss.float().cpu().numpy().ravel())
    return np.concatenate(losses)


def examples(tokens, rows, members, losses, enc, n=3):
    """The first n of some tokens, no two alike, and their losses.

    members: numbers of tokens, in the order in which they are wanted. losses: (n_checkpoints, n_tokens).
    """
    chosen = {}
    for i in members:
        row, t = divmod(int(i), tokens.T)
        at = int(rows[row]) * tokens.T + t + 1                       # of this target in the flat file
        token = enc.decode([int(tokens.tokens[at])])
        chosen.setdefault(token, {"token": token, "losses": losses[:, i].tolist()})
        if len(chosen) == n:
            break
    return list(chosen.values())


def nearest_to_mean(members, losses):
    """These tokens, those first whose losses lie nearest to their mean curve, (n_members,)."""
    from_mean = losses[:, members] - losses[:, members].mean(axis=1, keepdims=True)
    return members[np.argsort((from_mean ** 2).sum(axis=0), kind="stable")]


def fluctuating(members, losses):
    """The most fluctuating of these tokens first, (n_members,), but for the highest twentieth: a figure is to
    show what often happens."""
    most_first = members[np.argsort(-fluctuation(losses[:, members]), kind="stable")]
    return most_first[len(members) // 20:]


# ----------------------------------------------------------------------------------------------- the figures
# In all of them losses is {arm: (n_checkpoints, n_tokens)} and ref_loss (n_tokens,).

def category_figures(clm, tokens, rows, enc):
    """Figures 3 and 10: the categories of the CLM run, which of their tokens fluctuate, and what they really
    are. clm: its losses."""
    category, moves = categories(clm), fluctuation(clm) > FLUCTUATES
    members_of = {name: category == number for number, name in enumerate(CATEGORIES)}  # (n_tokens,) bool each
    there = {name: members for name, members in members_of.items() if members.any()}
    result = {
        "share": {name: float(members.mean()) for name, members in members_of.items()},
        "fluctuating": {name: float(moves[members].mean()) for name, members in there.items()},
        "mean_loss": {name: clm[:, members].mean(axis=1).tolist() for name, members in there.items()},
        "examples": {},
    }
    for name, members in there.items():
        order = fluctuating if name in STEADY else nearest_to_mean
        result["examples"][name] = examples(tokens, rows, order(np.flatnonzero(members), clm), clm, enc)
    if tokens.labels is not None:
        labels = tokens.row_labels(rows).numpy().ravel()
        result["share_by_label"] = {}
        for number, label in enumerate(tokens.label_names):
            of_label = labels == number                                                # (n_tokens,) bool
            if of_label.any():
                result["share_by_label"][label] = {
                    name: float(members[of_label].mean()) for name, members in members_of.items()}
    return result


def loss_figure(losses, ref_loss, keep):
    """Figure 6: at each checkpoint the tokens that SLM would select there, and the others, under both models.

    What a model selects by its own loss looks worse under that model than under the other, so conclusions
    come from the set of the next figure.
    """
    curves = {arm: {"selected": [], "unselected": []} for arm in losses}
    for checkpoint, slm in enumerate(losses["slm"]):
        selected = top(slm - ref_loss, keep)
        for arm in losses:
            curves[arm]["selected"].append(float(losses[arm][checkpoint][selected].mean()))
            curves[arm]["unselected"].append(float(losses[arm][checkpoint][~selected].mean()))
    return curves


def fixed_figure(losses, base_loss, ref_loss, keep):
    """Figure 7: one set of tokens for all checkpoints, those of highest excess under the base: it has read
    the noisy text, and no arm has a part in the choice."""
    selected = top(base_loss - ref_loss, keep)
    return {arm: {"selected": of_arm[:, selected].mean(axis=1).tolist(),
                  "unselected": of_arm[:, ~selected].mean(axis=1).tolist()} for arm, of_arm in losses.items()}


def accuracy_points(runs, fixed):
    """Figure 7: a point for each checkpoint that was evaluated: accuracy, and loss on selected and
    unselected tokens."""
    points = []
    for arm, r in runs.items():
        for checkpoint, step in enumerate(r.steps):
            if step in r.accuracy:
                points.append({"arm": arm, "step": step, "accuracy": r.accuracy[step],
                               "selected": fixed[arm]["selected"][checkpoint],
                               "unselected": fixed[arm]["unselected"][checkpoint]})
    return points


def set_figure(losses, ref_loss, keep, steps):
    """Figure 8: ({step: curve}, curve). First, for five of SLM's checkpoints, the losses under SLM, over the
    whole run, of the tokens that it selects there. Second the control: the losses under CLM of the tokens
    that CLM's last checkpoint would select. A set chosen at the end has a high loss there by choice, noise
    included, in both.
    """
    slm, clm = losses["slm"], losses["clm"]
    five = sorted({round(at) for at in np.linspace(0, len(steps) - 1, 5)})
    sets = {str(steps[at]): slm[:, top(slm[at] - ref_loss, keep)].mean(axis=1).tolist() for at in five}
    return sets, clm[:, top(clm[-1] - ref_loss, keep)].mean(axis=1).tolist()


def main(cfg):
    out, ranks = os.path.join(cfg.runs, "dynamics.json"), Ranks(cfg.device)
    runs = {arm: read_snapshots(os.path.join(cfg.runs, arm)) for arm in ("clm", "slm")}
    steps = runs["slm"].steps
    if runs["clm"].steps != steps:
        raise BadInput(f"clm and slm in {cfg.runs} have weights of different steps: train them with the same "
                       f"--snapshot_every")
    base_path, ref_path = os.path.join(cfg.runs, "base", "ckpt.pt"), os.path.join(cfg.runs, "ref", "best.pt")
    load_checkpoint(base_path)  # refuse one that is missing or broken before anything is measured
    tokens = Tokens(cfg.data, cfg.corpus, load_checkpoint(ref_path)["model_config"]["block_size"])
    paths = [base_path, ref_path, *runs["clm"].paths, *runs["slm"].paths]
    made_from = {"method": METHOD, "corpus_sha256": tokens.sha256, "keep": cfg.keep, "max_rows": cfg.max_rows,
                 "ckpt_sha256": [file_hash(path) for path in paths],
                 "accuracy": {arm: sorted(map(list, r.accuracy.items())) for arm, r in runs.items()}}
    if os.path.exists(out) and read_json(out).get("made_from") == made_from:
        print(f"{out}: made before from the same weights and text, nothing to do")
        return

    rows = np.arange(min(tokens.n_rows, cfg.max_rows or tokens.n_rows))
    progress, by_path = Progress(cfg.runs, len(paths), "checkpoints"), {}
    for path in paths:
        by_path[path] = losses_at(path, tokens, rows, ranks)
        progress.show(len(by_path))
    progress.close()
    ref_loss = by_path[ref_path]                                                      # (n_tokens,)
    losses = {arm: np.stack([by_path[path] for path in r.paths]) for arm, r in runs.items()}

    fixed = fixed_figure(losses, by_path[base_path], ref_loss, cfg.keep)
    sets, last_set_of_clm = set_figure(losses, ref_loss, cfg.keep, steps)
    result = {"made_from": made_from, "n_tokens": int(ref_loss.size), "keep": cfg.keep, "steps": steps,
              "categories": category_figures(losses["clm"], tokens, rows, load_tokenizer(cfg.data)),
              "losses": loss_figure(losses, ref_loss, cfg.keep), "fixed": fixed,
              "accuracy": accuracy_points(runs, fixed), "sets": sets, "last_set_of_clm": last_set_of_clm}
    write_json(out, result)
    print(f"{out}: {ref_loss.size:,} tokens at {len(steps)} checkpoints of clm and slm")
    shares = result["categories"]["share"]
    print("  CLM: " + "  ".join(f"{name} {share:.1%}" for name, share in shares.items()))


if __name__ == "__main__":
    run(main, Config, __doc__)
