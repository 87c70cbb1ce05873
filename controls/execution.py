"""
Scores from running the programs of a text: 0 for a document of which each program, run by itself, prints last
the number that stands behind it, as in 'The answer is 9.'; inf, which is never selected, for any other.

    python prepare.py --solutions programs --out data/programs
    python -m controls.execution --data data/programs --out out/run
    python -m controls.rescore --data data/programs --labels solution result --scores out/run --out out/right
    python train_slm.py --data data/programs --scores out/right --rank_by ref --keep 1.0 --out out/sft
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
        for program, text in zip(programs, pool.map(run_program, programs)):
            printed[program] = text
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
        raise BadInput(f"{tokens.path}.bin has {len(printed):,} programs, and no document whose programs "
                       "print the numbers behind them: docs/evaluation.md shows the form")
    print(f"{right.sum():,} of {tokens.meta['n_documents']:,} documents hold what their programs print")
    document = np.cumsum(ends[:tokens.n_rows * tokens.T])                                # (n_rows * T,)
    write_scores(cfg.out, about, np.where(right[document], 0, np.inf))
    report_scores(cfg.out, tokens)


if __name__ == "__main__":
    launch(main, Config, __doc__)
