"""
Step 2: the reference model's loss of every token of a corpus, from one forward pass over each row.

    python score.py --ckpt out/ref/best.pt --data data/demo --out out/scores
    python score.py --ckpt out/ref/best.pt --data data/demo --out out/scores_entropy --entropy
    python score.py --from_logprobs api.jsonl --block_size 192 --data data/demo --out out/scores_api

--ckpt takes published weights too: gpt2, smollm2-135m, ... or a folder of Hugging Face's.
--from_logprobs takes log-probabilities that another program has computed (extras/logprobs.py). Several GPUs:
torchrun in the place of python.

Writes OUT/loss.bin, float16, one number per target: number r*T + t is L_ref of the t-th target of row r,

    L_ref(x_i) = -log P_ref(x_i | x_<i)

with the context that train_slm.py will give the token (rows of the same T). --entropy adds OUT/entropy.bin,
the entropy of the model's prediction, which the paper's self-reference needs. scores.json names what the
scores were made from and how far they are: run the same command again to go on where it stopped.

Where the corpus has true labels, the mean loss of each is printed. Look at `solution` and `result`: where
they are high, the reference model does not know the solutions in noisy context, and a selection by it is
useless.
"""
import os
import time
from dataclasses import dataclass

import numpy as np
import torch

from common import load_checkpoint, model_of
from corpora.vocabulary import must_have_rows
from data import Tokens
from engine import fast_loss
from engine.cli import BadInput, Progress, run
from engine.files import read_json, write_json
from engine.ranks import Ranks
from extras import logprobs
from extras.pretrained import weights_hash


@dataclass
class Config:
    ckpt: str = "out/ref/best.pt"   # the reference model
    data: str = "data/demo"         # corpus folder
    corpus: str = "noisy"           # which of its token files to score
    out: str = "out/scores"         # folder to write
    block_size: int = 0             # row length T; train_slm.py must use the same (0: the model's)
    batch_rows: int = 64            # rows per forward pass
    entropy: bool = False           # also write the entropy of each prediction
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps
    write_texts: str = ""           # no scores: write the rows' texts to this .jsonl, for another program
    from_logprobs: str = ""         # no checkpoint: the log-probabilities in this .jsonl

    def validate(self):
        if self.batch_rows < 1:
            yield f"batch_rows must be at least 1, not {self.batch_rows}"
        if self.block_size < 0:
            yield f"block_size must not be negative, but is {self.block_size}"
        if (self.from_logprobs or self.write_texts) and not self.block_size:
            yield "from_logprobs and write_texts need --block_size, that of the training run"
        if self.from_logprobs and self.write_texts:
            yield "write_texts comes first, from_logprobs when the other program has answered: give one"
        if self.entropy and (self.from_logprobs or self.write_texts):
            yield "entropy needs a --ckpt, not from_logprobs or write_texts"


@torch.no_grad()
def score_rows(model, x, y, entropy=False):
    """L_ref of each target, and the entropy of each prediction if asked for: [loss] or [loss, entropy], (B,
    T) float32.

    x, y: (B, T). The model must be in eval mode: with dropout on, the scores would be noise.
    """
    hidden = model(x)                                                              # (B, T, C)
    loss = fast_loss.token_losses(hidden, model.output_weight, y)                  # (B, T)
    if not entropy:
        return [loss]
    entropies = []
    for row in hidden:  # one at a time: the logits of all rows are large
        log_p = torch.log_softmax(model.logits(row).float(), dim=-1)               # (T, V)
        entropies.append(-(log_p.exp() * log_p).sum(dim=-1))                       # (T,)
    return [loss, torch.stack(entropies)]                                          # (B, T) each


def main(cfg):
    if cfg.write_texts or cfg.from_logprobs:  # another program's model
        tokens = Tokens(cfg.data, cfg.corpus, cfg.block_size)
        if cfg.write_texts:
            return logprobs.write_texts(cfg.write_texts, tokens, cfg.data)
        return report(cfg.out, tokens, logprobs.make_scores(cfg, tokens))
    ranks = Ranks(cfg.device)
    checkpoint = load_checkpoint(cfg.ckpt)
    model_T = checkpoint["model_config"]["block_size"]
    T = cfg.block_size or model_T
    if T > model_T:
        raise BadInput(f"block_size {T} is more than the {model_T} of the model in {cfg.ckpt}")
    tokens = Tokens(cfg.data, cfg.corpus, T)
    model = model_of(checkpoint, cfg.ckpt, tokens.tokenizer_sha256, f"{tokens.path}.bin")
    must_have_rows(model, cfg.ckpt, tokens)
    model = model.to(ranks.device).eval()  # dropout is off

    names = ["loss", "entropy"] if cfg.entropy else ["loss"]
    files = ScoreFiles(cfg, tokens, names, weights_hash(cfg.ckpt), ranks)
    progress = Progress("scores", tokens.n_rows * T, "tokens", files.rows_done * T)
    while files.rows_done < tokens.n_rows:
        # Each process scores a part of the next rows. The main one writes the scores of all in order, so
        # that the files do not depend on the number of processes.
        rows = ranks.rows(files.rows_done, tokens.n_rows, cfg.batch_rows)
        x, y = map(ranks.to_device, tokens.rows(rows))                             # (B, T) each
        with ranks.autocast():
            results = score_rows(model, x, y, cfg.entropy)
        files.append([ranks.gather(values)[:tokens.n_rows - files.rows_done] for values in results])
        progress.show(files.rows_done * T)
    files.close()
    progress.close()
    if ranks.main:
        report(cfg.out, tokens, files.state["seconds"])


class ScoreFiles:
    """loss.bin and entropy.bin, appended row by row, and scores.json, which says what they are of and how
    far they are.

    What a killed process had written beyond scores.json is cut off. Raises BadInput where the folder holds
    other scores.
    """

    def __init__(self, cfg, tokens, names, ckpt_sha256, ranks):
        origin = {"corpus": cfg.corpus, "corpus_sha256": tokens.sha256, "ckpt_sha256": ckpt_sha256,
                  "block_size": tokens.T, "tokenizer_sha256": tokens.tokenizer_sha256, "files": names,
                  "n_rows": tokens.n_rows}
        self.ckpt, self.names, self.main, self.files = cfg.ckpt, names, ranks.main, {}
        os.makedirs(cfg.out, exist_ok=True)
        self.sidecar = os.path.join(cfg.out, "scores.json")
        self.state = {**origin, "rows_done": 0, "seconds": 0.0}
        if os.path.exists(self.sidecar):
            self.state = read_json(self.sidecar)
        if any(self.state.get(k) != v for k, v in origin.items()):
            raise BadInput(f"{cfg.out} holds scores of another corpus, checkpoint, block_size or --entropy: "
                           f"choose another --out, or delete the folder")
        self.rows_done, self.saved = self.state["rows_done"], time.time()
        size = self.rows_done * tokens.T * 2  # bytes
        for name in names if self.main else []:
            path = os.path.join(cfg.out, f"{name}.bin")
            f = self.files[name] = open(path, "r+b" if os.path.exists(path) else "w+b")
            if f.seek(0, os.SEEK_END) < size:
                raise BadInput(f"{path} is shorter than {self.sidecar} says: delete {cfg.out}, score again")
            f.truncate(size)
            f.seek(size)

    def append(self, results):
        """The next rows of each file, (rows, T) each; every 5 seconds make sure that they are on disk."""
        if self.main:
            for name, values in zip(self.names, results):
                if not values.isfinite().all():
                    raise BadInput(f"the {name} of {self.ckpt} is not finite from row {self.rows_done:,} on: "
                                   f"take another reference model, or train it again at a lower --lr")
                self.files[name].write(values.half().cpu().numpy().tobytes())
        self.rows_done += len(results[0])
        if self.main and (time.time() - self.saved > 5 or self.rows_done == self.state["n_rows"]):
            for f in self.files.values():
                f.flush()
                os.fsync(f.fileno())
            seconds = self.state["seconds"] + time.time() - self.saved
            self.state.update(rows_done=self.rows_done, seconds=seconds)
            self.saved = time.time()
            write_json(self.sidecar, self.state)

    def close(self):
        for f in self.files.values():
            f.close()


def report(folder, tokens, seconds):
    """Print the mean reference loss, and that of each true label (of tokens whose loss is known)."""
    losses = np.memmap(os.path.join(folder, "loss.bin"), dtype=np.float16, mode="r")
    known = np.isfinite(losses)
    mean = losses.mean(dtype=np.float64, where=known)
    print(f"{folder}: {losses.size:,} tokens of {tokens.path}.bin, mean reference loss {mean:.3f}, "
          f"{seconds:.0f} s")
    if not known.all():
        print(f"  the loss of {losses.size - known.sum():,} is not known")
    if tokens.labels is None:
        return
    labels = tokens.labels[1:losses.size + 1]  # of the targets
    for label, name in enumerate(tokens.label_names):
        of_label = losses[(labels == label) & known].astype(np.float64)
        if of_label.size:
            share = of_label.size / losses.size
            print(f"  {name:<10} {share:6.1%} of the tokens, mean reference loss {of_label.mean():.3f}")


if __name__ == "__main__":
    run(main, Config, __doc__)
