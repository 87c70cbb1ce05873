"""Llama's architecture (model.py, --arch llama): against a plain rewrite, against transformers, and through the scripts."""
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

import train_ref
import train_slm
from bench import against_transformers
from common import load_checkpoint, save_checkpoint
from corpora.tokenizers import demo_tokenizer, save_tokenizer, tokenizer_hash
from engine.cli import BadInput
from engine.generation import generate, new_caches
from extras import export
from helpers import ROOT, records, same_weights, train
from model import GPT, GPTConfig

SHAPES = [dict(n_head=2), dict(n_head=4, n_kv_head=2, n_inner=40), dict(n_head=4, n_kv_head=1, tied=False),
          dict(n_head=2, rope_base=500.0, norm_eps=1e-6)]


def make(**options):
    torch.manual_seed(0)
    config = dict(block_size=32, vocab_size=50, n_layer=2, n_embd=16, arch="llama") | options
    model = GPT(GPTConfig(**config)).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_forward_equals_the_equations_of_llama(options):
    """Token by token, head by head: RMSNorm, rotated queries and keys as complex numbers, grouped heads, SwiGLU."""
    model = make(**options)
    c, w = model.config, dict(model.named_parameters())
    assert not any(name.endswith("bias") or name == "wpe.weight" for name in w)
    idx = torch.randint(50, (1, 9), generator=torch.Generator().manual_seed(1))
    H, G, D = c.n_head, c.n_kv_head, 16 // c.n_head

    def norm(x, name):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + c.norm_eps) * w[name + ".weight"]

    def rotated(x, t):  # (D,): channels i and i + D/2 are the real and imaginary part of a number
        angle = t * c.rope_base ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
        z = torch.complex(x[:D // 2], x[D // 2:]) * torch.polar(torch.ones(D // 2, dtype=torch.float64), angle)
        return torch.cat([z.real, z.imag])

    x = w["wte.weight"][idx[0]]
    for i in range(2):
        qkv = norm(x, f"h.{i}.ln_1") @ w[f"h.{i}.attn.c_attn.weight"].T
        q, k, v = qkv.split([16, G * D, G * D], dim=1)
        heads = torch.zeros(9, 16, dtype=torch.float64)
        for h in range(H):
            g = h // (H // G)
            for t in range(9):
                query = rotated(q[t, h * D:(h + 1) * D], t)
                keys = torch.stack([rotated(k[s, g * D:(g + 1) * D], s) for s in range(t + 1)])
                a = torch.softmax(keys @ query / math.sqrt(D), dim=0)
                heads[t, h * D:(h + 1) * D] = a @ v[:t + 1, g * D:(g + 1) * D]
        x = x + heads @ w[f"h.{i}.attn.c_proj.weight"].T
        gate, up = (norm(x, f"h.{i}.ln_2") @ w[f"h.{i}.mlp.c_fc.weight"].T).split(c.n_inner, dim=1)
        x = x + (gate * torch.sigmoid(gate) * up) @ w[f"h.{i}.mlp.c_proj.weight"].T
    output = w["wte.weight"] if c.tied else w["lm_head.weight"]
    expected = norm(x, "ln_f") @ output.T
    torch.testing.assert_close(model.logits(model(idx))[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_cached_generation_equals_uncached(options):
    model = make(**options).float()
    prompts = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 9], [1, 2, 3, 8, 7]]
    together = generate(model, prompts, 12)
    for prompt, new in zip(prompts, together):
        tokens = list(prompt)
        for _ in range(12):
            tokens.append(model.logits(model(torch.tensor([tokens])))[0, -1].argmax().item())
        assert tokens[len(prompt):] == new
    assert len(set(map(tuple, together))) == 3


def test_the_cache_holds_the_key_and_value_heads_only():
    [cache, _] = new_caches(make(n_head=4, n_kv_head=2), B=3, S=5)
    assert cache.k_own.shape == cache.v_own.shape == (3, 2, 5, 4)


ARCH = dict(arch="llama", n_head=4, n_kv_head=2)


def test_it_trains_resumes_and_fast_is_plain(demo, scores, tmp_path):
    train(train_ref, tmp_path / "clm", demo, **ARCH)
    train(train_slm, tmp_path / "keep_all", demo, keep=1.0, **ARCH)
    assert [r["loss"] for r in records(tmp_path / "clm")] == [r["loss"] for r in records(tmp_path / "keep_all")]
    evals = records(tmp_path / "clm", "eval")
    assert evals[-1]["val_loss"] < evals[0]["val_loss"]
    for name, fast in (("fast", True), ("plain", False)):
        train(train_slm, tmp_path / name, demo, scores=scores, fast=fast, **ARCH)
    assert same_weights(tmp_path / "fast", tmp_path / "plain", tolerance=1e-3)
    train(train_slm, tmp_path / "two", demo, scores=scores, micro_rows=4, **ARCH)
    train(train_ref, tmp_path / "half", demo, init_from=str(tmp_path / "clm" / "ckpt.pt"))  # sizes are the checkpoint's
    config = load_checkpoint(str(tmp_path / "half" / "ckpt.pt"))["model_config"]
    assert config["arch"] == "llama" and config["n_kv_head"] == 2 and not config["bias"]


def test_a_cropped_context(demo, tmp_path):
    train(train_ref, tmp_path / "long", demo, block_size=64, **ARCH)
    train(train_ref, tmp_path / "short", demo, init_from=str(tmp_path / "long" / "ckpt.pt"), crop=True)
    assert load_checkpoint(str(tmp_path / "short" / "ckpt.pt"))["model_config"]["block_size"] == 32


def test_sizes_that_do_not_fit():
    llama = dict(arch="llama")
    for options, message in ((dict(arch="gpt3"), "arch must be"), (dict(n_inner=99), "are for --arch llama"),
                             (llama | dict(n_head=4, n_kv_head=3), "must divide n_head"),
                             (llama | dict(n_head=64), "must be even"), (llama | dict(n_inner=-1), "negative")):
        [problem] = train_ref.Config(n_embd=64, **options).validate()
        assert message in problem
    with pytest.raises(ValueError, match="divisible by n_kv_head"):
        make(n_head=4, n_kv_head=3)


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("family", ["Llama", "Mistral"])
def test_logits_equal_those_of_transformers(options, family):
    transformers = pytest.importorskip("transformers")
    ours = make(**options).float()
    c = ours.config
    sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=c.n_inner, num_hidden_layers=2,
                 num_attention_heads=c.n_head, num_key_value_heads=c.n_kv_head, max_position_embeddings=32,
                 rms_norm_eps=c.norm_eps, rope_theta=c.rope_base, tie_word_embeddings=c.tied)
    if family == "Mistral":
        sizes["sliding_window"] = None
    torch.manual_seed(1)
    theirs = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**sizes)).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.3)
    t, state = theirs.state_dict(), {}
    state["wte.weight"], state["ln_f.weight"] = t["model.embed_tokens.weight"], t["model.norm.weight"]
    if not c.tied:
        state["lm_head.weight"] = t["lm_head.weight"]
    for i in range(2):
        a = f"model.layers.{i}."
        state[f"h.{i}.ln_1.weight"] = t[a + "input_layernorm.weight"]
        state[f"h.{i}.ln_2.weight"] = t[a + "post_attention_layernorm.weight"]
        state[f"h.{i}.attn.c_attn.weight"] = torch.cat([t[f"{a}self_attn.{x}_proj.weight"] for x in "qkv"])
        state[f"h.{i}.attn.c_proj.weight"] = t[a + "self_attn.o_proj.weight"]
        state[f"h.{i}.mlp.c_fc.weight"] = torch.cat([t[f"{a}mlp.{x}_proj.weight"] for x in ("gate", "up")])
        state[f"h.{i}.mlp.c_proj.weight"] = t[a + "mlp.down_proj.weight"]
    ours.load_state_dict(state)
    idx = torch.randint(50, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(idx)), theirs(idx).logits, rtol=0, atol=1e-4)


# --------------------------------------------------------------------------------------------------- weights in and out

def checkpoint(folder, **options):
    """A checkpoint with random weights, whose tokenizer is that of the built-in corpus."""
    folder.mkdir(exist_ok=True)
    enc = demo_tokenizer()
    save_tokenizer(enc, str(folder))
    model = make(vocab_size=enc.n_vocab, **options).float()
    save_checkpoint(str(folder / "ckpt.pt"), {
        "model": model.state_dict(), "model_config": asdict(model.config), "config": {"data": str(folder)},
        "tokenizer_sha256": tokenizer_hash(enc)})
    export.main(export.Config(export=[str(folder / "ckpt.pt"), str(folder / "hf")]))
    return model, folder / "hf"


def the_same(ckpt, model):
    assert ckpt["model"].keys() == model.state_dict().keys()
    assert all(t.equal(ckpt["model"][name]) for name, t in model.state_dict().items())
    assert GPTConfig(**ckpt["model_config"]) == model.config


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_export_then_import_is_the_identity(tmp_path, options):
    model, folder = checkpoint(tmp_path, **options)
    the_same(load_checkpoint(str(folder)), model)


def test_weights_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)  # as if it were not installed
    model, folder = checkpoint(tmp_path, n_head=4, n_kv_head=2, tied=False)
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    names, weight_map = sorted(tensors), {}
    for i, part in enumerate((names[::2], names[1::2])):
        torch.save({name: tensors[name] for name in part}, folder / f"pytorch_model-0000{i + 1}-of-00002.bin")
        weight_map |= {name: f"pytorch_model-0000{i + 1}-of-00002.bin" for name in part}
    (folder / "pytorch_model.bin").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    the_same(load_checkpoint(str(folder)), model)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(BadInput, match="there is no .*00002-of-00002"):
        load_checkpoint(str(folder))


def test_what_model_py_does_not_have_is_refused(tmp_path):
    _, folder = checkpoint(tmp_path, n_head=4, n_kv_head=2)
    config = json.loads((folder / "config.json").read_text())
    for change, says in (({"hidden_act": "gelu"}, "hidden_act 'gelu'"), ({"attention_bias": True}, "attention_bias"),
                         ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling"), ({"head_dim": 8}, "head_dim 8"),
                         ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
                         ({"num_hidden_layers": 3}, "lacks the tensor .*layers.2")):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(BadInput, match=says):
            load_checkpoint(str(folder))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mistral", "sliding_window": 16}))
    assert load_checkpoint(str(folder))["model_config"]["block_size"] == 16  # within its window it is Llama
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": {"rope_theta": 7.0}}))
    assert load_checkpoint(str(folder))["model_config"]["rope_base"] == 7.0  # as newer files have it


def test_scripts_take_the_exported_folder(demo, tmp_path):
    train(train_ref, tmp_path / "a", demo, **ARCH)
    export.main(export.Config(export=[str(tmp_path / "a" / "ckpt.pt"), str(tmp_path / "hf")]))
    for name, path in (("b", tmp_path / "a" / "ckpt.pt"), ("c", tmp_path / "hf")):
        train(train_ref, tmp_path / name, demo, init_from=str(path))
    assert same_weights(tmp_path / "b", tmp_path / "c")


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_transformers_loads_the_export_and_we_its_own(tmp_path, options):
    transformers = pytest.importorskip("transformers")
    model, folder = checkpoint(tmp_path, **options)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(str(folder)).eval()
    idx = torch.randint(50, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(theirs(idx).logits, model.logits(model(idx)), rtol=0, atol=1e-4)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / "theirs")
    pytest.importorskip("tokenizers")
    ckpt = load_checkpoint(str(tmp_path / "theirs"))
    assert all(t.equal(ckpt["model"][name]) for name, t in model.state_dict().items())
    assert ckpt["model_config"] | {"dropout": 0.0} == asdict(model.config)


def test_the_benchmark_against_transformers_compares_the_same_answers(tmp_path):
    pytest.importorskip("transformers")
    _, folder = checkpoint(tmp_path / "a", n_head=4, n_kv_head=2, block_size=64)
    how = dict(ckpt=str(folder), prefix=20, question=8, new_tokens=6, questions=5, batch_sizes=[1, 3], out=str(tmp_path),
               device="cpu")
    against_transformers.main(against_transformers.Config(**how))
    result = json.loads((tmp_path / "against_transformers.json").read_text())["batch_sizes"]
    assert set(result) == {"1", "3"} and all(r["same_tokens"] == 1 and r["ratio"] > 0 for r in result.values())
    for change, says in (({"prefix": 60}, "do not fit the context of 64"), ({"ckpt": "out/ckpt.pt"}, "no folder of Hugging")):
        with pytest.raises(BadInput, match=says):
            against_transformers.main(against_transformers.Config(**how | change))


def test_the_papers_weights_are_evaluated_beside_the_papers_figures(tmp_path):
    pytest.importorskip("tokenizers")
    _, folder = checkpoint(tmp_path / "a", n_head=2, block_size=256)
    os.rename(folder, tmp_path / "rho-math-1b")
    path = tmp_path / "rho-math-1b" / "config.json"
    config = json.loads(path.read_text())
    del config["tokenizer_sha256"]  # which only an export has
    path.write_text(json.dumps(config))
    (tmp_path / "tasks").mkdir()
    rows = [{"question": f"What is {i} + 1?", "answer": f"{i} + 1 = {i + 1}\n#### {i + 1}"} for i in range(3)]
    (tmp_path / "tasks" / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = os.environ | {"MODEL": str(tmp_path / "rho-math-1b"), "TASKS": "gsm8k", "PYTHON": sys.executable,
                                "OUT": str(tmp_path / "out"), "DATA_DIR": str(tmp_path / "tasks"), "DEVICE": "cpu",
                                "MORE": "--shots 1 --max_new_tokens 4"}
    done = subprocess.run(["bash", os.path.join(ROOT, "runs", "rho.sh")], env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].split() == ["gsm8k", "0.0", "36.2"]
