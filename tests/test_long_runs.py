"""Runs of blanks that are too long for the tokenizers' libraries: in pieces, with the ids of the whole."""
import pytest
import tiktoken

from corpora import long_runs
from corpora.long_runs import LONGEST_RUN, encode_in_pieces, pieces
from corpora.tokenizers import GPT2_PATTERN, SINGLE_BYTES, load_tokenizer, make_tokenizer
from engine.cli import BadInput
from test_data import documents_of, own_corpus, write
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


@pytest.mark.parametrize("unit", [" ", "\t", "\r\n", "\u3000", " \n", "    \n\n", "\n\n\t  "])
def test_ids_are_those_of_the_whole(enc, short, unit):
    run = (unit * N)[:N]
    for before in ("", "x", "word " * 2345, ".\n\n "):
        for behind in ("", "th.", " th.", "\nth", "\u6771"):
            text = before + run + behind
            assert len(pieces(text)) > 3 and "".join(pieces(text)) == text
            assert enc.encode_ordinary(text) == enc.encode(text) == of_library(enc, text), (before, behind)
    with_ends = enc.encode(f"<|endoftext|>{run}<|endoftext|>", allowed_special={"<|endoftext|>"})
    assert with_ends == [enc.eot_token, *of_library(enc, run), enc.eot_token]
    assert enc.encode_ordinary_batch([run, "a", text]) == [of_library(enc, t) for t in (run, "a", text)]


def test_other_texts_are_left_whole(enc, short):
    for text in ("", "a", "a" * N, "a b " * N, "7" * N, "\x1c" * N, " " * 9000 + "x", ("x" + " " * 8999) * 3):
        assert pieces(text) == [text]
    for n in (8999, 9000, 9001, 9002):
        for before in range(0, 9000, 700):
            text = "x" * before + " " * n + "th"
            assert len(pieces(text)) == 1 + (n > 9000) and enc.encode_ordinary(text) == of_library(enc, text)


def test_a_panic_of_any_other_kind_is_one_line():
    class PanicException(BaseException):
        pass

    def encode(text):
        raise PanicException if text else KeyboardInterrupt
    with pytest.raises(BadInput, match="cannot take a text of 6,000 characters that begins 'abc"):
        encode_in_pieces(encode, "abc" * 2000)
    with pytest.raises(KeyboardInterrupt):
        encode_in_pieces(encode, "")


@pytest.mark.parametrize("ending", ["jsonl", "txt", "parquet"])
def test_a_document_with_a_long_run_is_one_document_from_any_reader(tmp_path, ending):
    long = "col a" + " " * (LONGEST_RUN + 200_000) + "col b"
    rows = [{"text": f"Text number {i}, of {i * i}."} for i in range(60)]
    curated = write(tmp_path / "c.jsonl", rows)
    path = write(tmp_path / f"n.{ending}", [{"text": long}, *rows])
    out = own_corpus(tmp_path / "out", curated, path, held_out=0.2)
    found, *held_out = (documents_of(out, name) for name in ("noisy", "val", "test"))
    assert len(found) == 61 - sum(map(len, held_out)) and found[0].rstrip("\n") == long


def test_a_held_out_document_with_a_long_run_is_known_as_a_whole(tmp_path, short):
    rows = [{"ask": f"Row {i}", "text": f"a{' ' * N}b{i}"} for i in range(12)]  # they differ behind the run
    path = write(tmp_path / "a.jsonl", rows)
    out = own_corpus(tmp_path / "out", path, path, field=["ask", "text"], answer_field="text", held_out=0.3,
                     merges="Ġ Ġ\nĠĠ ĠĠ\nĠĠĠĠ ĠĠĠĠ")
    curated, val, test, noisy = (len(documents_of(out, name)) for name in ("curated", "val", "test", "noisy"))
    assert curated + val + test == 12 and noisy == curated and val and test


def test_tokenizers_of_hugging_face(tmp_path, short):
    pytest.importorskip("tokenizers")
    for kind, cut in (("bytes", True), ("low lines", False)):
        folder, theirs, _ = made(tmp_path / kind, kind)
        hf = load_tokenizer(str(folder))
        assert hf.may_be_cut == cut  # the second kind puts a space before every text, also before a piece
        for run in (" ", "\n", "\t"):
            text = f"the man{run * N} and the sea"
            expected = theirs.encode(text, add_special_tokens=False).ids
            assert hf.encode_ordinary(text) == expected
            assert hf.encode_ordinary_batch(["a", text, ""], 2) == [hf.encode_ordinary("a"), expected, []]
