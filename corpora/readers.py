"""
The user's text files as a stream of documents: .txt, .jsonl (packed too), .parquet, and datasets of Hugging Face's.
"""
import itertools
import os
import re

from corpora import builtin
from corpora.tokenizers import END_OF_TEXT
from engine.cli import BadInput
from engine.files import UNREADABLE, json_rows, open_text, unreadable


def encode(pieces, enc, skip=0):
    """(segments, ends_document) -> (segments, ends_document, token ids of each segment), in order, on all cores. The first
    `skip` pieces come without ids."""
    pieces = iter(pieces)
    for piece in itertools.islice(pieces, skip):
        yield *piece, []
    while some := list(take(pieces, 2**22)):
        texts = [text for segments, _ in some for text, _ in segments]
        ids = iter(enc.encode_ordinary_batch(texts, num_threads=os.cpu_count()))
        for segments, ends_document in some:
            yield segments, ends_document, [next(ids) for _ in segments]


def take(pieces, n_characters):
    """The next of the pieces, until they have so many characters together."""
    for segments, ends_document in pieces:
        yield segments, ends_document
        n_characters -= sum(len(text) for text, _ in segments)
        if n_characters <= 0:
            return


def read_documents(paths, fields, answer_field=""):
    """The documents of text files (see the top) as a stream of (segments, whether the document ends here): a long one from a
    .txt comes in pieces of about a megabyte, cut at ends of lines. Segments are [(text, label), ...]; with answer_field,
    what stands before, in and after that field of a row. Raises BadInput."""
    for path in paths:
        number = 0
        try:
            rows = read_rows(path, fields)
            if rows is None:
                yield from read_txt(path)
                continue
            for number, row in rows:
                parts = [("" if row[name] is None else str(row[name])) + "\n" for name in fields]
                parts[-1] = parts[-1][:-1]
                "".join(parts).encode()  # JSON can hold half a character, which UTF-8 cannot
                at = fields.index(answer_field) if answer_field else len(fields)
                yield [("".join(parts[:at]), builtin.QUESTION), ("".join(parts[at:at + 1]), builtin.SOLUTION),
                       ("".join(parts[at + 1:]), builtin.QUESTION)], True
        except UNREADABLE as e:
            raise BadInput(unreadable(path, e))
        except KeyError as e:
            raise BadInput(f"{path}, line {number}, has no field {e}; name its text fields with --field")


def read_rows(path, fields):
    """The rows of a file as (number, dict), or None for a .txt."""
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
    """The rows of a dataset of Hugging Face's, over the network."""
    try:
        yield from enumerate(load_dataset(path[3:], split="train", streaming=True), 1)
    except Exception as e:  # no network, no such dataset, a dozen kinds
        raise BadInput(f"reading {path} failed ({str(e).splitlines()[0]:.100}): the same command goes on; or fetch the files, "
                       f"and name these")


def parquet_rows(path, fields):
    """The rows of a .parquet file, a thousand at a time in memory."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(f"reading {path} needs another package: pip install pyarrow")
    try:
        file = pyarrow.parquet.ParquetFile(path)
        batches = file.iter_batches(1000, columns=[name for name in fields if name in file.schema_arrow.names])
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except pyarrow.ArrowException as e:
        raise BadInput(unreadable(path, EOFError(str(e).splitlines()[0])))


def read_txt(path):
    """The pieces of a .txt file, for `read_documents`."""
    with open_text(path) as f:
        lines, size = [], 0
        for line in f:
            if line.strip() == END_OF_TEXT:
                if lines:
                    yield [("".join(lines), builtin.QUESTION)], True
                lines, size = [], 0
                continue
            if size > 2**20:
                yield [("".join(lines), builtin.QUESTION)], False
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        if lines:
            yield [("".join(lines), builtin.QUESTION)], True
