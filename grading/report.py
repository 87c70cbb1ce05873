"""
From answers to results: grades, votes and intervals, what a table would hold, and the files that keep it.

A row is a dict that eval_math.py makes of a problem: the problem's own fields, `index` (its number),
`prompt`, `shots` (how many the prompt has), `generation`, and what --samples and --likelihood add.
"""
import glob
import hashlib
import json
import math
import os
import re
from collections import Counter

from engine.cli import BadInput
from engine.files import json_rows, read_jsonl, write_jsonl
from extras.pretrained import PUBLISHED
from grading.grade import KIND, boxed, extract_answer, is_equal, without_thoughts


# ----------------------------------------------------------------------------------------------------- grades

def grade_row(row, gold, task):
    """Add to a row what its generation answers and whether that is right (gold: the right answer, a text).
    The same for each of its samples, and for the answer that most of them give."""
    row["prediction"] = extract_answer(row["generation"], task)
    row["correct"] = is_equal(row["prediction"], gold)
    if "samples" in row:
        row["sample_predictions"] = [extract_answer(text, task) for text in row["samples"]]
        row["sample_correct"] = [is_equal(p, gold) for p in row["sample_predictions"]]
        row["majority"] = majority(row["sample_predictions"])
        row["majority_correct"] = is_equal(row["majority"], gold)


def majority(predictions):
    """The answer given most often, of several the first; spellings of one answer count together. "" where
    there is none."""
    groups = []  # of equal answers
    for p in filter(None, predictions):
        group = next((g for g in groups if is_equal(p, g[0])), None)
        if group:
            group.append(p)
        else:
            groups.append([p])
    return max(groups, key=len)[0] if groups else ""


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


# ---------------------------------------------------------------------------------------------------- results

def pass_at_k(correct, total, k):
    """Chance that at least one of k answers is right, drawn without replacement from `total` ones of which
    `correct` are right."""
    return 1 - math.comb(total - correct, k) / math.comb(total, k)


def wilson(correct, total):
    """95% interval of a proportion, by Wilson's score: (low, high). Right at the edges too, where
    p +- 1.96 s is not."""
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
    """What a table would hold, from the graded rows of a task (a dict), and the same as text. cfg: an
    eval_math.Config."""
    result, text = tally(rows)
    answered = [row for row in rows if row["prompt"]]  # the others were too long, and count as wrong
    result["mean_shots"] = sum(row["shots"] for row in rows) / len(rows)
    result["too_long"] = len(rows) - len(answered)
    result["fewer_shots"] = sum(row["shots"] < cfg.shots for row in answered)
    text += f", {result['mean_shots']:.2f} shots on average"
    if result["fewer_shots"]:
        text += f", fewer to fit the context: {result['fewer_shots']}"
    if result["too_long"]:
        text += f", question too long: {result['too_long']}"
    guess, times = Counter(row["answer"] for row in rows).most_common(1)[0]
    result["same_guess"] = times / len(rows)
    text += f"\n  always answering {guess} would get {result['same_guess']:.1%}"
    if cfg.samples:
        more, line = summarize_samples(rows, cfg.samples)
        result, text = result | more, f"{text}\n  {line}"
    if cfg.likelihood:
        more, line = summarize_likelihoods(rows, answered)
        result, text = result | more, f"{text}\n  {line}"
    return result, text


def summarize_samples(rows, samples):
    """Accuracy of the majority vote, and pass@k for k = 1, 2, 4, ... up to the number of samples: a dict, and
    the same as text."""
    vote = sum(row.get("majority_correct", False) for row in rows) / len(rows)
    right = [sum(row.get("sample_correct", ())) for row in rows]
    powers = [2**i for i in range(samples.bit_length())]
    chances = {k: sum(pass_at_k(c, samples, k) for c in right) / len(rows) for k in powers}
    text = ", ".join(f"pass@{k} {p:.1%}" for k, p in chances.items())
    return {"majority": vote, "pass_at_k": chances}, f"majority vote {vote:.1%}, {text}"


def summarize_likelihoods(rows, answered):
    """The mean loss over all tokens of the right solutions, and where there are options, how often the
    likeliest is the right one: a dict, and the same as text."""
    tokens = sum(row["solution_tokens"] for row in answered)
    total = sum(row["solution_loss"] * row["solution_tokens"] for row in answered)
    result = {"solution_loss": total / max(1, tokens)}
    text = f"loss of the right solutions {result['solution_loss']:.4f}"
    if any(row["options"] for row in rows):
        result["likeliest_option"] = sum(row.get("likeliest") == row["answer"] for row in rows) / len(rows)
        text += f", choice by likelihood {result['likeliest_option']:.1%}"
    return result, text


# ------------------------------------------------------------------------------------------------------ files

def results_folder(path):
    """Where the results of a checkpoint go: beside it, or in one of ours for published weights."""
    if path in PUBLISHED:
        return os.path.join("out", path, "eval")
    return os.path.join(path if os.path.isdir(path) else os.path.dirname(path), "eval")


def settings(path, ckpt_sha256, cfg):
    """What a result depends on besides the problems and shots: the checkpoint, the task and these options."""
    name = re.sub(r"\.(pt|bin|safetensors)$", "", os.path.basename(os.path.normpath(path)))
    about = {"ckpt": name, "ckpt_sha256": ckpt_sha256, "task": cfg.task[0]}
    for option in ("shots", "separator", "n", "max_new_tokens", "samples", "temperature", "likelihood",
                   "seed"):
        about[option] = getattr(cfg, option)
    return about


def rows_file(about, problems, shots):
    """The name of the file of rows, CKPT-TASK-KEY.jsonl: other settings, problems or shots, another key."""
    key = hashlib.sha256(json.dumps([about, problems, shots]).encode()).hexdigest()[:8]
    return f"{about['ckpt']}-{about['task']}-{key}.jsonl"


class AnswerFile:
    """The rows of a task that have been answered, on disk, so that an interrupted evaluation can go on.

    Rows are added batch by batch. Of several processes each adds to a file of its own, PATH.rankR, and the
    main one joins them in the end; the next call reads them all, whatever its number of processes. All
    processes must make one at the same time.
    """

    def __init__(self, path, ranks):
        self.path = path
        self.own_path = path if ranks.world == 1 else f"{path}.rank{ranks.rank}"
        self.found = self.read()  # the answers of earlier calls
        ranks.barrier()  # all have read before one writes: they must agree on what is left to do

    def parts(self):
        return glob.glob(glob.escape(self.path) + ".rank*")

    def read(self):
        """{index: row} of all that has been answered; a line that an interruption has torn does not count."""
        return {row["index"]: row for name in [self.path, *self.parts()] for row in read_jsonl(name)}

    def add(self, rows):
        with open(self.own_path, "a", encoding="utf-8") as f:
            f.write("\n")  # the last line may be torn, and what follows must not become part of it
            f.writelines(json.dumps(row) + "\n" for row in rows)

    def finish(self, rows):
        """Write all rows in their order into the one file."""
        write_jsonl(self.path, rows)
        for part in self.parts():
            os.remove(part)


def add_to_summary(path, record):
    """Add the result of a checkpoint on a task to summary.jsonl, in the place of an earlier one with the same
    rows."""
    held = read_jsonl(path)
    places = [i for i, old in enumerate(held) if old.get("rows") == record["rows"]]
    for i in places:
        held[i] = record
    write_jsonl(path, held if places else held + [record])
