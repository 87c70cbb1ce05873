"""Prompts, test files, the few-shot loop, likelihoods, and what is kept of the results."""
import dataclasses
import io
import itertools
import json
import math
import re
from types import SimpleNamespace

import pytest
import torch

import eval_math
from corpora.builtin import demo_tokenizer
from corpora.tokenizers import save_tokenizer, tokenizer_hash
from engine.cli import BadInput
from engine.files import read_jsonl, write_jsonl
from eval_math import fit_prompt
from grading import results, tasks
from grading.grade import extract_answer, is_equal
from grading.likelihood import continuation_losses
from grading.results import majority, pass_at_k, wilson
from model import GPT, GPTConfig


def make_model(enc):
    torch.manual_seed(1)
    model = GPT(GPTConfig(block_size=192, vocab_size=enc.n_vocab, n_layer=1, n_head=2, n_embd=16))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.double().eval()


@pytest.fixture
def corpus(tmp_path):
    """corpus(problems, others): a Config of the evaluation of a small model on these problems; the others can be shots
    besides. All is in tmp_path."""
    def make(problems, others=(), **options):
        enc = demo_tokenizer()
        save_tokenizer(enc, tmp_path)
        write_jsonl(tmp_path / "eval.jsonl", problems)
        write_jsonl(tmp_path / "curated.jsonl", [*problems, *others])
        model = make_model(enc).float()
        torch.save({"model": model.state_dict(), "model_config": dataclasses.asdict(model.config), "step": 7, "tokens": 70,
                    "tokenizer_sha256": tokenizer_hash(enc)}, tmp_path / "ckpt.pt")
        return eval_math.Config(ckpt=[str(tmp_path / "ckpt.pt")], data=str(tmp_path), device="cpu", **options)
    return make


def rows_and_summary(tmp_path):
    """What the one evaluation of tmp_path/ckpt.pt left: its rows, and its line of summary.jsonl."""
    [summary] = read_jsonl(tmp_path / "eval/summary.jsonl")
    return read_jsonl(tmp_path / "eval" / summary["rows"]), summary


# ------------------------------------------------------------------------------------------------------ prompts

def test_prompt_form_and_dropping_of_shots():
    shots = ["Question: Ava has 2 hens?\nAnswer: 2. The answer is 2.",
             "Question: " + "Long " * 30 + "\nAnswer: 1"]
    enc = demo_tokenizer()
    question = "Question: How many?\nAnswer:"
    prompt, ids, n = fit_prompt(question, shots, enc, 40)
    assert n == 1 and prompt == (
        "Question: Ava has 2 hens?\nAnswer: 2. The answer is 2.\n\nQuestion: How many?\nAnswer:")
    assert enc.decode(ids) == prompt
    assert fit_prompt(question, shots, enc, 10)[2] == 0
    assert fit_prompt(question, shots, enc, 3) == ("", [], 0)
    assert enc.eot_token not in fit_prompt("<|endoftext|>", [], enc, 40)[1]  # what a question says of it is text


@pytest.mark.parametrize("changed", [{"question": "5 \u20ac"}, {"solution": "5 \u20ac"}, {"options": ["5 \u20ac"]}], ids=str)
def test_an_id_without_a_row_is_refused_before_anything_is_generated(changed):
    """In a question, and with --likelihood in a solution or an option. Here the ids are bytes."""
    enc = SimpleNamespace(start=[], n_vocab=256, eot_token=0, encode_ordinary=lambda text: list(text.encode()),
                          encode=lambda text, **options: list(text.encode()))
    model = GPT(GPTConfig(block_size=64, vocab_size=128, n_layer=1, n_head=1, n_embd=8))
    problem = {"question": "How many?", "answer": "5", "solution": " 5.", "options": ["5"]} | changed
    cfg = eval_math.Config(task=["gsm8k"], max_new_tokens=8, likelihood=True, data="DATA")
    with pytest.raises(BadInput, match="CKPT has rows for 128 token ids, .* DATA has 256, and id 226"):
        eval_math.ask(model, "CKPT", enc, cfg, [problem], [[]])


def until_stopped(text, stop):
    """The tokens that `generate` returns of a model that writes this text."""
    tokens = demo_tokenizer().encode_ordinary(text)
    return next((tokens[:n] for n in range(1, len(tokens)) if stop(tokens[:n])), tokens)


@pytest.mark.parametrize("kept, more", [
    ("<think>\nQuestion: 2 + 3?\n</think> The answer is 5.\nQuestion:", " Who has 9?"),
    ("The answer is 5.\nQuestion:", " Who has 9?"), ("<think>\nQuestion: 2 + 3? And so on.", "")])
def test_generation_goes_on_where_a_thought_names_a_question(kept, more, monkeypatch):
    """A stop text inside <think> stops nothing; one behind it, or without a thought, does."""
    enc, rows = demo_tokenizer(), [{"index": 0}]
    monkeypatch.setattr(eval_math, "generate", lambda model, prompts, n, stop, *rest: [until_stopped(kept + more, stop)])
    eval_math.answer_batch(make_model(enc), enc, rows, [[0]], eval_math.Config(task=["gsm8k"]))
    assert rows[0]["generation"] == kept


# -------------------------------------------------------------------------------------------------- test files

# One row of each test file as it is published (texts of our own), and what must become of it.
ROWS = {
    "gsm8k": ({"question": "Ava has 2 hens. How many?", "answer": "She has 1+1=<<1+1=2>>2.\n#### 1,005"},
              "Question: Ava has 2 hens. How many?\nAnswer:", "1005"),
    "gsm_hard": ({"input": "Ben has 3 pigs. How many legs?", "target": 4932828.5, "code": "..."},
                 "Question: Ben has 3 pigs. How many legs?\nAnswer:", "4932828.5"),
    "math": ({"problem": "Find $x$.", "solution": "So $x=\\boxed{\\frac{1}{2}}$.", "level": "Level 1"},
             "Problem: Find $x$.\nSolution:", "\\frac{1}{2}"),
    "math_oai": ({"problem": "Find $x$.", "solution": "...", "answer": "7"}, "Problem: Find $x$.\nSolution:", "7"),
    "svamp": ({"Body": "Ben has 3 pigs", "Question": "How many legs?", "Answer": 12.0, "Equation": "( 3 * 4 )"},
              "Question: Ben has 3 pigs. How many legs?\nAnswer:", "12"),
    "asdiv": ({"body": "Ben has 3 pigs.", "question": "How many legs?", "answer": "12 (legs)"},
              "Question: Ben has 3 pigs. How many legs?\nAnswer:", "12"),
    "mawps": ({"input": "What is a quarter ?", "target": 0.25}, "Question: What is a quarter ?\nAnswer:", "0.25"),
    "tabmwp": ({"question": "Is there a shortage?", "choices": ["yes", "no"], "answer": "no", "unit": None,
                "table_title": "Hats", "table": "Price | Sold\n$3 | 7"},
               "Table: Hats\nPrice | Sold\n$3 | 7\nQuestion: Is there a shortage? (yes or no)\nAnswer:", "no"),
    "mathqa": ({"problem": "what is 2 + 3 ?", "correct": "b", "rationale": "\"it is 5 . answer : b\"",
                "options": "a ) a ) 4 m , b ) b ) 5 m , c ) c ) 6 , d ) d ) 7 , e ) e ) none"},
               "Question: what is 2 + 3 ?\nOptions: (A) 4 m (B) 5 m (C) 6 (D) 7 (E) none\nAnswer:", "B"),
    "mmlu_stem": ({"question": "What boils at 100 C?", "choices": ["gold", "ice", "lava", "water"], "answer": 3},
                  "Question: What boils at 100 C?\nOptions: (A) gold (B) ice (C) lava (D) water\nAnswer:", "D"),
    "sat_math": ({"question": "Find $x$.", "options": "A) $f(-6)=0$ B) $(3, 4 b)$ C) -10 and 10 D) 2", "Answer": "C"},
                 "Question: Find $x$.\nOptions: (A) $f(-6)=0$ (B) $(3, 4 b)$ (C) -10 and 10 (D) 2\nAnswer:", "C"),
}


@pytest.mark.parametrize("task", sorted(set(tasks.TASKS) - {"demo"}))
def test_rows_of_the_public_test_files(task, tmp_path, capsys):
    """The whole text of a solution is tested in test_readers.py; here, that it is graded right."""
    row, question, answer = ROWS[task]
    write_jsonl(tmp_path / f"{task}.jsonl", [row])
    [p] = tasks.load_task(task, str(tmp_path))
    assert (p["question"], p["answer"]) == (question, answer)
    assert len(p["options"]) == {"mathqa": 5, "mmlu_stem": 4, "sat_math": 4}.get(task, 0)
    assert f"is not the published test set of {task} (1 problems" in capsys.readouterr().err
    assert is_equal(extract_answer(p["solution"], task), answer)


def test_a_task_is_downloaded_once_and_checked(tmp_path, monkeypatch, capsys):
    row = ROWS["tabmwp"][0]
    urls = []

    def urlopen(url, timeout):
        urls.append(url)
        return io.BytesIO(json.dumps({"16": row, "54": row}).encode())
    monkeypatch.setattr(tasks.urllib.request, "urlopen", urlopen)
    published = tasks.checksum([tasks.table(row)] * 2)
    monkeypatch.setitem(tasks.TASKS, "tabmwp", dataclasses.replace(tasks.TASKS["tabmwp"], checksum=published))
    for _ in range(2):
        assert len(tasks.load_task("tabmwp", str(tmp_path / "new"))) == 2
    assert (tmp_path / "new/tabmwp.json").exists() and urls == [tasks.TABMWP]
    assert "not the published" not in capsys.readouterr().err


@pytest.mark.parametrize("task", ["gsm8k", "math", "tabmwp", "mathqa"])
def test_demonstrations(task):
    """As many as are used, each with one answer that the grader finds. (Their form: test_readers.py.)"""
    style, answers = tasks.TASKS[task].style, set()
    shots = tasks.demonstrations(style)
    for shot in shots:
        _, solution = re.split("\n(?:Answer|Solution): ", shot)
        assert not any(stop in solution for stop in style.stop if stop[0] == "\n")
        answers.add(extract_answer(solution, task))
    assert all(answers) and len(answers) == len(shots) == style.shots


# ------------------------------------------------------------------------ the few-shot loop, likelihoods, results

def oracle(model, prompts, max_new_tokens, stop, *more):
    """In the place of `generate`: writes ' The answer is N.' with N the first number after the last 'has', and goes on
    until it is stopped."""
    numbers = [demo_tokenizer().decode(prompt).split(" has ")[-1].split()[0] for prompt in prompts]
    return [until_stopped(f" The answer is {n}.\nQuestion: Has Ben 5 pigs? The answer is 5.", stop) for n in numbers]


PROBLEMS = [{"question": f"Ava has {n} {'big ' * (n % 3)}hens. How many hens?", "answer": f"The answer is {n + n % 2}."}
            for n in range(20)]
OTHERS = [{"question": f"Ben has {n} pigs. How many pigs?", "answer": f"The answer is {n}."} for n in range(3)]


def test_main_grades_and_reports(corpus, tmp_path, monkeypatch, capsys):
    """Right on every second problem; rows, summary and interval on disk; shots are never test items."""
    cfg = corpus(PROBLEMS, OTHERS, max_new_tokens=12)
    monkeypatch.setattr(eval_math, "generate", oracle)
    eval_math.main(cfg)
    assert "10 / 20 correct = 50.0%" in capsys.readouterr().out
    rows, summary = rows_and_summary(tmp_path)
    assert [r["correct"] for r in rows] == [n % 2 == 0 for n in range(20)]
    assert rows[3]["generation"] == " The answer is 3.\nQuestion:"
    asked = {p["question"] for p in PROBLEMS}
    for row, problem in zip(rows, PROBLEMS):
        *shots, last = row["prompt"].split("\n\n")
        assert last == f"Question: {problem['question']}\nAnswer:" and len(shots) == row["shots"] == 2
        assert not any(q in shot for q in asked for shot in shots)
    assert summary["correct"] == 10 and summary["tokens"] == 70
    assert summary["low"] < 0.5 < summary["high"]

    # What is there is not answered again, but graded anew; with another setting it is another evaluation.
    write_jsonl(tmp_path / "eval" / summary["rows"], [row | {"correct": None, "prediction": "?"} for row in rows])
    write_jsonl(tmp_path / "eval/summary.jsonl", [summary | {"correct": 0}])
    monkeypatch.setattr(eval_math, "generate", None)
    eval_math.main(cfg)
    assert rows_and_summary(tmp_path) == (rows, summary)
    with pytest.raises(TypeError):
        eval_math.main(dataclasses.replace(cfg, shots=1))


def test_an_interrupted_task_begins_again_and_those_before_it_are_found(corpus, tmp_path, monkeypatch):
    """Stopped in the last of two batches of the second task; the same command comes to the files of an evaluation that
    was not interrupted."""
    write_jsonl(tmp_path / "svamp.jsonl", [ROWS["svamp"][0]] * 3)
    cfg = corpus(PROBLEMS[:3], task=["demo", "svamp"], data_dir=str(tmp_path), shots=0, samples=2, likelihood=True,
                 batch_size=2, max_new_tokens=6)
    calls, answer_batch = [], eval_math.answer_batch

    def counted(model, enc, rows, prompts, cfg):
        calls.append(cfg.task[0])
        if len(calls) == 4:
            raise KeyboardInterrupt
        answer_batch(model, enc, rows, prompts, cfg)
    monkeypatch.setattr(eval_math, "answer_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        eval_math.main(cfg)
    eval_math.main(cfg)
    assert calls == ["demo", "demo", "svamp", "svamp", "svamp", "svamp"]
    eval_math.main(dataclasses.replace(cfg, out=str(tmp_path / "whole")))
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("eval", "whole")]
    assert files[0] == files[1] and len(files[0]) == 3


def test_too_little_memory_is_said_in_a_line(corpus, monkeypatch):
    def generate(*arguments):
        raise torch.OutOfMemoryError
    monkeypatch.setattr(eval_math, "generate", generate)
    with pytest.raises(BadInput, match="64 problems at once do not fit.*--batch_size"):
        eval_math.main(corpus(PROBLEMS, shots=0))


def test_continuation_losses_equal_the_whole_model():
    """With and without a shared prefix, of different lengths, against one uncached forward pass for each."""
    enc = demo_tokenizer()
    model = make_model(enc)
    g = torch.Generator().manual_seed(0)

    def draw(*lengths):
        return [torch.randint(enc.n_vocab, (n,), generator=g).tolist() for n in lengths]
    shared = draw(20)[0]
    for prompts, continuations in [([shared + p for p in draw(3, 9, 1)], draw(4, 1, 7)),
                                   (draw(3, 9, 1), draw(4, 1, 7)), ([shared] * 3, draw(1, 2, 3))]:
        for p, c, losses in zip(prompts, continuations, continuation_losses(model, prompts, continuations)):
            logits = model.logits(model(torch.tensor([p + c])))[0]
            expected = [-torch.log_softmax(logits[len(p) + i - 1], 0)[t] for i, t in enumerate(c)]
            torch.testing.assert_close(losses, torch.stack(expected))


def test_choice_by_likelihood():
    """The option with the lowest loss per byte after the bare question."""
    enc = demo_tokenizer()
    model = make_model(enc)
    options = ["7 pigs and 2 hens", "5", "no hens at all"]
    rows = [{"index": 0, **tasks.choice("How many hens?", options, "B")}]
    cfg = eval_math.Config(max_new_tokens=2, likelihood=True, task=["sat_math"])
    eval_math.answer_batch(model, enc, rows, [enc.encode_ordinary(rows[0]["question"])], cfg)
    bare, per_byte = enc.encode_ordinary("Question: How many hens?\nAnswer:"), []
    for option in options:
        [losses] = continuation_losses(model, [bare], [enc.encode_ordinary(" " + option)])
        per_byte.append(losses.sum().item() / len(option))
    assert rows[0]["likeliest"] == "ABC"[per_byte.index(min(per_byte))]
    assert rows[0]["solution_tokens"] == len(enc.encode_ordinary(" The answer is (B)."))


def test_wilson_interval():
    """Against its definition: the proportions p for which |observed - p| is 1.96 standard errors of p."""
    for correct, total in ((0, 10), (3, 10), (450, 500), (10, 10)):
        low, high = wilson(correct, total)
        assert 0 <= low <= correct / total <= high <= 1
        for p in (low, high):
            if 0 < p < 1:
                error = math.sqrt(p * (1 - p) / total)
                assert abs(correct / total - p) == pytest.approx(1.96 * error, abs=1e-9)


def test_majority_and_pass_at_k():
    assert majority(["5", "1/2", "", "0.5", "7", "", ""]) == "1/2" and majority(["", ""]) == ""
    for total, correct, k in [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 1), (6, 3, 6)]:
        draws = list(itertools.combinations([i < correct for i in range(total)], k))
        assert pass_at_k(correct, total, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_samples_and_likelihood_are_reported(corpus, tmp_path, monkeypatch, capsys):
    """Through main: samples of the right number, the vote and pass@k of their rows, the loss over all solutions."""
    monkeypatch.setattr(results, "is_equal", lambda a, b: len(a) % 2 == 0)  # some right, some wrong
    eval_math.main(corpus(PROBLEMS[:1] * 6, shots=0, samples=3, likelihood=True, batch_size=3, max_new_tokens=8))
    rows, s = rows_and_summary(tmp_path)
    assert all(len(r["samples"]) == len(r["sample_correct"]) == 3 for r in rows)
    assert len({text for r in rows for text in r["samples"]}) == 18  # random weights: never twice the same
    right = [sum(r["sample_correct"]) for r in rows]
    assert s["pass_at_k"] == {str(k): pytest.approx(sum(pass_at_k(c, 3, k) for c in right) / 6) for k in (1, 2)}
    assert s["majority"] == pytest.approx(sum(r["majority_correct"] for r in rows) / 6)
    tokens = [r["solution_tokens"] for r in rows]
    assert s["solution_loss"] == pytest.approx(sum(r["solution_loss"] * n for r, n in zip(rows, tokens)) / sum(tokens))
    assert re.search("majority vote.*pass@2.*\n.*loss of the right solutions", capsys.readouterr().out)


@pytest.mark.parametrize("task, rows, correct", [
    ("gsm8k", [("The answer is 1,005.\n\nQuestion: The answer is 3.", "#### 1005"), ("no", "7"), ("#### 5", 5),
               ("<think>\nQuestion: 3?\n</think>It is 7.", "<think>\\boxed{3}</think>It is 7.\n#### 7")], [1, 0, 1, 1]),
    ("math", [("so \\boxed{\\frac12}", "It is $\\boxed{0.5}$."), ("$(1,2)$", "(1,2]")], [1, 0]),
    ("mmlu_stem", [("The answer is (B).", 1), ("The answer is (B).", "b"), ("C", 1)], [1, 1, 0]),
])
def test_grading_a_file_of_generations(task, rows, correct, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"id": i, "generation": text, "answer": gold, "correct": None} for i, (text, gold)
                       in enumerate(rows)])
    eval_math.main(eval_math.Config(grade=str(path), task=[task]))
    graded = read_jsonl(path)
    assert [r["correct"] for r in graded] == [bool(c) for c in correct]
    assert [(r["id"], r["generation"], r["answer"]) for r in graded] == [(i, *row) for i, row in enumerate(rows)]
    assert graded[0]["prediction"] and f"{sum(correct)} / {len(rows)} correct = " in capsys.readouterr().out
