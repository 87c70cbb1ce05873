"""
Step 2: the reference model's loss of every token of a corpus, from one forward pass over each row.

    python score.py --ckpt out/ref/ckpt.pt --data data/demo --out out/scores

Several GPUs: torchrun --nproc_per_node 4 -- in the place of python. Losses that another program has computed:
controls/logprobs.py. Other scores made of these: controls/rescore.py.

Writes OUT/loss.bin, float16, one number per target: number r*T + t is L_ref of the t-th target of row r,

    L_ref(x_i) = -log P_ref(x_i | x_<i)

with the context that train_slm.py will give the token (rows of the same T). scores.json names what the scores
were made from. Run the same command again to go on where it stopped.

Where the corpus has true labels, the mean loss of each is printed. Look at `solution` and `result`: where
they are high, the reference model does not know the solutions in noisy context, and a selection by it is
useless.
"""
import os
from dataclasses import dataclass

import torch

from data import Tokens, about_scores, report_scores
from engine import fast_loss
from engine.checkpoints import load_checkpoint, model_of
from engine.cli import BadInput, Progress, launch
from engine.files import file_hash, read_json, write_json
from engine.ranks import Ranks


@dataclass
class Config:
    ckpt: str = "out/ref/ckpt.pt"   # the reference model
    data: str = "data/demo"         # corpus folder
    corpus: str = "noisy"           # which of its token files to score
    out: str = "out/scores"         # folder to write
    block_size: int = 0             # row length T; train_slm.py must use the same (0: the model's)
    batch_rows: int = 64            # rows per forward pass
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if self.batch_rows < 1:
            yield f"batch_rows must be at least 1, not {self.batch_rows}"
        if self.block_size < 0:
            yield f"block_size must not be negative, but is {self.block_size}"


@torch.no_grad()
def score_rows(model, x, y):
    """L_ref of each target, (B, T) float32. x, y: (B, T)."""
    hidden = model(x)                                                              # (B, T, C)
    # The losses are those of model.token_loss, computed without holding all logits at once.
    return fast_loss.token_losses(hidden, model.output_weight, y)                  # (B, T)


def open_file(cfg, tokens, ranks):
    """The file loss.bin, open to go on, and how many rows are there already. Only the main process opens it,
    the others get None. Raises BadInput where the folder holds other scores.

    What an interrupted run has written beyond a whole number of batches is cut off, so that with the same
    --batch_rows and processes the same rows go through the model together again.
    """
    about = about_scores(tokens, cfg.corpus, {"ckpt_sha256": file_hash(cfg.ckpt)})
    path, sidecar = (os.path.join(cfg.out, name) for name in ("loss.bin", "scores.json"))
    if os.path.exists(sidecar) and read_json(sidecar) != about:
        raise BadInput(f"{cfg.out} holds scores of another corpus, checkpoint or block_size: choose another "
                       f"--out, or delete the folder")
    bytes_of_row, rows_done = 2 * tokens.T, 0
    if os.path.exists(sidecar) and os.path.exists(path):
        rows_done = min(tokens.n_rows, os.path.getsize(path) // bytes_of_row)
    if rows_done < tokens.n_rows:
        rows_done -= rows_done % (cfg.batch_rows * ranks.world)
    ranks.barrier()  # no process writes before all have seen how far the files are
    if not ranks.main:
        return None, rows_done
    os.makedirs(cfg.out, exist_ok=True)
    write_json(sidecar, about)
    f = open(path, "r+b" if os.path.exists(path) else "w+b")
    f.truncate(rows_done * bytes_of_row)
    f.seek(rows_done * bytes_of_row)
    return f, rows_done


def main(cfg):
    ranks = Ranks(cfg.device)
    checkpoint = load_checkpoint(cfg.ckpt)
    model_T = checkpoint["model_config"]["block_size"]
    T = cfg.block_size or model_T
    if T > model_T:
        raise BadInput(f"block_size {T} is more than the {model_T} of the model in {cfg.ckpt}")
    tokens = Tokens(cfg.data, cfg.corpus, T)
    model = model_of(checkpoint, cfg.ckpt, tokens.tokenizer_sha256, f"{tokens.path}.bin", tokens)
    model = model.to(ranks.device).eval()

    f, done = open_file(cfg, tokens, ranks)
    progress = Progress("scores", tokens.n_rows * T, "tokens", done * T)
    while done < tokens.n_rows:
        # Each process scores a part of the next rows. The main one writes the scores of all in order, so
        # that the file does not depend on the number of processes.
        rows = ranks.rows(done, tokens.n_rows, cfg.batch_rows)
        x, y = map(ranks.to_device, tokens.rows(rows))                             # (B, T) each
        with ranks.autocast():
            loss = score_rows(model, x, y)
        # (rows of all processes, T); at the end of the file some have its last row again, which is cut off.
        loss = ranks.gather(loss)[:tokens.n_rows - done]
        if not loss.isfinite().all():
            raise BadInput(f"the loss of {cfg.ckpt} is not finite from row {done:,} on: take another "
                           f"reference model, or train it again at a lower --lr")
        if ranks.main:
            f.write(loss.half().cpu().numpy().tobytes())
        done += len(loss)
        progress.show(done * T)
    progress.close()
    if ranks.main:
        f.close()
        report_scores(cfg.out, tokens)


if __name__ == "__main__":
    launch(main, Config, __doc__)
