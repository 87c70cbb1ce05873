"""What a run leaves on disk: checkpoints, and its folder with config.json, metrics.jsonl and done.json."""
import json
import math
import os
from dataclasses import asdict

import torch

from engine.cli import BadInput
from engine.files import file_hash, read_json, read_jsonl, replacing, source_revision, write_json, write_jsonl
from engine.ranks import full_state_dict
from model import GPT, GPTConfig


def save_checkpoint(path, checkpoint):
    """Save a dict of tensors and plain values. Raises BadInput when the disk is full; the old file stays."""
    try:
        with replacing(path, "wb") as f:
            torch.save(checkpoint, f)
    except (OSError, RuntimeError) as e:  # torch's writer turns an OSError into a RuntimeError
        raise BadInput(f"could not save {path} ({str(e).splitlines()[0]}): free some space and run the "
                       f"command again (a training run with --resume); what was there before is as it was")


def load_checkpoint(path):
    """What `save_checkpoint` saved, tensors and plain values only. Raises BadInput."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if {"dropout", "bias"} & checkpoint["model_config"].keys():
            raise BadInput(f"{path} is of an older revision, with dropout and bias: train it again")
        GPTConfig(**checkpoint["model_config"])  # raises TypeError where it is some other program's
        if not {"model", "tokenizer_sha256"} <= checkpoint.keys():
            raise KeyError
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(f"there is no checkpoint {path}: train one, or make one (python -m weights.published)")
    except (PermissionError, BadInput):
        raise  # engine/cli.py says it
    except Exception as e:  # truncated archives raise a dozen kinds
        raise BadInput(f"{path} is not a checkpoint of this repository, is truncated, or does not fit into "
                       f"memory ({type(e).__name__}): give another, or train it again")
    return checkpoint


def model_of(checkpoint, path, tokenizer_sha256, source, *corpora):
    """The GPT of a checkpoint, which is to read `corpora`. source: whose tokenizer it is. Raises BadInput."""
    if checkpoint["tokenizer_sha256"] != tokenizer_sha256:
        raise BadInput(f"{path} was trained with another tokenizer than {source}'s: give its own --data")
    model = GPT(GPTConfig(**checkpoint["model_config"]))
    try:
        model.load_state_dict(checkpoint["model"])
    except RuntimeError as e:
        raise BadInput(f"the weights in {path} do not fit: {str(e).splitlines()[1].strip()}; train it again")
    for tokens in corpora:
        if tokens.vocab_size > model.config.vocab_size:  # only then the text is read
            highest = int(tokens.tokens.max())
            must_have_row(model, path, highest, tokens.vocab_size, f"{tokens.path}.bin")
    return model


def must_have_row(model, path, highest, n_ids, source):
    """Raises BadInput where the highest id of a text from `source`, of n_ids, has no row in these weights."""
    n_rows = model.config.vocab_size
    if highest >= n_rows:
        raise BadInput(f"{path} has rows for {n_rows} token ids, the tokenizer of {source} has {n_ids}, and "
                       f"id {highest} is in use: give weights with a row for each id, or another corpus")


def load_model(path, tokenizer_sha256, source, device, *corpora):
    """(model on the device, in eval mode; its checkpoint), see `model_of`."""
    checkpoint = load_checkpoint(path)
    return model_of(checkpoint, path, tokenizer_sha256, source, *corpora).to(device).eval(), checkpoint


def hashes_of(init_from, **corpora):
    """What a run compares when it is resumed: hashes of these Tokens, their labels and its first weights."""
    hashes = {}
    for name, tokens in corpora.items():
        hashes |= {f"{name}_sha256": tokens.sha256, f"{name}_labels_sha256": tokens.labels_hash()}
    if os.path.isfile(init_from):  # a run that is resumed goes on from its own, and this may be gone
        hashes["init_from_sha256"] = file_hash(init_from)
    return hashes


class RunFolder:
    """The folder of a training run. One that holds a run is not written over: BadInput, unless cfg.resume and
    all but cfg.may_differ() is the same. made_from: its `hashes_of`. main: whether this process writes."""

    def __init__(self, cfg, made_from, main):
        self.folder, self.cfg, self.main = cfg.out, cfg, main
        if main:
            os.makedirs(cfg.out, exist_ok=True)
            if os.path.exists(self.path("config.json")):
                self.check_same(made_from)
            else:
                about = {"source": source_revision(), "torch": torch.__version__}
                write_json(self.path("config.json"), {"config": asdict(cfg), **made_from, **about})
        self.finished = os.path.exists(self.path("done.json"))
        if self.finished and main:
            print(f"{cfg.out}: finished before, nothing to do")

    def check_same(self, made_from):
        folder, held, ours = self.folder, read_json(self.path("config.json")), asdict(self.cfg)
        if not self.cfg.resume:
            raise BadInput(f"{folder} already holds a run: add --resume to go on, or choose another --out")
        other = [k.removesuffix("_sha256") for k, v in made_from.items() if held.get(k) != v]
        if other:
            other = ", ".join(other)
            raise BadInput(f"{folder} holds a run made from other files ({other}): choose another --out")
        old = asdict(type(self.cfg)()) | held["config"]  # defaults: of an option that is newer than the run
        changed = [f"{k}: {old[k]!r} -> {ours.get(k)!r}" for k in old
                   if ours.get(k) != old[k] and k not in self.cfg.may_differ()]
        if changed:
            raise BadInput(f"{folder} holds a run with another configuration ({', '.join(changed)}): give "
                           f"the same, --micro_rows on other numbers of processes, or choose another --out")

    def path(self, name):
        return os.path.join(self.folder, name)

    def open_log(self, step):
        """Open metrics.jsonl to go on at `step`; what an interrupted run logged from there on is dropped."""
        if self.main:
            records = [r for r in read_jsonl(self.path("metrics.jsonl")) if r["step"] < step]
            write_jsonl(self.path("metrics.jsonl"), records)
            self.log_file = open(self.path("metrics.jsonl"), "a", encoding="utf-8", buffering=1)

    def log(self, record):
        if self.main:
            self.log_file.write(json.dumps(record) + "\n")

    def must_be_finite(self, value, name, step):
        """Raises BadInput where a loss is infinite or NaN, so that nothing good on disk is replaced."""
        if not math.isfinite(value):
            raise BadInput(f"the {name} is not finite at step {step}: lower --lr; {self.folder} is as it was")

    def save(self, name, model, state):
        """A checkpoint of the model, with `state` besides; all processes must call it. Raises BadInput."""
        weights, state = full_state_dict(model.state_dict()), full_state_dict(state)
        if not all(torch.isfinite(w).all() for w in weights.values()):
            raise BadInput(f"the weights are not finite at step {state['step']}: lower --lr; {self.folder} "
                           f"is as it was")
        if self.main:
            save_checkpoint(self.path(name), {"model": weights, "model_config": asdict(model.config),
                                              "config": asdict(self.cfg), **state})

    def finish(self, model, record, best):
        """done.json, and a line that says how it went. record: the last evaluation."""
        if self.main:
            parameters = sum(p.numel() for p in model.parameters())
            write_json(self.path("done.json"), {**record, "best_val_loss": best, "parameters": parameters})
            text = (f"{self.folder}: {record['step']:,} steps, {record['tokens']:,} tokens, "
                    f"{record['seconds']:.0f} s, test loss {record['test_loss']:.4f}")
            if best < record["val_loss"]:
                text += f", best val loss {best:.4f}"
            print(text)
