"""corpora/natural_pairs.py: what is curated is not in the noisy side, shares are what was asked for, labels are true."""
import json
import re

import numpy as np
import pytest

import prepare
from corpora import natural_pairs
from corpora.tokenizers import demo_tokenizer, load_tokenizer, save_tokenizer
from engine.cli import BadInput
from engine.files import write_jsonl


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_posts_of_one_group_are_wanted_and_labelled(tmp_path):
    posts = [{"group": "abc"[i % 3], "subject": f"s{i}", "text": f"{'abc'[i % 3]} post {i}"} for i in range(90)]
    write_jsonl(tmp_path / "posts.jsonl", posts)
    cfg = natural_pairs.Config(posts=str(tmp_path / "posts.jsonl"), group="b", curated=20, out=str(tmp_path / "raw"))
    assert list(cfg.validate()) == []
    natural_pairs.main(cfg)
    curated, noisy = read(tmp_path / "raw" / "curated.jsonl"), read(tmp_path / "raw" / "noisy.jsonl")
    assert len(curated) == 20 and len(noisy) == 70
    texts = [row["wanted"] + row["other"] for row in curated + noisy]
    assert sorted(texts) == sorted(f"{p['subject']}\n{p['text']}" for p in posts)  # each post once
    for row in curated + noisy:
        assert bool(row["wanted"]) != bool(row["other"])
        assert ("b post" in row["wanted"]) == bool(row["wanted"]) and "b post" not in row["other"]
    (tmp_path / "vocabulary").mkdir()
    save_tokenizer(demo_tokenizer(), str(tmp_path / "vocabulary"))
    prepare.main(prepare.Config(
        curated=[str(tmp_path / "raw" / "curated.jsonl")], noisy=[str(tmp_path / "raw" / "noisy.jsonl")],
        field=["other", "wanted"], answer_field="wanted", held_out=0.2, tokenizer=str(tmp_path / "vocabulary"),
        out=str(tmp_path / "data")))
    tokens = np.fromfile(tmp_path / "data" / "noisy.bin", dtype=np.uint16)
    labels = np.fromfile(tmp_path / "data" / "noisy.labels.bin", dtype=np.uint8)
    enc = load_tokenizer(str(tmp_path / "data"))
    assert set(re.findall("[abc] post", enc.decode(tokens[labels == 1].tolist()))) == {"b post"}
    assert set(re.findall("[abc] post", enc.decode(tokens[labels == 0].tolist()))) == {"a post", "c post"}
    documents = enc.decode(tokens.tolist()).split("<|endoftext|>")
    assert not any(text.startswith("\n") or text.endswith("\n") for text in documents)  # nothing tells which is wanted
    with pytest.raises(BadInput, match="has 0 of what is wanted"):
        natural_pairs.main(natural_pairs.Config(posts=cfg.posts, group="d", out=str(tmp_path / "x")))


def test_problems_are_hidden_in_books(tmp_path):
    problems = [{"question": f"Q{i} has {i} eggs. How many?", "answer": f"One. {i}+1={i + 1} eggs.\n#### {i + 1}"}
                for i in range(60)]
    books = [{"text": "\n".join(f"Book {i} says that {j} is a word. And so on." for j in range(40))} for i in range(9)]
    write_jsonl(tmp_path / "problems.jsonl", problems)
    write_jsonl(tmp_path / "books.jsonl", books)
    cfg = natural_pairs.Config(problems=str(tmp_path / "problems.jsonl"), books=str(tmp_path / "books.jsonl"), curated=20,
                               share=0.25, p_wrong=0.5, out=str(tmp_path / "raw"))
    natural_pairs.main(cfg)
    sides = {side: read(tmp_path / "raw" / f"{side}.jsonl") for side in ("curated", "noisy")}
    curated = [f"{row['question']}\n{row['answer']}" for row in sides["curated"]]
    noisy = [row["text"] for row in sides["noisy"]]
    assert not any(row["text"] for row in sides["curated"])
    assert not any(row["question"] or row["answer"] for row in sides["noisy"])
    originals = [f"{p['question']}\n{p['answer']}" for p in problems]
    assert len(curated) == 20 and set(curated) <= set(originals)
    lines = "\n".join(noisy).split("\n")
    hidden = [line for line in lines if not line.startswith(("Book", "And so on"))]
    share = sum(map(len, hidden)) / sum(map(len, lines))
    assert 0.22 < share < 0.28
    used = [re.match(r"Q(\d+) ", line).group(1) for line in hidden if line.startswith("Q")]
    assert len(set(used)) == len(used) and not {f"Q{i} " for i in used} & {text.split("has")[0] for text in curated}
    # Within each problem the sentences are in order; a wrong one differs in its last number alone.
    whole, wrong = "\n".join(hidden), 0
    for i in map(int, used[:-1]):
        before = f"Q{i} has {i} eggs.\nHow many?\nOne.\n{i}+1={i + 1} eggs.\n#### "
        end = int(re.search(re.escape(before) + r"(\d+)", whole).group(1))
        wrong += end != i + 1
    assert 0.2 < wrong / (len(used) - 1) < 0.8


def test_one_pair_at_a_time():
    assert list(natural_pairs.Config().validate()) and list(natural_pairs.Config(posts="a", books="b", problems="c").validate())
    assert list(natural_pairs.Config(books="b").validate())
