"""
Are the questions of a test in the corpus? Runs of words that both hold.
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


def check_overlap(task_names, folder, data_dir):
    """Print, and write to overlap.json in the corpus folder, which questions of the tasks share 13 words in a row with a side
    of the corpus (8 words where the question has fewer than 13; questions of fewer than 8 words are not checked). Case and
    punctuation do not count. data_dir: the folder of the public tasks' test files."""
    enc, result = load_tokenizer(folder), {}
    words_of = {}  # (task, number of the question) -> its words
    for task in task_names:
        for i, question in enumerate(questions(task, folder, data_dir)):
            words_of[task, i] = re.findall(r"\w+", question.lower())
    where = {}  # run of words -> the questions it occurs in
    for key, words in words_of.items():
        for run in runs(words, 13 if len(words) >= 13 else 8):
            where.setdefault(run, set()).add(key)
    for side in ("curated", "noisy"):
        tokens = Tokens(folder, side, 1)
        found = find(where, tokens.tokens, enc, side)
        for task in task_names:
            lengths = [len(words) for (t, _), words in words_of.items() if t == task]
            hits = {i: run for (t, i), run in found.items() if t == task}
            too_short = sum(n < 8 for n in lengths)
            result.setdefault(task, {})[side] = {"questions": len(lengths), "too_short": too_short,
                                                 "found": len(hits), "which": dict(sorted(hits.items()))}
            text = f"{task}: {len(hits)} of {len(lengths)} questions in {side}"
            if too_short:
                text += f", {too_short} too short to check"
            if hits:
                text += f", the first as '... {hits[min(hits)]} ...'"
            print(text)
    write_json(os.path.join(folder, "overlap.json"), result)


def questions(task, folder, data_dir):
    """The texts that are asked in a task: without the words of the prompt's form and without options."""
    if task == "demo":
        problems = tasks.load_problems(task, os.path.join(folder, "eval.jsonl"))
    else:
        problems = tasks.load_task(task, data_dir)
    form = r"^(?:Question|Problem|Table):|\n(?:Question|Answer|Solution):|\nOptions: .*"
    return [re.sub(form, "\n", p["question"]) for p in problems]


def find(where, tokens, enc, name):
    """{question: the first of its runs of words that occurs in the token file}. where: {run of words: set of questions}."""
    found, done = {}, 0
    progress = Progress(name, len(tokens), "tokens")
    for ids in documents(tokens, enc.eot_token):
        words = re.findall(r"\w+", enc.decode(ids).lower())
        for run in itertools.chain(runs(words, 13), runs(words, 8)):
            for key in where.get(run, ()):
                found.setdefault(key, " ".join(run))
        done += len(ids)
        progress.show(done, f"{len(found)} found")
    progress.close()
    return found


def runs(words, n):
    """All runs of n words."""
    return (tuple(words[i:i + n]) for i in range(len(words) - n + 1))


def documents(tokens, end):
    """The documents of a flat array of tokens, as lists of ids without the `end` token between them."""
    rest = []
    for at in range(0, len(tokens), 2**20):
        piece = np.asarray(tokens[at:at + 2**20])
        start = 0
        for stop in np.flatnonzero(piece == end):
            yield rest + piece[start:stop].tolist()
            rest, start = [], stop + 1
        rest += piece[start:].tolist()
    if rest:
        yield rest
