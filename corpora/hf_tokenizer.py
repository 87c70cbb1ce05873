"""
Any tokenizer.json of Hugging Face's, behind the few calls of tiktoken that this repository makes.

    enc = from_folder("path/to/model")     # tokenizer.json, and what says which token ends a text
    enc.encode_ordinary("7 + 5 = 12"), enc.decode(ids), enc.eot_token, enc.n_vocab

It needs the package `tokenizers` (pip install tokenizers). Two kinds are known: those that write bytes as
printable characters, as GPT-2's does (SmolLM2, Llama 3, ...), and those that write a space as a low line and
unknown bytes as <0x0A> (Llama 2, TinyLlama, Mistral, Rho-1).
"""
import hashlib
import importlib
import json
import os
import re

from corpora.long_runs import encode_in_pieces, is_panic, pieces
from engine.cli import BadInput
from engine.files import read_json

END_OF_TEXT = "<|endoftext|>"
LOW_LINE = "\u2581"                       # what the second kind writes for a space
PROBE = "The cat, 3 + 4 = 7.\n\nna\u00efve"
ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>")  # what may end a text, where nothing says which token does


NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")  # what Hugging Face calls these tokens


def from_folder(folder):
    """The tokenizer of a model's folder. Raises BadInput."""
    path = os.path.join(folder, "tokenizer.json")
    spec, config = read_json(path), config_of(folder, "tokenizer_config.json")
    end, named = token_text(config.get("eos_token")), named_tokens(folder)[0]
    enc = HFTokenizer(json.dumps(spec, sort_keys=True), end, path, named)
    bos = enc.named["bos_token"]
    if config.get("add_bos_token") is True and bos and not enc.start:
        # In older files only this says that a text begins with a token. Put where newer ones have it.
        spec["post_processor"] = begin_with(bos, enc.id_of(bos), spec.get("post_processor"))
        enc = HFTokenizer(json.dumps(spec, sort_keys=True), end, path, named)
    return enc


def config_of(folder, name):
    """A folder's .json file that may be missing, as a dict. Raises BadInput."""
    path = os.path.join(folder, name)
    config = read_json(path) if os.path.exists(path) else {}
    return config if isinstance(config, dict) else {}


def token_text(token):
    """The text of a token as a configuration names it, or None."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def named_tokens(folder):
    """({name of NAMES: token, or None where it is said that there is none}, the class of the tokenizer), as a
    folder's files say; the end as tokenizer_config.json alone says."""
    config = config_of(folder, "tokenizer_config.json")
    said = config_of(folder, "special_tokens_map.json") | config
    named = {name: token_text(said[name]) for name in NAMES if name in said}
    if token_text(said.get("cls_token")):
        named.setdefault("bos_token", None)  # what stands before a text has another name there
    return named, str(config.get("tokenizer_class") or "")


def begin_with(token, number, processor):
    """The post_processor of tokenizer.json that puts this token before a text, after what another does."""
    text, begin = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": token, "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    template = {"type": "TemplateProcessing", "single": [begin, text], "pair": [begin, text, second],
                "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}}}
    return {"type": "Sequence", "processors": [processor, template]} if processor else template


class HFTokenizer:
    """A tokenizer with the calls of tiktoken's Encoding. Raises BadInput.

    spec: the text of tokenizer.json. end: the token that ends a text, None for the first of ENDS that it has.
    named: what `named_tokens` finds; a name that is not in it is what `spec` says. The attribute `named` has
    all of NAMES, None where there is no such token.
    """

    def __init__(self, spec, end, source, named=None):
        try:
            package = importlib.import_module("tokenizers")  # not our file of that name
        except ImportError:
            raise BadInput(f"{source} needs another package: pip install tokenizers")
        try:
            self.tokenizer = package.Tokenizer.from_str(spec)
        except Exception as e:  # the package raises Exception itself
            raise BadInput(f"{source} is not a tokenizer.json of Hugging Face's, or is damaged: {e}")
        self.tokenizer.encode_special_tokens = True  # <|endoftext|> in a text is text
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.name, self.spec = os.path.basename(source), spec
        ids = self.tokenizer.get_vocab(with_added_tokens=True)
        self.end = end or next((token for token in ENDS if token in ids), None)
        if self.end not in ids:
            raise BadInput(f"which token of {source} ends a text is not known: put a tokenizer_config.json "
                           f"with its eos_token beside it")
        self.eot_token, self.n_vocab = ids[self.end], max(ids.values()) + 1
        self.low_line = "<0x0A>" in ids
        added = {i: token.content.encode() for i, token in self.tokenizer.get_added_tokens_decoder().items()}
        self.bytes_of = {i: self.to_bytes(token) for token, i in ids.items()} | added
        # What the model was trained to see before a text, such as Llama 2's <s>; most have nothing there.
        # What a template puts behind a text, such as </s>, is no part of it.
        encoding = self.tokenizer.encode("a")
        n_start = encoding.special_tokens_mask.index(0)  # 1 for each token that is not of the text
        self.start = encoding.ids[:n_start]
        begin = self.tokenizer.id_to_token(self.start[0]) if self.start else None
        defaults = {"bos_token": begin, "unk_token": json.loads(spec)["model"].get("unk_token")}
        named = defaults | (named or {}) | {"eos_token": self.end}
        there = (name for name in NAMES if named.get(name) in ids)
        self.named = dict.fromkeys(NAMES) | {name: named[name] for name in there}
        # The second kind puts a space before every text. A text that begins with one has it already.
        first = self.tokenizer.encode("a", add_special_tokens=False).tokens[0]
        self.puts_space = self.low_line and first.startswith(LOW_LINE)
        # Where something is put before every text, a piece of a text would get it too.
        self.may_be_cut = self.decode(self.encode_whole("\n\n")) == "\n\n"
        if self.decode(self.encode_ordinary(PROBE)).strip() != PROBE:
            raise BadInput(f"{source} is of a kind that is not known here: it does not give a text back as "
                           f"it was; give one that works on bytes, or with <0x0A>")

    def id_of(self, token):
        return self.tokenizer.token_to_id(token)

    def to_bytes(self, token):
        """The bytes that a token of the vocabulary stands for."""
        if not self.low_line:
            return bytes(BYTE_OF.get(character, 32) for character in token)
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)])
        return token.replace(LOW_LINE, " ").encode()

    def sha256(self):
        """What tells two tokenizers apart: all that the ids of a text depend on, however it is written."""
        spec = json.loads(self.tokenizer.to_str())
        kept = {name: part for name, part in spec.items() if name not in ("post_processor", "decoder")}
        return hashlib.sha256(f"{json.dumps(kept, sort_keys=True)}\n{self.end}".encode()).hexdigest()

    def ordinary(self, text):
        return text[1:] if self.puts_space and text.startswith(" ") else text

    def encode_whole(self, text):
        return self.tokenizer.encode(self.ordinary(text), add_special_tokens=False).ids if text else []

    def encode_ordinary(self, text):
        return encode_in_pieces(self.encode_whole, text, self.may_be_cut)

    def encode_ordinary_batch(self, texts, num_threads=None):
        cut = [pieces(text) if self.may_be_cut else [text] for text in texts]
        flat = [self.ordinary(piece) for its_pieces in cut for piece in its_pieces]
        try:
            found = iter(self.tokenizer.encode_batch(flat, add_special_tokens=False))
        except BaseException as e:
            if not is_panic(e):
                raise
            return [self.encode_ordinary(text) for text in texts]  # which cuts as far as need be
        return [[i for _ in its_pieces for i in next(found).ids] for its_pieces in cut]

    def encode(self, text, allowed_special=(), disallowed_special=()):
        """Token ids; with END_OF_TEXT in allowed_special, it stands for the token that ends a text."""
        parts = text.split(END_OF_TEXT) if END_OF_TEXT in allowed_special else [text]
        ids = self.encode_ordinary(parts[0])
        for part in parts[1:]:
            ids += [self.eot_token, *self.encode_ordinary(part)]
        return ids

    def decode_single_token_bytes(self, i):
        return self.bytes_of[i]

    def decode(self, ids):
        text = b"".join(self.bytes_of.get(i, b"") for i in ids)  # a model may have ids that are no token
        return text.decode("utf-8", errors="replace")


def characters():
    """{character: byte}: GPT-2's tokenizer writes each byte as a printable character. The 188 bytes that are
    printable stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF = characters()
