"""GPT-2's weights in and out: the logits of Hugging Face's model, round trips, padding, bad files."""
import dataclasses
import json
import os
import shutil
import re
import sys
import types
import urllib.error
import urllib.request

import pytest
import torch
from torch.nn import functional as F

import train_ref
import train_slm
from common import initial_model, load_checkpoint, save_checkpoint
from corpora.tokenizers import demo_tokenizer, load_tokenizer, save_tokenizer, tokenizer_hash
from engine import fast_loss
from engine.cli import BadInput
from engine.generation import generate
from extras import export, pretrained
from helpers import records, train
from model import GPT, GPTConfig, token_loss

MERGES = "#version: 0.2\nĠ t\nĠt h\nĠth e\nt h\ni n\nĠ a\na n\nan d\nĠ and\n"


def checkpoint(folder, seed=0, **options):
    """A checkpoint with random weights and biases, and a corpus folder with its tokenizer."""
    folder.mkdir(exist_ok=True)
    (folder / "merges.txt").write_text(MERGES, encoding="utf-8")
    enc = load_tokenizer(str(folder / "merges.txt"))
    save_tokenizer(enc, str(folder))
    torch.manual_seed(seed)
    config = dict(block_size=32, vocab_size=enc.n_vocab, n_layer=2, n_head=2, n_embd=16) | options
    model = GPT(GPTConfig(**config)).eval()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    path = str(folder / "ckpt.pt")
    save_checkpoint(path, {"model": model.state_dict(), "model_config": config,
                           "config": {"data": str(folder)}, "tokenizer_sha256": tokenizer_hash(enc)})
    return path, model, enc


def load(path):
    ckpt = load_checkpoint(str(path))
    model = GPT(GPTConfig(**ckpt["model_config"])).eval()
    model.load_state_dict(ckpt["model"])
    return ckpt, model


def exported(path, folder):
    export.main(export.Config(export=[path, str(folder)]))
    return folder


@pytest.mark.parametrize("safetensors", [True, False])
def test_export_then_import_is_the_identity(tmp_path, monkeypatch, safetensors):
    if safetensors:
        pytest.importorskip("safetensors")
    else:
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)  # as if it were not installed
    path, model, enc = checkpoint(tmp_path / "a")
    folder = exported(path, tmp_path / "hf")
    assert (folder / ("model.safetensors" if safetensors else "pytorch_model.bin")).exists()
    before, (after, _) = load_checkpoint(path), load(folder)
    assert before["model"].keys() == after["model"].keys()
    assert all(t.equal(after["model"][name]) for name, t in before["model"].items())
    assert GPTConfig(**after["model_config"]) == GPTConfig(**before["model_config"])
    assert after["tokenizer_sha256"] == before["tokenizer_sha256"]
    assert (folder / "merges.txt").read_text(encoding="utf-8") == MERGES  # found again from the ranks
    with pytest.raises(BadInput, match="not empty"):
        exported(path, folder)


def test_export_without_biases_and_with_padding(tmp_path):
    path, model, _ = checkpoint(tmp_path / "a", bias=False)
    ckpt, other = load(padded(exported(path, tmp_path / "hf"), 320))
    x = torch.randint(0, model.config.vocab_size, (2, 32))
    torch.testing.assert_close(other.logits(other(x)), model.logits(model(x)), rtol=0, atol=1e-6)
    assert len(ckpt["model"]["wte.weight"]) == ckpt["model_config"]["vocab_size"] == model.config.vocab_size


def test_logits_are_those_of_hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers")
    path, model, enc = checkpoint(tmp_path / "a")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(str(exported(path, tmp_path / "out"))).eval()
    x = torch.randint(0, enc.n_vocab, (3, 32))
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model(x)), theirs(x).logits, rtol=0, atol=1e-4)
        # and the other way, from a model that they made
        sizes = dict(vocab_size=enc.n_vocab, n_positions=40, n_embd=32, n_layer=3, n_head=4)
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).eval()
        for p in theirs.parameters():
            p.data += 0.1 * torch.randn_like(p)
        theirs.save_pretrained(str(tmp_path / "in"))
        shutil.copy(tmp_path / "a" / "merges.txt", tmp_path / "in")
        _, model = load(tmp_path / "in")
        torch.testing.assert_close(model.logits(model(x)), theirs(x).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("tokenizer", ["merges", "demo"])
def test_exported_tokenizer_gives_the_same_ids(tmp_path, demo, tokenizer):
    transformers = pytest.importorskip("transformers")
    enc = checkpoint(tmp_path / "a")[2] if tokenizer == "merges" else load_tokenizer(demo)
    export.export_tokenizer(enc, 32, str(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    text = ("Question: Ben has 8 boats. The and then, in the  barn\n\n\tdon't été 漢字 🙂 in\n "
            "Answer: 3 + 1 = 4.")
    ids = theirs(text)["input_ids"]
    assert ids == enc.encode_ordinary(text) and theirs.decode(ids) == text
    assert theirs("a<|endoftext|>b")["input_ids"] == enc.encode("a<|endoftext|>b", allowed_special="all")


@pytest.mark.parametrize("kind, names", [("demo", "eos"), ("merges", "eos"), ("gpt2 folder", "bos eos unk"),
                                         ("other class", "eos"), ("with padding", "eos pad")])
def test_an_export_names_the_special_tokens_that_there_were(tmp_path, demo, kind, names):
    """GPT-2's own tokenizer names <|endoftext|> in three roles; of others it is the end, and what their files say."""
    end, source = "<|endoftext|>", demo
    if kind != "demo":
        path, _, _ = checkpoint(tmp_path / "a")
        source = str(tmp_path / "a") if kind == "merges" else str(exported(path, tmp_path / "hf"))
        config = {"other class": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None},
                  "with padding": {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": end, "unk_token": "<none>"}}
        if kind != "merges":  # GPT-2's own file says nothing of them
            (tmp_path / "hf" / "tokenizer_config.json").write_text(json.dumps(config.get(kind, {"model_max_length": 9})))
    (tmp_path / "corpus").mkdir()
    save_tokenizer(load_tokenizer(source), str(tmp_path / "corpus"))
    enc = load_tokenizer(str(tmp_path / "corpus"))
    export.export_tokenizer(enc, 32, str(tmp_path))
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for name in ("bos", "eos", "unk", "pad"):
        assert said[f"{name}_token"] == (end if name in names.split() else None)
    for n_rows, expected in ((enc.n_vocab, enc.eot_token), (enc.n_vocab - 1, None)):  # no id that has no row
        ids = export.special_ids(enc, n_rows)
        assert [ids[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [
            expected if name in names.split() else None for name in ("bos", "eos", "pad")]
    path = tmp_path / "corpus" / "tokenizer.json"  # of a corpus of an older revision, only GPT-2's is known to have more
    about = json.loads(path.read_text())
    del about["special_tokens"]
    path.write_text(json.dumps(about))
    assert (load_tokenizer(str(tmp_path / "corpus")).named["bos_token"] == end) == (about["name"] == "gpt2")


def test_merges_by_brute_force():
    """Joined in any other order than the merges found, the tokens do not come out."""
    ranks = {bytes([b]): b for b in range(256)}
    ranks |= {b"ab": 256, b"bc": 257, b"abc": 258, b"xyz": 259, b"yz": 260}
    assert export.merges(b"ab", ranks) == [(b"a", b"b")] and export.merges(b"a", ranks) == []
    assert export.merges(b"abc", ranks) == [(b"ab", b"c")]  # not a + bc: ab was merged first
    assert export.merges(b"xyz", ranks) == [(b"x", b"yz")]  # a word put in whole, before its parts


def serve(monkeypatch, tmp_path, folders):
    """Let {repository: folder} be what is published. Returns the list of files that are asked for."""
    asked = []

    def urlopen(url, timeout):
        repository, file = re.fullmatch(r"https://huggingface.co/(.*)/resolve/main/(.*)", url).groups()
        asked.append(f"{repository}/{file}")
        path = folders[repository] / file
        if not path.exists():
            raise urllib.error.HTTPError(url, 404, "Not Found", {}, None)
        return open(path, "rb")
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return asked


def test_published_names_are_downloaded_once_each(tmp_path, monkeypatch):
    path, model, enc = checkpoint(tmp_path / "a")
    folder = exported(path, tmp_path / "hf")
    state = {name: t.t() if name.endswith(pretrained.TRANSPOSED) else t for name, t in model.state_dict().items()}
    # What theirs hold, too: causal masks, and the output layer under its own name.
    state |= {"h.0.attn.bias": torch.ones(1, 1, 32, 32).tril(), "lm_head.weight": state["wte.weight"]}
    torch.save(state, folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    del config["tokenizer_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    asked = serve(monkeypatch, tmp_path, {"openai-community/gpt2": folder})
    for _ in range(2):
        ckpt = load_checkpoint("gpt2")
    assert asked == [f"openai-community/gpt2/{file}" for file in ("config.json", "merges.txt", "pytorch_model.bin")]
    assert all(t.equal(ckpt["model"][name]) for name, t in model.state_dict().items())
    assert ckpt["tokenizer_sha256"] == tokenizer_hash(enc)  # of the merges

    def no_network(*_, **__):
        raise OSError("no route to host")
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(BadInput, match="cannot download .*gpt2-large.*no route to host.*fetch the model elsewhere"):
        load_checkpoint("gpt2-large")


def test_the_tokenizer_of_weights_without_one():
    try:
        assert tokenizer_hash(load_tokenizer("gpt2")) == pretrained.TOKENIZER_SHA256
    except BadInput:
        pass  # no network: the next line only says that GPT-2's size stands for this constant
    assert pretrained.tokenizer_of("nowhere", {}, 50257) == pretrained.TOKENIZER_SHA256
    with pytest.raises(BadInput, match="merges.txt"):
        pretrained.tokenizer_of("nowhere", {}, 50258)


def test_files_that_are_not_gpt2(tmp_path):
    path, model, _ = checkpoint(tmp_path / "a")
    folder = exported(path, tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    for change, says in (({"model_type": "mamba"}, "model_type 'mamba'"), ({"model_type": "llama"}, "hidden_size"),
                         ({"activation_function": "relu"}, "activation_function"),
                         ({"n_layer": 3}, "n_layer 3")):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(BadInput, match=says):
            load_checkpoint(str(folder))
    (tmp_path / "cut.bin").write_bytes((tmp_path / "a" / "ckpt.pt").read_bytes()[:3000])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0")
    (tmp_path / "empty").mkdir()
    torch.save({"a": torch.ones(2)}, tmp_path / "other.bin")
    own_head = model.state_dict() | {"lm_head.weight": torch.zeros_like(model.wte.weight)}
    torch.save(own_head, tmp_path / "own_head.bin")
    torch.save({"wte.weight": torch.ones(3, 4)}, tmp_path / "part.bin")
    for name, says in (("cut.bin", "truncated"), ("other.bin", "does not hold"),
                       ("part.bin", "does not hold"), ("own_head.bin", "output layer of its own"),
                       ("none.bin", "there is no"), ("empty", "holds neither"),
                       ("cut.safetensors", "truncated|pip install safetensors")):
        with pytest.raises(BadInput, match=says):
            load_checkpoint(str(tmp_path / name))
    with pytest.raises(BadInput, match="another tokenizer"):
        export.main(export.Config(export=[path, str(tmp_path / "x")], data=str(other_tokenizer(tmp_path))))


def other_tokenizer(tmp_path):
    (tmp_path / "other_tokenizer").mkdir()
    save_tokenizer(demo_tokenizer(), str(tmp_path / "other_tokenizer"))
    return tmp_path / "other_tokenizer"


def padded(folder, n_rows):
    """The exported weights in `folder` with rows in the embedding that are no id, as some published files
    have them, and with values that would win everywhere if they could."""
    state = pretrained.read_tensors(pretrained.weights_file(str(folder)))
    weight = state["transformer.wte.weight"]                               # (V, C)
    more = torch.full((n_rows - len(weight), weight.shape[1]), 50.0)
    state["transformer.wte.weight"] = torch.cat([weight, more])            # (n_rows, C)
    for name in pretrained.WEIGHTS:
        (folder / name).unlink(missing_ok=True)
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def test_padded_ids_are_never_predicted_and_change_nothing(tmp_path, monkeypatch):
    """Loss, gradients and generation with an embedding of more rows than ids, against the embedding without;
    and with an output matrix that the fast form pads, as it does on a GPU."""
    path, model, enc = checkpoint(tmp_path / "a")
    V = enc.n_vocab
    ckpt, wide = load(padded(exported(path, tmp_path / "hf"), 320))
    assert len(wide.wte.weight) == V < 320 and wide.logits(torch.zeros(1, 16)).shape == (1, V)
    assert ckpt["model"]["wte.weight"].equal(model.state_dict()["wte.weight"])
    x, y = torch.randint(0, V, (2, 4, 32))
    n, ref_loss = y.numel(), torch.zeros(4, 32)
    for k in (n, 40, 100):
        results = []
        for m, n_rows in ((model, V), (wide, 320)):
            monkeypatch.setattr(fast_loss, "padded", lambda weight: F.pad(weight, (0, 0, 0, n_rows - V)))
            m.zero_grad()
            loss, losses, selected = fast_loss.selected_loss(m(x), m.output_weight, y, ref_loss, k,
                                                             train_slm.excess_loss)
            loss.backward()
            assert m.wte.weight.grad.shape == (V, 16) and selected.sum() == k
            results.append((loss, losses, selected, m.wte.weight.grad, m.h[0].attn.c_attn.weight.grad))
        for a, b in zip(*results):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    losses = fast_loss.token_losses(wide(x), wide.output_weight, y)
    torch.testing.assert_close(losses, token_loss(model.logits(model(x)), y).detach(), rtol=1e-5, atol=1e-5)
    assert generate(wide, [[1, 2, 3]], 20) == generate(model, [[1, 2, 3]], 20)


def test_cropped_positions(tmp_path):
    path, model, enc = checkpoint(tmp_path / "a")
    corpus = types.SimpleNamespace(tokenizer_sha256=tokenizer_hash(enc))
    cfg = train_slm.Config(init_from=path, crop=True, block_size=20)
    short = initial_model(cfg, corpus)[0].eval()
    x = torch.randint(0, enc.n_vocab, (2, 20))
    assert short.config.block_size == 20 and short(x).equal(model(x))
    with pytest.raises(BadInput, match="block_size 40 is more than the 32"):  # positions never come to be
        initial_model(dataclasses.replace(cfg, block_size=40), corpus)


def test_training_from_exported_weights_is_training_from_the_checkpoint(demo, tmp_path):
    """Both scripts, with the same trace; from weights with more rows than ids, too."""
    base = str(train(train_ref, tmp_path / "base", demo) / "ckpt.pt")
    folder = str(exported(base, tmp_path / "hf"))
    wide = str(padded(exported(base, tmp_path / "wide"), 512))
    V = load_tokenizer(demo).n_vocab
    for script, how in ((train_ref, {}), (train_slm, {"keep": 0.5, "select": "high_loss"})):
        traces = []
        for i, options in enumerate((dict(init_from=base), dict(init_from=folder), dict(init_from=wide),
                                     dict(init_from=base, crop=True, block_size=16))):
            folder_i = tmp_path / f"{script.__name__}{i}"
            run = train(script, folder_i, demo, **how, **{"block_size": 32} | options)
            traces.append([r["loss"] for r in records(run)])
        assert traces[0] == traces[1] == pytest.approx(traces[2], abs=1e-5) and traces[3] != traces[0]
        ckpt = load_checkpoint(str(tmp_path / f"{script.__name__}2" / "ckpt.pt"))
        assert ckpt["model_config"]["vocab_size"] == len(ckpt["model"]["wte.weight"]) == V < 512
        ckpt = load_checkpoint(str(tmp_path / f"{script.__name__}3" / "ckpt.pt"))
        assert ckpt["model_config"]["block_size"] == 16
