"""
A text with the excess loss of each token as its colour and the selected tokens underlined, as a picture.

    python -m analysis.highlight --keep 0.07 --ckpt out/base/ckpt.pt out/slm/ckpt.pt --row 4 --out text.png

Figures 10 to 14 of the paper. A panel for each checkpoint; above them, where the corpus has them, the true
labels. Red: the model's loss is above the reference model's, there is something to learn; blue: it is below.
The text is a row of the corpus's noisy side, whose tokens are ranked together with those of the rows after
it (in training: with those of the micro-batch).
"""
import os
from dataclasses import dataclass, field

import numpy as np

from analysis.categories import losses_under, top
from analysis.report import LABEL_COLOURS, pyplot, save_figure
from corpora.tokenizers import load_tokenizer
from data import Tokens
from engine.checkpoints import load_checkpoint
from engine.cli import BadInput, launch
from engine.ranks import Ranks

WIDTH = 110         # of a picture, in characters
MAX_SHOWN = 400     # tokens of the row
RANKED_ROWS = 64    # the row that is shown, and those after it


@dataclass
class Config:
    data: str = "data/demo"         # corpus folder, whose noisy side is shown
    ref: str = "out/ref/ckpt.pt"    # the reference model
    ckpt: list[str] = field(default_factory=lambda: ["out/slm/ckpt.pt"])  # a panel for each
    row: int = 0                    # row of the noisy side
    keep: float = 0.6               # share of the tokens that is selected
    out: str = "out/highlight.png"  # the picture
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not 0 < self.keep < 1:
            yield f"keep must lie between 0 and 1, not {self.keep}"
        if self.row < 0:
            yield f"row must not be negative, but is {self.row}"


def colour_of(excess):
    """(r, g, b) of an excess loss in nats, full at 3: white at 0, red above, blue below. The blue stays pale,
    so that the two differ in grey too."""
    x = float(np.clip(excess / 3, -1, 1))
    return (1.0, 1 - 0.65 * x, 1 - 0.7 * x) if x > 0 else (1 + 0.28 * x, 1 + 0.13 * x, 1.0)


def lay_out(pieces):
    """([(token number, row, column, its text there)], number of rows), on lines of WIDTH characters. pieces:
    what each token says."""
    row, column, places = 0, 0, []
    for number, piece in enumerate(pieces):
        for n, part in enumerate(piece.split("\n")):
            if n:
                row, column = row + 1, 0
            if column + len(part) > WIDTH:
                row, column, part = row + 1, 0, part.lstrip(" ")
            if part:
                places.append((number, row, column, part))
                column += len(part)
    return places, row + 1


def draw(panels, path):
    """A PNG of the panels, [(title, pieces of text, a colour for each, whether each is selected)]."""
    plt = pyplot()
    laid_out = [lay_out(pieces) for _, pieces, *_ in panels]
    heights = [0.19 * n_rows + 0.35 for _, n_rows in laid_out]
    fig, axes = plt.subplots(len(panels), 1, figsize=(0.085 * WIDTH, sum(heights)), squeeze=False,
                             height_ratios=heights)
    for ax, (places, n_rows), (title, _, colours, selected) in zip(axes[:, 0], laid_out, panels):
        for number, row, column, text in places:
            ax.add_patch(plt.Rectangle((column, row), len(text), 0.95, color=colours[number], lw=0))
            if selected[number]:
                ax.plot([column + 0.1, column + len(text) - 0.1], [row + 0.93] * 2, color="black", lw=1.3)
            style = {"weight": "bold" if selected[number] else "normal",
                     "color": "white" if sum(colours[number]) < 1.2 else "black"}
            for i, character in enumerate(text):            # one by one: no font is as wide as the grid
                ax.text(column + i + 0.5, row + 0.5, character, ha="center", va="center", fontsize=7.5,
                        family="monospace", parse_math=False, **style)
        ax.set(xlim=(0, WIDTH), ylim=(n_rows, 0))
        ax.set_title(title, fontsize=9, loc="left")
        ax.axis("off")
    save_figure(fig, path)


def label_panel(pieces, labels, names):
    """The panel of the true labels, (n_tokens,), and behind the text what their colours mean."""
    legend = [piece for name in names for piece in (name, "  ")]
    colours = [LABEL_COLOURS[names[label]] for label in labels] + [(1, 1, 1)]
    for name in names:
        colours += [LABEL_COLOURS[name], (1, 1, 1)]
    pieces = [*pieces, "\n", *legend]
    return "true labels", pieces, colours, [False] * len(pieces)


def main(cfg):
    ranks, enc, paths = Ranks(cfg.device), load_tokenizer(cfg.data), (cfg.ref, *cfg.ckpt)
    T = min(load_checkpoint(path)["model_config"]["block_size"] for path in paths)
    tokens = Tokens(cfg.data, "noisy", T)
    if cfg.row >= tokens.n_rows:
        raise BadInput(f"{tokens.path}.bin has {tokens.n_rows:,} rows of {T} tokens: give a smaller --row")
    rows = np.arange(cfg.row, min(tokens.n_rows, cfg.row + RANKED_ROWS))
    losses = [losses_under(path, tokens, rows, ranks) for path in paths]              # (len(rows) * T,) each
    first, n_shown, panels = cfg.row * T, min(T, MAX_SHOWN), []
    pieces = [enc.decode([i]) for i in tokens.tokens[first + 1:first + 1 + n_shown].tolist()]
    if tokens.label_names:
        labels = tokens.labels[first + 1:first + 1 + n_shown]                         # (n_shown,)
        panels.append(label_panel(pieces, labels, tokens.label_names))
    for path, loss in zip(cfg.ckpt, losses[1:]):
        excess = loss - losses[0]                                                     # (len(rows) * T,)
        title = (f"{'/'.join(os.path.normpath(path).split(os.sep)[-2:])}: red where its loss is above the "
                 f"reference's, blue where below; underlined the {cfg.keep:.0%} that are selected")
        panels.append((title, pieces, [colour_of(e) for e in excess[:n_shown]], top(excess, cfg.keep)))
    os.makedirs(os.path.dirname(cfg.out) or ".", exist_ok=True)
    draw(panels, cfg.out)
    print(f"{cfg.out}: {n_shown} tokens in a context of {T}, {len(cfg.ckpt)} checkpoints")


if __name__ == "__main__":
    launch(main, Config, __doc__)
