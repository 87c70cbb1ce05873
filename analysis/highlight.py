"""
A text with the excess loss of each token as its colour and the selected tokens underlined.

    python -m analysis.highlight --data data/demo/seed0 --ref out/demo/seed0/ref/best.pt --out text.png \\
        --ckpt out/demo/seed0/slm/step_000000.pt out/demo/seed0/slm/step_003900.pt

Figures 10 to 14 of the paper, as a PNG with --out, and else in the terminal. A panel for each checkpoint.
Red: the model's loss is above the reference model's, there is something to learn; blue: it is below. Selected
are the top `keep` of this text's tokens; in training they are ranked among all of a forward pass.
"""
import os
from dataclasses import dataclass, field

import numpy as np
import torch

from analysis.categories import top
from analysis.report import pyplot, save_figure
from corpora.tokenizers import load_tokenizer
from data import Tokens
from engine import fast_loss
from engine.checkpoints import load_checkpoint, load_model, must_have_row
from engine.cli import BadInput, launch
from engine.files import TEXT
from engine.generation import prompt_ids
from engine.ranks import Ranks

WIDTH = 110  # of a picture, in characters


@dataclass
class Config:
    data: str = "data/demo"         # corpus folder: its tokenizer, and without --text its noisy side
    ref: str = "out/ref/best.pt"    # the reference model
    ckpt: list[str] = field(default_factory=lambda: ["out/slm/ckpt.pt"])  # a panel for each
    text: str = ""                  # a text file
    keep: float = 0.3               # share of the tokens that is selected
    max_tokens: int = 400           # of the text
    out: str = ""                   # a .png to write (none: the terminal)
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not 0 < self.keep < 1:
            yield f"keep must lie between 0 and 1, not {self.keep}"
        if self.max_tokens < 2:
            yield f"max_tokens must be at least 2, not {self.max_tokens}"


def read_text(cfg, tokens, enc):
    """The ids of the text to show, at most cfg.max_tokens. Raises BadInput."""
    if not cfg.text:
        return tokens.tokens[:cfg.max_tokens].tolist()
    try:
        with open(cfg.text, encoding=TEXT) as f:
            text = f.read(20 * cfg.max_tokens)  # enough for max_tokens tokens of any usual text
    except (OSError, UnicodeError) as e:
        raise BadInput(f"cannot read {cfg.text} as UTF-8 text: {e}")
    before = [] if enc.start else [enc.eot_token]  # the first token of the text needs one before it
    ids = [*before, *prompt_ids(enc, text)][:cfg.max_tokens]
    if not text or len(ids) < 2:
        raise BadInput(f"{cfg.text} is empty: give a text of one token or more")
    return ids


@torch.no_grad()
def text_losses(model, ids, T, ranks):
    """Loss of each token of the text but the first, (len(ids) - 1,), in rows of T targets."""
    losses, ids = [], ranks.to_device(torch.tensor(ids))
    for first in range(0, len(ids) - 1, T):
        row = ids[None, first:first + T + 1]                                          # (1, up to T + 1)
        with ranks.autocast():
            losses.append(fast_loss.token_losses(model(row[:, :-1]), model.output_weight, row[:, 1:])[0])
    return torch.cat(losses).float().cpu().numpy()


# pieces: what each token says. excess: their excess losses, (n_tokens,). selected: (n_tokens,) bool.
def colour_of(excess):
    """(r, g, b) of an excess loss in nats: white at 0, red above, blue below, full at 3."""
    x = float(np.clip(excess / 3, -1, 1))
    return (1.0, 1 - 0.65 * x, 1 - 0.7 * x) if x > 0 else (1 + 0.6 * x, 1 + 0.4 * x, 1.0)


def ansi(pieces, excess, selected):
    """The text with escape codes: black on the colour of its excess; bold and underlined where selected."""
    text = ""
    for piece, e, is_selected in zip(pieces, excess, selected):
        r, g, b = (round(255 * v) for v in colour_of(e))
        code = f"\033[{'1;4;' if is_selected else ''}38;2;0;0;0;48;2;{r};{g};{b}m"
        text += "\n".join(f"{code}{part}\033[0m" if part else "" for part in piece.split("\n"))
    return text


def lay_out(pieces):
    """([(token number, row, column, its text there)], number of rows), on lines of WIDTH characters."""
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


def draw(pieces, panels, legend, path):
    """The panels, [(title, excess, selected)], as a PNG with the legend above them."""
    plt = pyplot()
    places, n_rows = lay_out(pieces)
    size = (0.085 * WIDTH, (0.19 * n_rows + 0.45) * len(panels) + 0.5)
    fig, axes = plt.subplots(len(panels), 1, figsize=size, squeeze=False)
    for ax, (title, excess, selected) in zip(axes[:, 0], panels):
        for number, row, column, text in places:
            ax.add_patch(plt.Rectangle((column, row), len(text), 0.95, color=colour_of(excess[number]), lw=0))
            if selected[number]:
                ax.plot([column + 0.1, column + len(text) - 0.1], [row + 0.93] * 2, color="black", lw=1.3)
            weight = "bold" if selected[number] else "normal"
            for i, character in enumerate(text):            # one by one: no font is as wide as the grid
                ax.text(column + i + 0.5, row + 0.5, character, ha="center", va="center", fontsize=7.5,
                        family="monospace", weight=weight, parse_math=False)
        ax.set(xlim=(0, WIDTH), ylim=(n_rows, 0))
        ax.set_title(title, fontsize=9, loc="left")
        ax.axis("off")
    fig.suptitle(legend, fontsize=9)
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
    pieces, panels = [enc.decode([i]) for i in ids[1:]], []
    for path, loss in zip(cfg.ckpt, losses[1:]):
        excess = loss - losses[0]                                                     # (n_tokens,)
        title = "/".join(os.path.normpath(path).split(os.sep)[-2:])
        panels.append((title, excess, top(excess, cfg.keep)))
    legend = f"red: loss above the reference's; blue: below; underlined: the {cfg.keep:.0%} furthest above"
    if cfg.out:
        draw(pieces, panels, legend, cfg.out)
        print(f"{cfg.out}: {len(pieces)} tokens in a context of {T}, {len(panels)} checkpoints")
    else:
        print(legend)
        for title, excess, selected in panels:
            print(f"--- {title}\n{ansi(pieces, excess, selected)}")


if __name__ == "__main__":
    launch(main, Config, __doc__)
