"""The shape of the repository: imports go one way, and nothing that only Unix has is needed to import it."""
import ast
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = {"prepare", "train_ref", "score", "train_slm", "eval_math", "plot"}
FOLDERS = {"engine", "corpora", "grading", "extras", "paper", "bench"}


def sources():
    """{module name: its source} of everything but the tests."""
    found = {}
    for folder in ("", *sorted(FOLDERS)):
        for name in sorted(os.listdir(os.path.join(ROOT, folder))):
            if name.endswith(".py"):
                with open(os.path.join(ROOT, folder, name), encoding="utf-8") as f:
                    found[".".join(filter(None, (folder, name.removesuffix(".py"))))] = f.read()
    return found


def imports(source, modules):
    """The modules of ours that a source imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found & set(modules)


def graph():
    modules = sources()
    return {name: imports(source, modules) - {name} for name, source in modules.items()}


def test_at_most_nine_files_at_the_top_and_folders_hold_the_rest():
    top = {name for name in sources() if "." not in name}
    assert SCRIPTS | {"model", "data", "common"} == top and len(top) <= 9
    for name, source in sources().items():
        if name != "grading.grade":
            assert source.count("\n") <= 400, name
    # runs/ holds shell scripts only
    assert [n for n in os.listdir(os.path.join(ROOT, "runs")) if not n.endswith(".sh") and n != "__pycache__"] == []


def test_no_two_files_import_each_other_not_even_round_a_corner():
    edges = graph()

    def reachable(start):
        seen, todo = set(), list(edges[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += edges[name]
        return seen
    assert [name for name in edges if name in reachable(name)] == []


def test_imports_go_one_way():
    for name, found in graph().items():
        assert not found & SCRIPTS, f"{name} imports a script"  # no folder does, and no script another
        if name.startswith("engine."):
            assert all(m == "model" or m.startswith("engine") for m in found), name
    assert graph()["model"] == set()


UNIX_ONLY = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix")

IMPORT_ALL = """
import sys, importlib
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ImportError(name + " is hidden")
import subprocess, multiprocessing, tempfile, shutil, torch, numpy, tiktoken, matplotlib   # they know what to do
for name in {hidden!r}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
for name in {modules!r}:
    importlib.import_module(name)
print("all")
"""


def test_everything_is_imported_without_what_only_unix_has():
    modules = [name for name in sources() if not name.endswith("__init__")]
    hidden = [name for name in UNIX_ONLY if name != "posix"]  # Python itself needs posix where there is one
    code = IMPORT_ALL.format(hidden=hidden, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "all\n", done.stderr[-2000:]
