"""Tiny training runs, for several test files."""
import json
import os
import socket
import subprocess
import sys

import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TINY = dict(n_layer=1, n_head=2, n_embd=16, block_size=32, batch_tokens=256, train_tokens=256 * 12, warmup_steps=2,
            eval_every=4, log_every=1, device="cpu", train="noisy", lr=3e-3)

def train(script, folder, data, **options):
    cfg = script.Config(data=data, out=str(folder), **TINY | options)
    assert list(cfg.validate()) == []
    script.main(cfg)
    return folder


def records(folder, kind="train"):
    with open(os.path.join(folder, "metrics.jsonl")) as f:
        return [{k: v for k, v in r.items() if k != "seconds"} for r in map(json.loads, f) if r["kind"] == kind]


def weights(folder, name="ckpt.pt"):
    return torch.load(os.path.join(folder, name), weights_only=True)["model"]


def same_weights(a, b, tolerance=0.0):
    a, b = weights(a), weights(b)
    return all(torch.allclose(a[k], b[k], rtol=0, atol=tolerance) if tolerance else torch.equal(a[k], b[k]) for k in a)


def command(script, folder, data, **options):
    """The command line of a tiny run."""
    flags = [f"--{k}={v}" for k, v in (TINY | options | {"data": data, "out": folder}).items() if not isinstance(v, bool)]
    return [sys.executable, os.path.join(ROOT, script), *flags, *[f"--{k}" for k, v in options.items() if v is True]]


def start_ranks(n, command):
    """n processes of one run, started the way torchrun starts them."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
    return [subprocess.Popen(command, env=environment | {"RANK": str(r), "LOCAL_RANK": str(r)}, stderr=subprocess.PIPE,
                             text=True) for r in range(n)]


def sh(script, folder, code=0, **variables):
    """The output of a script that ends with this code: standard output, or for an error standard error."""
    environment = os.environ | {"PYTHON": sys.executable, "SIZE": "tiny"}
    environment |= {k: str(v) for k, v in variables.items()}
    done = subprocess.run(["bash", os.path.join(ROOT, "runs", script)], env=environment, capture_output=True,
                          text=True, cwd=folder)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stderr if code else done.stdout


def copy_of_repository(folder, *patterns):
    """The files that git knows of (of these patterns), as they are now, in a new folder."""
    folder.mkdir()
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["xargs", "-0", "cp", "--parents", "-t", str(folder)], input=listed, cwd=ROOT, check=True)
