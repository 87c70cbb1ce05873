"""
--distill CKPT: a control for those who have the reference model and not the text it learned from. The model
learns the reference's probabilities, on the noisy text, instead of the text itself.

    loss_of, sha256 = install(model, "out/ref/best.pt", train)

The loss of a token is the cross-entropy of the two distributions,
-sum_v P_ref(v | x_<i) log P_theta(v | x_<i), whose gradient is that of the forward KL divergence (Hinton et
al. 2015, arXiv 1503.02531, temperature 1). Every token counts: keep must be 1.0. The reference runs in every
step, so a step costs its forward pass besides.
"""
import torch
from torch.nn import functional as F

from common import load_model
from engine.cli import BadInput
from extras.pretrained import weights_hash
from model import token_loss


def install(model, path, train):
    """(a loss of the form of `selected_loss`, the hash of the reference's checkpoint). The loss has to know
    the inputs, so `model` is made to remember them. train: the Tokens to train on. Raises BadInput."""
    device = next(model.parameters()).device
    reference, _ = load_model(path, train.tokenizer_sha256, train.path, device, train)
    if reference.config.block_size < train.T:
        raise BadInput(f"{path} has a context of {reference.config.block_size} tokens, fewer than the "
                       f"block_size {train.T}: train with a smaller one, or give another reference")
    # Where only one of the two has rows for ids that no token has, these have no part in what is learned.
    V = min(model.config.vocab_size, reference.config.vocab_size)
    seen = {}

    def remember(_, inputs):
        seen["ids"] = inputs[0]                                                                  # (B, T)
    model.register_forward_pre_hook(remember)

    def distillation_loss(hidden, weight, targets, ref_loss, k, rank_by):
        with torch.no_grad():
            reference_logits = reference.logits(reference(seen["ids"]))[..., :V]                 # (B, T, V)
            probabilities = reference_logits.float().softmax(dim=-1)                             # (B, T, V)
        logits = F.linear(hidden, weight)                                       # (B, T, V, or the model's V)
        loss_sum = -(probabilities * logits.float().log_softmax(dim=-1)[..., :V]).sum()
        everything = torch.isfinite(ref_loss)                                                    # (B, T)
        return loss_sum, token_loss(logits.detach(), targets), everything
    return distillation_loss, weights_hash(path)
