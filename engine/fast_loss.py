"""
The fast form of the losses: the same results, without holding the logits of all tokens.

    loss_sum = all_tokens_loss(hidden, weight, targets)                                      # train_ref.py
    loss_sum, loss, selected = selected_loss(hidden, weight, targets, ref_loss, k, rank_by)  # train_slm.py
    loss = token_losses(hidden, weight, targets)                             # of all tokens, without gradient

The plain forms stand in the training scripts; tests/test_fast_loss.py holds these equal to them. Two things
make the difference. Logits exist for one chunk of tokens at a time, in memory that is used again. And only
the k selected tokens are multiplied back through the output layer, while their logits are still there:
losses are needed of all tokens, gradients of these alone, so nothing is lost.

n is the number of tokens of a forward pass (B*T), C channels, V vocabulary.
"""
import math

import torch
from torch.nn import functional as F

from model import token_loss


def all_tokens_loss(hidden, weight, targets):
    """The sum of the losses of all tokens, a scalar with gradient. hidden: (B, T, C). weight: (V, C).
    targets: (B, T)."""
    return run_fast(hidden, weight, targets, None, targets.numel(), None)[0]


def selected_loss(hidden, weight, targets, ref_loss, k, rank_by):
    """Equations 3 to 5 of the paper: the loss of the k tokens that `rank_by` puts first.

    hidden: (B, T, C). weight: (V, C), the output layer's. targets: (B, T). ref_loss: (B, T). rank_by: a
    function of (loss, ref_loss), high where a token is to be selected, which treats each token by itself,
    since it is asked for some at a time; among equals the earlier token is selected. Returns the sum over the
    selected tokens (a scalar with gradient), and without gradient the loss of every token and which are
    selected, (B, T).
    """
    return run_fast(hidden, weight, targets, ref_loss, k, rank_by)


def selected_before_loss(hidden, weight, targets, ref_loss, k, rank_by):
    """What `selected_loss` returns where tokens are ranked without their loss: rank_by(None, ref_loss). Only
    the selected ones cost anything in the output layer; the loss of the others comes out as NaN, not
    known."""
    n = targets.numel()
    ranked = rank_by(None, ref_loss).flatten().argsort(descending=True, stable=True)        # (n,)
    best = ranked[:k].sort().values                                                      # (k,), in text order
    best_hidden, best_targets = hidden.flatten(0, 1)[best], targets.flatten()[best]         # (k, C), (k,)
    loss_sum, best_loss, _ = FastLoss.apply(best_hidden, weight, best_targets, None, k, None)
    loss = torch.full((n,), math.nan, dtype=best_loss.dtype, device=hidden.device)
    loss.index_copy_(0, best, best_loss)                                                    # (n,)
    selected = torch.zeros(n, dtype=torch.bool, device=hidden.device).index_fill_(0, best, True)
    return loss_sum, loss.view(targets.shape), selected.view(targets.shape)


@torch.no_grad()
def token_losses(hidden, weight, targets):
    """The losses of all tokens, without gradient. hidden: (..., C), weight: (V, C), targets: (...). Returns
    (...)."""
    V, dtype = len(weight), compute_dtype(hidden)
    h, w = hidden.flatten(0, -2).to(dtype), padded(weight.to(dtype))      # (n, C), (V or a little more, C)
    y = targets.flatten()                                                 # (n,)
    loss = torch.cat([loss_in_slices((h[a:b] @ w.t())[:, :V], y[a:b]) for a, b in chunks(len(h), w)])
    return loss.view(targets.shape)


def run_fast(hidden, weight, targets, ref_loss, k, rank_by):
    """FastLoss with (B, T) in the place of (n,). ref_loss and rank_by may be None where k is all tokens."""
    h, y = hidden.flatten(0, 1), targets.flatten()                                          # (n, C), (n,)
    flat_ref = None if ref_loss is None else ref_loss.flatten()                             # (n,)
    loss_sum, loss, selected = FastLoss.apply(h, weight, y, flat_ref, k, rank_by)
    return loss_sum, loss.view(targets.shape), selected.view(targets.shape)


class FastLoss(torch.autograd.Function):
    """Gradients are computed in the forward pass, chunk by chunk, while the logits are there; backward only
    scales them.

    Which tokens are selected is certain after the last chunk only. But when b of n tokens have been seen,
    the best k - (n - b) of them are selected whatever follows, and those behind the best k are not. Only the
    tokens in between wait, with their logits: at most min(k, n - k) of them, and none with k = n. (Computing
    the logits of the selected tokens a second time is half the code, and took 4% more of GPT-2's step at
    keep 0.6.) All sizes depend on n and k alone, so nothing here makes the host wait for a GPU.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets, ref_loss, k, rank_by):
        n, V, device, dtype = len(hidden), len(weight), hidden.device, compute_dtype(hidden)
        h, w = hidden.to(dtype), padded(weight.to(dtype))                 # (n, C), (V or a little more, C)
        loss = torch.empty(n, dtype=torch.promote_types(dtype, torch.float32), device=device)
        selected = torch.zeros(n, dtype=torch.bool, device=device)
        d_hidden, d_weight = torch.zeros_like(h), torch.zeros_like(w, dtype=weight.dtype)

        def add_gradients(tokens, logits):
            """Of the tokens with these numbers, (m,), which are selected, and whose logits are (m,
            len(w))."""
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
        d_weight = d_weight[:V]
        ctx.save_for_backward(d_hidden, d_weight)
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
        # Where no token waits for another chunk (one chunk, or all selected, or none), logits are used
        # where they are.
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
    """The gradient of `token_loss` with respect to the logits, (m, V); overwrites the logits unless they are
    bfloat16."""
    if logits.dtype == torch.bfloat16:
        probs = torch.softmax(logits.float(), dim=-1)
    else:
        probs = torch.softmax(logits, dim=-1, out=logits)
    probs[torch.arange(len(probs), device=probs.device), targets] -= 1
    return probs.to(logits.dtype)


def loss_in_slices(logits, targets):
    """`token_loss`, on a processor in slices whose temporary results stay in its cache (three times as fast
    there)."""
    rows = max(1, 2**21 // logits.size(1)) if logits.device.type == "cpu" else max(1, len(logits))
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
    """The output matrix with rows for a multiple of 64 ids, which a GPU multiplies faster (GPT-2 has
    50,257)."""
    return weight if weight.device.type == "cpu" else F.pad(weight, (0, 0, 0, -len(weight) % 64))


def chunks(n, weight):
    """[(0, a), (a, b), ..., (z, n)]: of equal size but for the last, with logits enough to keep a matrix
    product busy, and no more. [(0, 0)] where there are no tokens."""
    most_logits = 2**25 if weight.device.type == "cpu" else 2**27
    most_rows = max(1, most_logits // len(weight))
    n_chunks = max(1, math.ceil(n / most_rows))
    rows = max(1, math.ceil(n / n_chunks))
    return [(a, min(a + rows, n)) for a in range(0, n, rows)] or [(0, 0)]
