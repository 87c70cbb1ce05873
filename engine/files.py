"""
Files on disk: written whole or not at all, read with one clear line where they are damaged.
"""
import contextlib
import gzip
import hashlib
import json
import lzma
import os
import subprocess
import time
import zlib

from engine.cli import BadInput

# What reading from `open_text` can raise.
UNREADABLE = (UnicodeError, OSError, EOFError, zlib.error, lzma.LZMAError)


@contextlib.contextmanager
def replacing(path, mode="w"):
    """Write a file so that at any moment the old one or the whole new one is there: temporary file, fsync,
    replace."""
    tmp = f"{path}.tmp{os.getpid()}"
    try:
        with open(tmp, mode, encoding=None if "b" in mode else "utf-8") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(tmp)
        raise


@contextlib.contextmanager
def locked(path, wait=False):
    """Hold the lock file `path` while the block runs; another process of this machine cannot hold it then.

    wait: until it is free. Raises BlockingIOError where it is held and wait is False. Where the system knows
    neither kind of lock, nothing is held.
    """
    with open(path, "a+b") as f:
        while True:
            try:
                lock(f)
                break
            except BlockingIOError:
                if not wait:
                    raise
                time.sleep(0.5)
        yield


def lock(f):
    """Lock an open file, until it is closed, or raise BlockingIOError."""
    try:
        import fcntl  # Unix
    except ImportError:
        try:
            import msvcrt  # Windows
        except ImportError:
            return
        f.seek(0)
        try:
            msvcrt.locking(f.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as e:
            raise BlockingIOError(e.errno, "held by another process", f.name)
    else:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_json(path, value):
    with replacing(path) as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def write_jsonl(path, records):
    """A record a line; a file that holds the same already is left alone."""
    text = "".join(json.dumps(r) + "\n" for r in records)
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as f:
            if f.read() == text:
                return
    with replacing(path) as f:
        f.write(text)


def read_json(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError:
        raise BadInput(f"there is no {path}")
    except ValueError as e:
        raise BadInput(f"{path} is not JSON: {e}")


def read_jsonl(path):
    """The records of a .jsonl file of our own; none if there is no file; lines torn by an interruption are
    skipped."""
    records = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                with contextlib.suppress(ValueError):
                    records.append(json.loads(line))
    return [r for r in records if isinstance(r, dict)]


def open_text(path):
    """A UTF-8 text file for reading; .gz and .xz are unpacked on the way."""
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(os.path.splitext(path)[1], open)
    return opened(path, "rt", encoding="utf-8")


def json_rows(path):
    """The objects of a user's .jsonl file, plain or packed, as (line number, dict). Raises BadInput."""
    number = 0
    try:
        with open_text(path) as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"found {line.strip()[:40]}")
                    yield number, row
    except UNREADABLE as e:
        raise BadInput(unreadable(path, e))
    except (ValueError, RecursionError) as e:
        raise BadInput(f"{path}, line {number}, is not a JSON object: {e}")


def unreadable(path, e):
    """One line about an error of the kinds in UNREADABLE."""
    if isinstance(e, UnicodeError):
        return f"{path} is not UTF-8 text ({e.reason}); convert it first, with iconv for instance"
    if isinstance(e, OSError) and e.strerror:
        return f"cannot read {path}: {e.strerror}"
    return f"{path} is damaged or cut off ({e}); fetch or pack it again"


def file_hash(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(2**20):
            h.update(block)
    return h.hexdigest()


def source_revision():
    """The commit of this source tree, '+changes' when it is not committed, or 'unknown'."""
    git = ["git", "-C", os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    try:
        command = [*git, "rev-parse", "--short=12", "HEAD"]
        head = subprocess.run(command, capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True).returncode
        return head.stdout.strip() + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
