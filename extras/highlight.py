"""
A text with the excess loss of each token as its colour and the selected tokens underlined.

    python -m extras.highlight --data data/demo/seed0 --ref out/demo/seed0/ref/best.pt --out highlight.png \\
        --ckpt out/demo/seed0/slm/step_000000.pt out/demo/seed0/slm/step_002600.pt
    python -m extras.highlight ... --text notes.txt     # any text
    python -m extras.highlight ... --by category        # the paper's four categories, over these checkpoints

Figures 10 to 14 of the paper, in the terminal and, with --out, as a PNG. One panel for each checkpoint, in
the order given. Red: the model's loss is above the reference model's, there is something to learn; blue:
it is below. Selected are the top `keep` of this text's tokens; in training they are ranked among all of a
forward pass. Without --text: the first tokens of the corpus's noisy side.
"""
import dataclasses
import os
from dataclasses import dataclass

import numpy as np
import torch

from common import load_checkpoint, load_model
from corpora.tokenizers import load_tokenizer, prompt_ids, start_of
from corpora.vocabulary import must_have_row
from data import Tokens
from engine import fast_loss
from engine.cli import BadInput, run
from engine.files import TEXT
from engine.ranks import Ranks
from engine.report import pyplot, save_figure
from extras.dynamics import CATEGORIES, categories, top

WIDTH = 110  # of a picture, in characters
CATEGORY_COLOURS = {"H->L": (0.45, 0.65, 1.0), "L->H": (1.0, 0.45, 0.4), "L->L": (0.65, 0.9, 0.6),
                    "H->H": (1.0, 0.85, 0.3)}
CATEGORY_NAMES = {"H->L": "learned (high to low loss)", "L->H": "forgotten (low to high)",
                  "L->L": "low all along", "H->H": "high all along"}


@dataclass
class Config:
    data: str = "data/demo"         # corpus folder: its tokenizer, and without --text its noisy side
    ref: str = "out/ref/best.pt"    # the reference model
    ckpt: list[str] = dataclasses.field(default_factory=lambda: ["out/slm/ckpt.pt"])  # a panel for each
    text: str = ""                  # a text file
    by: str = "excess"              # what colours mean: excess (loss), or category (of three or more ckpt)
    keep: float = 0.3               # share of the tokens that is selected
    max_tokens: int = 400           # of the text
    out: str = ""                   # a .png to write (none: the terminal only)
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not 0 < self.keep < 1:
            yield f"keep must lie between 0 and 1, not {self.keep}"
        if self.max_tokens < 2:
            yield f"max_tokens must be at least 2, not {self.max_tokens}"
        if self.by not in ("excess", "category"):
            yield f"by must be excess or category, not {self.by!r}"
        if self.by == "category" and len(self.ckpt) < 3:
            yield (f"--by category fits a line to the losses at three or more checkpoints, not "
                   f"{len(self.ckpt)}")


@dataclass
class Panel:
    """A text, token by token: what each says, its colour (r, g, b), and whether it is selected."""
    title: str
    pieces: list
    colours: list
    selected: np.ndarray


@dataclass
class Cell:
    """A part of a token that stands on one line of a picture."""
    row: int
    column: int
    text: str
    colour: tuple
    selected: bool


# --------------------------------------------------------------------------------------- losses of the text

def read_text(cfg, tokens, enc):
    """The ids of the text to show, at most cfg.max_tokens. Raises BadInput where it cannot be read or is
    empty."""
    if not cfg.text:
        return tokens.tokens[:cfg.max_tokens].tolist()
    try:
        with open(cfg.text, encoding=TEXT) as f:
            text = f.read(20 * cfg.max_tokens)  # enough for max_tokens tokens of any usual text
    except (OSError, UnicodeError) as e:
        raise BadInput(f"cannot read {cfg.text} as UTF-8 text: {e}")
    before = [] if start_of(enc) else [enc.eot_token]  # the first token of the text needs one before it
    ids = [*before, *prompt_ids(enc, text)][:cfg.max_tokens]
    if not text or len(ids) < 2:
        raise BadInput(f"{cfg.text} is empty: give a text of one token or more")
    return ids


@torch.no_grad()
def text_losses(model, ids, T, ranks):
    """Loss of each token of the text but the first, (len(ids) - 1,). The text is cut in rows of T targets, so
    that all models see a token in the same context."""
    losses = []
    ids = ranks.to_device(torch.tensor(ids))
    for first in range(0, len(ids) - 1, T):
        row = ids[None, first:first + T + 1]                                          # (1, up to T + 1)
        with ranks.autocast():
            losses.append(fast_loss.token_losses(model(row[:, :-1]), model.output_weight, row[:, 1:])[0])
    return torch.cat(losses).float().cpu().numpy()


# --------------------------------------------------------------------------------------------------- panels

def colour_of_excess(excess):
    """(r, g, b) of an excess loss in nats: white at 0, red above, blue below, full at 3."""
    x = float(np.clip(excess / 3, -1, 1))
    return (1.0, 1 - 0.65 * x, 1 - 0.7 * x) if x > 0 else (1 + 0.6 * x, 1 + 0.4 * x, 1.0)


def excess_panels(paths, pieces, losses, ref_loss, keep):
    """A panel for each checkpoint, by excess loss. losses: (n_checkpoints, n_tokens), ref_loss:
    (n_tokens,)."""
    panels = []
    for path, loss in zip(paths, losses):
        excess = loss - ref_loss
        title = "/".join(os.path.normpath(path).split(os.sep)[-2:])
        panels.append(Panel(title, pieces, [colour_of_excess(e) for e in excess], top(excess, keep)))
    return panels


def category_panel(paths, pieces, losses):
    """One panel for all checkpoints, by the paper's categories. losses: (n_checkpoints, n_tokens)."""
    first, last = os.path.basename(paths[0]), os.path.basename(paths[-1])
    colours = [CATEGORY_COLOURS[CATEGORIES[number]] for number in categories(losses)]
    none_selected = np.zeros(len(pieces), dtype=bool)
    return Panel(f"{len(paths)} checkpoints, {first} to {last}", pieces, colours, none_selected)


def legend(by, keep):
    """({what a colour means: the colour}, what an underline means or '')."""
    if by == "category":
        return {CATEGORY_NAMES[name]: CATEGORY_COLOURS[name] for name in CATEGORIES}, ""
    meanings = {"loss above the reference model's": colour_of_excess(3), "below it": colour_of_excess(-3)}
    return meanings, f"underlined: selected, the {keep:.0%} furthest above"


# ------------------------------------------------------------------------------------- terminal and picture

def ansi_code(colour, selected=False):
    """The escape code of black text on a colour, bold and underlined if selected."""
    r, g, b = (round(255 * v) for v in colour)
    return f"\033[{'1;4;' if selected else ''}38;2;0;0;0;48;2;{r};{g};{b}m"


def ansi(panel):
    """A panel as text for a terminal."""
    text = ""
    for piece, colour, selected in zip(panel.pieces, panel.colours, panel.selected):
        code = ansi_code(colour, selected)
        text += "\n".join(f"{code}{part}\033[0m" if part else "" for part in piece.split("\n"))
    return text


def lay_out(panel):
    """([Cell], number of rows): a panel on lines of WIDTH characters; a token that does not fit begins the
    next line."""
    row, column, cells = 0, 0, []
    for piece, colour, selected in zip(panel.pieces, panel.colours, panel.selected):
        for n, part in enumerate(piece.split("\n")):
            if n:
                row, column = row + 1, 0
            if column + len(part) > WIDTH:
                row, column, part = row + 1, 0, part.lstrip(" ")
            if part:
                cells.append(Cell(row, column, part, colour, selected))
                column += len(part)
    return cells, row + 1


def draw(panels, meanings, underline, path):
    """The panels as a PNG, with a legend above them."""
    plt = pyplot()
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle
    laid_out = [lay_out(panel) for panel in panels]
    heights = [n_rows for _, n_rows in laid_out]
    size = (0.085 * WIDTH, 0.19 * sum(heights) + 0.45 * len(panels) + 0.5)
    fig, axes = plt.subplots(len(panels), 1, figsize=size, squeeze=False, height_ratios=heights)
    for ax, panel, (cells, n_rows) in zip(axes[:, 0], panels, laid_out):
        for cell in cells:
            ax.add_patch(Rectangle((cell.column, cell.row), len(cell.text), 0.95, color=cell.colour, lw=0))
            if cell.selected:
                ends = [cell.column + 0.1, cell.column + len(cell.text) - 0.1]
                ax.plot(ends, [cell.row + 0.93] * 2, color="black", lw=1.3)
            for i, character in enumerate(cell.text):            # one by one: no font is as wide as the grid
                ax.text(cell.column + i + 0.5, cell.row + 0.5, character, ha="center", va="center",
                        family="monospace", fontsize=7.5, weight="bold" if cell.selected else "normal",
                        parse_math=False)
        ax.set(xlim=(0, WIDTH), ylim=(n_rows, 0))
        ax.set_title(panel.title, fontsize=9, loc="left")
        ax.axis("off")
    handles = [Patch(color=colour, label=meaning) for meaning, colour in meanings.items()]
    if underline:
        handles.append(Line2D([], [], color="black", lw=1.3, label=underline))
    fig.legend(handles=handles, loc="outside upper center", ncol=len(handles), fontsize=9, frameon=False)
    save_figure(fig, path)


def main(cfg):
    ranks = Ranks(cfg.device)
    enc, paths = load_tokenizer(cfg.data), (cfg.ref, *cfg.ckpt)
    tokens = Tokens(cfg.data, "noisy", 1)  # read as a flat file: its rows do not matter here
    T = min(load_checkpoint(path)["model_config"]["block_size"] for path in paths)
    ids = read_text(cfg, tokens, enc)
    losses = []
    for path in paths:
        model, _ = load_model(path, tokens.tokenizer_sha256, cfg.data, ranks.device)
        must_have_row(model, path, max(ids), enc.n_vocab, cfg.text or f"{tokens.path}.bin")
        losses.append(text_losses(model, ids, T, ranks))
    ref_loss, losses = losses[0], np.stack(losses[1:])  # (n_tokens,), (n_checkpoints, n_tokens)
    pieces = [enc.decode([i]) for i in ids[1:]]
    if cfg.by == "category":
        panels = [category_panel(cfg.ckpt, pieces, losses)]
    else:
        panels = excess_panels(cfg.ckpt, pieces, losses, ref_loss, cfg.keep)
    meanings, underline = legend(cfg.by, cfg.keep)
    in_words = [f"{ansi_code(colour)} {meaning} \033[0m" for meaning, colour in meanings.items()]
    for panel in panels:
        print(f"--- {panel.title}   {'  '.join([*in_words, underline])}\n{ansi(panel)}")
    if cfg.out:
        draw(panels, meanings, underline, cfg.out)
        plural = "s" if len(panels) > 1 else ""
        print(f"{cfg.out}: {len(pieces)} tokens, {len(panels)} panel{plural}; context of {T} tokens")


if __name__ == "__main__":
    run(main, Config, __doc__)
