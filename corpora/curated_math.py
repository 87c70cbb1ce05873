"""
The training sets of GSM8K and MATH as documents in the form of eval_math.py's prompts: the curated side of a
corpus of mathematics.

    python -m corpora.curated_math --gsm8k train.jsonl --math MATH/train --out data/curated_math.jsonl

GSM8K's is grade_school_math/data/train.jsonl of github.com/openai/grade-school-math. MATH's is a folder of
.json files, as it was published, or a .jsonl with `problem` and `solution`. Either may be left out.
"""
import glob
import os
from dataclasses import dataclass

from engine.cli import BadInput, run
from engine.files import read_json, write_jsonl
from grading.tasks import TASKS, load_problems


@dataclass
class Config:
    gsm8k: str = ""                         # train.jsonl of GSM8K
    math: str = ""                          # folder or .jsonl of MATH's training set
    out: str = "data/curated_math.jsonl"    # what to write: {"text": ...} a line

    def validate(self):
        if not self.gsm8k and not self.math:
            yield "--gsm8k or --math names a training set"


def read_math(path):
    """The problems of MATH in a folder of .json files or in a .jsonl. Raises BadInput."""
    if os.path.isdir(os.path.join(path, "test")):
        raise BadInput(f"{path} holds MATH's test set too: name its folder train")
    if not os.path.isdir(path):
        return load_problems("math", path)
    files = sorted(glob.glob(os.path.join(path, "**", "*.json"), recursive=True))
    try:
        return [TASKS["math"].read(read_json(file)) for file in files]
    except (KeyError, TypeError) as e:
        raise BadInput(f"{path} holds a .json that is not a problem of MATH: {e!r}; take it out")


def main(cfg):
    problems = []
    if cfg.gsm8k:
        problems += load_problems("gsm8k", cfg.gsm8k)
    if cfg.math:
        problems += read_math(cfg.math)
    problems = [p for p in problems if p["answer"]]  # a few solutions of MATH mark no answer
    if not problems:
        raise BadInput(f"{cfg.gsm8k or cfg.math} holds no problems with answers: give the training set")
    os.makedirs(os.path.dirname(cfg.out) or ".", exist_ok=True)
    write_jsonl(cfg.out, [{"text": p["question"] + p["solution"]} for p in problems])
    print(f"{cfg.out}: {len(problems):,} problems")


if __name__ == "__main__":
    run(main, Config, __doc__)
