"""
Are the questions of a test in the corpus? Whoever trains on them measures memory.

A question counts as found where the corpus holds 13 words in a row of it, or 8 words where the question has
fewer than 13. Questions of fewer than 8 words are not checked. Case and punctuation do not count.
"""
import itertools
import os
import re

import numpy as np

from corpora.tokenizers import load_tokenizer
from data import Tokens
from engine.cli import Progress
from engine.files import write_json
from grading import tasks

LONG, SHORT = 13, 8  # words in a row


def check_overlap(task_names, folder, data_dir):
    """Print, and write to overlap.json, which questions of the tasks a corpus folder holds. data_dir: that of
    the public tasks' test files. Raises BadInput."""
    enc = load_tokenizer(folder)
    words_of = {task: [words_in(q) for q in questions(task, folder, data_dir)] for task in task_names}
    where = {}      # words in a row -> the questions that have them, each (task, its number)
    for task in task_names:
        for i, words in enumerate(words_of[task]):
            for gram in ngrams(words, LONG if len(words) >= LONG else SHORT):
                where.setdefault(gram, set()).add((task, i))
    result = {task: {} for task in task_names}
    for side in ("curated", "noisy"):
        found = find(where, Tokens(folder, side, T=1).tokens, enc, side)
        for task in task_names:
            n = len(words_of[task])
            hits = {i: gram for (t, i), gram in sorted(found.items()) if t == task}
            too_short = sum(len(words) < SHORT for words in words_of[task])
            result[task][side] = {"questions": n, "too_short": too_short, "found": len(hits), "which": hits}
            line = f"{task}: {len(hits)} of {n} questions in {side}, {too_short} too short to check"
            if hits:
                line += f", the first as '... {hits[min(hits)]} ...'"
            print(line)
    write_json(os.path.join(folder, "overlap.json"), result)


def questions(task, folder, data_dir):
    """What a task asks, each without the words of the prompt's form and without options."""
    if task == "demo":
        problems = tasks.load_problems(task, os.path.join(folder, "eval.jsonl"))
    else:
        problems = tasks.load_task(task, data_dir)
    form = r"^(?:Question|Problem|Table):|\n(?:Question|Answer|Solution):|\nOptions: .*"
    return [re.sub(form, "\n", p["question"]) for p in problems]


def find(where, tokens, enc, name):
    """{question: the first words in a row of it that `tokens` (n,) hold}. where: {words: questions}."""
    found, done = {}, 0
    progress = Progress(name, len(tokens), "tokens")
    for ids in documents(tokens, enc.eot_token):
        words = words_in(enc.decode(ids))
        for gram in itertools.chain(ngrams(words, LONG), ngrams(words, SHORT)):
            for key in where.get(gram, ()):
                found.setdefault(key, " ".join(gram))
        done += len(ids)
        progress.show(done, f"{len(found)} found")
    progress.close()
    return found


def words_in(text):
    return re.findall(r"\w+", text.lower())


def ngrams(words, n):
    return (tuple(words[i:i + n]) for i in range(len(words) - n + 1))


def documents(tokens, end):
    """Lists of ids without the `end` token behind them. tokens: (n,), read a million at a time."""
    rest = []  # the beginning of a document that goes on in the next million
    for at in range(0, len(tokens), 2**20):
        some = np.asarray(tokens[at:at + 2**20])
        start = 0
        for stop in np.flatnonzero(some == end):
            yield rest + some[start:stop].tolist()
            rest, start = [], stop + 1
        rest += some[start:].tolist()
    if rest:
        yield rest
