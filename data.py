"""
Token files as rows, with the reference losses beside them. prepare.py makes the files, score.py the losses.

Row r of a token file is tokens[r*T : (r+1)*T], its targets are the same shifted by one. A token's loss
depends on its context, so the reference model and the language model must see each token in the same row. A
batch is a function of (seed, step) alone: whoever resumes at a step needs no other state.

A corpus folder holds tokenizer.json and token files, each a flat array NAME.bin with a sidecar NAME.json
and, where every token's true label is known, NAME.labels.bin (a byte a token):

    curated   what the reference model is trained on
    noisy     what the language model is trained on
    val       held-out curated text: early stopping, and every choice you make
    test      held-out curated text: what is reported, and nothing is chosen by it

The built-in corpus has problems as text too, and `web`: what its base is trained on.
"""
import functools
import hashlib
import json
import os

import numpy as np
import torch

from engine.cli import BadInput
from engine.files import TEXT, read_json, replacing, write_json


class Tokens:
    """A token file as rows of T tokens. Raises BadInput where it is missing, truncated or too short."""

    def __init__(self, folder, name, T):
        if T < 1:
            raise BadInput(f"block_size must be at least 1, not {T}")
        path = os.path.join(folder, name)
        try:
            with open(path + ".json", encoding=TEXT) as f:
                self.meta = json.load(f)
            self.dtype = np.dtype(self.meta["dtype"])
            n, self.sha256, self.label_names = self.meta["n_tokens"], self.meta["sha256"], self.meta["labels"]
            self.vocab_size, self.tokenizer_sha256 = self.meta["vocab_size"], self.meta["tokenizer_sha256"]
        except FileNotFoundError:
            raise BadInput(f"there is no corpus {path}.bin with {path}.json: make one with prepare.py")
        except (ValueError, KeyError, TypeError) as e:
            raise BadInput(f"{path}.json is not a sidecar ({e}): make the corpus again with prepare.py")
        self.check_size(f"{path}.bin", n * self.dtype.itemsize)
        if n < T + 1:
            raise BadInput(f"{path}.bin has {n:,} tokens, fewer than one row of {T} and its last target")
        self.path, self.T, self.n_rows = path, T, (n - 1) // T
        self.tokens = np.memmap(path + ".bin", dtype=self.dtype, mode="r")                              # (n,)
        self.token_rows, self.labels = self.as_rows(self.tokens), None
        if self.label_names:
            self.check_size(f"{path}.labels.bin", n)
            self.labels = np.memmap(path + ".labels.bin", dtype=np.uint8, mode="r")                     # (n,)
            self.label_rows = self.as_rows(self.labels)

    def check_size(self, path, expected):
        size = os.path.getsize(path) if os.path.exists(path) else 0
        if size != expected:
            raise BadInput(f"{path} has {size:,} bytes where its sidecar says {expected:,}: "
                           f"make the corpus again with prepare.py")

    def as_rows(self, flat):
        """A flat file as rows (n_rows, T + 1), not copied: a row's last target is the next one's input."""
        return np.lib.stride_tricks.sliding_window_view(flat, self.T + 1)[::self.T]

    def rows(self, rows):
        """Inputs and targets of the rows: two (len(rows), T) int64 tensors, y[:, t] = x[:, t + 1]."""
        tokens = torch.from_numpy(self.token_rows[rows].astype(np.int64))      # (len(rows), T + 1)
        return tokens[:, :-1], tokens[:, 1:]

    def labels_hash(self):
        """What tells the labels apart, their names and meanings included; None where there are none."""
        if not self.label_names:
            return None
        keys = ("labels", "labels_sha256", "useful_labels", "solution_labels")
        about = [self.meta.get(key) for key in keys]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def row_labels(self, rows):
        """True labels of the targets, (len(rows), T) uint8, or None where the corpus has none."""
        if self.labels is None:
            return None
        return torch.from_numpy(self.label_rows[rows][:, 1:])

    def label_numbers(self, group):
        """The numbers of the labels in a group, "useful" or "solution", as the sidecar lists them."""
        return torch.tensor([self.label_names.index(name) for name in self.meta[f"{group}_labels"]])


class Scores:
    """Reference losses as rows beside those of `tokens`."""

    def __init__(self, folder, tokens):
        sidecar = os.path.join(folder, "scores.json")
        about = read_json(sidecar) if os.path.exists(sidecar) else {}
        if not {"sha256", "corpus_sha256", "block_size"} <= set(about):
            raise BadInput(f"{folder} holds no scores: make them with score.py, or give another --scores "
                           f"(training on all tokens needs none: train_ref.py --train noisy)")
        if about["corpus_sha256"] != tokens.sha256:
            raise BadInput(f"the scores in {folder} are of another corpus: run score.py on {tokens.path}.bin")
        if about["block_size"] != tokens.T:
            raise BadInput(f"the scores in {folder} are for block_size {about['block_size']}, not "
                           f"{tokens.T}: run score.py with --block_size {tokens.T}")
        path = os.path.join(folder, "loss.bin")
        if not os.path.exists(path) or os.path.getsize(path) != 2 * tokens.n_rows * tokens.T:
            raise BadInput(f"the scores in {folder} are not complete: run the same command again")
        self.values = np.memmap(path, dtype=np.float16, mode="r").reshape(tokens.n_rows, tokens.T)
        self.path, self.sha256 = path, about["sha256"]  # of what they were made from, not of the file

    def rows(self, rows):
        """(len(rows), T) float32; inf where the loss is not known. Raises BadInput where it is NaN."""
        values = torch.from_numpy(self.values[rows].astype(np.float32))
        if values.isnan().any():
            raise BadInput(f"{self.path} holds losses that are not numbers: score with another reference")
        return values

    def all(self):
        """Those of all targets in the order of the text, (n_rows * T,) float32 numpy, as `rows` has them."""
        return self.rows(slice(None)).flatten().numpy()


def about_scores(tokens, corpus, made_from):
    """What scores.json says: which rows, made from what, and the hash by which a training run knows them."""
    about = {"corpus": corpus, "corpus_sha256": tokens.sha256, "tokenizer_sha256": tokens.tokenizer_sha256,
             "block_size": tokens.T, "n_rows": tokens.n_rows, **made_from}
    return {**about, "sha256": hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()}


def are_there(folder, about):
    """Whether a folder holds the scores that `about` says. Raises BadInput where it holds others."""
    sidecar, path = os.path.join(folder, "scores.json"), os.path.join(folder, "loss.bin")
    if os.path.exists(sidecar) and read_json(sidecar) != about:
        raise BadInput(f"{folder} holds other scores: choose another --out, or delete the folder")
    complete = os.path.exists(path) and os.path.getsize(path) == 2 * about["n_rows"] * about["block_size"]
    return os.path.exists(sidecar) and complete


def write_scores(folder, about, values):
    """A folder like score.py's. values: (n_rows * T,), in the order of the targets."""
    os.makedirs(folder, exist_ok=True)
    with replacing(os.path.join(folder, "loss.bin"), "wb") as f:
        f.write(values.astype(np.float16).tobytes())
    write_json(os.path.join(folder, "scores.json"), about)


def report_scores(folder, tokens):
    """Print the mean score, and that of each true label (of targets whose score is known)."""
    losses = np.memmap(os.path.join(folder, "loss.bin"), dtype=np.float16, mode="r")          # (n_rows * T,)
    known = np.isfinite(losses)
    mean = losses.mean(dtype=np.float64, where=known)
    print(f"{folder}: {losses.size:,} tokens of {tokens.path}.bin, mean reference loss {mean:.3f}")
    if not known.all():
        print(f"  {losses.size - known.sum():,} of them have none")
    if tokens.labels is None:
        return
    labels = tokens.labels[1:losses.size + 1]                                     # of the targets
    for label, name in enumerate(tokens.label_names):
        of_label = losses[(labels == label) & known].astype(np.float64)
        if of_label.size:
            share = of_label.size / losses.size
            print(f"  {name:<10} {share:6.1%} of the tokens, mean reference loss {of_label.mean():.3f}")


def batch(n_rows, batch_rows, seed, step):
    """Row numbers of this step's batch, (batch_rows,). Each epoch has an order of its own of all rows."""
    numbers = range(step * batch_rows, (step + 1) * batch_rows)  # counted from the start of training
    return np.array([permutation(n_rows, seed, number // n_rows)[number % n_rows] for number in numbers])


@functools.lru_cache(maxsize=2)  # a billion-token corpus has a million rows: permute them once an epoch
def permutation(n_rows, seed, epoch):
    return np.random.default_rng([seed, epoch]).permutation(n_rows)
