"""On-policy distillation: its pure functions against brute force and enumeration, a step's parts, whole tiny runs."""
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import train_ref
from corpora.tokenizers import load_tokenizer
from engine.cli import BadInput
from extras import distill, rollouts
from helpers import ROOT, records, same_weights, start_ranks, train

SIZES = dict(block_size=96, batch_tokens=384, train_tokens=384 * 12)


@pytest.fixture(scope="module")
def runs(demo, tmp_path_factory):
    """A student, two teachers and a problem file that names them."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("student", "add", "double")):
        train(train_ref, folder / name, demo, train="curated", seed=seed, **SIZES)
    with open(os.path.join(demo, "curated.jsonl")) as f:
        problems = [json.loads(line) for line in f]
    with open(folder / "both.jsonl", "w") as f:
        for i, problem in enumerate(problems):
            f.write(json.dumps(problem | {"teacher": ("double", "add")[i % 2]}) + "\n")
    return folder


def options(runs, demo, folder, **more):
    about = dict(student=str(runs / "student" / "ckpt.pt"), teacher=[str(runs / "add" / "ckpt.pt")], data=demo,
                 out=str(folder), rollouts=20, steps=4, warmup_steps=1, max_new_tokens=8, eval_every=2, save_every=2,
                 eval_problems=5, device="cpu")
    return about | more


def distilled(runs, demo, folder, **more):
    cfg = distill.Config(**options(runs, demo, folder, **more))
    assert list(cfg.validate()) == []
    distill.main(cfg)
    return folder


# --------------------------------------------------------------------------------------------------- pure functions

def test_the_sampled_gradient_is_the_exact_one_in_expectation():
    """The sum over all tokens that may be drawn, each with its probability, of the policy gradient."""
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 5, dtype=torch.float64, requires_grad=True)                # (R, T, V)
    by_teacher = torch.randn(1, 3, 5, dtype=torch.float64).log_softmax(-1)
    log_probs = logits.log_softmax(-1)
    exact, = torch.autograd.grad(distill.reverse_kl(log_probs, by_teacher).sum(), logits, retain_graph=True)
    expected = torch.zeros_like(logits)
    for v in range(5):
        logp, advantage = log_probs[..., v], (by_teacher - log_probs)[..., v].detach()
        at_v = log_probs[..., v].exp().detach()  # as a weight it stands where a sample's frequency would
        loss = distill.policy_loss(logp, advantage * at_v)
        expected += torch.autograd.grad(loss, logits, retain_graph=True)[0]
    assert torch.allclose(expected, exact, atol=1e-12) and exact.abs().max() > 0.1
    kl = torch.distributions.kl_divergence(torch.distributions.Categorical(logits=logits),
                                           torch.distributions.Categorical(logits=by_teacher))
    assert torch.allclose(distill.reverse_kl(log_probs, by_teacher), kl)


def random_step(R=100, T=9, seed=0):
    torch.manual_seed(seed)
    lengths = torch.randint(1, T + 1, (R, 1))
    mask = torch.arange(T).expand(R, T) < lengths
    return -torch.rand(R, T, dtype=torch.float64), torch.rand(R, T, dtype=torch.float64), \
        torch.rand(R, T, dtype=torch.float64), mask


def test_the_filter_drops_a_fifth_of_the_step():
    logp, _, _, mask = random_step()
    kept = distill.keep_likely(logp, mask, 0.2)
    means = np.array([logp[i][mask[i]].mean().item() for i in range(100)])
    assert kept.float().mean() == pytest.approx(0.8)
    assert set(np.flatnonzero(kept.numpy())) == set(np.argsort(means)[20:])
    assert distill.keep_likely(logp, mask, 0.0).all()


def test_the_weights_equal_brute_force_and_have_mean_1():
    _, H_T, H_S, mask = random_step()
    weights = distill.token_weights(H_T, H_S, mask, alpha=0.5, beta=2.0)
    most_T, most_S = H_T[mask].max().item(), H_S[mask].max().item()
    raw = {(i, t): (1 + 0.5 * (1 - H_T[i, t].item() / most_T)) * (1 + 2.0 * H_S[i, t].item() / most_S)
           for i, t in zip(*np.nonzero(mask.numpy()))}
    mean = sum(raw.values()) / len(raw)
    assert all(weights[i, t].item() == pytest.approx(w / mean) for (i, t), w in raw.items())
    assert weights[mask].mean().item() == pytest.approx(1) and not weights[~mask].any()
    assert weights[mask].max() > 1.5 * weights[mask].min()


@pytest.mark.parametrize("loss", distill.LOSSES)
def test_what_counts(loss):
    logp, H_T, H_S, mask = random_step()
    cfg = distill.Config(first_k=3, alpha=0.5, beta=2.0)
    count, weights = distill.what_counts(loss, logp, H_T, H_S, mask, cfg, torch.Generator().manual_seed(1))
    assert not (count & ~mask).any() and not weights[~count].any()
    if loss in ("fire", "fire_exact", "filter", "random_drop", "permuted_weights"):
        assert count.any(dim=1).float().mean() == pytest.approx(0.8)
    expected = {"opd": mask, "reweight": mask, "exact_kl": mask, "sft": mask,
                "filter": mask & distill.keep_likely(logp, mask, 0.2)[:, None],
                "first_k": mask & (torch.arange(9) < 3), "entropy_half": mask & (H_S >= H_S[mask].median())}
    expected["fire"] = expected["fire_exact"] = expected["permuted_weights"] = expected["filter"]
    if loss == "random_drop":
        assert not torch.equal(count, expected["filter"]) and torch.equal(count, mask & count.any(dim=1)[:, None])
    else:
        assert torch.equal(count, expected[loss])
    of_method = distill.token_weights(H_T, H_S, count, 0.5, 2.0)
    if loss in ("fire", "fire_exact", "reweight"):
        assert torch.equal(weights, of_method)
    elif loss == "permuted_weights":
        assert not torch.equal(weights, of_method)
        assert torch.equal(weights[count].sort().values, of_method[count].sort().values)
    else:
        assert (weights[count] == 1).all()


def test_dropped_answers_change_nothing_in_the_gradient():
    logp, H_T, H_S, mask = random_step(R=20)
    count, weights = distill.what_counts("fire", logp, H_T, H_S, mask, distill.Config(), None)
    student = logp.clone().requires_grad_()
    distill.policy_loss(student[count], (weights * (logp + 1))[count]).backward()
    dropped = ~count.any(dim=1)
    assert dropped.sum() == 4 and not student.grad[dropped].any() and student.grad[count].all()
    other = H_S.clone()
    other[dropped] = 100.0  # nor do their entropies: the maxima and the mean are of what is kept
    assert torch.equal(distill.what_counts("fire", logp, H_T, other, mask, distill.Config(), None)[1], weights)


def test_rewards_are_compared_with_the_answers_to_the_same_problem():
    reward = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    assert distill.against_own_mean(reward, 2).tolist() == [0.5, -0.5, 0, 0, 0, 0]


# --------------------------------------------------------------------------------------------------- parts of a step

def test_the_end_of_text_token_is_trained_on(demo, runs, monkeypatch):
    enc = load_tokenizer(demo)
    new = [[5, 6, enc.eot_token], [7, 8, 9]]  # the second one is cut off
    monkeypatch.setattr(rollouts, "generate", lambda *args: new)
    model = distill.load_model(str(runs / "add" / "ckpt.pt"), distill.tokenizer_hash(enc), demo, "cpu")[0]
    ids, mask = distill.roll_out([model], np.zeros(2, dtype=int), [[1, 2], [1, 2, 3, 4]], distill.Config(), 8,
                                 enc.eot_token, seed=0)
    assert ids[0].tolist() == [1, 2, *new[0]] + [enc.eot_token] * 4
    assert [row[m].tolist() for row, m in zip(ids[:, 1:], mask)] == new


def test_each_problem_has_its_own_teacher(demo, runs):
    enc = load_tokenizer(demo)
    names = ("add", "double")
    problems = distill.Problems(str(runs / "both.jsonl"), enc, names)
    assert [names[n] for n in problems.teacher_of[:3]] == ["double", "add", "double"]
    teachers = [distill.load_model(str(runs / name / "ckpt.pt"), distill.tokenizer_hash(enc), demo, "cpu")[0]
                for name in names]
    torch.manual_seed(0)
    ids = torch.randint(300, (5, 20))
    which = np.array([1, 0, 0, 1, 1])
    with torch.no_grad():
        mask = torch.rand(5, 19) < 0.5
        both = distill.teachers_log_probs(teachers, which, ids, mask).split(mask.sum(dim=1).tolist())
        for i, number in enumerate(which):
            alone = distill.log_probs_of(teachers[number], ids[i:i + 1], mask[i:i + 1], teachers[number])
            assert torch.allclose(both[i], alone, atol=1e-5)
    assert not torch.allclose(teachers[0].output_weight, teachers[1].output_weight, atol=1e-2)


def test_judgements_equal_one_token_at_a_time(demo, runs):
    enc = load_tokenizer(demo)
    student, teacher = (distill.load_model(str(runs / name / "ckpt.pt"), distill.tokenizer_hash(enc), demo, "cpu")[0]
                        for name in ("student", "add"))
    ids = torch.randint(300, (2, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[False, True, True, True, True], [True, True, False, True, False]])
    judged = distill.judge(student, [teacher], np.zeros(2, dtype=int), ids, mask)
    assert not judged.transpose(0, 1)[:, ~mask].any()
    for i, t in mask.nonzero().tolist():
        with torch.no_grad():
            p_S, p_T = (torch.softmax(m.logits(m(ids[i:i + 1, :t + 1]))[0, -1].double(), -1).numpy()
                        for m in (student, teacher))
        y = ids[i, t + 1]
        expected = [np.log(p_S[y]), np.log(p_T[y]), -(p_S * np.log(p_S)).sum(), -(p_T * np.log(p_T)).sum(),
                    (p_S * np.log(p_S / p_T)).sum()]
        assert judged[i, :, t].tolist() == pytest.approx(expected, abs=1e-4)


def test_problems_are_drawn_without_repetition_and_samples_stand_side_by_side():
    cfg = distill.Config(rollouts=20, samples=4)
    drawn = distill.draw(60, cfg, step=3)
    assert all(len(set(group)) == 1 for group in drawn.reshape(5, 4)) and len(set(drawn)) == 5
    assert (drawn == distill.draw(60, cfg, step=3)).all() and (drawn != distill.draw(60, cfg, step=4)).any()
    assert len(distill.draw(2, cfg, step=0)) == 20  # more than there are problems


# --------------------------------------------------------------------------------------------------- whole runs

@pytest.mark.parametrize("loss", distill.LOSSES)
def test_every_loss_runs_and_says_what_it_kept(demo, runs, tmp_path, loss):
    distilled(runs, demo, tmp_path / "a", loss=loss)
    trace = records(tmp_path / "a")
    assert len(trace) == 4 and trace[-1]["tokens"] == pytest.approx(sum(20 * r["length"] for r in trace))
    for r in trace:
        dropping = loss in ("fire", "fire_exact", "filter", "random_drop", "permuted_weights")
        assert r["kept"] == pytest.approx(0.8) if dropping else loss == "entropy_half" or r["kept"] == 1
        assert r["reverse_kl"] > 0 and r["student_entropy"] > 0
    assert not same_weights(tmp_path / "a", runs / "student")
    assert [r["step"] for r in records(tmp_path / "a", "eval")] == [0, 2, 4]


def test_distillation_brings_the_student_nearer_to_the_teacher(demo, runs, tmp_path):
    for loss in ("opd", "exact_kl", "fire"):
        distilled(runs, demo, tmp_path / loss, loss=loss, steps=30, lr=3e-3, eval_every=30)
        kl = [r["reverse_kl"] for r in records(tmp_path / loss)]
        assert np.mean(kl[-5:]) < 0.8 * np.mean(kl[:3]), loss


@pytest.mark.parametrize("reward", ["answer", "reference"])
def test_other_rewards_are_raised(demo, runs, tmp_path, reward, monkeypatch):
    """A reward that a tiny model can earn, answers that begin with a low id; and the teacher's probability."""
    monkeypatch.setattr(distill, "is_right", lambda enc, tokens, answer: tokens[0] < 200)
    teacher = [str(runs / "add" / "ckpt.pt")] if reward == "reference" else []
    distilled(runs, demo, tmp_path / "a", loss="opd", reward=reward, samples=4, teacher=teacher, steps=60, lr=1e-2,
              eval_every=60, rollouts=40)
    trace = records(tmp_path / "a")
    assert all(("reverse_kl" in r) == (reward == "reference") for r in trace)
    earned = [r["right" if reward == "answer" else "reward"] for r in trace]
    assert np.mean(earned[-10:]) > np.mean(earned[:10]) + 0.05


@pytest.mark.parametrize("loss", ["sft", "exact_kl"])
def test_who_answers_and_who_judges_in_the_loop(demo, runs, tmp_path, monkeypatch, loss):
    """With two teachers and micro-batches: each answer's author and teacher are the problem's own."""
    calls, judged = [], []
    roll_out, teachers_log_probs = distill.roll_out, distill.teachers_log_probs

    def recorded_roll_out(authors, author_of, prompts, *rest):
        calls.append((len(authors), author_of.tolist(), prompts))
        return roll_out(authors, author_of, prompts, *rest)

    def recorded_judge(teachers, teacher_of, ids, mask):
        judged.append((teacher_of.tolist(), ids))
        return teachers_log_probs(teachers, teacher_of, ids, mask)
    monkeypatch.setattr(distill, "roll_out", recorded_roll_out)
    monkeypatch.setattr(distill, "teachers_log_probs", recorded_judge)
    both = [f"{name}={runs / name / 'ckpt.pt'}" for name in ("add", "double")]
    distilled(runs, demo, tmp_path / "a", loss=loss, teacher=both, problems=str(runs / "both.jsonl"), micro_rows=5)
    problems = distill.Problems(str(runs / "both.jsonl"), load_tokenizer(demo), ("add", "double"))
    own = {tuple(prompt): teacher for prompt, teacher in zip(problems.prompts, problems.teacher_of)}
    assert len(calls) == 4 * 4
    for n_authors, author_of, prompts in calls:
        assert n_authors == (2 if loss == "sft" else 1)
        assert author_of == ([own[tuple(p)] for p in prompts] if loss == "sft" else [0] * 5)
    for teacher_of, ids in judged:
        for number, row in zip(teacher_of, ids.tolist()):
            assert number == next(own[p] for p in map(tuple, problems.prompts) if tuple(row[:len(p)]) == p)
    assert len(judged) == (16 if loss == "sft" else 32)  # the exact loss asks once more, for the gradient


def nearly_same_log(a, b):
    for x, y in zip(records(a), records(b), strict=True):
        assert x.pop("kind") == y.pop("kind") and x == pytest.approx(y, rel=1e-3, abs=1e-5)


def test_the_step_does_not_depend_on_its_micro_batches(demo, runs, tmp_path, monkeypatch):
    """With answers that do not depend on the stream of random numbers, which micro-batches have each their own."""
    generate = rollouts.generate
    monkeypatch.setattr(rollouts, "generate", lambda m, p, n, stop, *_: generate(m, p, n, stop))
    for micro_rows in (0, 5):
        distilled(runs, demo, tmp_path / str(micro_rows), micro_rows=micro_rows)
    nearly_same_log(tmp_path / "0", tmp_path / "5")
    assert same_weights(tmp_path / "0", tmp_path / "5", tolerance=1e-4)


@pytest.mark.parametrize("how", [{"loss": "permuted_weights"},
                                 {"loss": "opd", "reward": "reference", "samples": 4}], ids=str)
def test_two_processes_equal_one(demo, runs, tmp_path, how):
    distilled(runs, demo, tmp_path / "one", micro_rows=5, **how)
    flags = options(runs, demo, tmp_path / "two", micro_rows=5, **how)
    flags = [f"--{k}={v[0] if isinstance(v, list) else v}" for k, v in flags.items()]
    command = [sys.executable, "-m", "extras.distill", *flags]
    for process in start_ranks(2, command):
        assert process.wait(timeout=100) == 0, process.stderr.read()
    nearly_same_log(tmp_path / "one", tmp_path / "two")
    assert same_weights(tmp_path / "one", tmp_path / "two", tolerance=1e-4)


def test_resuming_is_exact(demo, runs, tmp_path, monkeypatch):
    how = dict(steps=5, loss="random_drop")
    distilled(runs, demo, tmp_path / "whole", **how)
    evaluate = distill.accuracy
    with monkeypatch.context() as m:
        def fail_at_the_second(*args):
            if (tmp_path / "cut" / "ckpt.pt").exists():
                raise KeyboardInterrupt
            return evaluate(*args)
        m.setattr(distill, "accuracy", fail_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            distilled(runs, demo, tmp_path / "cut", **how)
    with pytest.raises(BadInput, match="--resume"):
        distilled(runs, demo, tmp_path / "cut", **how)
    for changed, what in ((dict(student=str(runs / "add" / "ckpt.pt")), "student"),
                          (dict(problems=str(runs / "both.jsonl")), "problems")):
        with pytest.raises(BadInput, match=f"made from other files .{what}"):
            distilled(runs, demo, tmp_path / "cut", resume=True, **how | changed)
    other = shutil.copytree(demo, tmp_path / "other")  # the same problems, and other held-out text
    for ending in ("bin", "labels.bin", "json"):
        shutil.copy(other / f"test.{ending}", other / f"val.{ending}")
    with pytest.raises(BadInput, match="made from other files .val, val_labels.:"):
        distilled(runs, str(other), tmp_path / "cut", resume=True, **how)
    for option in ("eval_rows", "eval_problems"):  # they decide what the figures in the log are of
        with pytest.raises(BadInput, match=f"another configuration .{option}"):
            distilled(runs, demo, tmp_path / "cut", resume=True, **how | {option: 3})
    distilled(runs, demo, tmp_path / "cut", resume=True, **how)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    for kind in ("train", "eval"):
        assert records(tmp_path / "whole", kind) == records(tmp_path / "cut", kind)
    with pytest.raises(BadInput, match="another configuration"):
        distilled(runs, demo, tmp_path / "cut", resume=True, **how | dict(loss="opd"))


# --------------------------------------------------------------------------------------------------- bad input

@pytest.mark.parametrize("change, message", [
    (dict(student=""), "--student"), (dict(teacher=[]), "--teacher"), (dict(loss="foo"), "loss must be"),
    (dict(drop=1.0), "no answer would be left"), (dict(reward="answer"), "--loss opd"),
    (dict(reward="answer", loss="opd"), "--samples 2"), (dict(rollouts=20, samples=3), "divisible"),
    (dict(micro_rows=7), "divisible"), (dict(lr=0.0), "lr"), (dict(steps=0), "steps"), (dict(reward="x"), "reward")])
def test_options_that_do_not_go_together(demo, runs, tmp_path, change, message):
    problems = list(distill.Config(**options(runs, demo, tmp_path, **change)).validate())
    assert problems and message in "; ".join(problems)


def test_what_does_not_fit_is_refused(demo, runs, tmp_path):
    for change, message in ((dict(max_new_tokens=90), "do not fit"), (dict(student="none.pt"), "no checkpoint"),
                            (dict(problems="none.jsonl"), "none.jsonl"),
                            (dict(teacher=["add=a.pt", "b.pt"]), "NAME=CKPT")):
        with pytest.raises(BadInput, match=message):
            distilled(runs, demo, tmp_path / "a", **change)
    both = [f"plus={runs / 'add' / 'ckpt.pt'}", f"double={runs / 'double' / 'ckpt.pt'}"]
    with pytest.raises(BadInput, match="`teacher` of a problem is 'add'"):
        distilled(runs, demo, tmp_path / "a", teacher=both, problems=str(runs / "both.jsonl"))
    assert not (tmp_path / "a").exists()


def test_another_tokenizer_is_refused(demo, runs, tmp_path):
    checkpoint = torch.load(runs / "add" / "ckpt.pt", weights_only=True)
    checkpoint["tokenizer_sha256"] = "other"
    torch.save(checkpoint, tmp_path / "other.pt")
    with pytest.raises(BadInput, match="another tokenizer"):
        distilled(runs, demo, tmp_path / "a", teacher=[str(tmp_path / "other.pt")])


def test_losses_that_are_not_finite_end_the_run_and_keep_what_was_saved(demo, runs, tmp_path, monkeypatch):
    policy_loss = distill.policy_loss

    def no_number_after_the_first_save(logp, advantage):
        saved = (tmp_path / "a" / "ckpt.pt").exists()
        return policy_loss(logp, advantage) * (float("nan") if saved else 1.0)
    monkeypatch.setattr(distill, "policy_loss", no_number_after_the_first_save)
    with pytest.raises(BadInput, match="not finite"):
        distilled(runs, demo, tmp_path / "a")
    checkpoint = torch.load(tmp_path / "a" / "ckpt.pt", weights_only=True)
    assert checkpoint["step"] == 2 and all(t.isfinite().all() for t in checkpoint["model"].values())


def test_probabilities_that_are_no_numbers_are_one_line(demo, runs, tmp_path):
    checkpoint = torch.load(runs / "add" / "ckpt.pt", weights_only=True)
    checkpoint["model"]["ln_f.weight"][:] = float("nan")
    torch.save(checkpoint, tmp_path / "nan.pt")
    with pytest.raises(BadInput, match="no numbers any more|not finite"):
        distilled(runs, demo, tmp_path / "a", student=str(tmp_path / "nan.pt"))


# --------------------------------------------------------------------------------------------------- the script

@pytest.mark.slow
def test_the_script_from_corpora_to_figure_and_again(tmp_path):
    environment = os.environ | {
        "SEEDS": "0 1", "LOSSES": "opd fire", "MORE": "reward_answer", "PAIR": "exact_kl", "STEPS": "2", "ROLLOUTS": "8",
        "DOCUMENTS": "200", "FORM_TOKENS": "15360", "TEACHER_TOKENS": "15360", "STUDENT_TOKENS": "3072",
        "PROBLEMS": "10", "PYTHON": sys.executable, "DATA": str(tmp_path / "data"), "OUT": str(tmp_path / "out")}
    script = ["bash", os.path.join(ROOT, "runs", "distill.sh")]
    assert subprocess.run(script, env=environment).returncode == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results) == ["strong", "pair"]
    assert list(results["strong"]["arms"]) == ["fire", "opd", "reward_answer"]
    assert set(results["strong"]["teachers"]) == {"both"}
    assert set(results["pair"]["teachers"]) == {"both", "add", "double"}
    run = results["pair"]["arms"]["exact_kl"]["seed1"]
    log = records(tmp_path / "out" / "pair" / "seed1" / "exact_kl", "eval")
    assert run["accuracies"] == [r["accuracy"] for r in log] and run["final"]["tokens"] == log[-1]["tokens"]
    assert "less plain" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 10_000
    fewer = {"SEEDS": "1", "LOSSES": "fire", "MORE": ""}
    again = subprocess.run(script, env=environment | fewer, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("finished before") == 2 + 3 + 1 + 2
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    other = subprocess.run(script, env=environment | {"DOCUMENTS": "100"}, capture_output=True, text=True)
    assert other.returncode != 0 and "name another DATA" in other.stderr
