"""
What a measurement leaves behind: a JSON file that also says with which device and source it was made.
"""
import os
from dataclasses import asdict

import torch

from engine.files import source_revision, write_json


def write_result(cfg, name, ranks, result):
    """Write cfg.out/NAME.json: the options, the device, the versions, and the entries of `result`."""
    device = torch.cuda.get_device_name() if ranks.device.type == "cuda" else str(ranks.device)
    os.makedirs(cfg.out, exist_ok=True)
    write_json(os.path.join(cfg.out, f"{name}.json"), {
        "config": asdict(cfg), "device": device, "threads": torch.get_num_threads(),
        "torch": torch.__version__, "source": source_revision(), **result})
