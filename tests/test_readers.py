"""What is read from the user's files, and what is refused in one line: endings, values, byte-order marks."""
import datetime
import gzip
import json
import lzma
import math
import sys
import types

import pytest

import prepare
from corpora.builtin import demo_tokenizer
from corpora.readers import read_documents
from corpora.tokenizers import load_tokenizer, save_tokenizer, tokenizer_hash
from corpora.writer import QUESTION, SOLUTION
from engine.cli import BadInput
from grading.results import grade_file
from grading.tasks import load_problems
from test_data import write

ROWS = [{"text": f"Ava has {i} hens.\nShe is glad.", "more": {"a": [i]}} for i in range(5)]
TEXTS = [row["text"] for row in ROWS]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
BOM = "\ufeff"


def documents(path, fields=("text",), answer_field=""):
    found = read_documents([str(path)], list(fields), answer_field)
    return ["".join(text for text, _ in segments) for segments, _ in found]


def hub(monkeypatch, rows):
    """A stand-in for the package `datasets` and the network: rows() are the rows of every dataset."""
    module = types.ModuleType("datasets")
    module.load_dataset = lambda name, split, streaming: rows()
    monkeypatch.setitem(sys.modules, "datasets", module)


def refused(says, path, *options):
    with pytest.raises(BadInput) as e:
        documents(path, *options)
    assert "\n" not in str(e.value) and str(path) in str(e.value)
    assert all(words in str(e.value) for words in says), str(e.value)


# ---------------------------------------------------------------------------------------------------- endings

@pytest.mark.parametrize("name, opened", [
    ("lines.json", open), ("c4-train.00000-of-01024.json.gz", gzip.open), ("A.JSON.XZ", lzma.open), ("UP.JSONL", open),
    ("train-00001-of-00002.Ndjson.gz", gzip.open)])
def test_lines_of_json_are_rows_whatever_the_ending_looks_like(tmp_path, name, opened):
    for mark in ("", BOM):
        with opened(tmp_path / name, "wt", encoding="utf-8") as f:
            f.write(mark + LINES)
        assert documents(tmp_path / name) == TEXTS


def test_a_json_file_is_looked_at(tmp_path):
    for content, texts in (
            (json.dumps(ROWS), TEXTS),
            (BOM + json.dumps(ROWS, indent=2), TEXTS),
            (json.dumps({f"row {i}": row for i, row in enumerate(ROWS)}), TEXTS),
            (json.dumps(ROWS[0]) + "\n\n", TEXTS[:1]),
            (json.dumps(ROWS[0], indent=2), TEXTS[:1]),
            ("\n\n" + LINES, TEXTS),
            ("", [])):
        (tmp_path / "a.json").write_text(content, encoding="utf-8")
        assert documents(tmp_path / "a.json") == texts


@pytest.mark.parametrize("content, says", [
    (json.dumps({"rows": ROWS}), ["row 1", "no field 'text'", "--field"]),
    (json.dumps([ROWS[0], 5]), ["row 2", "not a JSON object", "5"]),
    (json.dumps(ROWS[0]) + "\n[1]\n", ["line 2", "not a JSON object"]),
    (json.dumps(ROWS[0], indent=1) * 2, ["neither JSON lines nor one JSON value"]),
    ("[" * 100_000, ["neither JSON lines nor one JSON value"]),
])
def test_a_json_file_that_holds_something_else(tmp_path, content, says):
    (tmp_path / "a.json").write_text(content)
    refused(says, tmp_path / "a.json")


@pytest.mark.parametrize("name, content, says", [
    ("a.jsonl.gz", gzip.compress(b"{}" * 9000)[:20], "damaged or cut off"),
    ("a.jsonl.xz", b"not packed at all", "damaged or cut off")])
def test_damaged_packed_files(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    refused([says], tmp_path / name)


@pytest.mark.parametrize("name", ["table.csv", "README.md", "corpus.gz", "a.jsonl.00001", "A.JSONL.BZ2", "a.tar.gz"])
def test_other_endings_are_refused_before_anything_is_read(name):
    for sides in (dict(curated=[name], noisy=["a.jsonl"]), dict(curated=["a.jsonl"], noisy=["a.jsonl", name])):
        [problem] = prepare.Config(**sides).validate()
        assert problem.startswith(f"{name} has no ending that is known") and "unpack" in problem


@pytest.mark.parametrize("name, options, says", [
    ("x.parquet.gz", {}, "unpack it first"), ("gsm8k:x.parquet", {}, "take .jsonl, .ndjson or"),
    ("a.TXT.GZ", dict(answer_field="text"), "a .txt has none")])
def test_what_an_ending_does_not_go_with(name, options, says):
    [problem] = prepare.Config(curated=[name], noisy=["a.jsonl"], **options).validate()
    assert says in problem


# ------------------------------------------------------------------------------------------ values of a field

@pytest.mark.parametrize("value", [
    [{"role": "user", "content": "Hello"}], [], {"en": "Hello"}, 0, math.nan, True, "x\ud83d"], ids=ascii)
def test_what_is_no_text_is_no_document(tmp_path, value, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text(LINES + json.dumps({"text": value, "other": "good"}) + "\n")
    refused(["line 6", "'text'", "holds no text", "--field"], path)
    refused(["line 6", "'text'", "holds no text"], path, ("text",), "text")
    hub(monkeypatch, lambda: [*ROWS, {"text": value}])
    refused(["row 6", "'text'", "holds no text"], "hf:some/set")


def test_an_empty_field_is_empty_and_a_network_may_fail(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": null, "b": "x"}\n{"text": "y", "b": ""}\n')
    assert documents(tmp_path / "a.jsonl", ("text", "b")) == ["x", "y"]

    hub(monkeypatch, lambda: ROWS)
    assert documents("hf:some/set") == TEXTS

    def fails():
        yield ROWS[0]
        raise ConnectionError  # an error without a message
    hub(monkeypatch, fails)
    refused(["behind row 1", "ConnectionError"], "hf:some/set")
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    refused(["another package", "datasets"], "hf:some/set")


def test_columns_of_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    def parquet(array):
        write_table(pa.table({"text": array}), tmp_path / "Part.c000.Parquet")
        return tmp_path / "Part.c000.Parquet"
    plain = pa.array(["na\u00efve", "b", None])
    as_bytes = plain.cast(pa.binary())
    for array in (plain, plain.cast(pa.large_string()), plain.dictionary_encode(), as_bytes, as_bytes.dictionary_encode()):
        assert documents(parquet(array)) == ["na\u00efve", "b", ""]
    buffers = [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    for array, says in ((pa.array([b"fine", b"caf\xe9"]), "row 2, holds no text"), (pa.array([["a", "b"]]), "row 1"),
                        (pa.array([datetime.datetime(2024, 1, 1)]), "row 1"),
                        (pa.array([2**62], pa.timestamp("us")), "failed behind row 0"),
                        (pa.Array.from_buffers(pa.string(), 1, buffers), "failed behind row 0")):
        refused(says.split(", "), parquet(array))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    refused(["failed behind row 0"], tmp_path / "a.parquet")


# ------------------------------------------------------------------------------------------- byte-order marks

def test_a_byte_order_mark_is_no_text(tmp_path):
    for name, opened in (("a.txt", open), ("a.txt.gz", gzip.open), ("a.txt.xz", lzma.open)):
        with opened(tmp_path / name, "wt", encoding="utf-8") as f:
            f.write(BOM + "<|endoftext|>\nOne.\n<|endoftext|>\nTwo.\n")
        assert documents(tmp_path / name) == ["One.\n", "Two.\n"]
        with opened(tmp_path / name, "wb") as f:
            f.write("One.\n".encode("utf-16"))
        refused(["not UTF-8", "iconv"], tmp_path / name)


def test_a_byte_order_mark_before_problems_answers_and_tokenizers(tmp_path):
    problem = {"question": "Ava has 3 hens.", "answer": "The answer is 3."}
    (tmp_path / "a.jsonl").write_text(BOM + json.dumps(problem), encoding="utf-8")
    assert load_problems("demo", str(tmp_path / "a.jsonl"))[0]["answer"] == "3"
    graded = json.dumps({"generation": "The answer is 3.", "answer": "3"})
    (tmp_path / "g.jsonl").write_text(BOM + graded + "\n", encoding="utf-8")
    grade_file(str(tmp_path / "g.jsonl"), "gsm8k")
    assert json.loads((tmp_path / "g.jsonl").read_text(encoding="utf-8"))["correct"]
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    save_tokenizer(demo_tokenizer(), str(tmp_path))
    for name, source in (("merges.txt", tmp_path / "merges.txt"), ("tokenizer.json", tmp_path)):
        before = tokenizer_hash(load_tokenizer(str(source)))
        (tmp_path / name).write_bytes(BOM.encode() + (tmp_path / name).read_bytes())
        assert tokenizer_hash(load_tokenizer(str(source))) == before


# --------------------------------------------------------------------------------------------------- problems

def test_problems_are_rows_of_text_too(tmp_path):
    path = tmp_path / "problems.JSON"
    good = {"question": "Ava has 3 hens.", "answer": 3}
    path.write_text(json.dumps({"1": good, "2": good}))
    assert [p["answer"] for p in load_problems("demo", str(path))] == ["3", "3"]
    for bad in ({"question": ["Ava has 3 hens."]}, {"question": None}, {"question": "half \ud83d"}, {"answer": [3]},
                {"answer": math.nan}):
        path.write_text(json.dumps([good, good | bad]))
        with pytest.raises(BadInput, match="problems.JSON, row 2, is not a question with its answer"):
            load_problems("demo", str(path))


GSM8K = [{"question": " Ava has 2 hens. ", "answer": "She gets 2: 2+2=<<2+2=4>>4.\n#### 1,004"},
         {"question": "No answer?", "answer": "None.\n####"}]
MATH = [{"problem": "What is $2+2$?", "solution": "It is $\\boxed{4}$."},
        {"problem": "How many?", "solution": "This marks no answer."}]
TRAINING_SETS = [  # task, rows, the one document that they give (question, solution)
    ("gsm8k", GSM8K, ("Question: Ava has 2 hens.\nAnswer:", " She gets 2: 2+2=4. The answer is 1004.")),
    ("math", MATH, ("Problem: What is $2+2$?\nSolution:",
                    " It is $\\boxed{4}$.\nFinal Answer: The final answer is $4$. I hope it is correct."))]


@pytest.mark.parametrize("task, rows, document", TRAINING_SETS, ids=["gsm8k", "math"])
def test_a_training_set_in_the_form_of_the_prompts(tmp_path, task, rows, document):
    """Problems without an answer are left out. (The worked problems' form is in test_eval.py, test_demonstrations.)"""
    [(segments, ends)] = read_documents([f"{task}:{write(tmp_path / 'a.jsonl', rows)}"], ["text"])
    assert segments == list(zip(document, (QUESTION, SOLUTION))) and ends
    path = write(tmp_path / "a.jsonl", [rows[0], {"text": "x"}])  # more of what is broken is in the test before
    with pytest.raises(BadInput, match=f"^{path}, line 2, is not a row of.*$"):
        documents(f"{task}:{path}")
