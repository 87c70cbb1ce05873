"""
Any tokenizer.json of Hugging Face's, behind the few calls of tiktoken that this repository makes.

    enc = load_tokenizer("path/to/model")  # tokenizer.json, and what says which token ends a text
    enc.encode_ordinary("7 + 5 = 12"), enc.decode(ids), enc.eot_token, enc.n_vocab

Two kinds are known: those that write bytes as printable characters, as GPT-2's does (SmolLM2, Llama 3, ...),
and those that write a space as a low line and unknown bytes as <0x0A> (Llama 2, TinyLlama, Mistral, Rho-1).
"""
import contextlib
import hashlib
import itertools
import json
import os
import re

from corpora.long_runs import encode_in_pieces, panic_in_one_line, pieces
from engine.cli import BadInput
from engine.files import read_json

END_OF_TEXT = "<|endoftext|>"
LOW_LINE = "\u2581"                       # what the second kind writes for a space
# GPT-2's tokenizer writes each byte as a printable character, the 188 printable ones as themselves.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
OTHERS = [b for b in range(256) if b not in PRINTABLE]
BYTE_OF = {chr(b): b for b in PRINTABLE} | {chr(256 + i): b for i, b in enumerate(OTHERS)}
PROBE = "The cat, 3 + 4 = 7.\n\nna\u00efve"
ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>")  # what may end a text, where nothing says which token does
NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")  # what Hugging Face calls these tokens


def from_folder(folder, spec):
    """The tokenizer of a model's folder, whose tokenizer.json is `spec`. Raises BadInput."""
    path, config = os.path.join(folder, "tokenizer.json"), config_of(folder, "tokenizer_config.json")
    end, named = token_text(config.get("eos_token")), named_tokens(folder)[0]
    enc = HFTokenizer(json.dumps(spec, sort_keys=True), end, path, named)
    bos = enc.named["bos_token"]
    if config.get("add_bos_token") is True and bos and not enc.start:
        # In older files only this says that a text begins with a token. Put where newer ones have it.
        spec["post_processor"] = begin_with(bos, enc.id_of(bos), spec.get("post_processor"))
        enc = HFTokenizer(json.dumps(spec, sort_keys=True), end, path, named)
    return enc


def config_of(folder, name):
    """The object in a folder's .json file, which may be missing. Raises BadInput."""
    path = os.path.join(folder, name)
    config = read_json(path) if os.path.exists(path) else {}
    if not isinstance(config, dict):
        raise BadInput(f"{path} is not a JSON object: fetch it again")
    return config


def token_text(token):
    """The text of a token as a configuration names it, or None."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def named_tokens(folder):
    """({name of NAMES: token, or None where a folder's files say there is none}, the tokenizer's class)."""
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
            from tokenizers import Tokenizer
            self.tokenizer = Tokenizer.from_str(spec)
        except ImportError:
            raise BadInput(f"{source} needs another package: pip install tokenizers")
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
        # What the model was trained to see before a text, such as Llama 2's <s>; not what comes behind it.
        encoding = self.tokenizer.encode("a")
        n_start = encoding.special_tokens_mask.index(0)  # 1 for each token that is not of the text
        self.start = encoding.ids[:n_start]
        begin = self.tokenizer.id_to_token(self.start[0]) if self.start else None
        defaults = {"bos_token": begin, "unk_token": json.loads(spec)["model"].get("unk_token")}
        named = defaults | (named or {}) | {"eos_token": self.end}
        there = (name for name in NAMES if named.get(name) in ids)
        self.named = dict.fromkeys(NAMES) | {name: named[name] for name in there}
        # The second kind puts a space before every text. A text that begins with one has it already.
        self.puts_space = self.low_line and encoding.tokens[n_start].startswith(LOW_LINE)
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
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_ordinary(self, text):
        return encode_in_pieces(self.encode_whole, self.ordinary(text), self.may_be_cut)

    def encode_ordinary_batch(self, texts, num_threads=None):
        cut = [pieces(self.ordinary(text), self.may_be_cut) for text in texts]
        with contextlib.suppress(BadInput), panic_in_one_line(""):
            found = iter(self.tokenizer.encode_batch([*itertools.chain(*cut)], add_special_tokens=False))
            return [[i for _ in its_pieces for i in next(found).ids] for its_pieces in cut]
        return [self.encode_ordinary(text) for text in texts]  # raises BadInput at the one that is too much

    def decode_single_token_bytes(self, i):
        return self.bytes_of[i]

    def decode(self, ids):
        text = b"".join(self.bytes_of.get(i, b"") for i in ids)  # a model may have ids that are no token
        return text.decode("utf-8", errors="replace")
