"""
How often is the right result the likeliest token, given all that stands before it in held-out text?

    python -m analysis.measures --ckpt out/slm/ckpt.pt --data data/demo

An answer is right where all of its results are, and each is carried on; here every result counts by itself.
It takes a corpus with the label `result`, as the built-in one has. A line goes to eval/measures.jsonl beside
the checkpoint.
"""
import os
from dataclasses import dataclass, field

import torch

from data import Tokens
from engine.checkpoints import load_model
from engine.cli import BadInput, Progress, launch
from engine.files import file_hash, read_jsonl, write_jsonl
from engine.ranks import Ranks


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
def likeliest_result(model, tokens, max_rows, ranks, batch_rows=64):
    """The share of the targets labelled `result`, in the first rows of a Tokens, that the model finds the
    likeliest. Raises BadInput where there are none."""
    if "result" not in (tokens.label_names or []):
        raise BadInput(f"{tokens.path}.bin has no tokens labelled `result`: this is for the built-in corpus")
    n_right = n_results = 0
    for rows in torch.arange(min(tokens.n_rows, max_rows)).split(batch_rows):
        x, y = map(ranks.to_device, tokens.rows(rows.numpy()))                           # (B, T) each
        with ranks.autocast():
            likeliest = model.logits(model(x)).argmax(dim=-1)                            # (B, T)
        is_result = tokens.row_labels(rows.numpy()) == tokens.label_names.index("result")        # (B, T)
        n_right += int((likeliest == y).cpu()[is_result].sum())
        n_results += int(is_result.sum())
    return n_right / max(1, n_results)


def main(cfg):
    ranks = Ranks(cfg.device)
    progress = Progress("measures", len(cfg.ckpt), "checkpoints")
    for number, path in enumerate(cfg.ckpt):
        progress.show(number)
        tokens = Tokens(cfg.data, "test", 1)
        model, checkpoint = load_model(path, tokens.tokenizer_sha256, cfg.data, ranks.device, tokens)
        out = os.path.join(os.path.dirname(path), "eval", "measures.jsonl")
        about = {"ckpt": os.path.splitext(os.path.basename(path))[0], "ckpt_sha256": file_hash(path),
                 "test_sha256": tokens.sha256, "max_rows": cfg.max_rows}
        held = read_jsonl(out)
        if any(about.items() <= r.items() for r in held):
            continue
        test = Tokens(cfg.data, "test", model.config.block_size)
        record = about | {"step": checkpoint.get("step"), "tokens": checkpoint.get("tokens"),
                          "likeliest_result": likeliest_result(model, test, cfg.max_rows, ranks)}
        os.makedirs(os.path.dirname(out), exist_ok=True)
        write_jsonl(out, [r for r in held if r["ckpt"] != about["ckpt"]] + [record])
        print(f"{path}: {record['likeliest_result']:.1%} of the results likeliest")
    progress.close()


if __name__ == "__main__":
    launch(main, Config, __doc__)
