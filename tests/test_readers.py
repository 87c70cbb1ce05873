"""What is read from the user's files, and what is refused in one line: endings, kinds of values, byte-order marks."""
import base64
import datetime
import gzip
import json
import lzma
import math
import sys
import types

import pytest

import prepare
from corpora.natural_pairs import rows_of
from corpora.readers import read_documents
from corpora.tokenizers import demo_tokenizer, load_tokenizer, save_tokenizer, tokenizer_hash
from data import Tokens
from engine.cli import BadInput
from grading.report import grade_file
from grading.tasks import load_problems

ROWS = [{"text": f"Ava has {i} hens.\nShe is glad.", "more": {"a": [i]}} for i in range(5)]
TEXTS = [row["text"] for row in ROWS]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
BOM = "\ufeff"


def documents(path, fields=("text",), answer_field=""):
    found = read_documents([str(path)], list(fields), answer_field)
    return ["".join(text for text, _ in segments) for segments, _ in found]


def refused(says, path, *options):
    with pytest.raises(BadInput) as e:
        documents(path, *options)
    assert "\n" not in str(e.value) and str(path) in str(e.value)
    assert all(words in str(e.value) for words in says), str(e.value)


# ----------------------------------------------------------------------------------------------------- endings

@pytest.mark.parametrize("name, opened", [
    ("lines.json", open), ("c4-train.00000-of-01024.json.gz", gzip.open), ("A.JSON.XZ", lzma.open), ("b.ndjson", open),
    ("train-00001-of-00002.Ndjson.gz", gzip.open), ("UP.JSONL", open), ("UP.JSONL.GZ", gzip.open)])
@pytest.mark.parametrize("mark", ["", BOM])
def test_lines_of_json_are_rows_whatever_the_ending_looks_like(tmp_path, name, opened, mark):
    with opened(tmp_path / name, "wt", encoding="utf-8") as f:
        f.write(mark + LINES)
    assert documents(tmp_path / name) == TEXTS


@pytest.mark.parametrize("content, texts", [
    (json.dumps(ROWS), TEXTS),
    (json.dumps(ROWS, indent=2), TEXTS),
    (BOM + json.dumps(ROWS, indent=2), TEXTS),
    (json.dumps({f"row {i}": row for i, row in enumerate(ROWS)}), TEXTS),
    (json.dumps(ROWS[0]), TEXTS[:1]),
    (json.dumps(ROWS[0], indent=2), TEXTS[:1]),
    (json.dumps(ROWS[0]) + "\n\n", TEXTS[:1]),
    ("\n\n" + LINES, TEXTS),
    ("[]", []),
    ("", []),
])
def test_a_json_file_is_looked_at(tmp_path, content, texts):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert documents(tmp_path / "a.json") == texts


@pytest.mark.parametrize("content, says", [
    (json.dumps({"rows": ROWS}), ["row 1", "no field 'text'", "--field"]),
    (json.dumps([ROWS[0], 5]), ["row 2", "not a JSON object", "5"]),
    (json.dumps(ROWS[0]) + "\n{cut", ["line 2", "not a JSON object"]),
    (json.dumps(ROWS[0]) + "\n[1]\n", ["line 2", "not a JSON object"]),
    (json.dumps(ROWS[0], indent=1) * 2, ["neither JSON lines nor one JSON value"]),
    ("some words\nand more\n", ["neither JSON lines nor one JSON value"]),
    ("[" * 100_000, ["neither JSON lines nor one JSON value"]),
    ("3", ["holds no rows"]),
])
def test_a_json_file_that_holds_something_else(tmp_path, content, says):
    (tmp_path / "a.json").write_text(content)
    refused(says, tmp_path / "a.json")


@pytest.mark.parametrize("name, says", [
    ("table.csv", ["no ending that is known", ".txt", ".jsonl"]), ("page.html", ["no ending"]),
    ("README.md", ["no ending"]), ("corpus", ["no ending"]), ("corpus.gz", ["no ending"]),
    ("a.txt.bak", ["no ending"]), ("a.jsonl.00001", ["no ending"]),
    ("a.txt.zst", ["packed", "unpack it first"]), ("A.JSONL.BZ2", ["packed", "unpack it first"]),
    ("a.tar.gz", ["packed", "unpack it first"]), ("a.parquet.gz", [".parquet", "unpack it first"])])
def test_other_endings_are_refused_before_anything_is_read(tmp_path, name, says):
    (tmp_path / name).write_text(LINES)
    (tmp_path / "a.jsonl").write_text(LINES)
    refused(says, tmp_path / name)
    good, bad = str(tmp_path / "a.jsonl"), str(tmp_path / name)
    for cfg in (prepare.Config(curated=[bad], noisy=[good]), prepare.Config(curated=[good], noisy=[good, bad])):
        found = list(cfg.validate())
        assert len(found) == 1 and all(words in found[0] for words in [name, *says])


def test_a_txt_has_no_fields_in_capitals_either():
    cfg = prepare.Config(curated=["a.TXT.GZ"], noisy=["a.jsonl"], answer_field="text")
    assert any("a .txt has none" in problem for problem in cfg.validate())


# -------------------------------------------------------------------------------------------- values of a field

@pytest.mark.parametrize("value, kind", [
    ([{"role": "user", "content": "Hello"}], "a list"), ([], "a list"), ({"en": "Hello"}, "an object"),
    (5, "a number"), (0, "a number"), (0.5, "a number"), (math.inf, "a number"), (math.nan, "NaN"),
    (True, "true or false"), ("x\ud83d", "half")])
def test_what_is_no_text_is_no_document(tmp_path, value, kind, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text(LINES + json.dumps({"text": value, "other": "good"}) + "\n")
    refused(["line 6", "'text'", kind, "--field"], path)
    refused(["line 1", "'more'", "an object"], path, ("text", "more"))
    refused(["line 6", "'text'", kind], path, ("text",), "text")
    with pytest.raises(BadInput, match="line 6.*holds"):
        rows_of(str(path), ("text",))
    module = types.ModuleType("datasets")
    module.load_dataset = lambda name, split, streaming: iter([*ROWS, {"text": value}])
    monkeypatch.setitem(sys.modules, "datasets", module)
    refused(["row 6", "'text'", kind], "hf:some/set")


def test_an_empty_field_is_empty_and_rows_must_have_fields(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": null, "b": "x"}\n{"text": "y", "b": ""}\n')
    assert documents(tmp_path / "a.jsonl", ("text", "b")) == ["x", "y"]
    assert rows_of(str(tmp_path / "a.jsonl"), ("text",)) == [("",), ("y",)]
    module = types.ModuleType("datasets")
    module.load_dataset = lambda name, split, streaming: iter(["a row that is one text"])
    monkeypatch.setitem(sys.modules, "datasets", module)
    refused(["row 1", "no fields"], "hf:some/set")

    def fails(name, split, streaming):
        raise ConnectionError
    module.load_dataset = fails
    refused(["ConnectionError"], "hf:some/set")  # an error without a message


def test_columns_of_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    write = pytest.importorskip("pyarrow.parquet").write_table

    def parquet(array):
        write(pa.table({"text": array}), tmp_path / "Part.c000.Parquet")
        return tmp_path / "Part.c000.Parquet"
    plain = pa.array(["na\u00efve", "b", None])
    as_bytes = plain.cast(pa.binary())
    for array in (plain, plain.cast(pa.large_string()), plain.dictionary_encode(),
                  as_bytes, as_bytes.cast(pa.large_binary()), as_bytes.dictionary_encode()):
        assert documents(parquet(array)) == ["na\u00efve", "b", ""]
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    for array, says in ((pa.array([b"fine", b"caf\xe9"]), ["row 2", "bytes that are not UTF-8"]),
                        (pa.array([["a", "b"]]), ["row 1", "a list"]),
                        (pa.array([None, 1]), ["row 2", "a number"]),
                        (pa.array([datetime.datetime(2024, 1, 1)]), ["row 1", "datetime"]),
                        (pa.array([2**62], pa.timestamp("us")), ["row 1", "cannot be read"]),
                        (broken, ["row 1", "cannot be read"])):
        refused(says, parquet(array))


def test_copies_of_held_out_texts_are_dropped_whichever_reader_they_come_from(tmp_path):
    pa = pytest.importorskip("pyarrow")
    rows = [{"text": f"A text about {i} and {i * i}."} for i in range(60)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "n.json").write_text(BOM + json.dumps(rows, indent=1), encoding="utf-8")
    (tmp_path / "n.TXT").write_text(BOM + "\n<|endoftext|>\n".join(row["text"] for row in rows), encoding="utf-8")
    binary = pa.array([row["text"].encode() for row in rows])
    pytest.importorskip("pyarrow.parquet").write_table(pa.table({"text": binary}), tmp_path / "n.parquet")
    save_tokenizer(demo_tokenizer(), str(tmp_path))
    for name in ("n.json", "n.TXT", "n.parquet"):
        prepare.main(prepare.Config(curated=[str(tmp_path / "c.jsonl")], noisy=[str(tmp_path / name)], held_out=0.2,
                                    tokenizer=str(tmp_path), out=str(tmp_path / "out")))
        n = {side: Tokens(str(tmp_path / "out"), side, 1).meta["n_documents"] for side in ("noisy", "val", "test")}
        assert n["noisy"] == 60 - n["val"] - n["test"] < 50, name


# -------------------------------------------------------------------------------------------- byte-order marks

@pytest.mark.parametrize("opened", [open, gzip.open, lzma.open])
def test_a_byte_order_mark_is_no_text(tmp_path, opened):
    path = tmp_path / ("a.txt" + {open: "", gzip.open: ".gz", lzma.open: ".xz"}[opened])
    with opened(path, "wt", encoding="utf-8") as f:
        f.write(BOM + "<|endoftext|>\nOne.\n<|endoftext|>\nTwo.\n")
    assert list(read_documents([str(path)] * 2, ["text"])) == [([(t, 0)], True) for t in ("One.\n", "Two.\n") * 2]
    with opened(path, "wb") as f:
        f.write("One.\n".encode("utf-16"))
    refused(["not UTF-8", "iconv"], path)


def test_a_byte_order_mark_before_problems_answers_and_tokenizers(tmp_path):
    problem = {"question": "Ava has 3 hens.", "answer": "The answer is 3."}
    for name, content in (("a.jsonl", json.dumps(problem) + "\n"), ("a.json", json.dumps([problem], indent=1))):
        (tmp_path / name).write_text(BOM + content, encoding="utf-8")
        assert load_problems("demo", str(tmp_path / name))[0]["answer"] == "3"
    (tmp_path / "g.jsonl").write_text(BOM + '{"generation": "The answer is 3.", "answer": "3"}\n', encoding="utf-8")
    grade_file(str(tmp_path / "g.jsonl"), "gsm8k")
    assert json.loads((tmp_path / "g.jsonl").read_text(encoding="utf-8"))["correct"]
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    (tmp_path / "words.tiktoken").write_bytes(b"".join(b"%s %d\n" % line for line in ranks()))
    save_tokenizer(demo_tokenizer(), str(tmp_path))
    for name in ("merges.txt", "words.tiktoken", "tokenizer.json"):
        source = str(tmp_path if name == "tokenizer.json" else tmp_path / name)
        before = tokenizer_hash(load_tokenizer(source))
        (tmp_path / name).write_bytes(BOM.encode() + (tmp_path / name).read_bytes())
        assert tokenizer_hash(load_tokenizer(source)) == before


def ranks():
    return [(base64.b64encode(bytes([i])), i) for i in range(256)]


# ---------------------------------------------------------------------------------------------------- problems

def test_problems_are_rows_of_text_too(tmp_path):
    path = tmp_path / "problems.JSON"
    good = {"question": "Ava has 3 hens.", "answer": 3}
    for content in (json.dumps(good) + "\n" + json.dumps(good), json.dumps({"1": good, "2": good})):
        path.write_text(content)
        assert [p["answer"] for p in load_problems("demo", str(path))] == ["3", "3"]
    for bad in ({"question": ["Ava has 3 hens."]}, {"question": None}, {"question": "half \ud83d"}, {"answer": [3]},
                {"answer": {"value": 3}}, {"answer": math.nan}):
        path.write_text(json.dumps([good, good | bad]))
        with pytest.raises(BadInput, match="problems.JSON, row 2, is not a question with its answer"):
            load_problems("demo", str(path))
