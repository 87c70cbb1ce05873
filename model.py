"""
The GPT of this repository, in plain PyTorch: GPT-2's architecture, or with arch="llama" that of Llama.

    hidden = model(idx)              # (B, T) token ids -> (B, T, C) hidden states
    logits = model.logits(hidden)    # (B, T, C) -> (B, T, V)
    loss = token_loss(logits, y)     # (B, T, V) logits, (B, T) targets -> (B, T)

Hidden states and logits are two calls because logits are large: scoring, evaluation and training with --fast
never hold those of all tokens. There is no dropout, so that train and eval mode are the same.

Module names are those of GPT-2 (wte, wpe, h.0.attn.c_attn, ...). Shapes: B rows, T positions, C channels, V
vocabulary, H heads, G of them that have keys and values (all of GPT-2's), D = C / H channels of a head.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F


@dataclass
class GPTConfig:
    block_size: int = 1024   # longest context, in tokens
    vocab_size: int = 50257
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    arch: str = "gpt2"       # or llama: RMSNorm, rotary positions, SwiGLU, no biases
    n_kv_head: int = 0       # heads of keys and values, each for n_head / n_kv_head queries (0: n_head)
    n_inner: int = 0         # channels inside the MLP (0: 4 * n_embd)
    tied: bool = True        # the output layer is the token embedding
    rope_base: float = 10000.0  # llama: of the rotary positions
    norm_eps: float = 1e-5   # what the norms add to the variance

    def __post_init__(self):
        self.n_kv_head, self.n_inner = self.n_kv_head or self.n_head, self.n_inner or 4 * self.n_embd

    @property
    def bias(self):
        """Whether the Linear and LayerNorm modules have biases: GPT-2's have, Llama's have not."""
        return self.arch == "gpt2"


def token_loss(logits, targets):
    """The loss of each token: -log softmax(logits)[target], in float32 at least (float64 stays): in bfloat16
    many losses are equal, and train_slm.py has to rank them.

    logits: (..., V). targets: (...) token ids. Returns (...).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    flat_logits, flat_targets = logits.reshape(-1, logits.size(-1)), targets.reshape(-1)   # (B*T, V), (B*T,)
    return F.cross_entropy(flat_logits, flat_targets, reduction="none").view(targets.shape)


def new_norm(config):
    if config.arch == "llama":
        return nn.RMSNorm(config.n_embd, eps=config.norm_eps)
    return nn.LayerNorm(config.n_embd, eps=config.norm_eps)


def rotary(positions, D, base, dtype):
    """Rotary positions (Su et al. 2021), (T,) or (B, T): cosine and sine of position * base^(-2i/D), of shape
    (1, T, D/2) or (B, 1, T, D/2), the same for all heads."""
    wide = torch.promote_types(dtype, torch.float32)
    speed = base ** (-torch.arange(0, D, 2, device=positions.device, dtype=wide) / D)    # (D/2,)
    angle = positions[..., None, :, None] * speed                           # (1, T, D/2) or (B, 1, T, D/2)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Channels i and i + D/2 of a head, as a plane, turned by the angle of the position. x: (B, H, T, D)."""
    a, b = x.to(cos.dtype).chunk(2, dim=-1)                                              # (B, H, T, D/2) each
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


class CausalSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.kv_channels = config.n_embd // config.n_head * config.n_kv_head
        self.c_attn = nn.Linear(config.n_embd, config.n_embd + 2 * self.kv_channels, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x, turn=None, cache=None):
        B, T, C = x.shape
        q, k, v = self.c_attn(x).split([C, self.kv_channels, self.kv_channels], dim=2)   # (B, T, C or G*D)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)        # (B, H, T, D)
        k = k.view(B, T, self.n_kv_head, C // self.n_head).transpose(1, 2)     # (B, G, T, D)
        v = v.view(B, T, self.n_kv_head, C // self.n_head).transpose(1, 2)     # (B, G, T, D)
        if turn is not None:  # Llama's positions; GPT-2's are in x already
            q, k = rotate(q, *turn), rotate(k, *turn)
        if cache is None:
            grouped = self.n_kv_head < self.n_head
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        else:
            y = cache.attend(q, k, v)  # also to the keys and values of earlier calls (engine/generation.py)
        y = y.transpose(1, 2).reshape(B, T, C)                                 # heads side by side again
        return self.c_proj(y)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gated = config.arch == "llama"                                    # SwiGLU: a gate a channel
        self.c_fc = nn.Linear(config.n_embd, (1 + self.gated) * config.n_inner, bias=config.bias)
        self.c_proj = nn.Linear(config.n_inner, config.n_embd, bias=config.bias)

    def forward(self, x):
        if self.gated:
            gate, x = self.c_fc(x).chunk(2, dim=-1)                            # (B, T, n_inner) each
            return self.c_proj(F.silu(gate) * x)
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = new_norm(config)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = new_norm(config)
        self.mlp = MLP(config)

    def forward(self, x, turn=None, cache=None):
        x = x + self.attn(self.ln_1(x), turn, cache)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Raises ValueError where n_head does not divide n_embd, or n_kv_head n_head."""

    def __init__(self, config):
        super().__init__()
        if config.n_embd % config.n_head:
            raise ValueError(f"n_embd ({config.n_embd}) must be divisible by n_head ({config.n_head})")
        if config.n_head % config.n_kv_head:
            raise ValueError(f"n_head ({config.n_head}) must be divisible by n_kv_head ({config.n_kv_head})")
        self.config = config
        # How many ids may be sampled: fewer where published weights have rows for which their tokenizer has
        # no token (engine/generation.py, draw_only).
        self.n_drawn = config.vocab_size
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if config.arch == "gpt2" else None
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = new_norm(config)
        self.lm_head = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        # GPT-2's initialisation, N(0, 0.02) at its width of 768; narrower models learn faster from larger
        # weights. Layers that write to the residual stream start smaller, so that its variance does not
        # grow with depth.
        std = 0.02 * math.sqrt(768 / config.n_embd)
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(p, std=std / math.sqrt(2 * config.n_layer))
            elif p.dim() == 2:
                nn.init.normal_(p, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    @property
    def output_weight(self):
        """The matrix of the output layer, (V, C): GPT-2 ties it to the token embedding."""
        return self.wte.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, idx, positions=None, caches=None):
        """Hidden states after the final norm.

        idx: (B, T) token ids, T <= block_size. positions: (T,) or (B, T), or None for 0 to T - 1. caches:
        None, or a cache for each block, which holds what came before (engine/generation.py). Returns (B, T,
        C). Raises ValueError when T exceeds block_size.
        """
        B, T = idx.shape
        if T > self.config.block_size:
            raise ValueError(f"{T} tokens do not fit the model's block_size of {self.config.block_size}")
        if positions is None:
            positions = torch.arange(T, device=idx.device)                     # (T,), the same for all rows
        x, turn, c = self.wte(idx), None, self.config                          # (B, T, C)
        if self.wpe is not None:
            x = x + self.wpe(positions)                                        # (B, T, C)
        else:
            turn = rotary(positions, c.n_embd // c.n_head, c.rope_base, x.dtype)
        for i, block in enumerate(self.h):
            x = block(x, turn, None if caches is None else caches[i])
        return self.ln_f(x)

    def logits(self, hidden):
        """Output layer: (..., C) -> (..., V)."""
        return F.linear(hidden, self.output_weight)
