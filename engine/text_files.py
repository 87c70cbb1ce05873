"""Text files of the user's: plain or packed, rows of JSON, one clear line where they are damaged."""
import contextlib
import gzip
import json
import lzma
import os
import zlib

from engine.cli import BadInput
from engine.files import TEXT

NOT_JSON = (ValueError, RecursionError)  # what json.loads raises


def ending_of(path):
    """What a file's name says that it holds, and how it is packed, or "": "a.0.TXT.gz" -> ("txt", "gz")."""
    name, ending = os.path.splitext(os.path.basename(path).lower())
    packing = ""
    if ending in (".gz", ".xz"):
        packing, ending = ending[1:], os.path.splitext(name)[1]
    return ending[1:], packing


def open_text(path):
    """A UTF-8 text file for reading, unpacked on the way, without its byte-order mark."""
    opened = {"gz": gzip.open, "xz": lzma.open}.get(ending_of(path)[1], open)
    return opened(path, "rt", encoding=TEXT)


@contextlib.contextmanager
def readable(path):
    """Stands around what reads a file of the user's. Raises BadInput where it is not there or damaged."""
    try:
        yield
    except UnicodeError as e:
        raise BadInput(f"{path} is not UTF-8 text ({e.reason}); convert it first, with iconv for instance")
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as e:
        if isinstance(e, OSError) and e.strerror:
            raise BadInput(f"cannot read {path}: {e.strerror}")
        raise BadInput(f"{path} is damaged or cut off ({e}); fetch or pack it again")


def json_rows(path):
    """The objects of a user's .jsonl file, plain or packed, as (line number, dict). Raises BadInput."""
    try:
        with readable(path), open_text(path) as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"found {line.strip()[:40]}")
                    yield number, row
    except NOT_JSON as e:
        raise BadInput(f"{path}, line {number}, is not a JSON object: {e}")


def object_rows(path):
    """The objects of a user's file of JSON as ("line 3", dict). Raises BadInput.

    A .json may hold JSON lines, as a .jsonl does, which alone are read as a stream, or one value: an array of
    objects, or an object of named objects, or an object that is itself the only row.
    """
    if ending_of(path)[0] != "json" or holds_json_lines(path):
        for number, row in json_rows(path):
            yield f"line {number}", row
        return
    try:
        with readable(path), open_text(path) as f:
            value = json.loads(f.read().strip() or "[]")
    except NOT_JSON as e:
        raise BadInput(f"{path} is neither JSON lines nor one JSON value: {e}")
    if isinstance(value, dict) and all(isinstance(row, dict) for row in value.values()):
        value = list(value.values())
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        if not isinstance(row, dict):
            raise BadInput(f"{path}, row {number}, is not a JSON object: found {json.dumps(row):.40}")
        yield f"row {number}", row


def holds_json_lines(path):
    """Whether the first line of a file is a JSON object by itself, and not the last line. Raises BadInput."""
    with readable(path), open_text(path) as f:
        filled = (line for line in f if line.strip())
        first, second = next(filled, ""), next(filled, None)
    try:
        return second is not None and isinstance(json.loads(first), dict)
    except NOT_JSON:
        return False
