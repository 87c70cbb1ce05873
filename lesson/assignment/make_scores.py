"""
The four score folders of problem P5, four minutes on two cores: 200,000 noisy tokens under four references.

    python lesson/assignment/make_scores.py

    strong           the base after 2M tokens of 1,500 clean problems, as in the README
    some             the same of 1,000 clean problems
    few              the same of 100 clean problems
    knows_the_junk   the base after 2M tokens of noisy text

Writes into scores/ beside this file, or the folder that SLM_SCORES names. After an interruption give it again.
"""
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
OUT = pathlib.Path(os.environ.get("SLM_SCORES", HERE / "scores")).resolve()
CORPORA = {"corpus": "--noisy_tokens 200000", "whole": "",
           "some_problems": "--noisy_tokens 200000 --curated_problems 1000",
           "few_problems": "--noisy_tokens 200000 --curated_problems 100"}
REFERENCES = {  # name: (the corpus that it reads, how)
    "strong": ("corpus", "--train_tokens 2e6"),
    "some": ("some_problems", "--train_tokens 2e6"),
    "few": ("few_problems", "--train_tokens 2e6"),
    "knows_the_junk": ("whole", "--train_tokens 2e6 --train noisy"),
}


def run(command, **folders):
    """A script of the repository. folders: options whose values are paths below OUT."""
    options = [word for name, path in folders.items() for word in (f"--{name}", str(OUT / path))]
    subprocess.run([sys.executable, *command.split(), *options], cwd=HERE.parents[1], check=True)


def main():
    for name, how in CORPORA.items():
        if not (OUT / name / "val.json").exists():
            run(f"prepare.py --seed 42 {how}", out=name)
    run("train_ref.py --resume --train web --train_tokens 3e6", data="whole", out="runs/base")
    for name, (corpus, how) in REFERENCES.items():
        run(f"train_ref.py --resume {how}", data=corpus, init_from="runs/base/ckpt.pt", out=f"runs/{name}")
        run("score.py", data="corpus", ckpt=f"runs/{name}/ckpt.pt", out=name)


if __name__ == "__main__":
    main()
