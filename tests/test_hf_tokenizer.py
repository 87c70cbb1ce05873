"""Tokenizers of Hugging Face's format (corpora/hf_tokenizer.py): both kinds, against the package itself."""
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import eval_math
import train_slm
from controls import rescore
from corpora.hf_tokenizer import NAMES, HFTokenizer
from corpora.tokenizers import load_tokenizer, save_tokenizer, tokenizer_hash
from distillation import corpus, on_policy, rollouts
from engine.checkpoints import save_checkpoint
from engine.cli import BadInput
from engine.generation import prompt_ids
from grading import likelihood
from helpers import records, train
from model import GPT, GPTConfig
from test_data import documents_of, own_corpus, write
from test_gpt2 import checkpoint, exported, imported

TEXTS = ["\u0120gantija is on Gozo", "the old man and the sea, 3 + 4 = 7.",
         "the man in the sea\n\nand the naïve café", "Question: 12 hens? 東京 🙂"]
HARD = [*TEXTS, " starts with a space", "", "\n", "two  spaces", "<|endoftext|> and </s> are text",
        "tab\tand \u2581"]


def made(folder, kind):
    """A folder with tokenizer.json and tokenizer_config.json, of GPT-2's kind (bytes) or of Llama 2's (low
    lines); the package's own tokenizer; and the token that ends a text."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
    folder.mkdir()
    if kind == "bytes":
        end, special, alphabet = "<|endoftext|>", ["<|endoftext|>"], dict(initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        t = tokenizers.Tokenizer(models.BPE())
        t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        end, special, alphabet = "</s>", ["<unk>", "<s>", "</s>"], dict(limit_alphabet=40)
        special += [f"<0x{b:02X}>" for b in range(256)]
        t = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False, **alphabet)
    t.train_from_iterator(TEXTS * 3, trainer)
    spec = json.loads(t.to_str())
    spec["added_tokens"] = [a for a in spec["added_tokens"] if not a["content"].startswith("<0x")]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": end}}))
    return folder, tokenizers.Tokenizer.from_str(json.dumps(spec)), end


@pytest.mark.parametrize("kind", ["bytes", "low lines"])
def test_ids_are_the_packages_and_text_comes_back(tmp_path, kind):
    folder, theirs, end = made(tmp_path / "hf", kind)
    enc = load_tokenizer(str(folder / "tokenizer.json"))
    assert isinstance(enc, HFTokenizer) and enc.eot_token == theirs.token_to_id(end)
    assert enc.n_vocab == theirs.get_vocab_size() and enc.low_line == enc.puts_space == (kind != "bytes")
    theirs.encode_special_tokens = True
    for text in HARD:
        ids = enc.encode_ordinary(text)
        assert enc.eot_token not in ids
        if not (enc.puts_space and text.startswith(" ")):
            assert ids == theirs.encode(text, add_special_tokens=False).ids or not text
        back = enc.decode(ids)
        spaced = " " + text if enc.puts_space and text and not text.startswith(" ") else text
        assert back == spaced.replace("\u2581", " " if enc.puts_space else "\u2581"), text
        assert b"".join(map(enc.decode_single_token_bytes, ids)).decode() == back
    assert enc.encode_ordinary_batch(TEXTS, num_threads=2) == [enc.encode_ordinary(text) for text in TEXTS]


def test_a_panic_in_a_batch_names_the_text_that_it_is_about(tmp_path):
    class PanicException(BaseException):
        pass

    def encode(texts, **_):
        if "bad" in str(texts):
            raise PanicException
        return SimpleNamespace(ids=[])
    enc = load_tokenizer(str(made(tmp_path / "hf", "bytes")[0]))
    enc.tokenizer = SimpleNamespace(encode_batch=encode, encode=encode)
    with pytest.raises(BadInput, match="a text of 5 characters that begins 'a bad'"):
        enc.encode_ordinary_batch(["a longer text", "a bad", "the end"])


def test_bad_tokenizers_are_one_line(tmp_path, monkeypatch):
    folder, _, _ = made(tmp_path / "hf", "bytes")
    spec = json.loads((folder / "tokenizer.json").read_text())
    with pytest.raises(BadInput, match="vocab_size is for byte-pair"):
        load_tokenizer(str(folder), vocab_size=300)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        (folder / name).write_text("[]")
        with pytest.raises(BadInput, match=f"{name} is not a JSON object"):
            load_tokenizer(str(folder))
        (folder / name).unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<none>"}))
    with pytest.raises(BadInput, match="which token .* ends a text"):
        load_tokenizer(str(folder))
    (folder / "tokenizer_config.json").write_text('{"eos_token": 5}')
    assert load_tokenizer(str(folder)).end == "<|endoftext|>"  # the first that is known
    (folder / "tokenizer.json").write_text(json.dumps(spec | {"model": {"type": "BPE"}}))
    with pytest.raises(BadInput, match="damaged"):
        load_tokenizer(str(folder))
    save_tokenizer(HFTokenizer(json.dumps(spec), None, "x/tokenizer.json"), str(tmp_path))
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # as if it were not installed
    with pytest.raises(BadInput, match="pip install tokenizers"):
        load_tokenizer(str(tmp_path))


# ------------------------------------------------------------------ begin tokens, and what an export names

def low_lines(folder, template=None, config=None, added=()):
    """A folder with a tokenizer of the second kind, with this template and this tokenizer_config.json."""
    made(folder, "low lines")
    tokenizers = pytest.importorskip("tokenizers")
    t = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    if template:
        ids = [(token, t.token_to_id(token)) for token in ("<s>", "</s>", "<unk>")]
        t.post_processor = tokenizers.processors.TemplateProcessing(single=template, special_tokens=ids)
    t.add_special_tokens(list(added))
    t.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"} | (config or {})))
    return folder


def in_corpus(folder, tmp_path):
    """A tokenizer's folder as a corpus folder keeps it."""
    (tmp_path / "corpus").mkdir()
    save_tokenizer(load_tokenizer(str(folder)), str(tmp_path / "corpus"))
    return str(tmp_path / "corpus")


BEGIN = {"bos_token": "<s>", "add_bos_token": True}


@pytest.mark.parametrize("template, config, start", [
    (None, {}, []), ("<s> $A </s>", {}, [1]), ("<s> <unk> $A </s> </s>", {}, [1, 0]), (None, BEGIN, [1]),
    ("$A </s>", BEGIN, [1]), ("<s> $A", BEGIN, [1]), (None, {"bos_token": "<s>"}, [])], ids=str)
def test_what_begins_a_text_stands_once_before_every_prompt(tmp_path, monkeypatch, template, config, start):
    folder = low_lines(tmp_path / "hf", template, config)
    asked, question = [], "Question: the man?\nAnswer:"
    monkeypatch.setattr(likelihood, "continuation_losses",
                        lambda model, prompts, _: asked.extend(prompts) or [torch.ones(1)])
    model = SimpleNamespace(config=SimpleNamespace(block_size=24))
    path = write(tmp_path / "a.jsonl", [{"question": "the man?", "answer": "The answer is 7."}])
    for enc in (load_tokenizer(str(folder)), load_tokenizer(in_corpus(folder, tmp_path))):
        assert enc.start == start
        whole = [*start, *enc.encode_ordinary(question)]
        assert eval_math.fit_prompt(question, [], enc, 200)[1] == whole
        shots = [f"{question} 7."] * 3  # with as many as fit, and the begin once
        prompt, ids, n = eval_math.fit_prompt(question, shots, enc, 70)
        assert 0 < n < 3 and ids == [*start, *enc.encode_ordinary(prompt)] and len(ids) <= 70
        assert rollouts.Problems(path, enc).prompts == [whole]
        asked.clear()
        likelihood.likeliest_option(model, enc, question, ["7"])  # which cuts the question, not the begin
        room = 24 - len(enc.encode_ordinary(" 7")) - len(start)
        assert asked == [[*start, *enc.encode_ordinary(question)[-room:]]]


@pytest.mark.parametrize("template, config, named, ids", [
    ("<s> $A", {"bos_token": "<s>", "unk_token": {"content": "<unk>"}, "pad_token": "<unk>"},
     ("<s>", "</s>", "<unk>", "<unk>"), (1, 2, 0)),
    ("<s> $A </s>", {}, ("<s>", "</s>", "<unk>", None), (1, 2, None)),         # as the tokenizer itself says
    (None, {"unk_token": None}, (None, "</s>", None, None), (None, 2, None)),  # nothing is invented
    (None, BEGIN | {"pad_token": "</s>"}, ("<s>", "</s>", "<unk>", "</s>"), (1, 2, 2)),
    ("<s> $A", {"cls_token": "<s>", "pad_token": "<none>"}, (None, "</s>", "<unk>", None), (None, 2, None)),
    ("<s> $A", {"pad_token": "<pad>"}, ("<s>", "</s>", "<unk>", "<pad>"), (1, 2, None))], ids=str)  # no row
def test_an_export_names_the_special_tokens_that_the_tokenizer_had(tmp_path, template, config, named, ids):
    added = ["<pad>"] if config.get("pad_token") == "<pad>" else []
    folder = low_lines(tmp_path / "hf", template, config, added)
    path, _, enc = checkpoint(tmp_path / "a", folder, arch="llama", vocab_size=330)
    out = exported(path, tmp_path / "out")
    tokenizer, about = (json.loads((out / name).read_text()) for name in ("tokenizer_config.json", "config.json"))
    assert tuple(map(tokenizer.get, NAMES)) == named
    assert tuple(about[f"{name}_token_id"] for name in ("bos", "eos", "pad")) == ids
    ckpt, _ = imported(out, tmp_path / "in")  # and so it comes back
    after = load_tokenizer(str(tmp_path / "in"))
    assert ckpt["tokenizer_sha256"] == after.sha256() == enc.sha256()
    assert after.named == enc.named and after.start == enc.start


def test_published_weights_with_a_tokenizer_json(tmp_path):
    """Their config.json names no hash, as others publish them, or that of another tokenizer."""
    path, _, enc = checkpoint(tmp_path / "a", low_lines(tmp_path / "hf"), arch="llama")
    folder = exported(path, tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    del config["tokenizer_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    ckpt, _ = imported(folder, tmp_path / "in")
    assert ckpt["tokenizer_sha256"] == tokenizer_hash(load_tokenizer(str(tmp_path / "in"))) == enc.sha256()
    (folder / "config.json").write_text(json.dumps(config | {"tokenizer_sha256": "0" * 64}))
    with pytest.raises(BadInput, match="not the one that its config.json names"):
        imported(folder, tmp_path / "other")


def test_transformers_reads_the_names_and_the_begin_of_an_export(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = low_lines(tmp_path / "hf", "$A", BEGIN)
    out = exported(checkpoint(tmp_path / "a", folder, arch="llama")[0], tmp_path / "out")
    theirs, enc = transformers.AutoTokenizer.from_pretrained(str(out)), load_tokenizer(str(folder))
    assert [getattr(theirs, name) for name in NAMES] == ["<s>", "</s>", "<unk>", None]
    assert theirs("the man")["input_ids"] == prompt_ids(enc, "the man")
    config = transformers.AutoConfig.from_pretrained(str(out))
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, None)


# -------------------------------------------------------------------- ids without rows, rows without ids

def test_an_id_that_the_weights_have_no_row_for(tmp_path):
    """Nobody gave the tokenizer's last token a row. That does no harm until a text has it. (tests/test_bad_input.py has
    the other scripts that bring weights and a corpus together.)"""
    rows = [{"question": f"the man has {i} hens?", "answer": f"The answer is {i}."} for i in range(60)]
    path, folder = write(tmp_path / "a.jsonl", rows), low_lines(tmp_path / "hf", "<s> $A", added=["<|im_end|>"])
    data = own_corpus(tmp_path / "c", path, path, field=["question", "answer"], tokenizer=str(folder), held_out=0.2)
    for problems in ("eval", "curated"):
        shutil.copy(path, tmp_path / "c" / f"{problems}.jsonl")
    documents = {text.strip() for name in ("curated", "val", "test") for text in documents_of(data, name)}
    assert documents == {f"{row['question']}\n{row['answer']}" for row in rows}
    n_rows = load_tokenizer(data).n_vocab - 1
    ckpt, _, _ = checkpoint(tmp_path / "weights", folder, arch="llama", vocab_size=n_rows)
    rescore.main(rescore.Config(how="random", data=data, block_size=32, out=str(tmp_path / "random")))
    uses = [(train_slm, dict(block_size=32, batch_tokens=64, train_tokens=128, warmup_steps=1, init_from=ckpt,
                             scores=str(tmp_path / "random"))),
            (on_policy, dict(student=ckpt, teacher=[ckpt], rollouts=2, steps=1, eval_problems=2, max_new_tokens=2))]
    for script, options in uses:
        script.main(script.Config(data=data, device="cpu", eval_rows=4, out=f"{tmp_path}/{script.__name__}", **options))
    tokens = np.fromfile(f"{data}/val.bin", dtype=np.uint16)  # the held-out text counts, too
    tokens[-1] = n_rows
    tokens.tofile(f"{data}/val.bin")
    for script, options in uses:
        with pytest.raises(BadInput, match=rf"{n_rows} token ids.* has {n_rows + 1}, and id {n_rows} is in use"):
            script.main(script.Config(data=data, device="cpu", out=str(tmp_path / "no"), **options))


def test_rows_that_are_no_token_are_never_drawn(demo, tmp_path):
    """The rows behind the tokenizer's ids have the highest logits, for whoever would look at them."""
    enc = load_tokenizer(demo)
    config, paths = dict(block_size=96, n_layer=1, n_head=2, n_embd=16, arch="llama", tied=False), []
    for n_more in (0, 40):
        torch.manual_seed(0)
        state = GPT(GPTConfig(vocab_size=enc.n_vocab, **config)).state_dict()
        for name in ("wte.weight", "lm_head.weight"):
            more = torch.ones(n_more, 16)
            more[::2] *= -1
            state[name] = torch.cat([state[name], more])
        paths.append(str(tmp_path / f"{n_more}.pt"))
        save_checkpoint(paths[-1], {"model": state, "tokenizer_sha256": tokenizer_hash(enc),
                                    "model_config": config | {"vocab_size": enc.n_vocab + n_more}})
    texts = []
    for path in paths:
        out = tmp_path / f"eval{len(texts)}"
        eval_math.main(eval_math.Config(ckpt=[path], data=demo, n=3, samples=2, out=str(out), device="cpu", max_new_tokens=9))
        [rows] = out.glob("*-demo-*.jsonl")
        texts.append([(row["generation"], row["samples"]) for row in map(json.loads, rows.open())])
    assert texts[0] == texts[1] and all(text for text, _ in texts[0])
    assert enc.decode([enc.n_vocab + 3, *enc.encode_ordinary(" the")]) == " the"  # nor would they say a thing
    logs = []
    for i, (student, teacher) in enumerate(((0, 0), (0, 1), (1, 0))):  # the two need not have as many rows
        on_policy.main(on_policy.Config(student=paths[student], teacher=[paths[teacher]], data=demo, rollouts=4, steps=1,
                                        max_new_tokens=9, eval_problems=2, eval_rows=4, device="cpu", loss="exact_kl",
                                        out=str(tmp_path / f"opd{i}")))
        [line] = records(tmp_path / f"opd{i}")
        logs.append([line[key] for key in ("length", "student_entropy", "teacher_entropy")])
    assert pytest.approx(logs[0], rel=1e-4) == logs[1] and pytest.approx(logs[0], rel=1e-4) == logs[2]
    train(corpus, tmp_path / "distilled", demo, ref=paths[1], init_from=paths[0], train_tokens=512)
