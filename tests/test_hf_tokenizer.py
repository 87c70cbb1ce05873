"""Tokenizers of Hugging Face's format (corpora/hf_tokenizer.py): both kinds, made here, against the package itself."""
import json
import sys

import pytest

import prepare
import train_ref
from corpora.hf_tokenizer import HFTokenizer
from corpora.tokenizers import load_tokenizer, save_tokenizer, tokenizer_hash
from data import Tokens
from engine.cli import BadInput
from helpers import train

TEXTS = ["\u0120gantija is on Gozo", "the old man and the sea, 3 + 4 = 7.", "the man in the sea\n\nand the naïve café", "Question: 12 hens? 東京 🙂"]
HARD = [*TEXTS, " starts with a space", "", "\n", "two  spaces", "<|endoftext|> and </s> are text", "tab\tand \u2581"]


def made(folder, kind):
    """A folder with tokenizer.json and tokenizer_config.json: of GPT-2's kind (bytes), or of Llama 2's (low lines)."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
    folder.mkdir()
    if kind == "bytes":
        t = tokenizers.Tokenizer(models.BPE())
        t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<|endoftext|>"], show_progress=False,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        end = "<|endoftext|>"
    else:
        t = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        alphabet = [f"<0x{b:02X}>" for b in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<unk>", "<s>", "</s>", *alphabet],
                                      show_progress=False, limit_alphabet=40)
        end = "</s>"
    t.train_from_iterator(TEXTS * 3, trainer)
    spec = json.loads(t.to_str())
    spec["added_tokens"] = [a for a in spec["added_tokens"] if not a["content"].startswith("<0x")]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": end}}))
    return folder, tokenizers.Tokenizer.from_str(json.dumps(spec)), end


@pytest.mark.parametrize("kind", ["bytes", "low lines"])
def test_ids_are_the_packages_and_text_comes_back(tmp_path, kind):
    folder, theirs, end = made(tmp_path / "hf", kind)
    enc = load_tokenizer(str(folder))
    assert isinstance(enc, HFTokenizer) and enc.eot_token == theirs.token_to_id(end)
    assert enc.n_vocab == theirs.get_vocab_size() and enc.low_line == (kind != "bytes") and enc.puts_space == (kind != "bytes")
    theirs.encode_special_tokens = True
    for text in HARD:
        ids = enc.encode_ordinary(text)
        assert enc.eot_token not in ids
        if not (enc.puts_space and text.startswith(" ")):
            assert ids == theirs.encode(text, add_special_tokens=False).ids or not text
        back = enc.decode(ids)
        spaced = " " + text if enc.puts_space and text and not text.startswith(" ") else text
        assert back == spaced.replace("\u2581", " " if enc.puts_space else "\u2581"), text
        assert b"".join(map(enc.decode_single_token_bytes, ids)).decode() == back
    assert enc.encode_ordinary_batch(TEXTS, num_threads=2) == [enc.encode_ordinary(text) for text in TEXTS]
    both = enc.encode("a man<|endoftext|>the sea", allowed_special={"<|endoftext|>"}, disallowed_special=())
    assert both == [*enc.encode_ordinary("a man"), enc.eot_token, *enc.encode_ordinary("the sea")]
    assert enc.encode("a<|endoftext|>") == enc.encode_ordinary("a<|endoftext|>")


def test_a_corpus_carries_its_hash_and_models_train_on_it(tmp_path):
    folder, _, _ = made(tmp_path / "hf", "bytes")
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(f"{text} {i}" for i in range(60) for text in TEXTS))
    cfg = prepare.Config(out=str(tmp_path / "c"), curated=[str(tmp_path / "a.txt")], noisy=[str(tmp_path / "a.txt")],
                         tokenizer=str(folder))
    assert list(cfg.validate()) == []
    prepare.main(cfg)
    enc = load_tokenizer(str(tmp_path / "c"))
    tokens = Tokens(str(tmp_path / "c"), "noisy", 32)
    again = load_tokenizer(str(folder / "tokenizer.json"))
    assert tokens.tokenizer_sha256 == tokenizer_hash(enc) == tokenizer_hash(again)
    assert tokens.vocab_size == enc.n_vocab and tokens.meta["end_of_text"] == enc.eot_token == 0
    assert tokens.tokens[-1] == enc.eot_token and TEXTS[0] in enc.decode(tokens.tokens[:-1].tolist())
    train(train_ref, tmp_path / "run", str(tmp_path / "c"), arch="llama")
    other, _, _ = made(tmp_path / "other", "low lines")
    assert tokenizer_hash(load_tokenizer(str(other))) != tokenizer_hash(enc)


def test_bad_tokenizers_are_one_line(tmp_path, monkeypatch):
    folder, _, _ = made(tmp_path / "hf", "bytes")
    spec = json.loads((folder / "tokenizer.json").read_text())
    with pytest.raises(BadInput, match="vocab_size is for byte-pair"):
        load_tokenizer(str(folder), vocab_size=300)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<none>"}))
    with pytest.raises(BadInput, match="which token .* ends a text"):
        load_tokenizer(str(folder))
    (folder / "tokenizer_config.json").unlink()
    assert load_tokenizer(str(folder)).end == "<|endoftext|>"  # the first that is known
    (folder / "tokenizer.json").write_text(json.dumps(spec | {"model": {"type": "BPE"}}))
    with pytest.raises(BadInput, match="damaged"):
        load_tokenizer(str(folder))
    save_tokenizer(HFTokenizer(json.dumps(spec), None, "x/tokenizer.json"), str(tmp_path))
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # as if it were not installed
    with pytest.raises(BadInput, match="pip install tokenizers"):
        load_tokenizer(str(tmp_path))
