"""
Tokenizers: how text becomes token ids. tiktoken runs those that are byte-pair encodings with bytes as their
smallest parts; any other tokenizer.json takes the package `tokenizers` (corpora/hf_tokenizer.py).

    enc = load_tokenizer("data/demo")      # or "gpt2", my.tiktoken, merges.txt, a folder with tokenizer.json
    enc.encode_ordinary("7 + 5 = 12")      # text -> token ids
    enc.decode(ids)                        # token ids -> text
    enc.eot_token                          # the id that ends every document

A tokenizer is its tokens in the order of their ids, each a byte string, and a pattern that cuts text into
words before the words are cut into tokens.
"""
import base64
import codecs
import functools
import hashlib
import json
import os

import tiktoken

from corpora import builtin
from corpora.hf_tokenizer import BYTE_OF, END_OF_TEXT, NAMES, HFTokenizer, from_folder, named_tokens
from corpora.long_runs import encode_in_pieces
from engine.cli import BadInput
from engine.files import TEXT, read_json, write_json

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
DEMO_PATTERN = r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]|\s"
SINGLE_BYTES = [bytes([i]) for i in range(256)]
KINDS = "a corpus folder, a model's folder, a .tiktoken or GPT-2 merges file, or a name of tiktoken's"


class BytePairs(tiktoken.Encoding):
    """tiktoken's Encoding, for any text and any id. What its library cannot take comes in pieces: all texts of
    the user go through `encode` and `encode_ordinary` (and `encode_ordinary_batch`, which calls the second),
    whatever reads them. An id that is no token decodes to nothing, as weights may have rows for such ids.

    named: what stands for begin, end, unknown and padding, as Hugging Face calls these.
    """
    named = dict.fromkeys(NAMES) | {"eos_token": END_OF_TEXT}

    def id_of(self, token):
        return self.encode_single_token(token)

    def encode(self, text, **options):
        return encode_in_pieces(functools.partial(super().encode, **options), text)

    def encode_ordinary(self, text):
        return encode_in_pieces(super().encode_ordinary, text)

    def decode(self, tokens, errors="replace"):
        return super().decode([i for i in tokens if i < self.n_vocab], errors)


def make_tokenizer(name, pattern, tokens):
    """A tiktoken Encoding whose id i stands for the byte string tokens[i]; <|endoftext|> takes the id after
    them.

    Raises ValueError where a token comes twice or one of the 256 single bytes is missing: tiktoken itself
    would end the whole program, in some cases only at the first text that it cannot encode.
    """
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if ids[token] != i)
        raise ValueError(f"it holds the token {twice!r} twice")
    missing = [byte for byte in SINGLE_BYTES if byte not in ids]
    if missing:
        raise ValueError(f"it lacks {len(missing)} of the 256 single bytes, the first is {missing[0]!r}, so "
                         f"that there are texts which it cannot encode")
    return BytePairs(name, pat_str=pattern, mergeable_ranks=ids, special_tokens={END_OF_TEXT: len(tokens)})


def demo_tokenizer(largest=builtin.LARGEST):
    """The built-in corpus's: the 256 bytes, then its words, each with the space before it. largest: of the
    numbers that are one token."""
    words = [w.encode() for w in builtin.words(largest)]
    return make_tokenizer("nanorho-demo", DEMO_PATTERN, SINGLE_BYTES + words)


def load_tokenizer(source, vocab_size=None):
    """A tiktoken Encoding from a corpus folder, a .tiktoken file (a token in base64 and its id a line), a
    file of GPT-2 merges, or a name that tiktoken knows (it is downloaded once). An HFTokenizer from a
    tokenizer.json of Hugging Face's, or a folder with one, or a corpus folder made with it.

    vocab_size: keep so many ids only, the first ones and <|endoftext|>; the beginning of a byte-pair
    encoding is one too. Raises BadInput.
    """
    hf = hugging_face(source)
    if hf and vocab_size:
        raise BadInput(f"vocab_size is for byte-pair encodings of tiktoken's kind, not for {source}")
    if hf:
        return hf
    try:
        name, pattern, tokens = read_tokenizer(source)
        if vocab_size and not 257 <= vocab_size <= len(tokens) + 1:
            raise BadInput(f"vocab_size {vocab_size} must lie between 257 and {len(tokens) + 1} for the "
                           f"tokenizer {source}")
        if vocab_size:
            tokens = tokens[:vocab_size - 1]
        enc = make_tokenizer(name, pattern, tokens)
        enc.named = named_byte_pairs(source, name)
        return enc
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as e:
        first_line = f"{source} is not a tokenizer, or is damaged: {e}".splitlines()[0]
        raise BadInput(f"{first_line}; give {KINDS}")
    except OSError as e:
        raise BadInput(f"cannot load the tokenizer {source!r}: {e}; give {KINDS} with the network at hand")


def hugging_face(source):
    """The HFTokenizer of a tokenizer.json, of a folder with one, or of a corpus made with one; else None.
    Raises BadInput."""
    folder = os.path.dirname(source) or "." if os.path.basename(source) == "tokenizer.json" else source
    path = os.path.join(folder, "tokenizer.json")
    try:
        with open(path, encoding=TEXT) as f:
            spec = json.load(f)
    except (OSError, ValueError, RecursionError):
        return None  # what else it may be, `read_tokenizer` sees
    if not isinstance(spec, dict) or "ranks" in spec:
        return None
    if "hugging_face" in spec:
        enc = HFTokenizer(spec["hugging_face"], spec.get("end_of_text"), path, spec.get("special_tokens"))
        if enc.sha256() != spec.get("sha256"):
            raise BadInput(f"{path} does not have the hash that it names: make the corpus again")
        return enc
    if "model" not in spec or is_gpt2_folder(folder):
        return None
    return from_folder(folder)


def named_byte_pairs(source, name):
    """`named` of a byte-pair tokenizer. GPT-2's own names its one special token as begin, end and unknown;
    of others it is the end alone, unless they were made from a folder that says more."""
    named = {}
    if name == "gpt2":
        named = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    if os.path.isdir(source) and is_gpt2_folder(source):
        found, its_class = named_tokens(source)
        if its_class and not its_class.startswith("GPT2"):
            named = {}  # the names that GPT-2's class has by itself, this one has not
        named = named | found
    elif os.path.isdir(source):  # a corpus
        named = read_json(os.path.join(source, "tokenizer.json")).get("special_tokens", named)
    return BytePairs.named | {key: END_OF_TEXT for key in NAMES if named.get(key) == END_OF_TEXT}


def is_gpt2_folder(folder):
    """Whether this is a GPT-2 model's folder, with the merges that tiktoken runs."""
    config = os.path.join(folder, "config.json")
    return (os.path.exists(os.path.join(folder, "merges.txt")) and os.path.exists(config)
            and read_json(config).get("model_type") == "gpt2")


def read_tokenizer(source):
    """(name, pattern, byte strings in the order of their ids) of what `load_tokenizer` takes. Raises
    ValueError, KeyError, TypeError or OSError where it is not one of these."""
    if os.path.isdir(source) and is_gpt2_folder(source):
        return "gpt2", GPT2_PATTERN, gpt2_tokens(os.path.join(source, "merges.txt"))
    if os.path.isdir(source):
        return read_folder(source)
    if source.endswith(".tiktoken"):
        return os.path.basename(source), GPT2_PATTERN, tiktoken_tokens(source)
    if os.path.exists(source):
        return os.path.basename(source), GPT2_PATTERN, gpt2_tokens(source)
    enc = tiktoken.get_encoding(source)
    # Old versions of tiktoken write GPT-2's pattern in another way, which would give the same tokenizer
    # another hash.
    pattern = GPT2_PATTERN if source == "gpt2" else enc._pat_str
    return enc.name, pattern, tokens_of(enc)


def start_of(enc):
    """The ids that a model with this tokenizer was trained to see before a text: none with tiktoken's."""
    return enc.start if isinstance(enc, HFTokenizer) else []


def prompt_ids(enc, text, special=(), room=None):
    """The ids of a prompt: what stands before every text, once, and the text. All prompts are made here.

    special: END_OF_TEXT in it is the token that ends a text; else it is text like any other. room: the most
    tokens, of which a longer text loses its beginning.
    """
    start, ids = start_of(enc), enc.encode(text, allowed_special=set(special), disallowed_special=())
    if room is not None:
        ids = ids[max(0, len(start) + len(ids) - room):]
    return [*start, *ids]


def tokens_of(enc):
    """The byte strings of an Encoding in the order of their ids, without <|endoftext|>."""
    return sorted(enc._mergeable_ranks, key=enc._mergeable_ranks.get)


# ----------------------------------------------------------------------------------------------- file formats

def save_tokenizer(enc, folder):
    """Write tokenizer.json into a corpus folder."""
    path = os.path.join(folder, "tokenizer.json")
    if isinstance(enc, HFTokenizer):
        about = {"name": enc.name, "sha256": enc.sha256(), "end_of_text": enc.end, "hugging_face": enc.spec,
                 "special_tokens": enc.named}
        return write_json(path, about)
    tokens = [base64.b64encode(token).decode() for token in tokens_of(enc)]
    write_json(path, {"name": enc.name, "sha256": tokenizer_hash(enc), "pattern": enc._pat_str,
                      "special_tokens": enc.named, "ranks": tokens})


def read_folder(folder):
    """What `save_tokenizer` wrote, as `read_tokenizer` returns it."""
    with open(os.path.join(folder, "tokenizer.json"), encoding=TEXT) as f:
        spec = json.load(f)
    if not isinstance(spec, dict) or not {"name", "pattern", "ranks"} <= spec.keys():
        raise ValueError("its tokenizer.json is not one that prepare.py wrote")
    tokens = [base64.b64decode(text, validate=True) for text in spec["ranks"]]
    enc = make_tokenizer(spec["name"], spec["pattern"], tokens)
    if tokenizer_hash(enc) != spec.get("sha256"):
        raise ValueError("its tokenizer.json does not have the hash that it names")
    return spec["name"], spec["pattern"], tokens


def tiktoken_tokens(path):
    """Byte strings in the order of their ids from a .tiktoken file: a token in base64 and its id a line."""
    tokens = {}  # id -> byte string
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            try:
                text, token_id = line.split()
                token, token_id = base64.b64decode(text, validate=True), int(token_id)
            except ValueError:
                raise ValueError(f"line {number} is not a token in base64 and its id")
            if token_id in tokens:
                raise ValueError(f"line {number} gives the id {token_id} a second time")
            tokens[token_id] = token
    if sorted(tokens) != list(range(len(tokens))):
        raise ValueError(f"the ids of its {len(tokens)} tokens are not 0 to {len(tokens) - 1}")
    return [tokens[i] for i in range(len(tokens))]


def gpt2_tokens(path):
    """Byte strings in the order of their ids from GPT-2's merges file: a '#version' line, then two symbols
    a line."""
    tokens = [bytes([b]) for b in BYTE_OF.values()]
    with open(path, encoding=TEXT) as f:
        for number, line in enumerate(f, 1):
            if line.startswith("#version") or not line.strip():
                continue
            pair = line.split()
            if len(pair) != 2 or not all(c in BYTE_OF for c in "".join(pair)):
                raise ValueError(f"line {number} is not a pair of GPT-2 symbols")
            tokens.append(bytes(BYTE_OF[c] for c in "".join(pair)))
    return tokens


def tokenizer_hash(enc):
    """What tells two tokenizers apart, as a hexadecimal hash: the byte string of every id, and the
    pattern."""
    if isinstance(enc, HFTokenizer):
        return enc.sha256()
    h = hashlib.sha256(enc._pat_str.encode())
    for i, token in enumerate(tokens_of(enc)):
        h.update(b"%d:%s" % (i, token))
    h.update(repr(sorted(enc._special_tokens.items())).encode())
    return h.hexdigest()
