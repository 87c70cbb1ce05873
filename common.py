"""
What the scripts share: the options of a training run, checkpoints, the run folder, the optimizer, losses
on held-out text.
"""
import json
import math
import os
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from corpora.vocabulary import must_have_rows
from engine import fast_loss
from engine.cli import BadInput
from engine.files import read_json, read_jsonl, replacing, source_revision, write_json, write_jsonl
from engine.ranks import full_state_dict
from extras import pretrained
from model import GPT, GPTConfig


@dataclass
class Optimisation:
    """How weights are trained, whatever the loss: what `adamw` and `learning_rate` read. A config has `steps`
    besides."""
    lr: float = 6e-3                # highest learning rate
    min_lr: float = 0.0             # learning rate at the end
    warmup_steps: int = 50          # linear warm-up
    decay: float = 1.0              # share of the steps after the warm-up over which the learning rate decays
    weight_decay: float = 0.1       # AdamW's, on matrices only
    beta2: float = 0.95             # AdamW's second-moment decay
    grad_clip: float = 1.0          # largest gradient norm (0: no clipping)
    seed: int = 0                   # of all that is drawn at random

    def validate(self):
        """Every problem of the options, each a sentence."""
        if not 0 < self.decay <= 1:
            yield f"decay must lie in (0, 1], not {self.decay}"
        if not 0 <= self.beta2 < 1:
            yield f"beta2 must lie in [0, 1), not {self.beta2}"
        yield from not_negative(self, "min_lr", "warmup_steps", "weight_decay", "grad_clip", "seed")
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
    init_from: str = ""             # start from the model of this checkpoint, or from gpt2, gpt2-medium, ...
    crop: bool = False              # with init_from: forget the positions beyond block_size
    # model (with init_from all of these but block_size and dropout are the checkpoint's, whatever they say)
    n_layer: int = 2                # blocks
    n_head: int = 2                 # attention heads
    n_embd: int = 64                # channels
    block_size: int = 192           # row length T, in tokens; score.py needs the same
    dropout: float = 0.0            # dropout rate, also with init_from
    bias: bool = True               # biases in Linear and LayerNorm modules
    arch: str = "gpt2"              # or llama: RMSNorm, rotary positions, SwiGLU, no biases
    n_kv_head: int = 0              # heads of keys and values (0: n_head)
    n_inner: int = 0                # channels inside the MLP (0: 4 * n_embd)
    # optimisation, besides what Optimisation has
    train_tokens: int = 3_993_600   # length of the run, in tokens seen
    batch_tokens: int = 1536        # tokens per step, over all processes and micro-batches
    micro_rows: int = 0             # rows of a micro-batch, one forward pass (0: all that a process has)
    seed: int = 0                   # of the initialisation, the order of the rows, and dropout
    # evaluating and saving: none of these changes the weights, but for patience
    eval_every: int = 100           # steps between evaluations on val and test
    eval_rows: int = 512            # evaluate on the first so many rows of each
    patience: int = 0               # stop after so many evaluations without a better val loss (0: never)
    log_every: int = 10             # steps between lines in metrics.jsonl
    save_every: int = 500           # steps between saves of ckpt.pt
    snapshot_every: int = 0         # steps between weights kept as step_NNNNNN.pt to evaluate (0: none)
    # machine
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps
    compile: bool = False           # torch.compile the model (worth it on a GPU)
    fsdp: bool = False              # with torchrun: each GPU holds a part of weights and optimizer (FSDP2)
    fast: bool = True               # the loss without the logits of all tokens at once (engine/fast_loss.py)

    @property
    def steps(self):
        return self.train_tokens // self.batch_tokens

    def validate(self):
        """Every problem of the options, each a sentence."""
        for name in ("n_layer", "n_head", "n_embd", "block_size", "batch_tokens", "eval_every", "eval_rows",
                     "log_every", "save_every"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
                return
        if self.n_embd % self.n_head:
            yield f"n_embd ({self.n_embd}) must be divisible by n_head ({self.n_head})"
        if self.arch not in ("gpt2", "llama"):
            yield f"arch must be gpt2 or llama, not {self.arch!r}"
        if self.arch == "gpt2" and (self.n_kv_head or self.n_inner):
            yield "n_kv_head and n_inner are for --arch llama"
        if self.arch == "llama" and self.n_embd // self.n_head % 2:
            yield f"n_embd / n_head must be even for arch llama, not {self.n_embd // self.n_head}"
        if self.n_kv_head < 0 or self.n_inner < 0 or self.n_head % (self.n_kv_head or 1):
            yield (f"n_kv_head ({self.n_kv_head}) must divide n_head ({self.n_head}), and neither it nor "
                   f"n_inner ({self.n_inner}) may be negative")
        if not 0 <= self.dropout < 1:
            yield f"dropout must lie in [0, 1), not {self.dropout}"
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
        computes, but for dropout's masks. (With patience, evaluations decide when it stops.)"""
        names = {"resume", "out", "eval_every", "log_every", "save_every", "snapshot_every", "device",
                 "compile", "fsdp", "fast", "micro_rows"}
        return names - ({"eval_every"} if self.patience else set())


# ----------------------------------------------------------------------------------------------- optimisation

def learning_rate(step, cfg):
    """Linear warm-up, constant, then half a cosine down to cfg.min_lr over the last cfg.decay of the steps
    after the warm-up."""
    if step < cfg.warmup_steps:
        return cfg.lr * (step + 1) / (cfg.warmup_steps + 1)
    decay_steps = max(1, round(cfg.decay * (cfg.steps - cfg.warmup_steps)))
    done = min(1.0, max(0.0, (step - (cfg.steps - decay_steps)) / decay_steps))
    return cfg.min_lr + (cfg.lr - cfg.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def adamw(model, cfg, device):
    """AdamW with weight decay on the matrices only, as GPT-2 and nanoGPT have it."""
    groups = [{"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": cfg.weight_decay},
              {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=(0.9, cfg.beta2), fused=device.type in ("cuda", "cpu"))


def seed_dropout(cfg, step, ranks):
    """Dropout is a function of seed, step and process, so that there is no random state to resume."""
    torch.manual_seed(int(np.random.default_rng([cfg.seed, step, ranks.rank + 1]).integers(2**63)))


# ------------------------------------------------------------------------------------------------ checkpoints

def save_checkpoint(path, checkpoint):
    """Save a dict of tensors and plain values. Raises BadInput when the disk is full; the old file stays."""
    try:
        with replacing(path, "wb") as f:
            torch.save(checkpoint, f)
    except (OSError, RuntimeError) as e:  # torch's writer turns an OSError into a RuntimeError
        raise BadInput(f"could not save {path} ({str(e).splitlines()[0]}): free some space and run the "
                       f"command again (a training run with --resume); what was there before is as it was")


def load_checkpoint(path):
    """What `save_checkpoint` saved, tensors and plain values only; or weights in Hugging Face's format
    (extras/pretrained.py). Raises BadInput."""
    if pretrained.is_pretrained(path):
        return pretrained.load(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"model", "model_config", "tokenizer_sha256"} - checkpoint.keys()
        if missing:
            raise KeyError(*missing)
        GPTConfig(**checkpoint["model_config"])  # raises TypeError where it is some other program's
        return checkpoint
    except FileNotFoundError:
        raise BadInput(f"there is no checkpoint {path}: train one with train_ref.py or train_slm.py, or give "
                       f"another")
    except PermissionError:
        raise
    except Exception as e:  # truncated archives raise a dozen kinds
        raise BadInput(f"{path} is not a checkpoint of this repository, is truncated, or does not fit into "
                       f"memory ({type(e).__name__}): give another, or train it again")


def model_of(checkpoint, path, tokenizer_sha256, source, **changes):
    """The GPT of a checkpoint. source: the corpus whose tokenizer has this hash. changes: fields of
    GPTConfig to change. Raises BadInput."""
    if checkpoint["tokenizer_sha256"] != tokenizer_sha256:
        raise BadInput(f"{path} was trained with another tokenizer than that of {source}: give its own "
                       f"--data, a corpus made with the model's tokenizer")
    model = GPT(GPTConfig(**(checkpoint["model_config"] | changes)))
    try:
        model.load_state_dict(checkpoint["model"])
    except RuntimeError as e:
        raise BadInput(f"the weights in {path} do not fit the model: {str(e).splitlines()[1].strip()}; "
                       f"delete it, or train it again")
    return model


def load_model(path, tokenizer_sha256, source, device, *corpora):
    """(model on the device, with dropout off; its checkpoint), see `model_of`. corpora: Tokens that the model
    is to read, see `must_have_rows`."""
    checkpoint = load_checkpoint(path)
    model = model_of(checkpoint, path, tokenizer_sha256, source)
    must_have_rows(model, path, *corpora)
    return model.to(device).eval(), checkpoint


def where_to_start(cfg, first):
    """(the checkpoint to start from, whether that is the run's own last one): `first`, or the last of the run
    in cfg.out if this is to be resumed."""
    last = os.path.join(cfg.out, "ckpt.pt")
    resuming = cfg.resume and os.path.exists(last)
    return last if resuming else first, resuming


def initial_model(cfg, train):
    """The model to train, and the checkpoint to resume from or None. The model is fresh, or that of
    cfg.init_from, or that of the run in cfg.out if this is to be resumed. train: the Tokens to train on."""
    torch.manual_seed(cfg.seed)
    path, resuming = where_to_start(cfg, cfg.init_from)
    if not path:
        return GPT(GPTConfig(
            block_size=cfg.block_size, vocab_size=train.vocab_size, n_layer=cfg.n_layer, n_head=cfg.n_head,
            n_embd=cfg.n_embd, dropout=cfg.dropout, bias=cfg.bias, arch=cfg.arch, n_kv_head=cfg.n_kv_head,
            n_inner=cfg.n_inner)), None
    checkpoint = load_checkpoint(path)
    state, config = checkpoint["model"], checkpoint["model_config"]
    if cfg.block_size > config["block_size"]:
        raise BadInput(f"block_size {cfg.block_size} is more than the {config['block_size']} of the model in "
                       f"{path}")
    if cfg.crop:
        config["block_size"] = cfg.block_size
        if "wpe.weight" in state:  # rotary positions have no weights
            state["wpe.weight"] = state["wpe.weight"][:cfg.block_size].clone()  # (T, C)
    model = model_of(checkpoint, path, train.tokenizer_sha256, cfg.data, dropout=cfg.dropout)
    return model, checkpoint if resuming else None


def compiled_and_parallel(raw_model, cfg, ranks):
    """The model as a step calls it: compiled if asked for, its gradients averaged over the processes if
    there are several."""
    model = raw_model
    if cfg.compile:
        model = torch.compile(model)
        fast_loss.compile_passes()
    if ranks.world > 1 and not cfg.fsdp:
        model = DistributedDataParallel(model)
    return model


class RunFolder:
    """The folder of a training run: config.json, metrics.jsonl (a line per log and per evaluation),
    checkpoints, and done.json at the end.

    A folder that holds a run is not written over: BadInput, unless cfg.resume; then the run must have the
    same options, but for cfg.may_differ(), and the same made_from, hashes of what the run reads. What a run
    of an older revision has not noted cannot be compared: a line says so, and it is noted from then on. Of
    several processes the main one alone writes.
    """

    def __init__(self, cfg, made_from, ranks):
        self.folder, self.cfg, self.ranks = cfg.out, cfg, ranks
        if ranks.main:
            os.makedirs(cfg.out, exist_ok=True)
            if os.path.exists(self.path("config.json")):
                self.check_same(made_from)
            else:
                about = {"source": source_revision(), "torch": torch.__version__}
                write_json(self.path("config.json"), {"config": asdict(cfg), **made_from, **about})
        self.finished = os.path.exists(self.path("done.json"))
        if self.finished and ranks.main:
            print(f"{cfg.out}: finished before, nothing to do")

    def check_same(self, made_from):
        folder, held = self.folder, read_json(self.path("config.json"))
        if not self.cfg.resume:
            raise BadInput(f"{folder} already holds a run: add --resume to continue it, or choose another "
                           f"--out")
        other = [k.removesuffix("_sha256") for k, v in made_from.items() if k in held and held[k] != v]
        if other:
            raise BadInput(f"{folder} holds a run on another corpus, or made from other files "
                           f"({', '.join(other)}): choose another --out, or delete the folder")
        defaults = asdict(type(self.cfg)())  # for an option that is newer than the run
        old = defaults | held["config"]
        changed = [f"{k}: {old[k]!r} -> {v!r}" for k, v in asdict(self.cfg).items()
                   if old[k] != v and k not in self.cfg.may_differ()]
        if changed:
            raise BadInput(f"{folder} holds a run with another configuration ({', '.join(changed)}): give "
                           f"the same options (micro_rows, where it is not given, follows from the number of "
                           f"processes), choose another --out, or delete the folder")
        new = {k: v for k, v in made_from.items() if k not in held}
        if new:
            names = ", ".join(k.removesuffix("_sha256") for k in new)
            print(f"{folder}: begun before hashes of {names} were noted: taken as unchanged")
            write_json(self.path("config.json"), held | new)

    def path(self, name):
        return os.path.join(self.folder, name)

    def open_log(self, step):
        """Open metrics.jsonl to go on at `step`: what an interrupted run logged after its checkpoint is
        dropped."""
        if self.ranks.main:
            records = [r for r in read_jsonl(self.path("metrics.jsonl")) if r["step"] < step]
            write_jsonl(self.path("metrics.jsonl"), records)
            self.log_file = open(self.path("metrics.jsonl"), "a", encoding="utf-8", buffering=1)

    def log(self, record):
        """A line of metrics.jsonl."""
        if self.ranks.main:
            self.log_file.write(json.dumps(record) + "\n")

    def must_be_finite(self, value, name, step):
        """Raises BadInput where a loss is infinite or NaN, so that nothing good on disk is replaced."""
        if not math.isfinite(value):
            raise BadInput(f"the {name} is {value} at step {step}, not finite: lower --lr; {self.folder} "
                           f"keeps what was saved before")

    def save(self, name, model, train, step, **state):
        """A checkpoint NAME of the model after `step` steps on the Tokens `train`, with the state of
        `optimizer` where one is given. Raises BadInput where weights are not finite. All processes must call
        it."""
        weights = full_state_dict(model.state_dict())
        if "optimizer" in state:
            state["optimizer"] = full_state_dict(state["optimizer"].state_dict())
        if not all(torch.isfinite(w).all() for w in weights.values()):
            raise BadInput(f"the weights are not finite at step {step}: lower --lr; {self.folder} keeps what "
                           f"was saved before")
        if self.ranks.main:
            save_checkpoint(self.path(name), {
                "model": weights, "model_config": asdict(model.config), "config": asdict(self.cfg),
                "tokenizer_sha256": train.tokenizer_sha256, "step": step,
                "tokens": step * self.cfg.batch_tokens, **state})

    def finish(self, model, record, best, step, seconds):
        """done.json, and a line that says how it went. record: the last evaluation."""
        if self.ranks.main:
            parameters = sum(p.numel() for p in model.parameters())
            write_json(self.path("done.json"), {**record, "best_val_loss": best, "parameters": parameters})
            text = (f"{self.folder}: {step:,} steps, {record['tokens']:,} tokens, {seconds:.0f} s, "
                    f"test loss {record['test_loss']:.4f}")
            if best < record["val_loss"]:
                text += f", best val loss {best:.4f}"
            print(text)


# ------------------------------------------------------------------------------------------------- evaluation

@torch.no_grad()
def held_out_loss(model, tokens, ranks, max_rows, batch_rows=64):
    """Mean loss over the first max_rows rows, and over their solution tokens if labelled: (loss, solution
    loss or None).

    Fixed rows, no random numbers, and the model is left in the mode it was in: evaluating changes nothing.
    Each process runs a part of the rows, and all get the same result (they decide by it when to stop).
    """
    was_training = model.training
    model.eval()
    losses, done = [], 0
    n_rows = min(tokens.n_rows, max_rows)
    batch_rows = min(batch_rows, max(1, 2**16 // tokens.T))  # fewer where rows are long
    while done < n_rows:
        x, y = map(ranks.to_device, tokens.rows(ranks.rows(done, n_rows, batch_rows)))        # (B, T) each
        with ranks.autocast():
            loss = fast_loss.token_losses(model(x), model.output_weight, y)                   # (B, T)
        losses.append(ranks.gather(loss)[:n_rows - done].cpu().double())
        done += len(losses[-1])
    model.train(was_training)
    losses = torch.cat(losses)                                                                # (n_rows, T)
    if tokens.labels is None:
        return losses.mean().item(), None
    in_solution = torch.isin(tokens.row_labels(np.arange(n_rows)), tokens.label_numbers("solution"))
    solution_loss = losses[in_solution].mean().item() if in_solution.any() else None
    return losses.mean().item(), solution_loss
