"""
Step 3: train on the tokens of highest excess loss (SLM; Lin et al. 2024, arXiv 2404.07965, whose equations
the numbers name), or as a control on those that other scores put first (controls/rescore.py).

    python train_slm.py --init_from out/base/ckpt.pt --keep 0.07
    python train_slm.py --init_from out/base/ckpt.pt --scores out/random_scores --rank_by ref --out out/random

The four steps are train_ref.py, score.py, train_slm.py, eval_math.py; `diff train_ref.py train_slm.py` is
the method. Several GPUs: torchrun --nproc_per_node 4 -- in the place of python.

The run folder OUT gets config.json, metrics.jsonl (a line per log and per evaluation), ckpt.pt (to resume
from), best.pt (lowest loss on held-out `val`) and, at the end, done.json.
"""
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from common import (GRAD_CLIP, Run, TrainConfig, compiled_and_parallel, initial_model, learning_rate,
                    selection_stats)
from data import Scores, Tokens, batch
from engine import fast_loss
from engine.checkpoints import hashes_of
from engine.cli import launch
from engine.ranks import Ranks
from model import token_loss


@dataclass
class Config(TrainConfig):
    scores: str = "out/scores"      # folder of the reference losses, written by score.py
    keep: float = 0.6               # fraction of the tokens that the loss counts
    rank_by: str = "excess"         # which come first: excess, the paper's; or, as controls, loss or ref
    train: str = "noisy"            # which of the corpus's token files to train on
    out: str = "out/slm"            # run folder

    def validate(self):
        if not 0 < self.keep <= 1 or round(self.keep * self.block_size) < 1:
            yield f"keep must lie in (0, 1], and be a token or more of a row, not {self.keep}"
        if self.rank_by not in RANK_BY:
            yield f"rank_by must be {', '.join(RANK_BY)}, not {self.rank_by!r}"
        yield from super().validate()

    def may_differ(self):
        return super().may_differ() - {"micro_rows"}  # what is ranked are the tokens of one micro-batch


def excess_loss(loss, ref_loss):
    """Equation 3: the model's loss less the reference model's, L_theta - L_ref, (B, T)."""
    return loss - ref_loss


# What is ranked, (B, T), highest first. In each a token of unknown reference loss, inf, comes last.
RANK_BY = {"excess": excess_loss,
           "loss": lambda loss, ref_loss: loss.masked_fill(ref_loss.isinf(), -torch.inf),
           "ref": lambda loss, ref_loss: -ref_loss}


def top_k(excess, k):
    """Equation 5: the k tokens of highest excess in the micro-batch, (B, T) bool; of equals, the earlier."""
    ranked = excess.flatten().argsort(descending=True, stable=True)    # (B*T,) token numbers, best first
    selected = torch.zeros_like(ranked, dtype=torch.bool)
    selected[ranked[:k]] = True
    return selected.view(excess.shape)                                 # (B, T)


def selected_loss(hidden, weight, targets, ref_loss, k, rank_by=excess_loss):
    """Equations 3 to 5. Returns (the sum over the selected tokens, with gradient; all losses; selection)."""
    loss = token_loss(F.linear(hidden, weight), targets)               # logits (B, T, V), losses (B, T)
    selected = top_k(rank_by(loss.detach(), ref_loss), k)              # no gradient through the choice
    return (loss * selected).sum(), loss.detach(), selected


def main(cfg):
    ranks = Ranks(cfg.device)
    batch_rows = cfg.batch_tokens // cfg.block_size
    cfg.micro_rows = cfg.micro_rows or batch_rows // ranks.world           # rows of a micro-batch
    mine = range(ranks.rank, batch_rows // cfg.micro_rows, ranks.world)    # this process's micro-batches
    train, val, test = (Tokens(cfg.data, name, cfg.block_size) for name in (cfg.train, "val", "test"))
    scores = Scores(cfg.scores, train)
    # Model, optimizer and run folder: fresh, from another run's weights, or where this run stopped.
    made_from = hashes_of(cfg.init_from, corpus=train, val=val, test=test) | {"scores_sha256": scores.sha256}
    run = Run(cfg, ranks, initial_model(cfg, train, val, test), (val, test), made_from)
    raw_model, optimizer = run.raw_model, run.optimizer
    model = compiled_and_parallel(raw_model, cfg, ranks)
    loss_of, rank_by = fast_loss.selected_loss if cfg.fast else selected_loss, RANK_BY[cfg.rank_by]

    for step in run.steps():  # in between: evaluate, save, stop
        rows = batch(train.n_rows, batch_rows, cfg.seed, step).reshape(-1, cfg.micro_rows)  # (n_micro, B)
        ref_loss = [scores.rows(r) for r in rows]                          # L_ref (B, T); inf: never selected
        k = [round(cfg.keep * int(values.isfinite().sum())) for values in ref_loss]   # of each micro-batch
        n_selected = max(1, sum(k))  # one mean over the step's tokens, no mean of means
        loss = torch.zeros((), device=ranks.device)
        for i in mine:
            x, y = map(ranks.to_device, train.rows(rows[i]))               # (B, T) each
            with ranks.sync_gradients(model, now=i == mine[-1]):
                with ranks.autocast():
                    loss_sum, losses, selected = loss_of(model(x), raw_model.output_weight, y,
                                                         ranks.to_device(ref_loss[i]), k[i], rank_by)
                micro_loss = loss_sum / n_selected
                (micro_loss * ranks.world).backward()  # the processes average gradients: a sum is wanted
            loss += micro_loss.detach()
        torch.nn.utils.clip_grad_norm_(raw_model.parameters(), GRAD_CLIP)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, cfg)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % cfg.log_every == 0:
            run.log(step, loss, **selection_stats(losses, selected, train, rows[i]))


if __name__ == "__main__":
    launch(main, Config, __doc__)
