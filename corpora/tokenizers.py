"""
Tokenizers: how text becomes token ids, with tiktoken.
"""
import base64
import hashlib
import json
import os

import tiktoken

from corpora.builtin import WORDS
from engine.cli import BadInput
from engine.files import write_json

END_OF_TEXT = "<|endoftext|>"
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
DEMO_PATTERN = r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]|\s"


def make_tokenizer(name, pattern, ranks):
    """A tiktoken Encoding: `ranks` are the byte strings in order of their ids; <|endoftext|> takes the next id."""
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks={b: i for i, b in enumerate(ranks)},
                             special_tokens={END_OF_TEXT: len(ranks)})


def demo_tokenizer():
    """The built-in corpus's: the 256 bytes, then its words, each with the space before it; <|endoftext|> last."""
    return make_tokenizer("nanorho-demo", DEMO_PATTERN, single_bytes() + [w.encode() for w in WORDS])


def single_bytes():
    return [bytes([i]) for i in range(256)]


def load_tokenizer(source, vocab_size=None):
    """A tiktoken Encoding from: a corpus folder, a .tiktoken file (a base64 token and its rank a line), a file of
    GPT-2 merges, or a name that tiktoken knows (downloaded once). vocab_size keeps the first ids only: a prefix of
    a byte-pair encoding is one too. Raises BadInput."""
    try:
        name, pattern, ranks = read_tokenizer(source)
        if not set(single_bytes()) <= set(ranks):
            raise ValueError("it does not hold all 256 single bytes, so some texts could not be encoded")
        if len(set(ranks)) < len(ranks):
            raise ValueError("it holds a token twice")
    except (ValueError, KeyError, IndexError, TypeError) as e:
        raise BadInput(f"{source} is not a tokenizer: {e}".splitlines()[0] + "; give a corpus folder, a .tiktoken or "
                       "GPT-2 merges file, or a name of tiktoken's")
    except OSError as e:
        raise BadInput(f"cannot load the tokenizer {source!r}: {e}; give a corpus folder, a .tiktoken or GPT-2 merges "
                       f"file, or a name of tiktoken's with the network at hand")
    if vocab_size and not 257 <= vocab_size <= len(ranks) + 1:
        raise BadInput(f"vocab_size {vocab_size} must lie between 257 and {len(ranks) + 1} for the tokenizer {source}")
    if vocab_size:
        ranks = ranks[:vocab_size - 1]
    return make_tokenizer(name, pattern, ranks)


def read_tokenizer(source):
    """(name, pattern, byte strings in order of their ids) of what `load_tokenizer` takes."""
    if os.path.isdir(source):
        with open(os.path.join(source, "tokenizer.json"), encoding="utf-8") as f:
            spec = json.load(f)
        return spec["name"], spec["pattern"], [base64.b64decode(b, validate=True) for b in spec["ranks"]]
    if source.endswith(".tiktoken"):
        with open(source, "rb") as f:
            pairs = [line.split() for line in f if line.strip()]
        pairs = sorted((int(rank), base64.b64decode(b, validate=True)) for b, rank in pairs)
        if [rank for rank, _ in pairs] != list(range(len(pairs))):
            raise ValueError(f"its ranks are not 0 to {len(pairs) - 1}, each once: it is damaged or cut off")
        return os.path.basename(source), GPT2_PATTERN, [b for _, b in pairs]
    if os.path.exists(source):
        return os.path.basename(source), GPT2_PATTERN, gpt2_ranks(source)
    enc = tiktoken.get_encoding(source)
    pattern = GPT2_PATTERN if source == "gpt2" else enc._pat_str  # old versions of tiktoken spell GPT-2's otherwise
    return enc.name, pattern, ranks_of(enc)


def ranks_of(enc):
    """The byte strings of an Encoding in the order of their ids."""
    return sorted(enc._mergeable_ranks, key=enc._mergeable_ranks.get)


def gpt2_characters():
    """{character: byte} in the order of GPT-2's ids. Its files write each byte as a printable character: the 188 printable
    ones stand for themselves and come first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def gpt2_ranks(path):
    """Byte strings in the order of their ids, from GPT-2's merges file ('#version' line, then two symbols a line)."""
    byte_of = gpt2_characters()
    ranks = [bytes([b]) for b in byte_of.values()]
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            if line.startswith("#version") or not line.strip():
                continue
            pair = line.split()
            if len(pair) != 2 or not all(c in byte_of for c in "".join(pair)):
                raise ValueError(f"line {number} is not a pair of GPT-2 symbols")
            ranks.append(bytes(byte_of[c] for c in "".join(pair)))
    return ranks


def save_tokenizer(enc, folder):
    write_json(os.path.join(folder, "tokenizer.json"),
               {"name": enc.name, "sha256": tokenizer_hash(enc), "pattern": enc._pat_str,
                "ranks": [base64.b64encode(b).decode() for b in ranks_of(enc)]})


def tokenizer_hash(enc):
    """What tells two tokenizers apart: the byte string of every id, and the pattern that splits text into words."""
    h = hashlib.sha256(enc._pat_str.encode())
    for b, rank in sorted(enc._mergeable_ranks.items(), key=lambda item: item[1]):
        h.update(b"%d:%s" % (rank, b))
    h.update(repr(sorted(enc._special_tokens.items())).encode())
    return h.hexdigest()
