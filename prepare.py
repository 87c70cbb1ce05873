"""
Make a corpus folder: token files from the built-in corpus, or from your own text.

    python prepare.py                                   # the built-in corpus, into data/demo
    python prepare.py --curated a.jsonl --noisy b.txt c.jsonl --tokenizer gpt2 --out data/mine
    python prepare.py --curated gsm8k.jsonl --field question answer --noisy web.txt --out data/mine
    python prepare.py --curated a.jsonl --noisy b.jsonl --field ask reply --answer_field reply --out data/chat
    python prepare.py --mix 10 30 --out data/mine       # a control: noisy+10xcurated, noisy+30xcurated
    python prepare.py --check_overlap gsm8k math_oai --out data/mine    # are test questions in the corpus?

A .jsonl, .ndjson, .json or .parquet file has a document a row; in a .txt file documents are separated by
lines that say <|endoftext|>. All but .parquet may be packed (.gz, .xz), and no other ending is read; hf:NAME
is a dataset of Hugging Face's, read over the network (pip install datasets; for .parquet, pyarrow). All are
read as a stream, and may be larger than memory, but for a .json that is one value. An
interrupted run on your own text goes on with the same command. data.py says what the folder holds.
"""
import contextlib
import glob
import itertools
import json
import os
import shutil
from dataclasses import dataclass, field as option  # because one of the options is called field

import numpy as np

from corpora import builtin
from corpora.overlap import check_overlap
from corpora.own_text import PROGRESS_FILE, make_own
from corpora.readers import has_rows, unknown
from corpora.tokenizers import demo_tokenizer, load_tokenizer, save_tokenizer
from corpora.writer import LOCK, TokenWriter, empty, join
from data import Tokens
from engine.cli import BadInput, Progress, run
from engine.files import locked
from grading.tasks import TASKS


@dataclass
class Config:
    out: str = "data/demo"                  # the corpus folder to write
    seed: int = 0                           # of the built-in corpus
    noisy_tokens: int = 4_000_000           # built-in: size of the noisy side
    form_tokens: int = 0                    # built-in: size of the side `form` (0: half of the noisy side's)
    curated_documents: int = 1_000          # built-in: size of the curated side
    held_out_documents: int = 500           # built-in: size of val, of test, and of the evaluation's problems
    curated_repeats: int = 10               # built-in: how often noisy+curated repeats the curated side
    largest: int = builtin.LARGEST          # built-in: numbers are 0 to this; more of them are more facts
    skills: list[str] = option(default_factory=lambda: list(builtin.SKILLS))  # built-in: of its problems
    curated_steps: int = 3                  # built-in: most steps of a curated problem (all others: 3)
    p_chatter: float = 0.35                 # built-in: share of the noisy documents that are chatter alone
    chatter_words: int = 25                 # built-in: most words of chatter before and after a problem
    p_slip: float = 0.3                     # built-in: share of the noisy problems that are solved wrongly
    curated: list[str] = option(default_factory=list)  # your files: .txt, .jsonl, .json, .parquet, hf:NAME
    noisy: list[str] = option(default_factory=list)    # your noisy ones
    field: list[str] = option(default_factory=lambda: ["text"])  # fields of a row that make its text
    answer_field: str = ""                  # label the tokens of this field `solution`, all others `question`
    tokenizer: str = "gpt2"                 # a tiktoken name, a .tiktoken or merges file, a corpus folder
    vocab_size: int = 0                     # keep only the tokenizer's first ids (0: all)
    held_out: float = 0.05                  # share of your curated documents that goes to val, and to test
    max_tokens: int = 0                     # stop a side of your own after so many tokens (0: no limit)
    mix: list[int] = option(default_factory=list)  # join the sides of OUT, the curated one so many times
    check_overlap: list[str] = option(default_factory=list)  # tasks of eval_math.py to look for in OUT
    data_dir: str = "data/tasks"            # folder of their test files, as for eval_math.py

    def validate(self):
        if bool(self.curated) != bool(self.noisy):
            yield ("--curated and --noisy go together: both name files of yours, or neither (the built-in "
                   "corpus)")
        files = self.curated + self.noisy
        if problem := next(filter(None, map(unknown, files)), None):
            yield problem
        elif self.answer_field and not all(map(has_rows, files)):
            yield "answer_field needs files with fields: a .txt has none"
        if self.answer_field and self.answer_field not in self.field:
            yield f"answer_field {self.answer_field!r} must be one of --field: {' '.join(self.field)}"
        if self.check_overlap and self.curated:
            yield "--check_overlap looks at a corpus that is there: make it first, without this option"
        if self.mix and (self.curated or min(self.mix) < 1):
            yield ("mix takes a corpus that is there, and numbers of 1 and more: make it first, without this "
                   "option")
        for name in ("curated_repeats", "max_tokens", "form_tokens"):
            if getattr(self, name) < 0:
                yield f"{name} must not be negative, but is {getattr(self, name)}"
        for name in ("p_chatter", "p_slip"):
            if not 0 <= getattr(self, name) < 1:
                yield f"{name} must lie in [0, 1), not {getattr(self, name)}"
        if not 10 <= self.largest <= 99:
            yield f"largest must lie between 10 and 99, not {self.largest}"
        if not self.skills or set(self.skills) - set(builtin.SKILLS):
            yield f"skills must be of {' and '.join(builtin.SKILLS)}, not {' '.join(self.skills) or 'none'}"
        if not 1 <= self.curated_steps <= 3:
            yield f"curated_steps must be 1, 2 or 3, not {self.curated_steps}"
        if self.chatter_words < 5:
            yield f"chatter_words must be at least 5, not {self.chatter_words}"
        if not 0 < self.held_out < 0.5:
            yield f"held_out must lie between 0 and 0.5, not {self.held_out}"
        for name in set(self.check_overlap) - set(TASKS):
            yield f"there is no task {name!r}; there are {', '.join(TASKS)}"
        for name in ("noisy_tokens", "curated_documents", "held_out_documents"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"


# ---------------------------------------------------------------------------------------- the built-in corpus

def make_demo(cfg, folder):
    """Write the built-in corpus into `folder`: its tokenizer, the token files form, curated, noisy,
    noisy+curated, val and test, and the problems of the curated side and of the evaluation."""
    empty(folder)
    enc = demo_tokenizer(cfg.largest)
    save_tokenizer(enc, folder)

    # Held out first: three disjoint sets of problems. What is trained on must not hold any of them.
    n, reserved, held_out = cfg.held_out_documents, set(), []
    drawn = {"largest": cfg.largest, "skills": cfg.skills}
    for segments, question in builtin.documents(cfg.seed, "held out", **drawn):
        if question not in reserved:
            reserved.add(question)
            held_out.append(segments)
        if len(held_out) == 3 * n:
            break
    write_documents(folder, "val", held_out[:n], enc)
    write_documents(folder, "test", held_out[n:2 * n], enc)
    write_problems(os.path.join(folder, "eval.jsonl"), held_out[2 * n:])

    clean = builtin.documents(cfg.seed, "curated", reserved, most_steps=cfg.curated_steps, **drawn)
    curated = [segments for segments, _ in itertools.islice(clean, cfg.curated_documents)]
    write_documents(folder, "curated", curated, enc)
    write_problems(os.path.join(folder, "curated.jsonl"), curated)

    documents = builtin.documents(cfg.seed, "noisy", reserved, p_chatter=cfg.p_chatter, p_slip=cfg.p_slip,
                                  most_words=cfg.chatter_words, **drawn)
    noisy = (segments for segments, _ in documents)
    label_counts = write_documents(folder, "noisy", noisy, enc, cfg.noisy_tokens)
    shares = zip(builtin.LABELS, label_counts / label_counts.sum())
    print("noisy side, share by true label: " + "  ".join(f"{name} {share:.1%}" for name, share in shares))
    form = (segments for segments, _ in builtin.documents(cfg.seed, "form", reserved, **drawn))
    write_documents(folder, "form", form, enc, cfg.form_tokens or max(1, cfg.noisy_tokens // 2))
    join(folder, ["noisy"] + ["curated"] * cfg.curated_repeats, "noisy+curated", enc)


def write_documents(folder, name, documents, enc, max_tokens=0):
    """Write a token file of documents, each a list of (text, label) segments.

    max_tokens: where to stop if the documents are endless. Returns how many tokens each label has, (labels,).
    """
    writer = TokenWriter(folder, name, enc, builtin.LABELS)
    counts = np.zeros(len(builtin.LABELS), dtype=int)
    ids_of = {}  # of a segment's text: most of them recur
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
    """Write documents as problems for eval_math.py: {"question", "answer"} a line."""
    with open(path, "w", encoding="utf-8") as f:
        for segments in documents:
            question, answer = "".join(text for text, _ in segments).split("\nAnswer: ")
            f.write(json.dumps({"question": question.removeprefix("Question: "), "answer": answer}) + "\n")


# ------------------------------------------------------------------------------------------ the corpus folder

def main(cfg):
    if cfg.check_overlap:
        return check_overlap(cfg.check_overlap, cfg.out, cfg.data_dir)
    if cfg.mix:
        return mix(cfg)
    if cfg.curated and os.path.exists(os.path.join(cfg.out, "noisy+curated.json")):
        raise BadInput(f"{cfg.out} holds the built-in corpus, whose problems would be taken for yours: "
                       f"choose another --out")
    # The corpus is written into a folder beside it, so that what fails leaves the old corpus as it was.
    os.makedirs(cfg.out, exist_ok=True)
    out = os.path.realpath(cfg.out)
    working = f"{out}.part"
    os.makedirs(working, exist_ok=True)
    try:
        with locked(os.path.join(working, LOCK)):
            make_and_move(cfg, working, out)
    except BlockingIOError:
        raise BadInput(f"another prepare.py is writing {cfg.out}: wait for it, or choose another --out")
    with contextlib.suppress(OSError):  # Windows removes no file that is open, as the lock was until now
        os.remove(os.path.join(working, LOCK))
        os.rmdir(working)
    for name in sorted(os.listdir(out)):
        if name.endswith(".bin") and not name.endswith(".labels.bin"):
            meta = Tokens(out, name.removesuffix(".bin"), T=1).meta
            path = os.path.join(cfg.out, name)
            print(f"{path}: {meta['n_tokens']:,} tokens, {meta['n_documents']:,} documents")


def mix(cfg):
    """Write noisy+Nxcurated for each N of --mix: the noisy side, then the curated side N times. To train on
    it is the hardest control of a selection for whoever has the curated text."""
    for repeats in cfg.mix:
        name = f"noisy+{repeats}xcurated"
        join(cfg.out, ["noisy"] + ["curated"] * repeats, name, load_tokenizer(cfg.out))
        print(f"{cfg.out}/{name}.bin: {Tokens(cfg.out, name, T=1).meta['n_tokens']:,} tokens")


def make_and_move(cfg, working, out):
    """Make the corpus in the folder `working`, and move it to `out`. What one can go on with stays there."""
    progress_path = os.path.join(working, PROGRESS_FILE)
    try:
        if cfg.curated:
            make_own(cfg, working)
        else:
            make_demo(cfg, working)
        names = set(os.listdir(working)) - {PROGRESS_FILE, LOCK}
        # Sidecars come last: they make the files valid. Of these val.json is the last.
        for name in sorted(names, key=lambda name: (name.endswith(".json"), name)):
            os.replace(os.path.join(working, name), os.path.join(out, name))
        with contextlib.suppress(FileNotFoundError):
            os.remove(progress_path)  # of one's own text
        mixtures = glob.glob(os.path.join(glob.escape(out), "noisy+*xcurated.*"))
        for path in (os.path.join(out, "overlap.json"), *mixtures):  # of the corpus that was here before
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
    finally:
        if not os.path.exists(progress_path):
            shutil.rmtree(working, ignore_errors=True)


if __name__ == "__main__":
    run(main, Config, __doc__)
