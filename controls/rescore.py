"""
Other scores to select by, made once from scores that are there: of two models, documents, labels.

    python -m controls.rescore --how random --out out/random                             # any tokens
    python -m controls.rescore --how less --scores out/scores out/base --out out/frozen  # reference less base
    python -m controls.rescore --labels solution result --scores out/scores --out out/answers

OUT is a folder like those of score.py. `train_slm.py --scores OUT --rank_by ref` selects the tokens of lowest
score. With --labels all other tokens get inf, which is never selected: with --scores too, select by excess;
alone, --rank_by ref --keep 1.0 counts just these tokens. In memory: some 15 bytes a token. --how is

    loss            as it is                          documents       the mean over the token's document
    less            the first less the second         random          numbers in [0, 1); needs no --scores
"""
from dataclasses import dataclass, field

import numpy as np

from data import Scores, Tokens, about_scores, are_there, report_scores, write_scores
from engine.cli import BadInput, launch

NEEDS = {"loss": (0, 1), "less": (2, 2), "documents": (1, 1), "random": (0, 0)}  # folders: least, most


@dataclass
class Config:
    scores: list[str] = field(default_factory=list)   # folders that score.py or this wrote
    how: str = "loss"               # what is made of them, see above
    labels: list[str] = field(default_factory=list)   # only tokens of these true labels (none named: all)
    data: str = "data/demo"         # corpus folder
    corpus: str = "noisy"           # which of its token files
    block_size: int = 192           # row length T, that of the scores and of the training run
    seed: int = 0                   # of --how random
    out: str = "out/rescored"       # folder to write

    def validate(self):
        if self.how not in NEEDS:
            yield f"how must be {', '.join(NEEDS)}, not {self.how!r}"
        else:
            least, most = NEEDS[self.how]
            if not least <= len(self.scores) <= most:
                yield f"--how {self.how} takes {least} to {most} folders of scores, not {len(self.scores)}"
            if self.how == "loss" and not self.scores and not self.labels:
                yield "--how loss takes --scores, --labels, or both"
        if self.seed < 0:
            yield f"seed must not be negative, but is {self.seed}"


def document_means(loss, tokens):
    """The mean over the known losses of a token's document, (n,); documents go across the ends of rows."""
    ends = np.asarray(tokens.tokens[:len(loss)]) == tokens.meta["end_of_text"]     # (n,): before this target
    document, known = np.cumsum(ends, dtype=np.int32), np.isfinite(loss)           # (n,) each
    total = np.bincount(document[known], loss[known], minlength=document[-1] + 1)  # (documents,)
    count = np.bincount(document[known], minlength=document[-1] + 1)               # (documents,)
    mean = np.divide(total, count, out=np.full(len(total), np.inf), where=count > 0)
    return mean[document].astype(np.float32)


def combine(how, losses, tokens, seed):
    """(n,) float32, a number for each target. losses: [(n,)] of the folders."""
    if how == "random":
        return np.random.default_rng(seed).random(tokens.n_rows * tokens.T, dtype=np.float32)
    if how == "documents":
        return document_means(losses[0], tokens)
    if how == "less":
        unknown = ~np.isfinite(losses[0]) | ~np.isfinite(losses[1])
        return np.where(unknown, np.inf, losses[0] - np.where(unknown, 0, losses[1]))
    return losses[0]


def unwanted(labels, tokens):
    """Which targets have none of these true labels, (n,) bool. Raises BadInput."""
    names = tokens.label_names or []
    of_label = [number for number, name in enumerate(names) if name in labels]
    found = ~np.isin(tokens.labels[1:tokens.n_rows * tokens.T + 1], of_label) if names else np.array([True])
    if set(labels) - set(names) or found.all():
        raise BadInput(f"{tokens.path}.bin has no targets labelled {' or '.join(labels)}; the labels it may "
                       f"have are: {', '.join(names or ['none'])}")
    return found


def main(cfg):
    tokens = Tokens(cfg.data, cfg.corpus, cfg.block_size)
    sources = [Scores(folder, tokens) for folder in cfg.scores]
    about = about_scores(tokens, cfg.corpus, {
        "how": cfg.how, "labels": cfg.labels, "seed": cfg.seed, "of": [s.sha256 for s in sources],
        "labels_sha256": tokens.meta.get("labels_sha256") if cfg.labels else None})
    if are_there(cfg.out, about):
        return report_scores(cfg.out, tokens)
    losses = [scores.all() for scores in sources]                                  # (n,) float32 each
    if not losses:
        losses = [np.zeros(tokens.n_rows * tokens.T, dtype=np.float32)]            # labels alone: all equal
    out = unwanted(cfg.labels, tokens) if cfg.labels else np.zeros(len(losses[0]), dtype=bool)
    for values in losses:
        values[out] = np.inf    # before they are combined: a document's mean is over its wanted tokens
    values = combine(cfg.how, losses, tokens, cfg.seed)
    values[out] = np.inf
    if not np.isfinite(values).any():
        raise BadInput("no wanted token has a score: give other --scores or --labels")
    write_scores(cfg.out, about, values)
    report_scores(cfg.out, tokens)


if __name__ == "__main__":
    launch(main, Config, __doc__)
