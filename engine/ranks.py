"""Processes and devices: one process on a CPU or a GPU, or several that torchrun has started."""
import contextlib
import datetime
import math
import os
import time

import numpy as np
import torch

from engine.cli import BadInput


class Ranks:
    """This process among those of torchrun. What gathers, sums or asks all ranks must be called by all."""

    def __init__(self, device):
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.main, self.sharded = self.rank == 0, False
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        if device == "auto":
            device = "mps" if torch.backends.mps.is_available() else "cpu"
            if torch.cuda.is_available():
                device = "cuda"
        try:
            self.device = torch.device(f"cuda:{local_rank}" if device == "cuda" else device)
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as e:
            first_line = str(e).splitlines()[0]
            raise BadInput(f"device {device!r} cannot be used here: {first_line}; choose another --device")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        if self.world > 1:
            # Who is done early waits long for the others. Gloo is for numbers of the host, without a GPU.
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            try:
                torch.distributed.init_process_group(backend, timeout=datetime.timedelta(hours=2))
            except (RuntimeError, ValueError) as e:
                first_line = str(e).splitlines()[0]
                raise BadInput(f"the {self.world} processes do not find each other ({first_line:.80}): start "
                               f"them with torchrun --nproc_per_node {self.world}")

    def to_device(self, t):
        """t on this rank's device. A GPU copies it from pinned memory while the host goes on."""
        if self.device.type == "cuda":
            return t.contiguous().pin_memory().to(self.device, non_blocking=True)
        return t.to(self.device)

    def synchronize(self):
        """Seconds until the GPU has done all it was given; 0 elsewhere."""
        start = time.time()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.time() - start

    def autocast(self):
        """bfloat16 matrix products on a GPU; float32 on a CPU, where bfloat16 is slower."""
        if self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def shard(self, model):
        """FSDP2 of a model in the host's memory: a rank takes its part of each parameter to its device."""
        from torch.distributed.fsdp import fully_shard
        mesh = torch.distributed.init_device_mesh(self.device.type, (self.world,))
        for block in model.h:
            fully_shard(block, mesh=mesh)
        self.sharded = True
        # The output layer is used after the forward pass: what is not in a block stays whole until then.
        return fully_shard(model, mesh=mesh, reshard_after_forward=False)

    def sync_gradients(self, model, now):
        """Context of a backward pass: whether the ranks exchange gradients now, or with a later one. (With
        --fsdp always now: waiting would take the memory of whole gradients.)"""
        return contextlib.nullcontext() if now or self.sharded or self.world == 1 else model.no_sync()

    def rows(self, done, n_rows, most):
        """Numbers of the next rows of a file for this rank, at most `most`, from `done` on. All ranks get
        equally many, at the end some the last row again: gather(...)[:n_rows - done] has each once."""
        n = min(most, math.ceil((n_rows - done) / self.world))
        return np.minimum(done + self.rank * n + np.arange(n), n_rows - 1)

    def gather(self, t):
        """The (n, ...) tensors of all ranks, in the order of the ranks, as one (world * n, ...)."""
        if self.world == 1:
            return t
        t = t.contiguous()
        parts = [torch.empty_like(t) for _ in range(self.world)]                     # (n, ...) each
        torch.distributed.all_gather(parts, t)
        return torch.cat(parts)                                                      # (world * n, ...)

    def sum(self, t):
        """The sum of a scalar tensor over the ranks, as a float: makes the host wait for a GPU."""
        if self.world > 1:
            torch.distributed.all_reduce(t)
        return t.item()

    def any(self, flag):
        """Whether `flag` is set on any rank: all must leave a loop together, or those that stay wait."""
        if self.world == 1:
            return flag
        # On the host: a flag on a GPU would make each step wait for the one before it.
        return bool(self.gather(torch.tensor([float(flag)])).any())

    def barrier(self):
        self.any(False)


def full_state_dict(state):
    """A state_dict with the parts of --fsdp put together on the main rank's host. All ranks must call it."""
    if isinstance(state, dict):
        return {k: full_state_dict(v) for k, v in state.items()}
    if isinstance(state, list):
        return [full_state_dict(v) for v in state]
    if not hasattr(state, "full_tensor"):
        return state
    full = state.full_tensor()
    return full.cpu() if torch.distributed.get_rank() == 0 else full.new_empty(0)


def load_optimizer(optimizer, state):
    """optimizer.load_state_dict of a full state_dict. With --fsdp each rank takes its part of it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, values in state["state"].items():
        p = parameters[i]
        for name, t in values.items():
            if hasattr(p, "full_tensor") and t.shape == p.shape:
                values[name] = torch.distributed.tensor.distribute_tensor(t, p.device_mesh, p.placements)
    optimizer.load_state_dict(state)
