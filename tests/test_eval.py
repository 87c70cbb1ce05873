"""Prompts, extraction, grading and the few-shot loop; figures' arithmetic."""
import json
import math

import pytest
import torch

import eval_math
import plot
from data import demo_tokenizer, save_tokenizer, tokenizer_hash
from eval_math import fit_prompt, wilson
from model import GPT, GPTConfig


def test_wilson_interval():
    """Against its definition: the proportions p for which |observed - p| is 1.96 standard errors of p."""
    for correct, total in ((0, 10), (3, 10), (450, 500), (10, 10)):
        low, high = wilson(correct, total)
        assert 0 <= low <= correct / total <= high <= 1
        for p in (low, high):
            if 0 < p < 1:
                assert abs(correct / total - p) == pytest.approx(1.96 * math.sqrt(p * (1 - p) / total), abs=1e-9)


def test_prompt_form_and_dropping_of_shots():
    shots = ["Question: Ava has 2 hens?\nAnswer: 2. The answer is 2.", "Question: " + "Long " * 30 + "\nAnswer: 1"]
    enc = demo_tokenizer()
    question = "Question: How many?\nAnswer:"
    prompt, ids, n = fit_prompt(question, shots, "<|endoftext|>", enc, 40)
    assert n == 1 and prompt == (
        "Question: Ava has 2 hens?\nAnswer: 2. The answer is 2.<|endoftext|>Question: How many?\nAnswer:")
    assert ids.count(enc.eot_token) == 1 and enc.decode(ids) == prompt
    assert fit_prompt(question, shots, "\n\n", enc, 10)[2] == 0 and fit_prompt(question, shots, "", enc, 3) == ("", [], 0)
    # with another separator, what a question says about <|endoftext|> is text
    assert enc.eot_token not in fit_prompt("<|endoftext|>", [], "\n\n", enc, 40)[1]


class Oracle(GPT):
    """A 'model' that writes ' The answer is N.' with N the first number after the last 'has'."""

    def generate(self, prompts, max_new_tokens, stop=None, temperature=0.0, generator=None):
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
    problems = [{"question": f"Ava has {n} hens. How many hens?", "answer": f"The answer is {n + n % 2}."} for n in range(20)]
    others = [{"question": f"Ben has {n} pigs. How many pigs?", "answer": f"The answer is {n}."} for n in range(3)]
    write_jsonl(tmp_path / "eval.jsonl", problems)
    write_jsonl(tmp_path / "curated.jsonl", problems + others)
    config = dict(block_size=96, vocab_size=enc.n_vocab, n_layer=1, n_head=1, n_embd=8)
    torch.save({"model": GPT(GPTConfig(**config)).state_dict(), "model_config": config, "step": 7, "tokens": 70,
                "tokenizer_sha256": tokenizer_hash(enc)}, tmp_path / "ckpt.pt")
    monkeypatch.setattr(eval_math, "GPT", Oracle)
    cfg = eval_math.Config(ckpt=[str(tmp_path / "ckpt.pt")], data=str(tmp_path), device="cpu", max_new_tokens=12)
    eval_math.main(cfg)
    assert "10 / 20 correct = 50.0%" in capsys.readouterr().out
    summary = [json.loads(line) for line in open(tmp_path / "eval" / "summary.jsonl")]
    rows = [json.loads(line) for line in open(tmp_path / "eval" / summary[0]["rows"])]
    assert [r["correct"] for r in rows] == [n % 2 == 0 for n in range(20)]
    assert rows[3]["prediction"] == "3" and rows[3]["answer"] == "4" and rows[3]["generation"] == " The answer is 3."
    asked = {p["question"] for p in problems}
    for row, problem in zip(rows, problems):
        *shots, last = row["prompt"].split("<|endoftext|>")
        assert last == f"Question: {problem['question']}\nAnswer:" and len(shots) == row["shots"] == 2
        assert not any(q in shot for q in asked for shot in shots)
    assert summary[0]["correct"] == 10 and summary[0]["tokens"] == 70 and summary[0]["low"] < 0.5 < summary[0]["high"]
    eval_math.main(cfg)  # what is there is not done again
    assert len(open(tmp_path / "eval" / "summary.jsonl").readlines()) == 1


def test_generation_equals_the_uncached_model_on_real_prompts(demo, tmp_path):
    """The few-shot loop with a real (random) model: the same text as re-running the whole context for every token."""
    torch.manual_seed(1)
    enc = demo_tokenizer()
    model = GPT(GPTConfig(block_size=192, vocab_size=enc.n_vocab, n_layer=1, n_head=2, n_embd=16)).double().eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    problems = eval_math.load_problems("demo", f"{demo}/eval.jsonl")[:5]
    shots = eval_math.draw_shots(problems, eval_math.load_problems("demo", f"{demo}/curated.jsonl"), 2, seed=0)
    cfg = eval_math.Config(ckpt=["x"], max_new_tokens=10, batch_size=2, separator="<|endoftext|>")
    rows = eval_math.evaluate(model, enc, problems, shots, "demo", cfg, eval_math.Ranks("cpu"), str(tmp_path / "rows.jsonl"))
    assert rows == [json.loads(line) for line in open(tmp_path / "rows.jsonl")]
    for row in rows:
        ids, new = enc.encode(row["prompt"], allowed_special="all"), []
        while len(new) < 10 and (not new or new[-1] != enc.eot_token):
            new.append(model.logits(model(torch.tensor([ids + new])))[0, -1].argmax().item())
        assert row["generation"] == enc.decode([t for t in new if t != enc.eot_token])


@pytest.mark.parametrize("values, goal, higher, expected", [
    ([4, 3, 2, 1], 2.5, False, 15.0),    # half way between the second and the third point
    ([4, 2, 3, 1], 2.5, False, 22.5),    # a dip that does not last does not count
    ([4, 3, 2, 1], 5, False, 0.0),       # ahead from the start
    ([4, 3, 2, 1], 0.5, False, None),    # never
    ([0.1, 0.2, 0.5, 0.4], 0.35, True, 15.0),
])
def test_tokens_to_reach(values, goal, higher, expected):
    assert plot.tokens_to_reach([0, 10, 20, 30], values, goal, higher) == expected


def test_interval_is_students():
    i = plot.interval([1.0, 2.0, 3.0, 4.0, 5.0, None])
    assert i["mean"] == 3.0 and i["n"] == 5 and i["high"] - 3 == pytest.approx(2.776 * math.sqrt(2.5 / 5))
    assert plot.interval([]) is None and plot.interval([2.0]) == {"mean": 2.0, "low": None, "high": None, "n": 1}
    ratios = plot.interval([1.0, 4.0], ratios=True)
    assert ratios["mean"] == pytest.approx(2.0) and ratios["low"] * ratios["high"] == pytest.approx(4.0) and ratios["low"] > 0
