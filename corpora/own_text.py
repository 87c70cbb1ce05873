"""
Token files from the user's own text: each document tokenized, and written to curated, val, test or noisy.

A curated document goes to val or test by a hash of its text, so that copies of it go the same way. Copies of
held-out documents on the noisy side are dropped.

An interrupted run goes on: progress.json, beside the token files, says how far they are. What was done is
read again, but not tokenized again.
"""
import hashlib
import os
import time

from corpora.builtin import LABELS, SOLUTIONS
from corpora.readers import encode, read_documents
from corpora.tokenizers import END_OF_TEXT, load_tokenizer, save_tokenizer, tokenizer_hash
from corpora.writer import TokenWriter, empty
from engine.cli import BadInput, Progress
from engine.files import read_json, write_json

NAMES = ("curated", "val", "test", "noisy")
PROGRESS_FILE = "progress.json"
SAVE_SECONDS = 10  # between notes of how far the token files are


def make_own(cfg, folder):
    """Write the four token files and the tokenizer into `folder`. cfg: prepare.Config. Raises BadInput."""
    corpus = OwnText(cfg, folder)
    if corpus.state["finished"]:  # but an error came while its files were moved to their place
        return
    save_tokenizer(corpus.enc, folder)
    corpus.add_side("curated", cfg.curated)  # first: what is held out of it must not be on the noisy side
    corpus.add_side("noisy", cfg.noisy)
    corpus.close()
    if corpus.n_dropped:
        print(f"dropped {corpus.n_dropped:,} noisy documents that are copies of held-out ones")


class OwnText:
    """The token files while they are written. `state` is what progress.json holds:

    about       hash of the options, the input files and the tokenizer: with others, one begins again
    pieces      of each side, how many pieces of documents are written (see corpora/readers.py)
    tokens      of each side, how many tokens these have
    written     of each token file, how many tokens and documents it has
    finished    whether all of them are complete
    """

    def __init__(self, cfg, folder):
        self.cfg, self.path = cfg, os.path.join(folder, PROGRESS_FILE)
        self.enc = load_tokenizer(cfg.tokenizer, cfg.vocab_size)
        self.state = read_json(self.path) if os.path.exists(self.path) else {"about": None}
        if self.state["about"] != self.about():
            empty(folder)
            self.state = {"about": self.about(), "pieces": {"curated": 0, "noisy": 0},
                          "tokens": {"curated": 0, "noisy": 0}, "written": {name: (0, 0) for name in NAMES},
                          "finished": False}
        self.saved = time.time()
        self.held_out = set()  # hashes of the texts of the documents in val and test
        self.n_dropped = 0
        self.writers = {}
        if not self.state["finished"]:
            label_names = LABELS if cfg.answer_field else None
            for name, (n_tokens, n_documents) in self.state["written"].items():
                self.writers[name] = TokenWriter(folder, name, self.enc, label_names, n_tokens, n_documents,
                                                 useful=SOLUTIONS)

    def about(self):
        """A hash of all that the token files depend on."""
        files = [path for path in self.cfg.curated + self.cfg.noisy if os.path.exists(path)]
        states = [(path, os.path.getsize(path), os.path.getmtime(path)) for path in files]
        about = [self.cfg, states, tokenizer_hash(self.enc), NAMES]
        return hashlib.sha256(repr(about).encode()).hexdigest()

    def add_side(self, side, paths):
        """Write the documents of these files, but for those that were written before an interruption."""
        cfg, tokens, done = self.cfg, self.state["tokens"], self.state["pieces"][side]
        progress = Progress(side, cfg.max_tokens, "tokens", tokens[side])
        documents = read_documents(paths, cfg.field, cfg.answer_field)
        name = None  # of the token file that the document at hand goes to; None where a document begins
        for number, (segments, ends_document, ids) in enumerate(encode(documents, self.enc, done), 1):
            if name is None:
                name = self.place_of(side, segments)
            if number > done:
                if name != "dropped":
                    tokens[side] += self.write(name, segments, ends_document, ids)
                self.state["pieces"][side] = number
                if time.time() - self.saved > SAVE_SECONDS:
                    self.save()
                progress.show(tokens[side])
            if ends_document:
                name = None
                if cfg.max_tokens and tokens[side] >= cfg.max_tokens and number >= done:
                    break
        progress.close()

    def place_of(self, side, segments):
        """The name of the token file that a document goes to, by its first piece; "dropped" if it is a noisy
        copy of a held-out one."""
        text = "".join(text for text, _ in segments)
        key = hashlib.sha256(text.strip().encode()).digest()
        if side == "noisy":
            self.n_dropped += key in self.held_out
            return "dropped" if key in self.held_out else "noisy"
        place = int.from_bytes(key[:8], "big") / 2**64  # uniform in [0, 1)
        if place >= 2 * self.cfg.held_out:
            return "curated"
        self.held_out.add(key)
        return "val" if place < self.cfg.held_out else "test"

    def write(self, name, segments, ends_document, ids):
        """Append a piece of a document, whose segments have these token ids. Returns its number of tokens."""
        tokens, labels = [], []
        for (_, label), its_ids in zip(segments, ids):
            tokens += its_ids
            labels += [label] * len(its_ids)
        self.writers[name].add(tokens, labels, ends_document)
        return len(tokens)

    def save(self):
        """Note how far the token files are; an interruption loses only what comes after."""
        for name, writer in self.writers.items():
            writer.sync()
            self.state["written"][name] = (writer.n_tokens, writer.n_documents)
        write_json(self.path, self.state)
        self.saved = time.time()

    def close(self):
        """Complete the token files. Raises BadInput where one of them is empty."""
        for name, writer in self.writers.items():
            if writer.n_tokens == 0:
                raise BadInput(f"the side {name} came out empty: give more or longer documents (one a line "
                               f"in .jsonl, separated by lines of {END_OF_TEXT} in .txt), or another "
                               f"--held_out")
            writer.close()
        write_json(self.path, self.state | {"finished": True})
