"""
Token files as rows, with the reference losses beside them. prepare.py makes the files, score.py the losses.

    train = Tokens("data/demo", "noisy", T=192)
    rows = batch(train.n_rows, batch_rows=8, seed=0, step=17)     # which rows the step takes
    x, y = train.rows(rows)                                       # inputs and targets, (8, 192)
    ref_loss = Scores("out/scores", train).rows(rows)             # L_ref of each target, (8, 192)

Row r of a token file is tokens[r*T : (r+1)*T], its targets are the same shifted by one. A token's loss
depends on its context, so the reference model and the language model must see each token in the same row. An
epoch is a seeded permutation of the rows, and a batch is a function of (seed, step) alone: whoever resumes
at a step needs no other state.

A corpus folder holds tokenizer.json and token files, each a flat array NAME.bin with a sidecar NAME.json
and, where every token's true label is known, NAME.labels.bin (a byte a token):

    curated   what the reference model is trained on
    noisy     what the language model is trained on
    val       held-out curated text: early stopping, and every choice you make
    test      held-out curated text: what is reported, and nothing is chosen by it

The built-in corpus has `form` besides (what all arms start from: the form of a worked problem, with results
that are any numbers), `noisy+curated` (a control), and problems as text: curated.jsonl, eval.jsonl.
"""
import functools
import hashlib
import json
import os

import numpy as np
import torch

from engine.cli import BadInput
from engine.files import TEXT, read_json


class Tokens:
    """A token file as rows of T tokens. Raises BadInput where the file is missing, truncated or too short."""

    def __init__(self, folder, name, T):
        path = os.path.join(folder, name)
        try:
            with open(path + ".json", encoding=TEXT) as f:
                self.meta = json.load(f)
            self.dtype = np.dtype(self.meta["dtype"])
            n, self.sha256, self.label_names = self.meta["n_tokens"], self.meta["sha256"], self.meta["labels"]
            self.vocab_size, self.tokenizer_sha256 = self.meta["vocab_size"], self.meta["tokenizer_sha256"]
        except FileNotFoundError:
            raise BadInput(f"there is no corpus {path}.bin with its sidecar {path}.json; python prepare.py "
                           f"makes one")
        except (ValueError, KeyError, TypeError) as e:
            raise BadInput(f"{path}.json is not a sidecar of a token file ({e}); make the corpus again with "
                           f"prepare.py")
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
        """A flat file as overlapping rows, (n_rows, T + 1), without copying: a row's last target is the next
        one's input."""
        return np.lib.stride_tricks.sliding_window_view(flat, self.T + 1)[::self.T]

    def rows(self, rows):
        """Inputs and targets of the rows: two (len(rows), T) int64 tensors, y[:, t] = x[:, t + 1]."""
        tokens = torch.from_numpy(self.token_rows[rows].astype(np.int64))      # (len(rows), T + 1)
        return tokens[:, :-1], tokens[:, 1:]

    def highest_id(self):
        """The highest token id that the file holds. It is read once from beginning to end."""
        return int(self.tokens.max())

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
    """The reference losses that score.py wrote, as rows beside those of `tokens`.

    name: "loss", or "entropy" of the prediction. Raises BadInput unless they are complete and made for these
    rows.
    """

    def __init__(self, folder, tokens, name="loss"):
        sidecar = os.path.join(folder, "scores.json")
        state = read_json(sidecar) if os.path.exists(sidecar) else {}
        if not {"corpus_sha256", "block_size", "rows_done", "ckpt_sha256"} <= set(state):
            raise BadInput(f"{folder} holds no scores: make them with score.py, or give another --scores")
        if state["corpus_sha256"] != tokens.sha256:
            raise BadInput(f"the scores in {folder} are of another corpus than {tokens.path}.bin: run "
                           f"score.py on it")
        if state["block_size"] != tokens.T:
            raise BadInput(f"the scores in {folder} are for block_size {state['block_size']}, not "
                           f"{tokens.T}, and contexts must be equal: run score.py with --block_size "
                           f"{tokens.T}")
        if name == "entropy" and name not in state.get("files", []):
            raise BadInput(f"the scores in {folder} have no entropy: run score.py with --entropy, into "
                           f"another folder")
        path = os.path.join(folder, f"{name}.bin")
        n = tokens.n_rows * tokens.T
        if state["rows_done"] != tokens.n_rows or not os.path.exists(path) or os.path.getsize(path) != 2 * n:
            raise BadInput(f"the scores in {folder} are not complete: run the same score.py command again")
        self.values = np.memmap(path, dtype=np.float16, mode="r").reshape(tokens.n_rows, tokens.T)
        self.path, self.ckpt_sha256 = path, state["ckpt_sha256"]

    def rows(self, rows):
        """(len(rows), T) float32; inf where the loss is not known. Raises BadInput where it is not a
        number."""
        values = torch.from_numpy(self.values[rows].astype(np.float32))
        if values.isnan().any():
            raise BadInput(f"{self.path} holds losses that are not numbers (NaN): score again with a "
                           f"reference model whose losses are finite, into another folder")
        return values


def hashes_of(train, val, test):
    """What a training run is made from: hashes of its three Tokens and of their labels, which decide what it
    reports of solutions."""
    hashes = {"tokenizer_sha256": train.tokenizer_sha256}
    for name, tokens in (("corpus", train), ("val", val), ("test", test)):
        hashes |= {f"{name}_sha256": tokens.sha256, f"{name}_labels_sha256": tokens.labels_hash()}
    return hashes


def batch(n_rows, batch_rows, seed, step):
    """Row numbers of the batch of this step, (batch_rows,). Each epoch goes through all rows in an order of
    its own; a batch at the end of one epoch reaches into the next."""
    numbers = range(step * batch_rows, (step + 1) * batch_rows)  # counted from the start of training
    return np.array([permutation(n_rows, seed, number // n_rows)[number % n_rows] for number in numbers])


@functools.lru_cache(maxsize=2)  # a billion-token corpus has a million rows: permute them once an epoch
def permutation(n_rows, seed, epoch):
    return np.random.default_rng([seed, epoch]).permutation(n_rows)
