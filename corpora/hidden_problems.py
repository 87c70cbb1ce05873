"""
A curated and a noisy side from files of real text: problems, and books with other problems inside.

    python -m corpora.hidden_problems --problems gsm8k_train.jsonl --books books.jsonl.xz --out data/school

--problems has rows as GSM8K's (`question`, `answer`), --books rows with `text`. Curated are some of the
problems as they are. Noisy are the books' texts, with the sentences of the other problems between theirs. The
rows written have the fields `text` (noisy), `question` and `answer` (curated).
"""
import os
import random
import re
from dataclasses import dataclass

from corpora.readers import text_of
from engine.cli import BadInput, launch
from engine.files import write_jsonl
from engine.text_files import object_rows


@dataclass
class Config:
    problems: str = ""              # .jsonl of problems
    books: str = ""                 # .jsonl of the texts to hide them in
    out: str = "data/pair_source"   # folder for curated.jsonl and noisy.jsonl
    curated: int = 600              # problems of the curated side, held-out ones included
    share: float = 0.25             # of the characters of the noisy side that are problems
    p_wrong: float = 0.2            # chance that the last number of a hidden problem is wrong
    seed: int = 0                   # of what is drawn

    def validate(self):
        if not self.problems or not self.books:
            yield "--problems and --books name the two files to make a pair of"
        if self.curated < 1:
            yield f"curated must be at least 1, not {self.curated}"
        if not 0 < self.share < 1 or not 0 <= self.p_wrong <= 1:
            yield "share must lie between 0 and 1, and p_wrong in [0, 1]"


def rows_of(path, fields):
    """The rows of a .jsonl or .json, each a tuple of these fields as text. Raises BadInput."""
    rows = []
    for where, row in object_rows(path):
        try:
            rows.append(tuple(text_of(row[name]).strip() for name in fields))
        except (KeyError, ValueError) as e:
            raise BadInput(f"{path}, {where}, has no text in one of {', '.join(fields)} ({e}); see --help")
    return rows


def sentences(text):
    """The sentences of a text; the end of a line ends one too."""
    return [s for line in text.splitlines() for s in re.split(r"(?<=[.?!]) +", line.strip()) if s]


def with_wrong_end(rng, answer):
    """An answer whose last whole number is another one near it."""
    def near(match):
        n = int(match.group().replace(",", ""))
        return str(rng.choice([m for m in (n - 10, n - 2, n - 1, n + 1, n + 2, n + 10) if m >= 0]))
    return re.sub(r"\d+(?:,\d{3})*(?=\D*$)", near, answer)


def hide(books, problems, cfg, rng):
    """The rows of the noisy side: books with the sentences of problems in between, until all are used."""
    noisy, queue = [], []   # documents; sentences of the problem at hand
    used = total = 0        # characters of problems so far, and of all
    for text in books:
        mixed = []
        for sentence in sentences(text):
            mixed.append(sentence)
            total += len(sentence)
            while used < cfg.share * total and (queue or problems):
                if not queue:
                    question, answer = problems.pop()
                    wrong = rng.random() < cfg.p_wrong
                    queue = sentences(question) + sentences(with_wrong_end(rng, answer) if wrong else answer)
                mixed.append(queue.pop(0))
                used += len(mixed[-1])
                total += len(mixed[-1])
        noisy.append({"text": "\n".join(mixed), "question": "", "answer": ""})
        if not problems:
            break  # what is left of the books would hold no problem
    return noisy


def main(cfg):
    rng = random.Random(cfg.seed)
    problems = rows_of(cfg.problems, ("question", "answer"))
    books = [text for text, in rows_of(cfg.books, ("text",))]
    if len(problems) <= cfg.curated:
        raise BadInput(f"{cfg.problems} has {len(problems)} problems, and {cfg.curated} for the curated side "
                       f"leave none to hide: give a smaller --curated")
    rng.shuffle(problems)
    rng.shuffle(books)
    curated = [{"text": "", "question": q, "answer": a} for q, a in problems[:cfg.curated]]
    noisy = hide(books, problems[cfg.curated:], cfg, rng)
    os.makedirs(cfg.out, exist_ok=True)
    write_jsonl(os.path.join(cfg.out, "curated.jsonl"), curated)
    write_jsonl(os.path.join(cfg.out, "noisy.jsonl"), noisy)
    characters = sum(len(text) for row in noisy for text in row.values())
    print(f"{cfg.out}: {len(curated):,} curated, {len(noisy):,} noisy documents, {characters:,} characters")


if __name__ == "__main__":
    launch(main, Config, __doc__)
