"""
Step 2: the reference model's loss of every token of a corpus, from one forward pass over each row.

    python score.py --ckpt out/ref/ckpt.pt --data data/demo --out out/scores
    python score.py --ckpt out/ref/ckpt.pt --data data/demo --out out/scores_entropy --entropy

Several GPUs: torchrun --nproc_per_node 4 -- in the place of python. Losses that another program has computed:
controls/logprobs.py. Other scores made of these: controls/rescore.py.

Writes OUT/loss.bin, float16, one number per target: number r*T + t is L_ref of the t-th target of row r,

    L_ref(x_i) = -log P_ref(x_i | x_<i)

with the context that train_slm.py will give the token (rows of the same T). --entropy adds OUT/entropy.bin,
the entropy of the model's prediction, which the paper's self-reference needs. scores.json names what the
scores were made from. Run the same command again to go on where it stopped.

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
    entropy: bool = False           # also write the entropy of each prediction
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if self.batch_rows < 1:
            yield f"batch_rows must be at least 1, not {self.batch_rows}"
        if self.block_size < 0:
            yield f"block_size must not be negative, but is {self.block_size}"


@torch.no_grad()
def score_rows(model, x, y, entropy=False):
    """L_ref of each target, and the entropy of each prediction if asked for: [loss] or [loss, entropy], each
    (B, T) float32. x, y: (B, T)."""
    hidden = model(x)                                                              # (B, T, C)
    # The losses are those of model.token_loss, computed without holding all logits at once.
    loss = fast_loss.token_losses(hidden, model.output_weight, y)                  # (B, T)
    if not entropy:
        return [loss]
    entropies = []
    for row in hidden:  # one at a time: the logits of all rows are large
        log_p = torch.log_softmax(model.logits(row).float(), dim=-1)               # (T, V)
        entropies.append(-(log_p.exp() * log_p).sum(dim=-1))                       # (T,)
    return [loss, torch.stack(entropies)]                                          # (B, T) each


def open_files(cfg, tokens, names, ranks):
    """The files NAME.bin of these names, open to go on, and how many rows are there already. Only the main
    process opens files, the others get none. Raises BadInput where the folder holds other scores.

    What files of an interrupted run have beyond a whole number of batches is cut off, so that with the same
    --batch_rows and processes the same rows go through the model together again.
    """
    made_from = {"ckpt_sha256": file_hash(cfg.ckpt)}
    about, sidecar = about_scores(tokens, cfg.corpus, names, made_from), os.path.join(cfg.out, "scores.json")
    paths = [os.path.join(cfg.out, f"{name}.bin") for name in names]
    if os.path.exists(sidecar) and read_json(sidecar) != about:
        raise BadInput(f"{cfg.out} holds scores of another corpus, checkpoint, block_size or --entropy: "
                       f"choose another --out, or delete the folder")
    bytes_of_row, rows_done = 2 * tokens.T, 0
    if os.path.exists(sidecar):
        sizes = [os.path.getsize(path) if os.path.exists(path) else 0 for path in paths]
        rows_done = min(tokens.n_rows, min(sizes) // bytes_of_row)
    if rows_done < tokens.n_rows:
        rows_done -= rows_done % (cfg.batch_rows * ranks.world)
    ranks.barrier()  # no process writes before all have seen how far the files are
    if not ranks.main:
        return [], rows_done
    os.makedirs(cfg.out, exist_ok=True)
    write_json(sidecar, about)
    files = [open(path, "r+b" if os.path.exists(path) else "w+b") for path in paths]
    for f in files:
        f.truncate(rows_done * bytes_of_row)
        f.seek(rows_done * bytes_of_row)
    return files, rows_done


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

    names = ["loss", "entropy"] if cfg.entropy else ["loss"]
    files, done = open_files(cfg, tokens, names, ranks)
    progress = Progress("scores", tokens.n_rows * T, "tokens", done * T)
    while done < tokens.n_rows:
        # Each process scores a part of the next rows. The main one writes the scores of all in order, so
        # that the files do not depend on the number of processes.
        rows = ranks.rows(done, tokens.n_rows, cfg.batch_rows)
        x, y = map(ranks.to_device, tokens.rows(rows))                             # (B, T) each
        with ranks.autocast():
            results = score_rows(model, x, y, cfg.entropy)
        # (rows of all processes, T); at the end of the file some have its last row again, which is cut off.
        results = [ranks.gather(values)[:tokens.n_rows - done] for values in results]
        for name, values in zip(names, results):
            if not values.isfinite().all():
                raise BadInput(f"the {name} of {cfg.ckpt} is not finite from row {done:,} on: take another "
                               f"reference model, or train it again at a lower --lr")
        for f, values in zip(files, results):
            f.write(values.half().cpu().numpy().tobytes())
        done += len(results[0])
        progress.show(done * T)
    for f in files:
        f.close()
    progress.close()
    if ranks.main:
        report_scores(cfg.out, tokens)


if __name__ == "__main__":
    launch(main, Config, __doc__)
