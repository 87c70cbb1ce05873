"""
The user's text files as a stream of documents, so that they may be larger than memory.

    .jsonl, .ndjson, .json, .parquet, hf:NAME    a document is a row; some of its fields, put together, are
                                                 the text
    .txt                                         documents are separated by lines that say <|endoftext|>

All but .parquet may be packed (.gz, .xz). What a file is, its ending says; a file with any other ending, and
a row whose field is no text, are refused, because whatever else one made of them would be trained on in
silence. A document comes as one piece or several:

    segments         [(text, label), ...], the text of the piece; the labels are those of corpora/builtin.py
    ends_document    whether the document ends with this piece
"""
import itertools
import math
import os

from corpora.builtin import QUESTION, SOLUTION
from corpora.tokenizers import END_OF_TEXT
from engine.cli import BadInput
from engine.files import UNREADABLE, ending_of, object_rows, open_text, unreadable

PIECE_CHARACTERS = 2**20   # a longer document of a .txt comes in pieces of about so many
BATCH_CHARACTERS = 2**22   # so many are tokenized at a time
ROWS = ("jsonl", "ndjson", "json", "parquet")               # the endings of files that have rows
PACKINGS = ("zst", "bz2", "zip", "7z", "lz4", "tgz", "tar")  # known by name only


# ------------------------------------------------------------------------------------------ text to token ids

def encode(pieces, enc, skip=0):
    """Tokenize pieces on all cores: (segments, ends_document) -> (segments, ends_document, ids), in order,
    where ids are the token ids of each segment. The first `skip` pieces come without ids: they were
    tokenized before an interruption."""
    pieces = iter(pieces)
    for segments, ends_document in itertools.islice(pieces, skip):
        yield segments, ends_document, []
    while True:
        some = take(pieces, BATCH_CHARACTERS)
        if not some:
            return
        texts = [text for segments, _ in some for text, _ in segments]
        ids = iter(enc.encode_ordinary_batch(texts, num_threads=os.cpu_count()))
        for segments, ends_document in some:
            yield segments, ends_document, [next(ids) for _ in segments]


def take(pieces, n_characters):
    """A list of the next pieces, until they have so many characters together."""
    some = []
    while n_characters > 0:
        piece = next(pieces, None)
        if piece is None:
            break
        some.append(piece)
        n_characters -= sum(len(text) for text, _ in piece[0])
    return some


# ----------------------------------------------------------------------------------------- files to documents

def read_documents(paths, fields, answer_field=""):
    """The documents of text files, one after the other, as (segments, ends_document).

    fields: those of a row that make its document, a line break between those that are not empty.
    answer_field: one of them, whose text is labelled SOLUTION; all other text is labelled QUESTION. Raises
    BadInput where a file cannot be read or a row lacks a field.
    """
    for path in paths:
        if problem := unknown(path):
            raise BadInput(problem)
        try:
            if not has_rows(path):
                yield from read_txt(path)
                continue
            for where, row in read_rows(path, fields):
                yield row_segments(path, where, row, fields, answer_field), True
        except UNREADABLE as e:
            raise BadInput(unreadable(path, e))


def has_rows(path):
    """Whether a file that is known here has rows with fields, and is not one running text."""
    return path.startswith("hf:") or ending_of(path)[0] in ROWS


def unknown(path):
    """A line about a file whose name does not say that it is one of those which are read here, or None."""
    ending, packing = ending_of(path)
    if ending == "parquet" and packing and not path.startswith("hf:"):
        return f"{path}: a .parquet is read as it is, and not out of a .{packing}: unpack it first"
    if ending == "txt" or has_rows(path):
        return None
    if ending in PACKINGS:
        return f"{path} is packed in a way that is not known here (.gz and .xz are): unpack it first"
    return (f"{path} has no ending that is known here: give .txt (plain text), .jsonl, .ndjson or .json, each "
            f"plain or as .gz or .xz, or .parquet, or hf:NAME; convert or rename the file")


def row_segments(path, where, row, fields, answer_field):
    """The segments of a row: what stands before the answer field, in it, and after it. Raises BadInput."""
    if not isinstance(row, dict):
        raise BadInput(f"{path}, {where}, is {kind_of(row)} and has no fields: give rows that have")
    texts = []
    for name in fields:
        if name not in row:
            raise BadInput(f"{path}, {where}, has no field {name!r}; name its text fields with --field")
        try:
            texts.append(text_of(row[name]))
        except ValueError as e:
            raise BadInput(f"{path}, {where}: the field {name!r} holds {e}; make it text, or name another "
                           f"--field")
    filled = [i for i, text in enumerate(texts) if text]
    for i in filled[:-1]:
        texts[i] += "\n"
    at = fields.index(answer_field) if answer_field else len(fields)
    return [("".join(texts[:at]), QUESTION), ("".join(texts[at:at + 1]), SOLUTION),
            ("".join(texts[at + 1:]), QUESTION)]


def text_of(value):
    """The text that a field holds: "" where it is empty, and bytes (as some programs write text into
    .parquet) as UTF-8. Raises ValueError, with what it holds instead, for all else: the name of a value is no
    text."""
    if value is None:
        return ""
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise ValueError("bytes that are not UTF-8 text")
    if not isinstance(value, str):
        raise ValueError(f"{kind_of(value)}, not text")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can hold half a character
        raise ValueError("half a character (a lone surrogate), which UTF-8 cannot hold")
    return value


def kind_of(value):
    """What a value is, in words, for a message."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return f"a value of type {type(value).__name__}"


def read_txt(path):
    """The pieces of a .txt file. A long document is cut at an end of a line."""
    lines, size = [], 0  # of the piece at hand, and how many characters they have
    with open_text(path) as f:
        for line in f:
            if line.strip() == END_OF_TEXT:
                if lines:
                    yield [("".join(lines), QUESTION)], True
                lines, size = [], 0
                continue
            if size > PIECE_CHARACTERS:
                yield [("".join(lines), QUESTION)], False
                lines, size = [], 0
            lines.append(line)
            size += len(line)
    if lines:
        yield [("".join(lines), QUESTION)], True


def read_rows(path, fields):
    """The rows of a file as (where, dict), with where a text such as "line 3". Packages that only some
    formats need are imported here. Raises BadInput."""
    if path.startswith("hf:"):
        try:
            from datasets import load_dataset
        except ImportError:
            raise BadInput(f"reading {path} needs another package: pip install datasets")
        return hf_rows(path, load_dataset)
    if ending_of(path)[0] == "parquet":
        return parquet_rows(path, fields)
    return object_rows(path)


def hf_rows(path, load_dataset):
    """The rows of a dataset of Hugging Face's, over the network. Raises BadInput."""
    try:
        rows = load_dataset(path.removeprefix("hf:"), split="train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield f"row {number}", row
    except Exception as e:  # no network or no such dataset raises a dozen kinds
        raise BadInput(f"reading {path} failed ({first_line(e):.100}): the same command goes on; or fetch "
                       f"the files, and name these")


def parquet_rows(path, fields):
    """The rows of a .parquet file, a thousand at a time in memory. Raises BadInput."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(f"reading {path} needs another package: pip install pyarrow")
    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = [name for name in fields if name in file.schema_arrow.names]
        for thousand in file.iter_batches(1000, columns=columns):
            for row in thousand.to_pylist():
                number += 1
                yield f"row {number}", row
    except pyarrow.ArrowException as e:
        raise BadInput(unreadable(path, EOFError(first_line(e))))
    except (ValueError, LookupError, ArithmeticError, ImportError) as e:  # a value that Python cannot hold
        raise BadInput(f"{path}, in the thousand rows from row {number + 1} on: a field holds what cannot be "
                       f"read as text ({first_line(e):.100}); convert it, or name another --field")


def first_line(e):
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(e).splitlines() or [type(e).__name__])[0]
