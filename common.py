"""
What the training scripts share: options, learning rate, optimizer, the loss on held-out text, and `Run`,
which is a training run but for its steps. Those are in the scripts.
"""
import math
import os
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from engine import fast_loss
from engine.checkpoints import RunFolder, load_checkpoint, model_of
from engine.cli import BadInput, Progress, StopSignal
from engine.ranks import load_optimizer
from model import GPT, GPTConfig

BETAS, GRAD_CLIP = (0.9, 0.95), 1.0   # AdamW's; the largest gradient norm
MANY_BYTES = 2 * 2**30                # above so many bytes of logits a run prints a hint


@dataclass
class Optimisation:
    """How weights are trained, whatever the loss: what `adamw` and `learning_rate` read. A config has `steps`
    besides."""
    lr: float = 5e-3                # highest learning rate
    warmup_steps: int = 50          # linear warm-up; then half a cosine down to 0
    weight_decay: float = 0.1       # AdamW's, on matrices only
    seed: int = 0                   # of all that is drawn at random

    def validate(self):
        """Every problem of the options, each a sentence."""
        yield from not_negative(self, "warmup_steps", "weight_decay", "seed")
        if self.lr <= 0:
            yield f"lr must be above 0, not {self.lr}"


def not_negative(cfg, *names):
    """A sentence for each of these options that is negative."""
    for name in names:
        if getattr(cfg, name) < 0:
            yield f"{name} must not be negative, but is {getattr(cfg, name)}"


@dataclass
class TrainConfig(Optimisation):
    """What both training scripts can be told."""
    data: str = "data/demo"         # corpus folder, made by prepare.py
    train: str = "noisy"            # which of its token files to train on
    out: str = "out/run"            # run folder
    resume: bool = False            # go on with the run in this folder, if there is one
    init_from: str = ""             # start from the model of this checkpoint
    # model (with init_from all of these are the checkpoint's, and block_size is the row length alone)
    n_layer: int = 3                # blocks
    n_head: int = 2                 # attention heads
    n_embd: int = 64                # channels
    block_size: int = 192           # row length T, in tokens; score.py needs the same
    arch: str = "gpt2"              # or llama: RMSNorm, rotary positions, SwiGLU, no biases
    # optimisation, besides what Optimisation has
    train_tokens: int = 4_992_000   # length of the run, in tokens seen
    batch_tokens: int = 1536        # tokens per step, over all processes and micro-batches
    micro_rows: int = 0             # rows of a micro-batch, one forward pass (0: all that a process has)
    # evaluating: none of these changes the weights, but for patience
    eval_every: int = 325           # steps between evaluations on val and test; each saves ckpt.pt too
    eval_rows: int = 512            # evaluate on the first so many rows of each
    patience: int = 0               # stop after so many evaluations without a better val loss (0: never)
    log_every: int = 10             # steps between lines in metrics.jsonl
    snapshot_every: int = 0         # steps between weights kept as step_NNNNNN.pt to evaluate (0: none)
    # machine
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps
    compile: bool = False           # torch.compile the model (worth it on a GPU)
    fsdp: bool = False              # with torchrun: each GPU holds a part of weights and optimizer (FSDP2)
    fast: bool = False              # the loss without the logits of all tokens at once (large vocabularies)

    @property
    def steps(self):
        return self.train_tokens // self.batch_tokens

    def validate(self):
        """Every problem of the options, each a sentence."""
        for name in ("n_layer", "n_head", "n_embd", "block_size", "batch_tokens", "eval_every", "eval_rows",
                     "log_every"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
                return
        if self.arch not in ("gpt2", "llama"):
            yield f"arch must be gpt2 or llama, not {self.arch!r}"
        width = self.n_head * (2 if self.arch == "llama" else 1)
        if self.n_embd % width:
            yield f"n_embd ({self.n_embd}) must be divisible by {width}, as n_head is {self.n_head}"
        yield from super().validate()
        yield from not_negative(self, "micro_rows", "patience", "snapshot_every")
        world = int(os.environ.get("WORLD_SIZE", 1))
        if self.fsdp and world == 1:
            yield "fsdp is for several processes: start it with torchrun --nproc_per_node N"
        unit = self.block_size * world * max(self.micro_rows, 1)
        if self.batch_tokens % unit:
            yield (f"batch_tokens ({self.batch_tokens}) must be divisible by block_size x processes x "
                   f"micro_rows ({self.block_size} x {world} x {max(self.micro_rows, 1)} = {unit})")
        elif self.steps < 1:
            yield f"train_tokens ({self.train_tokens}) is less than one batch of {self.batch_tokens}"

    def may_differ(self):
        """The options that may differ when a run is resumed: where it runs and what it records, not what it
        computes. (Evaluations decide which weights are the best, and when a run with patience stops.)"""
        return {"resume", "out", "log_every", "snapshot_every", "device", "compile", "fsdp", "fast",
                "micro_rows"}


# ----------------------------------------------------------------------------------------------- optimisation

def learning_rate(step, cfg):
    """Linear warm-up, then half a cosine down to 0."""
    if step < cfg.warmup_steps:
        return cfg.lr * (step + 1) / (cfg.warmup_steps + 1)
    done = (step - cfg.warmup_steps) / max(1, cfg.steps - cfg.warmup_steps)    # from 0 to 1
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * done))


def adamw(model, cfg, device):
    """AdamW with weight decay on the matrices only, as GPT-2 and nanoGPT have it."""
    groups = [{"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": cfg.weight_decay},
              {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=BETAS, fused=device.type in ("cuda", "cpu"))


# ------------------------------------------------------------------------------------------------------ a run

def where_to_start(cfg, first):
    """(the checkpoint to start from, whether that is the run's own last one): `first`, or the last of the run
    in cfg.out if this is to be resumed."""
    last = os.path.join(cfg.out, "ckpt.pt")
    resuming = cfg.resume and os.path.exists(last)
    return last if resuming else first, resuming


def initial_model(cfg, train, val, test):
    """(the model to train, the checkpoint to resume from or None). The model is fresh, or that of
    cfg.init_from, or that of the run in cfg.out if this is to be resumed. train, val, test: the Tokens that
    it will read."""
    for tokens in (val, test):
        if tokens.tokenizer_sha256 != train.tokenizer_sha256:
            raise BadInput(f"{tokens.path}.bin was made with another tokenizer than {train.path}.bin: make "
                           f"the corpus again with prepare.py")
    torch.manual_seed(cfg.seed)
    path, resuming = where_to_start(cfg, cfg.init_from)
    if not path:
        return GPT(GPTConfig(block_size=cfg.block_size, vocab_size=train.vocab_size, n_layer=cfg.n_layer,
                             n_head=cfg.n_head, n_embd=cfg.n_embd, arch=cfg.arch)), None
    checkpoint = load_checkpoint(path)
    if cfg.block_size > checkpoint["model_config"]["block_size"]:
        raise BadInput(f"block_size {cfg.block_size} is more than the "
                       f"{checkpoint['model_config']['block_size']} of the model in {path}")
    model = model_of(checkpoint, path, train.tokenizer_sha256, cfg.data, train, val, test)
    return model, checkpoint if resuming else None


class Run:
    """All of a training run but what a step computes: where it starts, and what happens between two steps.

        run = Run(cfg, ranks, initial_model(cfg, train, val, test), (val, test), made_from)
        for step in run.steps():     # in between: evaluate, save, stop
            ...                      # forward, backward, run.optimizer.step()

    start: the model, and the checkpoint of this run to go on from or None. held_out: the Tokens val and test.
    made_from: hashes of what the run reads. measure: a function that returns what each evaluation is to log
    besides its losses, a dict.

    An evaluation saves ckpt.pt before its result changes what is the best and how long that has been so. A
    run that goes on from there drops what was logged at that step or later, and evaluates once more. So a run
    that is killed at any moment comes to the same weights, best weights and log (but for seconds) as one that
    is not, where the device computes the same thing twice in the same way.
    """

    def __init__(self, cfg, ranks, start, held_out, made_from, measure=dict):
        self.cfg, self.ranks, self.measure = cfg, ranks, measure
        model, checkpoint = start
        # FSDP shards the weights before the optimizer is made, so that AdamW's state is sharded too.
        self.raw_model = ranks.shard(model) if cfg.fsdp else model.to(ranks.device)
        self.val, self.test = held_out
        self.folder = RunFolder(cfg, made_from, ranks.main)
        self.optimizer = adamw(self.raw_model, cfg, ranks.device)
        self.step, self.tokens, self.seconds, self.best, self.n_worse = 0, 0, 0.0, math.inf, 0
        self.record = None  # of the last evaluation
        if checkpoint:
            load_optimizer(self.optimizer, checkpoint["optimizer"])
            for name in ("step", "tokens", "seconds", "best", "n_worse"):
                setattr(self, name, checkpoint[name])
        elif ranks.main:
            print(f"{cfg.out}: {sum(p.numel() for p in self.raw_model.parameters()):,} parameters")

    def steps(self):
        """The numbers of the steps to take. In between the run is evaluated and saved, or stops."""
        cfg, ranks = self.cfg, self.ranks
        if self.folder.finished:
            return
        self.folder.open_log(self.step)
        progress = Progress(os.path.basename(cfg.out), cfg.steps, "steps", self.step)
        with StopSignal() as stop:  # Ctrl-C or SIGTERM
            while True:
                # One turn more than there are steps: the last weights are evaluated and saved like all.
                last = self.step >= cfg.steps
                if ranks.any(stop.received):
                    self.check_and_save()
                    ranks.barrier()  # when one process ends, torchrun ends all: not while one writes
                    raise KeyboardInterrupt  # exit code 130 (engine/cli.py)
                if cfg.snapshot_every and (last or self.step % cfg.snapshot_every == 0):
                    self.save(f"step_{self.step:06}.pt")
                if last or self.step % cfg.eval_every == 0:
                    self.evaluate()
                if last or (cfg.patience and self.n_worse >= cfg.patience):
                    break
                progress.show(self.step, f"test loss {self.record['test_loss']:.3f}" if self.record else "")
                start = time.time()
                yield self.step  # the script takes this step
                self.seconds += time.time() - start
                self.step += 1
                self.tokens += cfg.batch_tokens
        progress.close()
        self.folder.finish(self.raw_model, self.record, self.best)

    def evaluate(self):
        """Measure, save what is needed to resume, log, and keep the best weights."""
        val_loss = self.check_and_save()
        test_loss, solution_loss = held_out_loss(self.raw_model, self.test, self.ranks, self.cfg.eval_rows)
        held_out = {"val_loss": val_loss, "test_loss": test_loss, "solution_loss": solution_loss,
                    **self.measure()}
        self.record = {"kind": "eval", "step": self.step, "tokens": self.tokens,
                       "seconds": round(self.seconds, 2), **held_out}
        self.folder.log(self.record)
        self.n_worse = 0 if val_loss < self.best else self.n_worse + 1
        if val_loss < self.best:
            self.best = val_loss
            self.save("best.pt", **held_out)

    def log(self, step, loss, **more):
        """A line of metrics.jsonl about a step. loss: this process's part of it, a scalar tensor."""
        loss = self.ranks.sum(loss)  # makes the host wait for a GPU
        self.folder.must_be_finite(loss, "loss", step)
        self.folder.log({"kind": "train", "step": step, "tokens": self.tokens,
                         "lr": learning_rate(step, self.cfg), "loss": loss, **more})

    def check_and_save(self):
        """Save what is needed to resume, unless the model has diverged. Returns the val loss."""
        self.seconds += self.ranks.synchronize()  # the time it waits for a GPU
        val_loss, _ = held_out_loss(self.raw_model, self.val, self.ranks, self.cfg.eval_rows)
        self.folder.must_be_finite(val_loss, "val loss", self.step)  # finite weights may give inf
        self.save("ckpt.pt", optimizer=self.optimizer.state_dict(), seconds=self.seconds, best=self.best,
                  n_worse=self.n_worse)
        return val_loss

    def save(self, name, **state):
        """The weights as the checkpoint NAME. Raises BadInput where they are not finite."""
        self.folder.save(name, self.raw_model, {"tokenizer_sha256": self.val.tokenizer_sha256,
                                                "step": self.step, "tokens": self.tokens, **state})


def compiled_and_parallel(raw_model, cfg, ranks):
    """The model as a step calls it: compiled if asked for, its gradients averaged over the processes if
    there are several."""
    logits = (cfg.micro_rows or 1) * cfg.block_size * raw_model.config.vocab_size  # of a micro-batch
    if 4 * logits > MANY_BYTES and not cfg.fast and ranks.main:
        print(f"{cfg.out}: a forward pass holds {4 * logits / 2**30:.1f} GiB of logits, their gradients as "
              f"much again: fewer --micro_rows take less, --fast of train_ref.py and train_slm.py less still")
    model = raw_model
    if cfg.compile:
        model = torch.compile(model)
        fast_loss.compile_passes()
    if ranks.world > 1 and not cfg.fsdp:
        model = DistributedDataParallel(model)
    return model


# --------------------------------------------------------------------------------------------------- measures

@torch.no_grad()
def held_out_loss(model, tokens, ranks, max_rows, batch_rows=64):
    """Mean loss over the first max_rows rows, and over their solution tokens if labelled: (loss, solution
    loss or None).

    Fixed rows and no random numbers: evaluating changes nothing. Each process runs a part of the rows, and
    all get the same result (they decide by it when to stop).
    """
    losses, done = [], 0
    n_rows = min(tokens.n_rows, max_rows)
    batch_rows = min(batch_rows, max(1, 2**16 // tokens.T))  # fewer where rows are long
    while done < n_rows:
        x, y = map(ranks.to_device, tokens.rows(ranks.rows(done, n_rows, batch_rows)))        # (B, T) each
        with ranks.autocast():
            loss = fast_loss.token_losses(model(x), model.output_weight, y)                   # (B, T)
        losses.append(ranks.gather(loss)[:n_rows - done].cpu().double())
        done += len(losses[-1])
    losses = torch.cat(losses)                                                                # (n_rows, T)
    if tokens.labels is None:
        return losses.mean().item(), None
    in_solution = torch.isin(tokens.row_labels(np.arange(n_rows)), tokens.label_numbers("solution"))
    solution_loss = losses[in_solution].mean().item() if in_solution.any() else None
    return losses.mean().item(), solution_loss


def selection_stats(loss, selected, tokens, rows):
    """What the selection of a micro-batch did, in the log that of the process's last one: mean loss over all,
    selected and unselected tokens, `ratio`, the share selected and, with true labels, precision and recall of
    the useful tokens (question, solution, result) and `selected_NAME`, each label's share of the selected.

    loss, selected: (B, T) float and bool, of these rows of `tokens`, a Tokens. Makes the host wait for a GPU.
    """
    loss, selected, labels = loss.cpu().double(), selected.cpu(), tokens.row_labels(rows)

    def mean(values):
        return values.double().mean().item() if values.numel() else None
    stats = {"corpus_loss": mean(loss), "selected_loss": mean(loss[selected]),
             "unselected_loss": mean(loss[~selected]), "ratio": mean(selected)}
    if labels is not None:
        useful = torch.isin(labels, tokens.label_numbers("useful"))
        stats["precision"], stats["recall"] = mean(useful[selected]), mean(selected[useful])
        for number, name in enumerate(tokens.label_names):
            stats[f"selected_{name}"] = mean(labels[selected] == number)
    return stats
