"""The scripts for real models and corpora as a user would call them, at tiny size, on files made here."""
import json
import os
import random
import subprocess
import sys

import pytest
import torch

from common import save_checkpoint
from corpora.tokenizers import load_tokenizer, save_tokenizer, tokenizer_hash
from data import Tokens
from extras import export
from helpers import ROOT
from model import GPT, GPTConfig

pytestmark = pytest.mark.slow

MERGES = ["#version: 0.2", "Ġ t", "Ġt h", "Ġth e", "i n", "a n", "e r", "o n", "Ġ a", "Ġ =", "Q u"]
OWM = dict(TRAIN="train.jsonl", MATH="MATH", NOISY="web.jsonl", TOKENIZER="merges.txt", TOKENS=60000,
           TASKS="gsm8k")


def sh(script, folder, code=0, **variables):
    """The output of a script that ends with this code: standard output, or for an error standard error."""
    environment = os.environ | {"PYTHON": sys.executable, "SIZE": "tiny"}
    environment |= {k: str(v) for k, v in variables.items()}
    done = subprocess.run(["bash", os.path.join(ROOT, "runs", script)], env=environment, capture_output=True,
                          text=True, cwd=folder)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """GSM8K's two files, MATH's training set, web text with test questions in it, merges, and GPT-2 weights,
    all tiny."""
    folder, rng = tmp_path_factory.mktemp("files"), random.Random(0)

    def problem(i):
        a, b = rng.randrange(90), rng.randrange(90)
        question = (f"In the year {i} Ann has {a} hens in one barn and {b} hens in the other barn of hers. "
                    f"How many are there?")
        return {"question": question, "answer": f"{a} + {b} = <<{a}+{b}={a + b}>>{a + b}\n#### {a + b}"}
    (folder / "tasks").mkdir()
    test = [problem(i) for i in range(1000, 1006)]
    for path, rows in (("train.jsonl", [problem(i) for i in range(300)]), ("tasks/gsm8k.jsonl", test)):
        (folder / path).write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "MATH" / "algebra").mkdir(parents=True)
    for i in range(40):
        row = {"problem": f"Find $x + {i}$ where $x = 1$.", "level": "Level 1",
               "solution": f"It is $\\boxed{{{i + 1}}}$."}
        (folder / "MATH" / "algebra" / f"{i}.json").write_text(json.dumps(row))
    words = "the a in on then another theorem proof about an integer number is one other".split()
    web = [test[3]["question"]] + [" ".join(rng.choice(words) for _ in range(60)) for _ in range(300)]
    (folder / "web.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in web))
    (folder / "merges.txt").write_text("".join(f"{line}\n" for line in MERGES), encoding="utf-8")
    enc = load_tokenizer(str(folder / "merges.txt"))
    save_tokenizer(enc, str(folder))
    torch.manual_seed(0)
    config = dict(block_size=256, vocab_size=enc.n_vocab, n_layer=2, n_head=2, n_embd=32)
    save_checkpoint(str(folder / "base.pt"), {
        "model": GPT(GPTConfig(**config)).state_dict(), "model_config": config,
        "tokenizer_sha256": tokenizer_hash(enc), "config": {"data": str(folder)}})
    export.main(export.Config(export=[str(folder / "base.pt"), str(folder / "gpt2")]))
    return folder


@pytest.fixture(scope="module")
def corpus(files):
    """`bash runs/openwebmath.sh`, called from another folder with paths relative to it."""
    out = sh("openwebmath.sh", files, **OWM, DATA=files / "owm", DATA_DIR=files / "tasks")
    assert "340 problems" in out and "gsm8k: 1 of 6 questions in noisy" in out
    return files / "owm"


def test_openwebmath(files, corpus):
    text = load_tokenizer(str(corpus)).decode(Tokens(str(corpus), "curated", 1).tokens.tolist())
    assert "How many are there?\nAnswer: " in text and "Final Answer: The final answer is $" in text
    assert "<<" not in text
    assert json.loads((corpus / "overlap.json").read_text())["gsm8k"]["noisy"]["found"] == 1
    before = {p: p.stat().st_mtime_ns for p in corpus.iterdir()}
    sh("openwebmath.sh", files, **OWM, DATA=corpus)  # finished: nothing is done again
    refused = sh("openwebmath.sh", files, code=2, **OWM | {"TOKENS": 70000}, DATA=corpus)
    assert "made with other settings" in refused
    assert before == {p: p.stat().st_mtime_ns for p in corpus.iterdir()}


@pytest.mark.parametrize("gpus", [1, 2])
def test_gpt2_math(files, corpus, tmp_path, gpus):
    """All of it from GPT-2 weights, with one process and with two; the same again then finds it done."""
    names = ["clm", "random" if gpus == 1 else "slm"]
    how = dict(BASE="gpt2", DATA=corpus, OUT=tmp_path / "out", DATA_DIR=files / "tasks", TASKS="gsm8k",
               DEVICE="cpu", GPUS=gpus, ARMS=" ".join(names))
    out = sh("gpt2_math.sh", files, **how)
    assert out.count("gsm8k: ") == len(names) + 2 and out.count("\n  loss of the right") == len(names) + 2
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["arms"]) == {*names, "ref"} and set(results["tasks"]) == {"start", "ref", *names}
    assert all(found["gsm8k"]["solution_loss"]["mean"] > 0 for found in results["tasks"].values())
    assert "| the weights all began with | " in (tmp_path / "out" / "table.md").read_text()
    logs = [(tmp_path / "out" / "seed0" / a / "metrics.jsonl").read_text().splitlines() for a in names]
    assert len({json.loads(log[0])["test_loss"] for log in logs}) == 1  # all arms start from GPT-2's weights
    weights = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.pt")}
    if gpus == 1:
        assert sh("gpt2_math.sh", files, **how | {"ARMS": "clm"}).count("finished before") == 2
        assert weights == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.pt")}


def test_smollm2(files, tmp_path):
    """All of it on tiny GPT-2 weights: problems hidden in texts, arms, fine-tuning, accuracy, the table; then nothing
    is done again."""
    rng = random.Random(2)
    texts = [" ".join(rng.choice("the a in on then another theorem".split()) for _ in range(12)) + "." for _ in range(900)]
    books = [{"text": "\n".join(texts[i:i + 15])} for i in range(0, 900, 15)]
    (tmp_path / "books.jsonl").write_text("".join(json.dumps(b) + "\n" for b in books))
    how = dict(GSM8K=files / "train.jsonl", MATH=files / "MATH", BOOKS="books.jsonl", MODEL=files / "gpt2",
               DATA=tmp_path / "data", OUT=tmp_path / "out", DATA_DIR=files / "tasks", TASKS="gsm8k", DEVICE="cpu")
    out = sh("smollm2.sh", tmp_path, **how, ARMS="clm_mixed slm")
    assert out.count("gsm8k: ") == 6 and "340 problems" in out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    arms = {"clm_mixed", "clm_mixed_tuned", "slm", "slm_tuned", "ref"}
    assert set(results["arms"]) == arms and set(results["tasks"]) == arms | {"start"}
    text = load_tokenizer(str(tmp_path / "data" / "seed0")).decode(
        Tokens(str(tmp_path / "data" / "seed0"), "curated", 1).tokens.tolist())
    assert "How many are there?\nAnswer: " in text and "<<" not in text  # as eval_math.py asks them
    assert sh("smollm2.sh", tmp_path, **how, ARMS="slm").count("finished before") == 3
    said = sh("smollm2.sh", tmp_path, code=1, GSM8K="")
    assert "train.jsonl of GSM8K" in said and said.count("\n") == 1
    assert "there is no gpt-two" in sh("smollm2.sh", tmp_path, code=2, **how | {"MODEL": "gpt-two"})


def merges_of_letters(path):
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    path.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a in letters for b in letters))


def test_real_text(tmp_path):
    """`bash runs/real.sh` on LaTeX made here."""
    rng = random.Random(1)
    sections = ["\\section{S%d}\n\n" % i + "\n\n".join(
        " ".join(rng.choice("Let the scheme $X$ be affine over a ring".split()) for _ in range(120))
        for _ in range(6)) for i in range(90)]
    (tmp_path / "math.tex").write_text("\n".join(sections))
    merges_of_letters(tmp_path / "merges.txt")
    sh("real.sh", tmp_path, MATH="math.tex", TOKENIZER="merges.txt", SEEDS=0, OUT=tmp_path / "out",
       DATA=tmp_path / "data", ARMS="clm slm clm_mixed")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    arms = {"clm", "slm", "clm_mixed"}
    assert set(results["arms"]) == {"ref", *arms, *(f"{name}_tuned" for name in arms)}
    assert all(arm["final"]["calibrated"]["n"] == 1 for arm in results["arms"].values())
    sizes = {name: Tokens(str(tmp_path / "data" / "seed0"), name, 1).meta["n_tokens"]
             for name in ("curated", "noisy", "noisy+1xcurated")}
    assert sizes["noisy+1xcurated"] == sizes["noisy"] + sizes["curated"]


@pytest.mark.parametrize("pair", ["posts", "school"])
def test_natural_pairs(tmp_path, pair):
    rng = random.Random(1)

    def text(n):
        return " ".join(rng.choice("We saw the moon and a car on the way to town".split()) for _ in range(n)) + "."

    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    write("posts.jsonl", [{"group": "ab"[i % 2], "subject": f"No {i}", "text": text(60)} for i in range(300)])
    write("problems.jsonl", [{"question": text(20), "answer": f"{text(20)}\n#### {i}"} for i in range(200)])
    write("books.jsonl", [{"text": "\n".join(text(12) for _ in range(30))} for _ in range(60)])
    merges_of_letters(tmp_path / "merges.txt")
    which = {"posts": dict(POSTS="posts.jsonl", GROUP="b"), "school": dict(PROBLEMS="problems.jsonl", BOOKS="books.jsonl")}
    sh("real.sh", tmp_path, PAIR=pair, TOKENIZER="merges.txt", SEEDS=0, OUT=tmp_path / "out", DATA=tmp_path / "data",
       ARMS="slm documents_excess", **which[pair])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["arms"]) == {"ref", "slm", "documents_excess", "slm_tuned", "documents_excess_tuned"}
    selection = results["arms"]["slm"]["selection"]
    # Posts of the group are labelled, hidden problems are not.
    assert ("selected_solution" in selection) == (pair == "posts")
    assert max(selection["precision"]) < 0.95 if pair == "posts" else max(selection["precision"]) == 0
    assert results["arms"]["slm"]["final"]["masked_solution"]["n"] == 1


def test_a_pair_that_there_is_not_is_refused(tmp_path):
    assert "there are latex, posts and school" in sh("real.sh", tmp_path, code=2, PAIR="songs")
    for pair, variable in (("latex", "MATH"), ("posts", "POSTS"), ("school", "PROBLEMS")):
        said = sh("real.sh", tmp_path, code=1, PAIR=pair)
        assert f"{variable}: name the" in said and said.count("\n") == 1
