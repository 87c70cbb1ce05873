"""Tokenizers: what they give, what they are read from, and files that are damaged."""
import json

import pytest
import tiktoken

from corpora import builtin
from corpora.builtin import demo_tokenizer
from corpora.tokenizers import load_tokenizer, save_tokenizer, tokenizer_hash
from engine.cli import BadInput


def test_demo_tokenizer_gives_a_word_and_a_number_one_token_and_takes_any_text():
    enc = demo_tokenizer()
    assert [enc.decode([t]) for t in enc.encode_ordinary("Question: Ava has 17 hens.")] == [
        "Question", ":", " Ava", " has", " 17", " hens", "."]
    words = [str(number) for number in range(builtin.LARGEST + 1)]
    words += builtin.NAMES + builtin.OBJECTS + builtin.GAIN + builtin.LOSE + builtin.WORDS
    assert all(len(enc.encode_ordinary(f" {word}")) == 1 for word in words)
    for text in ("naïve 数学 \U0001f600 \t\n\n x", ""):
        assert enc.decode(enc.encode_ordinary(text)) == text


def test_a_tokenizer_survives_a_corpus_folder(tmp_path):
    enc = demo_tokenizer()
    save_tokenizer(enc, tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert tokenizer_hash(again) == tokenizer_hash(enc) and again.eot_token == enc.eot_token
    shorter, text = load_tokenizer(str(tmp_path), vocab_size=300), " the hens play"
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


# --------------------------------------------------------------------------------------- damaged tokenizers

@pytest.mark.parametrize("content, says", [
    ("#version: 0.2\nĠ t oops\n", "line 2 is not a pair"),
    ("Ġ t\nĠt h\nĠ t\n", "line 3 gives the token 'Ġt' a second time"),
    ("IQ== 0\nIg== 1\nIw== 2\n", "line 1 is not a pair")])  # a .tiktoken file
def test_a_damaged_merges_file(tmp_path, content, says):
    path = tmp_path / "merges.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=f"{path} is not a tokenizer, or is damaged: .*{says}.*; give a"):
        load_tokenizer(str(path))


@pytest.mark.parametrize("changed, says", [  # what is changed in a corpus folder's tokenizer.json
    ({"ranks": lambda r: r[:300] + ["!AAA"] + r[301:]}, "."),
    ({"ranks": lambda r: r[:300] + ["YQ=="] + r[301:]}, "a token comes twice"),
    ({"ranks": lambda r: r[:7] + r[8:]}, "one of the 256 single bytes is missing"),
    ({"ranks": lambda r: r[:-1]}, "the hash that it names"),
    ({"pattern": lambda p: "("}, "Opening parenthesis"),
    ({"pattern": lambda p: " ?[a-z]+|."}, "the hash that it names"),
    (lambda spec: {"name": "x"}, "not one that prepare.py wrote"),
    (lambda spec: [spec], "."),
    (None, ".")])  # cut off
def test_a_damaged_tokenizer_json(tmp_path, changed, says):
    save_tokenizer(demo_tokenizer(), str(tmp_path))
    text = (tmp_path / "tokenizer.json").read_text()
    spec = json.loads(text)
    if isinstance(changed, dict):
        spec |= {key: change(spec[key]) for key, change in changed.items()}
    elif changed:
        spec = changed(spec)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec) if changed else text[:len(text) // 2])
    with pytest.raises(BadInput, match=f"{tmp_path} is not a tokenizer, or is damaged.*{says}.*; give a"):
        load_tokenizer(str(tmp_path))


def test_too_small_a_vocabulary_for_the_single_bytes(monkeypatch):
    """vocab_size cuts off the last ids; a tokenizer may have single bytes among them."""
    tokens = sorted(demo_tokenizer()._mergeable_ranks, key=lambda token: token == b"\x07")
    enc = tiktoken.Encoding("late", pat_str=builtin.PATTERN, special_tokens={},
                            mergeable_ranks={token: i for i, token in enumerate(tokens)})
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: enc)
    assert load_tokenizer("late").decode([len(tokens) - 1]) == "\x07"
    with pytest.raises(BadInput, match="256 single bytes is missing"):
        load_tokenizer("late", vocab_size=300)
