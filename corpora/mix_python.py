"""
A real curated side and a real noisy side, from one file of mathematical text and the source of Python's own standard
library, which every machine has and which is irrelevant to it.

    python runs/mix_text.py --math stacks.tex.xz --out data/real_source

Documents are the sections of the LaTeX file. CURATED of them go to curated.jsonl as they are. The others go to
noisy.jsonl with Python between their paragraphs and, now and then, a line of Python between two of their lines.
"""
import json
import os
import random
import re
import sys
from dataclasses import dataclass

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from common import UNREADABLE, BadInput, open_text, replacing, run, unreadable, write_jsonl


@dataclass
class Config:
    math: str = "stacks.tex.xz"     # LaTeX, plain or .xz; sections are its documents
    out: str = "data/real_source"   # folder for curated.jsonl and noisy.jsonl
    curated: int = 300              # sections of the curated side
    noisy: int = 450                # other sections, in the noisy side
    blocks: int = 3                 # up to so many blocks of Python after a paragraph
    p_line: float = 0.05            # chance of a line of Python after a line
    seed: int = 0                   # of the split and of the mixture

    def validate(self):
        if self.curated < 1 or self.noisy < 1:
            yield "curated and noisy must be at least 1"


def python_blocks():
    """Blocks of the standard library's source (what blank lines separate), as one stream in a fixed order."""
    for folder, folders, files in sorted(os.walk(os.path.dirname(os.__file__))):
        if not re.search(r"site-packages|dist-packages|test|idlelib|__pycache__", folder):
            for name in sorted(files):
                if name.endswith(".py"):
                    with open(os.path.join(folder, name), encoding="utf-8", errors="ignore") as f:
                        yield from (b for b in re.split(r"\n\s*\n", f.read()) if 80 < len(b) < 2000)


def main(cfg):
    try:
        with open_text(cfg.math) as f:
            sections = re.split(r"(?=\\section\{)", f.read())[1:]
    except UNREADABLE as e:
        raise BadInput(unreadable(cfg.math, e))
    if len(sections) < cfg.curated + cfg.noisy:
        raise BadInput(f"{cfg.math} has {len(sections)} sections, not {cfg.curated + cfg.noisy}")
    rng = random.Random(cfg.seed)
    rng.shuffle(sections)
    blocks = list(python_blocks())
    rng.shuffle(blocks)
    lines = [line for block in blocks for line in block.splitlines() if len(line) > 30]
    at, useful, total = 0, 0, 0
    os.makedirs(cfg.out, exist_ok=True)
    write_jsonl(os.path.join(cfg.out, "curated.jsonl"), [{"text": s} for s in sections[:cfg.curated]])
    with replacing(os.path.join(cfg.out, "noisy.jsonl")) as f:
        for section in sections[cfg.curated:cfg.curated + cfg.noisy]:
            mixed = []
            for paragraph in re.split(r"\n\s*\n", section):
                mixed.append("\n".join(line + (f"\n{rng.choice(lines)}" if rng.random() < cfg.p_line else "")
                                       for line in paragraph.splitlines()))
                for _ in range(rng.randint(0, cfg.blocks)):
                    mixed.append(blocks[at % len(blocks)])
                    at += 1
            text = "\n\n".join(mixed)
            f.write(json.dumps({"text": text}) + "\n")
            useful, total = useful + len(section), total + len(text)
    print(f"{cfg.out}: {cfg.curated} clean sections, {cfg.noisy} mixed ones, {total:,} characters, {useful / total:.0%} "
          f"of them mathematics")


if __name__ == "__main__":
    run(main, Config, __doc__)
