"""
Step 4: few-shot accuracy on math problems: prompts, generation, answer extraction, grading.

    python eval_math.py --ckpt out/slm/ckpt.pt --data data/demo                        # the built-in problems
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --problems test.jsonl --shots_from train.jsonl
    python eval_math.py --ckpt out/slm/step_*.pt --data data/demo --out out/slm/eval   # a curve over training

Problems are .jsonl rows with `question` and `answer`; the last number of `answer` is the right one (or what follows
its `####`, as in GSM8K). The shots are worked problems of the curated side, never of the test file; each problem
gets its own draw, the same for every checkpoint. Shots are dropped until prompt and answer fit the model's context.

Prints correct / total and the 95% interval (Wilson's). For each checkpoint OUT/NAME.jsonl gets a row per problem
(prompt, generation, extracted answer, right answer, correct), and OUT/summary.jsonl a row per checkpoint; what is
there already is not done again. For other settings of the same checkpoint choose another --out.
"""
import json
import math
import os
import random
import re
from dataclasses import dataclass, field
from fractions import Fraction

import torch

from common import (BadInput, Progress, Ranks, file_hash, load_checkpoint, load_weights, read_jsonl, replacing, run)
from data import END_OF_TEXT, load_tokenizer, tokenizer_hash
from model import GPT, GPTConfig


@dataclass
class Config:
    ckpt: list[str] = field(default_factory=list)   # checkpoints to evaluate
    data: str = "data/demo"         # corpus folder, for its tokenizer (and its problems and shots, unless given)
    problems: str = ""              # .jsonl of test problems (default: DATA/eval.jsonl)
    shots_from: str = ""            # .jsonl of worked problems for the prompt (default: DATA/curated.jsonl)
    shots: int = 2                  # worked problems before each question
    separator: str = "<|endoftext|>"  # between the problems of a prompt: as in training, or a blank line "\n\n"
    n: int = 0                      # evaluate the first n problems (0: all)
    max_new_tokens: int = 40        # longest answer, in tokens
    temperature: float = 0.0        # 0: the most likely token; above: sample
    batch_size: int = 256           # problems generated together
    seed: int = 0                   # of the draw of shots, and of sampling
    out: str = ""                   # folder for the results (default: `eval` beside the checkpoint)
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not self.ckpt:
            yield "--ckpt names the checkpoints to evaluate"
        if self.shots < 0 or self.max_new_tokens < 1 or self.batch_size < 1 or self.temperature < 0 or self.n < 0:
            yield "shots, n and temperature must not be negative, max_new_tokens and batch_size at least 1"


# ----------------------------------------------------------------------------------------------------- prompts

def load_problems(path):
    """[{"question", "answer"}, ...] of a .jsonl file. Raises BadInput."""
    try:
        with open(path, encoding="utf-8") as f:
            problems = []
            for number, line in enumerate(f, 1):
                if line.strip():
                    row = json.loads(line)
                    problems.append({"question": str(row["question"]), "answer": str(row["answer"])})
    except OSError as e:
        raise BadInput(f"cannot read the problems {path}: {e.strerror}")
    except UnicodeDecodeError as e:
        raise BadInput(f"{path} is not UTF-8 text ({e.reason}); convert it first, with iconv for instance")
    except (KeyError, TypeError, ValueError) as e:
        raise BadInput(f"{path}, line {number}, is not an object with question and answer: {e!r}")
    if not problems:
        raise BadInput(f"{path} holds no problems")
    return problems


def make_prompt(question, shots, separator):
    """The few-shot prompt, as text. shots: worked problems, each with question and answer."""
    worked = [f"Question: {s['question']}\nAnswer: {s['answer']}{separator}" for s in shots]
    return "".join(worked) + f"Question: {question}\nAnswer:"


def fit_prompt(question, shots, separator, enc, room):
    """(prompt, its token ids, shots used): with the most shots that fit into `room` tokens, or ("", [], 0)."""
    for n in range(len(shots), -1, -1):
        prompt = make_prompt(question, shots[:n], separator)
        ids = enc.encode(prompt, allowed_special={END_OF_TEXT})
        if len(ids) <= room:
            return prompt, ids, n
    return "", [], 0


# ----------------------------------------------------------------------------------------- answers and grading

NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?"


def extract_answer(text):
    """The number a solution ends in, as text without thousands separators, or "" where there is none.

    Looks for `#### N` (GSM8K), then `answer is N`, then the last number. A generation that runs on into the next
    question is cut there first.
    """
    text = text.split("\nQuestion:")[0].split(END_OF_TEXT)[0]
    found = re.findall(rf"####\s*\$?({NUMBER})", text) or re.findall(rf"answer is:?\s*\$?({NUMBER})", text)[:1]
    found = found or re.findall(NUMBER, text)
    return found[-1].replace(",", "") if found else ""


def is_equal(prediction, gold):
    """Whether two extracted answers are the same number; exact, so that 0.5 equals 1/2 and 0.50."""
    try:
        return Fraction(prediction) == Fraction(gold)
    except (ValueError, ZeroDivisionError):
        return False


def wilson(correct, total):
    """95% interval of a proportion, by Wilson's score: (low, high). Right at the edges too, where p +- 1.96 s is not."""
    if not total:
        return 0.0, 1.0
    z, p = 1.96, correct / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, centre - half), min(1.0, centre + half)


# ------------------------------------------------------------------------------------------------------- main

def evaluate(model, enc, problems, worked, cfg, ranks):
    """A row per problem: prompt, generation, prediction, answer, correct, shots."""
    tests = {p["question"] for p in problems}
    worked = [w for w in worked if w["question"] not in tests]  # never a test item
    if cfg.shots > len(worked):
        raise BadInput(f"{cfg.shots} shots wanted, but {cfg.shots_from} holds {len(worked)} problems that are no test items")
    rows, prompts = [], []
    for number, p in enumerate(problems):
        shots = random.Random(f"{cfg.seed}-{number}").sample(worked, cfg.shots)
        room = model.config.block_size - cfg.max_new_tokens
        prompt, ids, n = fit_prompt(p["question"], shots, cfg.separator, enc, room)
        rows.append({"prompt": prompt, "answer": extract_answer(p["answer"]), "shots": n})
        prompts.append(ids)

    def stop(new_tokens):
        return new_tokens[-1] == enc.eot_token or (len(new_tokens) > 2 and "\nQuestion:" in enc.decode(new_tokens[-4:]))

    generator = torch.Generator(ranks.device).manual_seed(cfg.seed)
    progress = Progress("answers", len(rows), "problems")
    # problems of similar length together: little padding
    order = sorted((i for i in range(len(rows)) if prompts[i]), key=lambda i: len(prompts[i]))
    for at in range(0, len(order), cfg.batch_size):
        some = order[at:at + cfg.batch_size]
        with ranks.autocast():
            new_tokens = model.generate([prompts[i] for i in some], cfg.max_new_tokens, stop, cfg.temperature, generator)
        for i, tokens in zip(some, new_tokens):
            rows[i]["generation"] = enc.decode([t for t in tokens if t != enc.eot_token])
        progress.show(at + len(some))
    progress.close()
    for row in rows:  # a question too long for the context counts as wrong
        row["prediction"] = extract_answer(row.setdefault("generation", ""))
        row["correct"] = is_equal(row["prediction"], row["answer"])
    return rows


def main(cfg):
    ranks = Ranks(cfg.device)
    enc = load_tokenizer(cfg.data)
    cfg.problems = cfg.problems or os.path.join(cfg.data, "eval.jsonl")
    cfg.shots_from = cfg.shots_from or os.path.join(cfg.data, "curated.jsonl")
    cfg.separator = cfg.separator.replace("\\n", "\n")  # a shell passes "\n" as two characters
    problems = load_problems(cfg.problems)[:cfg.n or None]
    worked = load_problems(cfg.shots_from) if cfg.shots else []
    about = {"problems": cfg.problems, "shots": cfg.shots, "separator": cfg.separator, "temperature": cfg.temperature,
             "max_new_tokens": cfg.max_new_tokens, "seed": cfg.seed, "total": len(problems),
             "problems_sha256": file_hash(cfg.problems), "shots_sha256": file_hash(cfg.shots_from) if cfg.shots else None}
    for path in cfg.ckpt:
        ckpt = load_checkpoint(path, ranks.device)
        name = os.path.splitext(os.path.basename(path))[0]
        out = cfg.out or os.path.join(os.path.dirname(path), "eval")
        os.makedirs(out, exist_ok=True)
        summary = os.path.join(out, "summary.jsonl")
        about |= {"ckpt": name, "ckpt_sha256": file_hash(path)}
        done = [r for r in read_jsonl(summary) if all(r.get(k) == v for k, v in about.items())]
        if not done:
            if ckpt["tokenizer_sha256"] != tokenizer_hash(enc):
                raise BadInput(f"{path} was trained with another tokenizer than that of {cfg.data}: give its own --data")
            model = GPT(GPTConfig(**ckpt["model_config"])).to(ranks.device)
            load_weights(model, ckpt["model"], path)
            if cfg.max_new_tokens >= model.config.block_size:
                raise BadInput(f"max_new_tokens {cfg.max_new_tokens} leaves no room in the context of "
                               f"{model.config.block_size} tokens")
            rows = evaluate(model, enc, problems, worked, cfg, ranks)
            correct = sum(row["correct"] for row in rows)
            low, high = wilson(correct, len(rows))
            done = [about | {"step": ckpt["step"], "tokens": ckpt["tokens"], "correct": correct,
                             "accuracy": correct / len(rows), "low": low, "high": high,
                             "mean_shots": sum(row["shots"] for row in rows) / len(rows),
                             "too_long": sum(not row["prompt"] for row in rows)}]
            with replacing(os.path.join(out, f"{name}.jsonl")) as f:
                f.writelines(json.dumps(row) + "\n" for row in rows)
            old = read_jsonl(summary)
            with replacing(summary) as f:
                f.writelines(json.dumps(r) + "\n" for r in old + done)
        r = done[-1]
        print(f"{path}: {r['correct']} / {r['total']} correct = {r['accuracy']:.1%}  (95% interval {r['low']:.1%} to "
              f"{r['high']:.1%}), {r['mean_shots']:.2f} shots on average"
              + (f", {r['too_long']} questions too long" if r["too_long"] else ""))


if __name__ == "__main__":
    run(main, Config, __doc__)
