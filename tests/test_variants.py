"""extras/variants.py and extras/logprobs.py: each against brute force, and through train_slm.py and score.py."""
import json
import os

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import score
import train_slm
from common import load_model
from corpora.tokenizers import load_tokenizer
from data import Scores, Tokens, batch
from engine.cli import BadInput
from extras import distill_text, variants
from extras.logprobs import align
from helpers import TINY, records, same_weights, train
from model import GPT, GPTConfig, token_loss


def brute_force(select, loss, entropy, k):
    """Lists of the best m by each, m growing until their intersection, or union, has k tokens."""
    by_loss, by_entropy = np.argsort(loss, kind="stable"), np.argsort(entropy, kind="stable")
    for m in range(1, len(loss) + 1):
        a, b = set(by_loss[:m].tolist()), set(by_entropy[:m].tolist())
        both = a & b if select == "intersection" else a | b
        if len(both) >= k:
            return both
    raise AssertionError


@pytest.mark.parametrize("select", ["intersection", "union"])
@pytest.mark.parametrize("k", [1, 7, 20, 40])
def test_intersection_and_union_are_of_equally_long_lists(select, k):
    g = torch.Generator().manual_seed(k)
    loss, entropy = torch.rand(4, 10, generator=g), torch.rand(4, 10, generator=g)
    rank = variants.low_loss_and_entropy(select, loss, entropy)
    best = rank.flatten().argsort(stable=True)[:k].tolist()
    expected = brute_force(select, loss.flatten().numpy(), entropy.flatten().numpy(), k)
    assert set(best) <= expected and len(expected) - k <= 1  # a list that grows by one can bring two, in a union


def test_soft_weights():
    scores = torch.tensor([1.0, 3.0, -torch.inf, 0.0])
    weights = variants.soft_weights(scores, 2.0)
    e = np.exp([0.5, 1.5, 0.0])
    np.testing.assert_allclose(weights[[0, 1, 3]], 3 * e / e.sum(), rtol=1e-6)
    assert weights[2] == 0
    clipped = variants.soft_weights(scores, 0.2, max_weight=1.5)
    sharp = variants.soft_weights(scores, 0.2)
    assert sharp[1] > 1.5 and clipped.tolist() == sharp.clamp(max=1.5).tolist()
    nothing = variants.soft_weights(torch.full((2, 3), -torch.inf), 1.0)  # no token of the pass may count
    assert nothing.tolist() == [[0] * 3] * 2
    assert variants.soft_weights(scores, 1e6)[[0, 1, 3]].tolist() == pytest.approx([1, 1, 1], rel=1e-4)  # towards CLM


def test_weighted_loss_equals_brute_force():
    g = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(*shape, generator=g, dtype=torch.float64, requires_grad=True) for shape in ((2, 6, 5), (9, 5)))
    targets, ref = torch.randint(9, (2, 6), generator=g), torch.rand(2, 6, generator=g, dtype=torch.float64)
    ref[1, 2] = torch.inf
    ours = variants.soft_loss(0.7, 0.0)(hidden, weight, targets, ref, 12, train_slm.excess_loss)[0]
    loss = token_loss(F.linear(hidden, weight), targets)
    w = np.exp((loss - ref).detach().flatten().numpy() / 0.7)
    plain = (loss.flatten() * torch.from_numpy(w / w.sum() * 11)).sum()
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)
    for a, b in zip(torch.autograd.grad(ours, (hidden, weight)), torch.autograd.grad(plain, (hidden, weight))):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_keep_falls_to_its_value():
    cfg = train_slm.Config(keep=0.2, keep_warmup=4)
    assert [variants.keep_of_step(step, cfg) for step in range(6)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0.2])


@pytest.fixture(scope="module")
def entropy_scores(demo, scores, tmp_path_factory):
    """The same reference model's scores, with entropies."""
    folder = tmp_path_factory.mktemp("entropy")
    ckpt = os.path.join(os.path.dirname(scores), "ref", "best.pt")
    score.main(score.Config(ckpt=ckpt, data=demo, out=str(folder), entropy=True, device="cpu"))
    return str(folder)


@pytest.mark.parametrize("options", [
    {"select": "low_entropy"}, {"select": "intersection"}, {"select": "union"}, {"softmax_tau": 0.5},
    {"softmax_tau": 0.5, "max_weight": 3.0}, {"keep_warmup": 6}, {"labels": ["solution", "result"]},
    {"labels": ["solution", "result"], "keep": 1.0}], ids=str)
def test_every_variant_is_another_run(demo, entropy_scores, tmp_path, options):
    options = {"keep": 0.25, "scores": entropy_scores} | options
    train(train_slm, tmp_path / "one", demo, **options)
    train(train_slm, tmp_path / "slm", demo, keep=0.25, scores=entropy_scores)
    assert not same_weights(tmp_path / "one", tmp_path / "slm", tolerance=2e-3)
    for r in records(tmp_path / "one"):
        if "labels" in options:
            assert r["selected_noise"] in (0, None) and r["selected_irrelevant"] in (0, None)
            assert r["selected_solution"] == 1 or options["keep"] < 1
        elif "softmax_tau" in options:
            assert r["ratio"] == 1
        elif "keep_warmup" not in options:
            assert r["ratio"] == 0.25
    if "keep_warmup" in options:
        assert records(tmp_path / "one")[0]["ratio"] == 1 and records(tmp_path / "one")[-1]["ratio"] == 0.25


@pytest.mark.parametrize("options", [{"keep": 1.0}, {"keep": 1.0, "labels": ["solution", "result"]}], ids=str)
def test_where_nothing_is_ranked_accumulation_changes_nothing(demo, tmp_path, options):
    train(train_slm, tmp_path / "one", demo, **options)
    train(train_slm, tmp_path / "four", demo, micro_rows=2, **options)
    for a, b in zip(records(tmp_path / "one"), records(tmp_path / "four")):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
    assert same_weights(tmp_path / "one", tmp_path / "four", tolerance=2e-3)


def test_several_reference_models(demo, scores, entropy_scores, tmp_path):
    """The same scores twice are the same scores, whatever combines them; others are others."""
    train(train_slm, tmp_path / "one", demo, scores=scores)
    for how in ("mean", "min"):
        train(train_slm, tmp_path / how, demo, scores=scores, more_scores=[entropy_scores], combine=how)
        assert same_weights(tmp_path / "one", tmp_path / how)
    tokens = Tokens(demo, "noisy", 32)
    half = tmp_path / "half"
    half.mkdir()
    (np.fromfile(f"{scores}/loss.bin", dtype=np.float16) / 2).tofile(half / "loss.bin")
    (half / "scores.json").write_text(open(f"{scores}/scores.json").read())
    own, rows = Scores(scores, tokens), np.arange(3)
    for how, share in (("min", 0.5), ("mean", 0.75)):
        cfg = train_slm.Config(scores=scores, more_scores=[str(half)], combine=how)
        ref_loss = variants.Reference(cfg, tokens)(rows, 0)
        torch.testing.assert_close(ref_loss, own.rows(rows) * share, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("select", ["low_ref", "documents"])
def test_a_loss_less_that_of_another_model(demo, scores, tmp_path, select):
    """Of a token or of a document, and never selected where one of the two is not known."""
    tokens, rows = Tokens(demo, "noisy", 32), np.arange(5)
    rng, other = np.random.default_rng(3), tmp_path / "other"
    other.mkdir()
    loss = (np.fromfile(f"{scores}/loss.bin", dtype=np.float16) * rng.random(tokens.n_rows * 32)).astype(np.float16)
    loss[[3, 70]] = np.inf
    loss.tofile(other / "loss.bin")
    (other / "scores.json").write_text(open(f"{scores}/scores.json").read())

    def values(folder):
        kind = variants.DocumentScores if select == "documents" else Scores
        return kind(str(folder), tokens).rows(rows)
    options = dict(scores=scores, more_scores=[str(other)], combine="less", select=select)
    found = variants.Reference(train_slm.Config(**options), tokens)(rows, 0)
    expected = values(scores).double() - values(other).double()
    expected[~expected.isfinite()] = torch.inf
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert expected.isinf().sum() == (2 if select == "low_ref" else 0)  # a document's mean leaves them out
    of_highest_difference = variants.low_ref(None, found).flatten().argmax()
    assert expected.flatten()[of_highest_difference] == expected.min()
    train(train_slm, tmp_path / "run", demo, keep=0.25, **options)


def test_whole_documents_are_those_of_lowest_mean_reference_loss(demo, scores, tmp_path):
    """Against a walk over the flat files; and a run selects whole documents but for the last of a forward pass."""
    tokens = Tokens(demo, "noisy", 32)
    rows = np.arange(tokens.n_rows)
    cfg = train_slm.Config(scores=scores, select="documents")
    ours = variants.Reference(cfg, tokens)(rows, 0).flatten().numpy()
    loss = Scores(scores, tokens).rows(rows).flatten().numpy()
    end, documents = tokens.vocab_size - 1, [[]]
    for i, token in enumerate(tokens.tokens[1:len(loss) + 1].tolist()):
        documents[-1].append(i)
        if token == end:
            documents.append([])
    assert len(documents) > 20
    for members in filter(None, documents):
        np.testing.assert_allclose(ours[members], loss[members].mean(), rtol=1e-4)
    train(train_slm, tmp_path / "run", demo, scores=scores, keep=0.25, select="documents")
    bad = tmp_path / "bad"
    bad.mkdir()
    np.full(len(loss), np.nan, dtype=np.float16).tofile(bad / "loss.bin")
    (bad / "scores.json").write_text(open(f"{scores}/scores.json").read())
    with pytest.raises(BadInput, match="not numbers"):
        variants.Reference(train_slm.Config(scores=str(bad), select="documents"), tokens)
    assert {r["ratio"] for r in records(tmp_path / "run")} == {0.25}


def first_step(folder, demo):
    """Of the first step of a tiny run: the corpus, the row numbers, and the losses (8, 32) under the weights it began with."""
    ckpt = torch.load(folder / "step_000000.pt", weights_only=True)
    model = GPT(GPTConfig(**ckpt["model_config"]))
    model.load_state_dict(ckpt["model"])
    tokens = Tokens(demo, "noisy", 32)
    rows = batch(tokens.n_rows, 8, 0, 0)
    x, y = tokens.rows(rows)
    with torch.no_grad():
        return tokens, rows, token_loss(model.logits(model(x)), y)


def test_soft_step_equals_brute_force(demo, scores, tmp_path):
    """The loss of the first step: all tokens weighted by softmax(excess / tau), mean weight 1."""
    train(train_slm, tmp_path / "soft", demo, scores=scores, softmax_tau=0.7, snapshot_every=12)
    tokens, rows, losses = first_step(tmp_path / "soft", demo)
    losses = losses.flatten().double().numpy()
    excess = losses - Scores(scores, tokens).rows(rows).flatten().double().numpy()
    w = np.exp(excess / 0.7)
    assert records(tmp_path / "soft")[0]["loss"] == pytest.approx((w * losses).sum() / w.sum(), rel=1e-4)


@pytest.mark.parametrize("options, message", [
    ({"combine": "max"}, "combine"), ({"softmax_tau": -1.0}, "softmax_tau"), ({"max_weight": 2.0}, "max_weight"),
    ({"softmax_tau": 1.0, "max_weight": 0.5}, "max_weight"), ({"more_scores": ["x"], "select": "random"}, "more_scores"),
    ({"combine": "less", "select": "documents"}, "combine less"), ({"combine": "less", "more_scores": ["x"]}, "combine less"),
    ({"distill": "x", "keep": 0.5}, "distill"), ({"distill": "x", "keep": 1.0, "labels": ["result"]}, "distill"),
    ({"softmax_tau": 1.0, "keep_warmup": 5}, "keep_warmup"), ({"softmax_tau": 1.0, "select": "union"}, "union")])
def test_bad_options(options, message):
    assert any(message in problem for problem in train_slm.Config(**options).validate())


def test_distillation_has_the_gradient_of_the_forward_kl(demo, scores, tmp_path):
    """Against the KL divergence written out, in the hidden states and in the output layer."""
    torch.manual_seed(1)
    tokens = Tokens(demo, "noisy", 32)
    path = os.path.join(os.path.dirname(scores), "ref", "ckpt.pt")
    model = GPT(GPTConfig(32, tokens.vocab_size, 1, 2, 16)).eval()
    loss_of, _ = distill_text.install(model, path, tokens)
    x, y = tokens.rows(np.arange(3))
    hidden, weight = model(x).detach().requires_grad_(), model.output_weight
    loss_sum, loss, selected = loss_of(hidden, weight, y, torch.zeros(y.shape), y.numel(), None)
    gradients = torch.autograd.grad(loss_sum, (hidden, weight))
    reference, _ = load_model(path, tokens.tokenizer_sha256, demo, "cpu")
    with torch.no_grad():
        teacher = reference.logits(reference(x)).log_softmax(dim=-1)
    student = F.linear(hidden, weight).log_softmax(dim=-1)
    kl = (teacher.exp() * (teacher - student)).sum()
    for ours, theirs in zip(gradients, torch.autograd.grad(kl, (hidden, weight))):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert kl > 0 and selected.all()
    torch.testing.assert_close(loss, token_loss(F.linear(hidden, weight), y))


def test_distillation_trains_towards_its_reference_and_resumes(demo, scores, tmp_path):
    path = os.path.join(os.path.dirname(scores), "ref", "ckpt.pt")
    how = dict(keep=1.0, distill=path, train_tokens=256 * 8)
    train(train_slm, tmp_path / "a", demo, **how)
    losses = [r["loss"] for r in records(tmp_path / "a")]
    assert losses[-1] < losses[0]
    assert not same_weights(tmp_path / "a", train(train_slm, tmp_path / "clm", demo, keep=1.0, train_tokens=256 * 8))
    other = train(train_slm, tmp_path / "other", demo, keep=1.0, train_tokens=256 * 4)
    with pytest.raises(BadInput, match="made from other files"):
        train(train_slm, tmp_path / "a", demo, **how | {"distill": str(other / "ckpt.pt")}, resume=True)


def test_unknown_label(demo, scores, tmp_path):
    with pytest.raises(BadInput, match="question, solution"):
        train_slm.main(train_slm.Config(data=demo, out=str(tmp_path / "x"), scores=scores, **TINY, labels=["answer"]))


# --------------------------------------------------------------------------------------------- scores from elsewhere

def test_align():
    own = [b"The", b" sum", b" is", b" 12"]
    text = ["The", " sum", " is", " 12"]
    assert align(own, 0, 14, text, [None, -1.0, -2.0, -3.0]).tolist() == [np.inf, 1, 2, 3]
    # " sum is" as one token of seven bytes, four of them ours; "12" without its space
    np.testing.assert_allclose(align(own, 0, 14, ["The", " sum is", " ", "12"], [None, -7.0, -1.0, -2.0]), [np.inf, 4, 3, 3])
    # null in the middle; an empty token; a row that begins within a character
    assert align(own, 0, 14, ["The", " sum", "", " is 12"], [None, None, -9.0, -6.0]).tolist() == [np.inf, np.inf, 3, 3]
    assert align([b"\xa9", b"a", b"b"], 1, 3, ["a", "b"], [-1, -2]).tolist() == [np.inf, 1, 2]
    for theirs, logprobs in ((["The", " sun", " is", " 12"], [None, -1, -2, -3]), (text, [None, -1, -2]), (text[:3], [None, -1, -2]),
                             (text, [None, 1.0, -2, -3]), (text, [None, float("nan"), -2, -3])):
        with pytest.raises(ValueError):
            align(own, 0, 14, theirs, logprobs)


def written_logprobs(demo, scores, path, T=32):
    """What an interface would give for the texts of --write_texts: here the reference model's own losses."""
    texts = path.parent / "texts.jsonl"
    score.main(score.Config(data=demo, block_size=T, write_texts=str(texts)))
    tokens, enc = Tokens(demo, "noisy", T), load_tokenizer(demo)
    losses = np.fromfile(f"{scores}/loss.bin", dtype=np.float16).reshape(-1, T)
    lines = []
    for line in map(json.loads, texts.read_text().splitlines()):
        pieces = [enc.decode([int(t)]) for t in tokens.token_rows[line["row"]]]
        assert "".join(pieces) == line["text"]
        lines.append({"row": line["row"], "tokens": pieces, "logprobs": [None, *(-losses[line["row"]].astype(float)).tolist()]})
    path.write_text("".join(json.dumps(r) + "\n" for r in reversed(lines)))
    return lines


def test_scores_from_logprobs_are_those_of_the_model(demo, scores, tmp_path, capsys):
    lines = written_logprobs(demo, scores, tmp_path / "api.jsonl")
    options = dict(data=demo, block_size=32, from_logprobs=str(tmp_path / "api.jsonl"))
    score.main(score.Config(out=str(tmp_path / "api"), **options))
    tokens = Tokens(demo, "noisy", 32)
    rows = np.arange(tokens.n_rows)
    torch.testing.assert_close(Scores(str(tmp_path / "api"), tokens).rows(rows), Scores(scores, tokens).rows(rows),
                               rtol=2e-3, atol=1e-4)
    assert "solution" in capsys.readouterr().out
    with pytest.raises(BadInput, match="already holds"):
        score.main(score.Config(out=str(tmp_path / "api"), **options))
    # what is wrong is named by its line, and nothing is written
    for change, message in (({"tokens": ["x"], "logprobs": [None]}, "line 2: the tokens put together"), ({"row": -1}, "row -1"),
                            ({"logprobs": [None]}, "but 1 logprobs"), ({"tokens": None}, "line 2")):
        bad = list(reversed(lines))
        bad[1] = bad[1] | change
        (tmp_path / "bad.jsonl").write_text("".join(json.dumps(r) + "\n" for r in bad))
        with pytest.raises(BadInput, match=message):
            score.main(score.Config(out=str(tmp_path / "bad"), **options | {"from_logprobs": str(tmp_path / "bad.jsonl")}))
        assert not (tmp_path / "bad").exists()
    unknown = [line | {"logprobs": [None] * len(line["tokens"])} for line in lines]
    (tmp_path / "null.jsonl").write_text("".join(json.dumps(r) + "\n" for r in unknown))
    with pytest.raises(BadInput, match="knows no loss"):
        score.main(score.Config(out=str(tmp_path / "bad"), **options | {"from_logprobs": str(tmp_path / "null.jsonl")}))
    (tmp_path / "short.jsonl").write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(BadInput, match="lacks"):
        score.main(score.Config(out=str(tmp_path / "bad"), **options | {"from_logprobs": str(tmp_path / "short.jsonl")}))


def test_unknown_losses_are_never_selected(demo, scores, tmp_path):
    lines = written_logprobs(demo, scores, tmp_path / "api.jsonl")
    for line in lines:
        line["logprobs"][1:20] = [None] * 19
    (tmp_path / "api.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    score.main(score.Config(data=demo, block_size=32, from_logprobs=str(tmp_path / "api.jsonl"), out=str(tmp_path / "api")))
    train(train_slm, tmp_path / "run", demo, scores=str(tmp_path / "api"), keep=1.0 - 1e-9)  # all that may be
    assert {r["ratio"] for r in records(tmp_path / "run")} == {13 / 32}


def test_labels_come_before_the_ranks(demo, entropy_scores):
    """Intersection and union are of lists of the wanted tokens only."""
    tokens, rows = Tokens(demo, "noisy", 32), np.arange(8)
    wanted = torch.isin(tokens.row_labels(rows), torch.tensor([1, 2])).flatten().numpy()
    loss, entropy = (Scores(entropy_scores, tokens, name).rows(rows).flatten().numpy()[wanted] for name in ("loss", "entropy"))
    for how in ("intersection", "union"):
        cfg = train_slm.Config(scores=entropy_scores, select=how, labels=["solution", "result"])
        ref = variants.Reference(cfg, tokens)(rows, 0).flatten().numpy()
        assert (ref[~wanted] == np.inf).all() and np.isfinite(ref[wanted]).all()
        k = 5
        best = np.argsort(ref[wanted], kind="stable")[:k]
        expected = brute_force(how, loss, entropy, k)
        assert set(best.tolist()) <= expected and len(expected) - k <= 1


def test_plain_fine_tuning_needs_no_scores(demo, tmp_path):
    """keep 1.0 with labels is CLM on these targets: its first loss, by hand."""
    train(train_slm, tmp_path / "run", demo, keep=1.0, labels=["solution", "result"], scores="/nowhere", snapshot_every=12)
    tokens, rows, losses = first_step(tmp_path / "run", demo)
    of_label = torch.isin(tokens.row_labels(rows), torch.tensor([1, 2]))
    assert records(tmp_path / "run")[0]["loss"] == pytest.approx(losses[of_label].mean().item(), rel=1e-5)
