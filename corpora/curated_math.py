"""
The training sets of GSM8K and MATH as documents in the form of eval_math.py's prompts: the curated side of a math corpus.

    python runs/curated_math.py --gsm8k train.jsonl --math MATH/train --out data/curated_math.jsonl

GSM8K's is grade_school_math/data/train.jsonl of github.com/openai/grade-school-math. MATH's is a folder of .json files, as
it was published, or a .jsonl with `problem` and `solution`. Either may be left out.
"""
import glob
import os
import sys
from dataclasses import dataclass

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from common import BadInput, read_json, run, write_jsonl
from tasks import TASKS, load_problems


@dataclass
class Config:
    gsm8k: str = ""                         # train.jsonl of GSM8K
    math: str = ""                          # folder or .jsonl of MATH's training set
    out: str = "data/curated_math.jsonl"    # what to write: {"text": ...} a line

    def validate(self):
        if not self.gsm8k and not self.math:
            yield "--gsm8k or --math names a training set"


def main(cfg):
    problems = load_problems("gsm8k", cfg.gsm8k) if cfg.gsm8k else []
    if os.path.isdir(os.path.join(cfg.math, "test")):
        raise BadInput(f"{cfg.math} holds MATH's test set too: name its folder train")
    if os.path.isdir(cfg.math):
        paths = sorted(glob.glob(os.path.join(cfg.math, "**", "*.json"), recursive=True))
        try:
            problems += [TASKS["math"].read(read_json(path)) for path in paths]
        except (KeyError, TypeError) as e:
            raise BadInput(f"{cfg.math} holds a .json that is not a problem of MATH: {e!r}")
    elif cfg.math:
        problems += load_problems("math", cfg.math)
    problems = [p for p in problems if p["answer"]]  # a few solutions of MATH box none
    if not problems:
        raise BadInput(f"{cfg.gsm8k or cfg.math} holds no problems with answers")
    os.makedirs(os.path.dirname(cfg.out) or ".", exist_ok=True)
    write_jsonl(cfg.out, [{"text": p["question"] + p["solution"]} for p in problems])
    print(f"{cfg.out}: {len(problems):,} problems")


if __name__ == "__main__":
    run(main, Config, __doc__)
