"""
Variants of the selection, each behind an option of train_slm.py. Without these options nothing here changes anything
(but for the control `--select random`, whose scores are made here).

    --select low_ref / low_entropy / ...           the reference model's loss and entropy (score.py --entropy), no excess
    --more_scores out/scores_b --combine min      several reference models: the mean, or the lowest, of their losses
    --softmax_tau 1.0                             all tokens, weighted by softmax(score / tau), instead of the top ones
    --keep_warmup 500                             keep falls from 1.0 to its value over the first steps
    --rank_rows 4                                 so many rows are ranked at a time, not all of the step
    --labels solution result wrong                only targets of these labels are ranked, counted and trained on

The first is the paper's self-reference, the others are the simplest forms of what it names as future work. runs/paper.sh
runs them all with their controls; docs/reading_group.md says what came out.
"""
import dataclasses
import os
from dataclasses import dataclass

import numpy as np
import torch

from common import BadInput
from score import Scores

BY_ENTROPY = ("low_entropy", "intersection", "union")
SELECT = ("excess", "random", "high_loss", "low_ref", *BY_ENTROPY)


@dataclass
class Options:
    """The options above; train_slm.py's configuration has these too."""
    more_scores: list[str] = dataclasses.field(default_factory=list)  # variant: folders of other reference models' scores
    combine: str = "mean"           # variant: of several reference losses, the mean or the min
    softmax_tau: float = 0.0        # variant: above 0, all tokens weighted by softmax(score / tau); keep does not matter
    max_weight: float = 0.0         # variant: cut such weights, whose mean is 1, to this (0: no limit)
    keep_warmup: int = 0            # variant: steps over which keep falls from 1.0 to its value
    rank_rows: int = 0              # variant: rank so many rows at a time: no second forward pass (0: all of the step)
    labels: list[str] = dataclasses.field(default_factory=list)  # variant: only targets of these labels (none: all)

    def problems(self):
        if not 0 < self.keep <= 1:
            yield f"keep must lie in (0, 1], not {self.keep}"
        if self.select not in SELECT:
            yield f"select must be {', '.join(SELECT[:-1])} or {SELECT[-1]}, not {self.select!r}"
        if self.combine not in ("mean", "min"):
            yield f"combine must be mean or min, not {self.combine!r}"
        for name in ("softmax_tau", "max_weight", "keep_warmup", "rank_rows"):
            if getattr(self, name) < 0:
                yield f"{name} must not be negative, but is {getattr(self, name)}"
        if self.softmax_tau and (self.keep_warmup or self.filter_backward or self.select in BY_ENTROPY[1:]):
            yield "softmax_tau weighs all tokens: it does not go with keep_warmup, filter_backward, intersection or union"
        if self.rank_rows and (self.labels or self.softmax_tau or self.micro_rows not in (0, self.rank_rows)):
            yield "rank_rows is the number of rows of a forward pass: it does not go with micro_rows, labels or softmax_tau"
        elif self.rank_rows > 0 and self.batch_tokens % (
                self.block_size * self.rank_rows * int(os.environ.get("WORLD_SIZE", 1))):
            yield f"batch_tokens ({self.batch_tokens}) must be divisible by block_size x rank_rows x ranks"
        if self.max_weight and (self.max_weight < 1 or not self.softmax_tau):
            yield "max_weight needs softmax_tau, and must be at least 1, the mean of the weights"
        if self.more_scores and (self.select not in ("excess", "low_ref") or (self.keep == 1 and not self.softmax_tau)):
            yield "more_scores is for select excess and low_ref, with keep below 1 or softmax_tau"


class Variants:
    """The files that the options need, opened once, and what they change in a step. train: the Tokens trained on. scores:
    those of cfg.scores, or None. ranked: whether anything is ranked or weighed."""

    def __init__(self, cfg, train, scores, ranked):
        self.cfg, self.train = cfg, train
        self.more = [Scores(folder, train) for folder in cfg.more_scores] if scores else []
        self.loss, self.entropy = ((Scores(cfg.scores, train, name) for name in ("loss", "entropy"))
                                   if ranked and cfg.select in BY_ENTROPY else (None, None))
        names = train.label_names or []
        self.wanted = torch.tensor([name in cfg.labels for name in names])
        if cfg.labels and not (set(cfg.labels) <= set(names) and np.isin(train.labels, np.flatnonzero(self.wanted)).any()):
            raise BadInput(f"{train.path}.bin has no targets labelled {' or '.join(cfg.labels)}; the labels it may have are: "
                           f"{', '.join(names or ['none'])}")
        self.made_from = {"corpus_sha256": train.sha256,  # whoever resumes must have the same
                          "scores_ckpt_sha256": [s.ckpt_sha256 for s in (scores, *self.more, self.loss) if s],
                          "labels_sha256": train.meta.get("labels_sha256") if cfg.labels else None}

    def known(self, known, rows, step):
        """The part of the scores that is known before the forward pass, (B, T); -inf for what is not to be trained on.
        known: the same without variants, -L_ref for instance."""
        may = self.wanted[self.train.row_labels(rows).long()] if self.cfg.labels else torch.ones_like(known, dtype=torch.bool)
        if self.cfg.select == "random":
            known = torch.from_numpy(np.random.default_rng([self.cfg.seed, step]).random(known.shape)).float()
        if self.more:
            losses = torch.stack([-known, *(s.rows(rows) for s in self.more)])
            known = -(losses.mean(dim=0) if self.cfg.combine == "mean" else losses.min(dim=0).values)
        if self.entropy:
            known = low_loss_and_entropy(self.cfg.select, *(s.rows(rows).masked_fill(~may, torch.inf)
                                                            for s in (self.loss, self.entropy)))
        known = known.masked_fill(~may, -torch.inf)
        if self.cfg.rank_rows and (known == -torch.inf).any():
            raise BadInput("rank_rows needs the score of every token, and some are not known: leave it out")
        if (known == -torch.inf).all():
            raise BadInput(f"none of the tokens of step {step} may be selected, by their labels or scores: raise --batch_tokens")
        return known

    def keep(self, step):
        """The fraction to keep at this step."""
        keep = 1.0 if self.cfg.softmax_tau else self.cfg.keep
        if step < self.cfg.keep_warmup:
            keep = 1.0 - (1.0 - keep) * step / self.cfg.keep_warmup
        return keep

    def weights(self, scores, selected):
        """Weights of all tokens of a step, (B, T), by their scores, (B T,): with --softmax_tau soft ones, else 1 for the
        selected (B, T) and 0 for the others."""
        if not self.cfg.softmax_tau:
            return selected.float()
        return soft_weights(scores, self.cfg.softmax_tau, self.cfg.max_weight).view(selected.shape)


def low_loss_and_entropy(select, loss, entropy):
    """Scores (B, T), high where the reference model's loss and entropy (B, T) are low.

    The paper intersects, or unites, the best by loss and the best by entropy, which leaves fewer or more than k. Here
    exactly k remain: by the worse of a token's two ranks the top k are the intersection of two equally long lists, by
    the better one their union, the lists being as long as it takes.
    """
    if select == "low_entropy":
        return -entropy
    by_loss, by_entropy = (values.flatten().argsort(stable=True).argsort().view(values.shape) for values in (loss, entropy))
    rank = torch.maximum(by_loss, by_entropy) if select == "intersection" else torch.minimum(by_loss, by_entropy)
    return -rank.float()


def soft_weights(scores, tau, max_weight=0.0):
    """softmax(scores / tau), (n,), times the number of tokens that may count: mean 1 over those, 0 for scores of -inf.
    max_weight: what is above is cut to it, and the mean falls below 1 (0: no limit)."""
    weights = torch.softmax(scores.float() / tau, dim=0) * (scores > -torch.inf).sum()
    return weights.clamp(max=max_weight) if max_weight else weights
