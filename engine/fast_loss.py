"""
The losses without the logits of all tokens at once (--fast): the same results, up to rounding.

    loss_sum = all_tokens_loss(hidden, weight, targets)                                      # train_ref.py
    loss_sum, loss, selected = selected_loss(hidden, weight, targets, ref_loss, k, rank_by)  # train_slm.py
    loss = token_losses(hidden, weight, targets)                             # of all tokens, without gradient

The plain forms stand in the training scripts, and are what runs without --fast; tests/test_fast_loss.py
holds these equal to them in float64.

Why. The logits of a forward pass are n x V numbers: with GPT-2's 50,257 ids and 16 rows of 512 tokens 1.6 GB
in float32, and the plain form holds them several times over: the logits, their softmax, their gradient. That
is often more than all the rest of the model, and moving it takes longer than computing it.

How. Three ideas, each of which changes the order of the work and not its result.

1. Chunks. A token's loss needs its own row of logits and no other. So they are computed for one chunk of
   tokens at a time, a few hundred, in one piece of memory that is used again for the next chunk.
2. The gradient at once. The gradient of a token's loss with respect to its logits is softmax(logits) less 1
   at the target. It needs nothing that comes later, so it is computed while the logits are there, and
   multiplied through the output layer right away: into the gradients of the hidden states, (n, C), and of the
   weight, (V, C). The backward pass has only to scale these two by the gradient that it is given.
3. Only the selected. A token that is not selected has no gradient, so its row is not multiplied back. That is
   where selecting saves time: losses are needed of all tokens, gradients of k of them.

Ideas 2 and 3 are at odds: which tokens are selected is known when the last chunk has been ranked, and then
the logits of the first are gone. They could be computed a second time. Here they wait instead, and few have
to. When b of n tokens have been seen, n - b are to come, so the best k - (n - b) of those seen will be
selected whatever follows, and get their gradients now; those behind the best k will not be, and are dropped.
Only the tokens in between wait, at most min(k, n - k) of them, and none where all tokens count.

n is the number of tokens of a forward pass (B*T), C channels, V vocabulary.
"""
import math

import torch
from torch.nn import functional as F

from model import token_loss


def all_tokens_loss(hidden, weight, targets):
    """The sum of the losses of all tokens, a scalar with gradient. hidden: (B, T, C). weight: (V, C).
    targets: (B, T)."""
    return FastLoss.apply(hidden, weight, targets, None, targets.numel(), None)[0]


def selected_loss(hidden, weight, targets, ref_loss, k, rank_by):
    """Equations 3 to 5 of the paper: the loss of the k tokens that `rank_by` puts first.

    hidden: (B, T, C). weight: (V, C), the output layer's. targets: (B, T). ref_loss: (B, T). rank_by: a
    function of (loss, ref_loss), high where a token is to be selected, which treats each token by itself,
    since it is asked for some at a time; among equals the earlier token is selected. Returns the sum over the
    selected tokens (a scalar with gradient), and without gradient the loss of every token and which are
    selected, (B, T).
    """
    return FastLoss.apply(hidden, weight, targets, ref_loss, k, rank_by)


@torch.no_grad()
def token_losses(hidden, weight, targets):
    """The losses of all tokens, without gradient. hidden: (..., C), weight: (V, C), targets: (...). Returns
    (...)."""
    V, dtype = len(weight), compute_dtype(hidden)
    h, w = hidden.flatten(0, -2).to(dtype), padded(weight.to(dtype))      # (n, C), (V or a little more, C)
    y = targets.flatten()                                                 # (n,)
    loss = torch.cat([loss_in_slices((h[a:b] @ w.t())[:, :V], y[a:b]) for a, b in chunks(len(h), w)])
    return loss.view(targets.shape)


class FastLoss(torch.autograd.Function):
    """`selected_loss`, with the gradients already in the forward pass (see the top of this file); backward
    only scales them. ref_loss and rank_by may be None where k is all tokens. All sizes depend on n and k
    alone, so nothing here makes the host wait for a GPU."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, ref_loss, k, rank_by):
        shape, targets = targets.shape, targets.flatten()                 # (B, T), (n,)
        n, V, device, dtype = len(targets), len(weight), hidden.device, compute_dtype(hidden)
        h, w = hidden.flatten(0, 1).to(dtype), padded(weight.to(dtype))   # (n, C), (V or a little more, C)
        if k < n:
            ref_loss = ref_loss.flatten()                                 # (n,)
        loss = torch.empty(n, dtype=torch.promote_types(dtype, torch.float32), device=device)
        selected = torch.zeros(n, dtype=torch.bool, device=device)
        d_hidden, d_weight = torch.zeros_like(h), torch.zeros_like(w, dtype=weight.dtype)

        def add_gradients(tokens, logits):
            """Of the selected tokens with these numbers, (m,), and logits, (m, len(w))."""
            grad = softmax_minus_one_hot(logits, targets[tokens])         # (m, len(w))
            d_hidden.index_copy_(0, tokens, grad @ w)
            if dtype == d_weight.dtype:
                d_weight.addmm_(grad.t(), h[tokens])  # in place: without another (V, C) matrix
            else:
                d_weight.add_(grad.t() @ h[tokens])
            selected.index_fill_(0, tokens, True)

        spans = chunks(n, w)
        chunk_size = spans[0][1]
        chunk_logits = torch.empty(chunk_size, len(w), dtype=dtype, device=device)  # new memory costs more
        most_that_wait = min(k, n - k) if len(spans) > 1 else 0
        waiting = WaitingRoom(chunk_size, most_that_wait, chunk_logits)
        for a, b in spans:
            logits = chunk_logits[:b - a]                                 # (b - a, len(w))
            torch.mm(h[a:b], w.t(), out=logits)
            logits[:, V:] = -math.inf                                 # rows that only pad are never predicted
            loss[a:b] = loss_in_slices(logits, targets[a:b])
            tokens = torch.arange(a, b, device=device)
            if k == n:
                add_gradients(tokens, logits)
                continue
            candidates = torch.cat([waiting.tokens, tokens])              # in the order of the text
            ranked = rank_by(loss[candidates], ref_loss[candidates]).argsort(descending=True, stable=True)
            n_certain = max(0, k - (n - b)) - max(0, k - (n - a))         # now, less those before this chunk
            n_wait = min(k, b) - max(0, k - (n - b))
            waiting.take_in(tokens, logits)
            if n_certain:
                add_gradients(candidates[ranked[:n_certain]], waiting.logits_of(ranked[:n_certain]))
            waiting.let_stay(ranked[n_certain:n_certain + n_wait].sort().values)
        ctx.save_for_backward(d_hidden.view(hidden.shape), d_weight[:V])  # (B, T, C), (V, C)
        loss, selected = loss.view(shape), selected.view(shape)           # (B, T) each
        ctx.mark_non_differentiable(loss, selected)
        return (loss * selected).sum(), loss, selected

    @staticmethod
    def backward(ctx, grad_loss_sum, *_):
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden.mul_(grad_loss_sum), d_weight.mul_(grad_loss_sum), None, None, None, None


class WaitingRoom:
    """The tokens of which it is not certain yet whether they are selected, and their logits.

    Logits stay in their place while they wait: putting old and new ones together chunk by chunk would copy
    all of them each time. tokens: the numbers of those that wait, ascending. places: in which row of `held`
    the logits of each are.
    """

    def __init__(self, chunk_size, most_that_wait, chunk_logits):
        # Where no token waits (one chunk, or all selected, or none), logits are used where they are.
        self.size = most_that_wait + chunk_size if most_that_wait else 0
        self.held = chunk_logits.new_empty(self.size, chunk_logits.size(1))
        self.chunk_logits = chunk_logits
        self.tokens = self.places = torch.empty(0, dtype=torch.long, device=chunk_logits.device)

    def take_in(self, tokens, logits):
        """All of a chunk: numbers (m,) and logits (m, len(w))."""
        free = torch.arange(len(tokens), device=tokens.device)
        if self.size:
            used = torch.zeros(self.size, dtype=torch.uint8, device=tokens.device)
            used.index_fill_(0, self.places, 1)
            free = used.argsort(stable=True)[:len(tokens)]                # unused places come first
            self.held.index_copy_(0, free, logits)
        self.tokens, self.places = torch.cat([self.tokens, tokens]), torch.cat([self.places, free])

    def logits_of(self, which):
        """The logits of some of those that wait, (m, V), by their numbers in `tokens`."""
        if not self.size:
            return self.chunk_logits[self.places[which]]
        out = self.chunk_logits[:len(which)]  # the chunk's own logits are in `held` by now
        return torch.index_select(self.held, 0, self.places[which], out=out)

    def let_stay(self, which):
        """All others leave."""
        self.tokens, self.places = self.tokens[which], self.places[which]


def softmax_minus_one_hot(logits, targets):
    """The gradient of `token_loss` with respect to the logits, (m, V), in their place unless they are
    bfloat16."""
    if logits.dtype == torch.bfloat16:
        probs = torch.softmax(logits.float(), dim=-1)
    else:
        probs = torch.softmax(logits, dim=-1, out=logits)
    probs[torch.arange(len(probs), device=probs.device), targets] -= 1
    return probs.to(logits.dtype)


def loss_in_slices(logits, targets):
    """`token_loss`; on a processor in slices whose temporary results stay in its cache, three times as
    fast."""
    rows = max(1, 2**21 // logits.size(1)) if logits.device.type == "cpu" else len(logits)
    return torch.cat([token_loss(*slices) for slices in zip(logits.split(rows), targets.split(rows))])


def compile_passes(backend="inductor"):
    """Let torch.compile fuse the element-wise passes over the logits (for --compile)."""
    global token_loss, softmax_minus_one_hot
    token_loss = torch.compile(token_loss, dynamic=True, backend=backend)
    softmax_minus_one_hot = torch.compile(softmax_minus_one_hot, dynamic=True, backend=backend)


def compute_dtype(t):
    """The dtype of matrix products with t: autocast's where it is on, else t's own."""
    kind = t.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return t.dtype


def padded(weight):
    """The output matrix with rows for a multiple of 64 ids, which a GPU multiplies faster."""
    return weight if weight.device.type == "cpu" else F.pad(weight, (0, 0, 0, -len(weight) % 64))


def chunks(n, weight):
    """[(0, a), (a, b), ..., (z, n)]: of equal size but for the last, with logits enough to keep a matrix
    product busy, and no more."""
    most_logits = 2**25 if weight.device.type == "cpu" else 2**27
    n_chunks = math.ceil(n / max(1, most_logits // len(weight)))
    rows = math.ceil(n / n_chunks)
    return [(a, min(a + rows, n)) for a in range(0, n, rows)]
