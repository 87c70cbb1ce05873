"""
A text with the excess loss of each token as its colour and the kept tokens underlined, in the terminal and as a picture.

    python highlight.py --data data/demo/seed0 --ref out/demo/seed0/ref/best.pt --ckpt out/demo/seed0/slm/step_000000.pt \
        out/demo/seed0/slm/step_002600.pt --out highlight.png
    python highlight.py ... --text notes.txt          # any text
    python highlight.py ... --by category             # the paper's four categories, from the losses at these checkpoints

Figures 10 to 14 of the paper. One picture for each checkpoint, in the order given. Red: the model's loss is above the
reference model's, there is something to learn; blue: below. Kept are the top `keep` of this text's tokens, which is not
quite what training keeps, where the whole step is ranked. Without --text: the first lines of the corpus's noisy side.
"""
import dataclasses
import os
from dataclasses import dataclass

import numpy as np
import torch

from common import BadInput, Ranks, load_checkpoint, replacing, run
from data import Tokens, load_tokenizer
from dynamics import CATEGORIES, categories, load_model, top
from score import score_rows

CATEGORY_COLOURS = ((0.45, 0.65, 1.0), (1.0, 0.45, 0.4), (0.65, 0.9, 0.6), (1.0, 0.85, 0.3))  # blue, red, green, yellow


@dataclass
class Config:
    data: str = "data/demo"         # corpus folder: its tokenizer, and without --text its noisy side
    ref: str = "out/ref/best.pt"    # the reference model
    ckpt: list[str] = dataclasses.field(default_factory=lambda: ["out/slm/ckpt.pt"])  # one picture for each of these
    text: str = ""                  # a text file
    by: str = "excess"              # what colours mean: excess (loss), or category (needs three checkpoints, in order)
    keep: float = 0.3               # share of the tokens that is kept
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
            yield f"--by category fits a line to the losses at three or more checkpoints, not {len(self.ckpt)}"


def text_losses(path, ids, tokenizer_sha256, device):
    """Loss of each token of the text but the first, (len(ids) - 1,); the context is cut where the model's is full, as in
    a row of a corpus."""
    model = load_model(path, tokenizer_sha256, device)
    T = model.config.block_size
    ids = torch.tensor(ids, device=device)
    pieces = [score_rows(model, ids[None, a:min(a + T, len(ids) - 1)], ids[None, a + 1:a + T + 1])[0][0]
              for a in range(0, len(ids) - 1, T)]
    return torch.cat(pieces).float().cpu().numpy()


def colour_of_excess(excess):
    """(r, g, b) of an excess loss in nats: white at 0, red above, blue below, full at 3."""
    x = float(np.clip(excess / 3, -1, 1))
    return (1.0, 1 - 0.65 * x, 1 - 0.7 * x) if x > 0 else (1 + 0.6 * x, 1 + 0.4 * x, 1.0)


def ansi(pieces, colours, kept):
    """The text for a terminal: black on the colour, kept tokens bold and underlined."""
    lines = []
    for piece, (r, g, b), k in zip(pieces, colours, kept):
        code = f"\033[{'1;4;' if k else ''}38;2;0;0;0;48;2;{round(255 * r)};{round(255 * g)};{round(255 * b)}m"
        lines.append("\n".join(f"{code}{part}\033[0m" if part else "" for part in piece.split("\n")))
    return "".join(lines)


def draw(panels, path, title, width=110):
    """The same as a picture. panels: [(title, pieces, colours, kept)]."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle
    laid_out = []
    for name, pieces, colours, kept in panels:
        row, column, cells = 0, 0, []                       # a cell is a part of a token on one line
        for piece, colour, k in zip(pieces, colours, kept):
            for n, part in enumerate(piece.split("\n")):
                if n:
                    row, column = row + 1, 0
                if column + len(part) > width:
                    row, column, part = row + 1, 0, part.lstrip(" ")
                if part:
                    cells.append((row, column, part, colour, k))
                    column += len(part)
        laid_out.append((name, cells, row + 1))
    rows = sum(n for _, _, n in laid_out)
    fig, axes = plt.subplots(len(panels), 1, figsize=(0.085 * width, 0.19 * rows + 0.45 * len(panels) + 0.5), squeeze=False,
                             gridspec_kw={"height_ratios": [n for _, _, n in laid_out]})
    for ax, (name, cells, n_rows) in zip(axes[:, 0], laid_out):
        for row, column, part, colour, k in cells:
            ax.add_patch(Rectangle((column, row), len(part), 0.95, color=colour, lw=0))
            if k:
                ax.plot([column + 0.1, column + len(part) - 0.1], [row + 0.93] * 2, color="black", lw=1.3)
            for i, character in enumerate(part):            # one by one: no font is as wide as the grid
                ax.text(column + i + 0.5, row + 0.5, character, ha="center", va="center", family="monospace", fontsize=7.5,
                        weight="bold" if k else "normal", parse_math=False)
        ax.set(xlim=(0, width), ylim=(n_rows, 0))
        ax.set_title(name, fontsize=9, loc="left")
        ax.axis("off")
    fig.suptitle(title, fontsize=10)
    fig.tight_layout()
    with replacing(path, "wb") as f:
        fig.savefig(f, format="png", dpi=110)


def main(cfg):
    device = Ranks(cfg.device).device
    enc, T = load_tokenizer(cfg.data), load_checkpoint(cfg.ref)["model_config"]["block_size"]
    tokens = Tokens(cfg.data, "noisy", 1)
    if cfg.text:
        try:
            with open(cfg.text, encoding="utf-8") as f:
                ids = [enc.eot_token, *enc.encode_ordinary(f.read(20 * cfg.max_tokens))]
        except (OSError, UnicodeError) as e:
            raise BadInput(f"cannot read {cfg.text} as UTF-8 text: {e}")
    else:
        ids = tokens.tokens[:cfg.max_tokens].tolist()
    ids = ids[:cfg.max_tokens]
    if len(ids) < 2:
        raise BadInput(f"{cfg.text} is empty: give a text of two tokens or more")
    ref = text_losses(cfg.ref, ids, tokens.tokenizer_sha256, device)
    losses = np.stack([text_losses(path, ids, tokens.tokenizer_sha256, device) for path in cfg.ckpt])
    pieces = [enc.decode([i]) for i in ids[1:]]
    panels = []
    if cfg.by == "category":
        category = categories(losses)
        panels.append((f"{len(cfg.ckpt)} checkpoints, {os.path.basename(cfg.ckpt[0])} to {os.path.basename(cfg.ckpt[-1])}",
                       pieces, [CATEGORY_COLOURS[c] for c in category], np.zeros(len(pieces), dtype=bool)))
        title = "blue: learned (H->L)   red: forgotten (L->H)   green: known all along (L->L)   yellow: never (H->H)"
        print("".join(f"\033[38;2;0;0;0;48;2;{';'.join(str(round(255 * v)) for v in colour)}m {name} \033[0m "
                      for name, colour in zip(CATEGORIES, CATEGORY_COLOURS)))
    else:
        for path, of_model in zip(cfg.ckpt, losses):
            excess = of_model - ref
            name = os.path.join(*os.path.normpath(path).split(os.sep)[-2:])
            panels.append((name, pieces, [colour_of_excess(e) for e in excess], top(excess, cfg.keep)))
        title = f"excess loss: red above 0, blue below; underlined: the top {cfg.keep:.0%}, which the loss counts"
    for name, *panel in panels:
        print(f"--- {name}\n{ansi(*panel)}")
    if cfg.out:
        draw(panels, cfg.out, title)
        print(f"{cfg.out}: {len(pieces)} tokens, {len(panels)} panel{'s' * (len(panels) > 1)}; context of {T} tokens")


if __name__ == "__main__":
    run(main, Config, __doc__)
