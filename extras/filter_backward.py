"""
--filter_backward: the backward pass drops the unselected tokens in all linear layers, not only in the
output layer.

    loss_of = install(model, loss_of)

Not exact: a token that is not selected may well have a gradient, as selected tokens look at its key and
value. An earlier form of it saved 15% of GPT-2's step at keep 0.6 and 21% at 0.3 on a processor, and did a
little harm to the loss of solution tokens (docs/speed.md). The model does not know of it: `install` replaces
the `forward` of its linear layers by one that is told, between forward and backward pass, which tokens are
selected.
"""
import torch
import torch.nn as nn
from torch.nn import functional as F

from engine.fast_loss import compute_dtype


def install(model, loss_of):
    """Replace the forward of the linear layers in the model's blocks. Returns loss_of, which then tells them
    what it has selected."""
    selection = Selection()
    for block in model.h:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                module.forward = filtered_forward(module, selection)

    def telling_loss(hidden, weight, targets, ref_loss, k, rank_by):
        loss_sum, loss, selected = loss_of(hidden, weight, targets, ref_loss, k, rank_by)
        selection.tokens = selected.flatten().to(torch.uint8).topk(k).indices  # (k,), without counting them
        return loss_sum, loss, selected
    return telling_loss


def filtered_forward(layer, selection):
    return lambda x: FilteredLinear.apply(x, layer.weight, layer.bias, selection)


class Selection:
    """The numbers of the selected tokens of the forward pass at hand, (k,)."""
    tokens = None


class FilteredLinear(torch.autograd.Function):
    """F.linear(x, weight, bias), x (B, T, C), whose backward multiplies the gradients of the selected tokens
    alone."""

    @staticmethod
    def forward(ctx, x, weight, bias, selection):
        x, weight = x.to(compute_dtype(x)), weight.to(compute_dtype(x))
        ctx.save_for_backward(x, weight)
        ctx.selection, ctx.has_bias = selection, bias is not None
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        i = ctx.selection.tokens
        grad, flat_x = grad.flatten(0, 1)[i], x.flatten(0, 1)                   # (k, C_out), (n, C_in)
        d_x = torch.zeros_like(flat_x).index_copy_(0, i, grad @ weight)         # (n, C_in)
        d_bias = grad.sum(dim=0) if ctx.has_bias else None                      # (C_out,)
        return d_x.view(x.shape), grad.t() @ flat_x[i], d_bias, None
