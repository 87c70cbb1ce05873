"""
Texts that a tokenizer's library cannot take as a whole: runs of blanks of a million characters, as tables and
damaged pages have them.

The library cuts a text into words by a pattern, and a pattern that looks ahead behind blanks notes every
place it may have to come back to: tiktoken ends in a panic at a million of them, Hugging Face's `tokenizers`
at ten million for the patterns of Llama 3's kind. Runs of letters, digits or signs are words that are found
without a way back, and are left to the library however long they are.
"""
import contextlib
import re

from engine.cli import BadInput

LONGEST_RUN = 900_000   # blanks in a row that are left to the library, which takes 999,998
STEP = 2**19            # a longer run is cut after about so many
ALIGN = 2**10           # and, where it is one character again and again, after a multiple of so many
WINDOW = 2**16          # how far before that place an end of a line is looked for
# What the patterns' \s is. Python's own also has four control characters, which are signs there.
BLANKS = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
BLANKS += "".join(map(chr, range(0x2000, 0x200b)))
RUN = re.compile(f"[{BLANKS}]*")


def encode_in_pieces(encode, text, may_be_cut=True):
    """The token ids that `encode` gives of a text's pieces, one after the other. Raises BadInput."""
    ids = []
    with panic_in_one_line(text):
        for piece in pieces(text, may_be_cut):
            ids += encode(piece)
    return ids


@contextlib.contextmanager
def panic_in_one_line(text):
    """A panic of a library that is written in Rust, at whatever else it cannot take, raises BadInput."""
    try:
        yield
    except BaseException as e:  # a panic is no Exception, and its class cannot be imported
        if type(e).__name__ != "PanicException":
            raise
        raise BadInput(f"the tokenizer's library cannot take a text of {len(text):,} characters that begins "
                       f"{text[:40]!r}: leave it out, or give another --tokenizer")


def pieces(text, may_be_cut=True):
    """The text, cut inside its runs of more than LONGEST_RUN blanks, after about STEP of them. may_be_cut:
    False for a tokenizer that puts something before every text, which would come before every piece.

    The ids of the pieces are those of the whole text where no token of the tokenizer reaches over a cut. For
    a run of one character, as blanks or ends of lines, this holds with the usual byte-pair encodings: their
    tokens of 2, 4, 8, ... such characters come to an end at every multiple of ALIGN. It holds too at an end
    of a line before a blank, where a mixed run is cut if it has one. Elsewhere in a mixed run, the few ids
    around the cut may be others. The last blanks of a run stay with the word behind them, as they should.
    """
    if not may_be_cut:
        return [text]
    places, end = [0], 0
    # A longer run has one of these characters, so that the others need not be looked at.
    for at in range(0, len(text), LONGEST_RUN):
        if at < end:
            continue
        end = RUN.match(text, at).end()
        start = max(0, at - LONGEST_RUN) + len(text[max(0, at - LONGEST_RUN):at].rstrip(BLANKS))
        while end - start > LONGEST_RUN:
            start = safe_place(text, start)
            places.append(start)
    places.append(len(text))
    return [text[a:b] for a, b in zip(places, places[1:])]


def safe_place(text, start):
    """Where to cut a run of blanks that begins at `start`, and is longer than STEP."""
    end = start + STEP
    line_end = max(text.rfind("\n" + blank, end - WINDOW, end) for blank in " \t\r")
    if line_end >= 0:
        return line_end + 1
    same = start + len(text[start:end].rstrip(text[end - 1]))  # from here on it is one character
    return end - (end - same) % ALIGN if end - same >= ALIGN else same
