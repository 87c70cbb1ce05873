"""
Step 4: few-shot accuracy on math problems: prompts, generation, answers, and what they are worth.

    python eval_math.py --ckpt out/slm/ckpt.pt --data data/demo                        # the built-in problems
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --task gsm8k math_oai  # downloaded once
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --task gsm8k --samples 16 --likelihood
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --problems test.jsonl --shots_from train.jsonl
    python eval_math.py --ckpt out/slm/step_*.pt --data data/demo --out out/slm/eval   # a curve over training
    python eval_math.py --ckpt gpt2 --data data/mine --task gsm8k                      # GPT-2's own weights (gpt2.py)
    torchrun --nproc_per_node 4 -- eval_math.py ...   # (-- keeps torchrun from taking --n for an option of its own)
    python eval_math.py --grade generations.jsonl --task gsm8k                         # no model: grade what is there

Tasks (tasks.py): demo (the problems of the corpus folder, or your own: .jsonl rows with `question` and `answer`),
gsm8k, math (5,000 problems), math_oai (the paper's 500 of them), svamp, asdiv, mawps, tabmwp, mathqa, mmlu_stem,
sat_math. The worked problems of the prompt, the shots, are in prompts/; those of `demo` are drawn for each problem
from the curated side, never from the test file. Shots are dropped until prompt and answer fit the model's context.

Prints correct / total and the 95% interval (Wilson's). OUT/CKPT-TASK-KEY.jsonl gets a row per problem (prompt,
generation, prediction, answer, correct), and OUT/summary.jsonl a row per checkpoint and task; KEY stands for the
settings. Rows are written batch by batch, and the same command goes on where it was interrupted. A generation on disk
ends with the text that stopped it; grading cuts that off.
"""
import glob
import hashlib
import json
import math
import os
import random
import re
from collections import Counter
from dataclasses import dataclass, field, replace

import torch

from common import (BadInput, Progress, Ranks, file_hash, json_rows, load_checkpoint, load_weights, read_jsonl, run,
                    write_jsonl)
from data import END_OF_TEXT, load_tokenizer, tokenizer_hash
from gpt2 import PUBLISHED, weights_file
from grade import KIND, boxed, extract_answer, is_equal
from kept import token_losses
from model import GPT, GPTConfig, common_prefix
from tasks import TASKS, load_problems, load_task


@dataclass
class Config:
    ckpt: list[str] = field(default_factory=list)   # checkpoints to evaluate
    task: list[str] = field(default_factory=list)   # what to evaluate on (none: demo)
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
    likelihood: bool = False        # also the loss of the right solutions, and choice by the loss of the options
    batch_size: int = 0             # problems generated together (0: from the free memory; it changes the samples)
    seed: int = 0                   # of the draw of shots, and of sampling
    out: str = ""                   # folder for the results (default: `eval` beside the checkpoint)
    grade: str = ""                 # .jsonl with `generation` and `answer`: write `prediction` and `correct` into it
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if bool(self.ckpt) == bool(self.grade):
            yield "--ckpt names the checkpoints to evaluate, or --grade a file of generations"
        for name in self.task:
            if name not in TASKS:
                yield f"there is no task {name!r}; there are {', '.join(TASKS)}"
        if len(set(self.task)) < len(self.task):
            yield "--task names a task twice"
        if self.grade and len(self.task) != 1:
            yield "--grade takes one --task: it says what an answer looks like"
        if (self.problems or self.shots_from) and set(self.task) - {"demo"}:
            yield "--problems and --shots_from are for the task demo; put the test file of another one into --data_dir"
        if min(self.n, self.max_new_tokens, self.samples, self.batch_size) < 0 or self.shots < -1:
            yield "n, max_new_tokens, samples and batch_size must not be negative"
        if self.temperature <= 0:
            yield f"temperature must be above 0, not {self.temperature}; leave out --samples for greedy answers alone"


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
        raise BadInput(f"{n} shots wanted, but the worked problems (--shots_from) are {len(worked)} without the test items")
    return [random.Random(f"{seed}-{number}").sample(worked, n) for number in range(len(problems))]


def fit_prompt(question, shots, separator, enc, room):
    """(prompt, its token ids, shots used): with the most shots that fit into `room` tokens, or ("", [], 0)."""
    special = {END_OF_TEXT} if separator == END_OF_TEXT else set()  # else a question that says so means the text
    for n in range(len(shots), -1, -1):
        prompt = "".join(shot + separator for shot in shots[:n]) + question
        ids = enc.encode(prompt, allowed_special=special, disallowed_special=())
        if len(ids) <= room:
            return prompt, ids, n
    return "", [], 0


def prepare(name, cfg):
    """(cfg with the task's own defaults filled in, problems, the shots of each). Raises BadInput."""
    style = TASKS[name].style
    cfg = replace(cfg, task=[name], shots=style.shots if cfg.shots < 0 else cfg.shots,
                  max_new_tokens=cfg.max_new_tokens or style.max_new_tokens,
                  separator=(cfg.separator or (END_OF_TEXT if name == "demo" else "\n\n")).replace("\\n", "\n"))
    if name == "demo":
        path = cfg.problems or os.path.join(cfg.data, "eval.jsonl")
        if not cfg.problems and not os.path.exists(path):
            raise BadInput(f"there is no {path}: name your --problems and --shots_from, or a public --task")
        problems = load_problems(name, path)[:cfg.n or None]
        worked = load_problems(name, cfg.shots_from or os.path.join(cfg.data, "curated.jsonl")) if cfg.shots else []
        return cfg, problems, draw_shots(problems, worked, cfg.shots, cfg.seed)
    shots = demonstrations(style.name)
    if cfg.shots > len(shots):
        raise BadInput(f"{cfg.shots} shots wanted, but prompts/{style.name}.txt holds {len(shots)}")
    problems = load_task(name, cfg.data_dir)[:cfg.n or None]
    return cfg, problems, [shots[:cfg.shots]] * len(problems)


# ------------------------------------------------------------------------------------- generation, likelihood

def free_batch_size(model, prompts, new_tokens):
    """Problems whose keys and values fit into a third of the free memory, beside those of the prefix they share."""
    c, w = model.config, model.wte.weight
    if w.device.type == "cuda":
        free, most = torch.cuda.mem_get_info(w.device)[0], 1024
    else:  # a processor gains nothing from more rows
        known = "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", ())  # not on every system
        free, most = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 4 * 2**30, 256
    own_tokens = max(map(len, prompts)) - common_prefix(prompts) + new_tokens
    row_bytes = own_tokens * 2 * c.n_layer * c.n_embd * w.element_size() + 2 * c.vocab_size * 4
    return max(1, min(most, int(free / 3 / row_bytes)))


@torch.no_grad()
def continuation_losses(model, prompts, continuations):
    """The losses of the tokens of each continuation after its prompt: a list of 1-dimensional tensors.

    prompts, continuations: lists of lists of token ids, together at most block_size tokens each.
    """
    device = model.wte.weight.device
    P, shared = model.shared_prefix(prompts)
    sequences = [p + c for p, c in zip(prompts, continuations)]
    some = max(1, model.tokens_at_once // (max(map(len, sequences)) - P))
    losses = []
    for at in range(0, len(sequences), some):
        part = sequences[at:at + some]
        B, T = len(part), max(map(len, part))
        idx = torch.tensor([s[P:] + [0] * (T - len(s)) for s in part], device=device)  # (B, T - P)
        pos = torch.arange(P, T - 1, device=device).expand(B, T - 1 - P)
        hidden = model(idx[:, :-1], pos, model.new_cache(B, T - 1 - P, shared))        # (B, T - 1 - P, C)
        for b, s in enumerate(part):
            first = len(prompts[at + b]) - 1 - P  # where the first token of the continuation is predicted
            last = len(s) - 1 - P
            losses.append(token_losses(model.logits(hidden[b, first:last]), idx[b, first + 1:last + 1]).cpu())
    return losses


def answer_batch(model, enc, rows, prompts, cfg):
    """Write the generation, the samples and the likelihoods of a batch into its rows."""
    stop_texts = TASKS[cfg.task[0]].style.stop
    window = max(map(len, stop_texts))  # a token is at least a byte

    def stop(new_tokens):
        tail = enc.decode(new_tokens[-window:])
        return new_tokens[-1] == enc.eot_token or any(text in tail for text in stop_texts)

    def generate(temperature=0.0, generator=None):
        new_tokens = model.generate(prompts, cfg.max_new_tokens, stop, temperature, generator)
        return [enc.decode([t for t in tokens if t != enc.eot_token]) for tokens in new_tokens]

    for row, text in zip(rows, generate()):
        row["generation"] = text
    generator = torch.Generator(model.wte.weight.device).manual_seed(1_000_003 * cfg.seed + rows[0]["index"])
    for _ in range(cfg.samples):
        for row, text in zip(rows, generate(cfg.temperature, generator)):
            row.setdefault("samples", []).append(text)
    if cfg.likelihood:
        context = model.config.block_size
        solutions = [enc.encode_ordinary(row["solution"])[:context - len(p)] for row, p in zip(rows, prompts)]
        for row, losses in zip(rows, continuation_losses(model, prompts, solutions)):
            row["solution_loss"], row["solution_tokens"] = losses.mean().item(), len(losses)
        for row in filter(lambda row: row["options"], rows):
            # as continuations of the bare question, per byte: that a letter stands for an option is beyond a small model
            options = [enc.encode_ordinary(" " + text)[:context // 2] for text in row["options"]]
            bare = enc.encode_ordinary(re.sub(r"\nOptions: .*", "\nAnswer:", row["question"], flags=re.S))
            bare = bare[-(context - max(map(len, options))):]
            losses = continuation_losses(model, [bare] * len(options), options)
            per_byte = [loss.sum().item() / len(text.encode()) for loss, text in zip(losses, row["options"])]
            row["likeliest"] = "ABCDE"[per_byte.index(min(per_byte))]


# ------------------------------------------------------------------------------------------------------ grades

def grade_row(row, gold, name):
    """Add the prediction of a generation and whether it is right; of samples, that of each and the majority's."""
    row["prediction"] = extract_answer(row["generation"], name)
    row["correct"] = is_equal(row["prediction"], gold)
    if "samples" in row:
        row["sample_predictions"] = [extract_answer(text, name) for text in row["samples"]]
        row["sample_correct"] = [is_equal(p, gold) for p in row["sample_predictions"]]
        row["majority"] = majority(row["sample_predictions"])
        row["majority_correct"] = is_equal(row["majority"], gold)


def majority(predictions):
    """The answer given most often, of several the first; spellings of one answer count together. "" if there is none."""
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


def tally(rows):
    """{correct, total, accuracy, low, high} of graded rows, and a line that says so."""
    correct, total = sum(row["correct"] for row in rows), len(rows)
    low, high = wilson(correct, total)
    return ({"correct": correct, "total": total, "accuracy": correct / total, "low": low, "high": high},
            f"{correct} / {total} correct = {correct / total:.1%}  (95% interval {low:.1%} to {high:.1%})")


def summarize(rows, cfg):
    """What a table would hold, from the rows of a task, and the same as text."""
    s, text = tally(rows)
    s["mean_shots"] = sum(row["shots"] for row in rows) / len(rows)
    s["too_long"] = sum(not row["prompt"] for row in rows)
    s["fewer_shots"] = sum(row["shots"] < cfg.shots for row in rows) - (s["too_long"] if cfg.shots else 0)
    text += f", {s['mean_shots']:.2f} shots on average"
    text += f", fewer to fit the context: {s['fewer_shots']}" if s["fewer_shots"] else ""
    text += f", question too long: {s['too_long']}" if s["too_long"] else ""
    guess, times = Counter(row["answer"] for row in rows).most_common(1)[0]
    s["same_guess"] = times / len(rows)
    text += f"\n  always answering {guess} would get {s['same_guess']:.1%}"
    if cfg.samples:
        right = [sum(row.get("sample_correct", ())) for row in rows]
        s["majority"] = sum(row.get("majority_correct", False) for row in rows) / len(rows)
        s["pass_at_k"] = {2**i: sum(pass_at_k(c, cfg.samples, 2**i) for c in right) / len(rows)
                          for i in range(cfg.samples.bit_length())}
        text += f"\n  majority vote {s['majority']:.1%}, " + ", ".join(f"pass@{k} {p:.1%}" for k, p in s["pass_at_k"].items())
    if cfg.likelihood:
        tokens = sum(row.get("solution_tokens", 0) for row in rows)
        s["solution_loss"] = sum(row["solution_loss"] * row["solution_tokens"] for row in rows if row["prompt"]) / max(1, tokens)
        text += f"\n  loss of the right solutions {s['solution_loss']:.4f}"
        if any(row["options"] for row in rows):
            s["likeliest_option"] = sum(row.get("likeliest") == row["answer"] for row in rows) / len(rows)
            text += f", choice by likelihood {s['likeliest_option']:.1%}"
    return s, text


def grade_file(path, name):
    """Grade the rows of a .jsonl file in place: `generation` and `answer` give `prediction` and `correct`."""
    rows = [row for _, row in json_rows(path)]
    for number, row in enumerate(rows, 1):
        gold, text = row.get("answer"), row.get("generation")
        if KIND.get(name) == "letter":
            gold = "ABCDE"[gold] if type(gold) is int and 0 <= gold < 5 else str(gold).upper()
        elif "####" in str(gold) or "\\boxed" in str(gold):  # a whole solution
            gold = boxed(gold) or extract_answer(gold, name)
        if not isinstance(text, str) or row.get("answer") is None:
            raise BadInput(f"{path}, row {number}, lacks the text `generation` or the `answer`")
        grade_row(row, str(gold), name)
    if not rows:
        raise BadInput(f"{path} holds no rows")
    write_jsonl(path, rows)
    print(f"{path}: {tally(rows)[1]}, {sum(not row['prediction'] for row in rows)} without an answer")


# -------------------------------------------------------------------------------------------------- evaluation

def evaluate(model, enc, problems, shots, cfg, ranks, path):
    """A graded row per problem. Each batch is added to the file `path` when it is done, and rows found there are kept. With
    several ranks each adds to a file of its own, path.rankR; the main one joins them in the end, the others return []."""
    rows, prompts = [], []
    for index, (p, texts) in enumerate(zip(problems, shots)):
        prompt, ids, n = fit_prompt(p["question"], texts, cfg.separator, enc, model.config.block_size - cfg.max_new_tokens)
        rows.append({"index": index, **p, "prompt": prompt, "shots": n, "generation": ""})  # too long: counts as wrong
        prompts.append(ids)
    def read_done():
        return {row["index"]: row for name in [path, *glob.glob(glob.escape(path) + ".rank*")] for row in read_jsonl(name)}

    done, mine = read_done(), path if ranks.world == 1 else f"{path}.rank{ranks.rank}"
    ranks.barrier()  # all have read before one writes
    rows = [done.get(i, row) for i, row in enumerate(rows)]
    # of similar length together: little padding, and the first batch is the largest
    order = sorted((i for i in range(len(rows)) if prompts[i] and i not in done), key=lambda i: -len(prompts[i]))
    order = order[ranks.rank::ranks.world]  # this rank's
    if order:
        size = cfg.batch_size or free_batch_size(model, [prompts[i] for i in order], cfg.max_new_tokens)
        progress = Progress(f"{cfg.task[0]} answers", len(order), "problems")
        with open(mine, "a", encoding="utf-8") as f, ranks.autocast():
            f.write("\n")  # after a line that was torn
            for at in range(0, len(order), size):
                some = order[at:at + size]
                try:
                    answer_batch(model, enc, [rows[i] for i in some], [prompts[i] for i in some], cfg)
                except torch.OutOfMemoryError:
                    raise BadInput(f"{size} problems at once do not fit into the device's memory: give a smaller "
                                   f"--batch_size")
                f.writelines(json.dumps(rows[i]) + "\n" for i in some)
                f.flush()
                progress.show(at + len(some))
        progress.close()
    ranks.barrier()  # all have written
    if not ranks.main:
        return []
    if ranks.world > 1:
        done = read_done()
        rows = [done.get(i, row) for i, row in enumerate(rows)]
    for row in rows:  # in a moment, so with today's grader also for what was generated before
        grade_row(row, row["answer"], cfg.task[0])
    write_jsonl(path, rows)
    for part in glob.glob(glob.escape(path) + ".rank*"):
        os.remove(part)
    return rows


def main(cfg):
    if cfg.grade:
        return grade_file(cfg.grade, cfg.task[0])
    ranks = Ranks(cfg.device)
    enc = load_tokenizer(cfg.data)
    tasks = [prepare(name, cfg) for name in cfg.task or ["demo"]]
    for path in cfg.ckpt:
        if not os.path.exists(weights_file(path)):  # said at once, and not after the checkpoints before it
            raise BadInput(f"there is no checkpoint {path}: train one, or give another")
    for path in cfg.ckpt:
        ckpt = load_checkpoint(path)
        if ckpt["tokenizer_sha256"] != tokenizer_hash(enc):
            raise BadInput(f"{path} was trained with another tokenizer than that of {cfg.data}: give its own --data")
        for task_cfg, _, _ in tasks:
            if task_cfg.max_new_tokens >= ckpt["model_config"]["block_size"]:
                raise BadInput(f"max_new_tokens {task_cfg.max_new_tokens} for {task_cfg.task[0]} leaves no room in the context "
                               f"of {ckpt['model_config']['block_size']} tokens of {path}: give a smaller --max_new_tokens")
        model = GPT(GPTConfig(**ckpt["model_config"])).to(ranks.device).eval()
        load_weights(model, ckpt["model"], path)
        name = os.path.splitext(os.path.basename(os.path.normpath(path)))[0]
        beside = "out/gpt2" if path in PUBLISHED else path if os.path.isdir(path) else os.path.dirname(path)
        out = cfg.out or os.path.join(beside, "eval")
        os.makedirs(out, exist_ok=True)
        summary, ckpt_sha256, accuracies = os.path.join(out, "summary.jsonl"), file_hash(weights_file(path)), []
        for task_cfg, problems, shots in tasks:
            about = {"ckpt": name, "ckpt_sha256": ckpt_sha256, "task": task_cfg.task[0]} | {
                key: getattr(task_cfg, key) for key in ("shots", "separator", "n", "max_new_tokens", "samples", "temperature",
                                                        "likelihood", "seed")}
            key = hashlib.sha256(json.dumps([about, problems, shots]).encode()).hexdigest()[:8]
            rows_file = f"{name}-{task_cfg.task[0]}-{key}.jsonl"
            rows = evaluate(model, enc, problems, shots, task_cfg, ranks, os.path.join(out, rows_file))
            if not ranks.main:
                continue
            result, text = summarize(rows, task_cfg)
            print(f"{path}, {task_cfg.task[0]}: {text}")
            accuracies.append(result["accuracy"])
            result = about | {"step": ckpt.get("step"), "tokens": ckpt.get("tokens"), "rows": rows_file} | result
            held = [result if r.get("rows") == rows_file else r for r in read_jsonl(summary)]
            write_jsonl(summary, held if result in held else held + [result])
        if len(accuracies) > 1:
            print(f"{path}: {sum(accuracies) / len(accuracies):.1%} on average over {len(accuracies)} tasks")


if __name__ == "__main__":
    run(main, Config, __doc__)
