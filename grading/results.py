"""
From answers to results: grades, votes and intervals, what a table would hold, and the files that keep it.

A row is a dict that eval_math.py makes of a problem: the problem's own fields, `index` (its number),
`prompt`, `shots` (how many the prompt has), `generation`, and what --samples and --likelihood add.
"""
import hashlib
import json
import math
import os
from collections import Counter

from engine.cli import BadInput
from engine.files import read_jsonl, write_jsonl
from engine.text_files import json_rows
from grading.grade import KIND, boxed, extract_answer, is_equal, without_thoughts
from grading.tools import without_programs


def grade_row(row, gold, task):
    """Add to a row what its generation answers and whether that is right (gold: the right answer, a text);
    the same for its samples and their vote."""
    row["prediction"] = extract_answer(without_programs(row["generation"]), task)
    row["correct"] = is_equal(row["prediction"], gold)
    if "samples" in row:
        texts = map(without_programs, row["samples"])
        row["sample_predictions"] = [extract_answer(text, task) for text in texts]
        row["sample_correct"] = [is_equal(p, gold) for p in row["sample_predictions"]]
        row["majority"] = majority(row["sample_predictions"])
        row["majority_correct"] = is_equal(row["majority"], gold)


def majority(predictions):
    """The answer given most often, of several the first, or ""; spellings of one answer count together."""
    times = Counter(filter(None, predictions))
    return max(times, key=lambda p: sum(n for other, n in times.items() if is_equal(p, other)), default="")


def grade_file(path, task):
    """Grade the rows of a .jsonl file in place: `generation` and `answer` give `prediction` and `correct`.
    Raises BadInput, and leaves the file as it is, where a row lacks one of the two."""
    rows = [row for _, row in json_rows(path)]
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("generation"), str) or row.get("answer") is None:
            raise BadInput(f"{path}, row {number}, lacks the text `generation` or the `answer`")
        grade_row(row, right_answer(row["answer"], task), task)
    if not rows:
        raise BadInput(f"{path} holds no rows")
    write_jsonl(path, rows)
    print(f"{path}: {tally(rows)[1]}, {sum(not row['prediction'] for row in rows)} without an answer")


def right_answer(value, task):
    """The right answer as a text, from what a user's file holds: the answer itself, the number of an option
    (0 for A), or a whole solution in the form of GSM8K or MATH."""
    text = without_thoughts(str(value))
    if KIND.get(task) == "letter":
        return "ABCDE"[value] if type(value) is int and 0 <= value < 5 else text.upper()
    if "####" in text or "\\boxed" in text:
        return boxed(text) or extract_answer(text, task)
    return text


def pass_at_k(correct, total, k):
    """Chance that one of k answers is right, drawn without replacement from `total` with `correct` right."""
    return 1 - math.comb(total - correct, k) / math.comb(total, k)


def wilson(correct, total):
    """95% interval of a proportion, by Wilson's score: (low, high). Right at the edges, too."""
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
    """What a table would hold, from the graded rows of a task: a dict, and the same as text."""
    result, text = tally(rows)
    answered = [row for row in rows if row["prompt"]]  # the others were too long, and count as wrong
    result["mean_shots"] = sum(row["shots"] for row in rows) / len(rows)
    result["too_long"] = len(rows) - len(answered)
    result["fewer_shots"] = sum(row["shots"] < cfg.shots for row in answered)
    if cfg.shots:
        text += f", {result['mean_shots']:.2f} shots on average"
    if result["fewer_shots"]:
        text += f", fewer to fit the context: {result['fewer_shots']}"
    if result["too_long"]:
        text += f", question too long: {result['too_long']}"
    guess, times = Counter(row["answer"] for row in rows).most_common(1)[0]
    result["same_guess"] = times / len(rows)
    text += f"\n  always answering {guess} would get {result['same_guess']:.1%}"
    if cfg.samples:
        result["majority"] = sum(row.get("majority_correct", False) for row in rows) / len(rows)
        text += f"\n  majority vote {result['majority']:.1%}"
        right = [sum(row.get("sample_correct", ())) for row in rows]
        result["pass_at_k"] = {}
        for k in (2**i for i in range(cfg.samples.bit_length())):
            result["pass_at_k"][k] = sum(pass_at_k(c, cfg.samples, k) for c in right) / len(rows)
            text += f", pass@{k} {result['pass_at_k'][k]:.1%}"
    if cfg.likelihood:
        tokens = sum(row["solution_tokens"] for row in answered)
        total = sum(row["solution_loss"] * row["solution_tokens"] for row in answered)
        result["solution_loss"] = total / max(1, tokens)  # the mean over all tokens
        text += f"\n  loss of the right solutions {result['solution_loss']:.4f}"
        if any(row["options"] for row in rows):
            hits = sum(row.get("likeliest") == row["answer"] for row in rows)
            result["likeliest_option"] = hits / len(rows)
            text += f", choice by likelihood {result['likeliest_option']:.1%}"
    return result, text


def results_folder(path):
    return os.path.join(os.path.dirname(path), "eval")


def settings(path, ckpt_sha256, cfg):
    """What a result depends on besides the problems and shots: the checkpoint, the task and these options.
    (Which samples are drawn depends on batch_size and on the number of processes, too: any are as good.)"""
    name = os.path.basename(path).removesuffix(".pt")
    about = {"ckpt": name, "ckpt_sha256": ckpt_sha256, "task": cfg.task[0]}
    options = ("shots", "n", "max_new_tokens", "samples", "temperature", "likelihood", "seed")
    if cfg.tool:  # without one the name of the file of rows stays what it was before there were tools
        options += ("tool",)
    if cfg.tool == "python":
        options += ("rounds", "tool_seconds")
    return about | {option: getattr(cfg, option) for option in options}


def rows_file(about, problems, shots):
    """The name of the file of rows. A file that is there holds the answers to just this."""
    key = hashlib.sha256(json.dumps([about, problems, shots]).encode()).hexdigest()[:8]
    return f"{about['ckpt']}-{about['task']}-{key}.jsonl"


def add_to_summary(path, record):
    """Add a result to summary.jsonl, in the place of an earlier one with the same rows."""
    held = {old.get("rows", number): old for number, old in enumerate(read_jsonl(path))}
    write_jsonl(path, list((held | {record["rows"]: record}).values()))
