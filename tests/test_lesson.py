"""lesson/: the notebook runs with the student's functions written and unwritten, and grade.py gives what is due."""
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import prepare
from data import Tokens, about_scores, write_scores
from helpers import ROOT, copy_of_repository

ASSIGNMENT = os.path.join(ROOT, "lesson", "assignment")


def tags(cell):
    return cell.metadata.get("tags", [])


def version(notebook, written):
    """The notebook of a student who has written the three functions, or none; no cell has a solution to fall back on."""
    solutions = [textwrap.dedent(cell.source.partition("\n")[2]) for cell in notebook.cells if "solution" in tags(cell)]
    notebook.cells = [cell for cell in notebook.cells if "solution" not in tags(cell)]
    for cell in notebook.cells:
        if "stub" in tags(cell) and written:
            cell.source = solutions.pop(0)
    return notebook


@pytest.mark.slow
@pytest.mark.parametrize("written", [True, False])
def test_the_notebook_fails_where_a_function_is_unwritten_and_nowhere_else(tmp_path, monkeypatch, written):
    """In a copy of the repository; with the functions written, as on a hosted service, which clones it."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    copy, folder = tmp_path / "copy", tmp_path / "hosted"
    copy_of_repository(copy)
    folder.mkdir()
    notebook = version(nbformat.read(copy / "lesson" / "slm.ipynb", as_version=4), written)
    if written:
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
            subprocess.run(git + command, cwd=copy, check=True)
        [setup] = [cell for cell in notebook.cells if "setup" in tags(cell)]
        assert 'REPO = ""' in setup.source
        setup.source = setup.source.replace('REPO = ""', f'REPO = "{copy}"')
    else:
        folder = copy / "lesson"
    monkeypatch.setenv("LESSON", "tiny")
    client = nbclient.NotebookClient(notebook, timeout=300, allow_errors=True, resources={"metadata": {"path": str(folder)}})
    client.execute()
    failed = {}
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                failed[number] = output.evalue
    expected = [n for n, cell in enumerate(notebook.cells) if "assert" in tags(cell)]
    assert len(expected) == 3 and list(failed) == ([] if written else expected), failed
    assert all("returns nothing yet: write it in the cell above" in error for error in failed.values())


def grade(folder):
    done = subprocess.run([sys.executable, os.path.join(ASSIGNMENT, "grade.py"), folder, "--json"], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# Of make_scores.py's folders (revision ceb72dc, four minutes) the mean reference loss of results, chatter, and the rest.
MEANS = {"strong": (1.3, 9.7, 2.3), "some": (1.3, 14.6, 2.8), "few": (8.3, 14.6, 5.1), "knows_the_junk": (1.1, 3.5, 0.9)}


@pytest.mark.slow
def test_all_points_to_the_solution_and_none_to_the_stubs(tmp_path, monkeypatch):
    corpus = str(tmp_path / "corpus")
    prepare.main(prepare.Config(out=corpus, noisy_tokens=20_000, curated_problems=20, held_out_problems=5))
    tokens = Tokens(corpus, "noisy", 192)
    labels = np.array(tokens.label_names)[tokens.labels[1:tokens.n_rows * 192 + 1]]
    for name, (result, chatter, rest) in MEANS.items():
        losses = np.where(labels == "result", result, np.where(labels == "irrelevant", chatter, rest))
        write_scores(str(tmp_path / name), about_scores(tokens, "noisy", {"by": name}), losses)
    monkeypatch.setenv("SLM_SCORES", str(tmp_path))
    assert grade(os.path.join(ROOT, "lesson", "solution")) == {"P1": 20, "P2": 15, "P3": 20, "P4": 20, "P5": 25}
    assert set(grade(os.path.join(ASSIGNMENT, "student")).values()) == {0}
