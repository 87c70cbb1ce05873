"""
Two natural pairs of a curated and a noisy side, from files of real text.

    python -m corpora.natural_pairs --posts newsgroups.jsonl.xz --group sci.space --out data/space_source
    python -m corpora.natural_pairs --problems gsm8k_train.jsonl --books textbooks.jsonl.xz --out data/school

Posts: rows with `group`, `subject` and `text`. Curated are some posts of one group, noisy are all others of
all groups in a drawn order. Both files have two fields, of which one is empty: `wanted` holds posts of the
group, `other` those of other groups, so that prepare.py --field other wanted --answer_field wanted labels
them, and the log of a run says what was selected of each.

Books and problems: rows with `text`, and problems as GSM8K's (`question`, `answer`) or as
corpora/curated_math.py writes them (`text`). Curated are some of the problems as they are. Noisy are the
books' texts, with the sentences of the other problems between theirs: a quarter of the characters are
problems, and of these a share ends with a wrong number. The fields are `text` (noisy), `question` and
`answer` (curated), so that the loss on solutions can be measured; a problem that is one text is all answer.
"""
import os
import random
import re
from dataclasses import dataclass

from corpora.readers import text_of
from engine.cli import BadInput, run
from engine.files import object_rows, write_jsonl


@dataclass
class Config:
    posts: str = ""                 # .jsonl of posts, plain or packed
    group: str = "sci.space"        # the group that is wanted
    problems: str = ""              # .jsonl of problems, as GSM8K's training set or corpora/curated_math.py's
    books: str = ""                 # .jsonl of the texts to hide them in
    out: str = "data/pair_source"   # folder for curated.jsonl and noisy.jsonl
    curated: int = 600              # posts or problems of the curated side, held-out ones included
    share: float = 0.25             # problems: of the characters of the noisy side
    p_wrong: float = 0.2            # problems: chance of a wrong last number
    seed: int = 0                   # of what is drawn

    def validate(self):
        if bool(self.posts) == bool(self.books) or bool(self.problems) != bool(self.books):
            yield "--posts makes one pair, --problems and --books the other: name one of them"
        if self.curated < 1:
            yield f"curated must be at least 1, not {self.curated}"
        if not 0 < self.share < 1 or not 0 <= self.p_wrong <= 1:
            yield "share must lie between 0 and 1, and p_wrong in [0, 1]"


def rows_of(path, fields):
    """The rows of a .jsonl or .json, each a tuple of these fields as text. Raises BadInput."""
    rows = []
    for where, row in object_rows(path):
        missing = [name for name in fields if name not in row]
        if missing:
            raise BadInput(f"{path}, {where}, lacks the field {missing[0]!r}: give the file that --help "
                           f"describes")
        try:
            rows.append(tuple(text_of(row[name]).strip() for name in fields))
        except ValueError as e:
            raise BadInput(f"{path}, {where}: one of {', '.join(fields)} holds {e}: give the file that --help "
                           f"describes")
    return rows


def problem_rows(path):
    """(question, answer) of each problem; ("", its text) where a row has its text in one piece. Raises
    BadInput."""
    _, first = next(object_rows(path), ("", {}))
    if "text" in first:
        return [("", text) for text, in rows_of(path, ("text",))]
    return rows_of(path, ("question", "answer"))


def split(rows, n, path):
    """The first n rows, which are curated, and the others. Raises BadInput."""
    if len(rows) <= n:
        raise BadInput(f"{path} has {len(rows)} of what is wanted, and {n} for the curated side leave none: "
                       f"give a smaller --curated")
    return rows[:n], rows[n:]


def post_pair(cfg, rng):
    """(curated, noisy) rows of the posts."""
    posts = rows_of(cfg.posts, ("group", "subject", "text"))
    rng.shuffle(posts)
    of_group = [post for post in posts if post[0] == cfg.group]
    curated, rest = split(of_group, cfg.curated, f"{cfg.posts}, group {cfg.group},")
    noisy = rest + [post for post in posts if post[0] != cfg.group]
    rng.shuffle(noisy)

    def row(group, subject, text):
        filled, empty = ("wanted", "other") if group == cfg.group else ("other", "wanted")
        return {filled: f"{subject}\n{text}", empty: ""}
    return [row(*post) for post in curated], [row(*post) for post in noisy]


def sentences(text):
    """The sentences of a text; the end of a line ends one too."""
    return [s for line in text.splitlines() for s in re.split(r"(?<=[.?!]) +", line.strip()) if s]


def with_wrong_end(rng, answer):
    """An answer whose last whole number is another one near it."""
    def near(match):
        n = int(match.group().replace(",", ""))
        return str(rng.choice([m for m in (n - 10, n - 2, n - 1, n + 1, n + 2, n + 10) if m >= 0]))
    return re.sub(r"\d+(?:,\d{3})*(?=\D*$)", near, answer)


def problem_pair(cfg, rng):
    """(curated, noisy) rows of problems, and of books with problems inside."""
    problems = problem_rows(cfg.problems)
    books = [text for text, in rows_of(cfg.books, ("text",))]
    rng.shuffle(problems)
    rng.shuffle(books)
    curated, hidden = split(problems, cfg.curated, cfg.problems)
    noisy, queue = [], []   # documents; sentences of the problem at hand
    used, total = 0, 0      # characters of problems so far, and of all
    for text in books:
        mixed = []
        for sentence in sentences(text):
            mixed.append(sentence)
            total += len(sentence)
            while used < cfg.share * total:
                if not queue:
                    if not hidden:
                        break
                    question, answer = hidden.pop()
                    wrong = rng.random() < cfg.p_wrong
                    queue = sentences(question) + sentences(with_wrong_end(rng, answer) if wrong else answer)
                mixed.append(queue.pop(0))
                used += len(mixed[-1])
                total += len(mixed[-1])
        noisy.append({"text": "\n".join(mixed), "question": "", "answer": ""})
        if not hidden:
            break  # what is left of the books would hold no problem
    return [{"text": "", "question": question, "answer": answer} for question, answer in curated], noisy


def main(cfg):
    rng = random.Random(cfg.seed)
    curated, noisy = post_pair(cfg, rng) if cfg.posts else problem_pair(cfg, rng)
    os.makedirs(cfg.out, exist_ok=True)
    write_jsonl(os.path.join(cfg.out, "curated.jsonl"), curated)
    write_jsonl(os.path.join(cfg.out, "noisy.jsonl"), noisy)
    characters = sum(len(text) for row in noisy for text in row.values())
    print(f"{cfg.out}: {len(curated):,} curated documents, {len(noisy):,} noisy ones, {characters:,} "
          f"characters")


if __name__ == "__main__":
    run(main, Config, __doc__)
