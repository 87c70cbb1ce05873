"""
Step 1: train on every token, which is causal language modeling (CLM): a base, the reference, the baseline.

    python train_ref.py --train web --out out/base --train_tokens 3e6                # the base
    python train_ref.py --init_from out/base/ckpt.pt --train_tokens 2e6              # the reference
    python train_ref.py --init_from out/base/ckpt.pt --train noisy --out out/clm     # the baseline

The four steps are train_ref.py, score.py, train_slm.py, eval_math.py; `diff train_ref.py train_slm.py` is
the method. Several GPUs: torchrun --nproc_per_node 4 -- in the place of python.

The run folder OUT gets config.json, metrics.jsonl (a line per log and per evaluation), ckpt.pt (to resume
from), best.pt (lowest loss on held-out `val`) and, at the end, done.json.
"""
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from common import GRAD_CLIP, Run, TrainConfig, compiled_and_parallel, initial_model, learning_rate
from data import Tokens, batch
from engine import fast_loss
from engine.checkpoints import hashes_of
from engine.cli import launch
from engine.ranks import Ranks
from model import token_loss


@dataclass
class Config(TrainConfig):
    train: str = "curated"          # which of the corpus's token files to train on
    out: str = "out/ref"            # run folder


def all_tokens_loss(hidden, weight, targets):
    """The sum of -log P(x_i | x_<i) over all tokens. hidden: (B, T, C), weight: (V, C), targets: (B, T)."""
    loss = token_loss(F.linear(hidden, weight), targets)               # logits (B, T, V), losses (B, T)
    return loss.sum()


def main(cfg):
    ranks = Ranks(cfg.device)
    batch_rows = cfg.batch_tokens // cfg.block_size
    cfg.micro_rows = cfg.micro_rows or batch_rows // ranks.world           # rows of a micro-batch
    mine = range(ranks.rank, batch_rows // cfg.micro_rows, ranks.world)    # this process's micro-batches
    train, val, test = (Tokens(cfg.data, name, cfg.block_size) for name in (cfg.train, "val", "test"))
    # Model, optimizer and run folder: fresh, from another run's weights, or where this run stopped.
    made_from = hashes_of(cfg.init_from, corpus=train, val=val, test=test)
    run = Run(cfg, ranks, initial_model(cfg, train, val, test), (val, test), made_from)
    raw_model, optimizer = run.raw_model, run.optimizer
    model = compiled_and_parallel(raw_model, cfg, ranks)
    loss_of = fast_loss.all_tokens_loss if cfg.fast else all_tokens_loss

    for step in run.steps():  # in between: evaluate, save, stop
        rows = batch(train.n_rows, batch_rows, cfg.seed, step).reshape(-1, cfg.micro_rows)  # (n_micro, B)
        n_selected = cfg.batch_tokens  # all: one mean over the step's tokens, no mean of means
        loss = torch.zeros((), device=ranks.device)
        for i in mine:
            x, y = map(ranks.to_device, train.rows(rows[i]))               # (B, T) each
            with ranks.sync_gradients(model, now=i == mine[-1]):
                with ranks.autocast():
                    loss_sum = loss_of(model(x), raw_model.output_weight, y)
                micro_loss = loss_sum / n_selected
                (micro_loss * ranks.world).backward()  # the processes average gradients: a sum is wanted
            loss += micro_loss.detach()
        torch.nn.utils.clip_grad_norm_(raw_model.parameters(), GRAD_CLIP)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, cfg)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % cfg.log_every == 0:
            run.log(step, loss)


if __name__ == "__main__":
    launch(main, Config, __doc__)
