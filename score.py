"""
Step 2: the reference model's loss of every token of a corpus, one forward pass per token.

    python score.py --ckpt out/ref/best.pt --data data/demo --out out/scores
    python score.py --ckpt out/ref/best.pt --data data/demo --out out/scores_entropy --entropy
    python score.py --from_logprobs api.jsonl --block_size 192 --data data/demo --out out/scores_api  # see logprobs.py

    torchrun --nproc_per_node 4 score.py ...

--ckpt takes GPT-2's weights too: gpt2, gpt2-medium, ... or a file or folder of Hugging Face's (gpt2.py).

Writes OUT/loss.bin, float16, one number per target: number r*T + t is L_ref of the t-th target of row r,

    L_ref(x_i) = -log P_RM(x_i | x_<i)

with the context that train_slm.py will give the token (rows of the same T). --entropy adds OUT/entropy.bin, the
entropy of the model's prediction (what the paper's self-reference needs). scores.json names what the scores were made
from and how far they are: run the same command again to go on where it stopped. Where the corpus has true labels, the
mean loss of each is printed. Look at `solution` and `result`: where they are high, the model does not know the
solutions in noisy context, and what it selects is useless.
"""
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

import logprobs
from common import (BadInput, Progress, Ranks, file_hash, load_checkpoint, load_weights, read_json, replacing, run,
                    write_json)
from data import Tokens
from gpt2 import weights_file
from model import GPT, GPTConfig


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
    write_texts: str = ""           # no scores: write the text of each row to this .jsonl, for another program to score
    from_logprobs: str = ""         # no checkpoint: the log-probabilities in this .jsonl (logprobs.py says how it looks)

    def validate(self):
        if self.batch_rows < 1:
            yield f"batch_rows must be at least 1, not {self.batch_rows}"
        if self.block_size < 0:
            yield f"block_size must not be negative, but is {self.block_size}"
        if (self.from_logprobs or self.write_texts) and not self.block_size:
            yield "from_logprobs and write_texts need --block_size, that of the training run"
        if self.from_logprobs and self.entropy:
            yield "from_logprobs has no entropy to write"


@torch.no_grad()
def score_rows(model, x, y, entropy=False):
    """Loss of each target, and entropy of each prediction if asked: (B, T) float32 each, else (losses, None).

    The model must be in eval mode: with dropout on, the scores would be noise.
    """
    hidden = model(x)                                          # (B, T, C)
    losses = model.losses(hidden, y)                           # (B, T)
    if not entropy:
        return losses, None
    logp = (torch.log_softmax(model.logits(row).float(), dim=-1) for row in hidden)  # (T, V) each
    return losses, torch.stack([-(p.exp() * p).sum(dim=-1) for p in logp])


def main(cfg):
    if cfg.write_texts or cfg.from_logprobs:
        return with_texts(cfg)
    ranks = Ranks(cfg.device)
    ckpt = load_checkpoint(cfg.ckpt)
    model = GPT(GPTConfig(**ckpt["model_config"]))
    load_weights(model, ckpt["model"], cfg.ckpt)
    model.to(ranks.device).eval()  # dropout off
    T = cfg.block_size or model.config.block_size
    if T > model.config.block_size:
        raise BadInput(f"block_size {T} is more than the {model.config.block_size} of the model in {cfg.ckpt}")
    tokens = Tokens(cfg.data, cfg.corpus, T)
    if tokens.tokenizer_sha256 != ckpt["tokenizer_sha256"]:
        raise BadInput(f"{cfg.ckpt} was trained with another tokenizer than that of {tokens.path}.bin: "
                       f"score a corpus made with the model's tokenizer")

    # Where the scores come from, and how many rows are done. A file half written by a killed run is cut back to them.
    names = ["loss", "entropy"] if cfg.entropy else ["loss"]
    origin = {"corpus": cfg.corpus, "corpus_sha256": tokens.sha256, "ckpt_sha256": file_hash(weights_file(cfg.ckpt)),
              "block_size": T, "tokenizer_sha256": tokens.tokenizer_sha256, "files": names, "n_rows": tokens.n_rows}
    os.makedirs(cfg.out, exist_ok=True)
    sidecar = os.path.join(cfg.out, "scores.json")
    state = read_json(sidecar) if os.path.exists(sidecar) else {**origin, "rows_done": 0, "seconds": 0.0}
    if any(state.get(k) != v for k, v in origin.items()):
        raise BadInput(f"{cfg.out} holds scores of another corpus, checkpoint, block_size or --entropy: choose another "
                       f"--out, or delete the folder")
    done, files = state["rows_done"], {}
    for name in names if ranks.main else []:
        path = os.path.join(cfg.out, f"{name}.bin")
        files[name] = open(path, "r+b" if os.path.exists(path) else "w+b")
        if files[name].seek(0, os.SEEK_END) < done * T * 2:
            raise BadInput(f"{path} is shorter than {sidecar} says: delete {cfg.out} and score again")
        files[name].truncate(done * T * 2)
        files[name].seek(done * T * 2)

    progress, start, saved = Progress("scores", tokens.n_rows * T, "tokens", done * T), time.time(), time.time()

    def write(results, rows_done):
        """Append the scores of a step; every 5 seconds make sure that they are on disk, and note how far they are."""
        nonlocal start, saved
        for name, values in zip(names, results):
            files[name].write(values.half().cpu().numpy().tobytes())
        if time.time() - saved > 5 or rows_done == tokens.n_rows:
            for f in files.values():
                f.flush()
                os.fsync(f.fileno())
            state.update(rows_done=rows_done, seconds=state["seconds"] + time.time() - start)
            start = saved = time.time()
            write_json(sidecar, state)

    with ThreadPoolExecutor(max_workers=1) as writer:  # in the background: the model goes on with the next batch
        written = None
        while done < tokens.n_rows:
            # The next rows, a part for each rank. The main one writes the scores of all in order, so that the files do not
            # depend on the number of ranks.
            x, y = map(ranks.to_device, tokens.rows(ranks.rows(done, tokens.n_rows, cfg.batch_rows)))
            with ranks.autocast():
                results = score_rows(model, x, y, cfg.entropy)
            results = [ranks.gather(values)[:tokens.n_rows - done] for values in results if values is not None]
            done += len(results[0])
            if written:
                written.result()  # one step behind at most; raises what went wrong, a full disk for instance
            written = writer.submit(write, results, done) if ranks.main else None
            progress.show(done * T)
        if written:
            written.result()
    for f in files.values():
        f.close()
    progress.close()
    if ranks.main:
        report(cfg.out, tokens, state["seconds"])


def with_texts(cfg):
    """--write_texts: the text of each row; --from_logprobs: scores from what another program made of these."""
    if cfg.from_logprobs and os.path.exists(os.path.join(cfg.out, "scores.json")):
        raise BadInput(f"{cfg.out} already holds scores: choose another --out, or delete the folder")
    tokens = Tokens(cfg.data, cfg.corpus, cfg.block_size)
    if cfg.write_texts:
        logprobs.write_texts(cfg.write_texts, tokens, cfg.data)
        print(f"{cfg.write_texts}: the texts of {tokens.n_rows:,} rows of {tokens.T} targets")
        return
    start, progress = time.time(), Progress("scores", tokens.n_rows, "rows")
    losses = logprobs.losses_from(cfg.from_logprobs, tokens, cfg.data, progress)
    progress.close()
    os.makedirs(cfg.out, exist_ok=True)
    with replacing(os.path.join(cfg.out, "loss.bin"), "wb") as f:
        f.write(losses.tobytes())
    write_json(os.path.join(cfg.out, "scores.json"), {
        "corpus": cfg.corpus, "corpus_sha256": tokens.sha256, "ckpt_sha256": file_hash(cfg.from_logprobs),
        "block_size": tokens.T, "tokenizer_sha256": tokens.tokenizer_sha256, "files": ["loss"], "n_rows": tokens.n_rows,
        "rows_done": tokens.n_rows, "seconds": time.time() - start})
    report(cfg.out, tokens, time.time() - start)


def report(folder, tokens, seconds):
    """Print the mean reference loss, and that of each true label (of tokens whose loss is known)."""
    losses = np.memmap(os.path.join(folder, "loss.bin"), dtype=np.float16, mode="r")
    known = np.isfinite(losses)
    print(f"{folder}: {losses.size:,} tokens of {tokens.path}.bin, mean reference loss "
          f"{losses.mean(dtype=np.float64, where=known):.3f}, {seconds:.0f} s"
          + (f"; of {losses.size - known.sum():,} it is not known" if not known.all() else ""))
    if tokens.labels is not None:
        labels = tokens.labels[1:losses.size + 1]
        for label, name in enumerate(tokens.label_names):
            of_label = losses[(labels == label) & known].astype(np.float64)
            if of_label.size:
                print(f"  {name:<10} {of_label.size / losses.size:6.1%} of the tokens, mean reference loss {of_label.mean():.3f}")


class Scores:
    """What this script wrote, as rows beside `tokens`. Raises BadInput unless complete and made for these rows."""

    def __init__(self, folder, tokens, name="loss"):
        sidecar = os.path.join(folder, "scores.json")
        state = read_json(sidecar) if os.path.exists(sidecar) else {}
        if not {"corpus_sha256", "block_size", "rows_done", "ckpt_sha256"} <= set(state):
            raise BadInput(f"{folder} holds no scores: make them with score.py, or give another --scores")
        if state["corpus_sha256"] != tokens.sha256:
            raise BadInput(f"the scores in {folder} are of another corpus than {tokens.path}.bin: run score.py on it")
        if state["block_size"] != tokens.T:
            raise BadInput(f"the scores in {folder} are for block_size {state['block_size']}, not {tokens.T}: contexts "
                           f"must be the same; run score.py with --block_size {tokens.T}")
        if name == "entropy" and name not in state.get("files", []):
            raise BadInput(f"the scores in {folder} have no entropy: run score.py with --entropy, into another folder")
        path = os.path.join(folder, f"{name}.bin")
        n = tokens.n_rows * tokens.T
        if state["rows_done"] != tokens.n_rows or not os.path.exists(path) or os.path.getsize(path) != 2 * n:
            raise BadInput(f"the scores in {folder} are not complete: run the same score.py command again")
        self.values = np.memmap(path, dtype=np.float16, mode="r").reshape(tokens.n_rows, tokens.T)
        self.ckpt_sha256 = state["ckpt_sha256"]

    def rows(self, rows):
        """(len(rows), T) float32."""
        return torch.from_numpy(self.values[rows].astype(np.float32))


if __name__ == "__main__":
    run(main, Config, __doc__)
