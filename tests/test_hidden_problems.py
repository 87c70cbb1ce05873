"""corpora/hidden_problems.py: what is curated is not hidden; shares, answers and labels are as asked."""
import json
import re

import pytest

from corpora import hidden_problems
from corpora.writer import SOLUTION
from engine.cli import BadInput
from test_data import documents_of, own_corpus, write


@pytest.fixture
def files(tmp_path):
    problems = [{"question": f"Q{i} has {i} eggs. How many?",
                 "answer": f"One. {i}+1={i + 1} eggs.\n#### {i + 1}"} for i in range(60)]
    books = [{"text": "\n".join(f"Book {i} says that {j} is a word. And so on." for j in range(40))}
             for i in range(9)]
    return dict(problems=write(tmp_path / "problems.jsonl", problems),
                books=write(tmp_path / "books.jsonl", books), out=str(tmp_path))


def test_problems_are_hidden_in_books(tmp_path, files):
    hidden_problems.main(hidden_problems.Config(**files, curated=20, share=0.25, p_wrong=0.2))
    curated, noisy, problems = ([json.loads(line) for line in (tmp_path / f"{name}.jsonl").open()]
                                for name in ("curated", "noisy", "problems"))
    assert len(curated) == 20 and all(row in [{"text": ""} | p for p in problems] for row in curated)
    assert not any(row["question"] or row["answer"] for row in noisy)
    lines = "\n".join(row["text"] for row in noisy).split("\n")
    hidden = [line for line in lines if not line.startswith(("Book", "And so on"))]
    assert 0.22 < sum(map(len, hidden)) / sum(map(len, lines)) < 0.28
    used = [int(line.split()[0][1:]) for line in hidden if line.startswith("Q")]
    assert len(set(used)) == len(used) > 20
    assert not {f"Q{i}" for i in used} & {row["question"].split()[0] for row in curated}
    # Within each problem the sentences are in order; a wrong one differs in its last number alone.
    whole, wrong = "\n".join(hidden), 0
    for i in used[:-1]:
        before = f"Q{i} has {i} eggs.\nHow many?\nOne.\n{i}+1={i + 1} eggs.\n#### "
        wrong += int(re.search(re.escape(before) + r"(\d+)", whole).group(1)) != i + 1
    assert 0 < wrong / (len(used) - 1) < 0.4
    out = own_corpus(tmp_path / "corpus", tmp_path / "curated.jsonl", tmp_path / "noisy.jsonl",
                     field=["text", "question", "answer"], answer_field="answer", held_out=0.2)
    assert set(documents_of(out, "curated", [SOLUTION])) <= {row["answer"] for row in curated}
    assert not any(documents_of(out, "noisy", [SOLUTION]))


def test_what_cannot_be_made_is_refused(tmp_path, files):
    assert list(hidden_problems.Config(**files).validate()) == []
    for wrong in (dict(books=""), dict(problems=""), dict(curated=0), dict(share=1.0), dict(p_wrong=1.1)):
        assert len(list(hidden_problems.Config(**files | wrong).validate())) == 1
    for wrong, says in ((dict(curated=60), "60 problems, and 60"),
                        (dict(books=files["problems"]), "line 1, has no text in one of text")):
        with pytest.raises(BadInput, match=says):
            hidden_problems.main(hidden_problems.Config(**files | wrong))
