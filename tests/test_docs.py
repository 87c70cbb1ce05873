"""The README, the pages in docs/ and the help of every file: their links, files, commands and options exist."""
import ast
import dataclasses
import glob
import importlib
import importlib.util
import os
import re
import shlex
import subprocess

import pytest

from engine.cli import parse
from helpers import ROOT

PAGES = ["README.md", *sorted(glob.glob("docs/*.md", root_dir=ROOT)),
         *sorted(glob.glob("lesson/**/*.md", root_dir=ROOT, recursive=True))]
FILES = [path for path in sorted(glob.glob("*.py", root_dir=ROOT) + glob.glob("*/*.py", root_dir=ROOT))
         if not path.startswith("tests")]
FOLDERS = "analysis|controls|corpora|distillation|docs|engine|grading|lesson|results|runs|tests|weights"
GONE = "extras|paper|bench"                          # folders of older revisions
FOREIGN = {"help", "nproc_per_node", "standalone", "json",  # options of every script, of torchrun, and of grade.py
           "model_args", "tasks", "output_path", "confirm_run_unsafe_code"}  # and of lm-evaluation-harness
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)
COMMAND = re.compile(rf"(?:^|\s)([\w./-]+\.(?:py|sh)|(?:{FOLDERS}|{GONE})\.(?!json)[a-z]\w*)(?:\s+(.*))?$")


def text(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def is_there(name):
    """Whether a file is at the place it is named by, or somewhere in lesson/, whose pages say `adapters.py`."""
    return os.path.exists(os.path.join(ROOT, name)) or glob.glob(f"lesson/**/{name}", root_dir=ROOT, recursive=True)


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text(page)))
    assert links
    for link in links:
        if not re.match(r"https?://", link):
            path, _, anchor = link.partition("#")
            path = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
            assert os.path.exists(os.path.join(ROOT, path)), link
            headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text(path)), re.M) if anchor else []
            assert not anchor or anchor in map(slug, headings), link


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_file_that_is_gone(page):
    """Names of Python files, shell scripts and pages, and all that begins with one of our folders."""
    page_text = re.sub(r"\]\([^)]*\)", "", text(page))
    assert not re.search(rf"(?<![\w/.-])({GONE})/", page_text)
    names = re.findall(rf"(?<![\w./:-])(?:[\w./-]+\.(?:py|sh|md)\b|(?:{FOLDERS})/[\w./-]*\w)", page_text)
    assert [name for name in names if not is_there(name)] == []


@pytest.mark.parametrize("folder", sorted(os.listdir(os.path.join(ROOT, "results"))))
def test_a_page_says_what_made_a_folder_of_results(folder):
    """A paragraph that names the folder names a revision too, or the command that makes such a folder."""
    paragraphs = [p for page in PAGES for p in text(page).split("\n\n") if f"results/{folder}/" in p]
    made_by = r"\b(?=\w*\d)(?=\w*[a-f])[0-9a-f]{7,40}\b|bash runs/\w+\.sh|python -m"
    assert any(re.search(made_by, p) for p in paragraphs)


def config_of(path):
    """The Config of a script, or None where the file has no options."""
    return getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), "Config", None)


def options_of(path):
    """The options of a script, without dashes. What is off by default need not be turned off."""
    fields = dataclasses.fields(config_of(path)) if config_of(path) else []
    return {f.name for f in fields} | {f"no-{f.name}" for f in fields if f.default is True}


def commands(page):
    """[(script of ours, its arguments, whether these are all)] of a page, or of the help of a Python file. In prose a
    command may be cut short: `prepare.py --mix 10`."""
    if page.endswith(".py"):
        prose, help_text = "", ast.get_docstring(ast.parse(text(page))) or ""
        shell = "\n".join(re.findall(r"^ +((?:python|bash|torchrun) (?:.*\\\n)*.*)", help_text, re.M))
    else:
        prose = BLOCK.sub("", text(page))
        shell = "".join(code if language else "\n".join(re.findall(r"^\$ (.*)", code, re.M))  # what one types
                        for language, code in BLOCK.findall(text(page)) if language in ("sh", ""))
    lines = [(line, True) for line in re.sub(r"\\\n\s*", " ", shell).splitlines()]
    lines += [(" ".join(code.split()), False) for code in re.findall(r"`([^`]+)`", prose)]
    variables, found = {}, []
    for line, all_of_them in lines:
        line = re.sub(r"\$(\w+)", lambda match: variables.get(match[1], match[0]), line.split(" #")[0].strip())
        variables.update(re.findall(r'^(\w+)="?([^"]*)"?$', line))
        for match in filter(None, map(COMMAND.search, re.split(r"&&|;|\|", line))):
            path = match[1] if match[1].endswith((".py", ".sh")) else match[1].replace(".", "/") + ".py"
            found.append((path, shlex.split(match[2] or ""), all_of_them))
    return found


@pytest.mark.parametrize("page", PAGES + FILES)
def test_commands_can_be_given(page):
    for path, arguments, all_of_them in commands(page):
        assert is_there(path), path
        Config = config_of(path) if path in FILES else None
        if Config and all_of_them and "..." not in arguments:
            parse(Config, "", arguments)  # raises BadInput
        elif path in FILES:
            assert {word[2:].partition("=")[0] for word in arguments if word[:2] == "--"} <= options_of(path), path
    for module in re.findall(r"python3? -m ([\w.]*\w)", text(page)):
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("page", PAGES + glob.glob("runs/*.sh", root_dir=ROOT))
def test_no_page_names_an_option_that_is_gone(page):
    if page != "docs/log.md":  # which says what was taken out
        there = FOREIGN.union(*map(options_of, FILES))
        assert set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", text(page))) <= there


def test_commands_are_found():
    """The instrument itself sees commands in blocks and prose, behind torchrun, with variables, on several lines."""
    found = commands("docs/your_data.md") + commands("docs/real_models.md")
    assert {"prepare.py", "score.py", "runs/gpt2_math.sh", "weights/export.py"} <= {path for path, *_ in found}
    trained = [arguments for path, arguments, all_of_them in found if path == "train_slm.py" and all_of_them]
    assert len(trained) == 6 and all("--scores" in arguments for arguments in trained)
    assert any("--n_embd" in arguments for arguments in trained)  # from $D


def test_the_readme_shows_the_methods_code_as_it_is():
    """What it shows are functions of train_slm.py, and so long is the diff that it names."""
    readme, script = text("README.md"), text("train_slm.py")
    [shown] = [code for language, code in BLOCK.findall(readme) if language == "python"]
    functions = ["\n".join(script.splitlines()[node.lineno - 1:node.end_lineno]) for node in ast.parse(script).body
                 if getattr(node, "name", "") in ("excess_loss", "top_k", "selected_loss")]
    assert shown.strip() == "\n\n\n".join(functions)
    diff = subprocess.run(["diff", "train_ref.py", "train_slm.py"], cwd=ROOT, capture_output=True, text=True).stdout
    n_changed = len(re.findall("^[<>]", diff, re.M))
    assert 20 < n_changed <= 75
    assert f"{n_changed} changed lines in all" in readme.replace("\n", " ")
