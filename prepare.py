"""
Tokenizers, token files on disk, fixed rows.

    python data.py                                   # the built-in corpus, into data/demo
    python data.py --curated a.jsonl --noisy b.txt c.jsonl --tokenizer gpt2 --out data/mine
    python data.py --curated gsm8k.jsonl --field question answer --noisy web.txt --out data/mine
    python data.py --curated good.jsonl --noisy all.jsonl --field prompt reply --answer_field reply --out data/chat
    python data.py --check_overlap gsm8k math_oai --out data/mine    # are test questions in the corpus?

A corpus folder holds tokenizer.json and token files, each a flat array NAME.bin with a sidecar NAME.json (how many
tokens, which tokenizer, a hash of the content) and, where tokens are labelled, NAME.labels.bin (a byte a token):

    curated   what the reference model is trained on
    noisy     what the language model is trained on
    dev       held-out curated text: early stopping, and every choice you make
    target    held-out curated text: what is reported, and nothing is chosen by it

A .jsonl or .parquet file has a document a row; in a .txt file documents are separated by lines that say <|endoftext|>.
.jsonl and .txt may be packed (.gz, .xz); hf:NAME is a dataset of Hugging Face's, read over the network (pip install
datasets; for .parquet, pyarrow). All are read as a stream, and may be larger than memory. An interrupted run on your own
text goes on with the same command.

Rows: row r of a token file is tokens[r*T : (r+1)*T], its targets are the same shifted by one. A token's loss depends
on its context, so the reference model and the language model must see each token in the same row. An epoch is a
seeded permutation of the rows, and a batch is a function of (seed, step) alone.
"""
import base64
import dataclasses
import fcntl
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from dataclasses import dataclass  # the Config below has an option called field, so dataclasses.field keeps its prefix

import numpy as np
import tiktoken
import torch

import corpus
import tasks
from common import UNREADABLE, BadInput, Progress, json_rows, open_text, read_json, run, unreadable, write_json

END_OF_TEXT = "<|endoftext|>"
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
SAVE_SECONDS = 10  # between notes of how far a corpus is
DEMO_PATTERN = r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]|\s"


# ------------------------------------------------------------------------------------------------- tokenizers

def make_tokenizer(name, pattern, ranks):
    """A tiktoken Encoding: `ranks` are the byte strings in order of their ids; <|endoftext|> takes the next id."""
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks={b: i for i, b in enumerate(ranks)},
                             special_tokens={END_OF_TEXT: len(ranks)})


def demo_tokenizer():
    """The built-in corpus's: the 256 bytes, then its words, each with the space before it; <|endoftext|> last."""
    ranks = [bytes([i]) for i in range(256)] + [w.encode() for w in corpus.WORDS]
    return make_tokenizer("nanorho-demo", DEMO_PATTERN, ranks)


def load_tokenizer(source, vocab_size=None):
    """A tiktoken Encoding from: a corpus folder, a .tiktoken file (a base64 token and its rank a line), a file of
    GPT-2 merges, or a name that tiktoken knows (downloaded once). vocab_size keeps the first ids only: a prefix of
    a byte-pair encoding is one too. Raises BadInput."""
    try:
        if os.path.isdir(source):
            with open(os.path.join(source, "tokenizer.json"), encoding="utf-8") as f:
                spec = json.load(f)
            name, pattern, ranks = spec["name"], spec["pattern"], [base64.b64decode(b) for b in spec["ranks"]]
        elif source.endswith(".tiktoken"):
            with open(source, "rb") as f:
                pairs = [line.split() for line in f if line.strip()]
            ranks = [base64.b64decode(b) for b, rank in sorted(pairs, key=lambda pair: int(pair[1]))]
            name, pattern = os.path.basename(source), GPT2_PATTERN
        elif os.path.exists(source):
            name, pattern, ranks = os.path.basename(source), GPT2_PATTERN, gpt2_ranks(source)
        else:
            enc = tiktoken.get_encoding(source)
            name, pattern = enc.name, GPT2_PATTERN if source == "gpt2" else enc._pat_str  # it is spelt otherwise in old versions
            ranks = sorted(enc._mergeable_ranks, key=enc._mergeable_ranks.get)
    except (ValueError, KeyError, IndexError, TypeError) as e:
        raise BadInput(f"{source} is not a tokenizer: {e}".splitlines()[0] + "; give a corpus folder, a .tiktoken or "
                       "GPT-2 merges file, or a name of tiktoken's")
    except OSError as e:
        raise BadInput(f"cannot load the tokenizer {source!r}: {e}; give a corpus folder, a .tiktoken or GPT-2 merges "
                       f"file, or a name of tiktoken's with the network at hand")
    if vocab_size and not 257 <= vocab_size <= len(ranks) + 1:
        raise BadInput(f"vocab_size {vocab_size} must lie between 257 and {len(ranks) + 1} for the tokenizer {source}")
    ranks = ranks[:vocab_size - 1] if vocab_size else ranks
    return make_tokenizer(name, pattern, ranks)


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
    ranks = sorted(enc._mergeable_ranks, key=enc._mergeable_ranks.get)
    write_json(os.path.join(folder, "tokenizer.json"),
               {"name": enc.name, "sha256": tokenizer_hash(enc), "pattern": enc._pat_str,
                "ranks": [base64.b64encode(b).decode() for b in ranks]})


def tokenizer_hash(enc):
    """What tells two tokenizers apart: the byte string of every id, and the pattern that splits text into words."""
    h = hashlib.sha256(enc._pat_str.encode())
    for b, rank in sorted(enc._mergeable_ranks.items(), key=lambda item: item[1]):
        h.update(b"%d:%s" % (rank, b))
    h.update(repr(sorted(enc._special_tokens.items())).encode())
    return h.hexdigest()


# ------------------------------------------------------------------------------------------------ token files

class TokenWriter:
    """Writes NAME.bin (and NAME.labels.bin) as a stream; the sidecar comes last and makes the file valid. n_tokens,
    n_documents: go on with files that hold so many (what is behind them is cut off)."""

    def __init__(self, folder, name, enc, label_names=None, n_tokens=0, n_documents=0):
        self.folder, self.name, self.enc, self.label_names = folder, name, enc, label_names
        self.dtype = np.dtype("uint16" if enc.n_vocab <= 2**16 else "uint32")
        self.n_tokens, self.n_documents = n_tokens, n_documents
        self.file, self.hash = self.open("bin", self.dtype.itemsize)
        self.label_file, self.label_hash = self.open("labels.bin", 1) if label_names else (None, None)

    def open(self, ending, itemsize):
        """A file of n_tokens items to append to, and the hash of what it holds."""
        f, h, size = open(self.path(ending), "a+b"), hashlib.sha256(), self.n_tokens * itemsize
        if f.seek(0, os.SEEK_END) < size:
            raise BadInput(f"{f.name} is shorter than progress.json beside it says: delete {self.folder}, and start again")
        f.truncate(size)
        f.seek(0)
        while block := f.read(2**20):
            h.update(block)
        return f, h

    def path(self, ending):
        return os.path.join(self.folder, f"{self.name}.{ending}")

    def add(self, tokens, labels=None, end=True):
        """A document, or a piece of one with end=False. The end-of-text token takes the last token's label."""
        if end:
            tokens = tokens + [self.enc.eot_token]
            labels = labels + (labels[-1:] or [corpus.QUESTION]) if labels is not None else None
        data = np.asarray(tokens, dtype=self.dtype).tobytes()
        self.file.write(data)
        self.hash.update(data)
        if self.label_file:
            self.label_file.write(bytes(labels))
            self.label_hash.update(bytes(labels))
        self.n_tokens += len(tokens)
        self.n_documents += end

    def sync(self):
        for f in filter(None, (self.file, self.label_file)):
            f.flush()
            os.fsync(f.fileno())

    def close(self):
        self.sync()
        for f in filter(None, (self.file, self.label_file)):
            f.close()
        write_json(self.path("json"), {
            "n_tokens": self.n_tokens, "n_documents": self.n_documents, "dtype": self.dtype.name,
            "vocab_size": self.enc.n_vocab, "tokenizer_sha256": tokenizer_hash(self.enc),
            "sha256": self.hash.hexdigest(), "labels": self.label_names,
            "labels_sha256": self.label_hash.hexdigest() if self.label_names else None})


class Tokens:
    """A token file as rows of T tokens. Raises BadInput where the file is missing, truncated or too short."""

    def __init__(self, folder, name, T):
        path = os.path.join(folder, name)
        try:
            with open(path + ".json", encoding="utf-8") as f:
                self.meta = json.load(f)
            self.dtype = np.dtype(self.meta["dtype"])
            n, self.sha256, self.label_names = self.meta["n_tokens"], self.meta["sha256"], self.meta["labels"]
            self.vocab_size, self.tokenizer_sha256 = self.meta["vocab_size"], self.meta["tokenizer_sha256"]
        except FileNotFoundError:
            raise BadInput(f"there is no corpus {path}.bin with its sidecar {path}.json; python data.py makes one")
        except (ValueError, KeyError, TypeError) as e:
            raise BadInput(f"{path}.json is not a sidecar of a token file ({e}); make the corpus again with data.py")
        for ending, itemsize in [("bin", self.dtype.itemsize)] + [("labels.bin", 1)] * bool(self.label_names):
            size = os.path.getsize(f"{path}.{ending}") if os.path.exists(f"{path}.{ending}") else -1
            if size != n * itemsize:
                raise BadInput(f"{path}.{ending} has {max(size, 0):,} bytes where its sidecar says {n * itemsize:,}: "
                               f"make the corpus again with data.py")
        if n < T + 1:
            raise BadInput(f"{path}.bin has {n:,} tokens, fewer than one row of {T} and its last target")
        self.path, self.T, self.n_rows = path, T, (n - 1) // T
        self.tokens = np.memmap(path + ".bin", dtype=self.dtype, mode="r")
        self.labels = np.memmap(path + ".labels.bin", dtype=np.uint8, mode="r") if self.label_names else None
        # The files as overlapping rows, (n_rows, T + 1), without copying: the last target of a row is the next one's input.
        self.token_rows, self.label_rows = (None if flat is None else np.lib.stride_tricks.sliding_window_view(
            flat, T + 1)[::T] for flat in (self.tokens, self.labels))

    def rows(self, rows):
        """Inputs and targets of the rows: two (len(rows), T) int64 tensors, y[t] = x[t + 1]."""
        tokens = torch.from_numpy(self.token_rows[rows].astype(np.int64))
        return tokens[:, :-1], tokens[:, 1:]

    def row_labels(self, rows):
        """True labels of the targets, (len(rows), T) uint8, or None where the corpus has none."""
        if self.labels is None:
            return None
        return torch.from_numpy(self.label_rows[rows][:, 1:])


def batch(n_rows, batch_rows, seed, step):
    """Row numbers of the batch of this step, (batch_rows,): every epoch is a permutation of its own.

    A function of its arguments alone: whoever resumes at a step needs no state.
    """
    at = np.arange(step * batch_rows, (step + 1) * batch_rows)
    epochs = at // n_rows
    return np.concatenate([permutation(n_rows, seed, int(e))[at[epochs == e] % n_rows] for e in np.unique(epochs)])


@functools.lru_cache(maxsize=2)  # a billion-token corpus has a million rows: permute them once an epoch
def permutation(n_rows, seed, epoch):
    return np.random.default_rng([seed, epoch]).permutation(n_rows)


# ------------------------------------------------------------------------------------------------ making corpora

@dataclass
class Config:
    out: str = "data/demo"                  # the corpus folder to write
    seed: int = 0                           # of the built-in corpus
    noisy_tokens: int = 4_000_000           # built-in: size of the noisy side
    curated_documents: int = 1_000          # built-in: size of the curated side
    held_out_documents: int = 500           # built-in: size of dev, of target, and number of evaluation problems
    curated_repeats: int = 10               # built-in: how often the control corpus noisy+curated repeats the curated side
    curated: list[str] = dataclasses.field(default_factory=list)  # your own curated files: .txt, .jsonl, .parquet, hf:NAME
    noisy: list[str] = dataclasses.field(default_factory=list)    # your own noisy ones
    field: list[str] = dataclasses.field(default_factory=lambda: ["text"])  # fields of a row that make the document
    answer_field: str = ""                  # label the tokens of this field `solution`, all others `question`
    tokenizer: str = "gpt2"                 # a tiktoken name, a .tiktoken or GPT-2 merges file, or a corpus folder
    vocab_size: int = 0                     # keep only the tokenizer's first ids (0: all)
    held_out: float = 0.05                  # share of your curated documents that goes to dev, and to target
    max_tokens: int = 0                     # stop a side of your own after so many tokens (0: no limit)
    check_overlap: list[str] = dataclasses.field(default_factory=list)  # tasks of eval_math.py to look for in the corpus OUT
    data_dir: str = "data/tasks"            # folder of their test files, as for eval_math.py

    def validate(self):
        if bool(self.curated) != bool(self.noisy):
            yield "--curated and --noisy go together: both name files of yours, or neither (the built-in corpus)"
        if self.answer_field and any(re.search(r"\.txt(\.gz|\.xz)?$", path) for path in self.curated + self.noisy):
            yield "answer_field needs files with fields: a .txt has none"
        if self.answer_field and self.answer_field not in self.field:
            yield f"answer_field {self.answer_field!r} must be one of --field: {' '.join(self.field)}"
        if not 0 < self.held_out < 0.5:
            yield f"held_out must lie between 0 and 0.5, not {self.held_out}"
        for name in set(self.check_overlap) - set(tasks.TASKS):
            yield f"there is no task {name!r}; there are {', '.join(tasks.TASKS)}"
        for name in ("noisy_tokens", "curated_documents", "held_out_documents"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"


def make_demo(cfg):
    """The built-in corpus: curated, noisy, noisy+curated, dev, target, and the problems of curated and evaluation."""
    empty(cfg.out)
    enc = demo_tokenizer()
    save_tokenizer(enc, cfg.out)
    cache = {}  # most segments recur

    def encode(segments):
        tokens, labels = [], []
        for text, label in segments:
            ids = cache.get(text) or cache.setdefault(text, enc.encode_ordinary(text))
            tokens += ids
            labels += [label] * len(ids)
        return tokens, labels

    def write(name, documents):
        writer = TokenWriter(cfg.out, name, enc, corpus.LABELS)
        for segments in documents:
            writer.add(*encode(segments))
        writer.close()
        return writer

    def write_problems(name, documents):
        with open(os.path.join(cfg.out, name), "w", encoding="utf-8") as f:
            for segments in documents:
                question, answer = "".join(text for text, _ in segments).split("\nAnswer: ")
                f.write(json.dumps({"question": question.removeprefix("Question: "), "answer": answer}) + "\n")

    # Held out first: three disjoint sets of problems. What trains must not hold any of them.
    n, reserved, held_out = cfg.held_out_documents, set(), []
    for segments, question in corpus.documents(cfg.seed, "held out"):
        if question not in reserved:
            reserved.add(question)
            held_out.append(segments)
        if len(held_out) == 3 * n:
            break
    write("dev", held_out[:n])
    write("target", held_out[n:2 * n])
    write_problems("eval.jsonl", held_out[2 * n:])

    curated = [segments for segments, _ in itertools.islice(
        corpus.documents(cfg.seed, "curated", reserved), cfg.curated_documents)]
    write("curated", curated)
    write_problems("curated.jsonl", curated)

    noisy = TokenWriter(cfg.out, "noisy", enc, corpus.LABELS)
    counts = np.zeros(len(corpus.LABELS), dtype=int)
    progress = Progress("noisy", cfg.noisy_tokens, "tokens")
    for segments, question in corpus.documents(cfg.seed, "noisy", reserved):
        assert question not in reserved
        tokens, labels = encode(segments)
        noisy.add(tokens, labels)
        counts += np.bincount(labels, minlength=len(counts))
        progress.show(noisy.n_tokens)
        if noisy.n_tokens >= cfg.noisy_tokens:
            break
    noisy.close()
    print("noisy side, share by true label: "
          + "  ".join(f"{name} {share:.1%}" for name, share in zip(corpus.LABELS, counts / counts.sum())))
    join(cfg.out, ["noisy"] + ["curated"] * cfg.curated_repeats, "noisy+curated", enc)


def empty(folder):
    """Remove what an interrupted run left in its working folder."""
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))


def join(folder, names, out, enc):
    """A token file that is others one after the other (rows are shuffled when they are read)."""
    writer = TokenWriter(folder, out, enc, corpus.LABELS)
    for name in names:
        part = Tokens(folder, name, 1)
        writer.add(part.tokens, part.labels, end=False)
        writer.n_documents += part.meta["n_documents"]
    writer.close()


def make_own(cfg, folder):
    """Token files from the user's own text, written into `folder`. A curated document goes to dev or target by a hash of its
    text, so that copies of it go the same way; copies of held-out documents on the noisy side are dropped.

    progress.json there says how far it is. After an interruption what was done is read again, but not tokenized.
    """
    enc = load_tokenizer(cfg.tokenizer, cfg.vocab_size)
    sides, names = {"curated": cfg.curated, "noisy": cfg.noisy}, ("curated", "dev", "target", "noisy")
    files = [(path, os.path.getsize(path), os.path.getmtime(path)) for path in cfg.curated + cfg.noisy if os.path.exists(path)]
    about = hashlib.sha256(repr([cfg, files, tokenizer_hash(enc)]).encode()).hexdigest()
    path = os.path.join(folder, "progress.json")
    state = read_json(path) if os.path.exists(path) else {}
    if state.get("about") != about:  # none, or of other files or settings
        empty(folder)
        state = {"about": about, "pieces": dict.fromkeys(sides, 0), "tokens": dict.fromkeys(sides, 0), "written": {}}
    if state.get("finished"):  # but not all of it was moved to its place
        return
    save_tokenizer(enc, folder)
    labelled = corpus.LABELS if cfg.answer_field else None
    writers = {name: TokenWriter(folder, name, enc, labelled, *state["written"].get(name, (0, 0))) for name in names}

    def save():
        for name, writer in writers.items():
            writer.sync()
            state["written"][name] = (writer.n_tokens, writer.n_documents)
        write_json(path, state)

    held_out, dropped, saved = set(), 0, time.time()
    for side, paths in sides.items():
        done, tokens = state["pieces"][side], state["tokens"]
        progress, name = Progress(side, cfg.max_tokens, "tokens", tokens[side]), None
        pieces = encode(read_documents(paths, cfg.field, cfg.answer_field), enc, done)
        for number, (segments, ends_document, ids) in enumerate(pieces, 1):
            if name is None:  # the first piece of a document
                text = "".join(text for text, _ in segments)
                key = hashlib.sha256(text.strip().encode()).digest()
                place = int.from_bytes(key[:8], "big") / 2**64  # uniform in [0, 1)
                if side == "curated":
                    name = "dev" if place < cfg.held_out else "target" if place < 2 * cfg.held_out else "curated"
                    if name != "curated":
                        held_out.add(key)
                else:
                    name = "dropped" if key in held_out else "noisy"
                    dropped += name == "dropped"
            if name != "dropped" and number > done:
                labels = [label for part, (_, label) in zip(ids, segments) for _ in part] if labelled else None
                writers[name].add(list(itertools.chain(*ids)), labels, ends_document)
                tokens[side] += sum(map(len, ids))
            if ends_document:
                name = None
            if number > done:
                state["pieces"][side] = number
                if time.time() - saved > SAVE_SECONDS:
                    save()
                    saved = time.time()
                progress.show(tokens[side])
            if ends_document and cfg.max_tokens and tokens[side] >= cfg.max_tokens and number >= done:
                break
        progress.close()
    for name, writer in writers.items():
        if writer.n_tokens == 0:
            raise BadInput(f"the side {name} came out empty: give more or longer documents (one a line in .jsonl, "
                           f"separated by lines of {END_OF_TEXT} in .txt), or another --held_out")
        writer.close()
    write_json(path, state | {"finished": True})
    if dropped:
        print(f"dropped {dropped:,} noisy documents that are copies of held-out ones")


def encode(pieces, enc, skip=0):
    """(segments, ends_document) -> (segments, ends_document, token ids of each segment), in order, on all cores. The first
    `skip` pieces come without ids."""
    pieces = iter(pieces)
    for piece in itertools.islice(pieces, skip):
        yield *piece, []
    while some := list(take(pieces, 2**22)):
        texts = [text for segments, _ in some for text, _ in segments]
        ids = iter(enc.encode_ordinary_batch(texts, num_threads=os.cpu_count()))
        for segments, ends_document in some:
            yield segments, ends_document, [next(ids) for _ in segments]


def take(pieces, n_characters):
    """The next of the pieces, until they have so many characters together."""
    for segments, ends_document in pieces:
        yield segments, ends_document
        n_characters -= sum(len(text) for text, _ in segments)
        if n_characters <= 0:
            return


def read_documents(paths, fields, answer_field=""):
    """The documents of text files (see the top) as a stream of (segments, whether the document ends here): a long one from a
    .txt comes in pieces of about a megabyte, cut at ends of lines. Segments are [(text, label), ...]; with answer_field,
    what stands before, in and after that field of a row. Raises BadInput."""
    for path in paths:
        number = 0
        try:
            rows = read_rows(path, fields)
            if rows is None:
                yield from read_txt(path)
                continue
            for number, row in rows:
                parts = [("" if row[name] is None else str(row[name])) + "\n" for name in fields]
                parts[-1] = parts[-1][:-1]
                "".join(parts).encode()  # JSON can hold half a character, which UTF-8 cannot
                at = fields.index(answer_field) if answer_field else len(fields)
                yield [("".join(parts[:at]), corpus.QUESTION), ("".join(parts[at:at + 1]), corpus.SOLUTION),
                       ("".join(parts[at + 1:]), corpus.QUESTION)], True
        except UNREADABLE as e:
            raise BadInput(unreadable(path, e))
        except KeyError as e:
            raise BadInput(f"{path}, line {number}, has no field {e}; name its text fields with --field")


def read_rows(path, fields):
    """The rows of a file as (number, dict), or None for a .txt."""
    if re.search(r"\.jsonl(\.gz|\.xz)?$", path):
        return json_rows(path)
    if path.startswith("hf:"):
        try:
            from datasets import load_dataset
        except ImportError:
            raise BadInput(f"reading {path} needs another package: pip install datasets")
        return hf_rows(path, load_dataset)
    if path.endswith(".parquet"):
        return parquet_rows(path, fields)
    if re.search(r"\.(zst|bz2|zip|7z|lz4)$", path):
        raise BadInput(f"{path} is packed in a way that is not known here (.gz and .xz are): unpack it first")
    return None


def hf_rows(path, load_dataset):
    """The rows of a dataset of Hugging Face's, over the network."""
    try:
        yield from enumerate(load_dataset(path[3:], split="train", streaming=True), 1)
    except Exception as e:  # no network, no such dataset, a dozen kinds
        raise BadInput(f"reading {path} failed ({str(e).splitlines()[0]:.100}): the same command goes on; or fetch the files, "
                       f"and name these")


def parquet_rows(path, fields):
    """The rows of a .parquet file, a thousand at a time in memory."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(f"reading {path} needs another package: pip install pyarrow")
    try:
        file = pyarrow.parquet.ParquetFile(path)
        batches = file.iter_batches(1000, columns=[name for name in fields if name in file.schema_arrow.names])
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except pyarrow.ArrowException as e:
        raise BadInput(unreadable(path, EOFError(str(e).splitlines()[0])))


def read_txt(path):
    """The pieces of a .txt file, for `read_documents`."""
    with open_text(path) as f:
        lines, size = [], 0
        for line in f:
            if line.strip() == END_OF_TEXT:
                if lines:
                    yield [("".join(lines), corpus.QUESTION)], True
                lines, size = [], 0
                continue
            if size > 2**20:
                yield [("".join(lines), corpus.QUESTION)], False
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        if lines:
            yield [("".join(lines), corpus.QUESTION)], True


# ----------------------------------------------------------------------------------------------- contamination

def check_overlap(cfg):
    """Print and write to OUT/overlap.json which questions of the tasks named share 13 words in a row with a side of the
    corpus OUT (8 words where the question has fewer than 13; questions of fewer than 8 words are not checked). Case and
    punctuation do not count."""
    enc, result = load_tokenizer(cfg.out), {}
    questions = {}  # (task, number of the question) -> its words
    for task in cfg.check_overlap:
        own = os.path.join(cfg.out, "eval.jsonl")
        problems = tasks.load_problems(task, own) if task == "demo" else tasks.load_task(task, cfg.data_dir)
        for i, p in enumerate(problems):
            asked = re.sub(r"^(?:Question|Problem|Table):|\n(?:Question|Answer|Solution):|\nOptions: .*", "\n", p["question"])
            questions[task, i] = re.findall(r"\w+", asked.lower())
    where = {}  # n-gram -> the questions it occurs in
    for key, words in questions.items():
        for gram in ngrams(words, 13 if len(words) >= 13 else 8):
            where.setdefault(gram, set()).add(key)
    for side in ("curated", "noisy"):
        tokens = Tokens(cfg.out, side, 1)
        found, progress, done = {}, Progress(side, len(tokens.tokens), "tokens"), 0
        for ids in documents(tokens.tokens, enc.eot_token):
            words = re.findall(r"\w+", enc.decode(ids).lower())
            for gram in itertools.chain(ngrams(words, 13), ngrams(words, 8)):
                for key in where.get(gram, ()):
                    found.setdefault(key, " ".join(gram))
            done += len(ids)
            progress.show(done, f"{len(found)} found")
        progress.close()
        for task in cfg.check_overlap:
            total = [len(words) for (t, _), words in questions.items() if t == task]
            hits = {i: gram for (t, i), gram in found.items() if t == task}
            short = sum(n < 8 for n in total)
            result.setdefault(task, {})[side] = {"questions": len(total), "too_short": short,
                                                 "found": len(hits), "which": dict(sorted(hits.items()))}
            print(f"{task}: {len(hits)} of {len(total)} questions in {side}" + (f", {short} too short to check" if short else "")
                  + (f", the first as '... {hits[min(hits)]} ...'" if hits else ""))
    write_json(os.path.join(cfg.out, "overlap.json"), result)


def ngrams(words, n):
    return (tuple(words[i:i + n]) for i in range(len(words) - n + 1))


def documents(tokens, end):
    """The documents of a flat array of tokens, as lists of ids without the `end` token between them."""
    rest = []
    for at in range(0, len(tokens), 2**20):
        piece = np.asarray(tokens[at:at + 2**20])
        start = 0
        for stop in np.flatnonzero(piece == end):
            yield rest + piece[start:stop].tolist()
            rest, start = [], stop + 1
        rest += piece[start:].tolist()
    if rest:
        yield rest


def main(cfg):
    if cfg.check_overlap:
        return check_overlap(cfg)
    # Into a folder beside it, and moved when all is well, sidecars last: what fails leaves the old corpus as it was.
    os.makedirs(cfg.out, exist_ok=True)
    out = os.path.realpath(cfg.out)
    new = f"{out}.part"
    os.makedirs(new, exist_ok=True)
    progress = os.path.join(new, "progress.json")
    lock = os.open(new, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            make_own(cfg, new) if cfg.curated else make_demo(dataclasses.replace(cfg, out=new))
        except BaseException:
            if not os.path.exists(progress):  # nothing there to go on with
                shutil.rmtree(new)
            raise
        for name in sorted(set(os.listdir(new)) - {"progress.json"}, key=lambda name: name.endswith(".json")):
            os.replace(os.path.join(new, name), os.path.join(out, name))
        shutil.rmtree(new)
        if os.path.exists(os.path.join(out, "overlap.json")):  # of the corpus that was here before
            os.remove(os.path.join(out, "overlap.json"))
    except BlockingIOError:
        raise BadInput(f"another data.py is writing {cfg.out}: wait for it, or choose another --out")
    finally:
        os.close(lock)
    for name in sorted(os.listdir(cfg.out)):
        if name.endswith(".bin") and not name.endswith(".labels.bin"):
            meta = Tokens(cfg.out, name.removesuffix(".bin"), 1).meta
            print(f"{os.path.join(cfg.out, name)}: {meta['n_tokens']:,} tokens, {meta['n_documents']:,} documents")


if __name__ == "__main__":
    run(main, Config, __doc__)
