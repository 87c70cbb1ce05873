"""
Make a corpus folder: token files from the built-in corpus, or from your own text.

    python prepare.py                                   # the built-in corpus, into data/demo
    python prepare.py --curated a.jsonl --noisy b.txt c.jsonl --tokenizer gpt2 --out data/mine
    python prepare.py --curated gsm8k.jsonl --field question answer --noisy web.txt --out data/mine
    python prepare.py --curated good.jsonl --noisy all.jsonl --field prompt reply --answer_field reply --out data/chat
    python prepare.py --check_overlap gsm8k math_oai --out data/mine    # are test questions in the corpus?

A .jsonl or .parquet file has a document a row; in a .txt file documents are separated by lines that say <|endoftext|>.
.jsonl and .txt may be packed (.gz, .xz); hf:NAME is a dataset of Hugging Face's, read over the network (pip install
datasets; for .parquet, pyarrow). All are read as a stream, and may be larger than memory. An interrupted run on your own
text goes on with the same command. data.py says what the folder holds.
"""
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from dataclasses import dataclass  # the Config below has an option called field, so dataclasses.field keeps its prefix

import numpy as np

from corpora import builtin
from corpora.overlap import check_overlap
from corpora.readers import encode, read_documents
from corpora.tokenizers import END_OF_TEXT, demo_tokenizer, load_tokenizer, save_tokenizer, tokenizer_hash
from corpora.writer import TokenWriter, join
from data import Tokens
from engine.cli import BadInput, Progress, run
from engine.files import locked, read_json, write_json
from grading.tasks import TASKS

SAVE_SECONDS = 10  # between notes of how far a corpus is
LOCK = "lock"      # in the working folder: who holds it writes there


@dataclass
class Config:
    out: str = "data/demo"                  # the corpus folder to write
    seed: int = 0                           # of the built-in corpus
    noisy_tokens: int = 4_000_000           # built-in: size of the noisy side
    curated_documents: int = 1_000          # built-in: size of the curated side
    held_out_documents: int = 500           # built-in: size of val, of test, and number of evaluation problems
    curated_repeats: int = 10               # built-in: how often the control corpus noisy+curated repeats the curated side
    curated: list[str] = dataclasses.field(default_factory=list)  # your curated files: .txt, .jsonl, .parquet, hf:NAME
    noisy: list[str] = dataclasses.field(default_factory=list)    # your own noisy ones
    field: list[str] = dataclasses.field(default_factory=lambda: ["text"])  # fields of a row that make the document
    answer_field: str = ""                  # label the tokens of this field `solution`, all others `question`
    tokenizer: str = "gpt2"                 # a tiktoken name, a .tiktoken or GPT-2 merges file, or a corpus folder
    vocab_size: int = 0                     # keep only the tokenizer's first ids (0: all)
    held_out: float = 0.05                  # share of your curated documents that goes to val, and to test
    max_tokens: int = 0                     # stop a side of your own after so many tokens (0: no limit)
    check_overlap: list[str] = dataclasses.field(default_factory=list)  # tasks of eval_math.py to look for in OUT
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
        for name in set(self.check_overlap) - set(TASKS):
            yield f"there is no task {name!r}; there are {', '.join(TASKS)}"
        for name in ("noisy_tokens", "curated_documents", "held_out_documents"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"


# ------------------------------------------------------------------------------------------- the built-in corpus

def make_demo(cfg, folder):
    """The built-in corpus: curated, noisy, noisy+curated, val, test, and the problems of curated and evaluation."""
    empty(folder)
    enc = demo_tokenizer()
    save_tokenizer(enc, folder)

    # Held out first: three disjoint sets of problems. What trains must not hold any of them.
    n, reserved, held_out = cfg.held_out_documents, set(), []
    for segments, question in builtin.documents(cfg.seed, "held out"):
        if question not in reserved:
            reserved.add(question)
            held_out.append(segments)
        if len(held_out) == 3 * n:
            break
    write_documents(folder, "val", held_out[:n], enc)
    write_documents(folder, "test", held_out[n:2 * n], enc)
    write_problems(os.path.join(folder, "eval.jsonl"), held_out[2 * n:])

    clean = (segments for segments, _ in builtin.documents(cfg.seed, "curated", reserved))
    curated = list(itertools.islice(clean, cfg.curated_documents))
    write_documents(folder, "curated", curated, enc)
    write_problems(os.path.join(folder, "curated.jsonl"), curated)

    noisy = (segments for segments, _ in builtin.documents(cfg.seed, "noisy", reserved))
    label_counts = write_documents(folder, "noisy", noisy, enc, cfg.noisy_tokens)
    shares = zip(builtin.LABELS, label_counts / label_counts.sum())
    print("noisy side, share by true label: " + "  ".join(f"{name} {share:.1%}" for name, share in shares))
    join(folder, ["noisy"] + ["curated"] * cfg.curated_repeats, "noisy+curated", enc)


def write_documents(folder, name, documents, enc, max_tokens=0):
    """A token file from documents, lists of (text, label) segments; endless ones until max_tokens. Returns the number of
    tokens of each label."""
    writer, counts = TokenWriter(folder, name, enc, builtin.LABELS), np.zeros(len(builtin.LABELS), dtype=int)
    ids_of = {}  # most segments recur
    progress = Progress(name, max_tokens, "tokens")
    for segments in documents:
        tokens, labels = [], []
        for text, label in segments:
            if text not in ids_of:
                ids_of[text] = enc.encode_ordinary(text)
            tokens += ids_of[text]
            labels += [label] * len(ids_of[text])
        writer.add(tokens, labels)
        counts += np.bincount(labels, minlength=len(counts))
        progress.show(writer.n_tokens)
        if max_tokens and writer.n_tokens >= max_tokens:
            break
    progress.close()
    writer.close()
    return counts


def write_problems(path, documents):
    with open(path, "w", encoding="utf-8") as f:
        for segments in documents:
            question, answer = "".join(text for text, _ in segments).split("\nAnswer: ")
            f.write(json.dumps({"question": question.removeprefix("Question: "), "answer": answer}) + "\n")


def empty(folder):
    """Remove what an interrupted run left in its working folder."""
    for name in os.listdir(folder):
        if name != LOCK:
            os.remove(os.path.join(folder, name))


# --------------------------------------------------------------------------------------------------- your own text

def make_own(cfg, folder):
    """Token files from the user's own text, written into `folder`. A curated document goes to val or test by a hash of its
    text, so that copies of it go the same way; copies of held-out documents on the noisy side are dropped.

    progress.json there says how far it is. After an interruption what was done is read again, but not tokenized.
    """
    enc = load_tokenizer(cfg.tokenizer, cfg.vocab_size)
    sides, names = {"curated": cfg.curated, "noisy": cfg.noisy}, ("curated", "val", "test", "noisy")
    present = [path for path in cfg.curated + cfg.noisy if os.path.exists(path)]
    files = [(path, os.path.getsize(path), os.path.getmtime(path)) for path in present]
    about = hashlib.sha256(repr([cfg, files, tokenizer_hash(enc)]).encode()).hexdigest()
    path = os.path.join(folder, "progress.json")
    state = read_json(path) if os.path.exists(path) else {}
    if state.get("about") != about:  # none, or of other files or settings
        empty(folder)
        state = {"about": about, "pieces": dict.fromkeys(sides, 0), "tokens": dict.fromkeys(sides, 0), "written": {}}
    if state.get("finished"):  # but not all of it was moved to its place
        return
    save_tokenizer(enc, folder)
    label_names = builtin.LABELS if cfg.answer_field else None
    writers = {name: TokenWriter(folder, name, enc, label_names, *state["written"].get(name, (0, 0))) for name in names}

    def save():
        for name, writer in writers.items():
            writer.sync()
            state["written"][name] = (writer.n_tokens, writer.n_documents)
        write_json(path, state)

    held_out, dropped, saved = set(), 0, time.time()
    for side, paths in sides.items():
        done, tokens, name = state["pieces"][side], state["tokens"], None
        progress = Progress(side, cfg.max_tokens, "tokens", tokens[side])
        pieces = encode(read_documents(paths, cfg.field, cfg.answer_field), enc, done)
        for number, (segments, ends_document, ids) in enumerate(pieces, 1):
            if name is None:  # the first piece of a document
                key = hashlib.sha256("".join(text for text, _ in segments).strip().encode()).digest()
                name = place_of(side, key, held_out, cfg.held_out)
                dropped += name == "dropped"
            if name != "dropped" and number > done:
                labels = [label for part, (_, label) in zip(ids, segments) for _ in part] if label_names else None
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


def place_of(side, key, held_out, share):
    """Which token file a document goes to, by the hash of its text; "dropped" for a noisy copy of a held-out one. Notes in
    `held_out`, a set, what is held out."""
    if side == "noisy":
        return "dropped" if key in held_out else "noisy"
    place = int.from_bytes(key[:8], "big") / 2**64  # uniform in [0, 1)
    if place >= 2 * share:
        return "curated"
    held_out.add(key)
    return "val" if place < share else "test"


def main(cfg):
    if cfg.check_overlap:
        return check_overlap(cfg.check_overlap, cfg.out, cfg.data_dir)
    # Into a folder beside it, and moved when all is well, sidecars last: what fails leaves the old corpus as it was.
    os.makedirs(cfg.out, exist_ok=True)
    out = os.path.realpath(cfg.out)
    working = f"{out}.part"
    os.makedirs(working, exist_ok=True)
    try:
        with locked(os.path.join(working, LOCK)):
            try:
                if cfg.curated:
                    make_own(cfg, working)
                else:
                    make_demo(cfg, working)
            except BaseException:
                if not os.path.exists(os.path.join(working, "progress.json")):  # nothing there to go on with
                    shutil.rmtree(working, ignore_errors=True)
                raise
            names = set(os.listdir(working)) - {"progress.json", LOCK}
            for name in sorted(names, key=lambda name: name.endswith(".json")):
                os.replace(os.path.join(working, name), os.path.join(out, name))
    except BlockingIOError:
        raise BadInput(f"another prepare.py is writing {cfg.out}: wait for it, or choose another --out")
    shutil.rmtree(working)
    if os.path.exists(os.path.join(out, "overlap.json")):  # of the corpus that was here before
        os.remove(os.path.join(out, "overlap.json"))
    for name in sorted(os.listdir(cfg.out)):
        if name.endswith(".bin") and not name.endswith(".labels.bin"):
            meta = Tokens(cfg.out, name.removesuffix(".bin"), 1).meta
            print(f"{os.path.join(cfg.out, name)}: {meta['n_tokens']:,} tokens, {meta['n_documents']:,} documents")


if __name__ == "__main__":
    run(main, Config, __doc__)
