"""
Reference losses from elsewhere: log-probabilities that another program or an API gave for the text of each row.

score.py calls these:

    python score.py --data data/mine --block_size 512 --write_texts rows.jsonl             # {"row", "text"} a line
    python score.py --data data/mine --block_size 512 --from_logprobs logprobs.jsonl --out out/mine/scores

A line of logprobs.jsonl is a row, in any order: {"row": 0, "tokens": ["The", " sum", ...], "logprobs": [null, -3.1, ...]},
with the natural logarithm of the probability of each token, in the tokens of whoever computed them; put together, they must
be the row's text. null is "not known", as for the first token.
"""
import json

import numpy as np

from common import BadInput, json_rows, replacing
from data import load_tokenizer


def row_bytes(tokens, enc, r):
    """The bytes of each token of row r, its first input included, (T + 1); and where in them put together the row's text
    begins and ends: a row may begin or end within a character of several bytes, which text cannot show."""
    own = [enc.decode_single_token_bytes(int(i)) for i in tokens.token_rows[r]]
    whole = b"".join(own)
    text = whole.decode(errors="ignore").encode()
    start = whole.find(text)
    return own, start, start + len(text)


def write_texts(path, tokens, folder):
    """The text of every row, as {"row", "text"} a line."""
    enc = load_tokenizer(folder)
    with replacing(path) as f:
        for r in range(tokens.n_rows):
            own, start, end = row_bytes(tokens, enc, r)
            f.write(json.dumps({"row": r, "text": b"".join(own)[start:end].decode()}) + "\n")


def align(own, start, end, theirs, logprobs):
    """Loss of each of our tokens from the log-probabilities of theirs.

    A token's loss is spread evenly over its bytes, and ours is the sum over its own bytes: exact where both cut the text
    alike, and in sum over what both cut alike. own: bytes of our tokens; their text begins and ends at the bytes `start`
    and `end`. theirs: strings. logprobs: natural logarithms, or None. Returns (len(own),) float64, inf where a byte is not
    known: such a token's excess is -inf, and it is never selected. Raises ValueError where they do not fit.
    """
    if len(theirs) != len(logprobs):
        raise ValueError(f"{len(theirs)} tokens, but {len(logprobs)} logprobs")
    text, pieces = b"".join(own)[start:end], [piece.encode() for piece in theirs]
    joined = b"".join(pieces)
    if joined != text:
        i = next((i for i, (a, b) in enumerate(zip(joined, text)) if a != b), min(len(joined), len(text)))
        raise ValueError(f"the tokens put together are not the row's text; from byte {i} on they read "
                         f"{joined[i:i + 20].decode(errors='replace')!r}, the row {text[i:i + 20].decode(errors='replace')!r}")
    per_byte, at = np.full(sum(map(len, own)), np.inf), start
    for piece, logprob in zip(pieces, logprobs):
        if logprob is not None and piece:
            if not -np.inf < logprob <= 1e-3:  # rounding may leave a little above 0
                raise ValueError(f"{logprob} is not the logarithm of a probability")
            per_byte[at:at + len(piece)] = max(0.0, -logprob) / len(piece)
        at += len(piece)
    ends = np.cumsum([len(b) for b in own])
    return np.array([per_byte[e - len(b):e].sum() for b, e in zip(own, ends)])


def losses_from(path, tokens, folder, progress):
    """Loss of every target, (n_rows, T) float16, from a file as above. Raises BadInput with the line that is wrong."""
    enc, losses, seen = load_tokenizer(folder), np.empty((tokens.n_rows, tokens.T), dtype=np.float16), set()
    for number, line in json_rows(path):
        try:
            r = line["row"]
            if not isinstance(r, int) or not 0 <= r < tokens.n_rows or r in seen:
                raise ValueError(f"row {r!r} came before or is not among the {tokens.n_rows:,} of the corpus")
            losses[r] = align(*row_bytes(tokens, enc, r), line["tokens"], line["logprobs"])[1:]
        except KeyError as e:
            raise BadInput(f"{path}, line {number}, has no {e}: it must have row, tokens and logprobs")
        except (ValueError, TypeError, AttributeError) as e:
            raise BadInput(f"{path}, line {number}: {e}; score the texts that --write_texts gives, at the same --block_size")
        seen.add(r)
        progress.show(len(seen))
    missing = set(range(tokens.n_rows)) - seen
    if missing:
        raise BadInput(f"{path} lacks {len(missing):,} of {tokens.n_rows:,} rows, the first is {min(missing)}: add them")
    return losses
