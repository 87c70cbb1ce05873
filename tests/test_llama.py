"""Llama's architecture (model.py, --arch llama): against transformers, and through the scripts."""
import json
import sys

import pytest
import torch

import train_ref
import train_slm
from corpora.tokenizers import load_tokenizer, tokenizer_hash
from engine.checkpoints import load_checkpoint
from engine.cli import BadInput
from engine.generation import generate, new_caches
from helpers import records, same_weights, train
from model import GPT, GPTConfig
from test_gpt2 import checkpoint, exported, imported, serve, the_same
from test_model import uncached
from weights import export, published

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
def test_cached_generation_equals_uncached(options):
    model = make(**options).float()
    prompts = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 9], [1, 2, 3, 8, 7]]
    together = generate(model, prompts, 12)
    assert together == [uncached(model, prompt, 12) for prompt in prompts]
    assert len(set(map(tuple, together))) == 3
    [cache, _] = new_caches(model, B=3, S=5)  # of the key and value heads only
    assert cache.k_own.shape == cache.v_own.shape == (3, model.config.n_kv_head, 5, 16 // model.config.n_head)


def test_it_trains_and_fast_is_plain(demo, scores, tmp_path):
    for name, fast in (("fast", True), ("plain", False)):
        train(train_slm, tmp_path / name, demo, scores=scores, fast=fast, arch="llama")
    assert same_weights(tmp_path / "fast", tmp_path / "plain", tolerance=1e-3)
    evals = records(tmp_path / "plain", "eval")
    assert evals[-1]["val_loss"] < evals[0]["val_loss"]
    train(train_ref, tmp_path / "on", demo, init_from=str(tmp_path / "plain" / "ckpt.pt"))  # sizes are the checkpoint's
    assert load_checkpoint(str(tmp_path / "on" / "ckpt.pt"))["model_config"]["arch"] == "llama"


# --------------------------------------------------------------------------------------------------- weights in and out

@pytest.mark.parametrize("family, options", [*(("Llama", shape) for shape in SHAPES), ("Mistral", SHAPES[1])], ids=str)
def test_logits_equal_those_of_transformers(demo, tmp_path, family, options):
    """Of a model that they made, imported, exported, and loaded by them again."""
    transformers = pytest.importorskip("transformers")
    c, enc = make(**options).config, load_tokenizer(demo)
    sizes = dict(vocab_size=enc.n_vocab, hidden_size=16, intermediate_size=c.n_inner, num_hidden_layers=2,
                 num_attention_heads=c.n_head, num_key_value_heads=c.n_kv_head, max_position_embeddings=32,
                 rms_norm_eps=c.norm_eps, rope_theta=c.rope_base, tie_word_embeddings=c.tied,
                 tokenizer_sha256=tokenizer_hash(enc), sliding_window=None)  # which is Mistral's alone
    torch.manual_seed(1)
    theirs = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**sizes)).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.3)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    export.export_tokenizer(enc, 32, str(tmp_path / "theirs"))
    transformers.AutoTokenizer.from_pretrained(str(tmp_path / "theirs")).save_pretrained(str(tmp_path / "theirs"))
    ckpt, ours = imported(tmp_path / "theirs", tmp_path / "out")
    assert ckpt["tokenizer_sha256"] == tokenizer_hash(enc)  # though the tokenizer went through their hands
    back = exported(str(tmp_path / "out" / "ckpt.pt"), tmp_path / "back")
    idx = torch.randint(50, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for model in (theirs, transformers.AutoModelForCausalLM.from_pretrained(str(back)).eval()):
            torch.testing.assert_close(ours.logits(ours(idx)), model(idx).logits, rtol=0, atol=1e-4)


def test_weights_in_several_files(demo, tmp_path, monkeypatch):
    """From a folder, and by name, each file downloaded once."""
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)  # as if it were not installed
    path, model, _ = checkpoint(tmp_path / "a", demo, arch="llama", n_head=4, n_kv_head=2, tied=False)
    folder = exported(path, tmp_path / "hf")
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    parts = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    names, weight_map = sorted(tensors), {}
    for part, its_names in zip(parts, (names[::2], names[1::2])):
        torch.save({name: tensors[name] for name in its_names}, folder / part)
        weight_map |= dict.fromkeys(its_names, part)
    (folder / "pytorch_model.bin").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    the_same(imported(folder, tmp_path / "out")[0], model)
    asked = serve(monkeypatch, tmp_path, {"microsoft/rho-math-1b-v0.1": folder})
    the_same(imported("rho-math-1b", tmp_path / "rho")[0], model)
    assert asked == [*published.ABOUT, "pytorch_model.bin.index.json", *parts]
    (folder / parts[1]).unlink()
    with pytest.raises(BadInput, match="there is no .*00002-of-00002"):
        imported(folder, tmp_path / "part")


def test_what_model_py_does_not_have_is_refused(demo, tmp_path):
    folder = exported(checkpoint(tmp_path / "a", demo, arch="llama", n_head=4, n_kv_head=2)[0], tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    for change, says in (({"hidden_act": "gelu"}, "hidden_act 'gelu'"), ({"attention_bias": True}, "attention_bias"),
                         ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling"), ({"head_dim": 8}, "head_dim 8"),
                         ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
                         ({"num_hidden_layers": 3}, "lacks the tensor .*layers.2"),
                         ({"num_hidden_layers": 1}, "holds model.layers.1"),
                         ({"num_attention_heads": 16}, "16 channels in 16 heads"),
                         ({"model_type": ["a"]}, "hf is damaged"),
                         ({"num_key_value_heads": 3}, "divisible by n_kv_head"),
                         ({"num_key_value_heads": 1}, "attn.c_attn.weight is missing, .* shape")):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(BadInput, match=says):
            imported(folder, tmp_path / "out")
    for name, change, field, value in (
            ("mistral", {"model_type": "mistral", "sliding_window": 16}, "block_size", 16),  # within it it is Llama
            ("newer", {"rope_parameters": {"rope_theta": 7.0}}, "rope_base", 7.0)):          # as newer files have it
        (folder / "config.json").write_text(json.dumps(config | change))
        assert imported(folder, tmp_path / name)[0]["model_config"][field] == value
