"""
Your solution: the functions of problems P1 to P5. Shapes: B rows, T targets in a row, C channels, V vocabulary.
Losses are in nats. Only torch and numpy are needed; do not import from the repository here.
"""
import math

import numpy as np
import torch
from torch.nn import functional as F


# ------------------------------------------------------------------------------------ P1: the reference loss

def reference_losses(model, tokens, T, batch_rows=16):
    """The reference model's loss of every target of a text, each in the context of its row.

    Row r has the inputs tokens[r*T : (r+1)*T]; its targets are the same, shifted by one. What does not fill a
    row is left out. model(x), (B, T) token ids -> (B, T, C); model.logits(hidden), (B, T, C) -> (B, T, V).

    tokens: (n,) int64. batch_rows: at most so many rows go through the model together.
    Returns (n_rows, T) float32 without gradient, n_rows = (n - 1) // T; column t of row r is

        L_ref(x_i) = -log P_ref(x_i | x_<i)    for the target i = r*T + t + 1, from its row's context alone.
    """
    raise NotImplementedError


def context_gap(model, tokens, T):
    """How much a token's loss depends on where its row begins.

    Cut the text once from token 0 on and once from token T // 2 on. Returns, as a float, the mean of
    |loss in the first cut - loss in the second| over the targets that both have.
    """
    raise NotImplementedError


# --------------------------------------------------------------------------------------- P2: the k that count

def top_k(excess, k):
    """Which tokens count (equation 5 of the paper).

    excess: (B, T); -inf marks padding, which is never selected. Returns (B, T) bool with exactly k tokens
    set, or all that are not padding where there are fewer: those of highest excess in all rows together; of
    equal tokens the earlier ones, in the order of the flattened tensor.
    """
    raise NotImplementedError


# ------------------------------------------------------------------------------------- P3: the loss and a step

def selected_loss(hidden, weight, targets, ref_loss, k):
    """The loss of equation 4, before the division by k.

    hidden: (B, T, C) and weight: (V, C) give the logits F.linear(hidden, weight), (B, T, V). targets: (B, T).
    ref_loss: (B, T); inf marks padding. Losses are computed in float32 at least.
    Returns (the sum of the losses of the selected tokens, a scalar with gradient; the selection, (B, T) bool).
    No gradient flows through the selection.
    """
    raise NotImplementedError


def accumulate(model, micro_batches, keep):
    """The gradients of one step of several micro-batches, left in the parameters' .grad (which are None before).

    micro_batches: [(x, y, ref_loss)], (B, T) each; model(x) and model.output_weight, (V, C), give the logits.
    In each micro-batch round(keep * its tokens that are not padding) are selected. The step's loss is the mean over
    all the tokens selected in the step, not the mean of the micro-batches' means. Call backward() once for each
    micro-batch, so that only one graph is in memory. Returns the step's loss, a float.
    """
    raise NotImplementedError


# ------------------------------------------------------------------------------------------------ P4: evidence

def t_interval(values):
    """The mean of the values and its 95% interval by Student's t, (mean, low, high), floats.

    values: from 2 to 10 numbers. The two-sided 95% points of t with 1 to 9 degrees of freedom are 12.706,
    4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262.
    """
    raise NotImplementedError


# ----------------------------------------------------------------------------------------- P5: when does it pay

def will_pay(ref_loss, labels):
    """Whether training by these reference losses will give a better model than training on all tokens.

    Two numpy arrays: ref_loss, (n,) float, of the targets of the noisy text, and labels, (n,) texts, their true
    labels: question, solution, result, irrelevant, noise, wrong. Returns a bool. Use nothing else: no model is
    trained here.
    """
    raise NotImplementedError
