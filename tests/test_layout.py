"""The shape of the repository: which rooms there are, who may import whom, and how much a reader has to read."""
import ast
import dataclasses
import glob
import os

import pytest

import train_ref
import train_slm
from helpers import ROOT

ROOMS = {"engine", "corpora", "grading", "weights", "controls", "distillation", "analysis"}
SHARED = {"model", "data", "common"}
SCRIPTS = {"prepare", "train_ref", "score", "train_slm", "eval_math", "plot"}

# What a file may import of ours: whole rooms, or files. The first key that fits counts: a file's own name, its room.
OF_A_SCRIPT = {*SHARED, "engine", "corpora", "grading", "weights"}
MAY_IMPORT = {
    "model": set(),
    "engine": {"engine", "model"},
    "data": {"engine"},
    "common": {"engine", "model"},
    "grading.spelling": set(),
    "grading.interpreter": set(),  # runs as a program of its own
    "grading.grade": {"grading.spelling"},  # so that it grades any file, without torch
    "grading": {"grading", "engine", "model"},
    "corpora": {"corpora", "data", "engine", "grading.tasks"},
    "weights": {"weights", "engine", "model", "corpora.tokenizers", "corpora.hf_tokenizer"},
    "controls": {"controls", "data", "engine", "corpora.tokenizers", "grading"},
    "distillation": {"distillation", *SHARED, "engine", "corpora.tokenizers", "grading"},
    "analysis": {"analysis", *SHARED, "engine", "corpora.tokenizers"},
    "plot": OF_A_SCRIPT | {"analysis"},
    **{script: OF_A_SCRIPT for script in SCRIPTS - {"plot"}}}


def sources():
    """{module name: its source} of everything but the tests."""
    found = {}
    for path in sorted(glob.glob("*.py", root_dir=ROOT) + glob.glob("*/*.py", root_dir=ROOT)):
        if not path.startswith("tests"):
            with open(os.path.join(ROOT, path), encoding="utf-8") as f:
                found[path.removesuffix(".py").replace(os.sep, ".")] = f.read()
    return found


SOURCES = sources()


def imports(name):
    """All that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(SOURCES[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} says where a module is by dots"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(name):
    return name.partition(".")[0]


def reachable(start, edges):
    """What is reached from `start` by one step or more. edges: {name: the names one step away}."""
    seen, todo = set(), list(edges[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += edges[name]
    return seen


EDGES = {name: imports(name) & set(SOURCES) - {name} for name in SOURCES}  # the modules of ours


def test_there_are_these_rooms_and_at_most_nine_files_at_the_top():
    assert {room(name) for name in SOURCES if "." in name} == ROOMS
    top = {name for name in SOURCES if "." not in name}
    assert top == SCRIPTS | SHARED and len(top) <= 9
    assert not [name for name in os.listdir(os.path.join(ROOT, "runs")) if not name.endswith(".sh")]


def test_imports_go_one_way():
    for name, found in EDGES.items():
        allowed = MAY_IMPORT.get(name, MAY_IMPORT[room(name)])
        not_allowed = {other for other in found if not {other, room(other)} & allowed}
        assert not not_allowed, f"{name} imports {not_allowed}"
        assert "corpora.builtin" not in found or name == "prepare", f"{name} imports the built-in corpus"


def test_neither_two_files_nor_two_rooms_import_each_other_not_even_round_a_corner():
    assert [name for name in EDGES if name in reachable(name, EDGES)] == []
    rooms = {room(name): set() for name in EDGES}
    for name, found in EDGES.items():
        rooms[room(name)] |= {room(other) for other in found} - {room(name)}
    assert [name for name in rooms if name in reachable(name, rooms)] == []


@pytest.mark.parametrize("script, most_options", [(train_ref, 27), (train_slm, 30)])
def test_a_training_script_is_read_in_an_evening(script, most_options):
    below = reachable(script.__name__, EDGES)
    n_lines = sum(SOURCES[name].count("\n") for name in below)
    assert len(below) <= 9 and n_lines <= 1600, f"{len(below)} files, {n_lines} lines"
    assert len(dataclasses.fields(script.Config)) <= most_options


@pytest.mark.parametrize("name", SOURCES)
def test_no_file_is_long_and_no_line_wide(name):
    lines = SOURCES[name].splitlines()
    assert len(lines) <= 330 or name == "grading.grade", f"{len(lines)} lines"
    assert [line for line in lines if len(line) > 110] == []


def test_nothing_is_imported_that_only_unix_has():
    for name in SOURCES.keys() - {"grading.interpreter"}:  # which can do without
        assert not imports(name) & {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"}, name
