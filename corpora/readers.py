"""
The user's text files as a stream of documents, so that they may be larger than memory.

    .jsonl, .parquet, hf:NAME    a document is a row; some of its fields, put together, are the text
    .txt                         documents are separated by lines that say <|endoftext|>

.jsonl and .txt may be packed (.gz, .xz). A document comes as one piece or several:

    segments         [(text, label), ...], the text of the piece; the labels are those of corpora/builtin.py
    ends_document    whether the document ends with this piece
"""
import itertools
import os
import re

from corpora.builtin import QUESTION, SOLUTION
from corpora.tokenizers import END_OF_TEXT
from engine.cli import BadInput
from engine.files import UNREADABLE, json_rows, open_text, unreadable

PIECE_CHARACTERS = 2**20   # a longer document of a .txt comes in pieces of about so many
BATCH_CHARACTERS = 2**22   # so many are tokenized at a time


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
        number = 0  # of the row
        try:
            rows = read_rows(path, fields)
            if rows is None:
                yield from read_txt(path)
                continue
            for number, row in rows:
                yield row_segments(row, fields, answer_field), True
        except UNREADABLE as e:
            raise BadInput(unreadable(path, e))
        except KeyError as e:
            raise BadInput(f"{path}, line {number}, has no field {e}; name its text fields with --field")


def row_segments(row, fields, answer_field):
    """The segments of a row: what stands before the answer field, in it, and after it. Raises KeyError,
    UnicodeError."""
    texts = []
    for name in fields:
        value = row[name]
        texts.append("" if value is None else str(value))
    filled = [i for i, text in enumerate(texts) if text]
    for i in filled[:-1]:
        texts[i] += "\n"
    "".join(texts).encode()  # a row of JSON can hold half a character, which UTF-8 cannot
    at = fields.index(answer_field) if answer_field else len(fields)
    return [("".join(texts[:at]), QUESTION), ("".join(texts[at:at + 1]), SOLUTION),
            ("".join(texts[at + 1:]), QUESTION)]


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
    """The rows of a file as (number, dict), or None for a .txt. Packages that only some formats need are
    imported here."""
    if re.search(r"\.jsonl(\.gz|\.xz)?$", path):
        return json_rows(path)
    if path.startswith("hf:"):
        try:
            from datasets import load_dataset
        except ImportError:
            raise BadInput(f"reading {path} needs another package: pip install datasets")
        return hf_rows(path, load_dataset)
    if path.endswith(".parquet"):
        return parquet_rows(path, fields)
    if re.search(r"\.(zst|bz2|zip|7z|lz4)$", path):
        raise BadInput(f"{path} is packed in a way that is not known here (.gz and .xz are): unpack it first")
    return None


def hf_rows(path, load_dataset):
    """The rows of a dataset of Hugging Face's, over the network. Raises BadInput."""
    try:
        yield from enumerate(load_dataset(path.removeprefix("hf:"), split="train", streaming=True), 1)
    except Exception as e:  # no network or no such dataset raises a dozen kinds
        first_line = str(e).splitlines()[0]
        raise BadInput(f"reading {path} failed ({first_line:.100}): the same command goes on; or fetch the "
                       f"files, and name these")


def parquet_rows(path, fields):
    """The rows of a .parquet file, a thousand at a time in memory. Raises BadInput."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(f"reading {path} needs another package: pip install pyarrow")
    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = [name for name in fields if name in file.schema_arrow.names]
        number = 0
        for thousand in file.iter_batches(1000, columns=columns):
            for row in thousand.to_pylist():
                number += 1
                yield number, row
    except pyarrow.ArrowException as e:
        first_line = str(e).splitlines()[0]
        raise BadInput(unreadable(path, EOFError(first_line)))
