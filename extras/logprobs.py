"""
Reference losses from elsewhere: log-probabilities that another program, or the interface to a model that
one cannot download, gave for the text of each row.

score.py calls these:

    python score.py --data data/mine --block_size 512 --write_texts rows.jsonl     # {"row", "text"} a line
    python score.py --data data/mine --block_size 512 --from_logprobs logprobs.jsonl --out out/mine/scores

A line of logprobs.jsonl is a row, in any order:

    {"row": 0, "tokens": ["The", " sum", ...], "logprobs": [null, -3.1, ...]}

`tokens` are those of the other program; put together, they must be the row's text. `logprobs` are the
natural logarithms of their probabilities; null means that it is not known, as for the first token.

The other tokenizer may cut the text in other places than ours. So the loss of one of its tokens is spread
evenly over the token's bytes, and the loss of one of ours is the sum over its own bytes. This is exact for
a token that both have, and in sum for a stretch of text that begins and ends with a token in both.
"""
import json
import os
import time

import numpy as np

from corpora.tokenizers import load_tokenizer
from engine.cli import BadInput, Progress
from engine.files import file_hash, json_rows, replacing, write_json


def row_bytes(tokens, enc, r):
    """What row r of the Tokens consists of, as (token_bytes, start, end).

    token_bytes: the bytes of each of its T + 1 tokens, the first input and the T targets. start, end: the
    bytes from `start` to `end` of all of them put together are the row's text. What is outside is the rest
    of a character of several bytes that began in the row before, or the beginning of one that goes on in
    the next row; text cannot show these.
    """
    token_bytes = [enc.decode_single_token_bytes(int(i)) for i in tokens.token_rows[r]]   # T + 1 byte strings
    row = b"".join(token_bytes)
    text = row.decode(errors="ignore").encode()  # without the parts of characters at both ends
    start = row.find(text)
    return token_bytes, start, start + len(text)


def write_texts(path, tokens, folder):
    """The text of every row of the Tokens, as {"row", "text"} a line. folder: the corpus, for its
    tokenizer."""
    enc = load_tokenizer(folder)
    with replacing(path) as f:
        for r in range(tokens.n_rows):
            token_bytes, start, end = row_bytes(tokens, enc, r)
            text = b"".join(token_bytes)[start:end].decode()
            f.write(json.dumps({"row": r, "text": text}) + "\n")
    print(f"{path}: the texts of {tokens.n_rows:,} rows of {tokens.T} targets")


def make_scores(cfg, tokens):
    """--from_logprobs of score.py: write loss.bin and scores.json into cfg.out. Returns the seconds it took.
    Raises BadInput."""
    if os.path.exists(os.path.join(cfg.out, "scores.json")):
        raise BadInput(f"{cfg.out} already holds scores: choose another --out, or delete the folder")
    start, progress = time.time(), Progress("scores", tokens.n_rows, "rows")
    losses = losses_from(cfg.from_logprobs, tokens, cfg.data, progress)                         # (n_rows, T)
    progress.close()
    os.makedirs(cfg.out, exist_ok=True)
    with replacing(os.path.join(cfg.out, "loss.bin"), "wb") as f:
        f.write(losses.tobytes())
    seconds = time.time() - start
    write_json(os.path.join(cfg.out, "scores.json"), {
        "corpus": cfg.corpus, "corpus_sha256": tokens.sha256, "ckpt_sha256": file_hash(cfg.from_logprobs),
        "block_size": tokens.T, "tokenizer_sha256": tokens.tokenizer_sha256, "files": ["loss"],
        "n_rows": tokens.n_rows, "rows_done": tokens.n_rows, "seconds": seconds})
    return seconds


def align(token_bytes, start, end, their_tokens, logprobs):
    """The loss of each of our tokens, from the log-probabilities of another program's tokens (the top of
    this file says how).

    token_bytes, start, end: our tokens, see `row_bytes`. their_tokens: strings. logprobs: natural
    logarithms, None where not known. Returns (len(token_bytes),) float64, in nats: inf where the loss of
    one of the token's bytes is not known, so that its excess loss is -inf and it is never selected. Raises
    ValueError where the two do not fit.
    """
    if len(their_tokens) != len(logprobs):
        raise ValueError(f"{len(their_tokens)} tokens, but {len(logprobs)} logprobs")
    row = b"".join(token_bytes)
    pieces = [token.encode() for token in their_tokens]
    check_same_text(b"".join(pieces), row[start:end])

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
    losses, at = [], 0
    for token in token_bytes:
        losses.append(byte_loss[at:at + len(token)].sum())
        at += len(token)
    return np.array(losses)                                               # (T + 1,)


def check_same_text(theirs, ours):
    """Raise ValueError, with the place where they begin to differ, unless two byte strings are equal."""
    if theirs == ours:
        return
    i = 0
    while i < min(len(theirs), len(ours)) and theirs[i] == ours[i]:
        i += 1
    they_read, we_read = theirs[i:i + 20].decode(errors="replace"), ours[i:i + 20].decode(errors="replace")
    raise ValueError(f"the tokens put together are not the row's text; from byte {i} on they read "
                     f"{they_read!r}, the row {we_read!r}")


def losses_from(path, tokens, folder, progress):
    """The loss of every target of the Tokens, (n_rows, T) float16, from a file as above.

    folder: the corpus, for its tokenizer. Raises BadInput with the line that is wrong, or with the first
    row that is missing.
    """
    enc = load_tokenizer(folder)
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
            raise BadInput(f"{path}, line {number}: {e}; score the texts that --write_texts gives, at the "
                           f"same --block_size")
        seen.add(r)
        progress.show(len(seen))
    missing = set(range(tokens.n_rows)) - seen
    if missing:
        raise BadInput(f"{path} lacks {len(missing):,} of {tokens.n_rows:,} rows, the first is "
                       f"{min(missing)}: add them")
    if not np.isfinite(losses).any():
        raise BadInput(f"{path} knows no loss of any target, every logprob is null: ask the other "
                       f"program for them")
    return losses
