"""
Generation with a key-value cache, in batches: prompts of different lengths, the prefix that they share
computed once.

Shapes as in model.py: B rows, T positions, H heads, G of them with keys and values, D channels of a head. P:
tokens of the shared prefix. S: room for the tokens of a row behind it.
"""
import math

import torch
from torch.nn import functional as F

from engine.cli import BadInput
from engine.fast_loss import compute_dtype


def prompt_ids(enc, text, room=None):
    """The ids of a prompt: what stands before every text, once, and the text, in which <|endoftext|> is text
    too. room: the most tokens; a longer text loses its beginning."""
    ids = enc.encode_ordinary(text)
    if room is not None:
        ids = ids[max(0, len(enc.start) + len(ids) - room):]
    return [*enc.start, *ids]


def draw_only(n_ids, *models):
    """Let these models draw only the ids that their tokenizer has, the first n_ids, and all have rows for."""
    n_drawn = min(n_ids, *(model.config.vocab_size for model in models))
    for model in models:
        model.n_drawn = n_drawn


class LayerCache:
    """Keys and values of one block for B rows: k_shared, v_shared (G, P, D) of the prefix, at positions 0 to
    P - 1; k_own, v_own (B, G, S, D) of each row, at positions from P on."""

    def __init__(self, k_shared, v_shared, k_own, v_own):
        self.k_shared, self.v_shared, self.k_own, self.v_own = k_shared, v_shared, k_own, v_own
        self.positions = None  # (B, T) of the tokens of the next forward pass

    def part(self, rows, S):
        """A view of the cache of these rows (a slice), with room for the first S own tokens only."""
        return LayerCache(self.k_shared, self.v_shared, self.k_own[rows, :, :S], self.v_own[rows, :, :S])

    def attend(self, q, k, v):
        """Attention of new tokens to the prefix and to what each row wrote itself; k and v are written there.
        q: (B, H, T, D), k and v: (B, G, T, D) of the new tokens. Returns (B, H, T, D).

        Query head h reads key head h // (H / G), so the H / G query heads of a key head become more rows of
        one matrix. A batched step spends its time on reading the prefix: one product per head reads it once
        for all rows. What lies beyond a row's own position (padding) is masked until it is overwritten.
        """
        B, H, T, D = q.shape
        G, P, S = k.size(1), self.k_shared.size(1), self.k_own.size(2)
        row = torch.arange(B, device=q.device).unsqueeze(1)                          # (B, 1)
        slot = self.positions - P                                                    # (B, T)
        k, v = k.transpose(1, 2), v.transpose(1, 2)  # (B, T, G, D), as own[row, :, slot]: indices first
        self.k_own[row, :, slot], self.v_own[row, :, slot] = k.to(self.k_own.dtype), v.to(self.v_own.dtype)
        if P == 0:
            seen = torch.arange(S, device=q.device) <= slot[:, None, :, None]        # (B, 1, T, S)
            return F.scaled_dot_product_attention(q, self.k_own, self.v_own, attn_mask=seen, enable_gqa=G < H)
        q = q.reshape(B, G, H // G * T, D) / math.sqrt(D)                            # (B, G, H/G*T, D)
        shared = torch.einsum("bgtd,gpd->bgtp", q, self.k_shared)                    # (B, G, H/G*T, P)
        own = q @ self.k_own.transpose(2, 3)                                         # (B, G, H/G*T, S)
        beyond = torch.arange(S, device=q.device) > slot[:, None, :, None]           # (B, 1, T, S)
        own = own.masked_fill(beyond.repeat(1, 1, H // G, 1), -math.inf)             # (B, 1, H/G*T, S)
        weights = torch.softmax(torch.cat([shared, own], dim=-1), dim=-1)            # (B, G, H/G*T, P + S)
        weights = weights.to(self.v_own.dtype)  # autocast's softmax is in float32
        y = torch.einsum("bgtp,gpd->bgtd", weights[..., :P], self.v_shared) + weights[..., P:] @ self.v_own
        return y.reshape(B, H, T, D)                                                 # from (B, G, H/G*T, D)


def run_cached(model, idx, positions, caches):
    """Hidden states (B, T, C) of tokens (B, T) at positions (B, T), which are added to the caches."""
    for cache in caches:
        cache.positions = positions
    return model(idx, positions, caches)


def new_caches(model, B, S, shared=None):
    """A LayerCache for each block, with room for S own tokens of B rows behind a `shared_prefix`'s."""
    c, weight = model.config, model.output_weight
    G, D = c.n_kv_head, c.n_embd // c.n_head
    dtype = compute_dtype(weight)

    def zeros(*shape):
        return torch.zeros(shape, dtype=dtype, device=weight.device)
    if shared is None:
        shared = [(zeros(G, 0, D), zeros(G, 0, D))] * c.n_layer
    return [LayerCache(k, v, zeros(B, G, S, D), zeros(B, G, S, D)) for k, v in shared]


def tokens_at_once(model):
    """So many tokens of prompts that their attention scores stay in a processor's L2 cache, or fit a GPU."""
    return 512 if model.output_weight.device.type == "cpu" else 2**14


@torch.no_grad()
def shared_prefix(model, prompts):
    """What all prompts (lists of token ids) begin with, run through the model once: P, how many tokens that
    is, and their keys and values for `new_caches`, two (G, P, D) a block."""
    first, last = min(prompts), max(prompts)  # in alphabetical order: what these two share, all share
    P = min(map(len, prompts)) - 1 if len(prompts) > 1 else 0  # not the last: its hidden state is needed
    P = next((i for i in range(P) if first[i] != last[i]), P)
    caches = new_caches(model, 1, P)
    if P:
        device = model.output_weight.device
        idx = torch.tensor([prompts[0][:P]], device=device)                             # (1, P)
        run_cached(model, idx, torch.arange(P, device=device).unsqueeze(0), caches)
    return P, [(cache.k_own[0], cache.v_own[0]) for cache in caches]


@torch.no_grad()
def generate(model, prompts, max_new_tokens, stop=None, temperature=0.0, generator=None, reply=None):
    """Continue all prompts, lists of token ids, at once. Returns the new tokens of each, a list of lists.

    stop: called with the new tokens that a row has drawn; once it returns True, that row is finished.
    temperature: 0 takes the most likely token, above 0 samples from softmax(logits / temperature).
    reply: called with the new tokens of a row after each that it has drawn; returns a list of tokens, often
    none. They are put in next, one a step, in the place of what would be drawn (a tool's answer).

    What follows the shared prefix is padded on the right, and a row's next token is written at its own
    position, over the padding: so positions are what they are without a batch, and no row sees padding.
    """
    lengths = [len(p) for p in prompts]
    if min(lengths) < 1 or max(lengths) + max_new_tokens > model.config.block_size:
        raise ValueError(f"prompts of {min(lengths)} to {max(lengths)} tokens plus {max_new_tokens} new ones "
                         f"do not fit the model's block_size of {model.config.block_size}")
    device = model.output_weight.device
    P, shared = shared_prefix(model, prompts)
    caches = new_caches(model, len(prompts), max(lengths) - P + max_new_tokens, shared)
    last = run_prompts(model, prompts, P, caches)                                    # (B, C)
    n = torch.tensor(lengths, device=device)                              # (B,) tokens in each row so far
    prompt_of = list(range(len(prompts)))                                 # prompt number of each row
    new_tokens, finished = [[] for _ in prompts], [False] * len(prompts)
    drawn, to_put_in = [[] for _ in prompts], [[] for _ in prompts]       # of each prompt, of its new tokens
    for i in range(max_new_tokens):
        logits = model.logits(last)[:, :model.n_drawn]                               # (B, ids to draw)
        token = next_token(logits, temperature, generator)                           # (B,)
        for row, (p, t) in enumerate(zip(prompt_of, token.tolist())):
            if to_put_in[p]:
                token[row] = t = to_put_in[p].pop(0)
                new_tokens[p].append(t)
            elif not finished[p]:
                new_tokens[p].append(t)
                drawn[p].append(t)
                finished[p] = bool(stop and stop(drawn[p]))
                if reply and not finished[p] and i < max_new_tokens - 1:
                    to_put_in[p] = list(reply(new_tokens[p]))
        going = [row for row, p in enumerate(prompt_of) if not finished[p]]
        if not going or i == max_new_tokens - 1:
            break
        if len(going) <= 0.9 * len(prompt_of):  # finished rows leave, a tenth at a time: the cache is copied
            prompt_of = [prompt_of[row] for row in going]
            going = torch.tensor(going, device=device)
            token, n = token[going], n[going]
            caches = [LayerCache(c.k_shared, c.v_shared, c.k_own[going], c.v_own[going]) for c in caches]
        S = max(lengths[p] for p in prompt_of) - P + i + 1                # no row is longer than that yet
        step = [cache.part(slice(None), S) for cache in caches]
        last = run_cached(model, token.unsqueeze(1), n.unsqueeze(1), step).squeeze(1)  # (B, C)
        n = n + 1
    return new_tokens


def run_prompts(model, prompts, P, caches):
    """Run the prompts from token P on into the caches. Returns each last token's hidden state, (B, C)."""
    lengths, device = [len(p) for p in prompts], model.output_weight.device
    B, T = len(prompts), max(lengths)
    idx = torch.tensor([p[P:] + [0] * (T - len(p)) for p in prompts], device=device)  # (B, T - P)
    positions = torch.arange(P, T, device=device).expand(B, T - P)
    ends = torch.tensor(lengths, device=device) - P - 1                              # (B,)
    last, some = [], max(1, tokens_at_once(model) // (T - P))
    for r in range(0, B, some):  # a few rows at a time, which need less padding too
        rows, S = slice(r, r + some), max(lengths[r:r + some]) - P
        part = [cache.part(rows, S) for cache in caches]
        hidden = run_cached(model, idx[rows, :S], positions[rows, :S], part)         # (some, S, C)
        last.append(hidden[torch.arange(len(hidden), device=device), ends[rows]])    # (some, C)
    return torch.cat(last)


def next_token(logits, temperature, generator):
    """The likeliest next token of each row, or a sample, from its logits (B, V): (B,). Raises BadInput."""
    logits = logits.float()
    if temperature == 0:
        return logits.argmax(dim=-1)
    probs = torch.softmax(logits / temperature, dim=-1)
    if probs.isnan().any():
        raise BadInput("the model's probabilities are no numbers any more: lower --lr, and train it again")
    return torch.multinomial(probs, 1, generator=generator).squeeze(1)
