"""
How much of a loss on held-out text is skill, and how much is probability left for what that text never has?

    python -m extras.measures --ckpt out/slm/ckpt.pt --data data/demo

A model trained on noisy text must leave probability for noise, and one that selected tokens need not. So the
test loss is measured three times:

    raw          as it is
    masked       ids that neither curated nor val have cannot be predicted: they get no probability
    calibrated   masked, and a temperature and a bias for each id besides, fitted on `val`, applied to `test`

each over all tokens, over those of solutions and over results (where the corpus labels them), and with it
the share of results that are the likeliest token, which none of the three changes much. A target that cannot
be predicted is left out of the last two. `eval/measures.jsonl` beside the checkpoint gets a line; what is
there already, measured in the same way, is not measured again. All logits are in memory: max_rows x
block_size x vocabulary x 4 bytes, three times.
"""
import os
from dataclasses import dataclass, field

import numpy as np
import torch

from common import load_model
from data import Tokens
from engine.cli import Progress, run
from engine.files import file_hash, read_jsonl, write_jsonl
from engine.ranks import Ranks
from model import token_loss

NAMES = ("raw", "masked", "calibrated")
NEVER = -1e4  # lower than any logit; not -inf, whose gradient by the temperature is no number


@dataclass
class Config:
    ckpt: list[str] = field(default_factory=list)   # checkpoints to measure
    data: str = "data/demo"         # corpus folder
    max_rows: int = 512             # of val and of test
    calibrate: bool = True          # the third measure, which takes longest
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not self.ckpt:
            yield "--ckpt names the checkpoints to measure"
        if self.max_rows < 1:
            yield f"max_rows must be at least 1, not {self.max_rows}"


@torch.no_grad()
def logits_of(model, tokens, max_rows, ranks, batch_rows=64):
    """Logits (n, V) and targets (n,) of the first rows of a token file, on the host."""
    logits, targets = [], []
    for at in range(0, min(tokens.n_rows, max_rows), batch_rows):
        x, y = tokens.rows(np.arange(at, min(at + batch_rows, tokens.n_rows, max_rows)))     # (B, T) each
        with ranks.autocast():
            out = model.logits(model(ranks.to_device(x)))                                    # (B, T, V)
        logits.append(out.float().cpu().flatten(0, 1))                                       # (B*T, V)
        targets.append(y.flatten())                                                          # (B*T,)
    return torch.cat(logits), torch.cat(targets)


def fit_calibration(logits, targets, bias_decay=1e-3):
    """One temperature and one bias per id that minimize the loss of targets (n,) under logits (n, V), with a
    weight decay on the biases: (temperature, bias)."""
    log_temperature = torch.zeros((), requires_grad=True)
    bias = torch.zeros(logits.size(1), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature, bias], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = token_loss(logits / log_temperature.exp() + bias, targets).mean()
        loss = loss + bias_decay * bias.square().mean()
        loss.backward()
        return loss
    optimizer.step(closure)
    return log_temperature.exp().detach(), bias.detach()


def measure(model, cfg, ranks):
    """The record of a model: {measure: value}. Of a group without members there is none."""
    T = model.config.block_size
    val, test, curated = (Tokens(cfg.data, name, T) for name in ("val", "test", "curated"))
    never = torch.ones(model.config.vocab_size, dtype=torch.bool)                            # (V,)
    for tokens in (curated, val):
        never[torch.from_numpy(np.unique(tokens.tokens).astype(np.int64))] = False
    logits, targets = logits_of(model, test, cfg.max_rows, ranks)                            # (n, V), (n,)
    groups = {"": torch.ones_like(targets, dtype=torch.bool)}
    if test.labels is not None:
        labels = test.row_labels(np.arange(min(test.n_rows, cfg.max_rows))).flatten()        # (n,)
        groups["_solution"] = torch.isin(labels, test.label_numbers("solution"))
        groups["_result"] = labels == test.label_names.index("result")
    possible = ~never[targets]                                                               # (n,)
    groups = {group: members for group, members in groups.items() if (members & possible).any()}
    record = {"impossible_targets": never[targets].double().mean().item()}

    def losses(name, logits, counted):
        loss = token_loss(logits, targets)
        for group, members in groups.items():
            record[f"{name}{group}"] = loss[members & counted].mean().item()
    losses("raw", logits, torch.ones_like(possible))
    if "_result" in groups:
        likeliest = logits[groups["_result"]].argmax(dim=1)
        record["likeliest_result"] = (likeliest == targets[groups["_result"]]).double().mean().item()
    logits = logits.masked_fill(never, NEVER)
    losses("masked", logits, possible)
    if cfg.calibrate:
        val_logits, val_targets = logits_of(model, val, cfg.max_rows, ranks)
        temperature, bias = fit_calibration(val_logits.masked_fill(never, NEVER), val_targets)
        losses("calibrated", logits / temperature + bias, possible)
    return record


def main(cfg):
    ranks, test = Ranks(cfg.device), Tokens(cfg.data, "test", 1)
    progress = Progress("measures", len(cfg.ckpt), "checkpoints")
    for number, path in enumerate(cfg.ckpt, 1):
        out = os.path.join(os.path.dirname(path), "eval", "measures.jsonl")
        about = {"ckpt": os.path.splitext(os.path.basename(path))[0], "ckpt_sha256": file_hash(path),
                 "test_sha256": test.sha256, "max_rows": cfg.max_rows, "calibrate": cfg.calibrate}
        held = read_jsonl(out)
        if any(about.items() <= r.items() for r in held):
            continue
        read = [Tokens(cfg.data, name, 1) for name in ("curated", "val", "test")]
        model, checkpoint = load_model(path, test.tokenizer_sha256, cfg.data, ranks.device, *read)
        record = about | {"step": checkpoint.get("step"), "tokens": checkpoint.get("tokens")}
        record |= measure(model, cfg, ranks)
        os.makedirs(os.path.dirname(out), exist_ok=True)
        write_jsonl(out, [r for r in held if r["ckpt"] != about["ckpt"]] + [record])
        print(f"{path}: test loss " + ", ".join(f"{n} {record[n]:.4f}" for n in NAMES if n in record))
        progress.show(number)
    progress.close()


if __name__ == "__main__":
    run(main, Config, __doc__)
