"""
Token files from the user's own text: each document tokenized, and written to curated, val, test or noisy.

A curated document goes to val or test by a hash of its text, so that copies of it go the same way. Copies of
held-out documents on the noisy side are dropped.
"""
import hashlib

from corpora.readers import encode, is_labelled, read_documents
from corpora.tokenizers import END_OF_TEXT, load_tokenizer, save_tokenizer
from corpora.writer import LABELS, SOLUTIONS, TokenWriter
from engine.cli import BadInput, Progress

NAMES = ("curated", "val", "test", "noisy")


def make_own(cfg, folder):
    """Write the four token files and the tokenizer into `folder`. cfg: prepare.Config. Raises BadInput."""
    corpus = OwnText(cfg, folder)
    save_tokenizer(corpus.enc, folder)
    corpus.add_side("curated", cfg.curated)  # first: what is held out of it must not be on the noisy side
    corpus.add_side("noisy", cfg.noisy)
    for name, writer in corpus.writers.items():
        if writer.n_tokens == 0:
            raise BadInput(f"the side {name} came out empty: give more or longer documents (one a line in "
                           f".jsonl, separated by lines of {END_OF_TEXT} in .txt), or another --held_out")
        writer.close()
    if corpus.n_dropped:
        print(f"dropped {corpus.n_dropped:,} noisy documents that are copies of held-out ones")


class OwnText:
    def __init__(self, cfg, folder):
        self.cfg, self.enc = cfg, load_tokenizer(cfg.tokenizer, cfg.vocab_size)
        self.held_out = set()  # hashes of the texts of the documents in val and test
        self.n_dropped = 0
        self.writers = {}
        for name in NAMES:
            paths = cfg.noisy if name == "noisy" else cfg.curated
            label_names = LABELS if cfg.answer_field or any(map(is_labelled, paths)) else None
            self.writers[name] = TokenWriter(folder, name, self.enc, label_names, SOLUTIONS)

    def add_side(self, side, paths):
        n_tokens, most = 0, self.cfg.max_tokens
        progress = Progress(side, most, "tokens")
        documents = read_documents(paths, self.cfg.field, self.cfg.answer_field)
        name = None  # of the token file that the document at hand goes to; None where a document begins
        for segments, ends_document, ids in encode(documents, self.enc):
            if name is None:
                name = self.place_of(side, segments)
            if name != "dropped":
                tokens = [i for its_ids in ids for i in its_ids]
                labels = [label for (_, label), its_ids in zip(segments, ids) for _ in its_ids]
                self.writers[name].add(tokens, labels, ends_document)
                n_tokens += len(tokens)
            progress.show(n_tokens)
            if ends_document:
                name = None
                if most and n_tokens >= most:
                    break
        progress.close()

    def place_of(self, side, segments):
        """The token file that a document goes to, by its first piece, or "dropped"."""
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
