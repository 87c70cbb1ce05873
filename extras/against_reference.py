"""
Does a model learn what its reference does not know? The mechanism of selection by excess loss, as a table and
a figure.

    python -m extras.against_reference --ref out/hard/seed*/ref/best.pt --ckpt out/hard/seed*/slm/ckpt.pt \\
        out/hard/seed*/clm/ckpt.pt --data data/hard/seed* --out results/hard/mechanism

The results of the test text (numbers that have to be computed) are put into bands by the reference's loss,
from what it knows to what it does not. For each band: its share, the reference's loss, and of each arm the
loss, the share of results on which it is ahead of the reference, and the share whose likeliest token is
right. A token on which the model is ahead of its reference leaves the top k, and is forgotten until it
returns: if that is what happens, SLM follows its reference up from band to band, and CLM does not.

--ref and --data name a file and a folder for each seed, in the same order; --ckpt as many for each arm. An
arm is called by the folder of its checkpoint. Writes OUT/results.json, table.md and bands.png.
"""
import os
from dataclasses import dataclass, field

import numpy as np
import torch

from common import load_model
from data import Tokens
from engine.cli import BadInput, run
from engine.ranks import Ranks
from engine.report import pyplot, save_figure, table_lines, write_report
from extras.measures import logits_of
from model import token_loss

BANDS = (0.1, 0.5, 1.0, 2.0)  # ends of the bands of reference loss, in nats


@dataclass
class Config:
    ref: list[str] = field(default_factory=list)    # the reference model of each seed
    ckpt: list[str] = field(default_factory=list)   # the arms' checkpoints, of each seed
    data: list[str] = field(default_factory=list)   # the corpus folder of each seed
    out: str = "out/mechanism"      # folder for the results
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not self.ref or len(self.ref) != len(self.data):
            yield f"--ref and --data take as many files as folders, not {len(self.ref)} and {len(self.data)}"
        elif not self.ckpt or len(self.ckpt) % len(self.ref):
            yield f"--ckpt takes a checkpoint of each arm for each of the {len(self.ref)} seeds"


def result_losses(path, data, contexts, ranks):
    """The losses (n,) of the test text's results under a checkpoint, and which are its likeliest tokens (n,).
    The model's context is added to the set `contexts`: there may be one only, or the rows are not the same.
    Raises BadInput."""
    test = Tokens(data, "test", 1)
    if "result" not in (test.label_names or []):
        raise BadInput(f"{data}/test has no tokens labelled `result`: give a built-in corpus")
    model, _ = load_model(path, test.tokenizer_sha256, data, ranks.device, test)
    contexts.add(model.config.block_size)
    if len(contexts) > 1:
        raise BadInput(f"{path} has another context than the models before it, {sorted(contexts)} tokens, so "
                       f"that the rows of the test text are not the same: give models of one block_size")
    test = Tokens(data, "test", model.config.block_size)
    logits, targets = logits_of(model, test, test.n_rows, ranks)                         # (n, V), (n,)
    labels = test.row_labels(np.arange(test.n_rows)).flatten()                           # (n,)
    results = labels == test.label_names.index("result")
    logits, targets = logits[results], targets[results]
    return token_loss(logits, targets).numpy(), (logits.argmax(dim=1) == targets).numpy()


def collect(cfg, ranks):
    """[{"band", "share", "reference", "arms": {arm: {"loss", "ahead", "likeliest"}}}], over the results of
    all seeds together. Raises BadInput."""
    arms = {}  # {arm: its checkpoints, one a seed}
    for path in cfg.ckpt:
        arms.setdefault(os.path.basename(os.path.dirname(path)), []).append(path)
    if any(len(paths) != len(cfg.ref) for paths in arms.values()):
        raise BadInput(f"--ckpt has not {len(cfg.ref)} checkpoints of each of {', '.join(arms)}")
    contexts = set()
    reference = np.concatenate([result_losses(path, data, contexts, ranks)[0]
                                for path, data in zip(cfg.ref, cfg.data)])
    of_arm = {}
    for arm, paths in arms.items():
        parts = [result_losses(path, data, contexts, ranks) for path, data in zip(paths, cfg.data)]
        of_arm[arm] = [np.concatenate(part) for part in zip(*parts)]
    bands = []
    for low, high in zip((0.0, *BANDS), (*BANDS, np.inf)):
        inside = (low <= reference) & (reference < high)
        if not inside.any():
            continue
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
        found = {arm: {"loss": float(loss[inside].mean()), "ahead": float((loss < reference)[inside].mean()),
                       "likeliest": float(right[inside].mean())} for arm, (loss, right) in of_arm.items()}
        bands.append({"band": name, "share": float(inside.mean()),
                      "reference": float(reference[inside].mean()), "arms": found})
    return bands


def table(bands):
    """The bands in Markdown."""
    arms = list(bands[0]["arms"])
    headings = ["reference loss of the result", "share", "the reference"]
    headings += [f"{arm}: loss, ahead of the reference, likeliest" for arm in arms]
    rows = []
    for band in bands:
        row = [band["band"], f"{band['share']:.0%}", f"{band['reference']:.2f}"]
        for arm in arms:
            found = band["arms"][arm]
            row.append(f"{found['loss']:.2f}, {found['ahead']:.0%}, {found['likeliest']:.0%}")
        rows.append(row)
    return "\n".join(table_lines(headings, rows)) + "\n"


def draw(bands, path):
    """The loss of each arm against the reference's, band by band."""
    plt = pyplot()
    fig, ax = plt.subplots(figsize=(7, 5.5))
    reference = [band["reference"] for band in bands]
    ax.plot(reference, reference, color="black", linestyle=":", label="the reference itself")
    for arm in bands[0]["arms"]:
        ax.plot(reference, [band["arms"][arm]["loss"] for band in bands], marker="o", label=arm)
    ax.set(xlabel="reference loss of a result", ylabel="loss of the result after training")
    ax.legend()
    save_figure(fig, path)


def main(cfg):
    bands = collect(cfg, Ranks(cfg.device))
    write_report(cfg.out, bands, table(bands), {"bands.png": draw})


if __name__ == "__main__":
    run(main, Config, __doc__)
