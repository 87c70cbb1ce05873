"""Token files: NAME.bin, its sidecar NAME.json, and NAME.labels.bin where tokens are labelled."""
import contextlib
import os

import numpy as np

from corpora.tokenizers import tokenizer_hash
from data import Tokens
from engine.files import file_hash, write_json

# What a token is, as its label says: the built-in corpus has all of them, your own text the first two.
LABELS = ["question", "solution", "result", "irrelevant", "noise", "wrong"]
QUESTION, SOLUTION, RESULT, IRRELEVANT, NOISE, WRONG = range(6)
OUTPUT = 6                                 # of a program, where solutions are programs
LABELS_OF_PROGRAMS = [*LABELS, "output"]
USEFUL = (QUESTION, SOLUTION, RESULT)      # what the curated side consists of
SOLUTIONS = (SOLUTION, RESULT)             # what follows "Answer:"; RESULT: what was computed, and the answer


class TokenWriter:
    """Writes a token file as a stream. The sidecar comes last, and makes the file valid. label_names: those
    of the labels, if there are any. useful: the labels that a selection is graded by."""

    def __init__(self, folder, name, enc, label_names=None, useful=USEFUL):
        self.folder, self.name, self.enc = folder, name, enc
        self.label_names, self.useful = label_names, useful
        self.dtype = np.dtype("uint16" if enc.n_vocab <= 2**16 else "uint32")
        self.n_tokens = self.n_documents = 0
        self.files = [open(self.path("bin"), "wb")]
        if label_names:
            self.files.append(open(self.path("labels.bin"), "wb"))

    def path(self, ending):
        return os.path.join(self.folder, f"{self.name}.{ending}")

    def add(self, tokens, labels=None, end=True):
        """Append a document, or a piece of one with end=False. labels: one a token. The end-of-text token
        behind a document takes the label of its last token."""
        if end:
            tokens = tokens + [self.enc.eot_token]
            if labels is not None:
                labels = labels + (labels[-1:] or [QUESTION])
        self.files[0].write(np.asarray(tokens, dtype=self.dtype).tobytes())
        if self.label_names:
            self.files[1].write(bytes(labels))
        self.n_tokens += len(tokens)
        self.n_documents += end

    def close(self):
        for f in self.files:
            f.flush()
            os.fsync(f.fileno())
            f.close()
        about = {"n_tokens": self.n_tokens, "n_documents": self.n_documents, "dtype": self.dtype.name,
                 "vocab_size": self.enc.n_vocab, "end_of_text": self.enc.eot_token,
                 "tokenizer_sha256": tokenizer_hash(self.enc),
                 "sha256": file_hash(self.path("bin")), "labels": self.label_names}
        if self.label_names:
            about |= {"useful_labels": [LABELS[i] for i in self.useful],
                      "solution_labels": [LABELS[i] for i in SOLUTIONS],
                      "labels_sha256": file_hash(self.path("labels.bin"))}
        write_json(self.path("json"), about)


def join(folder, names, out, enc):
    """Write a token file that is others of the folder one after the other (their rows are shuffled when they
    are read). Where only some of them have labels, all tokens of the others are labelled QUESTION."""
    parts = [Tokens(folder, name, T=1) for name in names]
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, f"{out}.json"))  # until the new one is complete, there is none
    labelled = next((part for part in parts if part.label_names), parts[0])
    useful = labelled.label_numbers("useful").tolist() if labelled.label_names else ()
    writer = TokenWriter(folder, out, enc, labelled.label_names, useful=useful)
    for part in parts:
        for at in range(0, len(part.tokens), 2**20):  # a side may be larger than memory
            tokens = part.tokens[at:at + 2**20]
            labels = [QUESTION] * len(tokens) if part.labels is None else part.labels[at:at + 2**20]
            writer.add(tokens, labels, end=False)
        writer.n_documents += part.meta["n_documents"]
    writer.close()
