"""
A control: learn the reference's probabilities on the noisy text, in the place of the text itself.

    python -m distillation.corpus --init_from out/base/ckpt.pt --ref out/ref/ckpt.pt --out out/distill
    python -m distillation.corpus ... --lm_share 0.5

The loss of a token is the cross-entropy of the two distributions,
-sum_v P_ref(v | x_<i) log P_theta(v | x_<i), whose gradient is that of the forward KL divergence (Hinton et
al. 2015, arXiv 1503.02531, temperature 1). --lm_share mixes it with the usual loss. All tokens count. The
reference runs in every step. The loop is that of train_ref.py: `diff train_ref.py distillation/corpus.py`.
"""
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from common import GRAD_CLIP, Run, TrainConfig, compiled_and_parallel, initial_model, learning_rate
from data import Tokens, batch
from engine.checkpoints import hashes_of, load_model
from engine.cli import BadInput, launch
from engine.files import file_hash
from engine.ranks import Ranks
from model import token_loss


@dataclass
class Config(TrainConfig):
    ref: str = "out/ref/ckpt.pt"    # the reference model
    lm_share: float = 0.0           # share of the usual loss; the rest is the reference's
    train: str = "noisy"            # which of the corpus's token files to train on
    out: str = "out/distill"        # run folder

    def validate(self):
        if self.fast:
            yield "fast is for the losses of train_ref.py and train_slm.py: here the logits are needed whole"
        if not 0 <= self.lm_share <= 1:
            yield f"lm_share must lie in [0, 1], not {self.lm_share}"
        yield from super().validate()


def distillation_loss(hidden, weight, targets, probabilities, lm_share):
    """Summed over all tokens. hidden: (B, T, C), weight: (V, C), probabilities: the reference's (B, T, V)."""
    logits = F.linear(hidden, weight)                                  # (B, T, V)
    # Where one of the two models has rows for ids that no token has, these have no part in what is learned.
    V = probabilities.size(-1)
    loss = -(probabilities * logits.float().log_softmax(dim=-1)[..., :V]).sum()
    return (1 - lm_share) * loss + lm_share * token_loss(logits, targets).sum() if lm_share else loss


def main(cfg):
    ranks = Ranks(cfg.device)
    batch_rows = cfg.batch_tokens // cfg.block_size
    cfg.micro_rows = cfg.micro_rows or batch_rows // ranks.world           # rows of a micro-batch
    mine = range(ranks.rank, batch_rows // cfg.micro_rows, ranks.world)    # this process's micro-batches
    train, val, test = (Tokens(cfg.data, name, cfg.block_size) for name in (cfg.train, "val", "test"))
    reference, _ = load_model(cfg.ref, train.tokenizer_sha256, train.path, ranks.device, train)
    if reference.config.block_size < train.T:
        raise BadInput(f"{cfg.ref} has a context of {reference.config.block_size} tokens, fewer than the "
                       f"block_size {train.T}: train with a smaller one, or give another reference")
    made_from = hashes_of(cfg.init_from, corpus=train, val=val, test=test)
    made_from["ref_sha256"] = file_hash(cfg.ref)
    run = Run(cfg, ranks, initial_model(cfg, train, val, test), (val, test), made_from)
    raw_model, optimizer = run.raw_model, run.optimizer
    model = compiled_and_parallel(raw_model, cfg, ranks)

    for step in run.steps():  # in between: evaluate, save, stop
        rows = batch(train.n_rows, batch_rows, cfg.seed, step).reshape(-1, cfg.micro_rows)  # (n_micro, B)
        n_selected = cfg.batch_tokens  # all: one mean over the step's tokens, no mean of means
        loss = torch.zeros((), device=ranks.device)
        for i in mine:
            x, y = map(ranks.to_device, train.rows(rows[i]))               # (B, T) each
            with ranks.sync_gradients(model, now=i == mine[-1]):
                with ranks.autocast():
                    with torch.no_grad():
                        logits = reference.logits(reference(x))[..., :raw_model.config.vocab_size]
                        probabilities = logits.float().softmax(dim=-1)          # (B, T, V)
                    loss_sum = distillation_loss(model(x), raw_model.output_weight, y, probabilities,
                                                 cfg.lm_share)
                micro_loss = loss_sum / n_selected
                (micro_loss * ranks.world).backward()  # the processes average gradients: a sum is wanted
            loss += micro_loss.detach()
        torch.nn.utils.clip_grad_norm_(raw_model.parameters(), GRAD_CLIP)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, cfg)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % cfg.log_every == 0:
            run.log(step, loss)


if __name__ == "__main__":
    launch(main, Config, __doc__)
