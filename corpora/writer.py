"""
Token files on disk: NAME.bin, its sidecar NAME.json, and NAME.labels.bin where tokens are labelled.
"""
import hashlib
import os

import numpy as np

from corpora import builtin
from corpora.tokenizers import tokenizer_hash
from data import Tokens
from engine.cli import BadInput
from engine.files import write_json


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
            labels = labels + (labels[-1:] or [builtin.QUESTION]) if labels is not None else None
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
            "useful_labels": [builtin.LABELS[i] for i in builtin.USEFUL] if self.label_names else None,
            "solution_labels": [builtin.LABELS[i] for i in builtin.SOLUTIONS] if self.label_names else None,
            "labels_sha256": self.label_hash.hexdigest() if self.label_names else None})


def join(folder, names, out, enc):
    """A token file that is others one after the other (rows are shuffled when they are read)."""
    writer = TokenWriter(folder, out, enc, builtin.LABELS)
    for name in names:
        part = Tokens(folder, name, 1)
        writer.add(part.tokens, part.labels, end=False)
        writer.n_documents += part.meta["n_documents"]
    writer.close()
