"""
What is measured: shapes, a model with random tokens to work on, training steps of each kind, forward passes.

    work = Work(SHAPES["demo"], rows=8, n_micro=2, ranks=Ranks("cpu"))
    step = STEPS["slm_0.3"]
    step.take(work, 2, step.keep)      # a training step with two micro-batches

B rows of a micro-batch, T tokens of a row, n = B * T, C channels, V vocabulary.
"""
import functools
import typing
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from common import TrainConfig, adamw
from engine import fast_loss
from extras import filter_backward
from model import GPT, GPTConfig

SHAPES = {
    "gpt2": GPTConfig(block_size=1024, vocab_size=50304, n_layer=12, n_head=12, n_embd=768),
    "vocab": GPTConfig(block_size=256, vocab_size=50304, n_layer=4, n_head=4, n_embd=256),
    "demo": GPTConfig(block_size=192, vocab_size=419, n_layer=2, n_head=2, n_embd=64),
}
ROWS = {"gpt2": 4, "vocab": 8, "demo": 8}          # of a micro-batch, on a processor
SCORE_ROWS = {"gpt2": 4, "vocab": 32, "demo": 64}  # of a forward pass without gradient


def nanogpt_losses(model, x, y, reduction):
    """The logits of all tokens, (B, T, V), and their loss in float32: the mean, or with "none" all, (n,)."""
    logits = model.logits(model(x))
    flat = logits.view(-1, logits.size(-1)).float()                            # (n, V)
    return logits, F.cross_entropy(flat, y.flatten(), reduction=reduction)


class Work:
    """What a training step needs: a model, its optimizer, and micro-batches of random tokens on the device.

    filtered: whether the backward pass of work.selected_loss drops the unselected tokens in all layers.
    work.called_model is the model as a step calls it, compiled or not.
    """

    def __init__(self, shape, rows, n_micro, ranks, compiled=False, filtered=False):
        torch.manual_seed(0)
        self.shape, self.ranks = shape, ranks
        self.model = GPT(shape).to(ranks.device)
        # A learning rate of 0, so that all steps do the same work.
        self.optimizer = adamw(self.model, TrainConfig(lr=0.0), ranks.device)
        self.micro_batches = [self.random_micro_batch(rows) for _ in range(n_micro)]
        self.selected_loss = fast_loss.selected_loss
        self.nanogpt_losses = nanogpt_losses
        self.called_model = self.model
        if filtered:
            self.selected_loss = filter_backward.install(self.model, fast_loss.selected_loss)
        elif compiled:  # torch.compile does not see into the filtered layers
            self.called_model = torch.compile(self.model)
            self.nanogpt_losses = torch.compile(nanogpt_losses)

    def random_micro_batch(self, rows):
        """Inputs, targets and reference losses, (rows, T) each."""
        size, device = (rows, self.shape.block_size), self.ranks.device
        x = torch.randint(self.shape.vocab_size, size, device=device)
        y = torch.randint(self.shape.vocab_size, size, device=device)
        return x, y, 20 * torch.rand(size, device=device)

    @functools.cached_property
    def reference_model(self):
        """Made when a step first needs it, so that it counts in that step's memory alone."""
        return GPT(self.shape).to(self.ranks.device).eval()

    def update(self):
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def clm_nanogpt(work, n_micro, keep):
    """CLM as nanoGPT trains it."""
    for x, y, _ in work.micro_batches[:n_micro]:
        with work.ranks.autocast():
            # nanoGPT's model returns the logits too, so they stay in memory until the next ones are there.
            logits, loss = work.nanogpt_losses(work.model, x, y, "mean")
        (loss / n_micro).backward()
    work.update()


def clm(work, n_micro, keep):
    """CLM as train_ref.py trains it."""
    n_selected = n_micro * work.micro_batches[0][1].numel()
    for x, y, _ in work.micro_batches[:n_micro]:
        with work.ranks.autocast():
            loss_sum = fast_loss.all_tokens_loss(work.called_model(x), work.model.output_weight, y)
        (loss_sum / n_selected).backward()
    work.update()


def slm_naive(work, n_micro, keep):
    """SLM as one would write it down first: the reference model runs in every step."""
    for x, y, _ in work.micro_batches[:n_micro]:
        n, k = y.numel(), round(keep * y.numel())
        with work.ranks.autocast():
            with torch.no_grad():
                ref_loss = work.nanogpt_losses(work.reference_model, x, y, "none")[1]  # (n,)
            logits, loss = work.nanogpt_losses(work.model, x, y, "none")       # (B, T, V), (n,)
        best = (loss.detach() - ref_loss).argsort(descending=True)[:k]         # (k,) token numbers
        mask = torch.zeros(n, device=y.device).index_fill_(0, best, 1)         # (n,)
        ((loss * mask).sum() / (k * n_micro)).backward()
    work.update()


def excess_loss(loss, ref_loss):
    """What is ranked, (B, T): equation 3 of the paper."""
    return loss - ref_loss


def slm(work, n_micro, keep):
    """SLM as train_slm.py trains it: the reference losses are there already."""
    k = round(keep * work.micro_batches[0][1].numel())
    for x, y, ref_loss in work.micro_batches[:n_micro]:
        with work.ranks.autocast():
            hidden = work.called_model(x)                                      # (B, T, C)
            loss_sum, _, _ = work.selected_loss(hidden, work.model.output_weight, y, ref_loss, k, excess_loss)
        (loss_sum / (k * n_micro)).backward()
    work.update()


@dataclass
class Step:
    """A kind of training step: take(work, n_micro, keep) takes one with the first n_micro micro-batches."""
    take: typing.Callable
    keep: float = 1.0       # the fraction of the tokens of a micro-batch that is selected
    filtered: bool = False  # whether it needs a Work that is filtered


STEPS = {
    "clm_nanogpt": Step(clm_nanogpt),
    "clm": Step(clm),
    "slm_naive_0.6": Step(slm_naive, 0.6),
    "slm_0.6": Step(slm, 0.6),
    "slm_0.3": Step(slm, 0.3),
    "slm_0.6_filtered": Step(slm, 0.6, filtered=True),
    "slm_0.3_filtered": Step(slm, 0.3, filtered=True),
}
PASSES = ("forward", "score")  # without gradient


def passes_of(work, many, scores_file):
    """{name: function} of the forward passes without gradient, on a micro-batch repeated `many` times.

    scores_file: a binary file that takes the scores.
    """
    x, y, _ = work.micro_batches[0]
    x, y = x.repeat(many, 1), y.repeat(many, 1)                                # (many * B, T)

    def forward():
        with torch.no_grad(), work.ranks.autocast():
            work.model.logits(work.called_model(x))

    def score():
        with torch.no_grad(), work.ranks.autocast():
            loss = fast_loss.token_losses(work.called_model(x), work.model.output_weight, y)
        scores_file.write(loss.half().cpu().numpy().tobytes())
    return {"forward": forward, "score": score}
