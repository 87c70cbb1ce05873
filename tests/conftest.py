"""Shared by the tests: the repository on the path, one thread, and a tiny corpus."""
import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # for subprocesses too: runs are bit-identical for the same number of threads
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pytest
import torch

import prepare
import score
import train_ref
from helpers import train

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A small built-in corpus: rows enough for a few epochs of a few steps."""
    folder = str(tmp_path_factory.mktemp("demo"))
    prepare.main(prepare.Config(out=folder, noisy_tokens=6000, curated_problems=60, held_out_problems=12))
    return folder


@pytest.fixture(scope="session")
def scores(demo, tmp_path_factory):
    """A reference model and its scores of the noisy side."""
    folder = tmp_path_factory.mktemp("ref")
    train(train_ref, folder / "ref", demo, train="curated", seed=5)
    score.main(score.Config(ckpt=str(folder / "ref" / "best.pt"), data=demo, out=str(folder / "scores"), device="cpu"))
    return str(folder / "scores")
