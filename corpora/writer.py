"""
Token files on disk: NAME.bin, its sidecar NAME.json, and NAME.labels.bin where tokens are labelled. data.py
reads them.
"""
import hashlib
import os

import numpy as np

from corpora import builtin
from corpora.tokenizers import tokenizer_hash
from data import Tokens
from engine.cli import BadInput
from engine.files import write_json


LOCK = "lock"  # a file in the folder where token files are being written: whoever holds it writes there


class TokenWriter:
    """Writes a token file as a stream. The sidecar comes last, and makes the file valid.

    label_names: what the labels stand for, where tokens are labelled. useful: the numbers of those that a
    selection is graded by. n_tokens, n_documents: go on with files that hold so many; what an interrupted
    run had written behind them is cut off. Raises BadInput where they hold fewer.
    """

    def __init__(self, folder, name, enc, label_names=None, n_tokens=0, n_documents=0, useful=builtin.USEFUL):
        self.folder, self.name, self.enc, self.label_names = folder, name, enc, label_names
        self.useful = useful
        self.dtype = np.dtype("uint16" if enc.n_vocab <= 2**16 else "uint32")
        self.n_tokens, self.n_documents = n_tokens, n_documents
        self.file, self.hash = self.open("bin", self.dtype.itemsize)
        self.files = [self.file]
        if label_names:
            self.label_file, self.label_hash = self.open("labels.bin", 1)
            self.files.append(self.label_file)

    def open(self, ending, itemsize):
        """A file of n_tokens items, of so many bytes each, to append to; and the hash of what it holds."""
        size = self.n_tokens * itemsize
        f = open(self.path(ending), "a+b")
        if f.seek(0, os.SEEK_END) < size:
            raise BadInput(f"{f.name} is shorter than progress.json beside it says: delete {self.folder}, "
                           f"and start again")
        f.truncate(size)
        f.seek(0)
        h = hashlib.sha256()
        while block := f.read(2**20):
            h.update(block)
        return f, h

    def path(self, ending):
        return os.path.join(self.folder, f"{self.name}.{ending}")

    def add(self, tokens, labels=None, end=True):
        """Append a document, or a piece of one with end=False.

        tokens: a list of ids. labels: a list of label numbers, one a token, where tokens are labelled. The
        end-of-text token behind a document takes the label of its last token.
        """
        if end:
            tokens = tokens + [self.enc.eot_token]
            if labels is not None:
                labels = labels + (labels[-1:] or [builtin.QUESTION])
        content = np.asarray(tokens, dtype=self.dtype).tobytes()
        self.file.write(content)
        self.hash.update(content)
        if self.label_names:
            content = bytes(labels)
            self.label_file.write(content)
            self.label_hash.update(content)
        self.n_tokens += len(tokens)
        self.n_documents += end

    def sync(self):
        """Make sure that all of it is on disk."""
        for f in self.files:
            f.flush()
            os.fsync(f.fileno())

    def close(self):
        """Write the sidecar. Nothing can be added after it."""
        self.sync()
        for f in self.files:
            f.close()
        about = {"n_tokens": self.n_tokens, "n_documents": self.n_documents, "dtype": self.dtype.name,
                 "vocab_size": self.enc.n_vocab, "end_of_text": self.enc.eot_token,
                 "tokenizer_sha256": tokenizer_hash(self.enc),
                 "sha256": self.hash.hexdigest(), "labels": self.label_names}
        if self.label_names:
            about |= {"useful_labels": [builtin.LABELS[i] for i in self.useful],
                      "solution_labels": [builtin.LABELS[i] for i in builtin.SOLUTIONS],
                      "labels_sha256": self.label_hash.hexdigest()}
        write_json(self.path("json"), about)


def empty(folder):
    """Remove what an interrupted run left in the folder where it wrote. The lock file stays."""
    for name in os.listdir(folder):
        if name != LOCK:
            os.remove(os.path.join(folder, name))


def join(folder, names, out, enc):
    """Write a token file that is others of the folder one after the other (their rows are shuffled when they
    are read)."""
    parts = [Tokens(folder, name, T=1) for name in names]
    if os.path.exists(os.path.join(folder, f"{out}.json")):
        os.remove(os.path.join(folder, f"{out}.json"))  # until the new one is complete, there is none
    useful = parts[0].label_numbers("useful").tolist() if parts[0].label_names else ()
    writer = TokenWriter(folder, out, enc, parts[0].label_names, useful=useful)
    for part in parts:
        for at in range(0, len(part.tokens), 2**20):  # a side may be larger than memory
            labels = None if part.labels is None else part.labels[at:at + 2**20]
            writer.add(part.tokens[at:at + 2**20], labels, end=False)
        writer.n_documents += part.meta["n_documents"]
    writer.close()
