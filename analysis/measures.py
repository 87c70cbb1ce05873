"""
How much of a loss on held-out text is skill, and how much is probability left for what that text never has?

    python -m analysis.measures --ckpt out/slm/ckpt.pt --data data/demo

A model trained on noisy text must leave probability for noise, and one that selected tokens need not:

    raw          the test loss as it is
    masked       ids that neither curated nor val have cannot be predicted: they get no probability

each over all tokens, over solutions and over results (where the corpus labels them), and the share of results
that are the likeliest token. A target that cannot be predicted is left out of masked. A line goes to
eval/measures.jsonl beside the checkpoint. In memory: max_rows x block_size x vocabulary x 8 bytes.
"""
import os
from dataclasses import dataclass, field

import numpy as np
import torch

from data import Tokens
from engine.checkpoints import load_model
from engine.cli import Progress, launch
from engine.files import file_hash, read_jsonl, write_jsonl
from engine.ranks import Ranks
from model import token_loss

NEVER = -1e4  # lower than any logit


@dataclass
class Config:
    ckpt: list[str] = field(default_factory=list)   # checkpoints to measure
    data: str = "data/demo"         # corpus folder
    max_rows: int = 512             # of test
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not self.ckpt:
            yield "--ckpt names the checkpoints to measure"
        if self.max_rows < 1:
            yield f"max_rows must be at least 1, not {self.max_rows}"


@torch.no_grad()
def logits_of(model, tokens, max_rows, ranks, batch_rows=64):
    """Logits (n, V) and targets (n,) of the first rows of a token file, on the host."""
    x, y = tokens.rows(np.arange(min(tokens.n_rows, max_rows)))                              # (rows, T) each
    logits = []
    for rows in x.split(batch_rows):
        with ranks.autocast():
            logits.append(model.logits(model(ranks.to_device(rows))).float().cpu())          # (B, T, V)
    return torch.cat(logits).flatten(0, 1), y.flatten()                                      # (n, V), (n,)


def measure(model, cfg, ranks):
    """The record of a model: {measure: value}. Of a group without members there is none."""
    T = model.config.block_size
    val, test, curated = (Tokens(cfg.data, name, T) for name in ("val", "test", "curated"))
    never = torch.ones(model.config.vocab_size, dtype=torch.bool)                            # (V,)
    seen = np.union1d(curated.tokens, val.tokens).astype(np.int64)
    never[torch.from_numpy(seen)] = False
    logits, targets = logits_of(model, test, cfg.max_rows, ranks)                            # (n, V), (n,)
    possible = ~never[targets]                                                               # (n,)
    groups = {"": torch.ones_like(possible)}                                                 # (n,) bool each
    if test.labels is not None:
        labels = test.row_labels(np.arange(min(test.n_rows, cfg.max_rows))).flatten()        # (n,)
        groups["_solution"] = torch.isin(labels, test.label_numbers("solution"))
        groups["_result"] = labels == test.label_names.index("result")
    groups = {group: members for group, members in groups.items() if (members & possible).any()}
    record = {"impossible_targets": 1 - possible.double().mean().item()}
    if "_result" in groups:
        right = logits.argmax(dim=1) == targets                                              # (n,)
        record["likeliest_result"] = right[groups["_result"]].double().mean().item()
    losses = {"raw": token_loss(logits, targets)}                                            # (n,) each
    logits = logits.masked_fill(never, NEVER)
    losses["masked"] = token_loss(logits, targets)
    for name, loss in losses.items():
        for group, members in groups.items():
            counted = members if name == "raw" else members & possible
            record[f"{name}{group}"] = loss[counted].mean().item()
    return record


def main(cfg):
    ranks = Ranks(cfg.device)
    *others, test = [Tokens(cfg.data, name, 1) for name in ("curated", "val", "test")]
    progress = Progress("measures", len(cfg.ckpt), "checkpoints")
    for number, path in enumerate(cfg.ckpt):
        progress.show(number)
        out = os.path.join(os.path.dirname(path), "eval", "measures.jsonl")
        about = {"ckpt": os.path.splitext(os.path.basename(path))[0], "ckpt_sha256": file_hash(path),
                 "test_sha256": test.sha256, "max_rows": cfg.max_rows}
        held = read_jsonl(out)
        if any(about.items() <= r.items() for r in held):
            continue
        model, checkpoint = load_model(path, test.tokenizer_sha256, cfg.data, ranks.device, *others, test)
        record = about | {"step": checkpoint.get("step"), "tokens": checkpoint.get("tokens")}
        record |= measure(model, cfg, ranks)
        os.makedirs(os.path.dirname(out), exist_ok=True)
        write_jsonl(out, [r for r in held if r["ckpt"] != about["ckpt"]] + [record])
        print(f"{path}: test loss {record['raw']:.4f}, masked {record['masked']:.4f}")
    progress.close()


if __name__ == "__main__":
    launch(main, Config, __doc__)
