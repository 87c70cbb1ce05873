"""GPT-2's weights in and out: the logits of Hugging Face's model, round trips, tokenizers, padding, bad files."""
import json
import os
import re
import shutil
import sys
import urllib.error
import urllib.request

import pytest
import torch

from corpora.tokenizers import load_tokenizer, save_tokenizer, tokenizer_hash
from engine.checkpoints import load_checkpoint, save_checkpoint
from engine.cli import BadInput
from model import GPT, GPTConfig
from weights import export, published

MERGES = "#version: 0.2\nĠ t\nĠt h\nĠth e\nt h\ni n\nĠ a\na n\nan d\nĠ and\n"


def checkpoint(folder, source=None, **options):
    """A checkpoint with random weights and biases, and a corpus folder with its tokenizer, that of `source` or of
    MERGES: (the path, its GPT, the tokenizer)."""
    folder.mkdir(exist_ok=True)
    (folder / "merges.txt").write_text(MERGES, encoding="utf-8")
    enc = load_tokenizer(str(source or folder / "merges.txt"))
    save_tokenizer(enc, str(folder))
    torch.manual_seed(0)
    config = dict(block_size=32, vocab_size=enc.n_vocab, n_layer=2, n_head=2, n_embd=16) | options
    model = GPT(GPTConfig(**config)).eval()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    path = str(folder / "ckpt.pt")
    save_checkpoint(path, {"model": model.state_dict(), "model_config": config,
                           "config": {"data": str(folder)}, "tokenizer_sha256": tokenizer_hash(enc)})
    return path, model, enc


def exported(path, folder):
    export.main(export.Config(export=[path, str(folder)]))
    return folder


def imported(model, out):
    """What weights.published makes of a model in the folder `out`: (the checkpoint, its GPT)."""
    cfg = published.Config(model=str(model), out=str(out))
    assert list(cfg.validate()) == []
    published.main(cfg)
    ckpt = load_checkpoint(str(out / "ckpt.pt"))
    gpt = GPT(GPTConfig(**ckpt["model_config"])).eval()
    gpt.load_state_dict(ckpt["model"])
    return ckpt, gpt


def the_same(ckpt, model):
    assert ckpt["model"].keys() == model.state_dict().keys()
    assert all(t.equal(ckpt["model"][name]) for name, t in model.state_dict().items())
    assert GPTConfig(**ckpt["model_config"]) == model.config


@pytest.mark.parametrize("tokenizer, safetensors", [("merges", True), ("merges", False), ("demo", True)])
def test_export_then_import_is_the_identity(tmp_path, monkeypatch, demo, tokenizer, safetensors):
    if safetensors:
        pytest.importorskip("safetensors")
    else:
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)  # as if it were not installed
    path, model, enc = checkpoint(tmp_path / "a", demo if tokenizer == "demo" else None)
    folder = exported(path, tmp_path / "hf")
    assert (folder / ("model.safetensors" if safetensors else "pytorch_model.bin")).exists()
    ckpt, _ = imported(folder, tmp_path / "out")
    the_same(ckpt, model)
    found = load_tokenizer(str(tmp_path / "out"))
    assert ckpt["tokenizer_sha256"] == tokenizer_hash(found) == tokenizer_hash(enc) and found.named == enc.named
    again = exported(str(tmp_path / "out" / "ckpt.pt"), tmp_path / "again")  # ckpt.pt says where its tokenizer is
    for name in os.listdir(folder):
        assert (again / name).read_bytes() == (folder / name).read_bytes() or name == "pytorch_model.bin"
    if tokenizer == "merges":
        assert (folder / "merges.txt").read_text(encoding="utf-8") == MERGES  # found again from the ranks
    with pytest.raises(BadInput, match="not empty"):
        exported(path, folder)


def test_what_is_there_is_not_written_over(tmp_path, demo):
    folder, out = exported(checkpoint(tmp_path / "a")[0], tmp_path / "hf"), tmp_path / "out"
    out.mkdir()
    for name in ("tokenizer.json.tmp7", "ckpt.pt.tmp7"):  # as if it had been interrupted
        (out / name).write_bytes(b"a part")
    shutil.copy(tmp_path / "a" / "tokenizer.json", out)
    imported(folder, out)
    before = {p: p.read_bytes() for p in out.iterdir()}
    for taken, name in ((out, "ckpt.pt"), (demo, "curated.bin"), (folder, "config.json")):  # a corpus, the model itself
        with pytest.raises(BadInput, match=f"{name} is there already: delete it, or give another --out"):
            published.main(published.Config(model=str(folder), out=str(taken)))
    assert before == {p: p.read_bytes() for p in out.iterdir()}
    (out / "ckpt.pt").unlink()
    shutil.copy(folder / "tokenizer.json", out)  # one that does not name the hash
    with pytest.raises(BadInput, match="out/tokenizer.json is there already"):
        imported(folder, out)
    assert (out / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    [problem] = published.Config(model="gpt2").validate()
    assert "--model is one of" in problem


def test_logits_are_those_of_hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers")
    path, model, enc = checkpoint(tmp_path / "a")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(str(exported(path, tmp_path / "hf"))).eval()
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
        _, model = imported(tmp_path / "in", tmp_path / "out")
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


@pytest.mark.parametrize("config, names", [
    ({"model_max_length": 9}, "bos eos unk"),  # GPT-2's own file says nothing of them
    ({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None}, "eos"),
    ({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>", "unk_token": "<none>"}, "eos pad")], ids=str)
def test_an_export_names_the_special_tokens_that_there_were(tmp_path, config, names):
    """GPT-2's own tokenizer names <|endoftext|> in three roles; of others it is the end, and what their files say."""
    end, folder = "<|endoftext|>", exported(checkpoint(tmp_path / "a")[0], tmp_path / "hf")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    save_tokenizer(load_tokenizer(str(folder)), str(tmp_path / "a"))
    export.export_tokenizer(load_tokenizer(str(tmp_path / "a")), 32, str(tmp_path))
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for name in ("bos", "eos", "unk", "pad"):
        assert said[f"{name}_token"] == (end if name in names.split() else None)


def serve(monkeypatch, tmp_path, folders):
    """Let {repository: folder} be what is published. Returns the list of files that are asked for."""
    asked = []

    def urlopen(url, timeout):
        repository, file = re.fullmatch(r"https://huggingface.co/(.*)/resolve/main/(.*)", url).groups()
        asked.append(file)
        path = folders[repository] / file
        if not path.exists():
            raise urllib.error.HTTPError(url, 404, "Not Found", {}, None)
        return open(path, "rb")
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return asked


def as_others_publish(folder, model):
    """Make an export what others publish: without our hash, with causal masks and the output layer under its own name."""
    state = {name: t.t() if name.endswith(published.TRANSPOSED) else t for name, t in model.state_dict().items()}
    state |= {"h.0.attn.bias": torch.ones(1, 1, 32, 32).tril(), "lm_head.weight": state["wte.weight"]}
    torch.save(state, folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    del config["tokenizer_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1024}))
    for name in ("tokenizer.json", "model.safetensors"):
        (folder / name).unlink(missing_ok=True)


def test_published_names_are_downloaded_once_each(tmp_path, monkeypatch):
    path, model, enc = checkpoint(tmp_path / "a")
    folder = exported(path, tmp_path / "hf")
    as_others_publish(folder, model)
    asked = serve(monkeypatch, tmp_path, {"openai-community/gpt2": folder})
    ckpt, _ = imported("gpt2", tmp_path / "out")
    assert asked == [*published.ABOUT, "pytorch_model.bin.index.json", "pytorch_model.bin"]
    the_same(ckpt, model)
    found, end = load_tokenizer(str(tmp_path / "out")), "<|endoftext|>"
    assert ckpt["tokenizer_sha256"] == tokenizer_hash(found) == tokenizer_hash(enc)  # of the merges
    assert found.named == dict(bos_token=end, eos_token=end, unk_token=end, pad_token=None) and found.start == []

    def no_network(*_, **__):
        raise OSError("no route to host")
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    imported("gpt2", tmp_path / "again")  # which is complete
    with pytest.raises(BadInput, match="cannot download .*gpt2-large.*no route to host.*fetch the model elsewhere"):
        published.main(published.Config(model="gpt2-large", out=str(tmp_path / "large")))


def test_files_that_are_not_gpt2(tmp_path):
    path, model, _ = checkpoint(tmp_path / "a")
    folder, out = exported(path, tmp_path / "hf"), tmp_path / "out"
    config, weights = json.loads((folder / "config.json").read_text()), folder / "pytorch_model.bin"

    def refused(says, source=folder):
        with pytest.raises(BadInput, match=says):
            imported(source, out)
        assert not out.exists()
    for change, says in (({"model_type": "mamba"}, "model_type 'mamba'"), ({"model_type": "llama"}, "hidden_size"),
                         ({"activation_function": "relu"}, "activation_function"), ({"n_layer": 3}, "n_layer 3"),
                         ({"n_head": 3}, "divisible by n_head"), ({"vocab_size": 999}, "wte.weight is missing, .* shape")):
        (folder / "config.json").write_text(json.dumps(config | change))
        refused(says)
    (folder / "config.json").write_text(json.dumps(config))
    as_others_publish(folder, model)
    (folder / "merges.txt").unlink()
    refused("stand for is not known: put its tokenizer.json there, or the merges.txt")
    own_head = model.state_dict() | {"lm_head.weight": torch.zeros_like(model.wte.weight)}
    for content, says in ((own_head, "output layer of its own"), ({"wte.weight": torch.ones(3, 4)}, "does not hold")):
        torch.save(content, weights)
        refused(says)
    weights.write_bytes(weights.read_bytes()[:300])
    refused("truncated")
    weights.rename(folder / "model.safetensors")
    refused("truncated|pip install safetensors")
    (folder / "model.safetensors").unlink()
    refused("has none of model.safetensors")
    refused("no folder .*none with a config.json: give one, or one of the names gpt2", tmp_path / "none")


def test_rows_that_are_no_id_are_cut_off(tmp_path):
    """Some published files have them; here with values that would win everywhere if they could."""
    path, model, enc = checkpoint(tmp_path / "a")
    folder = exported(path, tmp_path / "hf")
    state = published.read_folder(str(folder))
    more = torch.full((9999 - enc.n_vocab, 16), 50.0)
    state["transformer.wte.weight"] = torch.cat([state["transformer.wte.weight"], more])  # (9999, C)
    (folder / "model.safetensors").unlink(missing_ok=True)
    torch.save(state, folder / "pytorch_model.bin")
    the_same(imported(folder, tmp_path / "out")[0], model)
    assert os.path.getsize(tmp_path / "out" / "ckpt.pt") < 1.1 * os.path.getsize(path)  # nor are they saved unseen
