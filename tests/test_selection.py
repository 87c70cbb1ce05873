"""The selection and its loss, against brute force in float64, and what the gradient sees."""
import os
import re
import subprocess

import numpy as np
import pytest
import torch

import train_slm
import variants

from common import selection_stats
from kept import token_losses
from model import GPT, GPTConfig
from kept import select

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def brute_force_slm_loss(logits, targets, ref, keep):
    """Equations 3 to 5 of the paper, token by token, in Python floats."""
    excess = []
    for i, (row, y) in enumerate(zip(logits.double().tolist(), targets.tolist())):
        highest = max(row)
        loss = highest + np.log(sum(np.exp(z - highest) for z in row)) - row[y]
        excess.append((loss - float(ref[i]), -i, loss))  # eq. 3; among ties the earlier token comes first
    k = max(1, round(keep * len(excess)))
    best = sorted(excess, reverse=True)[:k]              # eq. 4
    return sum(loss for _, _, loss in best) / k, sorted(-i for _, i, _ in best)


@pytest.mark.parametrize("keep", [0.01, 0.25, 0.6, 0.999, 1.0])
def test_select_and_loss_equal_brute_force(keep):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 9, 7, generator=g, dtype=torch.float64)
    targets = torch.randint(7, (4, 9), generator=g)
    ref = torch.rand(4, 9, generator=g, dtype=torch.float64) * 3
    losses = token_losses(logits, targets)
    kept = select(losses - ref, max(1, round(keep * 36)))
    expected, indices = brute_force_slm_loss(logits.view(-1, 7), targets.view(-1), ref.view(-1), keep)
    assert kept.flatten().nonzero().flatten().tolist() == indices
    assert (losses * kept).sum().item() / kept.sum().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("k", [30, 1, 99, 100])
@pytest.mark.parametrize("scores", [torch.zeros(10, 10), torch.arange(100).view(10, 10) // 40,
                                    torch.randn(10, 10, generator=torch.Generator().manual_seed(1)).bfloat16()])
def test_exactly_k_are_kept_ties_or_not(scores, k):
    kept = select(scores, k)
    assert kept.shape == scores.shape and kept.sum().item() == k
    assert scores[kept].min() >= scores[~kept].max() if k < 100 else True
    lowest = scores.flatten() == scores[kept].min()  # among equals, the earlier ones
    tied = kept.flatten()[lowest]
    assert tied.tolist() == sorted(tied.tolist(), reverse=True)


def test_ranking_is_over_the_batch_not_per_row():
    scores = torch.tensor([[9.0, 8.0, 7.0, 6.0], [1.0, 2.0, 3.0, 4.0]])
    assert select(scores, 4).sum(dim=1).tolist() == [4, 0]


def small_model():
    torch.manual_seed(3)
    return GPT(GPTConfig(block_size=12, vocab_size=11, n_layer=2, n_head=2, n_embd=8)).double()


def test_gradient_sees_only_the_kept_losses_but_their_whole_context():
    model = small_model()
    x, y = torch.randint(11, (2, 12)), torch.randint(11, (2, 12))
    kept = torch.zeros(2, 12, dtype=torch.bool)
    kept[0, 7] = kept[1, 2] = True

    def gradient(targets):
        model.zero_grad()
        hidden = model(x)
        hidden.retain_grad()
        (token_losses(model.logits(hidden), targets) * kept).sum().div(2).backward()
        return [p.grad.clone() for p in model.parameters()], hidden.grad

    before, hidden_grad = gradient(y)
    other = torch.where(kept, y, (y + 1) % 11)  # other targets wherever nothing is kept
    after, _ = gradient(other)
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert (hidden_grad.abs().sum(dim=2) > 0).equal(kept)  # the loss enters at the kept positions and nowhere else
    # the context of a kept token is in the gradient: positions up to the kept one, and none after it
    position_grad = before[[n for n, _ in model.named_parameters()].index("wpe.weight")].abs().sum(dim=1)
    assert (position_grad > 0).tolist() == [True] * 8 + [False] * 4


def test_selection_stats():
    losses = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    kept = torch.tensor([[True, False, True, False]])
    labels = torch.tensor([[0, 2, 4, 4]], dtype=torch.uint8)  # question, result, noise, noise
    stats = selection_stats(losses, kept, labels, ["question", "solution", "result", "irrelevant", "noise", "wrong"])
    assert stats["corpus_loss"] == 2.5 and stats["selected_loss"] == 2.0 and stats["unselected_loss"] == 3.0
    assert stats["ratio"] == stats["precision"] == stats["recall"] == stats["kept_noise"] == 0.5
    assert stats["kept_question"] == 1.0 and stats["kept_result"] == 0.0 and stats["kept_wrong"] is None


def test_the_diff_of_the_two_training_scripts_is_the_method():
    """At most about 40 changed lines, each hunk marked, apart from the docstring at the top."""
    paths = [os.path.join(ROOT, name) for name in ("train_ref.py", "train_slm.py")]
    diff = subprocess.run(["git", "diff", "--no-index", "-U0", *paths], capture_output=True, text=True).stdout
    end_of_docstring = open(paths[1]).read().split('"""\n')[1].count("\n") + 2
    changed = 0
    for hunk in re.split(r"^@@ ", diff, flags=re.M)[1:]:
        old, new = re.search(r"-(\d+(?:,\d+)?) \+(\d+(?:,\d+)?) @@", hunk).groups()
        lines = [line for line in hunk.splitlines()[1:] if line[:1] in "+-" and line[1:].strip()]
        added, removed = ([line for line in lines if line[0] == sign] for sign in "+-")
        if int(new.split(",")[0]) <= end_of_docstring:
            continue
        changed += max(len(added), len(removed))
        assert any("# SLM" in line for line in added), hunk
    assert 20 < changed <= 45


def test_defaults_differ_in_the_marked_options_only():
    import train_ref
    ref, slm = vars(train_ref.Config()), vars(train_slm.Config())
    assert {k for k in slm if k not in ref} == {"keep", "select", "scores", "filter_backward"} | set(vars(variants.Options()))
    assert {k for k in ref if ref[k] != slm[k]} == {"train", "out"}
