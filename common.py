"""
What the scripts share and that is not the method: command line, error messages, checkpoints, the metrics log,
learning rate, evaluation by loss, distributed set-up.
"""
import argparse
import contextlib
import dataclasses
import datetime
import gzip
import hashlib
import inspect
import json
import lzma
import math
import os
import re
import signal
import subprocess
import sys
import time
import typing
import zlib

import numpy as np
import torch

import corpus
from model import GPTConfig


class BadInput(Exception):
    """Something the user can fix. The message says what is wrong, where, and what to do."""


# ------------------------------------------------------------------------------------------------ command line

def run(main, Config, doc):
    """Read a `Config` from the command line, check it, call main(cfg).

    Bad input ends in one line on standard error and exit code 2, Ctrl-C in exit code 130.
    """
    script = os.path.basename(sys.argv[0])
    try:
        main(parse(Config, doc))
        if several_processes():
            torch.distributed.barrier()  # none ends while another may still need it
            sys.stdout.flush()
            os._exit(0)  # taking the group apart aborted one of some hundred runs that were done
    except BadInput as e:
        leave(f"{script}: {e}", 2)
    except OSError as e:  # a full disk, a folder that may not be written
        leave(f"{script}: {e.filename or 'writing'}: {e.strerror}; what was saved before is as it was", 2)
    except RuntimeError as e:
        # torch's own kinds, and how gloo says that a process of the group is gone
        kinds, text = ("DistError", "DistBackendError", "DistNetworkError"), "gloo|[Cc]onnection (closed|reset)"
        if not (several_processes() and (type(e).__name__ in kinds or re.search(text, str(e)))):
            raise
        leave(f"{script}: rank {os.environ['RANK']}: another process of the run is gone ({str(e).splitlines()[0]:.80}); its own "
              f"message says why; go on with the same command (and --resume, for a training run)", 2)
    except KeyboardInterrupt:
        leave(f"{script}: interrupted; go on with the same command (and --resume, for a training run)", 130)


def several_processes():
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def leave(message, code):
    """End with a line on standard error. Among several processes at once: closing their group would wait for the others,
    while torchrun ends them all as soon as one of them has ended."""
    print(message, file=sys.stderr, flush=True)
    if several_processes():
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


class OneLineParser(argparse.ArgumentParser):
    def error(self, message):
        raise BadInput(f"{message}; see --help")


def parse(Config, doc, argv=None):
    """A checked `Config` (a dataclass) from the command line: a flag for each field, its comment as the help text."""
    source = "".join(inspect.getsource(c) for c in Config.__mro__ if dataclasses.is_dataclass(c))
    comments = dict(re.findall(r"^ +(\w+):[^#\n]*#\s*(.*)$", source, re.M))
    hints = typing.get_type_hints(Config)
    parser = OneLineParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    defaults = Config()
    for f in sorted(dataclasses.fields(Config), key=lambda f: f.name not in vars(Config)["__annotations__"]):  # its own first
        default, kind = getattr(defaults, f.name), hints[f.name]
        help = f"{comments.get(f.name, '')} (default: {default!r})".replace("%", "%%")
        if kind is bool:
            parser.add_argument(f"--{f.name}", action=argparse.BooleanOptionalAction, default=default, help=help)
        elif typing.get_origin(kind) is list:
            parser.add_argument(f"--{f.name}", nargs="+", type=typing.get_args(kind)[0], default=default, help=help,
                                metavar=f.name.upper())
        else:
            parser.add_argument(f"--{f.name}", type=number if kind in (int, float) else kind, default=default, help=help,
                                metavar=f.name.upper())
    cfg = Config(**vars(parser.parse_args(argv)))
    problems = []
    for f in dataclasses.fields(Config):  # 3e6 is a fine way to write an int
        value, kind = getattr(cfg, f.name), hints[f.name]
        if kind is int and isinstance(value, float):
            if value.is_integer():
                setattr(cfg, f.name, int(value))
            else:
                problems.append(f"{f.name} must be a whole number, not {value}")
    problems += cfg.validate() if not problems else []
    if problems:
        raise BadInput("; ".join(problems))
    return cfg


def number(text):
    """An int where the text is one, else a float (argparse names this function when it raises ValueError)."""
    value = float(text.replace("_", ""))
    if not math.isfinite(value):
        raise ValueError
    return int(text) if re.fullmatch(r"[+-]?[\d_]+", text) else value


class Progress:
    """A line with rate and time left on standard error: every second on a terminal, every ten in a log.

    `name` tells runs apart that write to the same terminal. `done` is what an earlier run had done already.
    """

    def __init__(self, name, total, unit, done=0):
        self.name, self.total, self.unit, self.first = name, total, unit, done
        self.start = self.shown = time.time()
        self.tty = sys.stderr.isatty()

    def show(self, done, text=""):
        now = time.time()
        if now - self.shown < (1 if self.tty else 10) or os.environ.get("RANK", "0") != "0":  # one line for all ranks
            return
        self.shown = now
        rate = (done - self.first) / (now - self.start)
        left = f" of {self.total:,}" if self.total else ""
        left += f", {clock((self.total - done) / rate)} left" if self.total and rate else ""
        line = f"{self.name}: {done:,} {self.unit}{left}, {rate:,.{0 if rate > 10 else 2}f}/s {text}"
        print(f"\r{line:<78}" if self.tty else line, end="" if self.tty else "\n", file=sys.stderr, flush=True)

    def close(self):
        if self.tty and self.shown > self.start:
            print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)


def clock(seconds):
    """90 -> '1:30'."""
    s = int(max(seconds, 0))
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"


# ----------------------------------------------------------------------------------------------- files on disk

@contextlib.contextmanager
def replacing(path, mode="w"):
    """Write a file so that at any moment the old one or the whole new one is there: temporary file, fsync, replace."""
    tmp = f"{path}.tmp{os.getpid()}"
    try:
        with open(tmp, mode, encoding=None if "b" in mode else "utf-8") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(tmp)
        raise


def write_json(path, value):
    with replacing(path) as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def write_jsonl(path, records):
    """A record a line; a file that holds the same already is left alone."""
    text = "".join(json.dumps(r) + "\n" for r in records)
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as f:
            if f.read() == text:
                return
    with replacing(path) as f:
        f.write(text)


def save_checkpoint(path, checkpoint):
    """Save a dict of tensors and plain values. Raises BadInput when the disk is full; the old file stays."""
    try:
        with replacing(path, "wb") as f:
            torch.save(checkpoint, f)
    except (OSError, RuntimeError) as e:  # torch's writer turns an OSError into a RuntimeError
        raise BadInput(f"could not save {path} ({str(e).splitlines()[0]}): free some space and run the same command "
                       f"with --resume; the checkpoint before it is as it was")


def load_checkpoint(path, device="cpu"):
    """Load what `save_checkpoint` saved, tensors and plain values only; or GPT-2's weights (gpt2.py). Raises BadInput."""
    import gpt2  # here, as it imports this file
    if gpt2.is_gpt2(path):
        return gpt2.load(path, device)
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        checkpoint["model"], checkpoint["tokenizer_sha256"], GPTConfig(**checkpoint["model_config"])
        return checkpoint
    except FileNotFoundError:
        raise BadInput(f"there is no checkpoint {path}: train one with train_ref.py or train_slm.py, or give another")
    except Exception as e:  # truncated archives raise a dozen kinds
        raise BadInput(f"{path} is not a checkpoint of this repository, or is truncated ({type(e).__name__}); "
                       f"delete it, or train it again")


def load_weights(model, state, path):
    """model.load_state_dict, with BadInput in one line when the shapes differ."""
    try:
        model.load_state_dict(state)
    except RuntimeError as e:
        raise BadInput(f"the weights in {path} do not fit the model: {str(e).splitlines()[1].strip()}; delete it, or train "
                       f"it again")


def resize(checkpoint, block_size=0, pad_vocab=0):
    """Change a checkpoint's model in place (0: leave as it is): forget the positions from block_size on; give the embedding
    rows for a multiple of pad_vocab ids. The rows added are zeros, and never predicted (GPTConfig.pad_vocab)."""
    state, config = checkpoint["model"], checkpoint["model_config"]
    if block_size and block_size < config["block_size"]:
        state["wpe.weight"], config["block_size"] = state["wpe.weight"][:block_size].clone(), block_size
    if pad_vocab and pad_vocab != config.get("pad_vocab", 1):
        config["pad_vocab"], wte = pad_vocab, state["wte.weight"][:config["vocab_size"]]
        state["wte.weight"] = torch.nn.functional.pad(wte, (0, 0, 0, -len(wte) % pad_vocab))


def file_hash(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(2**20):
            h.update(block)
    return h.hexdigest()


def source_revision():
    """The commit of this source tree, '+changes' when it is not committed, or 'unknown'."""
    git = ["git", "-C", os.path.dirname(os.path.abspath(__file__))]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True).returncode
        return head.stdout.strip() + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class RunFolder:
    """The folder of a training run: config.json, metrics.jsonl (append-only), checkpoints, and done.json at the end.

    A folder that holds a run is not written over: BadInput, unless `resume`; then the run must have the same
    configuration (`free` names the fields that may differ, those that do not change the weights).
    """

    def __init__(self, folder, cfg, about, resume, free=()):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        cfg, defaults = dataclasses.asdict(cfg), dataclasses.asdict(type(cfg)())
        if os.path.exists(self.path("config.json")):
            if not resume:
                raise BadInput(f"{folder} already holds a run: add --resume to continue it, or choose another --out")
            held = read_json(self.path("config.json"))
            if any(held.get(k) != v for k, v in about.items()):
                raise BadInput(f"{folder} holds a run on another corpus or with other scores: choose another --out, or "
                               f"delete the folder")
            old = held["config"]
            old = defaults | old  # an option that is newer than the run
            differ = [f"{k}: {old[k]!r} -> {v!r}" for k, v in cfg.items() if old[k] != v and k not in free]
            if differ:
                raise BadInput(f"{folder} holds a run with another configuration ({', '.join(differ)}): "
                               f"choose another --out, or delete the folder")
        else:
            write_json(self.path("config.json"), {
                "config": cfg, **about, "source": source_revision(), "torch": torch.__version__})

    def path(self, name):
        return os.path.join(self.folder, name)

    def open_log(self, step):
        """Open metrics.jsonl to go on at `step`: what an interrupted run logged after its checkpoint is dropped."""
        records = [r for r in read_jsonl(self.path("metrics.jsonl")) if r["step"] < step]
        write_jsonl(self.path("metrics.jsonl"), records)
        self.log_file = open(self.path("metrics.jsonl"), "a", encoding="utf-8", buffering=1)

    def log(self, **record):
        self.log_file.write(json.dumps(record) + "\n")


def read_json(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError:
        raise BadInput(f"there is no {path}")
    except ValueError as e:
        raise BadInput(f"{path} is not JSON: {e}")


def open_text(path):
    """A UTF-8 text file for reading; .gz and .xz are unpacked on the way."""
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(os.path.splitext(path)[1], open)
    return opened(path, "rt", encoding="utf-8")


def json_rows(path):
    """The objects of a user's .jsonl file, plain or packed, as (line number, dict). Raises BadInput."""
    number = 0
    try:
        with open_text(path) as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"found {line.strip()[:40]}")
                    yield number, row
    except UNREADABLE as e:
        raise BadInput(unreadable(path, e))
    except (ValueError, RecursionError) as e:
        raise BadInput(f"{path}, line {number}, is not a JSON object: {e}")


UNREADABLE = (UnicodeError, OSError, EOFError, zlib.error, lzma.LZMAError)  # what reading from `open_text` can raise


def unreadable(path, e):
    """One line about an error of that kind."""
    if isinstance(e, UnicodeError):
        return f"{path} is not UTF-8 text ({e.reason}); convert it first, with iconv for instance"
    if isinstance(e, OSError) and e.strerror:
        return f"cannot read {path}: {e.strerror}"
    return f"{path} is damaged or cut off ({e}); fetch or pack it again"


def read_jsonl(path):
    """The records of a .jsonl file of our own; none if there is no file; lines torn by an interruption are skipped."""
    records = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                with contextlib.suppress(ValueError):
                    records.append(json.loads(line))
    return [r for r in records if isinstance(r, dict)]


# ---------------------------------------------------------------------------------------------------- training

def learning_rate(step, cfg):
    """Linear warm-up, constant, then half a cosine down to cfg.min_lr over the last cfg.decay of the steps."""
    if step < cfg.warmup_steps:
        return cfg.lr * (step + 1) / (cfg.warmup_steps + 1)
    decay_steps = max(1, round(cfg.decay * (cfg.steps - cfg.warmup_steps)))
    done = min(1.0, max(0.0, (step - (cfg.steps - decay_steps)) / decay_steps))
    return cfg.min_lr + (cfg.lr - cfg.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def full_state_dict(state):
    """A state_dict, with the parts of --fsdp put together in memory of the main rank's host (elsewhere they come out empty).
    All ranks must call it."""
    if isinstance(state, (dict, list)):
        full = {k: full_state_dict(v) for k, v in (state.items() if isinstance(state, dict) else enumerate(state))}
        return full if isinstance(state, dict) else list(full.values())
    if not hasattr(state, "full_tensor"):
        return state
    full = state.full_tensor()
    return full.cpu() if torch.distributed.get_rank() == 0 else full.new_empty(0)


def load_optimizer(optimizer, state):
    """optimizer.load_state_dict of a full state_dict. With --fsdp each rank takes its part of it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, values in state["state"].items():
        p = parameters[i]
        for name, t in values.items():
            if hasattr(p, "full_tensor") and t.shape == p.shape:
                values[name] = torch.distributed.tensor.distribute_tensor(t, p.device_mesh, p.placements)
    optimizer.load_state_dict(state)


def adamw(model, cfg, device):
    """AdamW with weight decay on the matrices only, as GPT-2 and nanoGPT have it."""
    groups = [{"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": cfg.weight_decay},
              {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=(0.9, cfg.beta2), fused=device.type in ("cuda", "cpu"))


@torch.no_grad()
def held_out_loss(model, tokens, ranks, max_rows, batch_rows=64):
    """Mean loss over the first max_rows rows, and over their solution tokens if labelled: (loss, solution loss or None).

    Fixed rows, no random numbers, and the model is left in the mode it was in: evaluating changes nothing. Each rank runs a
    part of the rows, and all get the same result (they decide by it when to stop).
    """
    was_training = model.training
    model.eval()
    losses, done = [], 0
    n_rows = min(tokens.n_rows, max_rows)
    while done < n_rows:
        x, y = map(ranks.to_device, tokens.rows(ranks.rows(done, n_rows, batch_rows)))
        with ranks.autocast():
            losses.append(ranks.gather(model.losses(model(x), y))[:n_rows - done].cpu().double())
        done += len(losses[-1])
    model.train(was_training)
    losses = torch.cat(losses)
    if tokens.labels is None:
        return losses.mean().item(), None
    labels = tokens.row_labels(np.arange(n_rows))
    return losses.mean().item(), losses[torch.isin(labels, torch.tensor(corpus.SOLUTIONS))].mean().item()


def selection_stats(losses, selected, labels=None, names=None):
    """What a selection did, for the log: mean loss over all, selected and unselected tokens, the fraction selected and,
    with true labels, precision and recall of the useful tokens and `kept_NAME`, the fraction selected of each label.

    losses, selected: (B, T) float and bool. labels: (B, T) uint8 or None, indices into names.
    """
    losses, selected = losses.cpu().double(), selected.cpu()
    stats = {"corpus_loss": losses.mean().item(), "selected_loss": losses[selected].mean().item(),
             "unselected_loss": None if selected.all() else losses[~selected].mean().item(), "ratio": selected.double().mean().item()}
    if labels is not None:
        useful = torch.isin(labels, torch.tensor(corpus.USEFUL))
        stats["precision"] = useful[selected].double().mean().item()
        stats["recall"] = selected[useful].double().mean().item() if useful.any() else None
        for label, name in enumerate(names):
            of_label = selected[labels == label]
            stats[f"kept_{name}"] = of_label.double().mean().item() if of_label.numel() else None
    return stats


class Ranks:
    """This process among those of torchrun; alone without it. `device` is this rank's."""

    def __init__(self, device):
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.main, self.sharded = self.rank == 0, False
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            self.device = torch.device(f"cuda:{local_rank}" if device == "cuda" else device)
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as e:
            raise BadInput(f"device {device!r} cannot be used here: {str(e).splitlines()[0]}; choose another --device")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        if self.world > 1:
            try:  # a long timeout: who is done with its questions waits for the others; a dead process torchrun sees at once
                torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo",
                                                     timeout=datetime.timedelta(hours=2))
            except (RuntimeError, ValueError) as e:
                raise BadInput(f"the {self.world} processes do not find each other ({str(e).splitlines()[0]:.80}): start them with "
                               f"torchrun --nproc_per_node {self.world}")

    def to_device(self, t):
        """t on this rank's device. A GPU copies it from pinned memory while the host goes on."""
        return t.contiguous().pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else t.to(self.device)

    def synchronize(self):
        """Seconds until the GPU has done all it was given; 0 elsewhere."""
        start = time.time()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.time() - start

    def autocast(self):
        """bfloat16 matrix products on a GPU; float32 on a CPU, where bfloat16 is slower."""
        if self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def shard(self, model):
        """FSDP2 of a model that is still in the host's memory: each rank takes its part of every parameter to its device;
        the whole of a block is put together while it runs."""
        from torch.distributed.fsdp import fully_shard
        mesh = torch.distributed.init_device_mesh(self.device.type, (self.world,))
        for block in model.h:
            fully_shard(block, mesh=mesh)
        # What is not in a block stays whole until its backward pass, since the output layer is used after the forward pass.
        self.sharded = True
        return fully_shard(model, mesh=mesh, reshard_after_forward=False)

    def sync_gradients(self, model, now):
        """Context of a backward pass: whether gradients are exchanged between the ranks with it, or with a later one. (With
        --fsdp always with it: waiting would take the memory of whole gradients.)"""
        return contextlib.nullcontext() if now or self.sharded or self.world == 1 else model.no_sync()

    def rows(self, done, n_rows, most):
        """Numbers of the next rows of a file for this rank, at most `most` of them: those from `done` on are dealt to the ranks
        in order. All get equally many, so at the end some get the last row again: gather(...)[:n_rows - done] has each once."""
        n = min(most, math.ceil((n_rows - done) / self.world))
        return np.minimum(done + self.rank * n + np.arange(n), n_rows - 1)

    def gather(self, t):
        """The (n, ...) tensors of all ranks, in the order of the ranks, as one (world * n, ...). All ranks must call it."""
        if self.world == 1:
            return t
        parts = [torch.empty_like(t) for _ in range(self.world)]
        torch.distributed.all_gather(parts, t.contiguous())
        return torch.cat(parts)

    def any(self, flag):
        """Whether `flag` is set on any rank: all must leave a loop together, or those that stay wait for ever. All must call it."""
        return flag if self.world == 1 else bool(self.gather(torch.tensor([float(flag)], device=self.device)).any())

    def barrier(self):
        """Wait until all ranks are here."""
        self.any(False)


class StopSignal:
    """Ctrl-C and SIGTERM end a run after the step at hand, so that it can save; a second one ends it at once."""

    def __init__(self):
        self.received = False
        for s in (signal.SIGINT, signal.SIGTERM):
            signal.signal(s, self.handle)

    def handle(self, signum, frame):
        if self.received:
            raise KeyboardInterrupt
        self.received = True
