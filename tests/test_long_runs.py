"""Runs of blanks that are too long for the tokenizers' libraries: in pieces, with the ids of the whole."""
import json

import numpy as np
import pytest
import tiktoken

import prepare
from corpora import long_runs
from corpora.long_runs import LONGEST_RUN, encode_in_pieces, pieces
from corpora.tokenizers import GPT2_PATTERN, SINGLE_BYTES, load_tokenizer, make_tokenizer
from data import Tokens
from engine.cli import BadInput
from test_hf_tokenizer import made

BLANKS = [b" " * 2**i for i in range(1, 5)] + [b"   ", b"\n\n", b"\n\n\n\n", b" \n", b"\t\t", b"th"]
N = 25_003


@pytest.fixture
def enc():
    return make_tokenizer("blanks", GPT2_PATTERN, SINGLE_BYTES + BLANKS)


@pytest.fixture
def short(monkeypatch):
    """Runs are cut that the library can take, so that one can compare."""
    for name, value in (("LONGEST_RUN", 9000), ("STEP", 2**12), ("WINDOW", 2**10)):
        monkeypatch.setattr(long_runs, name, value)


def of_library(enc, text):
    return tiktoken.Encoding.encode_ordinary(enc, text)


@pytest.mark.parametrize("unit", [" ", "\n", "\t", "\r\n", "\u00a0", "\u3000", " \n", "\n    ", "    \n\n", "\n\n\t  "])
def test_ids_are_those_of_the_whole(enc, short, unit):
    run = (unit * N)[:N]
    for before in ("", "x", "word " * 2345, ".\n\n "):
        for behind in ("", "th.", " th.", "\nth", "\u6771"):
            text = before + run + behind
            assert len(pieces(text)) > 3 and "".join(pieces(text)) == text
            assert enc.encode_ordinary(text) == enc.encode(text) == of_library(enc, text), (before, behind)
    assert enc.encode_ordinary_batch([run, "a", text]) == [of_library(enc, t) for t in (run, "a", text)]


def test_other_texts_are_left_whole(enc, short):
    for text in ("", "a", "a" * N, "a b " * N, "7" * N, "\x1c" * N, " " * 9000 + "x", ("x" + " " * 8999) * 3):
        assert pieces(text) == [text]
    for n in (8999, 9000, 9001, 9002):
        for before in range(0, 9000, 700):
            text = "x" * before + " " * n + "th"
            assert len(pieces(text)) == 1 + (n > 9000) and enc.encode_ordinary(text) == of_library(enc, text)


def test_special_tokens_are_found_around_a_cut(enc, short):
    text = "<|endoftext|>" + " " * N + "<|endoftext|>"
    ids = enc.encode(text, allowed_special={"<|endoftext|>"})
    assert ids[0] == ids[-1] == enc.eot_token and enc.decode(ids) == text


def test_a_panic_of_any_other_kind_halves_the_text():
    class PanicException(BaseException):
        pass

    def encode(text):
        if len(text) > 1500 or "!" in text:
            raise PanicException
        return list(text)
    assert encode_in_pieces(encode, "abc" * 2000) == list("abc" * 2000)
    with pytest.raises(BadInput, match="cannot take a text"):
        encode_in_pieces(encode, "abc" * 2000 + "!")
    with pytest.raises(BadInput, match="6,000 characters"):
        encode_in_pieces(encode, "abc" * 2000, may_be_cut=False)
    with pytest.raises(KeyboardInterrupt):
        encode_in_pieces(lambda text: (_ for _ in ()).throw(KeyboardInterrupt).__next__(), "a")


@pytest.mark.parametrize("ending", ["jsonl", "json", "txt", "parquet"])
def test_a_document_with_a_long_run_is_one_document_from_any_reader(tmp_path, ending):
    long = "col a" + " " * (LONGEST_RUN + 200_000) + "col b"
    rows = [{"text": f"Text number {i}, of {i * i}."} for i in range(60)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    path = tmp_path / f"n.{ending}"
    noisy = [{"text": long}, *rows]
    if ending == "txt":
        path.write_text("\n<|endoftext|>\n".join(r["text"] for r in noisy))
    elif ending == "parquet":
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(noisy), path)
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in noisy))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\n")
    out = str(tmp_path / "out")
    prepare.main(prepare.Config(curated=[str(tmp_path / "c.jsonl")], noisy=[str(path)], held_out=0.2, out=out,
                                tokenizer=str(tmp_path / "merges.txt")))
    noisy, held_out = Tokens(out, "noisy", 1), sum(Tokens(out, name, 1).meta["n_documents"] for name in ("val", "test"))
    assert noisy.meta["n_documents"] == 61 - held_out
    first = np.flatnonzero(noisy.tokens[:] == noisy.meta["end_of_text"])[0]
    assert load_tokenizer(out).decode(noisy.tokens[:first].tolist()).rstrip("\n") == long


def test_a_held_out_document_with_a_long_run_is_known_as_a_whole(tmp_path, short):
    run = " " * N
    rows = [{"ask": f"Row {i}", "text": f"a{run}b{i}"} for i in range(12)]  # they differ behind the run
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nĠ Ġ\nĠĠ ĠĠ\nĠĠĠĠ ĠĠĠĠ\n", encoding="utf-8")
    out, path = str(tmp_path / "out"), str(tmp_path / "a.jsonl")
    prepare.main(prepare.Config(curated=[path], noisy=[path], field=["ask", "text"], answer_field="text", held_out=0.3,
                                out=out, tokenizer=str(tmp_path / "merges.txt")))
    n = {name: Tokens(out, name, 1).meta["n_documents"] for name in ("curated", "val", "test", "noisy")}
    assert n["curated"] + n["val"] + n["test"] == 12 and n["noisy"] == n["curated"] and n["val"] and n["test"]


def test_tokenizers_of_hugging_face(tmp_path, short):
    pytest.importorskip("tokenizers")
    for kind, cut in (("bytes", True), ("low lines", False)):
        folder, theirs, _ = made(tmp_path / kind, kind)
        hf = load_tokenizer(str(folder))
        assert hf.may_be_cut == cut  # the second kind puts a space before every text, also before a piece
        for run in (" ", "\n", "\t"):
            text = f"the man{run * N} and the sea"
            expected = theirs.encode(text, add_special_tokens=False).ids
            assert hf.encode_ordinary(text) == hf.encode(text) == expected
            assert hf.encode_ordinary_batch(["a", text, ""], num_threads=2) == [hf.encode_ordinary("a"), expected, []]
