"""P3: the selected loss, its gradient, and a step of several micro-batches."""
import copy

import pytest
import torch
from torch.nn import functional as F

from adapters import run_accumulate, run_selected_loss
from model import GPT, GPTConfig, token_loss


@pytest.fixture
def drawn():
    """hidden (2, 5, 8), weight (12, 8), targets (2, 5), ref_loss (2, 5), of which two are padding; float64."""
    torch.manual_seed(0)
    ref_loss = 4 * torch.rand(2, 5, dtype=torch.float64)
    ref_loss[0, 1] = ref_loss[1, 4] = torch.inf
    return (torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(12, 8, dtype=torch.float64),
            torch.randint(12, (2, 5)), ref_loss)


def by_hand(hidden, weight, targets, ref_loss, k):
    """Equations 3 to 5 with loops: (sum, {(b, t) that are selected})."""
    losses = {}
    for b in range(2):
        for t in range(5):
            logits = [float(hidden[b, t] @ weight[v]) for v in range(len(weight))]
            total = sum(torch.tensor(logits, dtype=torch.float64).exp().tolist())
            losses[b, t] = float(torch.tensor(total).log()) - logits[targets[b, t]]
    known = [place for place in losses if ref_loss[place].isfinite()]
    chosen = sorted(known, key=lambda place: -(losses[place] - float(ref_loss[place])))[:k]
    return sum(losses[place] for place in chosen), set(chosen)


@pytest.mark.points("P3", 5)
def test_the_loss_is_that_of_equations_3_to_5(drawn):
    for k in (1, 3, 8):
        loss, mask = run_selected_loss(*drawn, k)
        expected, chosen = by_hand(*drawn, k)
        assert set(map(tuple, mask.nonzero().tolist())) == chosen, \
            "other tokens are selected: rank by the loss minus the reference loss, all rows together, without padding"
        assert loss.item() == pytest.approx(expected, rel=1e-5), "the sum is over the LOSS of the selected tokens"
    low = [tensor.bfloat16() if tensor.is_floating_point() else tensor for tensor in drawn]
    logits = F.linear(low[0], low[1]).double()                                           # (2, 5, 12)
    losses = F.cross_entropy(logits.flatten(0, 1), low[2].flatten(), reduction="none").view(2, 5)
    loss, mask = run_selected_loss(*low, 3)
    assert loss.item() == pytest.approx(losses[mask].sum().item(), rel=1e-5), "compute the losses in float32 at least"


@pytest.mark.points("P3", 5)
def test_only_selected_tokens_have_a_gradient(drawn):
    hidden, *others = drawn
    hidden = hidden.requires_grad_()
    loss, mask = run_selected_loss(hidden, *others, 3)
    loss.backward()
    has_gradient = hidden.grad.abs().sum(dim=-1) > 0                                     # (2, 5)
    assert torch.equal(has_gradient, mask), "a gradient has to reach the selected tokens, and no others"
    again = hidden.detach().clone().requires_grad_()
    losses = token_loss(F.linear(again, others[0]), others[1])                           # (2, 5)
    losses[mask].sum().backward()
    assert torch.allclose(hidden.grad, again.grad, atol=1e-6), "the gradient is not that of the selected tokens' losses alone"


def make_model():
    torch.manual_seed(1)
    return GPT(GPTConfig(block_size=8, vocab_size=20, n_layer=2, n_head=2, n_embd=16))


def make_micro_batches(sizes, padding=True):
    generator, found = torch.Generator().manual_seed(2), []
    for number, rows in enumerate(sizes):
        x, y = (torch.randint(20, (rows, 8), generator=generator) for _ in range(2))
        ref_loss = 4 * torch.rand(rows, 8, generator=generator)
        if padding:
            ref_loss[:, :number] = torch.inf        # in each micro-batch another number of tokens is left
        found.append((x, y, ref_loss))
    return found


@pytest.mark.points("P3", 5)
def test_a_step_is_one_mean_over_all_that_is_selected():
    model, micro_batches = make_model(), make_micro_batches([2, 2, 2])
    expected, total, count = copy.deepcopy(model), 0.0, 0
    for x, y, ref_loss in micro_batches:
        losses = token_loss(expected.logits(expected(x)), y)                              # (2, 8)
        k = round(0.45 * int(ref_loss.isfinite().sum()))
        places = sorted((-(losses[b, t].item() - ref_loss[b, t].item()), b, t)
                        for b, t in ref_loss.isfinite().nonzero().tolist())[:k]
        total, count = total + sum(losses[b, t] for _, b, t in places), count + k
    (total / count).backward()
    calls = []
    model.wte.weight.register_hook(lambda gradient: calls.append(1))
    loss = run_accumulate(model, micro_batches, 0.45)    # 7 + 6 + 5 tokens, where round(0.45 * 42) is 19
    assert len(calls) == 3, "call backward() once for each micro-batch"
    assert loss == pytest.approx((total / count).item(), rel=1e-4), \
        "divide by the number of tokens selected in the whole step: no mean of means"
    for mine, theirs in zip(model.parameters(), expected.parameters()):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-6), "the gradients differ, though the loss is right"


@pytest.mark.points("P3", 5)
def test_with_keep_1_it_is_plain_training_bit_for_bit():
    model, micro_batches = make_model(), make_micro_batches([3, 3], padding=False)
    plain = copy.deepcopy(model)
    for x, y, _ in micro_batches:
        (token_loss(plain.logits(plain(x)), y).sum() / 48).backward()                     # 2 x (3, 8) tokens
    run_accumulate(model, micro_batches, 1.0)
    for mine, theirs in zip(model.parameters(), plain.parameters()):
        assert torch.equal(mine.grad, theirs.grad), \
            "with all tokens selected the gradients have to be those of plain training, to the last bit"
