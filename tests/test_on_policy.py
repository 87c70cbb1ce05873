"""On-policy distillation: its pure functions against brute force and enumeration, a step's parts, whole tiny runs."""
import json
import os
import sys

import numpy as np
import pytest
import torch

import train_ref
from common import learning_rate
from corpora.tokenizers import load_tokenizer, tokenizer_hash
from distillation import on_policy, rollouts
from engine.checkpoints import load_model
from engine.cli import BadInput
from engine.files import read_jsonl, write_jsonl
from helpers import records, same_weights, sh, start_ranks, train

SIZES = dict(block_size=96, batch_tokens=384, train_tokens=384 * 12)


@pytest.fixture(scope="module")
def runs(demo, tmp_path_factory):
    """A student, two teachers and a problem file that names them."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("student", "add", "double")):
        train(train_ref, folder / name, demo, train="curated", seed=seed, **SIZES)
    problems = read_jsonl(os.path.join(demo, "curated.jsonl"))
    write_jsonl(folder / "both.jsonl", [p | {"teacher": ("double", "add")[i % 2]} for i, p in enumerate(problems)])
    return folder


def options(runs, demo, folder, **more):
    about = dict(student=str(runs / "student" / "ckpt.pt"), teacher=[str(runs / "add" / "ckpt.pt")], data=demo,
                 out=str(folder), rollouts=20, steps=4, warmup_steps=1, max_new_tokens=8, eval_every=2,
                 eval_problems=5, device="cpu")
    return about | more


def distilled(runs, demo, folder, **more):
    cfg = on_policy.Config(**options(runs, demo, folder, **more))
    assert list(cfg.validate()) == []
    on_policy.main(cfg)
    return folder


# --------------------------------------------------------------------------------------------------- the parts of a step

def test_the_sampled_gradient_is_the_exact_one_in_expectation():
    """The sum over all tokens that may be drawn, each with its probability, of the policy gradient."""
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 5, dtype=torch.float64, requires_grad=True)                # (R, T, V)
    by_teacher = torch.randn(1, 3, 5, dtype=torch.float64).log_softmax(-1)
    log_probs = logits.log_softmax(-1)
    exact, = torch.autograd.grad(on_policy.reverse_kl(log_probs, by_teacher).sum(), logits, retain_graph=True)
    expected = torch.zeros_like(logits)
    for v in range(5):
        logp, advantage = log_probs[..., v], (by_teacher - log_probs)[..., v].detach()
        at_v = log_probs[..., v].exp().detach()  # as a weight it stands where a sample's frequency would
        loss = on_policy.policy_loss(logp, advantage * at_v)
        expected += torch.autograd.grad(loss, logits, retain_graph=True)[0]
    assert torch.allclose(expected, exact, atol=1e-12) and exact.abs().max() > 0.1


@pytest.mark.parametrize("loss", on_policy.LOSSES)
def test_what_counts(loss):
    torch.manual_seed(0)
    mask = torch.arange(9).expand(100, 9) < torch.randint(1, 10, (100, 1))  # (R, T)
    logp, H_T, H_S = torch.rand(3, 100, 9, dtype=torch.float64)  # (R, T) each
    cfg = on_policy.Config(alpha=0.5, beta=2.0)
    count, weights = on_policy.what_counts(loss, -logp, H_T, H_S, mask, cfg, torch.Generator().manual_seed(1))
    means = torch.stack([-logp[i][mask[i]].mean() for i in range(100)])
    likely = mask & (means >= means.sort().values[20])[:, None]  # four fifths of the answers
    if loss == "random_drop":
        assert not torch.equal(count, likely) and torch.equal(count, mask & count.any(dim=1)[:, None])
        assert count.any(dim=1).float().mean() == pytest.approx(0.8)
    else:
        assert torch.equal(count, likely if loss in ("fire", "filter", "permuted_weights") else mask)
    raw = (1 + 0.5 * (1 - H_T / H_T[count].max())) * (1 + 2.0 * H_S / H_S[count].max())
    of_method = raw / raw[count].mean() * count
    if loss in ("fire", "reweight"):
        torch.testing.assert_close(weights, of_method)
    elif loss == "permuted_weights":
        assert not torch.allclose(weights, of_method)
        torch.testing.assert_close(weights[count].sort().values, of_method[count].sort().values)
    else:
        assert (weights[count] == 1).all()
    assert not weights[~count].any()


def model(runs, demo, name):
    return load_model(str(runs / name / "ckpt.pt"), tokenizer_hash(load_tokenizer(demo)), demo, "cpu")[0]


def test_the_end_of_text_token_is_trained_on(demo, runs, monkeypatch):
    enc = load_tokenizer(demo)
    new = [[5, 6, enc.eot_token], [7, 8, 9]]  # the second one is cut off
    monkeypatch.setattr(rollouts, "generate", lambda *args: new)
    ids, mask = on_policy.roll_out(model(runs, demo, "add"), [[1, 2], [1, 2, 3, 4]], on_policy.Config(), 8, enc, seed=0)
    assert ids[0].tolist() == [1, 2, *new[0]] + [enc.eot_token] * 4
    assert [row[m].tolist() for row, m in zip(ids[:, 1:], mask)] == new


def test_an_answer_ends_with_the_text_or_before_another_problem(demo):
    enc = load_tokenizer(demo)
    ended, ids = rollouts.has_ended(enc), enc.encode_ordinary(" The answer is 5.\n\n")
    assert ended([*ids[:-2], enc.eot_token]) and ended(ids)
    assert not any(ended(ids[:n]) for n in range(1, len(ids)))


def test_judgements_equal_one_token_at_a_time(demo, runs):
    student, teacher = (model(runs, demo, name) for name in ("student", "add"))
    ids = torch.randint(300, (2, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[False, True, True, True, True], [True, True, False, True, False]])
    judged = on_policy.judge(student, [teacher], np.zeros(2, dtype=int), ids, mask)
    assert not judged.transpose(0, 1)[:, ~mask].any()
    for i, t in mask.nonzero().tolist():
        with torch.no_grad():
            p_S, p_T = (torch.softmax(m.logits(m(ids[i:i + 1, :t + 1]))[0, -1].double(), -1).numpy()
                        for m in (student, teacher))
        y = ids[i, t + 1]
        expected = [np.log(p_S[y]), np.log(p_T[y]), -(p_S * np.log(p_S)).sum(), -(p_T * np.log(p_T)).sum(),
                    (p_S * np.log(p_S / p_T)).sum()]
        assert judged[i, :, t].tolist() == pytest.approx(expected, abs=1e-4)


def test_problems_are_drawn_without_repetition():
    cfg = on_policy.Config(rollouts=20)
    drawn = on_policy.draw(60, cfg, step=3)
    assert len(set(drawn)) == 20
    assert (drawn == on_policy.draw(60, cfg, step=3)).all() and (drawn != on_policy.draw(60, cfg, step=4)).any()
    assert len(on_policy.draw(2, cfg, step=0)) == 20  # more than there are problems


# --------------------------------------------------------------------------------------------------- whole runs

@pytest.mark.parametrize("loss", on_policy.LOSSES)
def test_every_loss_runs_and_says_what_it_kept(demo, runs, tmp_path, loss):
    distilled(runs, demo, tmp_path / "a", loss=loss)
    trace = records(tmp_path / "a")
    assert len(trace) == 4 and trace[-1]["tokens"] == pytest.approx(sum(20 * r["length"] for r in trace))
    for r in trace:
        dropping = loss in ("fire", "filter", "random_drop", "permuted_weights")
        assert r["kept"] == pytest.approx(0.8 if dropping else 1)
        assert r["reverse_kl"] > 0 and r["student_entropy"] > 0
    assert not same_weights(tmp_path / "a", runs / "student")
    assert [r["step"] for r in records(tmp_path / "a", "eval")] == [0, 2, 4]


def test_distillation_brings_the_student_nearer_to_the_teacher(demo, runs, tmp_path):
    for loss in ("opd", "exact_kl", "fire"):
        distilled(runs, demo, tmp_path / loss, loss=loss, steps=30, lr=3e-3, eval_every=30)
        kl = [r["reverse_kl"] for r in records(tmp_path / loss)]
        assert np.mean(kl[-5:]) < 0.8 * np.mean(kl[:3]), loss


def test_who_judges(demo, runs, tmp_path, monkeypatch):
    """With two teachers and micro-batches: each answer's teacher is the problem's own."""
    problems = on_policy.Problems(str(runs / "both.jsonl"), load_tokenizer(demo), ("add", "double"))
    assert problems.teacher_of[:3].tolist() == [1, 0, 1]
    own = {tuple(prompt): teacher for prompt, teacher in zip(problems.prompts, problems.teacher_of)}
    calls, teachers_log_probs = [], on_policy.teachers_log_probs

    def watched_judge(teachers, teacher_of, ids, mask):
        calls.append("judges")
        found = teachers_log_probs(teachers, teacher_of, ids, mask)
        for row, m, number, log_probs in zip(ids, mask, teacher_of, found.split(mask.sum(dim=1).tolist())):
            assert number == next(own[p] for p in own if tuple(row[:len(p)].tolist()) == p)
            alone = on_policy.log_probs_of(teachers[number], row[None], m[None], teachers[number])
            assert torch.allclose(log_probs, alone, atol=1e-5)
        return found
    monkeypatch.setattr(on_policy, "teachers_log_probs", watched_judge)
    both = [f"{name}={runs / name / 'ckpt.pt'}" for name in ("add", "double")]
    distilled(runs, demo, tmp_path / "a", loss="exact_kl", teacher=both, problems=str(runs / "both.jsonl"), micro_rows=5)
    assert len(calls) == 32  # four steps of four micro-batches, and exact_kl asks once more


def assert_nearly_the_same(a, b):
    assert same_weights(a, b, tolerance=1e-4)
    for x, y in zip(records(a), records(b), strict=True):
        assert x.pop("kind") == y.pop("kind") and x == pytest.approx(y, rel=1e-3, abs=1e-5)


def test_the_step_does_not_depend_on_its_micro_batches(demo, runs, tmp_path, monkeypatch):
    """With answers that do not depend on the stream of random numbers, which micro-batches have each their own."""
    generate = rollouts.generate
    monkeypatch.setattr(rollouts, "generate", lambda m, p, n, stop, *_: generate(m, p, n, stop))
    for micro_rows in (0, 5):
        distilled(runs, demo, tmp_path / str(micro_rows), micro_rows=micro_rows)
    assert_nearly_the_same(tmp_path / "0", tmp_path / "5")


@pytest.mark.parametrize("loss", [pytest.param("permuted_weights", marks=pytest.mark.slow), "fire"])
def test_two_processes_equal_one(demo, runs, tmp_path, loss):
    distilled(runs, demo, tmp_path / "one", micro_rows=5, loss=loss)
    flags = options(runs, demo, tmp_path / "two", micro_rows=5, loss=loss)
    flags = [f"--{k}={v[0] if isinstance(v, list) else v}" for k, v in flags.items()]
    command = [sys.executable, "-m", "distillation.on_policy", *flags]
    for process in start_ranks(2, command):
        assert process.wait(timeout=100) == 0, process.stderr.read()
    assert_nearly_the_same(tmp_path / "one", tmp_path / "two")


def test_resuming_is_exact(demo, runs, tmp_path, monkeypatch):
    how, cut = dict(steps=5, loss="random_drop"), tmp_path / "cut"
    distilled(runs, demo, tmp_path / "whole", **how)

    def killed_in_the_fourth_step(step, cfg):
        if step == 3:
            raise KeyboardInterrupt
        return learning_rate(step, cfg)
    with monkeypatch.context() as m:
        m.setattr(on_policy, "learning_rate", killed_in_the_fourth_step)
        with pytest.raises(KeyboardInterrupt):
            distilled(runs, demo, cut, **how)
    for changed, says in ((dict(student=str(runs / "add" / "ckpt.pt")), "files .init_from"),
                          (dict(problems=str(runs / "both.jsonl")), "files .problems"),
                          (dict(eval_problems=3), "another configuration .eval_problems")):  # what the log's figures are of
        with pytest.raises(BadInput, match=says):
            distilled(runs, demo, cut, **how | dict(resume=True) | changed)
    distilled(runs, demo, cut, resume=True, **how)
    assert same_weights(tmp_path / "whole", cut)
    for kind in ("train", "eval"):
        assert records(tmp_path / "whole", kind) == records(cut, kind)


@pytest.mark.parametrize("change, message", [
    (dict(student=""), "--student"), (dict(teacher=[]), "--teacher"), (dict(loss="foo"), "loss must be"),
    (dict(drop=1.0), "no answer would be left"), (dict(micro_rows=7), "divisible"), (dict(steps=0), "steps")])
def test_options_that_do_not_go_together(demo, runs, tmp_path, change, message):
    problems = list(on_policy.Config(**options(runs, demo, tmp_path, **change)).validate())
    assert problems and message in "; ".join(problems)


def test_what_does_not_fit_is_refused(demo, runs, tmp_path):
    both = [f"plus={runs / 'add' / 'ckpt.pt'}", f"double={runs / 'double' / 'ckpt.pt'}"]
    for change, message in ((dict(max_new_tokens=90), "do not fit"), (dict(teacher=["a=1", "a=2"]), "NAME=CKPT"),
                            (dict(teacher=both, problems=str(runs / "both.jsonl")), "`teacher` of a problem is 'add'")):
        with pytest.raises(BadInput, match=message):
            distilled(runs, demo, tmp_path / "a", **change)
    assert not (tmp_path / "a").exists()


def test_losses_that_are_not_finite_end_the_run_and_keep_what_was_saved(demo, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(on_policy, "policy_loss", lambda logp, advantage: logp.sum() * float("nan"))
    with pytest.raises(BadInput, match="not finite"):
        distilled(runs, demo, tmp_path / "a")
    assert same_weights(tmp_path / "a", runs / "student")


@pytest.mark.slow
def test_the_script_from_corpora_to_figure_and_again(tmp_path):
    how = dict(SEEDS=0, LOSSES="opd fire", DATA=tmp_path / "data", OUT=tmp_path / "out")
    sh("distill.sh", tmp_path, **how)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"fire", "opd", "ref", "base", "clm"} <= set(results["arms"]) and "fire" in results["less"]["opd"]
    assert (tmp_path / "out" / "headline.png").stat().st_size > 10_000
    assert sh("distill.sh", tmp_path, **how | {"LOSSES": "fire"}).count("finished before") == 4
