"""
The command line of every script: options from a dataclass, errors in one line, a progress line, Ctrl-C.

    @dataclass
    class Config:
        lr: float = 6e-3    # highest learning rate          <- a field is an option, its comment is the help

    if __name__ == "__main__":
        run(main, Config, __doc__)
"""
import argparse
import dataclasses
import inspect
import math
import os
import re
import signal
import sys
import time
import typing

import torch


class BadInput(Exception):
    """Something the user can fix. The message says what is wrong, where, and what to do."""


def run(main, Config, doc):
    """Read a `Config` from the command line, check it, call main(cfg).

    Bad input ends in one line on standard error and exit code 2, Ctrl-C in exit code 130.
    """
    script = os.path.basename(sys.argv[0])
    try:
        main(parse(Config, doc))
        if several_processes():
            torch.distributed.barrier()  # none ends while another may still need it
            sys.stdout.flush()
            os._exit(0)  # destroying the process group aborted one of some hundred runs that were finished
    except BadInput as e:
        leave(f"{script}: {e}", 2)
    except OSError as e:  # a full disk, a folder that may not be written
        leave(f"{script}: {e.filename or 'writing'}: {e.strerror}; what was saved before is as it was", 2)
    except RuntimeError as e:
        if not (several_processes() and says_a_process_is_gone(e)):
            raise
        first_line = str(e).splitlines()[0]
        leave(f"{script}: rank {os.environ['RANK']}: another process of the run is gone ({first_line:.80}); "
              f"its own message says why; go on with the same command (and --resume, for a training run)", 2)
    except KeyboardInterrupt:
        leave(f"{script}: interrupted; go on with the same command (and --resume, for a training run)", 130)


def says_a_process_is_gone(e):
    """Whether an error is one of torch.distributed's own kinds, or gloo's words for a closed connection."""
    kinds = ("DistError", "DistBackendError", "DistNetworkError")
    return type(e).__name__ in kinds or re.search("gloo|[Cc]onnection (closed|reset)", str(e)) is not None


def several_processes():
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def leave(message, code):
    """End with a line on standard error.

    Among several processes it ends at once: destroying their group would wait for the others, while torchrun
    ends them all as soon as one of them has ended.
    """
    print(message, file=sys.stderr, flush=True)
    if several_processes():
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


class OneLineParser(argparse.ArgumentParser):
    def error(self, message):
        raise BadInput(f"{message}; see --help")


def parse(Config, doc, argv=None):
    """A checked `Config` (a dataclass) from the command line: an option for each field, its comment as the
    help text."""
    source = "".join(inspect.getsource(c) for c in Config.__mro__ if dataclasses.is_dataclass(c))
    comments = dict(re.findall(r"^ +(\w+):[^#\n]*#\s*(.*)$", source, re.M))
    hints = typing.get_type_hints(Config)
    parser = OneLineParser(description=doc, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    own = vars(Config).get("__annotations__", {})
    fields = sorted(dataclasses.fields(Config), key=lambda f: f.name not in own)  # a script's own first
    for f in fields:
        default, kind = getattr(Config(), f.name), hints[f.name]
        text = f"{comments.get(f.name, '')} (default: {default!r})"
        option = {"default": default, "help": text.replace("%", "%%")}
        if kind is bool:
            parser.add_argument(f"--{f.name}", action=argparse.BooleanOptionalAction, **option)
        elif typing.get_origin(kind) is list:
            item = typing.get_args(kind)[0]
            parser.add_argument(f"--{f.name}", nargs="+", type=item, metavar=f.name.upper(), **option)
        else:
            item = number if kind in (int, float) else kind
            parser.add_argument(f"--{f.name}", type=item, metavar=f.name.upper(), **option)
    cfg = Config(**vars(parser.parse_args(argv)))
    problems = []
    for f in fields:  # 3e6 is a fine way to write an int
        value = getattr(cfg, f.name)
        if hints[f.name] is int and isinstance(value, float):
            if value.is_integer():
                setattr(cfg, f.name, int(value))
            else:
                problems.append(f"{f.name} must be a whole number, not {value}")
    problems = problems or list(cfg.validate())
    if problems:
        raise BadInput("; ".join(problems))
    return cfg


def number(text):
    """An int where the text is one, else a float (argparse names this function when it raises ValueError)."""
    value = float(text.replace("_", ""))
    if not math.isfinite(value):
        raise ValueError
    return int(text) if re.fullmatch(r"[+-]?[\d_]+", text) else value


class Progress:
    """A line with rate and time left on standard error: every second on a terminal, every ten in a log.

    `name` tells runs apart that write to the same terminal. `done` is what an earlier run had done already.
    """

    def __init__(self, name, total, unit, done=0):
        self.name, self.total, self.unit, self.first = name, total, unit, done
        self.start = self.shown = time.time()
        self.tty = sys.stderr.isatty()

    def show(self, done, text=""):
        now, pause = time.time(), 1 if self.tty else 10
        if now - self.shown < pause or os.environ.get("RANK", "0") != "0":  # of several processes one prints
            return
        self.shown = now
        rate = (done - self.first) / (now - self.start)
        line = f"{self.name}: {done:,} {self.unit}"
        if self.total:
            line += f" of {self.total:,}"
        if self.total and rate:
            line += f", {clock((self.total - done) / rate)} left"
        line += f", {rate:,.0f}/s" if rate > 10 else f", {rate:,.2f}/s"
        line += f" {text}"
        if self.tty:
            print(f"\r{line:<78}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self):
        if self.tty and self.shown > self.start:
            print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)


def clock(seconds):
    """90 -> '1:30'."""
    s = int(max(seconds, 0))
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"


class StopSignal:
    """Ctrl-C and SIGTERM end a run after the step at hand, so that it can save; a second one ends it at
    once."""

    def __init__(self):
        self.received = False
        for s in (signal.SIGINT, signal.SIGTERM):
            signal.signal(s, self.handle)

    def handle(self, signum, frame):
        if self.received:
            raise KeyboardInterrupt
        self.received = True
