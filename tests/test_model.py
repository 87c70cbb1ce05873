"""The model against a plain rewrite, and cached batched generation against the uncached loop."""
import math

import pytest
import torch

from engine.cli import BadInput
from engine.generation import generate, new_caches, shared_prefix
from model import GPT, GPTConfig


def make(n_head=2):
    torch.manual_seed(0)
    model = GPT(GPTConfig(block_size=32, vocab_size=50, n_layer=2, n_head=n_head, n_embd=16)).double()
    for p in model.parameters():  # biases start at zero: give them something to be wrong about
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


@pytest.mark.parametrize("n_head", [1, 4])
def test_forward_equals_the_equations_of_gpt2(n_head):
    """Token by token, head by head, with explicit softmax: pre-LayerNorm, causal attention, GELU by tanh, tied output."""
    model = make(n_head)
    w = dict(model.named_parameters())
    idx = torch.randint(50, (1, 9), generator=torch.Generator().manual_seed(1))

    def affine(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
        return x * w[name + ".weight"] + w[name + ".bias"]

    x = w["wte.weight"][idx[0]] + w["wpe.weight"][:9]
    D = 16 // n_head
    for i in range(2):
        q, k, v = affine(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").split(16, dim=1)
        heads = torch.zeros(9, 16, dtype=torch.float64)
        for h in range(n_head):
            cols = slice(h * D, (h + 1) * D)
            for t in range(9):
                a = torch.softmax(q[t, cols] @ k[:t + 1, cols].T / math.sqrt(D), dim=0)
                heads[t, cols] = a @ v[:t + 1, cols]
        x = x + affine(heads, f"h.{i}.attn.c_proj")
        u = affine(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        u = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
        x = x + affine(u, f"h.{i}.mlp.c_proj")
    expected = norm(x, "ln_f") @ w["wte.weight"].T
    torch.testing.assert_close(model.logits(model(idx))[0], expected, rtol=1e-10, atol=1e-10)


def uncached(model, prompt, n, stop=None):
    """One prompt, the whole context again for every token."""
    tokens = list(prompt)
    for _ in range(n):
        logits = model.logits(model(torch.tensor([tokens], device=model.wte.weight.device)))[0, -1]
        tokens.append(logits.argmax().item())
        if stop and stop(tokens[len(prompt):]):
            break
    return tokens[len(prompt):]


def test_cached_batched_generation_equals_uncached_one_at_a_time():
    model = make()
    g = torch.Generator().manual_seed(2)
    prompts = [torch.randint(50, (n,), generator=g).tolist() for n in (1, 7, 3, 12, 20, 2, 12)]
    expected = [uncached(model, p, 12) for p in prompts]
    assert generate(model, prompts, 12) == expected
    assert [generate(model, [p], 12)[0] for p in prompts] == expected and shared_prefix(model, [prompts[3]])[0] == 0
    assert len({tuple(e) for e in expected}) > 3  # the rows do differ


def test_generation_after_a_shared_prefix_equals_uncached():
    """Prompts that begin alike, one of them the whole prefix and two the same; rows leave at different times."""
    model = make()
    g = torch.Generator().manual_seed(3)
    shared = torch.randint(50, (9,), generator=g).tolist()
    prompts = [shared + torch.randint(50, (n,), generator=g).tolist() for n in (0, 4, 1, 11, 4, 2, 7, 7)]
    prompts.append(prompts[3])
    P, _ = shared_prefix(model, prompts)
    assert P == 8  # the last token of the shortest prompt is needed
    assert shared_prefix(model, [[1, 2, 3, 4], [1, 2, 9, 4, 5]])[0] == 2 and shared_prefix(model, [[1, 2], [2, 2]])[0] == 0

    def stop(new):
        return new[-1] % 5 == 0
    for condition in (None, stop):
        expected = [uncached(model, p, 12, condition) for p in prompts]
        assert generate(model, prompts, 12, condition) == expected
    assert len({len(tokens) for tokens in expected}) > 2  # they did stop at different lengths


def test_generation_in_bfloat16():
    """What a GPU does by default: the cache takes autocast's type, and the first tokens are those of the whole model."""
    model = make().float()
    prompts = [[1, 2, 3, 4], [1, 2, 9], [1, 2, 3, 4, 5, 6]]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        dtypes = {t.dtype for c in new_caches(model, 2, 3) for t in (c.k_shared, c.v_shared, c.k_own, c.v_own)}
        assert dtypes == {torch.bfloat16}
        assert [row[:2] for row in generate(model, prompts, 6)] == [uncached(model, p, 2) for p in prompts]
        nothing_shared = [[1, 2, 3, 4], [5, 2, 9]]
        assert [row[:2] for row in generate(model, nothing_shared, 6)] == [uncached(model, p, 2) for p in nothing_shared]
    assert new_caches(model, 2, 3)[0].k_own.dtype == torch.float32


def test_generation_fills_the_context_to_the_last_token_and_no_more():
    model = make()
    out = generate(model, [[1, 2], [3] * 20], 12)
    assert [len(o) for o in out] == [12, 12]
    with pytest.raises(ValueError, match="do not fit"):
        generate(model, [[3] * 21], 12)
    with pytest.raises(ValueError, match="do not fit"):
        generate(model, [[1], []], 2)
    with pytest.raises(ValueError, match="33 tokens do not fit"):
        model(torch.zeros(1, 33, dtype=torch.long))


def test_sampling_follows_the_probabilities():
    model = make()
    probs = torch.softmax(model.logits(model(torch.tensor([[4, 7]])))[0, -1] / 0.7, dim=0)
    drawn = generate(model, [[4, 7]] * 4000, 1, temperature=0.7, generator=torch.Generator().manual_seed(0))
    shares = torch.bincount(torch.tensor(drawn).flatten(), minlength=50) / 4000
    assert (shares - probs).abs().max() < 0.04  # four standard errors at the most
    assert generate(model, [[4, 7]], 1) == [[probs.argmax().item()]]


def test_samples_of_a_diverged_model_are_refused_in_a_line():
    model = make()
    torch.nn.init.constant_(model.ln_f.weight, math.nan)
    with pytest.raises(BadInput, match="no numbers"):
        generate(model, [[1, 2]], 3, temperature=1.0, generator=torch.Generator())
