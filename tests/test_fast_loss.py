"""The fast forms of the losses against the plain ones that stand in the training scripts: autograd over all logits."""
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from engine import fast_loss
from engine.fast_loss import chunks, selected_before_loss, token_losses
from extras import filter_backward, variants
from model import GPT, GPTConfig, token_loss
from train_ref import all_tokens_loss
from train_slm import excess_loss, selected_loss

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


SCORES = {"excess": excess_loss, "low_ref": variants.low_ref, "high_loss": variants.high_loss}


def assert_equal_losses(ours, plain, hidden, weight):
    torch.testing.assert_close(ours[0], plain[0], rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(3 * loss_sum, (hidden, weight)) for loss_sum in (ours[0], plain[0])]
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    assert ours[2].equal(plain[2]) and not ours[1].requires_grad and not ours[2].requires_grad


@pytest.mark.parametrize("k", [1, 7, 18, 30, 36, 42, 59, 60])
@pytest.mark.parametrize("rows", [1, 4, 16, 17, 60])
@pytest.mark.parametrize("what", SCORES)
def test_selected_loss_equals_the_plain_form(monkeypatch, k, rows, what):
    in_chunks_of(monkeypatch, rows)
    hidden, weight, targets, ref_loss = example()
    ours = fast_loss.selected_loss(hidden, weight, targets, ref_loss, k, SCORES[what])
    plain = selected_loss(hidden, weight, targets, ref_loss, k, SCORES[what])
    assert_equal_losses(ours, plain, hidden, weight)
    torch.testing.assert_close(ours[1], plain[1], rtol=1e-12, atol=1e-12)
    assert ours[2].sum() == k


@pytest.mark.parametrize("k", [1, 18, 42, 60])
@pytest.mark.parametrize("rows", [1, 16, 60])
def test_a_selection_that_needs_no_loss_equals_the_plain_form(monkeypatch, k, rows):
    """And computes the logits of the selected tokens only."""
    in_chunks_of(monkeypatch, rows)
    hidden, weight, targets, ref_loss = example()
    plain = selected_loss(hidden, weight, targets, ref_loss, k, variants.low_ref)
    ours = selected_before_loss(hidden, weight, targets, ref_loss, k, variants.low_ref)
    assert_equal_losses(ours, plain, hidden, weight)
    assert ours[1].isnan().equal(~plain[2])
    torch.testing.assert_close(ours[1][plain[2]], plain[1][plain[2]], rtol=1e-12, atol=1e-12)
    with CountedElements() as seen:
        selected_before_loss(hidden, weight, targets, ref_loss, k, variants.low_ref)
    assert seen.products == k * V + k * C + V * C * len(range(0, k, rows))  # logits, d_hidden, d_weight


@pytest.mark.parametrize("rows", [7, 60])
def test_all_tokens_equal_the_plain_form(monkeypatch, rows):
    in_chunks_of(monkeypatch, rows)
    hidden, weight, targets, _ = example()
    ours, plain = fast_loss.all_tokens_loss(hidden, weight, targets), all_tokens_loss(hidden, weight, targets)
    cross_entropy = F.cross_entropy(F.linear(hidden, weight).flatten(0, 1), targets.flatten(), reduction="sum")
    gradients = torch.autograd.grad(ours, (hidden, weight))
    for expected in (plain, cross_entropy):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
        for a, b in zip(gradients, torch.autograd.grad(expected, (hidden, weight))):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    selected_all = fast_loss.selected_loss(hidden, weight, targets, torch.zeros(B, T), N, excess_loss)
    assert selected_all[2].all() and selected_all[0] == ours
    torch.testing.assert_close(token_losses(hidden, weight, targets), selected_all[1], rtol=0, atol=0)


def test_no_tokens_at_all():
    hidden, weight, targets, ref_loss = example()
    loss_sum, loss, selected = fast_loss.selected_loss(hidden[:0], weight, targets[:0], ref_loss[:0], 0, excess_loss)
    assert loss_sum == 0 and loss.shape == selected.shape == (0, T)
    assert all((g == 0).all() for g in torch.autograd.grad(loss_sum, (hidden, weight)))


class CountedElements(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns, and of all results of matrix products."""
    largest, products = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, torch.Tensor):
                self.largest = max(self.largest, t.numel())
                if any(name in str(func) for name in ("aten.mm", "aten.addmm")):
                    self.products += t.numel()
        return out


@pytest.mark.parametrize("k, at_most", [(60, 5), (18, 18 + 5), (42, 18 + 5)])
def test_logits_exist_for_a_few_tokens_at_a_time(monkeypatch, k, at_most):
    """Never n x V: a chunk, and the min(k, n - k) that may have to wait."""
    in_chunks_of(monkeypatch, 5)
    hidden, weight, targets, ref_loss = example()
    with CountedElements() as seen:
        fast_loss.selected_loss(hidden, weight, targets, ref_loss, k, excess_loss)[0].backward()
    assert seen.largest <= max(at_most * V, N * C)
    if k == 60:
        with CountedElements() as seen:
            fast_loss.all_tokens_loss(hidden, weight, targets).backward()
        assert seen.largest <= max(at_most * V, N * C)
    with CountedElements() as seen:
        token_loss(F.linear(hidden, weight), targets)
    assert seen.largest == N * V  # the instrument works


def test_chunks_cover_all_tokens_in_equal_parts():
    weight = torch.empty(2**20, 1)  # 32 rows of logits at a time on a processor
    assert chunks(64, weight) == [(0, 32), (32, 64)]
    assert chunks(65, weight) == [(0, 22), (22, 44), (44, 65)]
    assert chunks(5, weight) == [(0, 5)] and chunks(0, weight) == [(0, 0)]


def test_ids_that_pad_the_output_matrix_change_nothing(monkeypatch):
    """On a GPU the matrix gets rows for a multiple of 64 ids; they are never predicted and get no gradient."""
    in_chunks_of(monkeypatch, 16)
    hidden, weight, targets, ref_loss = example()
    expected = fast_loss.selected_loss(hidden, weight, targets, ref_loss, 18, excess_loss)
    monkeypatch.setattr(fast_loss, "padded", lambda w: F.pad(w, (0, 0, 0, -len(w) % 64)))
    ours = fast_loss.selected_loss(hidden, weight, targets, ref_loss, 18, excess_loss)
    assert_equal_losses(ours, expected, hidden, weight)
    torch.testing.assert_close(ours[1], expected[1], rtol=1e-12, atol=1e-12)


def model_and_batch(bias=True, dropout=0.0):
    torch.manual_seed(3)
    model = GPT(GPTConfig(block_size=10, vocab_size=V, n_layer=3, n_head=2, n_embd=8, bias=bias, dropout=dropout)).double()
    x, y = torch.randint(V, (2, 10)), torch.randint(V, (2, 10))
    return model, x, y, torch.rand(2, 10, dtype=torch.float64)


def gradients_of(model, loss_of, x, y, ref_loss, k):
    """Gradients of the loss of the k tokens of highest excess loss, and which they are."""
    model.zero_grad()
    loss_sum, _, selected = loss_of(model(x), model.output_weight, y, ref_loss, k, excess_loss)
    loss_sum.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}, selected


@pytest.mark.parametrize("bias, dropout", [(True, 0.0), (False, 0.0), (True, 0.2)])
def test_gradients_of_the_whole_model_equal_the_plain_forms(bias, dropout):
    model, x, y, ref_loss = model_and_batch(bias, dropout)
    torch.manual_seed(5)  # of dropout
    expected, _ = gradients_of(model, selected_loss, x, y, ref_loss, 6)
    torch.manual_seed(5)
    ours, selected = gradients_of(model, fast_loss.selected_loss, x, y, ref_loss, 6)
    assert selected.sum() == 6
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize("loss_of", [selected_loss, fast_loss.selected_loss])
def test_filter_backward_stops_gradients_at_tokens_that_are_not_selected(loss_of):
    """The same as zeroing, by hooks, the gradient of every linear layer's output at those tokens."""
    model, x, y, ref_loss = model_and_batch()
    exact, selected = gradients_of(model, loss_of, x, y, ref_loss, 6)

    def zero_elsewhere(module, args, out):
        out.register_hook(lambda grad: grad * selected.unsqueeze(2))
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    hooks = [m.register_forward_hook(zero_elsewhere) for m in linear]
    expected, _ = gradients_of(model, loss_of, x, y, ref_loss, 6)
    for hook in hooks:
        hook.remove()
    filtering_loss = filter_backward.install(model, loss_of)
    ours, _ = gradients_of(model, filtering_loss, x, y, ref_loss, 6)
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-10, atol=1e-13, msg=name)
    assert not torch.allclose(ours["h.0.attn.c_attn.weight"], exact["h.0.attn.c_attn.weight"])  # it is an approximation
    torch.testing.assert_close(ours["ln_f.weight"], exact["ln_f.weight"])


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("rows", [4, 20])
def test_autocast_to_bfloat16(monkeypatch, filtered, rows):
    """What a GPU does, tried on the processor: losses in float32, gradients in the dtype of the weights, to rounding."""
    in_chunks_of(monkeypatch, rows)
    model, x, y, _ = model_and_batch()
    model, ref_loss = model.float(), torch.randn(2, 10)
    fast = filter_backward.install(model, fast_loss.selected_loss) if filtered else fast_loss.selected_loss
    expected, selected = gradients_of(model, fast, x, y, ref_loss, 12)

    def same_choice(loss, which):
        return which
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model(x)
        loss_sum, loss, same = fast(hidden, model.output_weight, y, selected.float(), 12, same_choice)
        plain_sum, plain_loss, _ = selected_loss(hidden, model.output_weight, y, selected.float(), 12, same_choice)
        assert token_losses(hidden, model.output_weight, y).equal(loss)
    assert loss.dtype == plain_loss.dtype == torch.float32 and same.equal(selected)
    torch.testing.assert_close(loss, plain_loss)
    torch.testing.assert_close(loss_sum, plain_sum)
    model.zero_grad()
    loss_sum.backward()
    for name, p in model.named_parameters():
        assert p.grad.dtype == torch.float32
        assert (p.grad - expected[name]).norm() <= 0.03 * expected[name].norm() + 1e-3, name


@pytest.mark.parametrize("loss_of", [selected_loss, fast_loss.selected_loss])
def test_torch_compile_without_graph_breaks_or_recompilation(loss_of):
    model, x, y, ref_loss = model_and_batch()
    expected, _ = gradients_of(model, selected_loss, x, y, ref_loss, 6)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            model.zero_grad()
            loss_sum, _, _ = loss_of(compiled(x), model.output_weight, y, ref_loss, 6, excess_loss)
            loss_sum.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-10, atol=1e-13, msg=name)


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
    torch.testing.assert_close(ours[1], expected[1])
