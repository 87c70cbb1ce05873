"""
Step 3: train on the tokens of highest excess loss (SLM), or on all, with --keep 1.0 (CLM).

    python train_slm.py --scores out/scores --keep 0.6 --out out/slm --init_from out/start/ckpt.pt --lr 5e-3
    python train_slm.py --keep 1.0 --out out/clm --init_from out/start/ckpt.pt --lr 5e-3

The four steps are train_ref.py, score.py, train_slm.py, eval_math.py; `diff train_ref.py train_slm.py` is
the method. Several GPUs: torchrun --nproc_per_node 4 -- in the place of python.

The run folder OUT gets config.json, metrics.jsonl (a line per log and per evaluation), ckpt.pt (to resume
from), best.pt (lowest loss on held-out `val`) and, at the end, done.json.
"""
import os
import time
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from common import (RunFolder, TrainConfig, adamw, compiled_and_parallel, held_out_loss, initial_model,
                    learning_rate, seed_dropout)
from corpora.vocabulary import must_have_rows
from data import Tokens, batch, hashes_of
from engine import fast_loss
from engine.cli import Progress, StopSignal, run
from engine.ranks import Ranks, load_optimizer
from extras import variants
from extras.pretrained import hash_of_start
from model import token_loss


@dataclass
class Config(variants.Options, TrainConfig):
    scores: str = "out/scores"      # folder of the reference losses, written by score.py
    keep: float = 0.6               # fraction of the tokens that the loss counts; 1.0 is CLM
    train: str = "noisy"            # which of the corpus's token files to train on
    out: str = "out/slm"            # run folder


def excess_loss(loss, ref_loss):
    """Equation 3: the model's loss less the reference model's, L_theta - L_ref, (B, T)."""
    return loss - ref_loss


def top_k(excess, k):
    """Equation 4: the k tokens of highest excess in the micro-batch, (B, T) bool; of equals, the earlier."""
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
    T, batch_rows = cfg.block_size, cfg.batch_tokens // cfg.block_size
    cfg.micro_rows = cfg.micro_rows or batch_rows // ranks.world       # rows of a micro-batch
    n_micro = batch_rows // ranks.world // cfg.micro_rows              # micro-batches of each process
    mine = range(ranks.rank * n_micro, (ranks.rank + 1) * n_micro)     # which of the step's this one runs
    train, val, test = (Tokens(cfg.data, name, T) for name in (cfg.train, "val", "test"))

    # The model: fresh, from another run's weights, or where this run stopped.
    raw_model, checkpoint = initial_model(cfg, train)
    must_have_rows(raw_model, cfg.init_from, train, val, test)
    raw_model = ranks.shard(raw_model) if cfg.fsdp else raw_model.to(ranks.device)
    loss_of = fast_loss.selected_loss if cfg.fast else selected_loss
    # Plain SLM: reference(rows, step) is Scores(cfg.scores, train).rows(rows), rank_by is excess_loss, and
    # keep_at(step) is cfg.keep. Options put variants in their place (not needed to read on).
    reference, rank_by, loss_of, keep_at = variants.choose(cfg, train, raw_model, excess_loss, loss_of)
    made_from = {**hashes_of(train, val, test), **hash_of_start(cfg.init_from, not checkpoint)}
    folder = RunFolder(cfg, made_from | reference.made_from, ranks)
    if folder.finished:
        return
    optimizer = adamw(raw_model, cfg, ranks.device)
    step, seconds, best, n_worse = 0, 0.0, float("inf"), 0
    if checkpoint:
        load_optimizer(optimizer, checkpoint["optimizer"])
        step, seconds, best, n_worse = (checkpoint[name] for name in ("step", "seconds", "best", "n_worse"))
        del checkpoint
    elif ranks.main:
        print(f"{cfg.out}: {sum(p.numel() for p in raw_model.parameters()):,} parameters")
    model = compiled_and_parallel(raw_model, cfg, ranks)

    def save_to_resume():
        folder.must_be_finite(val_loss, "val loss", step)  # even finite weights can be useless
        folder.save("ckpt.pt", raw_model, train, step, optimizer=optimizer, seconds=seconds, best=best,
                    n_worse=n_worse)

    folder.open_log(step)
    first_step = step
    progress = Progress(os.path.basename(cfg.out), cfg.steps, "steps", step)
    stop, record = StopSignal(), None
    while True:
        # One turn more than there are steps: the last weights are evaluated and saved like all others.
        last, stopping = step == cfg.steps, ranks.any(stop.received)
        evaluating = last or step % cfg.eval_every == 0
        saving = stopping or last or (step % cfg.save_every == 0 and step > first_step)
        if evaluating or saving:
            seconds += ranks.synchronize()  # the time it waits for a GPU
            val_loss, _ = held_out_loss(raw_model, val, ranks, cfg.eval_rows)
        if saving:
            save_to_resume()
        if stopping:
            ranks.barrier()  # when one process ends, torchrun ends all: not while one is still writing
            raise KeyboardInterrupt  # exit code 130 (engine/cli.py)
        if cfg.snapshot_every and (last or step % cfg.snapshot_every == 0):
            folder.save(f"step_{step:06}.pt", raw_model, train, step)
        if evaluating:
            test_loss, solution_loss = held_out_loss(raw_model, test, ranks, cfg.eval_rows)
            held_out = {"val_loss": val_loss, "test_loss": test_loss, "solution_loss": solution_loss}
            record = {"kind": "eval", "step": step, "tokens": step * cfg.batch_tokens,
                      "seconds": round(seconds, 2), **held_out}
            folder.log(record)
            progress.show(step, f"test loss {test_loss:.3f}")
            n_worse = 0 if val_loss < best else n_worse + 1
            if val_loss < best:
                best = val_loss
                folder.save("best.pt", raw_model, train, step, **held_out)
            if cfg.patience and n_worse >= cfg.patience:
                save_to_resume()
                break
        if last:
            break

        # One step: forward and backward pass of each micro-batch, then the optimizer.
        start = time.time()
        seed_dropout(cfg, step, ranks)
        rows = batch(train.n_rows, batch_rows, cfg.seed, step)             # of all processes
        rows = rows.reshape(-1, cfg.micro_rows)                            # (micro-batches, B)
        ref_loss = [reference(r, step) for r in rows]                      # L_ref (B, T); inf: never selected
        k = [round(keep_at(step) * int(values.isfinite().sum())) for values in ref_loss]
        n_selected = max(1, sum(k))  # of all processes
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
        if cfg.grad_clip:
            torch.nn.utils.clip_grad_norm_(raw_model.parameters(), cfg.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, cfg)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds += time.time() - start  # without waiting for a GPU, which is still at it
        if step % cfg.log_every == 0:
            seconds += ranks.synchronize()
            loss = ranks.sum(loss)
            folder.must_be_finite(loss, "loss", step)
            line = {"kind": "train", "step": step, "tokens": step * cfg.batch_tokens,
                    "lr": learning_rate(step, cfg), "loss": loss}
            line |= variants.selection_stats(losses, selected, train, rows[i])  # the last micro-batch's
            folder.log(line)
        step += 1
        progress.show(step, f"test loss {record['test_loss']:.3f}" if record else "")

    progress.close()
    folder.finish(raw_model, record, best, step, seconds)


if __name__ == "__main__":
    run(main, Config, __doc__)
