"""Tokenizers: what they give, what they are read from, and files that are damaged."""
import base64
import json
import sys

import pytest
import tiktoken

import prepare
from corpora import builtin
from corpora.tokenizers import demo_tokenizer, load_tokenizer, save_tokenizer, tokenizer_hash
from engine.cli import BadInput, run


@pytest.mark.parametrize("text", ["Question: Ava has 7 hens.\nAnswer: finds 5: 7 + 5 = 12.",
                                  "naïve 数学 \U0001f600 \t\n\n x", ""])
def test_demo_tokenizer_encodes_any_text(text):
    enc = demo_tokenizer()
    assert enc.decode(enc.encode_ordinary(text)) == text


def test_demo_tokenizer_gives_a_number_one_token():
    enc = demo_tokenizer()
    assert [enc.decode([t]) for t in enc.encode_ordinary("Question: Ava has 17 hens.")] == [
        "Question", ":", " Ava", " has", " 17", " hens", "."]
    assert all(len(enc.encode_ordinary(w)) == 1 for w in builtin.words())


def test_tokenizer_survives_a_corpus_folder_and_a_tiktoken_file(tmp_path):
    enc = demo_tokenizer()
    save_tokenizer(enc, tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert tokenizer_hash(again) == tokenizer_hash(enc) and again.eot_token == enc.eot_token
    path = tmp_path / "words.tiktoken"
    path.write_bytes(b"".join(base64.b64encode(b) + b" %d\n" % i for b, i in enc._mergeable_ranks.items()))
    text = " the hens play"
    assert load_tokenizer(str(path)).encode_ordinary(text)  # another pattern, so maybe other tokens
    shorter = load_tokenizer(str(path), vocab_size=300)
    assert shorter.n_vocab == 300 and shorter.decode(shorter.encode_ordinary(text)) == text
    assert tokenizer_hash(shorter) != tokenizer_hash(enc)


def test_gpt2_merges_file(tmp_path):
    """Against byte-pair encoding by hand: merges applied in the order of the file, bytes in GPT-2's order."""
    path = tmp_path / "merges.txt"
    path.write_text("#version: 0.2\nĠ t\nh e\nĠt he\ni n\n", encoding="utf-8")
    enc = load_tokenizer(str(path))
    assert enc.n_vocab == 256 + 4 + 1 and enc.eot_token == 260
    assert enc.encode_ordinary("!") == [0] and enc.encode_ordinary("a") == [64]  # as in GPT-2's vocabulary
    assert enc.encode_ordinary(" ") == [220] and enc.encode_ordinary("\n") == [198]
    assert enc.encode_ordinary(" the thin") == [258, 256, enc.encode_ordinary("h")[0], 259]
    assert load_tokenizer(str(path), vocab_size=258).encode_ordinary(" the") == [256, 71, 68]
    path.write_text("#version: 0.2\nĠ t oops\n", encoding="utf-8")
    with pytest.raises(BadInput, match="line 2"):
        load_tokenizer(str(path))


def test_tiktoken_names_are_still_tried(monkeypatch):
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: demo_tokenizer() if name == "gpt2" else None)
    assert load_tokenizer("gpt2").n_vocab == demo_tokenizer().n_vocab


# ----------------------------------------------------------------------------------------- damaged tokenizers

N_TOKENS = 308  # of the tokenizer below


def tokenizer_lines():
    """The lines of a .tiktoken file: the 256 single bytes and 52 words."""
    tokens = sorted(demo_tokenizer()._mergeable_ranks.items(), key=lambda item: item[1])[:N_TOKENS]
    return [base64.b64encode(token) + b" %d\n" % i for token, i in tokens]


def renumbered(lines):
    return [line.split()[0] + b" %d\n" % i for i, line in enumerate(lines)]


DAMAGED = [  # what is done to these lines, and what the message says
    (lambda lines: lines[:-1] + [lines[-1][:3]], "line 308 is not a token in base64 and its id"),
    (lambda lines: lines[:-1] + [lines[-1][:-3]], "line 308 gives the id 3 a second time"),
    (lambda lines: lines[:50] + [lines[50][:2]], "line 51 is not a token"),
    (lambda lines: lines[:20] + [b"!" + lines[20]] + lines[21:], "line 21 is not a token in base64"),
    (lambda lines: [b"AA== zero\n"] + lines[1:], "line 1 is not a token"),
    (lambda lines: renumbered(lines + [lines[300]]), "holds the token b'.*' twice"),
    (lambda lines: lines[:300] + lines[301:], "the ids of its 307 tokens are not 0 to 306"),
    (lambda lines: renumbered(lines[:7] + lines[8:]), r"lacks 1 of the 256 single bytes, .* b'\\x07'"),
    (lambda lines: lines[:128], r"lacks 128 of the 256 single bytes, the first is b'\\x80'"),
    (lambda lines: [], "lacks 256 of the 256 single bytes"),
    (lambda lines: [b"\xff\xfe\x00"], "line 1 is not a token"),
]


@pytest.mark.parametrize("damage, says", DAMAGED)
def test_a_damaged_tiktoken_file(tmp_path, damage, says):
    path = tmp_path / "words.tiktoken"
    path.write_bytes(b"".join(tokenizer_lines()))
    assert load_tokenizer(str(path)).n_vocab == N_TOKENS + 1
    path.write_bytes(b"".join(damage(tokenizer_lines())))
    with pytest.raises(BadInput, match=f"{path} is not a tokenizer, or is damaged.*{says}.*; give a corpus"):
        load_tokenizer(str(path))


def token(at, text):
    def damage(spec):
        spec["ranks"][at] = text
    return damage


def no_token(at):
    def damage(spec):
        del spec["ranks"][at]
    return damage


def entry(name, value):
    def damage(spec):
        spec[name] = value
    return damage


DAMAGED_JSON = [  # what is done to a corpus folder's tokenizer.json, and what the message says
    (token(300, "!AAA"), "."),
    (token(300, 7), "."),
    (token(300, "YQ=="), "holds the token b'a' twice"),
    (token(300, "b3RoZXIgd29yZHM="), "the hash that it names"),
    (no_token(7), r"lacks 1 of the 256 single bytes, the first is b'\\x07'"),
    (no_token(-1), "the hash that it names"),
    (entry("ranks", 5), "."),
    (entry("ranks", []), "lacks 256"),
    (entry("pattern", "("), "Opening parenthesis"),
    (entry("pattern", None), "."),
    (entry("pattern", " ?[a-z]+|."), "the hash that it names"),
]


@pytest.mark.parametrize("damage, says", DAMAGED_JSON)
def test_a_damaged_tokenizer_json(tmp_path, damage, says):
    save_tokenizer(demo_tokenizer(), str(tmp_path))
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    damage(spec)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(BadInput, match=f"{tmp_path} is not a tokenizer, or is damaged.*{says}.*; give a"):
        load_tokenizer(str(tmp_path))
    del spec["ranks"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(BadInput, match="not one that prepare.py wrote"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_json_that_is_cut_off(tmp_path):
    save_tokenizer(demo_tokenizer(), str(tmp_path))
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text[:len(text) // 2])
    with pytest.raises(BadInput, match="is not a tokenizer, or is damaged"):
        load_tokenizer(str(tmp_path))


def test_too_small_a_vocabulary_for_the_single_bytes(tmp_path):
    """vocab_size cuts off the last ids; a tokenizer may have single bytes among them."""
    path = tmp_path / "words.tiktoken"
    lines = tokenizer_lines()
    path.write_bytes(b"".join(renumbered(lines[:7] + lines[8:] + [lines[7]])))
    assert load_tokenizer(str(path)).decode([N_TOKENS - 1]) == "\x07"
    with pytest.raises(BadInput, match="lacks 1 of the 256 single bytes"):
        load_tokenizer(str(path), vocab_size=300)


def test_prepare_ends_with_one_line_where_the_tokenizer_is_damaged(tmp_path, monkeypatch, capsys):
    """No panic of tiktoken's, and exit code 2."""
    path = tmp_path / "words.tiktoken"
    path.write_bytes(b"".join(tokenizer_lines()[:128]))
    (tmp_path / "text.txt").write_text("Some text.\n")
    text = str(tmp_path / "text.txt")
    files = ["--curated", text, "--noisy", text, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["prepare.py", *files, "--tokenizer", str(path)])
    with pytest.raises(SystemExit) as ended:
        run(prepare.main, prepare.Config, prepare.__doc__)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and error.startswith(f"prepare.py: {path} is not")
