"""P2: exactly k."""
import pytest
import torch

from adapters import run_top_k


def by_hand(excess, k):
    """The k largest, one after the other, the first of equals; float64, no sorting."""
    left, chosen = excess.double().flatten().tolist(), set()
    for _ in range(k):
        best = max((value for i, value in enumerate(left) if i not in chosen and value > float("-inf")), default=None)
        if best is None:
            break
        chosen.add(next(i for i, value in enumerate(left) if i not in chosen and value == best))
    return torch.tensor([i in chosen for i in range(len(left))]).view(excess.shape)


@pytest.mark.points("P2", 4)
def test_a_mask_of_exactly_k():
    excess = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    for k in (0, 1, 10, 21):
        before = excess.clone()
        mask = run_top_k(excess, k)
        assert torch.equal(excess, before), "the excess that was given has changed: work on a copy"
        assert mask.dtype == torch.bool and mask.shape == excess.shape, "return a bool mask of the shape of excess"
        assert mask.sum() == k, f"{int(mask.sum())} tokens are selected, not k = {k}"


@pytest.mark.points("P2", 6)
def test_ties_as_by_hand():
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        excess = torch.randint(4, (3, 5), generator=generator).float()      # many equal values
        excess += 1e-6 * torch.randint(2, (3, 5), generator=generator)      # and some that nearly are
        k = int(torch.randint(1, 15, (1,), generator=generator))
        assert torch.equal(run_top_k(excess.clone(), k), by_hand(excess, k)), \
            "of equal tokens the earlier are to be selected, in all rows together"


@pytest.mark.points("P2", 5)
def test_padding_is_never_selected():
    excess = torch.tensor([[1.0, -torch.inf, 3.0], [-torch.inf, -5.0, -torch.inf]])
    for k in (2, 3, 5):
        assert torch.equal(run_top_k(excess.clone(), k), by_hand(excess, k)), \
            "-inf is padding: where k is larger than what is left, select less"
