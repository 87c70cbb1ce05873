"""
What a model thinks of texts it did not write: the loss of the right solution, the likeliest of the options.
"""
import re

import torch

from engine.generation import new_caches, prompt_ids, run_cached, shared_prefix, tokens_at_once
from model import token_loss


@torch.no_grad()
def continuation_losses(model, prompts, continuations):
    """The losses of the tokens of each continuation after its prompt: a list of 1-dimensional tensors.

    prompts, continuations: lists of lists of token ids, together at most block_size tokens each. What all
    prompts begin with is run once, as in engine/generation.py. The tensors are in the host's memory.
    """
    device = model.output_weight.device
    P, shared = shared_prefix(model, prompts)
    sequences = [p + c for p, c in zip(prompts, continuations)]
    some = max(1, tokens_at_once(model) // (max(map(len, sequences)) - P))
    losses = []
    for at in range(0, len(sequences), some):
        part = sequences[at:at + some]
        B, T = len(part), max(map(len, part))
        idx = torch.tensor([s[P:] + [0] * (T - len(s)) for s in part], device=device)   # (B, T - P), padded
        positions = torch.arange(P, T - 1, device=device).expand(B, T - 1 - P)          # (B, T - 1 - P)
        caches = new_caches(model, B, T - 1 - P, shared)
        hidden = run_cached(model, idx[:, :-1], positions, caches)                      # (B, T - 1 - P, C)
        for b, s in enumerate(part):
            first = len(prompts[at + b]) - 1 - P  # here the first token of the continuation is predicted
            last = len(s) - 1 - P
            logits = model.logits(hidden[b, first:last])                                # (tokens, V)
            losses.append(token_loss(logits, idx[b, first + 1:last + 1]).cpu())         # (tokens,)
    return losses


def add_likelihoods(model, enc, rows, prompts):
    """Write into each row the mean loss of its right solution after its prompt (token ids), `solution_loss`,
    and of how many tokens, `solution_tokens`; and where there are options, the letter of the `likeliest`."""
    context = model.config.block_size
    solutions = [enc.encode_ordinary(row["solution"])[:context - len(p)] for row, p in zip(rows, prompts)]
    for row, losses in zip(rows, continuation_losses(model, prompts, solutions)):
        row["solution_loss"], row["solution_tokens"] = losses.mean().item(), len(losses)
        if row["options"]:
            row["likeliest"] = likeliest_option(model, enc, row["question"], row["options"])


def likeliest_option(model, enc, question, options):
    """The letter of the option with the lowest loss per byte.

    Options are continuations of the bare question, without its list of options: that a letter stands for an
    option is beyond a small model.
    """
    context = model.config.block_size
    continuations = [enc.encode_ordinary(" " + text)[:context // 2] for text in options]
    bare = re.sub(r"\nOptions: .*", "\nAnswer:", question, flags=re.S)
    bare = prompt_ids(enc, bare, room=context - max(map(len, continuations)))
    losses = continuation_losses(model, [bare] * len(options), continuations)
    per_byte = [loss.sum().item() / len(text.encode()) for loss, text in zip(losses, options)]
    return "ABCDE"[per_byte.index(min(per_byte))]
