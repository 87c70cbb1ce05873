"""
Scores from running the programs of a text, in the form and the limits of eval_math.py --tool python: 0 for a
document whose programs all print the answer behind them, inf, which is never selected, for any other.

    python -m controls.execution --out out/run
    python -m controls.rescore --labels solution result --scores out/run --out out/checked
    python train_slm.py --scores out/checked --rank_by ref --keep 1.0    # on the solutions that hold
"""
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from corpora.tokenizers import load_tokenizer
from data import Tokens, about_scores, are_there, report_scores, write_scores
from engine.cli import BadInput, Progress, launch
from grading.grade import extract_answer, is_equal
from grading.interpreter import run_program
from grading.tools import PROGRAM


@dataclass
class Config:
    data: str = "data/demo"         # corpus folder
    corpus: str = "noisy"           # which of its token files
    block_size: int = 192           # row length T, that of the training run
    out: str = "out/execution"      # folder to write


def printed_by(programs):
    """{program: what it prints}, run side by side, each once."""
    programs, printed = sorted(set(programs)), {}
    progress = Progress("programs", len(programs), "programs")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # a thread waits for a process
        for text in pool.map(run_program, programs):
            printed[programs[len(printed)]] = text
            progress.show(len(printed))
    progress.close()
    return printed


def holds(text, printed):
    """Whether a document has programs, and each prints the answer that the text gives before the next one."""
    found = list(PROGRAM.finditer(text))
    ends = [program.start() for program in found[1:]] + [len(text)]
    answers = [extract_answer(text[program.end():end], "demo") for program, end in zip(found, ends)]
    return bool(found) and all(answer and is_equal(printed[program[1]].split("\n")[-1], answer)
                               for program, answer in zip(found, answers))


def main(cfg):
    tokens, enc = Tokens(cfg.data, cfg.corpus, cfg.block_size), load_tokenizer(cfg.data)
    about = about_scores(tokens, cfg.corpus, {"how": "execution"})
    if are_there(cfg.out, about):
        return report_scores(cfg.out, tokens)
    ends = np.asarray(tokens.tokens) == tokens.meta["end_of_text"]                       # (n,) bool
    texts = [enc.decode(part.tolist()) for part in np.split(tokens.tokens, np.flatnonzero(ends) + 1)]
    printed = printed_by([found[1] for text in texts for found in PROGRAM.finditer(text)])
    right = np.array([holds(text, printed) for text in texts])                           # (documents,)
    if not right.any():
        raise BadInput(f"{tokens.path}.bin has no document whose programs print its answers, and "
                       f"{len(printed):,} programs: have they the form of docs/evaluation.md?")
    print(f"{len(printed):,} programs; {right.sum():,} of {len(texts):,} documents hold what theirs print")
    document = np.cumsum(ends[:tokens.n_rows * tokens.T])                                # (n_rows * T,)
    write_scores(cfg.out, about, np.where(right[document], 0, np.inf))
    report_scores(cfg.out, tokens)


if __name__ == "__main__":
    launch(main, Config, __doc__)
