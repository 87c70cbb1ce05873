"""The solution of problems P1 to P5. Shapes: B rows, T targets in a row, C channels, V vocabulary. Losses in nats."""
import math

import numpy as np
import torch
from torch.nn import functional as F


# ------------------------------------------------------------------------------------ P1: the reference loss

def token_loss(logits, targets):
    """(..., V) logits, (...) targets -> (...) losses, in float32 at least."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    flat = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")    # (B*T,)
    return flat.view(targets.shape)


@torch.no_grad()
def reference_losses(model, tokens, T, batch_rows=16):
    n_rows = (len(tokens) - 1) // T
    x = tokens[:n_rows * T].view(n_rows, T)                       # inputs
    y = tokens[1:n_rows * T + 1].view(n_rows, T)                  # targets
    losses = [token_loss(model.logits(model(some_x)), some_y)     # (batch_rows, T) each
              for some_x, some_y in zip(x.split(batch_rows), y.split(batch_rows))]
    return torch.cat(losses).float()


def context_gap(model, tokens, T):
    first = reference_losses(model, tokens, T).flatten()          # of the targets 1, 2, ...
    later = reference_losses(model, tokens[T // 2:], T).flatten()  # of the targets T // 2 + 1, ...
    first = first[T // 2:]
    n = min(len(first), len(later))
    return (first[:n] - later[:n]).abs().mean().item()


# --------------------------------------------------------------------------------------- P2: the k that count

def top_k(excess, k):
    k = min(k, int((excess > -torch.inf).sum()))
    ranked = excess.flatten().argsort(descending=True, stable=True)   # (B*T,) token numbers
    selected = torch.zeros_like(ranked, dtype=torch.bool)
    selected[ranked[:k]] = True
    return selected.view(excess.shape)                                # (B, T)


# ------------------------------------------------------------------------------------- P3: the loss and a step

def selected_loss(hidden, weight, targets, ref_loss, k):
    loss = token_loss(F.linear(hidden, weight), targets)              # (B, T)
    selected = top_k(loss.detach() - ref_loss, k)                     # inf reference losses give -inf
    return (loss * selected).sum(), selected


def accumulate(model, micro_batches, keep):
    numbers = [round(keep * int(ref_loss.isfinite().sum())) for _, _, ref_loss in micro_batches]
    total = 0.0
    for (x, y, ref_loss), k in zip(micro_batches, numbers):
        loss = selected_loss(model(x), model.output_weight, y, ref_loss, k)[0] / sum(numbers)
        loss.backward()
        total += loss.item()
    return total


# ------------------------------------------------------------------------------------------------ P4: evidence

def t_interval(values):
    n = len(values)
    t = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262][n - 2]
    half = t * np.std(values, ddof=1) / math.sqrt(n)
    mean = float(np.mean(values))
    return mean, mean - half, mean + half


# ----------------------------------------------------------------------------------------- P5: when does it pay

def will_pay(ref_loss, labels):
    """It has to know the results, and to have forgotten the junk by more than that."""
    result, junk = ref_loss[labels == "result"].mean(), ref_loss[labels == "irrelevant"].mean()
    return bool(result < 2.5 and junk > result + 3)
