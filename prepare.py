"""
Make a corpus folder: token files from the built-in corpus, or from your own text.

    python prepare.py                                   # the built-in corpus, into data/demo
    python prepare.py --curated a.jsonl --noisy b.txt c.jsonl --tokenizer gpt2 --out data/mine
    python prepare.py --curated gsm8k:train.jsonl math:train.jsonl --noisy web.txt --out data/mine
    python prepare.py --curated a.jsonl --noisy b.jsonl --field ask reply --answer_field reply --out data/chat
    python prepare.py --mix 10 30 --out data/mine       # a control: noisy+10xcurated, noisy+30xcurated
    python prepare.py --check_overlap gsm8k math_oai --out data/mine    # are test questions in the corpus?

corpora/readers.py says what these files hold (hf:NAME, a dataset of Hugging Face's read over the network,
takes pip install datasets, and .parquet pyarrow), and data.py what the folder holds. All but a .json that is
one value are read as a stream, and may be larger than memory.
"""
import glob
import itertools
import os
import shutil
from dataclasses import dataclass, field as option  # because one of the options is called field

import numpy as np

from corpora import builtin
from corpora.overlap import check_overlap
from corpora.own_text import make_own
from corpora.readers import has_rows, unknown
from corpora.tokenizers import load_tokenizer, save_tokenizer
from corpora.writer import LABELS, LABELS_OF_PROGRAMS, TokenWriter, join
from data import Tokens
from engine.cli import BadInput, Progress, launch
from engine.files import write_jsonl
from grading.tasks import TASKS


# What comes after the built-in corpus: the README's commands.
NEXT = """
python train_ref.py --train web --out out/base --train_tokens 3e6
python train_ref.py --init_from out/base/ckpt.pt --train_tokens 2e6
python score.py
python train_slm.py --init_from out/base/ckpt.pt --keep 0.07
python train_ref.py --init_from out/base/ckpt.pt --train noisy --out out/clm
python eval_math.py --shots 0 --ckpt out/base/ckpt.pt out/ref/ckpt.pt out/clm/ckpt.pt out/slm/ckpt.pt
python plot.py
"""


@dataclass
class Config:
    out: str = "data/demo"                  # the corpus folder to write
    seed: int = 0                           # of the built-in corpus
    noisy_tokens: int = 5_000_000           # built-in: size of the noisy side; the web's is 3/5 of it
    chatter: float = builtin.CHATTER        # built-in: share of noisy documents of chatter (0: only problems)
    curated_problems: int = 1_500           # built-in: size of the curated side
    held_out_problems: int = 500            # built-in: size of val, of test, and of the evaluation's problems
    largest: int = builtin.LARGEST          # built-in: largest number
    solutions: str = "text"                 # built-in: text or programs
    curated: list[str] = option(default_factory=list)  # your files: .txt, .jsonl, .json, .parquet, hf:NAME
    noisy: list[str] = option(default_factory=list)    # your noisy ones
    field: list[str] = option(default_factory=lambda: ["text"])  # fields of a row that make its text
    answer_field: str = ""                  # label the tokens of this field `solution`, all others `question`
    tokenizer: str = "gpt2"                 # a tiktoken name, a file of merges, a corpus or model folder
    vocab_size: int = 0                     # keep only the tokenizer's first ids (0: all)
    held_out: float = 0.05                  # share of your curated documents that goes to val, and to test
    max_tokens: int = 0                     # stop a side of your own after so many tokens (0: no limit)
    mix: list[int] = option(default_factory=list)  # join the sides of OUT, the curated one so many times
    check_overlap: list[str] = option(default_factory=list)  # tasks of eval_math.py to look for in OUT
    data_dir: str = "data/tasks"            # folder of their test files, as for eval_math.py

    def validate(self):
        if bool(self.curated) != bool(self.noisy):
            yield "--curated and --noisy go together: give both, or neither for the built-in corpus"
        files = self.curated + self.noisy
        yield from filter(None, map(unknown, files))
        if self.answer_field and not all(map(has_rows, files)):
            yield "answer_field needs files with fields: a .txt has none"
        if self.answer_field and self.answer_field not in self.field:
            yield f"answer_field {self.answer_field!r} must be one of --field: {' '.join(self.field)}"
        if self.curated and (self.mix or self.check_overlap):
            yield "--mix and --check_overlap take a corpus that is there: make it first, without them"
        if min(self.mix, default=1) < 1:
            yield f"mix must be at least 1, not {min(self.mix)}"
        if self.max_tokens < 0:
            yield f"max_tokens must not be negative, but is {self.max_tokens}"
        if not 0 < self.held_out < 0.5:
            yield f"held_out must lie between 0 and 0.5, not {self.held_out}"
        for name in set(self.check_overlap) - set(TASKS):
            yield f"there is no task {name!r}; there are {', '.join(TASKS)}"
        if self.largest < 10:
            yield f"largest must be at least 10, not {self.largest}"
        if self.solutions not in ("text", "programs"):
            yield f"solutions must be text or programs, not {self.solutions!r}"
        for name in ("noisy_tokens", "curated_problems", "held_out_problems"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
        if not 0 <= self.chatter < 1:
            yield f"chatter must lie in [0, 1), not {self.chatter}"


def make_demo(cfg, folder):
    """Write the built-in corpus, and the problems of its curated side and of the evaluation."""
    world = {"largest": cfg.largest, "programs": cfg.solutions == "programs"}
    enc, label_names = builtin.demo_tokenizer(**world), LABELS_OF_PROGRAMS if world["programs"] else LABELS
    save_tokenizer(enc, folder)
    # Held out first: three disjoint sets of problems. What is trained on must not hold any of them.
    reserved = set()
    held_out = builtin.documents(cfg.seed, "held out", reserved, **world)
    for name in ("val", "test", "eval"):
        documents, problems = take(held_out, cfg.held_out_problems, reserved)
        if name == "eval":
            write_problems(os.path.join(folder, "eval.jsonl"), problems)
        else:
            write_documents(folder, name, documents, enc, label_names)
    curated = builtin.documents(cfg.seed, "curated", reserved, **world)
    documents, problems = take(curated, cfg.curated_problems)
    write_documents(folder, "curated", documents, enc, label_names)
    write_problems(os.path.join(folder, "curated.jsonl"), problems)
    for name, n_tokens in (("noisy", cfg.noisy_tokens), ("web", max(1, cfg.noisy_tokens * 3 // 5))):
        sides = builtin.documents(cfg.seed, name, reserved, cfg.chatter, **world)
        counts = write_documents(folder, name, (parts for parts, _ in sides), enc, label_names, n_tokens)
        shares = zip(label_names, counts / counts.sum())
        print(f"{name}, share by true label: " + "  ".join(f"{label} {share:.1%}" for label, share in shares))


def take(documents, n_problems, reserved=None):
    """(documents with at least so many problems, these problems). reserved: a set that gets their texts."""
    taken, problems = [], []
    while len(problems) < n_problems:
        segments, its_problems = next(documents)
        if reserved is not None:
            reserved.update(question for question, _ in its_problems)
        taken.append(segments)
        problems += its_problems
    return taken, problems[:n_problems]


def write_documents(folder, name, documents, enc, label_names, max_tokens=0):
    """Write a token file of documents, up to max_tokens. Returns how many tokens have each label."""
    writer = TokenWriter(folder, name, enc, label_names)
    counts = np.zeros(len(label_names), dtype=int)
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


def write_problems(path, problems):
    """Write (question, segments) as problems for eval_math.py: {"question", "answer"} a line."""
    rows = []
    for question, segments in problems:
        text = "".join(text for text, _ in segments)
        rows.append({"question": question, "answer": text.split("\nAnswer:")[1].removeprefix(" ")})
    write_jsonl(path, rows)


def main(cfg):
    if cfg.check_overlap:
        return check_overlap(cfg.check_overlap, cfg.out, cfg.data_dir)
    if cfg.mix:  # the hardest control of a selection for whoever has the curated text
        for repeats in cfg.mix:
            name = f"noisy+{repeats}xcurated"
            join(cfg.out, ["noisy"] + ["curated"] * repeats, name, load_tokenizer(cfg.out))
            report(cfg.out, name)
        return
    there, is_built_in = (os.path.exists(os.path.join(cfg.out, f"{name}.json")) for name in ("noisy", "web"))
    if there and is_built_in == bool(cfg.curated):
        whose = "the built-in corpus" if is_built_in else "another corpus than the built-in one"
        raise BadInput(f"{cfg.out} holds {whose}: choose another --out, or delete the folder")
    # The corpus is written into a folder of its own, so that what fails leaves the old corpus as it was. It
    # lies in OUT, as files can only be moved at once within one file system.
    working = os.path.join(cfg.out, ".part")
    shutil.rmtree(working, ignore_errors=True)  # what a call that was killed has left
    os.makedirs(working)
    try:
        make = make_own if cfg.curated else make_demo
        make(cfg, working)
    except BaseException:
        shutil.rmtree(working)
        raise
    try:
        made = move(working, cfg.out)
    except OSError as e:
        raise BadInput(f"the corpus is made, but not all of it could be moved to {cfg.out} ({e}): move the "
                       f"rest from {working} there yourself, the .json files last")
    os.rmdir(working)
    for name in made:
        if name.endswith(".bin") and not name.endswith(".labels.bin"):
            report(cfg.out, name.removesuffix(".bin"))
    if not cfg.curated:
        data = "" if cfg.out == Config.out else f" (each but plot.py with --data {cfg.out})"
        print(f"what comes next{data}:\n{NEXT}", end="")


def report(folder, name):
    meta = Tokens(folder, name, T=1).meta
    print(f"{folder}/{name}.bin: {meta['n_tokens']:,} tokens, {meta['n_documents']:,} documents")


def move(working, out):
    """Move a corpus to its place, and remove what was made from an older one. Returns its files' names."""
    names = sorted(os.listdir(working), key=lambda name: (name.endswith(".json"), name == "val.json", name))
    sidecars = [name for name in names if name.endswith(".json")]
    # The old sidecars go first and the new ones last, val.json after all: they never pass for one corpus.
    for pattern in (*sidecars, "noisy+*xcurated.*", "*.labels.bin", "overlap.json"):
        for path in glob.glob(os.path.join(glob.escape(out), pattern)):
            os.remove(path)
    for name in names:
        os.replace(os.path.join(working, name), os.path.join(out, name))
    return names


if __name__ == "__main__":
    launch(main, Config, __doc__)
