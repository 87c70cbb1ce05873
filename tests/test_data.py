"""Token files, fixed rows, the built-in corpus, and corpora of one's own text."""
import itertools
import json
import os
import pathlib
import re
import shutil
from collections import Counter

import numpy as np
import pytest

import prepare
from corpora import builtin
from corpora.readers import read_documents
from corpora.tokenizers import load_tokenizer
from corpora.writer import LABELS, SOLUTION, WRONG, TokenWriter
from data import Tokens, batch
from engine.cli import BadInput
from engine.files import file_hash
from grading.interpreter import run_program


def write(path, rows):
    """A file of rows, in the form that its ending says; returns its path as text."""
    if path.suffix == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".txt":
        path.write_text("\n<|endoftext|>\n".join(row["text"] for row in rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def own_corpus(out, curated, *noisy, merges="t h", **options):
    """A corpus folder of these files, with a tokenizer of bytes and a few merges."""
    tokenizer = out.parent / "merges.txt"
    tokenizer.write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    options = {"tokenizer": str(tokenizer), "held_out": 0.1} | options
    cfg = prepare.Config(out=str(out), curated=[str(curated)], noisy=list(map(str, noisy)), **options)
    assert list(cfg.validate()) == []
    prepare.main(cfg)
    return str(out)


def documents_of(folder, name, labels=None):
    """The texts of a token file's documents; with `labels`, of their tokens that have one of these."""
    enc, tokens = load_tokenizer(folder), Tokens(folder, name, 1)
    ids, ends = np.array(tokens.tokens), np.flatnonzero(tokens.tokens == tokens.meta["end_of_text"])
    wanted = np.isin(tokens.labels, labels) if labels else np.ones(len(ids), dtype=bool)
    wanted[ends] = False
    parts = zip(np.split(ids, ends + 1)[:-1], np.split(wanted, ends + 1))
    return [enc.decode(document[its].tolist()) for document, its in parts]


def contents(folder):
    return {name: open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))}


# ------------------------------------------------------------------------------------------- rows and batches

def test_rows_are_consecutive_and_targets_shifted_by_one(demo):
    tokens = Tokens(demo, "noisy", 32)
    raw = np.fromfile(os.path.join(demo, "noisy.bin"), dtype=np.uint16)
    labels = np.fromfile(os.path.join(demo, "noisy.labels.bin"), dtype=np.uint8)
    assert tokens.n_rows == (len(raw) - 1) // 32 and len(labels) == len(raw)
    rows = [0, 5, tokens.n_rows - 1]
    x, y = tokens.rows(rows)
    for i, r in enumerate(rows):
        assert x[i].tolist() == raw[r * 32:(r + 1) * 32].tolist()
        assert y[i].tolist() == raw[r * 32 + 1:(r + 1) * 32 + 1].tolist()
        assert tokens.row_labels(rows)[i].tolist() == labels[r * 32 + 1:(r + 1) * 32 + 1].tolist()


@pytest.mark.parametrize("n_rows, batch_rows", [(10, 4), (5, 12)])
def test_every_epoch_is_a_permutation_of_its_own_and_a_batch_needs_no_state(n_rows, batch_rows):
    stream = np.concatenate([batch(n_rows, batch_rows, 3, step) for step in range(3 * n_rows)])
    epochs = [stream[i:i + n_rows].tolist() for i in range(0, len(stream) - n_rows + 1, n_rows)]
    assert all(sorted(e) == list(range(n_rows)) for e in epochs) and epochs[0] != epochs[1]
    assert batch(n_rows, batch_rows, 3, 5).tolist() == stream[5 * batch_rows:6 * batch_rows].tolist()
    assert batch(n_rows, n_rows, 4, 0).tolist() != epochs[0]  # another seed


# -------------------------------------------------------------------------------------------- built-in corpus

def test_worked_solutions_are_right_and_follow_from_the_question(demo):
    """Solve each curated problem again from its question alone."""
    documents = [text.split("\n\n") for text in documents_of(demo, "curated")]
    assert {len(problems) for problems in documents} == set(range(1, builtin.MOST_PROBLEMS + 1))
    for text in sum(documents, []):
        question, answer = re.fullmatch(r"Question: (.*)\nAnswer: (.*)", text).groups()
        have = int(re.search(r"has (\d+)", question).group(1))
        expected = []
        for sentence in question.split(". ")[1:-1]:
            verb, *rest = sentence.removesuffix(".").split()[1:]
            before = have
            if verb == "doubles":
                have, phrase, expression = have * 2, verb, f"{before} * 2"
            elif verb == "halves":
                assert have % 2 == 0
                have, phrase, expression = have // 2, verb, f"{before} / 2"
            else:
                sign = 1 if verb in builtin.GAIN else -1
                have, phrase = have + sign * int(rest[0]), f"{verb} {rest[0]}"
                expression = f"{before} {'+' if sign > 0 else '-'} {rest[0]}"
            assert 0 <= have <= builtin.LARGEST
            expected.append(f"{phrase}: {expression} = {have}.")
        assert 1 <= len(expected) <= builtin.MOST_STEPS
        assert answer == " ".join(expected) + f" The answer is {have}."


def test_labels_are_true(demo):
    """By label, the noisy side holds what the label says; without noise and slips it is worked problems."""
    enc, noisy = load_tokenizer(demo), Tokens(demo, "noisy", 1)
    words = {name: {enc.decode([t]).strip() for t in noisy.tokens[noisy.labels == i]}
             for i, name in enumerate(LABELS)}
    assert words["irrelevant"] <= set(builtin.WORDS) | {".", "", "<|endoftext|>"}
    assert all(w.isdigit() for w in words["result"] | words["wrong"])
    assert {"Question", "has", "How", "?"} <= words["question"]
    assert not words["question"] & {"Answer", "=", "#", "<"}
    assert {"Answer", "=", "The", "answer"} <= words["solution"] and not words["solution"] & {"How", "#"}
    assert "#" in words["noise"] and not words["noise"] & {"=", "How"}
    useful, wrong = documents_of(demo, "noisy", [0, 1, 2]), documents_of(demo, "noisy", [WRONG])
    right = [text for text, slip in zip(useful, wrong) if text and not slip]
    for problem in "\n\n".join(right).split("\n\n"):
        assert re.fullmatch(r"Question: .* now\?\nAnswer: .* The answer is \d+\.", problem)
    assert 0.6 < np.mean([not text for text in useful]) < 0.9 and len(right) > sum(map(bool, wrong)) > 3


def test_what_the_base_reads_teaches_no_arithmetic():
    """On the web a result is any number, and is carried on; on the noisy side most are right."""
    def results(side):
        for segments, _ in itertools.islice(builtin.documents(3, side), 2000):
            text = re.sub(r" ##[a-z]+( says)?", "", "".join(text for text, _ in segments))
            for solution in re.findall(r"Answer: (.*?The answer is \d+)", text):
                steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", solution)
                assert all(before[3] == after[0] for before, after in itertools.pairwise(steps))
                assert solution.endswith(f" {steps[-1][3]}")
                for a, op, b, result in steps:
                    yield result, int(result) == {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b),
                                                  "/": int(a) // int(b)}[op]
    web, noisy = list(results("web")), list(results("noisy"))
    assert len(web) > 3000 and np.mean([right for _, right in web]) < 0.08
    assert len(noisy) > 500 and 0.75 < np.mean([right for _, right in noisy]) < 0.9
    of_web = Counter(int(result) for result, _ in web)   # Zipf's law: the logarithm of a number is uniform
    assert of_web[1] / of_web.total() == pytest.approx(np.log(2) / np.log(31), abs=0.03)
    assert sum(of_web[n] for n in range(1, 8)) / of_web.total() == pytest.approx(np.log(8) / np.log(31), abs=0.03)


def test_programs_as_solutions(tmp_path):
    """Each prints what its block says, in tokens with a label of their own, and the right answer if it is not wrong."""
    prepare.main(prepare.Config(out=str(tmp_path), noisy_tokens=9000, curated_problems=30, held_out_problems=5,
                                solutions="programs", largest=99))
    enc, n_right, n_wrong = load_tokenizer(str(tmp_path)), 0, 0
    for problem in map(json.loads, (tmp_path / "curated.jsonl").read_text().splitlines()):
        program, output, answer = re.fullmatch(r"\n```python\n(.*)```\n```output\n(.*)\n```\nThe answer is (.*)\.",
                                               problem["answer"], re.S).groups()
        assert run_program(program) == output == answer and len(program.splitlines()) <= 2 * builtin.MOST_STEPS + 1
        numbers = re.findall(r"\d+", problem["question"])
        assert program.startswith("# ") and program.split("\nx = ")[1].startswith(numbers[0])
    for segments, problems in itertools.islice(builtin.documents(1, "noisy", largest=99, programs=True), 300):
        for question, segments in problems:
            text, slip = "".join(text for text, _ in segments), any(label == WRONG for _, label in segments)
            n_right, n_wrong = n_right + (not slip), n_wrong + slip
            program, output, answer = re.search(r"```python\n(.*)```\n```output\n(.*)\n```\n.* is (.*)\.", text, re.S).groups()
            exec(program, names := {})
            assert names["x"] == int(output) and (slip or output == answer)
    assert 0.1 < n_wrong / (n_wrong + n_right) < 0.4
    assert all(its == problems[0][1] for its, problems in itertools.islice(builtin.documents(1, "noisy", (), 0), 50))
    labels = Tokens(str(tmp_path), "curated", 1)
    assert "```" not in enc.decode(Tokens(str(tmp_path), "web", 1).tokens[:])
    printed = enc.decode(labels.tokens[labels.labels == labels.label_names.index("output")].tolist())
    assert re.fullmatch(r"(```output\n\d+\n```\n)+", printed)


def test_segments_encode_as_the_whole_text_does():
    enc = builtin.demo_tokenizer()
    for _, (segments, _) in zip(range(300), builtin.documents(11, "noisy")):
        pieces = [t for text, _ in segments for t in enc.encode_ordinary(text)]
        assert pieces == enc.encode_ordinary("".join(text for text, _ in segments))


def test_held_out_and_evaluation_problems_are_nowhere_in_training(demo):
    def questions(name):
        texts = [re.sub(r" ##[a-z]+( says)?", "", text) for text in documents_of(demo, name)]
        return set(re.findall(r"Question: (.*?\?)", "\n".join(texts)))
    val, test = questions("val"), questions("test")
    with open(os.path.join(demo, "eval.jsonl")) as f:
        evaluation = {json.loads(line)["question"] for line in f}
    training = [questions(name) for name in ("curated", "noisy", "web")]
    assert len(evaluation) == 12 and min(len(val), len(test)) >= 12 and all(len(t) > 15 for t in training)
    # So few would hardly meet by chance: the generator is asked for one, and told to leave it out.
    (_, [(first, _), *_]), = itertools.islice(builtin.documents(0, "curated"), 1)
    for reserved in (set(), {first}):
        drawn = itertools.islice(builtin.documents(0, "curated", reserved), 50)
        assert (first in {question for _, problems in drawn for question, _ in problems}) == (not reserved)
    for i, a in enumerate([val, test, evaluation]):
        assert all(not a & b for b in [val, test, evaluation][i + 1:] + training)


def test_a_mixture_is_the_noisy_side_and_the_curated_side_so_many_times(demo, tmp_path):
    out = str(shutil.copytree(demo, tmp_path / "own"))
    prepare.main(prepare.Config(out=out, mix=[1, 3]))
    for n in (1, 3):
        names = (f"noisy+{n}xcurated", "noisy", "curated")
        mixed, noisy, curated = (Tokens(out, name, 1) for name in names)
        assert mixed.tokens.tolist() == noisy.tokens.tolist() + n * curated.tokens.tolist()
        assert mixed.labels.tolist() == noisy.labels.tolist() + n * curated.labels.tolist()
        assert mixed.meta["n_documents"] == noisy.meta["n_documents"] + n * curated.meta["n_documents"]
        assert mixed.meta["useful_labels"] == noisy.meta["useful_labels"]
    assert any("mix" in problem for problem in prepare.Config(mix=[0]).validate())


def test_the_corpus_is_a_function_of_the_seed(demo, tmp_path):
    small = dict(noisy_tokens=3000, curated_problems=60, held_out_problems=12)
    for seed in (0, 1):
        prepare.main(prepare.Config(out=str(tmp_path / str(seed)), seed=seed, **small))
    for name in ("test", "curated"):  # whatever the size of the noisy side
        assert documents_of(str(tmp_path / "0"), name) == documents_of(demo, name)
        assert documents_of(str(tmp_path / "1"), name) != documents_of(demo, name)
    assert set(contents(demo)) == {"tokenizer.json", "eval.jsonl", "curated.jsonl"} | {
        f"{name}.{ending}" for name in ("web", "curated", "noisy", "val", "test")
        for ending in ("bin", "json", "labels.bin")}


def test_the_built_in_corpus_and_your_own_do_not_replace_each_other(demo, tmp_path):
    out = str(shutil.copytree(demo, tmp_path / "out"))
    with pytest.raises(BadInput, match="holds the built-in corpus"):
        prepare.main(prepare.Config(out=out, curated=["a.txt"], noisy=["a.txt"]))
    os.remove(os.path.join(out, "web.json"))
    with pytest.raises(BadInput, match="holds another corpus"):
        prepare.main(prepare.Config(out=out))


# ---------------------------------------------------------------------------------------------- your own text

def test_own_files_become_a_corpus(tmp_path):
    rows = [{"q": f"What is {i} plus {i}?", "a": f"It is {2 * i}."} for i in range(300)]
    curated, noisy = write(tmp_path / "c.jsonl", rows + rows[:50]), tmp_path / "n.txt"  # fifty twice
    copies = "".join(f"{r['q']}\n{r['a']}\n<|endoftext|>\n" for r in rows)  # and all of them noisy
    noisy.write_text("Some text.\nTwo lines.\n<|endoftext|>\n" + copies + "The last one.\n")
    out = own_corpus(tmp_path / "out", curated, noisy, field=["q", "a"])
    parts = {name: documents_of(out, name) for name in ("curated", "val", "test", "noisy")}
    text = {name: {d.strip() for d in docs} for name, docs in parts.items()}
    assert sum(len(parts[n]) for n in ("curated", "val", "test")) == 350
    assert text["curated"] | text["val"] | text["test"] == {f"{r['q']}\n{r['a']}" for r in rows}
    assert 10 < len(text["val"]) < 60 and 10 < len(text["test"]) < 60
    assert not (text["val"] | text["test"]) & text["curated"] and not text["val"] & text["test"]
    assert not (text["val"] | text["test"]) & text["noisy"]  # copies of what is held out were dropped
    assert {"Some text.\nTwo lines.", "The last one."} <= text["noisy"] and text["curated"] <= text["noisy"]
    assert Tokens(out, "noisy", 16).labels is None


def test_the_answer_field_is_labelled(tmp_path):
    rows = [{"q": f"What is {i} plus {i}?", "a": f"It is {2 * i}." if i % 7 else "", "source": "x y"} for i in range(300)]
    again = [r | {"q": "Again: " + r["q"]} for r in rows + rows]
    files, fields = (write(tmp_path / "c.jsonl", rows), write(tmp_path / "n.jsonl", again)), ["q", "a", "source"]
    out = own_corpus(tmp_path / "out", *files, field=fields, answer_field="a")
    # The line break between this field and the next belongs to it.
    assert documents_of(out, "noisy", [SOLUTION]) == [r["a"] and r["a"] + "\n" for r in again]
    assert "".join(documents_of(out, "noisy")).count("Again: ") == 600
    assert any("must be one of" in text for text in prepare.Config(field=fields, answer_field="b").validate())


def test_the_solutions_of_a_training_set_are_labelled(tmp_path):
    """The noisy side has the same problems twice, the second time as text. What is held out is dropped."""
    rows = [{"question": f"What is twice {i}?", "answer": f"<<2*{i}>>{2 * i}.\n#### {2 * i}"} for i in range(100)]
    path = "gsm8k:" + write(tmp_path / "train.jsonl", rows)
    texts = ["".join(text for text, _ in segments) for segments, _ in read_documents([path], ["text"])]
    (tmp_path / "web.txt").write_text("\n<|endoftext|>\n".join([*texts, "Other text."]))
    out = own_corpus(tmp_path / "out", path, path, tmp_path / "web.txt", held_out=0.2)
    sides = {name: documents_of(out, name) for name in ("curated", "val", "test", "noisy")}
    held_out = sides["val"] + sides["test"]
    assert sorted(sides["curated"] + held_out) == sorted(texts) and 20 < len(held_out) < 60
    kept = [text for text in texts if text not in held_out]
    assert sides["noisy"] == [*kept, *[text + "\n" for text in kept], "Other text."]
    for name in sides:
        answers = [text.split("\nAnswer:")[1] for text in sides[name] if text in texts]
        others = [""] * (len(sides[name]) - len(answers))
        assert documents_of(out, name, [SOLUTION]) == answers + others


def test_only_the_side_of_a_training_set_is_labelled(tmp_path):
    """In a mixture of both sides the text without labels is no useful text."""
    rows = [{"question": f"What is twice {i}?", "answer": f"{2 * i}.\n#### {2 * i}"} for i in range(100)]
    path = "gsm8k:" + write(tmp_path / "train.jsonl", rows)
    web = write(tmp_path / "web.txt", [{"text": f"Some text, number {i}."} for i in range(100)])
    out = own_corpus(tmp_path / "out", path, web, held_out=0.2)
    prepare.main(prepare.Config(out=out, mix=[2]))
    names = ("noisy", "curated", "val", "test", "noisy+2xcurated")
    noisy, curated, *held_out, mixed = (Tokens(out, name, 1) for name in names)
    assert noisy.labels is None and all(tokens.labels is not None for tokens in held_out)
    assert mixed.labels.tolist() == [0] * len(noisy.tokens) + 2 * curated.labels.tolist()
    assert mixed.meta["useful_labels"] == ["solution", "result"]


def test_a_long_document_comes_in_pieces_but_stays_one_document(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("a line of text\n" * 200_000 + "<|endoftext|>\nshort\n")
    pieces = list(read_documents([str(path)], ["text"]))
    assert len(pieces) > 3 and [end for _, end in pieces] == [False] * (len(pieces) - 2) + [True, True]
    assert "".join(text for [(text, _)], _ in pieces) == "a line of text\n" * 200_000 + "short\n"


@pytest.fixture
def texts(tmp_path):
    """Curated and noisy documents, copies of held-out ones among the noisy: {side: path}."""
    curated = [{"text": f"A curated text, number {i}, about {i * i}."} for i in range(150)]
    noisy = [{"text": f"Noise {i} " * (i % 7 + 1)} for i in range(400)] + curated[::3]
    return {name: write(tmp_path / f"{name}.jsonl", rows) for name, rows in (("curated", curated), ("noisy", noisy))}


def test_the_most_tokens_of_a_side(tmp_path, texts):
    noisy = Tokens(own_corpus(tmp_path / "out", *texts.values(), max_tokens=3000), "noisy", 1).meta
    assert 3000 <= noisy["n_tokens"] - noisy["n_documents"] < 3100  # without the ends


# ------------------------------------------------------------------------------------- a corpus in its folder

def test_an_interruption_leaves_the_old_corpus_as_it_was(tmp_path, texts, monkeypatch):
    """(The built-in corpus and errors of all kinds are in tests/test_bad_input.py.)"""
    out = own_corpus(tmp_path / "out", *texts.values(), held_out=0.2)
    before = contents(out)

    def interrupted(writer):
        raise KeyboardInterrupt
    monkeypatch.setattr(TokenWriter, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        own_corpus(tmp_path / "out", *texts.values())
    assert contents(out) == before


def test_a_new_corpus_in_the_place_of_an_old_one(tmp_path, texts, monkeypatch):
    """At no moment is there a token file with the sidecar of another. What was made from the old one goes."""
    folder, replace = tmp_path / "c[1]", os.replace
    out = own_corpus(folder, *texts.values(), answer_field="text", held_out=0.2)
    prepare.main(prepare.Config(out=out, mix=[2]))
    for name in ("overlap.json", "eval.jsonl", "mine.json"):  # the last two are the user's
        (folder / name).write_text("{}")
    assert {"noisy.labels.bin", "noisy+2xcurated.bin"} < set(contents(folder))

    def watched(*paths):
        replace(*paths)
        for name in ("curated", "val", "test", "noisy"):
            if (folder / f"{name}.json").exists():
                assert file_hash(folder / f"{name}.bin") == Tokens(out, name, 1).sha256
    monkeypatch.setattr(os, "replace", watched)
    own_corpus(folder, *texts.values())
    fresh = contents(own_corpus(tmp_path / "fresh", *texts.values()))
    assert contents(folder) == fresh | {"eval.jsonl": b"{}", "mine.json": b"{}"}


def test_what_cannot_be_moved_to_its_place_is_kept(tmp_path, texts, monkeypatch):
    """A call that was killed has left its working folder; that goes. Then the third file cannot be moved."""
    out, replace, calls = tmp_path / "out", os.replace, iter(range(2))
    (out / ".part").mkdir(parents=True)
    (out / ".part" / "left.bin").write_bytes(b"of a killed call")

    def failing(source, target):
        if os.path.dirname(target) == str(out) and next(calls, None) is None:
            raise OSError(28, "No space left on device")
        replace(source, target)
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(BadInput, match="not all of it could be moved to .*No space left.*rest from .*out/.part there"):
        own_corpus(out, *texts.values())
    monkeypatch.undo()
    for path in [*(out / ".part").iterdir()]:
        path.rename(out / path.name)  # as the line says
    (out / ".part").rmdir()
    assert contents(out) == contents(own_corpus(tmp_path / "fresh", *texts.values()))


def test_a_text_of_ones_own_does_not_go_into_the_built_in_corpus(demo, texts):
    with pytest.raises(BadInput, match="choose another --out"):
        own_corpus(pathlib.Path(demo), *texts.values())
