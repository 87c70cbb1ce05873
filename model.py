"""
The GPT of this repository, in one file: GPT-2's architecture and batched, cached generation.

    hidden = model(idx)              # (B, T) token ids -> (B, T, C) hidden states
    logits = model.logits(hidden)    # (B, T, C) -> (B, T, V)

    python model.py --export out/slm/ckpt.pt out/slm/hf    # a folder that transformers loads as GPT-2 (gpt2.py)

Hidden states and logits are two calls because logits are large, and seldom needed for all tokens: what training needs of
them, the losses of all tokens and the gradients of the kept ones, is in kept.py.

Module names are those of GPT-2 (wte, wpe, h.0.attn.c_attn, ...). Shapes: B rows, T positions, C channels,
V vocabulary, H heads, D = C / H.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F

from kept import FilteredLinear, KeptLinear, KeptMLP, compute_dtype, kept_loss, losses_of


@dataclass
class GPTConfig:
    block_size: int = 1024   # longest context, in tokens
    vocab_size: int = 50257
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True        # biases in the Linear and LayerNorm modules, as in GPT-2
    pad_vocab: int = 1       # the embedding has rows for a multiple of this many ids; those added are never predicted


class LayerNorm(nn.Module):
    """nn.LayerNorm with an optional bias."""

    def __init__(self, n_embd, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.bias = nn.Parameter(torch.zeros(n_embd)) if bias else None

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class CausalSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)  # query, key, value at once
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x, pos=None, cache=None, n_kept=None, filter_backward=False):
        B, T, C = x.shape
        w, b, not_skipped = self.c_attn.weight, self.c_attn.bias, None
        if n_kept is None:
            q, k, v = self.c_attn(x).split(C, dim=2)
        elif filter_backward:
            qkv, not_skipped = FilteredLinear.apply(x, w, b, n_kept)
            q, k, v = qkv.split(C, dim=2)
        else:  # kept tokens attend to the keys and values of all, but of the queries only theirs count
            q = KeptLinear.apply(x, w[:C], None if b is None else b[:C], n_kept)
            k, v = F.linear(x, w[C:], None if b is None else b[C:]).split(C, dim=2)
        q, k, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v))  # (B, H, T, D)
        if cache is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0)
        else:
            y = cached_attention(q, k, v, pos, *cache)
        y = y.transpose(1, 2).reshape(B, T, C)
        y = self.c_proj(y) if n_kept is None else KeptLinear.apply(y, self.c_proj.weight, self.c_proj.bias, n_kept, not_skipped)
        return self.resid_dropout(y)


def cached_attention(q, k, v, pos, k_shared, v_shared, k_own, v_own):
    """Attention of new tokens to the prefix that all rows share, and to what each row wrote itself.

    q, k, v: (B, H, T, D) of the new tokens. pos: (B, T) their positions. k_shared, v_shared: (H, P, D), positions 0 to
    P - 1. k_own, v_own: (B, H, S, D), positions from P on; k and v are written there. Returns (B, H, T, D).

    The shared part is one matrix product per head for all rows: the few-shot prefix is read once a step, not once a
    row, and that is what a batched decoding step spends its time on. What lies beyond a row's own position (padding
    of a shorter prompt) is masked until it is overwritten.
    """
    B, H, T, D = q.shape
    P, S = k_shared.size(1), k_own.size(2)
    row, slot = torch.arange(B, device=q.device).unsqueeze(1), pos - P  # (B, 1), (B, T)
    k_own[row, :, slot] = k.transpose(1, 2).to(k_own.dtype)  # (B, T, H, D), as indices around a slice want it
    v_own[row, :, slot] = v.transpose(1, 2).to(v_own.dtype)
    q = q / math.sqrt(D)
    shared = torch.einsum("bhtd,hpd->bhtp", q, k_shared)
    own = q @ k_own.transpose(2, 3)  # (B, H, T, S)
    own = own.masked_fill(torch.arange(S, device=q.device) > slot[:, None, :, None], -math.inf)
    weights = torch.softmax(torch.cat([shared, own], dim=-1), dim=-1).to(v_own.dtype)
    return torch.einsum("bhtp,hpd->bhtd", weights[..., :P], v_shared) + weights[..., P:] @ v_own


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, n_kept=None):
        if n_kept is None:
            return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))
        return self.dropout(KeptMLP.apply(x, self.c_fc.weight, self.c_fc.bias, self.c_proj.weight, self.c_proj.bias, n_kept))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = LayerNorm(config.n_embd, config.bias)
        self.mlp = MLP(config)

    def forward(self, x, pos=None, cache=None, n_kept=None, filter_backward=False):
        x = x + self.attn(self.ln_1(x), pos, cache, n_kept, filter_backward)
        return x + self.mlp(self.ln_2(x), n_kept)


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        if config.n_embd % config.n_head:
            raise ValueError(f"n_embd ({config.n_embd}) must be divisible by n_head ({config.n_head})")
        self.config = config
        self.wte = nn.Embedding(math.ceil(config.vocab_size / config.pad_vocab) * config.pad_vocab, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, config.bias)
        # GPT-2's initialisation, N(0, 0.02) at its width of 768; narrower models learn faster from larger weights.
        # Layers that write to the residual stream start smaller, so that its variance does not grow with depth.
        std = 0.02 * math.sqrt(768 / config.n_embd)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=std / math.sqrt(2 * config.n_layer) if name.endswith("c_proj.weight") else std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, idx, pos=None, cache=None, n_kept=None, filter_backward=False):
        """Hidden states after the final LayerNorm.

        idx: (B, T) token ids, T <= block_size. pos: (B, T) their positions, 0..T-1 when None. cache: what
        `new_cache` returned; keys and values are then read from it and written to it in place (needs pos).
        n_kept: of how many tokens the loss will be, at most (0: unknown, counting makes a GPU wait). The backward pass
        then skips what is zero for all others, most of the last block. None: it skips nothing. filter_backward: it skips
        the others in all blocks, though there they are not zero (needs n_kept).
        Returns (B, T, C). Raises ValueError when T exceeds block_size.
        """
        B, T = idx.shape
        if T > self.config.block_size:
            raise ValueError(f"{T} tokens do not fit the model's block_size of {self.config.block_size}")
        positions = torch.arange(T, device=idx.device) if pos is None else pos
        x = self.drop(self.wte(idx) + self.wpe(positions))
        for i, block in enumerate(self.h):
            selective = filter_backward or i == len(self.h) - 1
            x = block(x, pos, None if cache is None else cache[i], n_kept if selective else None, filter_backward)
        return self.ln_f(x)

    def logits(self, hidden):
        """Output layer, tied to the token embedding: (..., C) -> (..., V)."""
        return F.linear(hidden, self.wte.weight)[..., :self.config.vocab_size]

    def losses(self, hidden, targets):
        """Cross-entropy of all tokens, without gradient (kept.py): (..., C) and (...) -> (...)."""
        return losses_of(hidden, self.wte.weight, targets, self.config.vocab_size)

    def kept_loss(self, hidden, targets, k=None, score=None, token_weights=None):
        """Sum of the losses of the k tokens of highest score, with gradient; losses; which are kept. See kept.py."""
        return kept_loss(hidden, self.wte.weight, targets, k, score, token_weights, self.config.vocab_size)

    def new_cache(self, B, S, shared=None):
        """Room for the keys and values of B rows of S tokens each, after those of a `shared_prefix`.

        Per layer (k_shared, v_shared, k_own, v_own): two (H, P, D), with P = 0 without a prefix, and two (B, H, S, D).
        """
        c, w = self.config, self.wte.weight
        H, D = c.n_head, c.n_embd // c.n_head
        dtype = compute_dtype(w)

        def zeros(*shape):
            return torch.zeros(shape, dtype=dtype, device=w.device)
        return [(*(shared[i] if shared else (zeros(H, 0, D), zeros(H, 0, D))), zeros(B, H, S, D), zeros(B, H, S, D))
                for i in range(c.n_layer)]

    @property
    def tokens_at_once(self):
        """How many tokens of cached prompts to run at once: attention scores that stay in a processor's cache; on a
        GPU, ones that fit in its memory."""
        return 512 if self.wte.weight.device.type == "cpu" else 2**14

    @torch.no_grad()
    def shared_prefix(self, rows):
        """The tokens that all rows (lists of token ids) begin with, run through the model once.

        Returns P, how many tokens that is, and their keys and values for `new_cache`.
        """
        P = common_prefix(rows)
        cache = self.new_cache(1, P)
        if P:
            device = self.wte.weight.device
            self(torch.tensor([rows[0][:P]], device=device), torch.arange(P, device=device).unsqueeze(0), cache)
        return P, [(k_own[0], v_own[0]) for _, _, k_own, v_own in cache]

    @torch.no_grad()
    def generate(self, prompts, max_new_tokens, stop=None, temperature=0.0, generator=None):
        """Continue all prompts at once; each row ends on its own.

        prompts: lists of token ids, of any lengths >= 1 (each + max_new_tokens <= block_size).
        stop: called with the new tokens of one row; once it returns True, that row is finished.
        temperature: 0 takes the most likely token, above 0 samples from softmax(logits / temperature).
        Returns the new tokens of each row, a list of lists. Raises ValueError for a prompt of the wrong length.

        The prefix that all prompts share is computed and kept once. What follows is padded on the right and every row
        keeps its own length: its next token is written at its own position, over the padding. So positions are what
        they are without a batch, and no row sees padding.
        """
        lengths = [len(p) for p in prompts]
        if not prompts:
            return []
        if min(lengths) < 1 or max(lengths) + max_new_tokens > self.config.block_size:
            raise ValueError(f"prompts of {min(lengths)} to {max(lengths)} tokens plus {max_new_tokens} new ones "
                             f"do not fit the model's block_size of {self.config.block_size}")
        was_training = self.training
        self.eval()
        device = self.wte.weight.device
        B, T = len(prompts), max(lengths)
        P, shared = self.shared_prefix(prompts)
        cache = self.new_cache(B, T - P + max_new_tokens, shared)
        idx = torch.tensor([p[P:] + [0] * (T - len(p)) for p in prompts], device=device)  # (B, T - P)
        pos = torch.arange(P, T, device=device).expand(B, T - P)
        n = torch.tensor(lengths, device=device)                                      # (B,) tokens in each row so far
        last, some = [], max(1, self.tokens_at_once // (T - P))
        for r in range(0, B, some):  # a few rows at a time, which need less padding too
            rows, S = slice(r, r + some), max(lengths[r:r + some]) - P
            hidden = self(idx[rows, :S], pos[rows, :S], [(*c[:2], c[2][rows, :, :S], c[3][rows, :, :S]) for c in cache])
            last.append(hidden[torch.arange(len(hidden), device=device), n[rows] - P - 1])
        last = torch.cat(last)                                                        # (B, C)
        prompt_of = list(range(B))                                                    # prompt number of each row
        new_tokens, finished = [[] for _ in prompts], [False] * B
        for i in range(max_new_tokens):
            logits = self.logits(last).float()                                        # (B, V)
            if temperature > 0:
                probs = torch.softmax(logits / temperature, dim=-1)
                token = torch.multinomial(probs, 1, generator=generator).squeeze(1)   # (B,)
            else:
                token = logits.argmax(dim=-1)
            for p, t in zip(prompt_of, token.tolist()):
                if not finished[p]:
                    new_tokens[p].append(t)
                    finished[p] = bool(stop and stop(new_tokens[p]))
            going = [row for row, p in enumerate(prompt_of) if not finished[p]]
            if not going or i == max_new_tokens - 1:
                break
            if len(going) <= 0.9 * len(prompt_of):  # finished rows leave; one by one, copying the cache would cost more
                rows = torch.tensor(going, device=device)
                prompt_of = [prompt_of[row] for row in going]
                token, n = token[rows], n[rows]
                cache = [(k_shared, v_shared, k[rows], v[rows]) for k_shared, v_shared, k, v in cache]
            S = max(lengths[p] for p in prompt_of) - P + i + 1                        # no row is longer than that yet
            step = [(k_shared, v_shared, k[:, :, :S], v[:, :, :S]) for k_shared, v_shared, k, v in cache]
            last = self(token.unsqueeze(1), n.unsqueeze(1), step).squeeze(1)          # (B, C)
            n = n + 1
        self.train(was_training)
        return new_tokens


def common_prefix(rows):
    """How many tokens all rows (lists of token ids) begin with; the last token of each, whose hidden state is needed,
    is left out."""
    first, last = min(rows), max(rows)  # in alphabetical order: what these two share, all share
    P = min(map(len, rows)) - 1
    return next((i for i in range(P) if first[i] != last[i]), P)


if __name__ == "__main__":
    import gpt2  # both here, as they import this file
    from common import run
    run(gpt2.main, gpt2.Config, __doc__)
