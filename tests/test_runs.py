"""The scripts for real models and corpora as a user would call them, at tiny size, on files made here."""
import importlib
import json
import os
import random

import pytest

from engine.cli import parse
from engine.files import write_jsonl
from helpers import records, sh
from test_data import documents_of
from test_gpt2 import checkpoint, exported


@pytest.mark.parametrize("script, n_commands", [
    ("demo.sh", 7), ("controls.sh", 40), ("map.sh", 90), ("distill.sh", 12), ("tools.sh", 50), ("gsm8k.sh", 4),
    ("openwebmath.sh", 2), ("gpt2_math.sh", 8)])
def test_every_command_of_a_script_can_be_given_at_full_size(tmp_path, script, n_commands):
    """With a Python that only writes down its arguments."""
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text('#!/bin/sh\necho "$*" >> "$LOG"\n')
    python.chmod(0o755)
    sh(script, tmp_path, SIZE="full", SEEDS=0, PYTHON=python, LOG=log, TRAIN="train.jsonl", DATA=tmp_path / "data",
       OUT=tmp_path / "out", NOISY="web.txt", PATH=f"{tmp_path}:{os.environ['PATH']}")
    given = [line.removeprefix("-m ").split() for line in log.read_text().splitlines()]
    for name, *options in given:
        parse(importlib.import_module(name.removesuffix(".py")).Config, "", options)  # raises BadInput
    assert len(given) >= n_commands


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """GSM8K's files, MATH's training set, web text with a test question in it, merges, GPT-2 weights, all tiny."""
    folder, rng = tmp_path_factory.mktemp("files"), random.Random(0)

    def problem(i):
        a, b = rng.randrange(90), rng.randrange(90)
        question = (f"In the year {i} Ann has {a} hens in one barn and {b} hens in the other barn of hers. "
                    f"How many are there?")
        return {"question": question, "answer": f"{a} + {b} = <<{a}+{b}={a + b}>>{a + b}\n#### {a + b}"}
    (folder / "tasks").mkdir()
    test = [problem(i) for i in range(1000, 1006)]
    write_jsonl(folder / "tasks" / "gsm8k.jsonl", test)
    write_jsonl(folder / "train.jsonl", [problem(i) for i in range(300)])
    write_jsonl(folder / "math.jsonl", [
        {"problem": f"Find $x + {i}$ where $x = 1$.", "level": "Level 1", "solution": f"It is $\\boxed{{{i + 1}}}$."}
        for i in range(40)])
    words = "the a in on then another theorem proof about an integer number is one other".split()
    web = [test[3]["question"]] + [" ".join(rng.choice(words) for _ in range(60)) for _ in range(300)]
    write_jsonl(folder / "web.jsonl", [{"text": text} for text in web])
    path, _, _ = checkpoint(folder, block_size=256)
    exported(path, folder / "gpt2")
    return folder


@pytest.fixture(scope="module")
def corpus(files):
    """`bash runs/openwebmath.sh`, called from another folder with paths relative to it."""
    out = sh("openwebmath.sh", files, TRAIN="train.jsonl", MATH="math.jsonl", NOISY="web.jsonl", TOKENIZER="merges.txt",
             TOKENS=60000, TASKS="gsm8k", DATA=files / "owm", DATA_DIR=files / "tasks")
    assert "gsm8k: 1 of 6 questions in noisy" in out
    return files / "owm"


@pytest.mark.slow
def test_openwebmath(files, corpus):
    curated, noisy = ("\n".join(documents_of(str(corpus), name)) for name in ("curated", "noisy"))
    assert "How many are there?\nAnswer: " in curated and "Final Answer: The final answer is $" in curated
    assert "<<" not in curated and "theorem" in noisy
    assert json.loads((corpus / "overlap.json").read_text())["gsm8k"]["noisy"]["found"] == 1
    assert "other settings" in sh("openwebmath.sh", files, code=2, TRAIN="train.jsonl", DATA=corpus)
    assert "TRAIN: is the path of the train.jsonl" in sh("openwebmath.sh", files, code=1, DATA=corpus)


@pytest.mark.slow
@pytest.mark.parametrize("gpus, other", [(1, "random"), (2, "clm")])
def test_gpt2_math(files, corpus, tmp_path, gpus, other):
    """All of it from GPT-2 weights, with one process and with two; the same again then finds it done."""
    how = dict(BASE="gpt2", DATA=corpus, OUT=tmp_path / "out", DATA_DIR=files / "tasks", TASKS="gsm8k", DEVICE="cpu",
               GPUS=gpus, ARMS=f"{other} slm")
    out = sh("gpt2_math.sh", files, **how)
    assert out.count("gsm8k: ") == out.count("\n  loss of the right") == 4
    for run in ("base_gpt2", "ref", "slm", other):
        [row] = (tmp_path / "out" / run / "eval" / "summary.jsonl").read_text().splitlines()
        assert json.loads(row)["solution_loss"] > 0
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())["arms"]) == {"ref", "slm", other}
    first = [records(tmp_path / "out" / arm, "eval")[0]["test_loss"] for arm in ("slm", other)]
    assert first[0] == first[1]  # both start from GPT-2's weights
    if gpus == 1:
        assert sh("gpt2_math.sh", files, **how | {"ARMS": "slm"}).count("finished before") == 2
