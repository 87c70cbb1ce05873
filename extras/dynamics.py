"""
What happens to single tokens during training: the losses of held-out noisy text at every checkpoint of a run.

    python dynamics.py --runs out/paper/seed0 --data data/paper/held_out

RUNS is a seed's folder of runs/paper.sh: `ref` (the reference model) and the runs `clm` and `slm`, with weights kept
along the way (step_*.pt) and their accuracy. --data is another corpus than theirs. Writes RUNS/dynamics.json:

    categories  figures 3 and 10: tokens whose loss falls, rises, stays low or stays high during CLM, by the paper's rule
    losses      figure 6: loss of the tokens that SLM selects, and of the others, under SLM and under CLM
    accuracy    figure 7: accuracy against the loss on selected and on unselected tokens
    sets        figure 8: losses over training of the tokens that SLM selects at five of its checkpoints

plot_paper.py draws them.
"""
import glob
import json
import os
from dataclasses import dataclass

import numpy as np
import torch

from common import (BadInput, Progress, Ranks, file_hash, load_checkpoint, load_weights, read_json, read_jsonl, run,
                    write_json)
from data import Tokens, load_tokenizer
from kept import select
from model import GPT, GPTConfig
from score import score_rows

CATEGORIES = ("H->L", "L->H", "L->L", "H->H")  # high to low: learned; low to high: forgotten; low all along; high all along


@dataclass
class Config:
    runs: str = "out/paper/seed0"       # folder with ref, clm and slm
    data: str = "data/paper/held_out"   # corpus folder
    corpus: str = "noisy"               # which of its token files
    keep: float = 0.3                   # of the selections looked at
    max_rows: int = 0                   # only the first so many rows (0: all)
    device: str = "auto"                # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not 0 < self.keep < 1:
            yield f"keep must lie between 0 and 1, not {self.keep}"
        if self.max_rows < 0:
            yield f"max_rows must not be negative, but is {self.max_rows}"


def categories(losses):
    """The paper's four categories. losses: (n_checkpoints, n_tokens). Returns (n_tokens,), indices into CATEGORIES.

    A line l = a x + b is fitted to the losses of a token at checkpoints x = 0, 1, ..., n. If it falls by more than 0.2 over
    all of them (a n < -0.2), H->L; if it rises by more, L->H; else by the last loss: L->L up to the mean of all tokens'
    last losses, H->H above.
    """
    x = np.arange(len(losses)) - (len(losses) - 1) / 2           # centred: the slope is then x . l / x . x
    change = (x @ losses) / (x @ x) * (len(losses) - 1)
    return np.where(change < -0.2, 0, np.where(change > 0.2, 1, np.where(losses[-1] <= losses[-1].mean(), 2, 3)))


def top(scores, keep):
    """Mask of the top `keep` of the scores, (n,) bool. One ranking over the whole held-out text."""
    return select(torch.from_numpy(scores), max(1, round(keep * len(scores)))).numpy()


def load_model(path, tokenizer_sha256, device):
    """The model of a checkpoint, with dropout off. Raises BadInput when it was trained with another tokenizer."""
    ckpt = load_checkpoint(path, device)
    if ckpt["tokenizer_sha256"] != tokenizer_sha256:
        raise BadInput(f"{path} was trained with another tokenizer than that of the corpus: give one that fits in --data")
    model = GPT(GPTConfig(**ckpt["model_config"])).to(device).eval()
    load_weights(model, ckpt["model"], path)
    return model


def token_losses_of(path, tokens, rows, ranks, batch_rows=64):
    """Loss of every target of the rows under the checkpoint at path, (len(rows) * T,) float32."""
    model, losses = load_model(path, tokens.tokenizer_sha256, ranks.device), []
    for r in range(0, len(rows), batch_rows):
        x, y = map(ranks.to_device, tokens.rows(rows[r:r + batch_rows]))
        with ranks.autocast():
            losses.append(score_rows(model, x, y)[0].float().cpu().numpy().ravel())
    return np.concatenate(losses)


def checkpoints(folder):
    """[(step, path)] of the weights kept along a run, and {step: few-shot accuracy} where it was evaluated."""
    paths = sorted(glob.glob(os.path.join(folder, "step_*.pt")))
    if len(paths) < 3:
        raise BadInput(f"{folder} has {len(paths)} step_*.pt where a line needs at least 3: train it with --snapshot_every")
    steps = [int(os.path.basename(p)[5:-3]) for p in paths]
    summary = read_jsonl(os.path.join(folder, "eval", "summary.jsonl"))
    accuracy = {r["step"]: r["accuracy"] for r in summary if r.get("task") == "demo" and r["step"] in steps}
    return list(zip(steps, paths)), accuracy


def examples(tokens, rows, category, losses, enc, n=3, context=12):
    """Of each category the n tokens nearest to its mean curve, no two alike, with the text before them and their losses."""
    found = {}
    for c, name in enumerate(CATEGORIES):
        members = np.flatnonzero(category == c)
        if not members.size:
            continue
        distance = ((losses[:, members] - losses[:, members].mean(axis=1, keepdims=True)) ** 2).sum(axis=0)
        chosen = {}
        for i in members[np.argsort(distance, kind="stable")]:
            at = int(rows[i // tokens.T]) * tokens.T + int(i) % tokens.T + 1  # of the i-th target, in the flat file
            token = enc.decode([int(tokens.tokens[at])])
            before = enc.decode(tokens.tokens[max(0, at - context):at].tolist())
            chosen.setdefault(token, {"before": before, "token": token, "losses": losses[:, i].tolist()})
            if len(chosen) == n:
                break
        found[name] = list(chosen.values())
    return found


def main(cfg):
    out = os.path.join(cfg.runs, "dynamics.json")
    ranks, runs = Ranks(cfg.device), {}
    for arm in ("clm", "slm"):
        runs[arm] = checkpoints(os.path.join(cfg.runs, arm))
    if [s for s, _ in runs["clm"][0]] != [s for s, _ in runs["slm"][0]]:
        raise BadInput(f"clm and slm in {cfg.runs} keep weights at different steps: train them with the same --snapshot_every")
    ref_path = os.path.join(cfg.runs, "ref", "best.pt")
    T = load_checkpoint(ref_path)["model_config"]["block_size"]
    tokens = Tokens(cfg.data, cfg.corpus, T)
    made_from = {"corpus_sha256": tokens.sha256, "keep": cfg.keep, "max_rows": cfg.max_rows, "ckpt_sha256": [
        file_hash(path) for path in (ref_path, *(p for steps, _ in runs.values() for _, p in steps))],
        "accuracy": [accuracy for _, accuracy in runs.values()]}
    made_from = json.loads(json.dumps(made_from))  # as it will be read
    if os.path.exists(out) and read_json(out).get("made_from") == made_from:
        print(f"{out}: made before from the same weights and text, nothing to do")
        return
    rows = np.arange(min(tokens.n_rows, cfg.max_rows or tokens.n_rows))
    n_passes, done = 1 + sum(len(c) for c, _ in runs.values()), 1
    progress = Progress(cfg.runs, n_passes, "checkpoints")
    ref, losses = token_losses_of(ref_path, tokens, rows, ranks), {}
    for arm, (steps, _) in runs.items():
        curves = []
        for _, path in steps:
            curves.append(token_losses_of(path, tokens, rows, ranks))
            done += 1
            progress.show(done)
        losses[arm] = np.stack(curves)                            # (n_checkpoints, n_tokens)
    progress.close()
    clm, slm = losses["clm"], losses["slm"]
    steps = [s for s, _ in runs["clm"][0]]
    result = {"made_from": made_from, "n_tokens": int(ref.size), "keep": cfg.keep, "steps": steps}

    # Figures 3 and 10: categories of the CLM run, and what the tokens of each really are.
    category = categories(clm)
    of = {name: category == c for c, name in enumerate(CATEGORIES)}
    result["categories"] = {"share": {name: float(members.mean()) for name, members in of.items()},
                            "mean_loss": {name: clm[:, members].mean(axis=1).tolist() for name, members in of.items()
                                          if members.any()},
                            "examples": examples(tokens, rows, category, clm, load_tokenizer(cfg.data))}
    if tokens.labels is not None:
        labels = tokens.row_labels(rows).numpy().ravel()
        result["categories"]["share_by_label"] = {
            label: {name: float(members[labels == i].mean()) for name, members in of.items()}
            for i, label in enumerate(tokens.label_names) if (labels == i).any()}

    # Figure 6: at each checkpoint the tokens that SLM would select there, under both models. What a model selects by its
    # own loss looks worse under that model than under the other, so conclusions come from the next set.
    result["losses"] = {arm: {"selected": [], "unselected": []} for arm in losses}
    for s in range(len(steps)):
        selected = top(slm[s] - ref, cfg.keep)
        for arm in losses:
            result["losses"][arm]["selected"].append(float(losses[arm][s][selected].mean()))
            result["losses"][arm]["unselected"].append(float(losses[arm][s][~selected].mean()))

    # Figure 7: one set of tokens for all points, those that SLM selects before its first step: no arm has a part in it.
    selected = top(slm[0] - ref, cfg.keep)
    result["before"] = {arm: {"selected": losses[arm][:, selected].mean(axis=1).tolist(),
                              "unselected": losses[arm][:, ~selected].mean(axis=1).tolist()} for arm in losses}
    result["accuracy"] = [
        {"arm": arm, "step": step, "accuracy": runs[arm][1][step],
         **{kind: result["before"][arm][kind][s] for kind in ("selected", "unselected")}}
        for arm in losses for s, step in enumerate(steps) if step in runs[arm][1]]

    # Figure 8: the tokens selected at five checkpoints, over the whole run. The last set is chosen for a high last loss,
    # noise included; the same of CLM, by its own loss, has that too, and is what it is compared with.
    five = sorted({round(s) for s in np.linspace(0, len(steps) - 1, 5)})
    result["sets"] = {str(steps[s]): slm[:, top(slm[s] - ref, cfg.keep)].mean(axis=1).tolist() for s in five}
    result["last_set_of_clm"] = clm[:, top(clm[-1] - ref, cfg.keep)].mean(axis=1).tolist()
    write_json(out, result)
    print(f"{out}: {ref.size:,} tokens at {len(steps)} checkpoints of clm and slm")
    print("  CLM: " + "  ".join(f"{name} {share:.1%}" for name, share in result["categories"]["share"].items()))


if __name__ == "__main__":
    run(main, Config, __doc__)
