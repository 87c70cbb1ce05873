"""P1: the reference loss in fixed rows."""
import pytest
import torch

from adapters import run_context_gap, run_reference_losses
from model import GPT, GPTConfig


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(GPTConfig(block_size=16, vocab_size=30, n_layer=2, n_head=2, n_embd=16)).double()


def text(n):
    return torch.randint(30, (n,), generator=torch.Generator().manual_seed(n))


def by_hand(model, tokens, T):
    """Token by token: the loss of target i is that of the row it stands in, whatever stands before the row."""
    rows = []
    for start in range(0, len(tokens) - T, T):
        row = tokens[start:start + T].unsqueeze(0)                               # (1, T)
        with torch.no_grad():
            log_probs = model.logits(model(row))[0].log_softmax(dim=-1)          # (T, V)
        rows.append([-log_probs[t, tokens[start + t + 1]].item() for t in range(T)])
    return torch.tensor(rows)


@pytest.mark.points("P1", 8)
def test_a_loss_is_that_of_its_row(model):
    tokens = text(8 * 5 + 1)
    found, expected = run_reference_losses(model, tokens, 8), by_hand(model, tokens, 8)
    assert found.shape == expected.shape, f"41 tokens are 5 rows of 8 targets, not {tuple(found.shape)}"
    assert torch.allclose(found.double(), expected.double(), atol=1e-5), \
        "a loss differs from -log P(target | its row so far): are targets shifted by one, once?"


@pytest.mark.points("P1", 4)
@pytest.mark.parametrize("n, rows", [(16, 1), (17, 2), (24, 2), (25, 3)])
def test_only_whole_rows_count(model, n, rows):
    found = run_reference_losses(model, text(n), 8)
    assert len(found) == rows, f"{n} tokens have (n - 1) // 8 = {rows} rows whose targets are all there, not {len(found)}"


@pytest.mark.points("P1", 3)
def test_how_many_rows_go_through_together_changes_nothing(model):
    tokens, rows = text(8 * 7 + 1), []
    model.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    some, all_at_once = (run_reference_losses(model, tokens, 8, n) for n in (2, 100))
    assert max(rows[:4]) <= 2, f"batch_rows = 2, but {max(rows[:4])} rows went through the model together"
    assert torch.allclose(some, all_at_once, atol=1e-6), "the losses depend on batch_rows"
    assert not some.requires_grad, "the reference is not trained: no gradient is needed"
    assert some.dtype in (torch.float32, torch.float64), f"the losses are to be float32, not {some.dtype}"


@pytest.mark.points("P1", 5)
@pytest.mark.parametrize("n", [46, 49, 53])    # either cut may be the one that ends first
def test_the_same_token_has_another_loss_in_another_row(model, n):
    tokens = text(n)
    first, later = by_hand(model, tokens, 8).flatten(), by_hand(model, tokens[4:], 8).flatten()
    expected = (first[4:4 + len(later)] - later[:len(first) - 4]).abs().mean().item()
    assert run_context_gap(model, tokens, 8) == pytest.approx(expected, rel=1e-4), \
        "compare each target with itself in the other cut: the second one begins T // 2 tokens later"
