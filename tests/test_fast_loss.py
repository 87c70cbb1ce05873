"""The fast forms of the losses against the plain ones that stand in the training scripts: autograd over all logits."""
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from engine import fast_loss
from engine.fast_loss import chunks, token_losses
from model import GPT, GPTConfig, token_loss
from train_ref import all_tokens_loss
from train_slm import RANK_BY, excess_loss, selected_loss

B, T, C, V = 3, 20, 4, 101
N = B * T


def in_chunks_of(monkeypatch, rows):
    monkeypatch.setattr(fast_loss, "chunks", lambda n, weight: [(a, min(a + rows, n)) for a in range(0, n, rows)])


def example(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(B, T, C, generator=g, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, C, generator=g, dtype=dtype, requires_grad=True)
    targets = torch.randint(V, (B, T), generator=g)
    ref_loss = torch.randint(3, (B, T), generator=g).to(dtype)  # few values: many ties in -ref_loss
    return hidden, weight, targets, ref_loss


def assert_equal_losses(ours, plain, hidden, weight):
    torch.testing.assert_close(ours[:2], plain[:2], rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(3 * loss_sum, (hidden, weight)) for loss_sum in (ours[0], plain[0])]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)
    assert ours[2].equal(plain[2]) and not ours[1].requires_grad and not ours[2].requires_grad


@pytest.mark.parametrize("k", [1, 18, 30, 42, 59, 60])
@pytest.mark.parametrize("rows", [1, 16, 17, 60])
@pytest.mark.parametrize("what", RANK_BY)
@pytest.mark.parametrize("ids", [1, 64])
def test_selected_loss_equals_the_plain_form(monkeypatch, k, rows, what, ids):
    """On a GPU the matrix gets rows for a multiple of 64 ids; they are never predicted and get no gradient."""
    in_chunks_of(monkeypatch, rows)
    monkeypatch.setattr(fast_loss, "padded", lambda w: F.pad(w, (0, 0, 0, -len(w) % ids)))
    hidden, weight, targets, ref_loss = example()
    ours = fast_loss.selected_loss(hidden, weight, targets, ref_loss, k, RANK_BY[what])
    plain = selected_loss(hidden, weight, targets, ref_loss, k, RANK_BY[what])
    assert_equal_losses(ours, plain, hidden, weight)
    assert ours[2].sum() == k


@pytest.mark.parametrize("rows", [7, 60])
def test_all_tokens_equal_the_plain_form(monkeypatch, rows):
    in_chunks_of(monkeypatch, rows)
    hidden, weight, targets, _ = example()
    ours, plain = fast_loss.all_tokens_loss(hidden, weight, targets), all_tokens_loss(hidden, weight, targets)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(loss, (hidden, weight)) for loss in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)
    selected_all = fast_loss.selected_loss(hidden, weight, targets, torch.zeros(B, T), N, excess_loss)
    assert selected_all[2].all() and selected_all[0] == ours
    torch.testing.assert_close(token_losses(hidden, weight, targets), selected_all[1], rtol=0, atol=0)


class CountedElements(TorchDispatchMode):
    """How many elements the largest tensor has that any operation returns."""
    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, torch.Tensor):
                self.largest = max(self.largest, t.numel())
        return out


@pytest.mark.parametrize("k, at_most", [(60, 5), (18, 18 + 5), (42, 18 + 5)])
def test_logits_exist_for_a_few_tokens_at_a_time(monkeypatch, k, at_most):
    """Never n x V: a chunk, and the min(k, n - k) that may have to wait."""
    in_chunks_of(monkeypatch, 5)
    hidden, weight, targets, ref_loss = example()
    with CountedElements() as seen:
        fast_loss.selected_loss(hidden, weight, targets, ref_loss, k, excess_loss)[0].backward()
    assert seen.largest <= max(at_most * V, N * C)
    with CountedElements() as seen:
        token_loss(F.linear(hidden, weight), targets)
    assert seen.largest == N * V  # the instrument works


def test_chunks_cover_all_tokens_in_equal_parts():
    weight = torch.empty(2**20, 1)  # 32 rows of logits at a time on a processor
    assert chunks(64, weight) == [(0, 32), (32, 64)]
    assert chunks(65, weight) == [(0, 22), (22, 44), (44, 65)]
    assert chunks(5, weight) == [(0, 5)]


def test_autocast_to_bfloat16(monkeypatch):
    """What a GPU does, tried on the processor: losses in float32, gradients in the dtype of the weights, to rounding."""
    in_chunks_of(monkeypatch, 16)
    hidden, weight, targets, ref_loss = example(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = selected_loss(hidden, weight, targets, ref_loss, 18, RANK_BY["ref"])
        ours = fast_loss.selected_loss(hidden, weight, targets, ref_loss, 18, RANK_BY["ref"])
    assert ours[1].dtype == plain[1].dtype == torch.float32 and ours[2].equal(plain[2])
    torch.testing.assert_close(ours[:2], plain[:2])
    full = selected_loss(hidden, weight, targets, ref_loss, 18, RANK_BY["ref"])
    for a, b in zip(*(torch.autograd.grad(loss_sum, (hidden, weight)) for loss_sum in (ours[0], full[0]))):
        assert a.dtype == torch.float32 and (a - b).norm() <= 0.03 * b.norm()


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
@pytest.mark.parametrize("loss_of", [selected_loss, fast_loss.selected_loss])
def test_torch_compile_without_graph_breaks_or_recompilation(loss_of, arch):
    """Also: the gradients of the whole model are those of the plain form."""
    torch.manual_seed(3)
    model = GPT(GPTConfig(block_size=10, vocab_size=V, n_layer=3, n_head=2, n_embd=8, arch=arch)).double()
    x, y, ref_loss = torch.randint(V, (2, 10)), torch.randint(V, (2, 10)), torch.rand(2, 10, dtype=torch.float64)

    def gradients(model_of, loss_of):
        model.zero_grad()
        loss_of(model_of(x), model.output_weight, y, ref_loss, 6, excess_loss)[0].backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}
    expected = gradients(model, selected_loss)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        ours = [gradients(compiled, loss_of) for _ in range(3)]
    torch.testing.assert_close(ours[-1], expected, rtol=1e-10, atol=1e-13)


def test_compiled_passes_equal_the_plain_ones(monkeypatch):
    monkeypatch.setattr(fast_loss, "token_loss", fast_loss.token_loss)  # so that the test puts them back
    monkeypatch.setattr(fast_loss, "softmax_minus_one_hot", fast_loss.softmax_minus_one_hot)
    in_chunks_of(monkeypatch, 16)
    hidden, weight, targets, ref_loss = example()
    expected = fast_loss.selected_loss(hidden, weight, targets, ref_loss, 18, excess_loss)
    torch._dynamo.reset()
    fast_loss.compile_passes(backend="aot_eager")
    ours = fast_loss.selected_loss(hidden, weight, targets, ref_loss, 18, excess_loss)
    assert_equal_losses(ours, expected, hidden, weight)
