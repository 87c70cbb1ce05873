"""
Step 3 (SLM): train a model on the noisy corpus, with the loss on selected tokens only; keep 1.0 is the baseline, CLM.

    python train_slm.py --scores out/scores --keep 0.3 --out out/slm --init_from out/base/ckpt.pt --lr 1e-3
    python train_slm.py --keep 1.0 --out out/clm --init_from out/base/ckpt.pt --lr 1e-3
    torchrun --nproc_per_node 4 train_slm.py ...

The next step is eval_math.py. This file is train_ref.py with the selection; each block that differs is marked # SLM.

The run folder OUT gets config.json, metrics.jsonl (a line per log and per evaluation), ckpt.pt (to resume from),
best.pt (lowest loss on held-out `dev`) and, at the end, done.json.
"""
import os
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from common import (BadInput, Progress, Ranks, RunFolder, StopSignal, adamw, full_state_dict, held_out_loss, learning_rate,
                    load_checkpoint, load_optimizer, load_weights, resize, run, save_checkpoint, selection_stats, write_json)  # SLM
from data import Tokens, batch
from kept import compile_passes, select  # SLM
from model import GPT, GPTConfig
from score import Scores  # SLM: L_ref, read from disk
from variants import Options, Variants  # SLM: controls and extensions; without them it is the paper's method


@dataclass
class Config(Options):  # SLM: the options of variants.py too
    data: str = "data/demo"         # corpus folder, made by data.py
    scores: str = "out/scores"      # SLM: folder written by score.py (for excess and low_ref)
    keep: float = 0.3               # fraction of a step's tokens that the loss counts; 1.0 is CLM
    select: str = "excess"          # by what: excess, random, high_loss (no reference model: selects noise), low_ref, ...
    filter_backward: bool = False   # approximate, faster: no gradient through the tokens that are not kept
    train: str = "noisy"            # which of its token files to train on
    out: str = "out/slm"            # run folder
    resume: bool = False            # go on with the run in this folder, if there is one
    init_from: str = ""             # start from this checkpoint (n_layer to bias below are its own), or from gpt2, gpt2-xl, ...
    crop: bool = False              # with init_from: forget the positions beyond block_size
    pad_vocab: int = 0              # round the rows of the embedding up to a multiple: 64 is faster on a GPU (0: as it is)
    # model
    n_layer: int = 2                # blocks
    n_head: int = 2                 # attention heads
    n_embd: int = 64                # channels
    block_size: int = 192           # row length T, in tokens
    dropout: float = 0.0            # dropout rate, also with init_from
    bias: bool = True               # biases in Linear and LayerNorm modules
    # optimisation
    train_tokens: int = 3_993_600   # length of the run, in tokens seen
    batch_tokens: int = 1536        # tokens per step, over all ranks and micro-batches
    micro_rows: int = 0             # rows per forward pass and rank (0: all of the step at once)
    lr: float = 6e-3                # highest learning rate
    min_lr: float = 0.0             # learning rate at the end
    warmup_steps: int = 50          # linear warm-up
    decay: float = 1.0              # share of the steps over which the learning rate decays (1: cosine all the way)
    weight_decay: float = 0.1       # AdamW's, on matrices only
    beta2: float = 0.95             # AdamW's second-moment decay
    grad_clip: float = 1.0          # largest gradient norm (0: no clipping)
    seed: int = 0                   # of the initialisation, the order of the rows, and dropout
    # evaluating and saving: none of these changes the weights, but for patience
    eval_every: int = 100           # steps between evaluations on dev and target
    eval_rows: int = 512            # evaluate on the first so many rows of each
    patience: int = 0               # stop after so many evaluations without a better dev loss (0: never)
    log_every: int = 10             # steps between lines in metrics.jsonl
    save_every: int = 500           # steps between saves of ckpt.pt
    snapshot_every: int = 0         # steps between weights kept as step_NNNNNN.pt, for later evaluation (0: none)
    # machine
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps
    compile: bool = False           # torch.compile the model (worth it on a GPU)
    fsdp: bool = False              # with torchrun: each GPU holds a part of the weights and of AdamW's state (FSDP2)

    @property
    def steps(self):
        return self.train_tokens // self.batch_tokens

    def validate(self):
        for name in ("n_layer", "n_head", "n_embd", "block_size", "batch_tokens", "eval_every", "eval_rows", "log_every",
                     "save_every"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
                return
        if self.n_embd % self.n_head:
            yield f"n_embd ({self.n_embd}) must be divisible by n_head ({self.n_head})"
        if not 0 <= self.dropout < 1:
            yield f"dropout must lie in [0, 1), not {self.dropout}"
        if not 0 < self.decay <= 1:
            yield f"decay must lie in (0, 1], not {self.decay}"
        for name in ("seed", "micro_rows", "weight_decay", "min_lr", "warmup_steps", "grad_clip", "patience",
                     "snapshot_every"):
            if getattr(self, name) < 0:
                yield f"{name} must not be negative, but is {getattr(self, name)}"
        if not 0 <= self.beta2 < 1:
            yield f"beta2 must lie in [0, 1), not {self.beta2}"
        yield from self.problems()  # SLM
        if self.lr <= 0:
            yield f"lr must be above 0, not {self.lr}"
        if self.pad_vocab < 0:
            yield f"pad_vocab must not be negative, but is {self.pad_vocab}"
        world = int(os.environ.get("WORLD_SIZE", 1))
        if self.fsdp and world == 1:
            yield "fsdp is for several processes: start it with torchrun --nproc_per_node N"
        unit = self.block_size * world * max(self.micro_rows, 1)
        if self.batch_tokens % unit:
            yield (f"batch_tokens ({self.batch_tokens}) must be divisible by block_size x ranks x micro_rows "
                   f"({self.block_size} x {world} x {max(self.micro_rows, 1)} = {unit})")
        elif self.steps < 1:
            yield f"train_tokens ({self.train_tokens}) is less than one batch of {self.batch_tokens}"


# What may differ when a run is resumed: where it runs and what it records, not what it computes.
MAY_DIFFER = ("resume", "out", "eval_every", "log_every", "save_every", "snapshot_every", "device", "compile", "fsdp",
             "micro_rows")


def main(cfg):
    ranks = Ranks(cfg.device)
    device, T = ranks.device, cfg.block_size

    # Data: what is trained on, and two held-out files of the target distribution.
    train, dev, target = (Tokens(cfg.data, name, T) for name in (cfg.train, "dev", "target"))
    ranked = cfg.keep < 1 or cfg.softmax_tau > 0  # SLM: else all tokens count, or all of --labels
    scores = Scores(cfg.scores, train) if ranked and cfg.select in ("excess", "low_ref") else None
    variants = Variants(cfg, train, scores, ranked)
    clm = not ranked and not cfg.labels
    batch_rows = cfg.batch_tokens // T
    rows_here = batch_rows // ranks.world
    this_rank = slice(ranks.rank * rows_here, (ranks.rank + 1) * rows_here)  # its rows of a step
    micro_rows = cfg.rank_rows or cfg.micro_rows or rows_here  # SLM
    n_rankings = batch_rows // cfg.rank_rows if cfg.rank_rows else 1
    one_pass = clm or (micro_rows * n_rankings == batch_rows and not cfg.softmax_tau)  # a micro-batch is ranked by itself

    # Model: fresh, from another run's weights, or where this run stopped.
    torch.manual_seed(cfg.seed)
    model_config = GPTConfig(T, train.vocab_size, cfg.n_layer, cfg.n_head, cfg.n_embd, cfg.dropout, cfg.bias,
                             max(1, cfg.pad_vocab))
    path = os.path.join(cfg.out, "ckpt.pt")
    resuming = cfg.resume and os.path.exists(path)
    path = path if resuming else cfg.init_from
    ckpt = load_checkpoint(path) if path else None
    if ckpt:
        resize(ckpt, T if cfg.crop else 0, cfg.pad_vocab)
        model_config = GPTConfig(**ckpt["model_config"] | {"dropout": cfg.dropout})
        if ckpt["tokenizer_sha256"] != train.tokenizer_sha256:
            raise BadInput(f"{path} was trained with another tokenizer than that of {cfg.data}: give its own --data")
        if T > model_config.block_size:
            raise BadInput(f"block_size {T} is more than the {model_config.block_size} of the model in {path}")
    raw_model = GPT(model_config)
    if ckpt:
        load_weights(raw_model, ckpt["model"], path)
    raw_model = ranks.shard(raw_model) if cfg.fsdp else raw_model.to(device)
    folder = RunFolder(cfg.out, cfg, variants.made_from, cfg.resume, MAY_DIFFER) if ranks.main else None  # SLM
    if os.path.exists(os.path.join(cfg.out, "done.json")):
        if ranks.main:
            print(f"{cfg.out}: finished before, nothing to do")
        return
    optimizer = adamw(raw_model, cfg, device)
    step, seconds, best, n_worse = 0, 0.0, float("inf"), 0
    if resuming:
        load_optimizer(optimizer, ckpt["optimizer"])
        step, seconds, best, n_worse = ckpt["step"], ckpt["seconds"], ckpt["best"], ckpt["n_worse"]
        ckpt = None  # its tensors are in use elsewhere, or of no use
    elif ranks.main:
        print(f"{cfg.out}: {sum(p.numel() for p in raw_model.parameters()):,} parameters")
    model = torch.compile(raw_model) if cfg.compile else raw_model
    if cfg.compile:
        compile_passes()
    if ranks.world > 1 and not cfg.fsdp:
        model = DistributedDataParallel(model)

    def save(name, **state):
        weights = full_state_dict(raw_model.state_dict())
        if not all(torch.isfinite(w).all() for w in weights.values()):
            raise BadInput(f"the weights are not finite at step {step}: lower --lr; {cfg.out} keeps what was saved before")
        if ranks.main:
            save_checkpoint(folder.path(name), {
                "model": weights, "model_config": asdict(model_config), "config": asdict(cfg),
                "tokenizer_sha256": train.tokenizer_sha256, "step": step, "tokens": step * cfg.batch_tokens, **state})

    def save_to_resume():
        if not np.isfinite(held_out_loss(raw_model, dev, ranks, cfg.eval_rows)[0]):  # finite weights can be useless too
            raise BadInput(f"the dev loss is not finite at step {step}: lower --lr; {cfg.out} keeps what was saved before")
        save("ckpt.pt", optimizer=full_state_dict(optimizer.state_dict()), seconds=seconds, best=best, n_worse=n_worse)

    if ranks.main:
        folder.open_log(step)
    stop, progress, loss, record = StopSignal(), Progress(os.path.basename(cfg.out), cfg.steps, "steps", step), None, None
    while True:
        # One iteration more than there are steps, so that the last weights are evaluated and saved like all others.
        last = step == cfg.steps
        stopping = ranks.any(stop.received)
        if stopping or last or step % cfg.eval_every == 0 or step % cfg.save_every == 0:
            seconds += ranks.synchronize()
        if stopping or last or (step % cfg.save_every == 0 and loss is not None):
            save_to_resume()
        if stopping:
            ranks.barrier()  # the first to end ends all: not while one is still writing
            raise KeyboardInterrupt
        if cfg.snapshot_every and (last or step % cfg.snapshot_every == 0):
            save(f"step_{step:06}.pt")
        if last or step % cfg.eval_every == 0:
            dev_loss, _ = held_out_loss(raw_model, dev, ranks, cfg.eval_rows)
            target_loss, solution_loss = held_out_loss(raw_model, target, ranks, cfg.eval_rows)
            record = {"kind": "eval", "step": step, "tokens": step * cfg.batch_tokens, "seconds": round(seconds, 2),
                      "dev_loss": dev_loss, "target_loss": target_loss, "solution_loss": solution_loss}
            n_worse = 0 if dev_loss < best else n_worse + 1
            if ranks.main:
                folder.log(**record)
                progress.show(step, f"target loss {target_loss:.3f}")
            if dev_loss < best:
                best = dev_loss
                save("best.pt", dev_loss=dev_loss, target_loss=target_loss, solution_loss=solution_loss)
            if cfg.patience and n_worse >= cfg.patience:
                save_to_resume()
                break
        if last:
            break

        # One step: the rows of this step and rank, in micro-batches. Dropout too is a function of seed, step and rank, so
        # that there is no random state to resume.
        start = time.time()
        torch.manual_seed(int(np.random.default_rng([cfg.seed, step, ranks.rank + 1]).integers(2**63)))
        rows = batch(train.n_rows, batch_rows, cfg.seed, step)
        micro_batches = [train.rows(r) for r in np.split(rows[this_rank], rows_here // micro_rows)]
        micro_batches = [(ranks.to_device(x), ranks.to_device(y)) for x, y in micro_batches]
        # SLM: what is known of the scores before the forward pass, -L_ref, and how many tokens of the step count: keep B T
        known = variants.known(-scores.rows(rows) if scores else torch.zeros(batch_rows, T), rows, step)
        n_targets = max(1, round(variants.keep(step) * int((known > -torch.inf).sum()) / n_rankings)) * n_rankings
        n_kept = None if clm or not (one_pass or cfg.filter_backward) else n_targets // n_rankings if one_pass else 0  # per pass
        known = ranks.to_device(known.flatten())

        def score(losses, i):  # equation 3, L_theta - L_ref, or a control: of the tokens i (m,) with these losses (m,)
            return losses + known[i] if cfg.select in ("excess", "high_loss") else known[i]

        loss = torch.zeros((), device=device)
        for i, (x, y) in enumerate(micro_batches):
            # gradients are exchanged between the ranks with the last micro-batch only
            last_micro = i == len(micro_batches) - 1
            with ranks.sync_gradients(model, last_micro):
                with ranks.autocast():
                    hidden = model(x, n_kept=n_kept, filter_backward=cfg.filter_backward)  # (B, T, C)
                    if one_pass:  # SLM: equations 4 and 5
                        at = (this_rank.start + i * micro_rows) * T  # its first token in the step
                        loss_sum, step_losses, selected = raw_model.kept_loss(hidden, y, n_kept, lambda losses, j: score(losses, j + at))
                    else:  # SLM: all are ranked together; micro-batches after the first are run forward twice
                        if i == 0:
                            with torch.no_grad():
                                others = [raw_model.losses(model(x), y) for x, y in micro_batches[1:]]
                            step_losses = ranks.gather(torch.cat([raw_model.losses(hidden, y), *others]))
                            step_scores = score(step_losses.flatten(), slice(None))
                            selected = select(step_scores, n_targets).view(batch_rows, T)
                            mine = [s.flatten().nonzero().squeeze(1) for s in selected[this_rank].split(micro_rows)]
                            soft = variants.weights(step_scores, selected)[this_rank].split(micro_rows)
                        w = soft[i].flatten()[mine[i]] if cfg.softmax_tau else None
                        loss_sum, _, _ = raw_model.kept_loss(hidden.flatten(0, 1)[mine[i]], y.flatten()[mine[i]], token_weights=w)
                micro_loss = loss_sum / n_targets
                (micro_loss * ranks.world).backward()         # DistributedDataParallel takes the mean over ranks
            loss += micro_loss.detach()
        if cfg.grad_clip:
            torch.nn.utils.clip_grad_norm_(raw_model.parameters(), cfg.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, cfg)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds += time.time() - start                        # without waiting for a GPU, which is still at it
        if step % cfg.log_every == 0:
            seconds += ranks.synchronize()
            if ranks.world > 1:
                torch.distributed.all_reduce(loss)
            if not torch.isfinite(loss):
                raise BadInput(f"the loss is {loss.item()} at step {step}: lower --lr; {cfg.out} keeps what was saved before")
            if ranks.main:
                folder.log(kind="train", step=step, tokens=step * cfg.batch_tokens, lr=learning_rate(step, cfg),
                           loss=loss.item(), **({} if clm or cfg.softmax_tau else selection_stats(  # SLM
                               step_losses, selected, train.row_labels(rows[this_rank][-micro_rows:] if one_pass else rows),
                               train.label_names)))
        step += 1
        progress.show(step, f"target loss {record['target_loss']:.3f}" if record else "")

    progress.close()
    if ranks.main:
        write_json(folder.path("done.json"), {**record, "best_dev_loss": best})
        print(f"{cfg.out}: {step:,} steps, {step * cfg.batch_tokens:,} tokens, {seconds:.0f} s, target loss "
              f"{record['target_loss']:.4f}" + (f", best dev loss {best:.4f}" if best < record["dev_loss"] else ""))


if __name__ == "__main__":
    run(main, Config, __doc__)
