"""
Step 4: few-shot accuracy on math problems: prompts, generation, answers, and what they are worth.

    python eval_math.py --ckpt out/slm/ckpt.pt --data data/demo                        # the built-in problems
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --task gsm8k math_oai  # downloaded once
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --task gsm8k --samples 16 --likelihood
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --problems test.jsonl --shots_from train.jsonl
    python eval_math.py --ckpt out/slm/step_*.pt --data data/demo --out out/slm/eval   # a curve over training
    python eval_math.py --grade generations.jsonl --task gsm8k                         # no model: grade what is there

Tasks: demo (the problems of the corpus folder, or your own: .jsonl rows with `question` and `answer`), gsm8k, math
(5,000 problems), math_oai (the paper's 500 of them), svamp, asdiv, mawps, tabmwp, mathqa, mmlu_stem, sat_math. The
shots of `demo` are drawn for each problem from the curated side, never from the test file; those of the others are
the demonstrations in prompts/. Shots are dropped until prompt and answer fit the model's context.

Prints correct / total and the 95% interval (Wilson's). OUT/CKPT-TASK-KEY.jsonl gets a row per problem (prompt,
generation, prediction, answer, correct) as it is done, and OUT/summary.jsonl a row per checkpoint and task. What is
there already is not done again: the same command goes on where it was interrupted. KEY stands for the settings.
"""
import hashlib
import json
import math
import os
import random
import re
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from common import (BadInput, Progress, Ranks, file_hash, load_checkpoint, load_weights, read_jsonl, replacing, run)
from data import END_OF_TEXT, load_tokenizer, tokenizer_hash
from grade import KIND, boxed, extract_answer, is_equal
from model import GPT, GPTConfig, token_losses


@dataclass
class Config:
    ckpt: list[str] = field(default_factory=list)   # checkpoints to evaluate
    task: list[str] = field(default_factory=lambda: ["demo"])  # what to evaluate on
    data: str = "data/demo"         # corpus folder, for its tokenizer (and the problems and shots of `demo`)
    data_dir: str = "data/tasks"    # folder of the public test files, TASK.jsonl; what is missing is downloaded into it
    problems: str = ""              # demo: .jsonl of test problems (default: DATA/eval.jsonl)
    shots_from: str = ""            # demo: .jsonl of worked problems for the prompt (default: DATA/curated.jsonl)
    shots: int = -1                 # worked problems before each question (-1: as usual for the task, 2 for demo)
    separator: str = ""             # between them (default: a blank line; for demo <|endoftext|>, as in training)
    n: int = 0                      # evaluate the first n problems (0: all)
    max_new_tokens: int = 0         # longest answer, in tokens (0: 40 for demo, 160 to 320 for the others)
    samples: int = 0                # also sample so many answers a problem: majority vote and pass@k
    temperature: float = 0.7        # of the samples; accuracy itself is greedy
    likelihood: bool = False        # also the loss of the right solutions, and choice by likelihood of the options
    batch_size: int = 0             # problems generated together (0: from the free memory)
    seed: int = 0                   # of the draw of shots, and of sampling
    out: str = ""                   # folder for the results (default: `eval` beside the checkpoint)
    grade: str = ""                 # .jsonl with `generation` and `answer`: write `prediction` and `correct` into it
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not self.ckpt and not self.grade:
            yield "--ckpt names the checkpoints to evaluate (or --grade a file of generations)"
        for name in self.task:
            if name not in TASKS:
                yield f"there is no task {name!r}; there are {', '.join(TASKS)}"
        if self.grade and len(self.task) != 1:
            yield "--grade takes one --task"
        if min(self.n, self.max_new_tokens, self.samples, self.batch_size) < 0 or self.shots < -1:
            yield "n, max_new_tokens, samples and batch_size must not be negative"
        if self.temperature <= 0:
            yield f"temperature must be above 0, not {self.temperature}; leave out --samples for greedy answers alone"


# ------------------------------------------------------------------------------------------------------- tasks

@dataclass
class Style:
    shots: int            # how many are usual
    max_new_tokens: int   # a right solution is rarely longer
    stop: tuple           # texts that end a generation


STYLES = {
    "demo": Style(2, 40, ("\nQuestion:",)),
    "word": Style(8, 192, ("\nQuestion:",)),
    "table": Style(4, 160, ("\nTable:", "\nQuestion:")),
    "choice": Style(4, 192, ("\nQuestion:",)),
    "math": Style(4, 320, ("I hope it is correct.", "\nProblem:")),
}


@dataclass
class Task:
    """How a row of a test file becomes a problem. How its answers are found in text is grade.KIND's."""
    style: str       # of STYLES, and prompts/STYLE.txt
    source: str      # where the test file is published
    checksum: str    # of its questions and answers as `read` returns them
    read: Callable   # row -> problem(...)


def problem(question, answer, solution, options=()):
    """question: the text that asks, up to where the model goes on. solution: the text it should go on with."""
    return {"question": question, "answer": answer, "solution": solution, "options": list(options)}


def word(question, answer, solution=""):
    return problem(f"Question: {question.strip()}\nAnswer:", answer, f" {solution} The answer is {answer}.".replace("  ", " "))


def latex(question, answer, solution):
    return problem(f"Problem: {question}\nSolution:", answer,
                   f" {solution}\nFinal Answer: The final answer is ${answer}$. I hope it is correct.")


def choice(question, options, letter, solution=""):
    listed = " ".join(f"({a}) {text}" for a, text in zip("ABCDE", options))
    return problem(f"Question: {question.strip()}\nOptions: {listed}\nAnswer:", letter,
                   f" {solution} The answer is ({letter}).".replace("  ", " "), options)


def table(r):
    unit = f" (in {r['unit']})" if r["unit"] else ""
    among = f" ({' or '.join(r['choices'])})" if r["choices"] else ""
    return problem(f"Table: {r['table_title'] or ''}\n{r['table']}\nQuestion: {r['question']}{unit}{among}\nAnswer:",
                   r["answer"], f" The answer is {r['answer']}.")


def gsm8k(r):
    solution, answer = re.sub(r"<<.*?>>", "", r["answer"]).split("####")  # without the calculator's annotations
    return word(r["question"], answer.strip().replace(",", ""), solution.strip())


def listed_options(text):
    """'a ) 12 , b ) 16' or 'A) 12 B) 16' -> ['12', '16']"""
    return [o for o in (part.strip(" ,'[]") for part in re.split(r"(?:^|(?<=[\s'\[]))[a-eA-E] ?[).]\s", text)) if o]


def decimal(x):
    """43.0 -> '43', 0.25 -> '0.25'"""
    return str(int(x)) if float(x).is_integer() else str(x)


GSM8K = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data/test.jsonl"
TABMWP = "https://raw.githubusercontent.com/lupantech/PromptPG/main/data/tabmwp/problems_test1k.json"
HARNESS = "https://raw.githubusercontent.com/ZubinGou/math-evaluation-harness/main/data/{}/test.jsonl"
TASKS = {
    "demo": Task("demo", "", "", lambda r: problem(f"Question: {r['question']}\nAnswer:",
                                                   extract_answer(str(r["answer"]), "demo"), f" {r['answer']}")),
    "gsm8k": Task("word", GSM8K, "8b9eddf9b17bc43a", gsm8k),
    "math": Task("math", HARNESS, "d5e5219155e927a3", lambda r: latex(r["problem"], boxed(r["solution"]), r["solution"])),
    "math_oai": Task("math", HARNESS, "ee02b28f43529d42", lambda r: latex(r["problem"], r["answer"], r["solution"])),
    "svamp": Task("word", HARNESS, "bfbfa6fb742657e3",
                  lambda r: word(f"{r['Body'].strip().rstrip('.')}. {r['Question']}", decimal(r["Answer"]))),
    "asdiv": Task("word", HARNESS, "2dd0c7407f2016c0",
                  lambda r: word(f"{r['body']} {r['question']}", re.sub(r"\s*\(.*?\)", "", r["answer"]))),
    "mawps": Task("word", HARNESS, "213368028b45431f", lambda r: word(r["input"], decimal(r["target"]))),
    "tabmwp": Task("table", TABMWP, "f2b8c588400ee584", table),
    "mathqa": Task("choice", HARNESS, "5774aabe464d3ac2", lambda r: choice(
        r["problem"], listed_options(r["options"]), r["correct"].upper(), r["rationale"].strip('"'))),
    "mmlu_stem": Task("choice", HARNESS, "ecbfde763d7f7162",
                      lambda r: choice(r["question"], r["choices"], "ABCD"[r["answer"]])),
    "sat_math": Task("choice", HARNESS, "b95d05c636f65ed6",
                     lambda r: choice(r["question"], listed_options(r["options"]), r["Answer"])),
}


def load_problems(name, path):
    """The problems of a .jsonl file (or .json list or object of rows) of the task `name`. Raises BadInput."""
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read()
    except OSError as e:
        raise BadInput(f"cannot read the problems {path}: {e.strerror}")
    except UnicodeDecodeError as e:
        raise BadInput(f"{path} is not UTF-8 text ({e.reason}); convert it first, with iconv for instance")
    problems, number = [], 1
    try:
        if path.endswith(".json"):
            rows = json.loads(text)
            rows = [json.dumps(r) for r in (rows.values() if isinstance(rows, dict) else rows)]
        else:
            rows = text.split("\n")
        for number, line in enumerate(rows, 1):
            if line.strip():
                problems.append(TASKS[name].read(json.loads(line)))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        what = "an object with question and answer" if name == "demo" else f"a row of {name}"
        raise BadInput(f"{path}, line {number}, is not {what}: {e!r}")
    if not problems:
        raise BadInput(f"{path} holds no problems")
    return problems


def checksum(problems):
    """Of the questions and answers in any order, so that the same test set in another format is the same."""
    return hashlib.sha256(json.dumps(sorted([p["question"], p["answer"]] for p in problems)).encode()).hexdigest()[:16]


def load_task(name, cfg):
    """(problems, path) of a task, downloaded into --data_dir if it is not there. Raises BadInput."""
    if name == "demo":
        path = cfg.problems or os.path.join(cfg.data, "eval.jsonl")
        return load_problems(name, path), path
    task = TASKS[name]
    url = task.source.format(name)
    paths = [os.path.join(cfg.data_dir, name + ending) for ending in (".jsonl", ".json")]
    path = next((p for p in paths if os.path.exists(p)), None)
    if path is None:
        path = os.path.join(cfg.data_dir, name + os.path.splitext(url)[1])
        os.makedirs(cfg.data_dir, exist_ok=True)
        print(f"downloading {url}", file=sys.stderr)
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                content = answer.read()
        except OSError as e:
            raise BadInput(f"cannot download {url} ({e}): fetch it elsewhere, and save it as {path}")
        with replacing(path, "wb") as f:
            f.write(content)
    problems = load_problems(name, path)
    if checksum(problems) != task.checksum:
        print(f"eval_math.py: {path} is not the published test set of {name} ({len(problems)} problems, checksum "
              f"{checksum(problems)} for {task.checksum}): do not compare it with others' results", file=sys.stderr)
    return problems, path


# ----------------------------------------------------------------------------------------------------- prompts

def demonstrations(style):
    """The worked problems of prompts/STYLE.txt, which blank lines separate."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "prompts", f"{style}.txt")
    with open(path, encoding="utf-8") as f:
        return f.read().strip().split("\n\n")


def draw_shots(problems, worked, n, seed):
    """For each problem n of the `worked` ones, as texts; none that is a test problem. Raises BadInput."""
    tests = {p["question"] for p in problems}
    worked = [w["question"] + w["solution"] for w in worked if w["question"] not in tests]
    if n > len(worked):
        raise BadInput(f"{n} shots wanted, but --shots_from holds {len(worked)} problems that are no test items")
    return [random.Random(f"{seed}-{number}").sample(worked, n) for number in range(len(problems))]


def fit_prompt(question, shots, separator, enc, room):
    """(prompt, its token ids, shots used): with the most shots that fit into `room` tokens, or ("", [], 0)."""
    for n in range(len(shots), -1, -1):
        prompt = "".join(shot + separator for shot in shots[:n]) + question
        ids = enc.encode(prompt, allowed_special={END_OF_TEXT} if separator == END_OF_TEXT else set(), disallowed_special=())
        if len(ids) <= room:
            return prompt, ids, n
    return "", [], 0


# ------------------------------------------------------------------------------------------------- measurements

def free_batch_size(model, prompts, new_tokens):
    """Problems whose keys and values fit into a third of the free memory, beside those of the prefix they share."""
    c, w = model.config, model.wte.weight
    if w.device.type == "cuda":
        free, most = torch.cuda.mem_get_info(w.device)[0], 1024
    else:  # a processor gains nothing from more rows
        pages = "SC_AVPHYS_PAGES" in os.sysconf_names
        free, most = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if pages else 4 * 2**30, 256
    own_tokens = max(map(len, prompts)) - len(os.path.commonprefix(prompts)) + new_tokens
    row = own_tokens * 2 * c.n_layer * c.n_embd * w.element_size() + 2 * c.vocab_size * 4
    return max(1, min(most, int(free / 3 / row)))


@torch.no_grad()
def continuation_losses(model, prompts, continuations):
    """The losses of the tokens of each continuation after its prompt: a list of 1-dimensional tensors.

    prompts, continuations: lists of lists of token ids, together at most block_size tokens each.
    """
    device = model.wte.weight.device
    rows = [p + c for p, c in zip(prompts, continuations)]
    P, shared = model.shared_prefix(prompts)
    B, T = len(rows), max(map(len, rows))
    idx = torch.tensor([r[P:] + [0] * (T - len(r)) for r in rows], device=device)  # (B, T - P)
    pos = torch.arange(P, T - 1, device=device).expand(B, T - 1 - P)
    hidden = model(idx[:, :-1], pos, model.new_cache(B, T - 1 - P, shared))        # (B, T - 1 - P, C)
    losses = []
    for row, (p, c) in enumerate(zip(prompts, continuations)):
        at = slice(len(p) - 1 - P, len(p) + len(c) - 1 - P)  # the logits at t are those of token t + 1
        losses.append(token_losses(model.logits(hidden[row, at]), idx[row, at.start + 1:at.stop + 1]).cpu())
    return losses


def majority(predictions):
    """The answer given most often; different spellings of an answer are the same. "" if there is none."""
    groups = []
    for p in filter(None, predictions):
        group = next((g for g in groups if is_equal(p, g[0])), None)
        if group:
            group.append(p)
        else:
            groups.append([p])
    return max(groups, key=len)[0] if groups else ""


def pass_at_k(correct, total, k):
    """Chance that at least one of k answers is right, drawn without replacement from `total` with `correct` right ones."""
    return 1 - math.comb(total - correct, k) / math.comb(total, k)


def wilson(correct, total):
    """95% interval of a proportion, by Wilson's score: (low, high). Right at the edges too, where p +- 1.96 s is not."""
    if not total:
        return 0.0, 1.0
    z, p = 1.96, correct / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, centre - half), min(1.0, centre + half)


# -------------------------------------------------------------------------------------------------- evaluation

def answer_batch(model, enc, rows, prompts, name, cfg, stop_texts):
    """Fill in the rows of one batch: generation, prediction, correct; samples; likelihoods."""
    def stop(new_tokens):
        return new_tokens[-1] == enc.eot_token or any(text in enc.decode(new_tokens[-8:]) for text in stop_texts)

    def generate(prompts, temperature=0.0):
        generator = torch.Generator(model.wte.weight.device).manual_seed(1_000_003 * cfg.seed + rows[0]["index"])
        tokens = model.generate(prompts, cfg.max_new_tokens, stop, temperature, generator)
        return [enc.decode([t for t in ts if t != enc.eot_token]) for ts in tokens]

    for row, text in zip(rows, generate(prompts)):
        row["generation"], row["prediction"] = text, extract_answer(text, name)
        row["correct"] = is_equal(row["prediction"], row["answer"])
    samples = [generate(prompts, cfg.temperature) for _ in range(cfg.samples)]
    for row, *texts in zip(rows, *samples):
        row["samples"], row["sample_predictions"] = texts, [extract_answer(text, name) for text in texts]
        row["sample_correct"] = [is_equal(p, row["answer"]) for p in row["sample_predictions"]]
        row["majority"] = majority(row["sample_predictions"])
    if cfg.likelihood:
        context = model.config.block_size
        solutions = [enc.encode_ordinary(row["solution"])[:context - len(p)] for row, p in zip(rows, prompts)]
        for row, losses in zip(rows, continuation_losses(model, prompts, solutions)):
            row["solution_loss"], row["solution_tokens"] = losses.mean().item(), len(losses)
        for row in rows:
            if row["options"]:  # as continuations of the bare question, per byte: letters are beyond a small model
                bare = enc.encode_ordinary(re.sub(r"\nOptions: .*", "\nAnswer:", row["question"], flags=re.S))
                options = [enc.encode_ordinary(" " + text)[:context // 2] for text in row["options"]]
                bare = bare[-(context - max(map(len, options))):]
                losses = continuation_losses(model, [bare] * len(options), options)
                per_byte = [l.sum().item() / len(text.encode()) for l, text in zip(losses, row["options"])]
                row["likeliest"] = "ABCDE"[per_byte.index(min(per_byte))]


def evaluate(model, enc, problems, shots, name, cfg, ranks, path):
    """A row per problem; each batch is appended to the file `path` when it is done, and rows found there are kept."""
    rows, prompts = [], []
    for index, (p, texts) in enumerate(zip(problems, shots)):
        room = model.config.block_size - cfg.max_new_tokens
        prompt, ids, n = fit_prompt(p["question"], texts, cfg.separator, enc, room)
        # a question too long for the context counts as wrong
        rows.append({"index": index, **p, "prompt": prompt, "shots": n, "generation": "", "prediction": "", "correct": False})
        prompts.append(ids)
    for row in read_jsonl(path):
        rows[row["index"]] = row
    done = {row["index"] for row in read_jsonl(path)}
    with replacing(path) as f:  # without a torn last line
        f.writelines(json.dumps(rows[i]) + "\n" for i in sorted(done))
    # of similar length together: little padding, and the first batch is the largest
    order = sorted((i for i in range(len(rows)) if prompts[i] and i not in done), key=lambda i: -len(prompts[i]))
    size = cfg.batch_size or free_batch_size(model, [p for p in prompts if p], cfg.max_new_tokens) if order else 1
    progress = Progress(f"{name} answers", len(rows), "problems", len(rows) - len(order))
    with open(path, "a", encoding="utf-8") as f, ranks.autocast():
        for at in range(0, len(order), size):
            some = order[at:at + size]
            try:
                answer_batch(model, enc, [rows[i] for i in some], [prompts[i] for i in some], name, cfg,
                             STYLES[TASKS[name].style].stop)
            except torch.OutOfMemoryError:
                raise BadInput(f"{size} problems at once do not fit into the device's memory: give a smaller --batch_size")
            f.writelines(json.dumps(rows[i]) + "\n" for i in some)
            f.flush()
            progress.show(progress.first + at + len(some))
    progress.close()
    with replacing(path) as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


def summarize(rows, cfg, shots):
    """What a table would hold, from the rows of a task."""
    correct, total = sum(row["correct"] for row in rows), len(rows)
    low, high = wilson(correct, total)
    s = {"correct": correct, "accuracy": correct / total, "low": low, "high": high,
         "mean_shots": sum(row["shots"] for row in rows) / total,
         "fewer_shots": sum(row["shots"] < shots for row in rows), "too_long": sum(not row["prompt"] for row in rows)}
    if cfg.samples:
        right = [sum(row.get("sample_correct", ())) for row in rows]
        s["majority"] = sum(is_equal(row.get("majority", ""), row["answer"]) for row in rows) / total
        s["pass_at_k"] = {2**i: sum(pass_at_k(c, cfg.samples, 2**i) for c in right) / total
                          for i in range(cfg.samples.bit_length())}
    if cfg.likelihood:
        scored = [row for row in rows if "solution_loss" in row]
        tokens = sum(row["solution_tokens"] for row in scored)
        s["solution_loss"] = sum(row["solution_loss"] * row["solution_tokens"] for row in scored) / max(1, tokens)
        if any(row["options"] for row in rows):
            s["likeliest_option"] = sum(row.get("likeliest") == row["answer"] for row in rows) / total
    return s


def report(path, name, r):
    text = (f"{path}, {name}: {r['correct']} / {r['total']} correct = {r['accuracy']:.1%}  (95% interval {r['low']:.1%} to "
            f"{r['high']:.1%}), {r['mean_shots']:.2f} shots on average")
    text += f", {r['fewer_shots']} with fewer to fit the context" if r["fewer_shots"] else ""
    text += f", {r['too_long']} questions too long" if r["too_long"] else ""
    if "majority" in r:
        text += f"\n  majority vote {r['majority']:.1%}, " + ", ".join(
            f"pass@{k} {p:.1%}" for k, p in r["pass_at_k"].items())
    if "solution_loss" in r:
        text += f"\n  loss of the right solutions {r['solution_loss']:.4f}"
        text += f", choice by likelihood {r['likeliest_option']:.1%}" if "likeliest_option" in r else ""
    print(text)


def grade_file(path, name):
    """Grade the rows of a .jsonl file in place: `generation` and `answer` give `prediction` and `correct`."""
    rows = []
    try:
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    rows.append(row := json.loads(line))
                    gold = row["answer"]
                    if KIND.get(name) == "letter":
                        gold = "ABCDE"[gold] if isinstance(gold, int) else str(gold).upper()
                    elif "####" in str(gold) or "\\boxed" in str(gold):  # a whole solution
                        gold = extract_answer(gold, name)
                    row["prediction"] = extract_answer(row["generation"], name)
                    row["correct"] = is_equal(row["prediction"], gold)
    except OSError as e:
        raise BadInput(f"cannot read {path}: {e.strerror}")
    except (KeyError, TypeError, ValueError, IndexError) as e:
        raise BadInput(f"{path}, line {number}, is not an object with generation and answer: {e!r}")
    if not rows:
        raise BadInput(f"{path} holds no rows")
    with replacing(path) as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
    correct = sum(row["correct"] for row in rows)
    low, high = wilson(correct, len(rows))
    print(f"{path}: {correct} / {len(rows)} correct = {correct / len(rows):.1%}  (95% interval {low:.1%} to {high:.1%}), "
          f"{sum(not row['prediction'] for row in rows)} without an answer")


def evaluate_task(path, ckpt, name, enc, cfg, ranks):
    """The summary row of a checkpoint on a task: made, or found in OUT/summary.jsonl."""
    style = STYLES[TASKS[name].style]
    cfg = Config(**{**vars(cfg), "shots": style.shots if cfg.shots < 0 else cfg.shots,
                    "max_new_tokens": cfg.max_new_tokens or style.max_new_tokens,
                    "separator": (cfg.separator or (END_OF_TEXT if name == "demo" else "\n\n")).replace("\\n", "\n")})
    problems, problems_path = load_task(name, cfg)
    problems = problems[:cfg.n or None]
    if name == "demo":
        shots_from = cfg.shots_from or os.path.join(cfg.data, "curated.jsonl")
        shots = draw_shots(problems, load_problems("demo", shots_from) if cfg.shots else [], cfg.shots, cfg.seed)
    else:
        shots = [demonstrations(TASKS[name].style)[:cfg.shots]] * len(problems)
        if cfg.shots > len(shots[0]):
            raise BadInput(f"{cfg.shots} shots wanted, but prompts/{TASKS[name].style}.txt holds {len(shots[0])}")
    if ckpt["model_config"]["block_size"] <= cfg.max_new_tokens:
        raise BadInput(f"max_new_tokens {cfg.max_new_tokens} leaves no room in the context of "
                       f"{ckpt['model_config']['block_size']} tokens")
    base = os.path.splitext(os.path.basename(path))[0]
    about = {"ckpt": base, "ckpt_sha256": file_hash(path), "task": name, "problems": problems_path, "total": len(problems),
             "problems_checksum": checksum(problems), "shots": cfg.shots, "separator": cfg.separator,
             "shots_sha256": hashlib.sha256(json.dumps(shots).encode()).hexdigest(), "seed": cfg.seed,
             "max_new_tokens": cfg.max_new_tokens, "samples": cfg.samples,
             "temperature": cfg.temperature if cfg.samples else None, "likelihood": cfg.likelihood}
    out = cfg.out or os.path.join(os.path.dirname(path), "eval")
    os.makedirs(out, exist_ok=True)
    summary = os.path.join(out, "summary.jsonl")
    done = [r for r in read_jsonl(summary) if all(r.get(k) == v for k, v in about.items())]
    if not done:
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
        model = GPT(GPTConfig(**ckpt["model_config"])).to(ranks.device)
        load_weights(model, ckpt["model"], path)
        rows = evaluate(model.eval(), enc, problems, shots, name, cfg, ranks, os.path.join(out, f"{base}-{name}-{key}.jsonl"))
        done = [about | {"step": ckpt["step"], "tokens": ckpt["tokens"], "rows": f"{base}-{name}-{key}.jsonl"}
                | summarize(rows, cfg, cfg.shots)]
        old = read_jsonl(summary)
        with replacing(summary) as f:
            f.writelines(json.dumps(r) + "\n" for r in old + done)
    report(path, name, done[-1])
    return done[-1]


def main(cfg):
    if cfg.grade:
        return grade_file(cfg.grade, cfg.task[0])
    ranks = Ranks(cfg.device)
    enc = load_tokenizer(cfg.data)
    for path in cfg.ckpt:
        ckpt = load_checkpoint(path, ranks.device)
        if ckpt["tokenizer_sha256"] != tokenizer_hash(enc):
            raise BadInput(f"{path} was trained with another tokenizer than that of {cfg.data}: give its own --data")
        results = [evaluate_task(path, ckpt, name, enc, cfg, ranks) for name in cfg.task]
        if len(results) > 1:
            print(f"{path}: {sum(r['accuracy'] for r in results) / len(results):.1%} on average over {len(results)} tasks")


if __name__ == "__main__":
    run(main, Config, __doc__)
