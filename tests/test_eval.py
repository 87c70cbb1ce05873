"""Prompts, extraction, grading and the few-shot loop; figures' arithmetic."""
import dataclasses
import io
import itertools
import json
import math

import pytest
import torch

import eval_math
from corpora.tokenizers import demo_tokenizer, save_tokenizer, tokenizer_hash
from engine import savings
from engine.ranks import Ranks
from engine.report import interval
from eval_math import fit_prompt
from grading import report, tasks
from grading.grade import extract_answer, is_equal
from grading.likelihood import continuation_losses
from grading.report import majority, pass_at_k, wilson
from model import GPT, GPTConfig


def test_wilson_interval():
    """Against its definition: the proportions p for which |observed - p| is 1.96 standard errors of p."""
    for correct, total in ((0, 10), (3, 10), (450, 500), (10, 10)):
        low, high = wilson(correct, total)
        assert 0 <= low <= correct / total <= high <= 1
        for p in (low, high):
            if 0 < p < 1:
                error = math.sqrt(p * (1 - p) / total)
                assert abs(correct / total - p) == pytest.approx(1.96 * error, abs=1e-9)


def test_prompt_form_and_dropping_of_shots():
    shots = ["Question: Ava has 2 hens?\nAnswer: 2. The answer is 2.",
             "Question: " + "Long " * 30 + "\nAnswer: 1"]
    enc = demo_tokenizer()
    question = "Question: How many?\nAnswer:"
    prompt, ids, n = fit_prompt(question, shots, "<|endoftext|>", enc, 40)
    assert n == 1 and prompt == (
        "Question: Ava has 2 hens?\nAnswer: 2. The answer is 2.<|endoftext|>Question: How many?\nAnswer:")
    assert ids.count(enc.eot_token) == 1 and enc.decode(ids) == prompt
    assert fit_prompt(question, shots, "\n\n", enc, 10)[2] == 0
    assert fit_prompt(question, shots, "", enc, 3) == ("", [], 0)
    # with another separator, what a question says about <|endoftext|> is text
    assert enc.eot_token not in fit_prompt("<|endoftext|>", [], "\n\n", enc, 40)[1]


def oracle(model, prompts, max_new_tokens, stop=None, temperature=0.0, generator=None):
    """In the place of `generate`: writes ' The answer is N.' with N the first number after the last 'has'."""
    enc = demo_tokenizer()
    out = []
    for p in prompts:
        number = enc.decode(p).split(" has ")[-1].split()[0]
        tokens, new = enc.encode_ordinary(f" The answer is {number}.") + [enc.eot_token], []
        for t in tokens[:max_new_tokens]:
            new.append(t)
            if stop(new):
                break
        out.append(new)
    return out


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_main_grades_and_reports(tmp_path, monkeypatch, capsys):
    """Right on every second problem; rows, summary and interval on disk; shots are never test items."""
    enc = demo_tokenizer()
    save_tokenizer(enc, tmp_path)
    problems = [{"question": f"Ava has {n} hens. How many hens?", "answer": f"The answer is {n + n % 2}."}
                for n in range(20)]
    others = [{"question": f"Ben has {n} pigs. How many pigs?", "answer": f"The answer is {n}."}
              for n in range(3)]
    write_jsonl(tmp_path / "eval.jsonl", problems)
    write_jsonl(tmp_path / "curated.jsonl", problems + others)
    config = dict(block_size=96, vocab_size=enc.n_vocab, n_layer=1, n_head=1, n_embd=8)
    torch.save({"model": GPT(GPTConfig(**config)).state_dict(), "model_config": config, "step": 7,
                "tokens": 70, "tokenizer_sha256": tokenizer_hash(enc)}, tmp_path / "ckpt.pt")
    monkeypatch.setattr(eval_math, "generate", oracle)
    cfg = eval_math.Config(ckpt=[str(tmp_path / "ckpt.pt")], data=str(tmp_path), device="cpu",
                           max_new_tokens=12)
    eval_math.main(cfg)
    assert "10 / 20 correct = 50.0%" in capsys.readouterr().out
    summary = [json.loads(line) for line in open(tmp_path / "eval" / "summary.jsonl")]
    rows = [json.loads(line) for line in open(tmp_path / "eval" / summary[0]["rows"])]
    assert [r["correct"] for r in rows] == [n % 2 == 0 for n in range(20)]
    assert rows[3]["prediction"] == "3" and rows[3]["answer"] == "4"
    assert rows[3]["generation"] == " The answer is 3."
    asked = {p["question"] for p in problems}
    for row, problem in zip(rows, problems):
        *shots, last = row["prompt"].split("<|endoftext|>")
        assert last == f"Question: {problem['question']}\nAnswer:" and len(shots) == row["shots"] == 2
        assert not any(q in shot for q in asked for shot in shots)
    assert summary[0]["correct"] == 10 and summary[0]["tokens"] == 70
    assert summary[0]["low"] < 0.5 < summary[0]["high"]
    monkeypatch.setattr(eval_math, "generate", None)
    eval_math.main(cfg)  # what is there is not generated again
    assert len(open(tmp_path / "eval" / "summary.jsonl").readlines()) == 1


def test_generation_goes_on_where_a_thought_names_a_question(monkeypatch):
    """A stop text inside <think> stops nothing; one behind it, or without a thought, does."""
    enc = demo_tokenizer()

    def written(text):
        def says(model, prompts, max_new_tokens, stop, temperature, generator):
            tokens = enc.encode_ordinary(text)
            ends = (n for n in range(1, len(tokens)) if stop(tokens[:n]))
            return [tokens[:next(ends, len(tokens))]]
        monkeypatch.setattr(eval_math, "generate", says)
        [row] = rows = [{"index": 0}]
        eval_math.answer_batch(make_model(enc), enc, rows, [[0]], eval_math.Config(task=["gsm8k"]))
        return row["generation"]
    for start, end in [("<think>\nQuestion: 2 + 3?\n</think> The answer is 5.", "\nQuestion:"),
                       ("<think>5</think> The answer is 5.", "\nQuestion:"),
                       ("The answer is 5.", "\nQuestion:"),
                       ("<think>\nQuestion: 2 + 3?", " And so on.")]:
        assert written(start + end + (" Who has 9?" if "Q" in end else "")) == start + end


def test_generation_equals_the_uncached_model_on_real_prompts(demo, tmp_path):
    """The few-shot loop with a real (random) model: the same text as re-running the whole context for every
    token."""
    enc = demo_tokenizer()
    model = make_model(enc)
    problems = tasks.load_problems("demo", f"{demo}/eval.jsonl")[:5]
    shots = eval_math.draw_shots(problems, tasks.load_problems("demo", f"{demo}/curated.jsonl"), 2, seed=0)
    cfg = eval_math.Config(ckpt=["x"], max_new_tokens=10, batch_size=2, separator="<|endoftext|>",
                           task=["demo"])
    rows = eval_math.evaluate(model, enc, problems, shots, cfg, Ranks("cpu"), str(tmp_path / "rows.jsonl"))
    assert rows == [json.loads(line) for line in open(tmp_path / "rows.jsonl")]
    for row in rows:
        ids, new = enc.encode(row["prompt"], allowed_special="all"), []
        while len(new) < 10 and (not new or new[-1] != enc.eot_token):
            new.append(model.logits(model(torch.tensor([ids + new])))[0, -1].argmax().item())
        assert row["generation"] == enc.decode([t for t in new if t != enc.eot_token])


# One row of each test file as it is published (texts of our own), and what must become of it.
ROWS = {
    "gsm8k": ({"question": "Ava has 2 hens and buys 3. How many?",
               "answer": "She has 2+3=<<2+3=5>>5.\n#### 1,005"},
              "Question: Ava has 2 hens and buys 3. How many?\nAnswer:", "1005",
              " She has 2+3=5. The answer is 1005."),
    "math": ({"problem": "Find $x$.", "solution": "So $x=\\boxed{\\frac{1}{2}}$.", "level": "Level 1"},
             "Problem: Find $x$.\nSolution:", "\\frac{1}{2}",
             " So $x=\\boxed{\\frac{1}{2}}$.\n"
             "Final Answer: The final answer is $\\frac{1}{2}$. I hope it is correct."),
    "math_oai": ({"problem": "Find $x$.", "solution": "...", "answer": "7"},
                 "Problem: Find $x$.\nSolution:", "7",
                 " ...\nFinal Answer: The final answer is $7$. I hope it is correct."),
    "svamp": ({"Body": "Ben has 3 pigs", "Question": "How many legs?", "Answer": 12.0,
               "Equation": "( 3 * 4 )"},
              "Question: Ben has 3 pigs. How many legs?\nAnswer:", "12", " The answer is 12."),
    "asdiv": ({"body": "Ben has 3 pigs.", "question": "How many legs?", "answer": "12 (legs)"},
              "Question: Ben has 3 pigs. How many legs?\nAnswer:", "12", " The answer is 12."),
    "mawps": ({"input": "What is a quarter ?", "target": 0.25},
              "Question: What is a quarter ?\nAnswer:", "0.25", " The answer is 0.25."),
    "tabmwp": ({"question": "Is there a shortage?", "choices": ["yes", "no"], "answer": "no", "unit": None,
                "table_title": "Hats", "table": "Price | Sold\n$3 | 7"},
               "Table: Hats\nPrice | Sold\n$3 | 7\nQuestion: Is there a shortage? (yes or no)\nAnswer:", "no",
               " The answer is no."),
    "mathqa": ({"problem": "what is 2 + 3 ?",
                "options": "a ) a ) 4 m , b ) b ) 5 m , c ) c ) 6 , d ) d ) 7 , e ) e ) none",
                "correct": "b", "rationale": "\"it is 5 . answer : b\""},
               "Question: what is 2 + 3 ?\nOptions: (A) 4 m (B) 5 m (C) 6 (D) 7 (E) none\nAnswer:", "B",
               " it is 5 . answer : b The answer is (B)."),
    "mmlu_stem": ({"question": "What boils at 100 C?", "choices": ["gold", "ice", "lava", "water"],
                   "answer": 3},
                  "Question: What boils at 100 C?\nOptions: (A) gold (B) ice (C) lava (D) water\nAnswer:",
                  "D", " The answer is (D)."),
    "sat_math": ({"question": "Find $x$.",
                  "options": "A) $f(-6)=0$ B) $(3, 4 b)$ C) -10 and 10 D) 2", "Answer": "C"},
                 "Question: Find $x$.\nOptions: (A) $f(-6)=0$ (B) $(3, 4 b)$ (C) -10 and 10 (D) 2\nAnswer:",
                 "C", " The answer is (C)."),
}


@pytest.mark.parametrize("task", ROWS)
def test_rows_of_the_public_test_files(task, tmp_path, capsys):
    row, question, answer, solution = ROWS[task]
    write_jsonl(tmp_path / f"{task}.jsonl", [row])
    [p] = tasks.load_task(task, str(tmp_path))
    assert (p["question"], p["answer"], p["solution"]) == (question, answer, solution)
    assert len(p["options"]) == {"mathqa": 5, "mmlu_stem": 4, "sat_math": 4}.get(task, 0)
    assert f"is not the published test set of {task} (1 problems" in capsys.readouterr().err
    # the right solution is graded right
    assert is_equal(extract_answer(p["solution"], task), p["answer"])
    assert set(ROWS) == set(tasks.TASKS) - {"demo"}


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
    """As many as are used, each in the form of the task, with one answer that the grader finds."""
    style = tasks.TASKS[task].style
    shots = tasks.demonstrations(style)
    assert len(shots) == style.shots
    answers = []
    for shot in shots:
        ending = "\nSolution: " if task == "math" else "\nAnswer: "
        assert shot.startswith({"math": "Problem: ", "tabmwp": "Table: "}.get(task, "Question: "))
        assert shot.count(ending) == 1
        assert not any(stop in shot.split(ending)[1] for stop in style.stop if stop[0] == "\n")
        answers.append(extract_answer(shot.split(ending)[1], task))
    assert all(answers) and len(set(answers)) == len(answers)


def make_model(enc, **config):
    torch.manual_seed(1)
    tiny = {"block_size": 192, "vocab_size": enc.n_vocab, "n_layer": 1, "n_head": 2, "n_embd": 16}
    model = GPT(GPTConfig(**tiny | config))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.double().eval()


def test_interrupted_evaluation_goes_on(demo, tmp_path, monkeypatch):
    """Stopped after its first batch, with a torn last line: the second call does the rest, and the rows are
    the same."""
    enc = demo_tokenizer()
    model = make_model(enc)
    problems = tasks.load_problems("demo", f"{demo}/eval.jsonl")[:5]
    shots = eval_math.draw_shots(problems, tasks.load_problems("demo", f"{demo}/curated.jsonl"), 1, seed=0)
    cfg = eval_math.Config(ckpt=["x"], max_new_tokens=6, batch_size=2, separator="<|endoftext|>", samples=2,
                           likelihood=True, task=["demo"])

    def evaluate(path):
        return eval_math.evaluate(model, enc, problems, shots, cfg, Ranks("cpu"), str(tmp_path / path))
    whole = evaluate("whole.jsonl")
    calls, answer_batch = [], eval_math.answer_batch

    def counted(model, enc, rows, *rest):
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt
        answer_batch(model, enc, rows, *rest)
    monkeypatch.setattr(eval_math, "answer_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate("torn.jsonl")
    with open(tmp_path / "torn.jsonl", "a") as f:
        f.write('{"index": 1, "generat')
    assert evaluate("torn.jsonl") == whole and calls == [2, 2, 2, 1]
    assert (tmp_path / "torn.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_answers_of_several_processes_are_joined_by_one(demo, tmp_path, monkeypatch):
    """What interrupted processes left in files of their own, one of them torn, is not lost nor done again."""
    enc = demo_tokenizer()
    model = make_model(enc)
    problems = tasks.load_problems("demo", f"{demo}/eval.jsonl")[:5]
    cfg = eval_math.Config(ckpt=["x"], max_new_tokens=6, batch_size=2, separator="\n\n", shots=0,
                           task=["demo"])

    def evaluate(path):
        return eval_math.evaluate(model, enc, problems, [[]] * 5, cfg, Ranks("cpu"), str(tmp_path / path))
    whole = evaluate("whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl.rank0").write_text("\n" + lines[0])
    (tmp_path / "cut.jsonl.rank1").write_text("\n" + lines[3] + lines[2][:30])
    asked, answer_batch = [], eval_math.answer_batch

    def noted(model, enc, rows, *rest):
        asked.extend(row["index"] for row in rows)
        answer_batch(model, enc, rows, *rest)
    monkeypatch.setattr(eval_math, "answer_batch", noted)
    assert evaluate("cut.jsonl") == whole and sorted(asked) == [1, 2, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.jsonl", "whole.jsonl"]


def test_batch_size_fits_the_memory(monkeypatch):
    """Keys and values of both blocks for the tokens that a row does not share, in a third of what is free."""
    model = GPT(GPTConfig(block_size=512, vocab_size=100, n_layer=2, n_head=2, n_embd=16))
    prompts = [[7] * 10 + [i] * 20 for i in range(3)]
    row_bytes = (20 + 30) * 2 * 2 * 16 * 4 + 2 * 100 * 4
    monkeypatch.setattr(eval_math, "free_host_memory", lambda: 3 * 7 * row_bytes)
    assert eval_math.free_batch_size(model, prompts, 30) == 7
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the cache is half as large
        assert eval_math.free_batch_size(model, prompts, 30) == 13
    monkeypatch.setattr(eval_math, "free_host_memory", lambda: 2**40)
    assert eval_math.free_batch_size(model, prompts, 30) == 256
    assert eval_math.free_batch_size(model, [], 30) == 1


def test_memory_that_only_caches_files_is_free(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  8000 kB\nMemFree:  100 kB\nMemAvailable:  5000 kB\n")
    assert eval_math.free_host_memory(tmp_path / "meminfo") == 5000 * 1024
    (tmp_path / "meminfo").write_text("MemTotal:  8000 kB\n")
    for path in ("meminfo", "none"):
        assert eval_math.free_host_memory(tmp_path / path) == 4 * 2**30


def test_continuation_losses_equal_the_whole_model(demo):
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


def test_choice_by_likelihood(tmp_path):
    """The option with the lowest loss per byte after the bare question, from the model without a cache."""
    enc = demo_tokenizer()
    model = make_model(enc)
    options = ["7 pigs and 2 hens", "5", "no hens at all"]
    rows = [{"index": 0, **tasks.choice("How many hens?", options, "B")}]
    prompt = enc.encode_ordinary(rows[0]["question"])
    cfg = eval_math.Config(max_new_tokens=2, likelihood=True, task=["sat_math"])
    eval_math.answer_batch(model, enc, rows, [prompt], cfg)
    bare, per_byte = enc.encode_ordinary("Question: How many hens?\nAnswer:"), []
    for option in rows[0]["options"]:
        ids = enc.encode_ordinary(" " + option)
        losses = torch.log_softmax(model.logits(model(torch.tensor([bare + ids])))[0], -1)[len(bare) - 1:-1]
        per_byte.append(-losses[range(len(ids)), ids].sum().item() / len(option))
    assert rows[0]["likeliest"] == "ABC"[per_byte.index(min(per_byte))]
    assert rows[0]["solution_tokens"] == len(enc.encode_ordinary(" The answer is (B)."))


def test_majority_and_pass_at_k():
    assert majority(["5", "1/2", "", "0.5", "7", "", ""]) == "1/2" and majority(["", ""]) == ""
    for total, correct, k in [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 1), (6, 3, 6)]:
        draws = list(itertools.combinations([i < correct for i in range(total)], k))
        assert pass_at_k(correct, total, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_samples_and_likelihood_are_reported(tmp_path, monkeypatch, capsys):
    """Through main: samples of the right number, the vote and pass@k of their rows, and the loss over all
    solutions."""
    enc = demo_tokenizer()
    save_tokenizer(enc, tmp_path)
    model = make_model(enc).float()
    write_jsonl(tmp_path / "eval.jsonl", [{"question": f"Ava has {n} hens?", "answer": f"It is {n}."}
                                          for n in range(6)])
    names = ("block_size", "vocab_size", "n_layer", "n_head", "n_embd")
    config = {name: getattr(model.config, name) for name in names}
    torch.save({"model": model.state_dict(), "model_config": config, "step": 7, "tokens": 70,
                "tokenizer_sha256": tokenizer_hash(enc)}, tmp_path / "ckpt.pt")
    monkeypatch.setattr(report, "is_equal", lambda a, b: len(a) % 2 == 0)  # some right, some wrong
    eval_math.main(eval_math.Config(ckpt=[str(tmp_path / "ckpt.pt")], data=str(tmp_path), device="cpu",
                                    shots=0, samples=3, likelihood=True, batch_size=4, max_new_tokens=8))
    [s] = [json.loads(line) for line in open(tmp_path / "eval" / "summary.jsonl")]
    rows = [json.loads(line) for line in open(tmp_path / "eval" / s["rows"])]
    assert all(len(r["samples"]) == len(r["sample_correct"]) == 3 for r in rows)
    assert all(len(set(r["samples"])) == 3 for r in rows)  # random weights: never twice the same
    right = [sum(r["sample_correct"]) for r in rows]
    assert s["pass_at_k"] == {"1": pytest.approx(sum(right) / 18), "2": pytest.approx(
        sum(1 - math.comb(3 - c, 2) / 3 for c in right) / 6)}
    assert s["majority"] == pytest.approx(sum(r["majority_correct"] for r in rows) / 6)
    tokens = sum(r["solution_tokens"] for r in rows)
    assert tokens == sum(len(enc.encode_ordinary(r["solution"])) for r in rows)
    total = sum(r["solution_loss"] * r["solution_tokens"] for r in rows)
    assert s["solution_loss"] == pytest.approx(total / tokens)
    out = capsys.readouterr().out
    assert "majority vote" in out and "pass@2" in out and "loss of the right solutions" in out


@pytest.mark.parametrize("task, rows, correct", [
    ("gsm8k", [("The answer is 1,005.\n\nQuestion: The answer is 3.", "#### 1005"), ("It is 7.", 7),
               ("no", "7"), ("#### 5", "5.0")], [1, 1, 0, 1]),
    ("math", [("so \\boxed{\\frac12}", "It is $\\boxed{0.5}$."), ("$(1,2)$", "(1,2]")], [1, 0]),
    ("mmlu_stem", [("The answer is (B).", 1), ("The answer is (B).", "b"), ("C", 1)], [1, 1, 0]),
    ("gsm8k", [("<think>\nQuestion: 3?\n</think>It is 7.", "<think>\\boxed{3}</think>It is 7.\n#### 7"),
               ("The answer is 2 dozen.", "24")], [1, 1]),
])
def test_grading_a_file_of_generations(task, rows, correct, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"id": i, "generation": text, "answer": gold, "correct": None} for i, (text, gold)
                       in enumerate(rows)])
    eval_math.main(eval_math.Config(grade=str(path), task=[task]))
    graded = [json.loads(line) for line in open(path)]
    assert [r["correct"] for r in graded] == [bool(c) for c in correct]
    unchanged = [(r["id"], r["generation"], r["answer"]) for r in graded]
    assert unchanged == [(i, *row) for i, row in enumerate(rows)]
    assert graded[0]["prediction"] and f"{sum(correct)} / {len(rows)} correct = " in capsys.readouterr().out


@pytest.mark.parametrize("values, goal, higher, expected", [
    ([4, 3, 2, 1], 2.5, False, 15.0),    # half way between the second and the third point
    ([4, 2, 3, 1], 2.5, False, 22.5),    # a dip that does not last does not count
    ([4, 3, 2, 1], 5, False, 0.0),       # ahead from the start
    ([4, 3, 2, 1], 0.5, False, None),    # never
    ([0.1, 0.2, 0.5, 0.4], 0.35, True, 15.0),
])
def test_tokens_to_reach(values, goal, higher, expected):
    assert savings.tokens_to_reach([0, 10, 20, 30], values, goal, higher) == expected


def test_interval_is_students():
    i = interval([1.0, 2.0, 3.0, 4.0, 5.0, None])
    assert i["mean"] == 3.0 and i["n"] == 5 and i["high"] - 3 == pytest.approx(2.776 * math.sqrt(2.5 / 5))
    assert interval([]) is None and interval([2.0]) == {"mean": 2.0, "low": None, "high": None, "n": 1}
