"""
Reference losses from elsewhere: log-probabilities that another program, or the interface to a model that
one cannot download, gave for the text of each row.

    python -m controls.logprobs --data data/mine --block_size 512 --write_texts rows.jsonl   # {"row", "text"}
    python -m controls.logprobs --data data/mine --block_size 512 --read logprobs.jsonl --out out/mine/scores

OUT is a folder like those of score.py. A line of logprobs.jsonl is a row, in any order:

    {"row": 0, "tokens": ["The", " sum", ...], "logprobs": [null, -3.1, ...]}

`tokens` are those of the other program; put together, they must be the row's text. `logprobs` are the
natural logarithms of their probabilities; null means that it is not known, as for the first token.

The other tokenizer may cut the text in other places. So the loss of one of its tokens is spread evenly over
the token's bytes, and the loss of one of ours is the sum over its own: exact for a token that both have, and
in sum for a stretch of text that begins and ends with a token in both.
"""
import json
import os
from dataclasses import dataclass

import numpy as np

from corpora.tokenizers import load_tokenizer
from data import Tokens, about_scores, are_there, report_scores, write_scores
from engine.cli import BadInput, Progress, launch
from engine.files import file_hash, replacing
from engine.text_files import json_rows


@dataclass
class Config:
    write_texts: str = ""           # write the text of each row to this .jsonl, for the other program
    read: str = ""                  # make scores of the log-probabilities in this .jsonl
    data: str = "data/demo"         # corpus folder
    corpus: str = "noisy"           # which of its token files
    block_size: int = 192           # row length T, that of the training run
    out: str = "out/scores"         # folder to write

    def validate(self):
        if bool(self.write_texts) == bool(self.read):
            yield "write_texts comes first, read when the other program has answered: give one of them"


def row_bytes(tokens, enc, r):
    """(the bytes of each of the T + 1 tokens of row r, start, end): from `start` to `end` they are the row's
    text. Outside are parts of characters that go across the row's ends, which text cannot show."""
    token_bytes = [enc.decode_single_token_bytes(int(i)) for i in tokens.token_rows[r]]   # T + 1 byte strings
    row = b"".join(token_bytes)
    text = row.decode(errors="ignore").encode()
    start = row.find(text)
    return token_bytes, start, start + len(text)


def write_texts(path, tokens, folder):
    enc = load_tokenizer(folder)
    with replacing(path) as f:
        for r in range(tokens.n_rows):
            token_bytes, start, end = row_bytes(tokens, enc, r)
            text = b"".join(token_bytes)[start:end].decode()
            f.write(json.dumps({"row": r, "text": text}) + "\n")
    print(f"{path}: the texts of {tokens.n_rows:,} rows of {tokens.T} targets")


def align(token_bytes, start, end, their_tokens, logprobs):
    """The loss of each of our tokens, (len(token_bytes),) float64, from the log-probabilities of theirs. Inf,
    which is never selected, where that of a byte is not known. Raises ValueError where the two do not fit."""
    if len(their_tokens) != len(logprobs):
        raise ValueError(f"{len(their_tokens)} tokens, but {len(logprobs)} logprobs")
    row = b"".join(token_bytes)
    pieces = [token.encode() for token in their_tokens]
    theirs, ours = b"".join(pieces), row[start:end]
    if theirs != ours:
        i = len(os.path.commonprefix([theirs, ours]))
        raise ValueError(f"the tokens put together are not the row's text; from byte {i} on they read "
                         f"{theirs[i:i + 20]!r}, the row {ours[i:i + 20]!r}")
    # Their losses, spread over the bytes of the row.
    byte_loss = np.full(len(row), np.inf)                                 # (bytes of the row,)
    at = start
    for piece, logprob in zip(pieces, logprobs):
        if logprob is not None and piece:
            if not -np.inf < logprob <= 1e-3:  # rounding may leave a little above 0
                raise ValueError(f"{logprob} is not the logarithm of a probability")
            byte_loss[at:at + len(piece)] = max(0.0, -logprob) / len(piece)
        at += len(piece)

    # Our losses, summed over the bytes of each token.
    ends = np.cumsum([len(token) for token in token_bytes])               # (T + 1,)
    return np.array([byte_loss[end - len(token):end].sum() for token, end in zip(token_bytes, ends)])


def losses_from(path, tokens, folder):
    """The loss of every target, (n_rows, T) float16, from a file as above. Raises BadInput."""
    enc, progress = load_tokenizer(folder), Progress("scores", tokens.n_rows, "rows")
    losses = np.empty((tokens.n_rows, tokens.T), dtype=np.float16)
    seen = set()  # row numbers
    for number, line in json_rows(path):
        try:
            r = line["row"]
            if not isinstance(r, int) or not 0 <= r < tokens.n_rows or r in seen:
                raise ValueError(f"row {r!r} came before or is not among the {tokens.n_rows:,} of the corpus")
            row_losses = align(*row_bytes(tokens, enc, r), line["tokens"], line["logprobs"])    # (T + 1,)
            losses[r] = row_losses[1:]  # the first token of a row is no target
        except KeyError as e:
            raise BadInput(f"{path}, line {number}, has no {e}: it must have row, tokens and logprobs")
        except (ValueError, TypeError, AttributeError) as e:
            raise BadInput(f"{path}, line {number}: {e}; score what --write_texts gives at this --block_size")
        seen.add(r)
        progress.show(len(seen))
    progress.close()
    missing = set(range(tokens.n_rows)) - seen
    if missing:
        raise BadInput(f"{path} lacks {len(missing):,} rows, the first is {min(missing)}: add them")
    if not np.isfinite(losses).any():
        raise BadInput(f"{path} knows no loss, every logprob is null: ask the other program for them")
    return losses


def main(cfg):
    tokens = Tokens(cfg.data, cfg.corpus, cfg.block_size)
    if cfg.write_texts:
        return write_texts(cfg.write_texts, tokens, cfg.data)
    about = about_scores(tokens, cfg.corpus, {"logprobs_sha256": file_hash(cfg.read)})
    if not are_there(cfg.out, about):
        write_scores(cfg.out, about, losses_from(cfg.read, tokens, cfg.data).flatten())      # (n_rows * T,)
    report_scores(cfg.out, tokens)


if __name__ == "__main__":
    launch(main, Config, __doc__)
