"""
Where selection saves work: only the kept tokens are multiplied back.

    losses = losses_of(hidden, weight, targets)                        # (...) of all tokens, no gradient
    loss, losses, kept = kept_loss(hidden, weight, targets, k, score)  # sum over the k tokens of highest score

Autograd functions with a backward of their own, tested against the plain form (tests/test_kept.py):

    KeptLoss        the output layer and the cross-entropy. Gradients come from the k kept tokens alone, and logits
                    exist for one chunk of tokens, and for those still undecided: at most min(k, n - k) of n.
    KeptLinear      a linear layer and an MLP that skip the tokens whose gradient is zero. In the last block these are
    KeptMLP         all that are not kept, so nothing is lost.
    FilteredLinear  drops the gradients of these tokens where they are not zero; with it, all blocks can skip them.
                    Approximate, for `--filter_backward`.

n is the number of tokens of a forward pass (B x T), C channels, V vocabulary.
"""
import math

import torch
from torch.nn import functional as F


def token_losses(logits, targets):
    """Cross-entropy of each token: -log softmax(logits)[target], in float32 (ties in bf16 would decide a ranking).

    logits: (..., V). targets: (...) token ids. Returns (...) float32, or float64 for float64 logits.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(logits.reshape(-1, logits.size(-1)), targets.reshape(-1), reduction="none")
    return losses.view(targets.shape)


def select(scores, k):
    """Mask of the k highest of n scores; among ties the earlier, so it is exactly as many.

    One ranking over all tokens, not one per row: a row of junk may keep none. Fixed rows hold no padding, and
    end-of-text tokens are ranked like all others. scores: float, any shape. Returns bool, same shape (equation 5).
    """
    best = scores.flatten().argsort(descending=True, stable=True)[:k]
    return torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device).index_fill_(0, best, True).view(scores.shape)


def softmax_minus_one_hot(logits, targets):
    """The gradient of `token_losses` with respect to the logits, (n, V); overwrites logits unless they are bfloat16."""
    probs = torch.softmax(logits.float(), dim=-1) if logits.dtype == torch.bfloat16 else \
        torch.softmax(logits, dim=-1, out=logits)
    probs[torch.arange(len(probs), device=probs.device), targets] -= 1
    return probs.to(logits.dtype)


def compile_passes(backend="inductor"):
    """Let torch.compile fuse the element-wise passes over the logits (for --compile)."""
    global token_losses, softmax_minus_one_hot
    token_losses = torch.compile(token_losses, dynamic=True, backend=backend)
    softmax_minus_one_hot = torch.compile(softmax_minus_one_hot, dynamic=True, backend=backend)


def compute_dtype(t):
    """Of matrix products with t: autocast's where it is on, else t's own."""
    return torch.get_autocast_dtype(t.device.type) if torch.is_autocast_enabled(t.device.type) else t.dtype


def chunks(n, weight):
    """[(0, a), (a, b), ..., (z, n)]: of equal size, with logits enough to keep a matrix product busy, and no more."""
    most = max(1, (2**25 if weight.device.type == "cpu" else 2**27) // len(weight))
    rows = math.ceil(n / math.ceil(n / most)) if n else 1
    return [(a, min(a + rows, n)) for a in range(0, n, rows)] or [(0, 0)]


def losses_in_slices(logits, targets):
    """`token_losses`, in slices whose temporary results a processor finds in its cache (three times as fast there)."""
    rows = max(1, 2**21 // logits.size(1)) if logits.device.type == "cpu" else len(logits)
    return torch.cat([token_losses(*slices) for slices in zip(logits.split(rows), targets.split(rows))])


@torch.no_grad()
def losses_of(hidden, weight, targets, vocab_size=None):
    """Losses of all tokens. hidden: (..., C), weight: (V, C), targets: (...). Returns (...), float32 or float64.
    vocab_size: ids from there on only pad the weight, and are never predicted."""
    dtype = compute_dtype(hidden)
    h, w, y = hidden.flatten(0, -2).to(dtype), weight.to(dtype), targets.flatten()
    return torch.cat([losses_in_slices((h[a:b] @ w.t())[:, :vocab_size], y[a:b]) for a, b in chunks(len(h), w)]).view(targets.shape)


def kept_loss(hidden, weight, targets, k=None, score=None, token_weights=None, vocab_size=None):
    """Sum of the losses of the k tokens with the highest score; without k of all, which is CLM.

    hidden: (..., C). weight: (V, C), the output layer's. targets: (...). score: a function of (losses, i): of the tokens
    with indices i, (m,), among all n in order, whose losses are given, the scores (m,); among equals the earlier is kept.
    token_weights: in the sum, (n,); None: all 1. vocab_size: ids from there on only pad the weight, and are never predicted.
    Returns the sum (a scalar with gradient), and without gradient the losses of all tokens and which are kept, (...).
    """
    k = targets.numel() if k is None else k
    loss, losses, kept = KeptLoss.apply(hidden.reshape(-1, hidden.size(-1)), weight, targets.flatten(), k, score,
                                        token_weights, vocab_size)
    return loss, losses.view(targets.shape), kept.view(targets.shape)


class KeptLoss(torch.autograd.Function):
    """The gradients are computed in the forward pass, chunk by chunk, while the logits are there.

    Which tokens are kept is certain after the last chunk only. But after b of n tokens, the best k - (n - b) so far are
    in whatever follows, and those behind the best k are out. Only the rest wait, with their logits; with k = n none.
    (Computing the logits of the kept tokens once more instead is half the code, and took 4% more of GPT-2's step at keep
    0.6.) All sizes depend on n and k alone, so nothing here makes the host wait for a GPU.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets, k, score, token_weights, vocab_size):
        n, V, device, dtype = len(hidden), len(weight), hidden.device, compute_dtype(hidden)
        h, w = hidden.to(dtype), weight.to(dtype)
        losses = torch.empty(n, dtype=torch.promote_types(dtype, torch.float32), device=device)
        kept = torch.zeros(n, dtype=torch.bool, device=device)
        d_hidden, d_weight = torch.zeros_like(h), torch.zeros_like(weight)

        def add_gradients(i, logits):
            """Those of the tokens i, (m,), which are kept and whose logits are (m, V)."""
            grad = softmax_minus_one_hot(logits, targets[i])
            if token_weights is not None:
                grad *= token_weights[i].unsqueeze(1).to(grad.dtype)
            d_hidden.index_copy_(0, i, grad @ w)
            if dtype == d_weight.dtype:
                d_weight.addmm_(grad.t(), h[i])  # in place: without a V x C temporary
            else:
                d_weight.add_(grad.t() @ h[i])
            kept.index_fill_(0, i, True)

        spans = chunks(n, w)
        rows = spans[0][1]
        logits = torch.empty(rows, V, dtype=dtype, device=device)  # memory used again costs less than new memory
        room = min(k, n - k) + rows if len(spans) > 1 and k < n else 0
        # The tokens that wait, ascending, and which row of `held` has the logits of each. They stay there while they wait:
        # putting old and new ones together chunk by chunk would copy all of them each time.
        held = torch.empty(room, V, dtype=dtype, device=device)
        waiting = slots = torch.empty(0, dtype=torch.long, device=device)
        for a, b in spans:
            i = torch.arange(a, b, device=device)
            torch.mm(h[a:b], w.t(), out=logits[:b - a])
            logits[:b - a, vocab_size or V:] = -math.inf
            losses[a:b] = losses_in_slices(logits[:b - a], targets[a:b])
            if k == n:
                add_gradients(i, logits[:b - a])
                continue
            sure_before, sure = max(0, k - (n - a)), max(0, k - (n - b))
            n_in, n_wait = sure - sure_before, min(k, b) - sure
            waiting = torch.cat([waiting, i])
            best = score(losses[waiting], waiting).argsort(descending=True, stable=True)
            if room:
                used = torch.zeros(room, dtype=torch.uint8, device=device).index_fill_(0, slots, 1)
                free = used.argsort(stable=True)[:b - a]
                held.index_copy_(0, free, logits[:b - a])
                slots = torch.cat([slots, free])
                if n_in:
                    torch.index_select(held, 0, slots[best[:n_in]], out=logits[:n_in])
                    add_gradients(waiting[best[:n_in]], logits[:n_in])
                best = best[n_in:n_in + n_wait].sort().values
                waiting, slots = waiting[best], slots[best]
            else:
                add_gradients(best[:k], logits[best[:k]])
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.mark_non_differentiable(losses, kept)
        in_sum = losses * kept if token_weights is None else losses * kept * token_weights
        return in_sum.sum(), losses, kept

    @staticmethod
    def backward(ctx, grad_loss, *_):
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden.mul_(grad_loss), d_weight.mul_(grad_loss), None, None, None, None, None


def rows_with_gradient(grad, k):
    """Indices of the rows of grad (n, C) that are not all zero. k: how many there are at most, which spares a GPU the
    counting; 0 if unknown."""
    size = grad.abs().amax(dim=1)
    return size.topk(k).indices if k else size.nonzero().squeeze(1)


def linear_backward(x, weight, has_bias, grad, i):
    """Gradients of F.linear(x, weight, bias), x (..., C), from the rows i of the gradient grad (..., C') of its output."""
    grad, rows = grad.flatten(0, -2)[i], x.flatten(0, -2)
    d_x = torch.zeros_like(rows).index_copy_(0, i, grad @ weight).view(x.shape)
    return d_x, grad.t() @ rows[i], grad.sum(dim=0) if has_bias else None


class KeptLinear(torch.autograd.Function):
    """F.linear(x, weight, bias), whose backward skips the tokens whose gradient is zero.

    x: (B, T, C). k: as for `rows_with_gradient`. not_skipped: None, or what FilteredLinear returned.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, k, not_skipped=None):
        x, weight = x.to(compute_dtype(x)), weight.to(compute_dtype(x))
        ctx.save_for_backward(x, weight)
        ctx.k, ctx.has_bias, ctx.report = k, bias is not None, not_skipped is not None
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        i = rows_with_gradient(grad.flatten(0, 1), ctx.k)
        not_skipped = torch.zeros(x.size(0) * x.size(1), 1, device=x.device).index_fill_(0, i, 1) if ctx.report else None
        return *linear_backward(x, weight, ctx.has_bias, grad, i), None, not_skipped


class FilteredLinear(torch.autograd.Function):
    """F.linear(x, weight, bias), whose backward drops the tokens that a later KeptLinear has skipped.

    For queries, keys and values. Those of a token that is not kept may well have a gradient, as kept tokens look at its
    key and value; dropping it is the approximation of --filter_backward. Returns the output and `not_skipped`, (n, 1)
    zeros to give to that KeptLinear: its gradient is 1 for the tokens not skipped, which is how they are known here. (A
    query gradient of zero would not tell: the first token of a row has none even if it is kept.)
    """

    @staticmethod
    def forward(ctx, x, weight, bias, k):
        x, weight = x.to(compute_dtype(x)), weight.to(compute_dtype(x))
        ctx.save_for_backward(x, weight)
        ctx.k, ctx.has_bias = k, bias is not None
        return F.linear(x, weight, bias), torch.zeros(x.size(0) * x.size(1), 1, device=x.device)

    @staticmethod
    def backward(ctx, grad, not_skipped):
        x, weight = ctx.saved_tensors
        return *linear_backward(x, weight, ctx.has_bias, grad, rows_with_gradient(not_skipped, ctx.k)), None


class KeptMLP(torch.autograd.Function):
    """linear(gelu(linear(x, w1, b1)), w2, b2), whose backward skips the tokens whose gradient is zero.

    Two KeptLinear would do, but between them lie 4 C columns of zeros to write, to multiply and to search.
    """

    @staticmethod
    def forward(ctx, x, w1, b1, w2, b2, k):
        x, w1, w2 = (t.to(compute_dtype(x)) for t in (x, w1, w2))
        a = F.linear(x, w1, b1)
        h = F.gelu(a, approximate="tanh")
        ctx.save_for_backward(x, w1, w2, a, h)
        ctx.k, ctx.has_bias = k, b1 is not None
        return F.linear(h, w2, b2)

    @staticmethod
    def backward(ctx, grad):
        x, w1, w2, a, h = ctx.saved_tensors
        rows, a, h, grad = x.flatten(0, 1), a.flatten(0, 1), h.flatten(0, 1), grad.flatten(0, 1)
        i = rows_with_gradient(grad, ctx.k)
        grad = grad[i]
        d_a = torch.ops.aten.gelu_backward(grad @ w2, a[i], approximate="tanh")
        d_x = torch.zeros_like(rows).index_copy_(0, i, d_a @ w1).view(x.shape)
        d_b1, d_b2 = (d_a.sum(dim=0), grad.sum(dim=0)) if ctx.has_bias else (None, None)
        return d_x, d_a.t() @ rows[i], d_b1, grad.t() @ h[i], d_b2, None
