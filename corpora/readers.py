"""
The user's text files as a stream of documents, so that they may be larger than memory.

    .jsonl, .ndjson, .json, .parquet, hf:NAME    a document is some fields of a row, put together
    .txt                                         documents are separated by lines that say <|endoftext|>
    gsm8k:FILE, math:FILE                        a training set of these tasks: a document is a problem in the
                                                 form of eval_math.py's prompts, its solution labelled

All but .parquet may be packed (.gz, .xz). A file with any other ending, and a row whose field is no text, are
refused, because whatever else one made of them would be trained on in silence. A document comes as one piece
or several, each ([(text, label of corpora/writer.py), ...], whether the document ends with this piece).
"""
import os

from corpora.tokenizers import END_OF_TEXT
from corpora.writer import QUESTION, SOLUTION
from engine.cli import BadInput
from engine.text_files import ending_of, object_rows, open_text, readable
from grading.tasks import load_problems

PIECE_CHARACTERS = 2**20   # a longer document of a .txt comes in pieces of about so many
BATCH_CHARACTERS = 2**22   # so many are tokenized at a time
ROWS = ("jsonl", "ndjson", "json", "parquet")   # the endings of files that have rows


def encode(pieces, enc):
    """(segments, ends_document) -> (segments, ends_document, token ids of each segment), on all cores."""
    for some in batches(pieces):
        texts = [text for segments, _ in some for text, _ in segments]
        ids = iter(enc.encode_ordinary_batch(texts, num_threads=os.cpu_count()))
        for segments, ends_document in some:
            yield segments, ends_document, [next(ids) for _ in segments]


def batches(pieces):
    """Lists of pieces that have BATCH_CHARACTERS together, or a little more."""
    some, size = [], 0
    for piece in pieces:
        some.append(piece)
        size += sum(len(text) for text, _ in piece[0])
        if size >= BATCH_CHARACTERS:
            yield some
            some, size = [], 0
    if some:
        yield some


def read_documents(paths, fields, answer_field=""):
    """The documents of text files as (segments, ends_document). fields: those of a row that make its text, a
    line break between those that are not empty. answer_field: one of them, whose text is labelled SOLUTION,
    all other text QUESTION. Raises BadInput."""
    for path in paths:
        with readable(path):
            if is_labelled(path):
                for problem in load_problems(*path.split(":", 1)):
                    if problem["answer"]:  # a few of MATH's solutions mark none
                        yield [(problem["question"], QUESTION), (problem["solution"], SOLUTION)], True
            elif has_rows(path):
                for where, row in read_rows(path, fields):
                    yield row_segments(path, where, row, fields, answer_field), True
            else:
                yield from read_txt(path)


def is_labelled(path):
    """Whether a path is the training set of a task, whose solutions are labelled."""
    return path.startswith(("gsm8k:", "math:"))


def has_rows(path):
    """Whether a file that is known here has rows with fields, and is not one running text."""
    return path.startswith("hf:") or ending_of(path)[0] in ROWS


def unknown(path):
    """A line about a file whose name does not say that it is one of those which are read here, or None."""
    ending, packing = ending_of(path)
    if ending == "parquet" and is_labelled(path):
        return f"{path}: gsm8k: and math: take .jsonl, .ndjson or .json, plain or as .gz or .xz: convert it"
    if ending == "parquet" and packing:
        return f"{path}: a .parquet is not read out of a .{packing}: unpack it first"
    if is_labelled(path) or has_rows(path) or ending == "txt":
        return None
    return (f"{path} has no ending that is known here: give .txt (plain text), .jsonl, .ndjson or .json, "
            f"each plain or as .gz or .xz, or .parquet, or hf:NAME; unpack, convert or rename the file")


def row_segments(path, where, row, fields, answer_field):
    """The segments of a row: what stands before the answer field, in it, and after it. Raises BadInput."""
    texts = []
    for name in fields:
        if name not in row:
            raise BadInput(f"{path}, {where}, has no field {name!r}; name its text fields with --field")
        try:
            texts.append(text_of(row[name]))
        except ValueError as e:
            raise BadInput(f"{path}, {where}: the field {name!r} holds no text: {e}; name another --field")
    filled = [i for i, text in enumerate(texts) if text]
    for i in filled[:-1]:
        texts[i] += "\n"
    at = fields.index(answer_field) if answer_field else len(fields)
    return [("".join(texts[:at]), QUESTION), ("".join(texts[at:at + 1]), SOLUTION),
            ("".join(texts[at + 1:]), QUESTION)]


def text_of(value):
    """The text that a field holds; some programs write it into .parquet as bytes. Raises ValueError."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} {value!r:.40}")
    value.encode()  # fails for half a character, which JSON can hold and UTF-8 cannot
    return value


def read_txt(path):
    """The pieces of a .txt file. A long document is cut at an end of a line."""
    lines, size = [], 0  # of the piece at hand, and how many characters they have
    with open_text(path) as f:
        for line in f:
            ends_document = line.strip() == END_OF_TEXT
            if lines and (ends_document or size > PIECE_CHARACTERS):
                yield [("".join(lines), QUESTION)], ends_document
                lines, size = [], 0
            if not ends_document:
                lines.append(line)
                size += len(line)
    if lines:
        yield [("".join(lines), QUESTION)], True


def read_rows(path, fields):
    """The rows of a file as (where, dict), with where a text such as "line 3". Raises BadInput."""
    if ending_of(path)[0] != "parquet" and not path.startswith("hf:"):
        yield from object_rows(path)
        return
    number = 0
    try:
        if path.startswith("hf:"):
            from datasets import load_dataset
            rows = load_dataset(path.removeprefix("hf:"), split="train", streaming=True)
        else:
            rows = parquet_rows(path, fields)
        for number, row in enumerate(rows, 1):
            yield f"row {number}", row
    except ImportError as e:
        raise BadInput(f"reading {path} needs another package ({e}): install it with pip")
    except Exception as e:  # a file or a network that fails, and a value that Python cannot hold
        reason = (str(e) or type(e).__name__).splitlines()[0]
        raise BadInput(f"reading {path} failed behind row {number} ({reason:.100}): give the same command "
                       f"again, fetch the file again, convert it, or name another --field")


def parquet_rows(path, fields):
    """The rows of a .parquet file, a thousand at a time in memory."""
    from pyarrow.parquet import ParquetFile
    file = ParquetFile(path)
    columns = [name for name in fields if name in file.schema_arrow.names]
    for thousand in file.iter_batches(1000, columns=columns):
        yield from thousand.to_pylist()
