"""What is multiplied back of the kept tokens only, against the plain form: autograd over all of them, in float64."""
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import kept
from kept import KeptLinear, KeptMLP, chunks, kept_loss, losses_of, select, token_losses
from model import GPT, GPTConfig

N, C, V = 60, 4, 101


def in_chunks_of(monkeypatch, rows):
    monkeypatch.setattr(kept, "chunks", lambda n, weight: [(a, min(a + rows, n)) for a in range(0, n, rows)])


def example(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, C, generator=g, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, C, generator=g, dtype=dtype, requires_grad=True)
    targets = torch.randint(V, (N,), generator=g)
    ref = torch.randint(3, (N,), generator=g).to(dtype)  # few values: many ties in -ref
    return hidden, weight, targets, ref


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


@pytest.mark.parametrize("k", [1, 7, 18, 30, 36, 42, 59, 60])
@pytest.mark.parametrize("rows", [1, 4, 16, 17, 60])
@pytest.mark.parametrize("what", ["excess", "low_ref", "high_loss"])
def test_kept_loss_equals_the_plain_form(monkeypatch, k, rows, what):
    in_chunks_of(monkeypatch, rows)
    hidden, weight, targets, ref = example()

    def score(losses, i):
        return {"excess": losses - ref[i], "low_ref": -ref[i], "high_loss": losses}[what]
    loss, losses, mask = kept_loss(hidden, weight, targets, k, score)
    plain_losses = token_losses(F.linear(hidden, weight), targets)
    plain_mask = select(score(plain_losses.detach(), torch.arange(N)), k)
    assert mask.equal(plain_mask) and mask.sum() == k
    torch.testing.assert_close(losses, plain_losses.detach(), rtol=1e-12, atol=1e-12)
    assert not losses.requires_grad and not mask.requires_grad
    plain = (plain_losses * plain_mask).sum()
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-12)
    for ours, expected in zip(gradients(3 * loss, hidden, weight), gradients(3 * plain, hidden, weight)):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rows", [7, 60])
def test_without_k_it_is_clm(monkeypatch, rows):
    in_chunks_of(monkeypatch, rows)
    hidden, weight, targets, _ = example()
    loss, losses, mask = kept_loss(hidden.view(3, 20, C), weight, targets.view(3, 20))
    assert losses.shape == mask.shape == (3, 20) and mask.all()
    plain = F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-12)
    for ours, expected in zip(gradients(loss, hidden, weight), gradients(plain, hidden, weight)):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(losses_of(hidden.view(3, 20, C), weight, targets.view(3, 20)), losses, rtol=0, atol=0)


def test_no_tokens_at_all():
    """A micro-batch of junk may keep none."""
    hidden, weight, targets, _ = example()
    loss, losses, mask = kept_loss(hidden[:0], weight, targets[:0])
    assert loss == 0 and losses.shape == mask.shape == (0,)
    assert all((g == 0).all() for g in gradients(loss, hidden, weight))


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns."""
    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, torch.Tensor):
                self.largest = max(self.largest, t.numel())
        return out


@pytest.mark.parametrize("k, at_most", [(60, 5), (18, 18 + 5), (42, 18 + 5), (None, 5)])
def test_logits_exist_for_a_few_tokens_at_a_time(monkeypatch, k, at_most):
    """Never n x V: a chunk, and the min(k, n - k) that may have to wait."""
    in_chunks_of(monkeypatch, 5)
    hidden, weight, targets, ref = example()
    with LargestTensor() as seen:
        loss, _, _ = kept_loss(hidden, weight, targets, k, lambda losses, i: losses - ref[i])
        loss.backward()
    assert seen.largest <= max(at_most * V, N * C)
    with LargestTensor() as seen:
        token_losses(F.linear(hidden, weight), targets)
    assert seen.largest == N * V  # the instrument works


def test_chunks_cover_all_tokens_in_equal_parts():
    weight = torch.empty(2**20, 1)  # 32 rows of logits at a time on a processor
    assert chunks(64, weight) == [(0, 32), (32, 64)]
    assert chunks(65, weight) == [(0, 22), (22, 44), (44, 65)]
    assert chunks(5, weight) == [(0, 5)] and chunks(0, weight) == [(0, 0)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("k", [0, 6, 9])  # unknown, exact, more than there are
def test_linear_and_mlp_of_kept_tokens_equal_the_dense_ones(bias, k):
    g = torch.Generator().manual_seed(1)

    def tensor(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64, requires_grad=True)
    x, w1, w2 = tensor(2, 10, C), tensor(4 * C, C), tensor(C, 4 * C)
    b1, b2 = (tensor(4 * C), tensor(C)) if bias else (None, None)
    grad = torch.zeros(20, C, dtype=torch.float64)
    grad[[1, 3, 4, 11, 12, 19]] = torch.randn(6, C, generator=g, dtype=torch.float64)
    grad = grad.view(2, 10, C)
    some = [t for t in (x, w1, b1, w2, b2) if t is not None]
    dense = F.linear(F.gelu(F.linear(x, w1, b1), approximate="tanh"), w2, b2)
    ours = KeptMLP.apply(x, w1, b1, w2, b2, k)
    torch.testing.assert_close(ours, dense)
    for a, b in zip(torch.autograd.grad(ours, some, grad), torch.autograd.grad(dense, some, grad)):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    h = tensor(2, 10, 4 * C)
    some = [t for t in (h, w2, b2) if t is not None]
    dense, ours = F.linear(h, w2, b2), KeptLinear.apply(h, w2, b2, k)
    torch.testing.assert_close(ours, dense)
    for a, b in zip(torch.autograd.grad(ours, some, grad), torch.autograd.grad(dense, some, grad)):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_tokens_beyond_k_are_skipped_indeed():
    """With a k that is too small, the smallest gradients are left out: else the tests above would pass without skipping."""
    g = torch.Generator().manual_seed(1)
    x, w, grad = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((1, 9, C), (C, C), (1, 9, C)))
    x.requires_grad_()
    [ours] = torch.autograd.grad(KeptLinear.apply(x, w, None, 6), x, grad)
    smallest = grad[0].abs().amax(dim=1).argsort()[:3]
    [expected] = torch.autograd.grad(F.linear(x, w), x, grad.index_fill(1, smallest, 0))
    torch.testing.assert_close(ours, expected)
    [ours] = torch.autograd.grad(KeptMLP.apply(x, w, None, w, None, 6), x, grad)
    assert (ours[0].abs().amax(dim=1) == 0).nonzero().flatten().tolist() == sorted(smallest.tolist())


class HostMustNotWait(TorchDispatchMode):
    """Refuses the operations that make the host wait for a GPU: reading a value, counting."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in ("nonzero", "_local_scalar_dense", "masked_select", "unique")), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("filter_backward", [False, True])
def test_a_step_does_not_wait_for_the_device(monkeypatch, filter_backward):
    in_chunks_of(monkeypatch, 4)
    model, x, y, ref = model_and_batch()
    with HostMustNotWait():
        loss, _, _ = kept_loss(model(x, n_kept=6, filter_backward=filter_backward), model.wte.weight, y, 6,
                               lambda losses, i: losses - ref[i])
        loss.backward()
    with pytest.raises(AssertionError), HostMustNotWait():
        loss.item()  # the instrument works


def model_and_batch(bias=True, dropout=0.0):
    torch.manual_seed(3)
    model = GPT(GPTConfig(block_size=10, vocab_size=V, n_layer=3, n_head=2, n_embd=8, bias=bias, dropout=dropout)).double()
    return model, torch.randint(V, (2, 10)), torch.randint(V, (2, 10)), torch.rand(20, dtype=torch.float64)


def step(model, x, y, ref, k, **how):
    """Gradients of the loss of the k tokens of highest excess loss, and which they are."""
    model.zero_grad()
    loss, _, mask = kept_loss(model(x, **how), model.wte.weight, y, k, lambda losses, i: losses - ref[i])
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}, mask


@pytest.mark.parametrize("bias, dropout", [(True, 0.0), (False, 0.0), (True, 0.2)])
@pytest.mark.parametrize("known", [True, False])
def test_the_last_block_skips_only_zeros(bias, dropout, known):
    model, x, y, ref = model_and_batch(bias, dropout)
    torch.manual_seed(5)  # of dropout
    expected, _ = step(model, x, y, ref, 6)
    torch.manual_seed(5)
    ours, mask = step(model, x, y, ref, 6, n_kept=6 if known else 0)
    assert mask.sum() == 6
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize("known", [True, False])
def test_filter_backward_stops_gradients_at_tokens_that_are_not_kept(known):
    """The same as zeroing, by hooks, the gradient of every linear layer's output at those tokens."""
    model, x, y, ref = model_and_batch()
    exact, mask = step(model, x, y, ref, 6)
    ours, _ = step(model, x, y, ref, 6, n_kept=6 if known else 0, filter_backward=True)

    def zero_elsewhere(module, args, out):
        out.register_hook(lambda grad: grad * mask.unsqueeze(2))
    hooks = [m.register_forward_hook(zero_elsewhere) for m in model.modules() if isinstance(m, torch.nn.Linear)]
    expected, _ = step(model, x, y, ref, 6)
    for hook in hooks:
        hook.remove()
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-10, atol=1e-13, msg=name)
    assert not torch.allclose(ours["h.0.attn.c_attn.weight"], exact["h.0.attn.c_attn.weight"])  # it is an approximation
    torch.testing.assert_close(ours["ln_f.weight"], exact["ln_f.weight"])


@pytest.mark.parametrize("filter_backward", [False, True])
@pytest.mark.parametrize("rows", [4, 20])
def test_autocast_to_bfloat16(monkeypatch, filter_backward, rows):
    """What a GPU does, tried on the processor: losses in float32, gradients in the dtype of the weights, to rounding."""
    in_chunks_of(monkeypatch, rows)
    model, x, y, ref = model_and_batch()
    model, ref = model.float(), torch.randn(20)
    expected, mask = step(model, x, y, ref, 12, n_kept=12, filter_backward=filter_backward)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model(x, n_kept=12, filter_backward=filter_backward)
        loss, losses, same = kept_loss(hidden, model.wte.weight, y, 12, lambda losses, i: mask.flatten()[i].float())
        assert losses_of(hidden, model.wte.weight, y).equal(losses)
    assert losses.dtype == torch.float32 and same.equal(mask)
    model.zero_grad()
    loss.backward()
    for name, p in model.named_parameters():
        assert p.grad.dtype == torch.float32
        assert (p.grad - expected[name]).norm() <= 0.03 * expected[name].norm() + 1e-3, name


@pytest.mark.parametrize("how", [{}, {"n_kept": 6}, {"n_kept": 6, "filter_backward": True}])
def test_torch_compile_without_graph_breaks_or_recompilation(how):
    model, x, y, ref = model_and_batch()
    expected, _ = step(model, x, y, ref, 6, **how)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            model.zero_grad()
            loss, _, _ = kept_loss(compiled(x, **how), model.wte.weight, y, 6, lambda losses, i: losses - ref[i])
            loss.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-10, atol=1e-13, msg=name)


def test_compiled_passes_equal_the_plain_ones(monkeypatch):
    monkeypatch.setattr(kept, "token_losses", kept.token_losses)  # so that the test puts them back
    monkeypatch.setattr(kept, "softmax_minus_one_hot", kept.softmax_minus_one_hot)
    in_chunks_of(monkeypatch, 16)
    hidden, weight, targets, ref = example()
    expected = kept_loss(hidden, weight, targets, 18, lambda losses, i: losses - ref[i])
    torch._dynamo.reset()
    kept.compile_passes(backend="aot_eager")
    loss, losses, mask = kept_loss(hidden, weight, targets, 18, lambda losses, i: losses - ref[i])
    assert mask.equal(expected[2])
    torch.testing.assert_close(losses, expected[1])
    for ours, plain in zip(gradients(loss, hidden, weight), gradients(expected[0], hidden, weight)):
        torch.testing.assert_close(ours, plain)
