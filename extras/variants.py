"""
Variants of the selection: functions that take the place of the paper's in train_slm.py when an option
asks for them.

    --select random / high_loss                 controls: any tokens; those of highest loss, no reference
    --select low_ref / low_entropy / ...        self-reference: the reference's loss and entropy
    --select documents                          control: whole documents, those of lowest mean reference loss
    --more_scores out/scores_b --combine min    several references: the mean, or the lowest, of their losses
    --more_scores out/base_scores --combine less   control, with documents or low_ref: the reference's loss
                                                less that of a model from before it learned the curated text
    --labels solution result                    only tokens of these true labels are ranked and trained on
    --softmax_tau 1.0                           all tokens, weighted by softmax(excess / tau)
    --keep_warmup 500                           keep falls from 1.0 to its value over the first steps
    --filter_backward                           approximate and faster (extras/filter_backward.py)
    --keep 1.0 --distill out/ref/best.pt        control: the reference's probabilities as targets

A variant changes one or more of four things: the reference (what stands in the place of L_ref), what tokens
are ranked by (equation 3), the loss (equations 4 and 5) and keep. --filter_backward and --distill hook into
the model besides. A token whose reference loss is inf is never selected.
"""
import dataclasses
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from data import Scores
from engine import fast_loss
from engine.cli import BadInput
from extras import distill_text, filter_backward
from model import token_loss

BY_ENTROPY = ("low_entropy", "intersection", "union")
BY_LOSS = ("excess", "low_ref", "documents")  # what reads reference losses, of one model or of several
SELECT = ("excess", "random", "high_loss", "low_ref", "documents", *BY_ENTROPY)


@dataclass
class Options:
    """The options of train_slm.py that are not the method. Only train_slm.Config inherits it, which has
    `keep` and the fields of TrainConfig besides."""
    select: str = "excess"       # by excess, or a variant, one of those above
    more_scores: list[str] = dataclasses.field(default_factory=list)  # variant: other references' scores
    combine: str = "mean"           # variant: of these losses the mean, the min, or the first less the second
    labels: list[str] = dataclasses.field(default_factory=list)  # variant: only tokens of these labels
    softmax_tau: float = 0.0        # variant: above 0, all tokens, weighted by softmax(excess / tau)
    max_weight: float = 0.0         # variant: cut such weights, whose mean is 1, to this (0: no limit)
    keep_warmup: int = 0            # variant: steps over which keep falls from 1.0 to its value
    filter_backward: bool = False   # variant: no gradient through the unselected tokens, which is not exact
    distill: str = ""               # variant: learn the probabilities of this reference, with keep 1.0

    def validate(self):
        if not 0 < self.keep <= 1:
            yield f"keep must lie in (0, 1], not {self.keep}"
        if self.select not in SELECT:
            yield f"select must be {', '.join(SELECT[:-1])} or {SELECT[-1]}, not {self.select!r}"
        if self.combine not in ("mean", "min", "less"):
            yield f"combine must be mean, min or less, not {self.combine!r}"
        if self.combine == "less" and (len(self.more_scores) != 1 or self.select == "excess"):
            yield "combine less needs one more_scores, and select documents or low_ref"
        for name in ("softmax_tau", "max_weight", "keep_warmup"):
            if getattr(self, name) < 0:
                yield f"{name} must not be negative, but is {getattr(self, name)}"
        if self.softmax_tau and (self.keep_warmup or self.filter_backward or self.select in BY_ENTROPY[1:]):
            yield ("softmax_tau weighs all tokens: it does not go with keep_warmup, filter_backward, "
                   "intersection or union")
        if self.filter_backward and self.compile:
            yield "filter_backward replaces layers by ones that compile cannot see into: use one of them"
        if self.distill and (self.selects_or_weighs or self.labels or self.filter_backward or self.compile):
            yield ("distill takes all tokens (keep 1.0, no labels, no softmax_tau, no filter_backward), and "
                   "does not go with compile")
        if self.max_weight and (self.max_weight < 1 or not self.softmax_tau):
            yield "max_weight needs softmax_tau, and must be at least 1, the mean of the weights"
        if self.more_scores and (self.select not in BY_LOSS or not self.selects_or_weighs):
            yield f"more_scores is for select {', '.join(BY_LOSS)}, with keep below 1 or softmax_tau"
        problems = list(super().validate())
        yield from problems
        if not problems and not self.softmax_tau and round(self.keep * self.tokens_of_a_pass) < 1:
            yield (f"keep {self.keep} of a forward pass of {self.tokens_of_a_pass} tokens is not one token: "
                   f"raise micro_rows or batch_tokens")

    @property
    def tokens_of_a_pass(self):
        if self.micro_rows:
            return self.block_size * self.micro_rows
        return self.batch_tokens // int(os.environ.get("WORLD_SIZE", 1))

    @property
    def selects_or_weighs(self):
        """Whether anything depends on which tokens come first; else all count, or all of --labels."""
        return self.keep < 1 or self.softmax_tau > 0

    def may_differ(self):
        """What is ranked are the tokens of one micro-batch, so a run that ranks must go on with the same
        micro_rows."""
        return super().may_differ() - ({"micro_rows"} if self.selects_or_weighs else set())


def choose(cfg, train, model, rank_by, loss_of):
    """(reference, rank_by, loss_of, keep_at): what train_slm.py uses in a step. rank_by, loss_of: SLM's own.

    reference(rows, step) is a (B, T) float tensor, L_ref of the targets of these rows of `train`, a Tokens;
    keep_at(step) is the fraction to select at that step. Raises BadInput.
    """
    if cfg.select == "high_loss":
        rank_by = high_loss
    elif cfg.select != "excess":
        rank_by = low_ref
    if cfg.softmax_tau:
        loss_of = soft_loss(cfg.softmax_tau, cfg.max_weight)
    elif cfg.fast and rank_by is low_ref and cfg.selects_or_weighs:
        loss_of = fast_loss.selected_before_loss
    if cfg.filter_backward:
        loss_of = filter_backward.install(model, loss_of)
    reference = Reference(cfg, train)
    if cfg.distill:
        loss_of, reference.made_from["distill_sha256"] = distill_text.install(model, cfg.distill, train)
    return reference, rank_by, loss_of, lambda step: keep_of_step(step, cfg)


def keep_of_step(step, cfg):
    """With --keep_warmup, keep falls in a line from 1.0 to its value."""
    if cfg.softmax_tau:
        return 1.0
    if step < cfg.keep_warmup:
        return 1.0 - (1.0 - cfg.keep) * step / cfg.keep_warmup
    return cfg.keep


# ---------------------------------------------------------------------------------- what tokens are ranked by

def high_loss(loss, ref_loss):
    """The model's loss alone, (B, T): it selects noise, since what cannot be predicted has a high loss."""
    return loss.masked_fill(ref_loss == torch.inf, -torch.inf)


def low_ref(loss, ref_loss):
    """What `Reference` gives alone, the lowest first, (B, T): a loss, an entropy, the mean of a document, a
    place in a list, or a random number."""
    return -ref_loss


# ------------------------------------------------------------------------------------------------- references

class Reference:
    """reference(rows, step): what stands in the place of L_ref, (B, T). made_from: hashes of what it reads,
    which must be the same when a run is resumed."""

    def __init__(self, cfg, train):
        self.cfg, self.train, self.scores = cfg, train, []
        if cfg.selects_or_weighs and cfg.select in BY_LOSS:
            kind = DocumentScores if cfg.select == "documents" else Scores
            self.scores = [kind(folder, train) for folder in (cfg.scores, *cfg.more_scores)]
        elif cfg.selects_or_weighs and cfg.select in BY_ENTROPY:
            self.scores = [Scores(cfg.scores, train, name) for name in ("loss", "entropy")]
        names = train.label_names or []
        self.wanted = torch.tensor([name in cfg.labels for name in names])                  # (labels,) bool
        if cfg.labels:
            there = set(cfg.labels) <= set(names) and np.isin(train.labels, np.flatnonzero(self.wanted)).any()
            if not there:
                raise BadInput(f"{train.path}.bin has no targets labelled {' or '.join(cfg.labels)}; the "
                               f"labels it may have are: {', '.join(names or ['none'])}")
        self.made_from = {"scores_ckpt_sha256": [s.ckpt_sha256 for s in self.scores],
                          "labels_sha256": train.meta.get("labels_sha256") if cfg.labels else None}

    def __call__(self, rows, step):
        values = self.values(rows, step)                                                    # (sources, B, T)
        unwanted = torch.zeros(values.shape[1:], dtype=torch.bool)                          # (B, T)
        if self.cfg.labels:
            unwanted = ~self.wanted[self.train.row_labels(rows).long()]                  # (B, T)
        # Before the values are combined, so that intersection and union are of lists of wanted tokens only;
        # and once more afterwards, since places in a list are finite.
        values = values.masked_fill(unwanted, torch.inf)
        if self.cfg.select in BY_ENTROPY and self.scores:
            ref_loss = low_loss_and_entropy(self.cfg.select, *values)
        elif self.cfg.combine == "less":
            unknown = values.isinf().any(dim=0)                                          # (B, T)
            ref_loss = (values[0] - values[1]).masked_fill(unknown, torch.inf)
        elif self.cfg.combine == "mean":
            ref_loss = values.mean(dim=0)
        else:
            ref_loss = values.min(dim=0).values
        return ref_loss.masked_fill(unwanted, torch.inf)

    def draws(self, rows, step):
        """Random numbers in [0, 1), (B, T): of seed, step and row alone, so that it matters not who draws."""
        seeds = [[self.cfg.seed, step, int(row)] for row in rows]
        draws = np.stack([np.random.default_rng(seed).random(self.train.T) for seed in seeds])
        return torch.from_numpy(draws).float()

    def values(self, rows, step):
        """What is combined: the losses of each reference, or its loss and entropy, or random numbers, or
        zeros."""
        if self.scores:
            return torch.stack([scores.rows(rows) for scores in self.scores])
        if self.cfg.select == "random" and self.cfg.selects_or_weighs:
            return self.draws(rows, step).unsqueeze(0)                                             # (1, B, T)
        return torch.zeros(1, len(rows), self.train.T)  # all tokens count, or no reference is needed


class DocumentScores(Scores):
    """The mean reference loss of the document that a token belongs to, in the place of its own. Documents go
    across the ends of rows; the last of a token file may be cut off. All means are in memory, 4 bytes a
    token, and while they are computed some 25."""

    def __init__(self, folder, tokens):
        super().__init__(folder, tokens)
        n = self.values.size
        end_of_text = tokens.meta.get("end_of_text", tokens.vocab_size - 1)
        ends = tokens.tokens[:n] == end_of_text              # (n,) bool: one ends before this target
        document = np.cumsum(ends, dtype=np.int32)                              # (n,): each target's document
        loss = self.rows(slice(None)).flatten().numpy()                                         # (n,) float32
        known = np.isfinite(loss)
        total = np.bincount(document[known], loss[known], minlength=document[-1] + 1)   # (documents,)
        count = np.bincount(document[known], minlength=document[-1] + 1)                # (documents,)
        mean = np.full(len(total), np.inf)
        np.divide(total, count, out=mean, where=count > 0)
        self.values = mean.astype(np.float32)[document].reshape(self.values.shape)      # (n_rows, T)


def low_loss_and_entropy(select, loss, entropy):
    """Values that are low where the reference model's loss and entropy are, (B, T) each.

    The paper intersects, or unites, the best by loss and the best by entropy, which leaves fewer or more
    than k. Here exactly k remain: by the worse of a token's two places the top k are the intersection of two
    equally long lists, by the better one their union, the lists being as long as it takes.
    """
    if select == "low_entropy":
        return entropy
    by_loss, by_entropy = place(loss), place(entropy)                                    # (B, T) each
    worse_or_better = torch.maximum if select == "intersection" else torch.minimum
    return worse_or_better(by_loss, by_entropy).float()


def place(values):
    """The place of each value among all, 0 for the lowest, (B, T); of equals, the earlier comes first."""
    lowest_first = values.flatten().argsort(stable=True)                                # (B*T,) token numbers
    return lowest_first.argsort().view(values.shape)                                     # (B, T)


# ----------------------------------------------------------------------------------------------------- losses

def soft_loss(tau, max_weight):
    """A loss of the form of `selected_loss` that weighs all tokens by softmax(excess / tau) instead of
    selecting some. It has no fast form: the logits of all tokens of the micro-batch are in memory, also with
    --fast."""
    def weighted_loss(hidden, weight, targets, ref_loss, k, rank_by):
        loss = token_loss(F.linear(hidden, weight), targets)           # logits (B, T, V), losses (B, T)
        weights = soft_weights(rank_by(loss.detach(), ref_loss), tau, max_weight)
        return (loss * weights).sum(), loss.detach(), torch.isfinite(ref_loss)
    return weighted_loss


def soft_weights(excess, tau, max_weight=0.0):
    """softmax(excess / tau) over all tokens of a micro-batch, times how many of them may count: mean 1 over
    those, 0 for an excess of -inf. excess: (B, T). max_weight: what is above is cut to it, and the mean falls
    below 1 (0: no limit)."""
    weights = torch.softmax(excess.flatten().float() / tau, dim=0).view(excess.shape)    # (B, T)
    weights = weights.nan_to_num(nan=0.0)  # where no token may count, softmax gives NaN
    weights = weights * (excess > -torch.inf).sum()
    return weights.clamp(max=max_weight) if max_weight else weights


# ------------------------------------------------------------------------------------------------ for the log

def selection_stats(loss, selected, tokens, rows):
    """What the selection of a micro-batch did, for the log: mean loss over all, selected and unselected
    tokens (None where it is not known), the share selected and, with true labels, precision and recall of
    the useful tokens and `selected_NAME`, the share selected of each label.

    loss, selected: (B, T) float and bool, of these rows of `tokens`, a Tokens. Makes the host wait for a GPU.
    """
    loss, selected, labels = loss.cpu().double(), selected.cpu(), tokens.row_labels(rows)

    def mean(values):
        return values.double().mean().item() if values.numel() and not values.isnan().any() else None
    stats = {"corpus_loss": mean(loss), "selected_loss": mean(loss[selected]),
             "unselected_loss": mean(loss[~selected]), "ratio": mean(selected)}
    if labels is not None:
        useful = torch.isin(labels, tokens.label_numbers("useful"))
        stats["precision"], stats["recall"] = mean(useful[selected]), mean(selected[useful])
        for number, name in enumerate(tokens.label_names):
            stats[f"selected_{name}"] = mean(selected[labels == number])
    return stats
