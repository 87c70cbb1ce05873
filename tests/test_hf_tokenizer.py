"""Tokenizers of Hugging Face's format (corpora/hf_tokenizer.py): both kinds, made here, against the package itself."""
import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch

import eval_math
import prepare
import score
import train_ref
import train_slm
from common import save_checkpoint
from corpora.hf_tokenizer import HFTokenizer
from corpora.tokenizers import load_tokenizer, prompt_ids, save_tokenizer, tokenizer_hash
from data import Tokens
from engine.cli import BadInput
from extras import distill, export, highlight, measures, rollouts
from grading import likelihood
from helpers import records, train
from model import GPT, GPTConfig

TEXTS = ["\u0120gantija is on Gozo", "the old man and the sea, 3 + 4 = 7.", "the man in the sea\n\nand the naïve café", "Question: 12 hens? 東京 🙂"]
HARD = [*TEXTS, " starts with a space", "", "\n", "two  spaces", "<|endoftext|> and </s> are text", "tab\tand \u2581"]


def made(folder, kind):
    """A folder with tokenizer.json and tokenizer_config.json: of GPT-2's kind (bytes), or of Llama 2's (low lines)."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
    folder.mkdir()
    if kind == "bytes":
        t = tokenizers.Tokenizer(models.BPE())
        t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<|endoftext|>"], show_progress=False,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        end = "<|endoftext|>"
    else:
        t = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        alphabet = [f"<0x{b:02X}>" for b in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<unk>", "<s>", "</s>", *alphabet],
                                      show_progress=False, limit_alphabet=40)
        end = "</s>"
    t.train_from_iterator(TEXTS * 3, trainer)
    spec = json.loads(t.to_str())
    spec["added_tokens"] = [a for a in spec["added_tokens"] if not a["content"].startswith("<0x")]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": end}}))
    return folder, tokenizers.Tokenizer.from_str(json.dumps(spec)), end


@pytest.mark.parametrize("kind", ["bytes", "low lines"])
def test_ids_are_the_packages_and_text_comes_back(tmp_path, kind):
    folder, theirs, end = made(tmp_path / "hf", kind)
    enc = load_tokenizer(str(folder))
    assert isinstance(enc, HFTokenizer) and enc.eot_token == theirs.token_to_id(end)
    assert enc.n_vocab == theirs.get_vocab_size() and enc.low_line == (kind != "bytes") and enc.puts_space == (kind != "bytes")
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
    both = enc.encode("a man<|endoftext|>the sea", allowed_special={"<|endoftext|>"}, disallowed_special=())
    assert both == [*enc.encode_ordinary("a man"), enc.eot_token, *enc.encode_ordinary("the sea")]
    assert enc.encode("a<|endoftext|>") == enc.encode_ordinary("a<|endoftext|>")


def test_a_corpus_carries_its_hash_and_models_train_on_it(tmp_path):
    folder, _, _ = made(tmp_path / "hf", "bytes")
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(f"{text} {i}" for i in range(60) for text in TEXTS))
    cfg = prepare.Config(out=str(tmp_path / "c"), curated=[str(tmp_path / "a.txt")], noisy=[str(tmp_path / "a.txt")],
                         tokenizer=str(folder))
    assert list(cfg.validate()) == []
    prepare.main(cfg)
    enc = load_tokenizer(str(tmp_path / "c"))
    tokens = Tokens(str(tmp_path / "c"), "noisy", 32)
    again = load_tokenizer(str(folder / "tokenizer.json"))
    assert tokens.tokenizer_sha256 == tokenizer_hash(enc) == tokenizer_hash(again)
    assert tokens.vocab_size == enc.n_vocab and tokens.meta["end_of_text"] == enc.eot_token == 0
    assert tokens.tokens[-1] == enc.eot_token and TEXTS[0] in enc.decode(tokens.tokens[:-1].tolist())
    train(train_ref, tmp_path / "run", str(tmp_path / "c"), arch="llama")
    other, _, _ = made(tmp_path / "other", "low lines")
    assert tokenizer_hash(load_tokenizer(str(other))) != tokenizer_hash(enc)


def test_bad_tokenizers_are_one_line(tmp_path, monkeypatch):
    folder, _, _ = made(tmp_path / "hf", "bytes")
    spec = json.loads((folder / "tokenizer.json").read_text())
    with pytest.raises(BadInput, match="vocab_size is for byte-pair"):
        load_tokenizer(str(folder), vocab_size=300)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<none>"}))
    with pytest.raises(BadInput, match="which token .* ends a text"):
        load_tokenizer(str(folder))
    (folder / "tokenizer_config.json").unlink()
    assert load_tokenizer(str(folder)).end == "<|endoftext|>"  # the first that is known
    (folder / "tokenizer.json").write_text(json.dumps(spec | {"model": {"type": "BPE"}}))
    with pytest.raises(BadInput, match="damaged"):
        load_tokenizer(str(folder))
    save_tokenizer(HFTokenizer(json.dumps(spec), None, "x/tokenizer.json"), str(tmp_path))
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # as if it were not installed
    with pytest.raises(BadInput, match="pip install tokenizers"):
        load_tokenizer(str(tmp_path))


# -------------------------------------------------------------------------------- begin tokens, and what an export names

def low_lines(folder, template=None, config=None, added=()):
    """A folder with a tokenizer of the second kind, this template, and a tokenizer_config.json; and the package's own."""
    made(folder, "low lines")
    tokenizers = pytest.importorskip("tokenizers")
    t = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    if template:
        ids = [(token, t.token_to_id(token)) for token in ("<s>", "</s>", "<unk>")]
        t.post_processor = tokenizers.processors.TemplateProcessing(single=template, special_tokens=ids)
    t.add_special_tokens(list(added))
    t.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"} | (config or {})))
    return folder, t


@pytest.mark.parametrize("template, config, start", [
    (None, {}, []), ("<s> $A", {}, [1]), ("<s> $A </s>", {}, [1]), ("$A </s>", {}, []), ("<s> <unk> $A </s> </s>", {}, [1, 0]),
    (None, {"bos_token": "<s>", "add_bos_token": True}, [1]), ("$A </s>", {"bos_token": "<s>", "add_bos_token": True}, [1]),
    ("<s> $A", {"bos_token": "<s>", "add_bos_token": True}, [1]), (None, {"bos_token": "<s>"}, []),
    (None, {"add_bos_token": True}, [])], ids=str)
def test_what_stands_before_a_text_stands_once_before_every_prompt(tmp_path, monkeypatch, template, config, start):
    folder, _ = low_lines(tmp_path / "hf", template, config)
    (tmp_path / "corpus").mkdir()
    save_tokenizer(load_tokenizer(str(folder)), str(tmp_path / "corpus"))
    asked = []
    monkeypatch.setattr(likelihood, "continuation_losses", lambda model, prompts, _: asked.extend(prompts) or [torch.ones(1)])
    question, model = "Question: the man?\nAnswer:", SimpleNamespace(config=SimpleNamespace(block_size=24))
    (tmp_path / "problems.jsonl").write_text(json.dumps({"question": "the man?", "answer": "The answer is 7."}) + "\n")
    (tmp_path / "text.txt").write_text("the man")
    for enc in (load_tokenizer(str(folder)), load_tokenizer(str(tmp_path / "corpus"))):
        assert enc.start == start
        assert eval_math.fit_prompt(question, [], "\n\n", enc, 200)[1] == [*start, *enc.encode_ordinary(question)]
        shots = [f"{question} 7."] * 3  # with as many as fit, and the begin once
        prompt, ids, n = eval_math.fit_prompt(question, shots, "\n\n", enc, 70)
        assert 0 < n < 3 and ids == [*start, *enc.encode_ordinary(prompt)] and len(ids) <= 70
        assert rollouts.Problems(str(tmp_path / "problems.jsonl"), enc).prompts == [[*start, *enc.encode_ordinary(question)]]
        asked.clear()
        likelihood.likeliest_option(model, enc, question, ["7"])  # of a bare question that is cut, the begin stays
        room = 24 - len(enc.encode_ordinary(" 7")) - len(start)
        assert asked == [[*start, *enc.encode_ordinary(question)[-room:]]]
        shown = highlight.read_text(highlight.Config(text=str(tmp_path / "text.txt")), None, enc)
        assert shown == [*(start or [enc.eot_token]), *enc.encode_ordinary("the man")]


def exported(folder, tmp_path, n_rows=330):
    """Through a corpus and a checkpoint of n_rows ids to an export: (its folder, tokenizer_config.json, config.json)."""
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    save_tokenizer(load_tokenizer(str(folder)), str(corpus))
    enc = load_tokenizer(str(corpus))
    config = dict(block_size=32, vocab_size=n_rows, n_layer=1, n_head=2, n_embd=16, arch="llama")
    save_checkpoint(str(tmp_path / "ckpt.pt"), {"model": GPT(GPTConfig(**config)).state_dict(), "model_config": config,
                                                "tokenizer_sha256": tokenizer_hash(enc)})
    export.main(export.Config(export=[str(tmp_path / "ckpt.pt"), str(out)], data=str(corpus)))
    return out, *(json.loads((out / f"{name}.json").read_text()) for name in ("tokenizer_config", "config"))


@pytest.mark.parametrize("template, config, named, ids", [
    ("<s> $A", {"bos_token": "<s>", "unk_token": {"content": "<unk>"}, "pad_token": "<unk>"}, ("<s>", "</s>", "<unk>", "<unk>"), (1, 2, 0)),
    ("<s> $A </s>", {}, ("<s>", "</s>", "<unk>", None), (1, 2, None)),          # what the tokenizer itself says
    (None, {"unk_token": None}, (None, "</s>", None, None), (None, 2, None)),   # nothing is invented
    (None, {"bos_token": "<s>", "add_bos_token": True, "pad_token": "</s>"}, ("<s>", "</s>", "<unk>", "</s>"), (1, 2, 2)),
    ("<s> $A", {"cls_token": "<s>", "pad_token": "<none>"}, (None, "</s>", "<unk>", None), (None, 2, None)),
    ("<s> $A", {"pad_token": "<pad>"}, ("<s>", "</s>", "<unk>", "<pad>"), (1, 2, None))], ids=str)  # which has no row
def test_an_export_names_the_special_tokens_that_the_tokenizer_had(tmp_path, template, config, named, ids):
    folder, _ = low_lines(tmp_path / "hf", template, config, added=["<pad>"] if config.get("pad_token") == "<pad>" else [])
    out, tokenizer, about = exported(folder, tmp_path)
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    assert tuple(map(tokenizer.get, names)) == named and [about[f"{n}_id"] for n in (*names[:2], names[3])] == list(ids)
    before, after = load_tokenizer(str(folder)), load_tokenizer(str(out))  # and so it comes back
    assert after.named == before.named and after.start == before.start and after.sha256() == before.sha256()
    (tmp_path / "again").mkdir()
    assert exported(out, tmp_path / "again")[1:] == (tokenizer, about)


def test_transformers_reads_the_names_and_the_begin_of_an_export(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder, _ = low_lines(tmp_path / "hf", "$A", {"bos_token": "<s>", "add_bos_token": True})
    out, _, _ = exported(folder, tmp_path)
    theirs, enc = transformers.AutoTokenizer.from_pretrained(str(out)), load_tokenizer(str(folder))
    assert (theirs.bos_token, theirs.eos_token, theirs.unk_token, theirs.pad_token) == ("<s>", "</s>", "<unk>", None)
    assert theirs("the man")["input_ids"] == prompt_ids(enc, "the man")
    config = transformers.AutoConfig.from_pretrained(str(out))
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, None)


def test_corpora_from_before_special_tokens_were_kept(tmp_path):
    folder, _ = low_lines(tmp_path / "hf", "<s> $A </s>")
    save_tokenizer(load_tokenizer(str(folder)), str(tmp_path))
    path = tmp_path / "tokenizer.json"
    about = json.loads(path.read_text())
    del about["special_tokens"]
    path.write_text(json.dumps(about))
    enc = load_tokenizer(str(tmp_path))
    assert enc.sha256() == about["sha256"] and enc.start == [1]
    assert enc.named == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None}


# ------------------------------------------------------------------------------------- ids without rows, rows without ids

@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """Two corpora of one text whose tokenizer got a token more than the weights have rows for: in `end` it ends every
    document, in `pad` no text has it. And weights, {corpus: folder}, as an export writes them."""
    at, weights = tmp_path_factory.mktemp("added"), {}
    rows = [{"question": f"the man has {i} hens?", "answer": f"The answer is {i}."} for i in range(60)]
    (at / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("end", "pad"):
        config = {"eos_token": "<|im_end|>" if name == "end" else "</s>"}
        folder, _ = low_lines(at / f"hf_{name}", "<s> $A", config, added=["<|im_end|>"])
        prepare.main(prepare.Config(out=str(at / name), curated=[str(at / "a.jsonl")], noisy=[str(at / "a.jsonl")],
                                    field=["question", "answer"], tokenizer=str(folder), held_out=0.2))
        (at / f"w_{name}").mkdir()
        n_rows = load_tokenizer(str(folder)).n_vocab - 1
        weights[name] = str(exported(folder, at / f"w_{name}", n_rows)[0])
        for problems in ("eval", "curated"):
            (at / name / f"{problems}.jsonl").write_text((at / "a.jsonl").read_text())
    return at, weights, n_rows


def uses(added, corpus, tmp_path):
    """(script, options) of all that brings the weights and a corpus together."""
    at, weights, _ = added
    ckpt, data = weights[corpus], str(at / corpus)
    small = dict(block_size=32, batch_tokens=64, train_tokens=128, eval_rows=4, warmup_steps=1, data=data, device="cpu")
    asked = dict(max_new_tokens=2, device="cpu", data=data)
    yield train_ref, small | dict(init_from=ckpt, out=str(tmp_path / "ref"))
    yield train_slm, small | dict(init_from=ckpt, out=str(tmp_path / "slm"), keep=1.0)
    yield train_slm, small | dict(keep=1.0, distill=ckpt, arch="llama", n_embd=16, n_head=2, out=str(tmp_path / "distilled"))
    yield score, dict(ckpt=ckpt, data=data, out=str(tmp_path / "scores"), device="cpu")
    yield eval_math, asked | dict(ckpt=[ckpt], out=str(tmp_path / "eval"), shots=0, likelihood=True, n=2)
    yield distill, asked | dict(student=ckpt, teacher=[ckpt], rollouts=2, steps=1, eval_problems=2, out=str(tmp_path / "opd"))
    yield highlight, dict(data=data, ref=ckpt, ckpt=[ckpt], device="cpu", text="")


def test_an_id_that_the_weights_have_no_row_for_is_refused(added, tmp_path):
    at, weights, n_rows = added
    for script, options in uses(added, "end", tmp_path):
        with pytest.raises(BadInput, match=rf"rows for {n_rows} token ids.* has {n_rows + 1}, and id {n_rows} is in use"):
            script.main(script.Config(**options))
    for script, options in uses(added, "pad", tmp_path):  # a token that no text has does no harm
        script.main(script.Config(**options))
    shutil.copytree(at / "pad", tmp_path / "mixed")
    for ending in ("bin", "json"):  # the held-out text counts, too
        shutil.copy(at / "end" / f"test.{ending}", tmp_path / "mixed")
    with pytest.raises(BadInput, match=rf"mixed.test.bin has {n_rows + 1}"):
        train_ref.main(train_ref.Config(**next(uses(added, "pad", tmp_path))[1] | dict(data=str(tmp_path / "mixed"))))


def test_rows_that_are_no_token_are_never_drawn(demo, tmp_path):
    """With weights that give the rows behind the tokenizer's ids the highest logits, greedily and at a temperature."""
    enc = load_tokenizer(demo)
    config, paths = dict(block_size=96, n_layer=1, n_head=2, n_embd=16, arch="llama", tied=False), []
    for n_more in (0, 7, 40):
        torch.manual_seed(0)
        model = GPT(GPTConfig(vocab_size=enc.n_vocab, **config))
        for name, weight in (state := model.state_dict()).items():
            if name in ("wte.weight", "lm_head.weight"):
                more = 50 * torch.cat([weight.std() * torch.ones(n_more // 2, 16), -torch.ones(n_more - n_more // 2, 16)])
                state[name] = torch.cat([weight, more])
        paths.append(str(tmp_path / f"{n_more}.pt"))
        save_checkpoint(paths[-1], {"model": state, "tokenizer_sha256": tokenizer_hash(enc),
                                    "model_config": config | {"vocab_size": enc.n_vocab + n_more}})
    texts = []
    for path in paths:
        out = tmp_path / f"eval{path[-4]}"
        eval_math.main(eval_math.Config(ckpt=[path], data=demo, n=3, samples=2, out=str(out), device="cpu", max_new_tokens=9))
        [rows] = out.glob("*-demo-*.jsonl")
        texts.append([(row["generation"], row["samples"]) for row in map(json.loads, rows.open())])
        shutil.rmtree(out)
    assert texts[0] == texts[1] == texts[2] and all(text for text, _ in texts[0])
    assert enc.decode([enc.n_vocab + 3, *enc.encode_ordinary(" the")]) == " the"  # nor would they say anything
    logs = []
    for i, (student, teacher) in enumerate(((0, 0), (1, 2), (2, 0))):  # the two need not have as many rows
        how = dict(student=paths[student], teacher=[paths[teacher]], data=demo, rollouts=4, steps=1, max_new_tokens=9,
                   eval_problems=2, eval_rows=4, device="cpu")
        distill.main(distill.Config(**how, loss="exact_kl", out=str(tmp_path / f"opd{i}")))
        [line] = records(tmp_path / f"opd{i}")
        logs.append([line[key] for key in ("length", "student_entropy", "teacher_entropy")])
    assert pytest.approx(logs[0], rel=1e-4) == logs[1] and pytest.approx(logs[0], rel=1e-4) == logs[2]
    sizes = dict(block_size=32, keep=1.0, init_from=paths[1], train_tokens=512)
    train(train_slm, tmp_path / "distilled", demo, distill=paths[2], **sizes)
    run = train(train_slm, tmp_path / "slm", demo, **sizes)
    measures.main(measures.Config(ckpt=[str(run / "ckpt.pt")], data=demo, device="cpu", calibrate=False))
