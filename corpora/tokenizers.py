"""
Tokenizers. tiktoken runs those that are byte-pair encodings with bytes as their smallest parts; any other
tokenizer.json takes the package `tokenizers` (corpora/hf_tokenizer.py).

    enc = load_tokenizer("data/demo")      # or "gpt2", merges.txt, a folder with tokenizer.json
    enc.encode_ordinary("7 + 5 = 12")      # text -> token ids
    enc.decode(ids)                        # token ids -> text
    enc.eot_token                          # the id that ends every document
"""
import base64
import functools
import hashlib
import json
import os

import tiktoken

from corpora.hf_tokenizer import (BYTE_OF, END_OF_TEXT, NAMES, HFTokenizer, config_of, from_folder,
                                  named_tokens)
from corpora.long_runs import encode_in_pieces
from engine.cli import BadInput
from engine.files import TEXT, write_json

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
SINGLE_BYTES = [bytes([i]) for i in range(256)]
KINDS = "a corpus folder, a model's folder, a file of GPT-2 merges, or a name of tiktoken's"
GPT2_NAMES = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)  # one token is all three


class BytePairs(tiktoken.Encoding):
    """tiktoken's Encoding, for any text (`encode_ordinary_batch` calls `encode_ordinary`) and any id: one
    that is no token decodes to nothing, as weights may have rows for such ids.

    named: what stands for begin, end, unknown and padding, as Hugging Face calls these. start: the ids that a
    model with this tokenizer was trained to see before a text, here none.
    """
    named = dict.fromkeys(NAMES) | {"eos_token": END_OF_TEXT}
    start = []

    def id_of(self, token):
        return self.encode_single_token(token)

    def encode(self, text, **options):
        return encode_in_pieces(functools.partial(super().encode, **options), text)

    def encode_ordinary(self, text):
        return encode_in_pieces(super().encode_ordinary, text)

    def decode(self, tokens, errors="replace"):
        return super().decode([i for i in tokens if i < self.n_vocab], errors)


def make_tokenizer(name, pattern, tokens, named=None):
    """A BytePairs whose id i stands for the byte string tokens[i]; <|endoftext|> takes the id after them.
    named: {name of NAMES: token}; None: GPT-2's for GPT-2, and for others the end alone. Raises ValueError
    where tiktoken would end the whole program."""
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens) or not ids.keys() >= set(SINGLE_BYTES):
        raise ValueError("a token comes twice, or one of the 256 single bytes is missing")
    enc = BytePairs(name, pat_str=pattern, mergeable_ranks=ids, special_tokens={END_OF_TEXT: len(tokens)})
    if named is None and name == "gpt2":
        named = GPT2_NAMES
    if named:
        enc.named = BytePairs.named | {key: END_OF_TEXT for key in NAMES if named.get(key) == END_OF_TEXT}
    return enc


def load_tokenizer(source, vocab_size=None):
    """The tokenizer of one of KINDS: a BytePairs, or an HFTokenizer. vocab_size: keep so many ids only, the
    first ones and <|endoftext|>; the beginning of a byte-pair encoding is one too. Raises BadInput."""
    if os.path.basename(source) == "tokenizer.json":
        source = os.path.dirname(source) or "."
    try:
        if os.path.isdir(source):
            enc = read_folder(source)
        elif os.path.exists(source):
            enc = make_tokenizer(os.path.basename(source), GPT2_PATTERN, gpt2_tokens(source))
        else:
            enc = tiktoken.get_encoding(source)
            # Old versions of tiktoken write GPT-2's pattern in another way, which would give another hash.
            pattern = GPT2_PATTERN if source == "gpt2" else enc._pat_str
            enc = make_tokenizer(enc.name, pattern, tokens_of(enc))
        if vocab_size and isinstance(enc, HFTokenizer):
            raise BadInput(f"vocab_size is for byte-pair encodings of tiktoken's kind, not for {source}")
        if vocab_size and not 257 <= vocab_size <= enc.n_vocab:
            raise BadInput(f"vocab_size {vocab_size} must lie between 257 and {enc.n_vocab} for {source}")
        if vocab_size:
            enc = make_tokenizer(enc.name, enc._pat_str, tokens_of(enc)[:vocab_size - 1], enc.named)
        return enc
    except OSError as e:
        raise BadInput(f"cannot load the tokenizer {source!r}: {e}; give {KINDS} with the network at hand")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        first_line = f"{source} is not a tokenizer, or is damaged: {e}".splitlines()[0]
        raise BadInput(f"{first_line}; give {KINDS}")


def read_folder(folder):
    """The tokenizer of a corpus folder, as `save_tokenizer` wrote it, or of a model's folder."""
    if is_gpt2_folder(folder):
        named, its_class = named_tokens(folder)
        if its_class.startswith("GPT2") or not its_class:
            named = GPT2_NAMES | named  # the names that this class has by itself
        return make_tokenizer("gpt2", GPT2_PATTERN, gpt2_tokens(os.path.join(folder, "merges.txt")), named)
    path = os.path.join(folder, "tokenizer.json")
    with open(path, encoding=TEXT) as f:
        spec = json.load(f)
    if not isinstance(spec, dict):
        raise ValueError("its tokenizer.json is not a JSON object")
    if "model" in spec:
        return from_folder(folder, spec)
    if "hugging_face" in spec:
        enc = HFTokenizer(spec["hugging_face"], spec["end_of_text"], path, spec["special_tokens"])
    elif "ranks" in spec:
        tokens = [base64.b64decode(text, validate=True) for text in spec["ranks"]]
        enc = make_tokenizer(spec["name"], spec["pattern"], tokens, spec["special_tokens"])
    else:
        raise ValueError("its tokenizer.json is not one that prepare.py wrote")
    if tokenizer_hash(enc) != spec.get("sha256"):
        raise ValueError("its tokenizer.json does not have the hash that it names")
    return enc


def is_gpt2_folder(folder):
    """Whether this is a GPT-2 model's folder, with the merges that tiktoken runs."""
    there = os.path.exists(os.path.join(folder, "merges.txt"))
    return there and config_of(folder, "config.json").get("model_type") == "gpt2"


def tokens_of(enc):
    """The byte strings of an Encoding in the order of their ids, without <|endoftext|>."""
    return sorted(enc._mergeable_ranks, key=enc._mergeable_ranks.get)


def save_tokenizer(enc, folder):
    """Write tokenizer.json into a corpus folder."""
    about = {"name": enc.name, "sha256": tokenizer_hash(enc)}
    if isinstance(enc, HFTokenizer):
        about |= {"end_of_text": enc.end, "hugging_face": enc.spec, "special_tokens": enc.named}
    else:
        tokens = [base64.b64encode(token).decode() for token in tokens_of(enc)]
        about |= {"pattern": enc._pat_str, "special_tokens": enc.named, "ranks": tokens}
    write_json(os.path.join(folder, "tokenizer.json"), about)


def gpt2_tokens(path):
    """Byte strings in the order of their ids from GPT-2's merges file: a '#version' line, then two symbols
    a line, each a single byte or one that a line before has merged. A .tiktoken has two words a line, too."""
    tokens = [bytes([b]) for b in BYTE_OF.values()]
    known = set(BYTE_OF)
    with open(path, encoding=TEXT) as f:
        for number, line in enumerate(f, 1):
            if line.startswith("#version") or not line.strip():
                continue
            pair = line.split()
            if len(pair) != 2 or not known.issuperset(pair):
                raise ValueError(f"line {number} is not a pair of symbols of GPT-2's that are known by then")
            if "".join(pair) in known:
                raise ValueError(f"line {number} gives the token {''.join(pair)!r} a second time")
            known.add("".join(pair))
            tokens.append(bytes(BYTE_OF[c] for c in "".join(pair)))
    return tokens


def tokenizer_hash(enc):
    """What tells two tokenizers apart: a hash of the byte string of every id, and of the pattern."""
    if isinstance(enc, HFTokenizer):
        return enc.sha256()
    h = hashlib.sha256(enc._pat_str.encode())
    for i, token in enumerate(tokens_of(enc)):
        h.update(b"%d:%s" % (i, token))
    h.update(repr(sorted(enc._special_tokens.items())).encode())
    return h.hexdigest()
