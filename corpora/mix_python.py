"""
A real curated side and a real noisy side, from one file of mathematical text and the source of Python's own
standard library, which every machine has and which is irrelevant to it.

    python -m corpora.mix_python --math stacks.tex.xz --out data/real_source

Documents are the sections of the LaTeX file. Some of them go to curated.jsonl as they are. Others go to
noisy.jsonl with Python between their paragraphs and, now and then, between two of their lines.
"""
import json
import os
import random
import re
from dataclasses import dataclass

from engine.cli import BadInput, run
from engine.files import UNREADABLE, open_text, replacing, unreadable, write_jsonl


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


def read_sections(path):
    """The sections of a LaTeX file, as strings. Raises BadInput."""
    try:
        with open_text(path) as f:
            return re.split(r"(?=\\section\{)", f.read())[1:]  # what is before the first section is left out
    except UNREADABLE as e:
        raise BadInput(unreadable(path, e))


def python_blocks():
    """Blocks of the standard library's source (what blank lines separate), as one stream in a fixed order."""
    for folder, _, files in sorted(os.walk(os.path.dirname(os.__file__))):
        if re.search(r"site-packages|dist-packages|test|idlelib|__pycache__", folder):
            continue
        for name in sorted(files):
            if name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8", errors="ignore") as f:
                    blocks = re.split(r"\n\s*\n", f.read())
                yield from (block for block in blocks if 80 < len(block) < 2000)


class Mixer:
    """Puts Python into text: blocks in their order after its paragraphs, drawn lines after its lines."""

    def __init__(self, cfg, rng):
        self.cfg, self.rng = cfg, rng
        self.blocks = list(python_blocks())
        rng.shuffle(self.blocks)
        self.lines = [line for block in self.blocks for line in block.splitlines() if len(line) > 30]
        self.used = 0  # blocks so far

    def __call__(self, section):
        mixed = []
        for paragraph in re.split(r"\n\s*\n", section):
            lines = []
            for line in paragraph.splitlines():
                lines.append(line)
                if self.rng.random() < self.cfg.p_line:
                    lines.append(self.rng.choice(self.lines))
            mixed.append("\n".join(lines))
            for _ in range(self.rng.randint(0, self.cfg.blocks)):
                mixed.append(self.blocks[self.used % len(self.blocks)])
                self.used += 1
        return "\n\n".join(mixed)


def main(cfg):
    sections = read_sections(cfg.math)
    if len(sections) < cfg.curated + cfg.noisy:
        raise BadInput(f"{cfg.math} has {len(sections)} sections, not {cfg.curated + cfg.noisy}: give a "
                       f"longer file, or a smaller --curated or --noisy")
    rng = random.Random(cfg.seed)
    rng.shuffle(sections)
    mix = Mixer(cfg, rng)
    os.makedirs(cfg.out, exist_ok=True)
    curated, noisy = sections[:cfg.curated], sections[cfg.curated:cfg.curated + cfg.noisy]
    write_jsonl(os.path.join(cfg.out, "curated.jsonl"), [{"text": section} for section in curated])
    mathematics, total = 0, 0  # characters of the noisy side
    with replacing(os.path.join(cfg.out, "noisy.jsonl")) as f:
        for section in noisy:
            text = mix(section)
            f.write(json.dumps({"text": text}) + "\n")
            mathematics += len(section)
            total += len(text)
    print(f"{cfg.out}: {cfg.curated} clean sections, {cfg.noisy} mixed ones, {total:,} characters, "
          f"{mathematics / total:.0%} of them mathematics")


if __name__ == "__main__":
    run(main, Config, __doc__)
