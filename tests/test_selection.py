"""The selection and its loss, against brute force in float64, and what the gradient sees."""
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import train_ref
import train_slm
from common import selection_stats
from engine import fast_loss
from model import GPT, GPTConfig
from train_slm import excess_loss, selected_loss, top_k

def brute_force_slm_loss(logits, targets, ref, keep):
    """Equations 3 to 5 of the paper, token by token, in Python floats."""
    excess = []
    for i, (row, y) in enumerate(zip(logits.double().tolist(), targets.tolist())):
        highest = max(row)
        loss = highest + np.log(sum(np.exp(z - highest) for z in row)) - row[y]
        excess.append((loss - float(ref[i]), -i, loss))  # eq. 3; among ties the earlier token comes first
    k = max(1, round(keep * len(excess)))
    best = sorted(excess, reverse=True)[:k]              # eq. 5
    return sum(loss for _, _, loss in best) / k, sorted(-i for _, i, _ in best)


@pytest.mark.parametrize("loss_of", [selected_loss, fast_loss.selected_loss])
@pytest.mark.parametrize("keep", [0.01, 0.25, 0.6, 0.999, 1.0])
def test_select_and_loss_equal_brute_force(keep, loss_of):
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 9, 5, generator=g, dtype=torch.float64)
    weight = torch.randn(7, 5, generator=g, dtype=torch.float64)
    targets = torch.randint(7, (4, 9), generator=g)
    ref = torch.rand(4, 9, generator=g, dtype=torch.float64) * 3
    k = max(1, round(keep * 36))
    loss_sum, loss, selected = loss_of(hidden, weight, targets, ref, k, excess_loss)
    logits = F.linear(hidden, weight)
    expected, indices = brute_force_slm_loss(logits.view(-1, 7), targets.view(-1), ref.view(-1), keep)
    assert selected.flatten().nonzero().flatten().tolist() == indices
    assert loss_sum.item() / selected.sum().item() == pytest.approx(expected, rel=1e-12)
    assert (loss * selected).sum().item() / k == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("k", [30, 1, 99, 100])
@pytest.mark.parametrize("scores", [torch.zeros(10, 10), torch.arange(100).view(10, 10) // 40,
                                    torch.randn(10, 10, generator=torch.Generator().manual_seed(1)).bfloat16()])
def test_exactly_k_are_selected_ties_or_not(scores, k):
    selected = top_k(scores, k)
    assert selected.shape == scores.shape and selected.sum().item() == k
    if k < 100:
        assert scores[selected].min() >= scores[~selected].max()
    lowest = scores.flatten() == scores[selected].min()  # among equals, the earlier ones
    tied = selected.flatten()[lowest]
    assert tied.tolist() == sorted(tied.tolist(), reverse=True)


@pytest.mark.parametrize("loss_of", [selected_loss, fast_loss.selected_loss])
def test_gradient_sees_only_the_selected_losses_but_their_whole_context(loss_of):
    torch.manual_seed(3)
    model = GPT(GPTConfig(block_size=12, vocab_size=11, n_layer=2, n_head=2, n_embd=8)).double()
    x, y = torch.randint(11, (2, 12)), torch.randint(11, (2, 12))
    chosen = torch.zeros(2, 12, dtype=torch.bool)
    chosen[0, 7] = chosen[1, 2] = True

    def gradient(targets):
        model.zero_grad()
        hidden = model(x)
        hidden.retain_grad()
        loss_sum, _, selected = loss_of(hidden, model.output_weight, targets, -chosen.double(), 2, lambda loss, ref: -ref)
        assert selected.equal(chosen)
        (loss_sum / 2).backward()
        return [p.grad.clone() for p in model.parameters()], hidden.grad

    before, hidden_grad = gradient(y)
    other = torch.where(chosen, y, (y + 1) % 11)  # other targets wherever nothing is selected
    after, _ = gradient(other)
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert (hidden_grad.abs().sum(dim=2) > 0).equal(chosen)  # the loss enters at the selected positions and nowhere else
    # the context of a selected token is in the gradient: positions up to the selected one, and none after it
    position_grad = before[[n for n, _ in model.named_parameters()].index("wpe.weight")].abs().sum(dim=1)
    assert (position_grad > 0).tolist() == [True] * 8 + [False] * 4


class FakeTokens:
    """Rows with true labels, and the groups of labels that a sidecar lists."""
    label_names = ["question", "solution", "result", "irrelevant", "noise", "wrong"]

    def row_labels(self, rows):
        return torch.tensor([[0, 2, 4, 4]], dtype=torch.uint8)[rows]  # question, result, noise, noise

    def label_numbers(self, group):
        return torch.tensor({"useful": [0, 1, 2], "solution": [1, 2]}[group])


def test_selection_stats():
    loss = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    selected = torch.tensor([[True, False, True, False]])
    stats = selection_stats(loss, selected, FakeTokens(), [0])
    assert stats["corpus_loss"] == 2.5 and stats["selected_loss"] == 2.0 and stats["unselected_loss"] == 3.0
    assert stats["ratio"] == stats["precision"] == stats["recall"] == stats["selected_noise"] == 0.5
    assert stats["selected_question"] == 0.5 and stats["selected_result"] == stats["selected_wrong"] == 0


def test_options_differ_in_the_selection_only():
    ref, slm = vars(train_ref.Config()), vars(train_slm.Config())
    assert {k for k in slm if k not in ref} == {"keep", "scores", "rank_by"}
    assert {k for k in ref if ref[k] != slm[k]} == {"train", "out"}


def test_what_is_ranked_together_may_not_change_on_resuming():
    assert "micro_rows" in train_ref.Config().may_differ() and "micro_rows" not in train_slm.Config().may_differ()


def test_a_token_whose_reference_loss_is_not_known_comes_last_in_every_ranking():
    loss, ref_loss = torch.tensor([[9.0, 1.0, 5.0, 3.0]]), torch.tensor([[torch.inf, 0.5, 2.0, 7.0]])
    best = {name: top_k(rank_by(loss, ref_loss), 3)[0].tolist() for name, rank_by in train_slm.RANK_BY.items()}
    assert best == dict.fromkeys(["excess", "loss", "ref"], [False, True, True, True])
