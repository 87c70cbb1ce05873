"""Tokenizers, token files, fixed rows, and the built-in builtin."""
import dataclasses
import gzip
import itertools
import json
import lzma
import os
import re
import shutil
import sys
import types

import numpy as np
import pytest

import prepare
from corpora import builtin, own_text
from corpora.readers import read_documents
from corpora.tokenizers import demo_tokenizer, load_tokenizer, save_tokenizer
from corpora.writer import LOCK, TokenWriter
from data import Tokens, batch
from engine.cli import BadInput
from engine.files import locked


# ------------------------------------------------------------------------------------------- rows and batches

def test_rows_are_consecutive_and_targets_shifted_by_one(demo):
    tokens = Tokens(demo, "noisy", 32)
    raw = np.fromfile(os.path.join(demo, "noisy.bin"), dtype=np.uint16)
    labels = np.fromfile(os.path.join(demo, "noisy.labels.bin"), dtype=np.uint8)
    assert tokens.n_rows == (len(raw) - 1) // 32 and len(labels) == len(raw)
    rows = [0, 5, tokens.n_rows - 1]
    x, y = tokens.rows(rows)
    for i, r in enumerate(rows):
        assert x[i].tolist() == raw[r * 32:(r + 1) * 32].tolist()
        assert y[i].tolist() == raw[r * 32 + 1:(r + 1) * 32 + 1].tolist()
        assert tokens.row_labels(rows)[i].tolist() == labels[r * 32 + 1:(r + 1) * 32 + 1].tolist()


@pytest.mark.parametrize("n_rows, batch_rows", [(10, 4), (7, 7), (5, 12)])
def test_every_epoch_is_a_permutation_of_its_own_and_a_batch_needs_no_state(n_rows, batch_rows):
    stream = np.concatenate([batch(n_rows, batch_rows, 3, step) for step in range(3 * n_rows)])
    epochs = [stream[i:i + n_rows].tolist() for i in range(0, len(stream) - n_rows + 1, n_rows)]
    assert all(sorted(e) == list(range(n_rows)) for e in epochs)
    assert epochs[0] != epochs[1]
    assert batch(n_rows, batch_rows, 3, 5).tolist() == stream[5 * batch_rows:6 * batch_rows].tolist()
    other_seed = np.concatenate([batch(n_rows, batch_rows, 4, step) for step in range(9)])
    assert other_seed.tolist() != stream[:9 * batch_rows].tolist()


# -------------------------------------------------------------------------------------------- built-in corpus

def documents_of(folder, name):
    enc = load_tokenizer(folder)
    tokens = np.fromfile(os.path.join(folder, f"{name}.bin"), dtype=np.uint16)
    documents = np.split(tokens, np.flatnonzero(tokens == enc.eot_token) + 1)[:-1]
    return [enc.decode(document.tolist()) for document in documents]


def test_worked_solutions_are_right_and_follow_from_the_question(demo):
    """Solve each curated document again from its question alone."""
    for text in documents_of(demo, "curated"):
        question, answer = re.fullmatch(r"Question: (.*)\nAnswer: (.*)<\|endoftext\|>", text).groups()
        have = int(re.search(r"has (\d+)", question).group(1))
        expected = []
        for sentence in question.split(". ")[1:-1]:
            verb, *rest = sentence.removesuffix(".").split()[1:]
            before = have
            if verb == "doubles":
                have, phrase, expression = have * 2, verb, f"{before} * 2"
            elif verb == "halves":
                assert have % 2 == 0
                have, phrase, expression = have // 2, verb, f"{before} / 2"
            else:
                sign = 1 if verb in builtin.GAIN else -1
                have, phrase = have + sign * int(rest[0]), f"{verb} {rest[0]}"
                expression = f"{before} {'+' if sign > 0 else '-'} {rest[0]}"
            assert 0 <= have <= builtin.LARGEST
            expected.append(f"{phrase}: {expression} = {have}.")
        assert 1 <= len(expected) <= 3
        assert answer == " ".join(expected) + f" The answer is {have}."


def test_labels_are_true(demo):
    """By label, the noisy side holds what the label says; without noise and slips it is worked problems."""
    enc = load_tokenizer(demo)
    tokens = np.fromfile(os.path.join(demo, "noisy.bin"), dtype=np.uint16)
    labels = np.fromfile(os.path.join(demo, "noisy.labels.bin"), dtype=np.uint8)
    words = {name: {enc.decode([t]).strip() for t in tokens[labels == i]}
             for i, name in enumerate(builtin.LABELS)}
    assert words["irrelevant"] <= set(builtin.CHATTER) | {".", "", "<|endoftext|>"}
    assert all(w.isdigit() for w in words["result"] | words["wrong"])
    assert {"Question", "has", "How", "?"} <= words["question"]
    assert not words["question"] & {"Answer", "=", "#", "Jan"}
    assert {"Answer", "=", "The", "answer"} <= words["solution"] and not words["solution"] & {"How", "#"}
    assert "#" in words["noise"] and not words["noise"] & {"=", "How"}
    end = enc.eot_token
    ends = np.flatnonzero(tokens == end) + 1
    for document, its in zip(np.split(tokens, ends), np.split(labels, ends)):
        useful = enc.decode(document[(its < 3) & (document != end)].tolist())
        if useful and builtin.WRONG not in its:
            assert re.fullmatch(r"Question: .* now\?\nAnswer: .* The answer is \d+\.", useful)
    assert any((its == builtin.WRONG).any() for its in np.split(labels, ends))


def test_segments_encode_as_the_whole_text_does():
    enc = demo_tokenizer()
    for side in ("curated", "noisy"):
        for _, (segments, _) in zip(range(300), builtin.documents(11, side)):
            pieces = [t for text, _ in segments for t in enc.encode_ordinary(text)]
            assert pieces == enc.encode_ordinary("".join(text for text, _ in segments))


def test_held_out_and_evaluation_problems_are_nowhere_in_training(demo):
    def questions(texts):
        found = [re.search(r"Question: (.*?\?)", re.sub(r" ##[a-z]+( says)?", "", t)) for t in texts]
        return {m.group(1) for m in found if m}
    val, test = questions(documents_of(demo, "val")), questions(documents_of(demo, "test"))
    with open(os.path.join(demo, "eval.jsonl")) as f:
        evaluation = {json.loads(line)["question"] for line in f}
    training = [questions(documents_of(demo, name)) for name in ("curated", "noisy", "noisy+curated")]
    assert len(val) == len(test) == len(evaluation) == 12 and all(len(t) > 30 for t in training)
    held_out = [val, test, evaluation]
    for i, a in enumerate(held_out):
        assert all(not a & b for b in held_out[i + 1:] + training)


def test_other_corpora_for_the_map(demo, tmp_path):
    """Larger numbers are one token each, the curated side can be narrower, shares are what was asked for."""
    prepare.main(prepare.Config(out=str(tmp_path / "a"), noisy_tokens=20000, curated_documents=60, held_out_documents=40,
                                curated_repeats=0, largest=40, curated_steps=1, p_chatter=0.8, p_slip=0.0))
    enc = load_tokenizer(str(tmp_path / "a"))
    assert enc.n_vocab == load_tokenizer(demo).n_vocab + 20 and len(enc.encode(" 40")) == 1
    texts = {name: documents_of(str(tmp_path / "a"), name) for name in ("curated", "noisy", "test")}
    numbers = {int(n) for t in texts["test"] for n in re.findall(r"\d+", t)}
    assert max(numbers) <= 40 and len(numbers) > 25
    steps = {name: {t.count(" = ") for t in texts[name]} for name in ("curated", "test")}
    assert steps["curated"] == {1} and steps["test"] == {1, 2, 3}
    share = np.mean(["Question" not in t for t in texts["noisy"]])
    assert 0.7 < share < 0.9
    labels = np.fromfile(tmp_path / "a" / "noisy.labels.bin", dtype=np.uint8)
    assert not (labels == builtin.WRONG).any()
    assert any("p_slip" in problem for problem in prepare.Config(p_slip=1.0).validate())
    assert any("largest" in problem for problem in prepare.Config(largest=100).validate())
    assert any("curated_steps" in problem for problem in prepare.Config(curated_steps=4).validate())


def test_a_mixture_is_the_noisy_side_and_the_curated_side_so_many_times(demo, tmp_path, capsys):
    shutil.copytree(demo, tmp_path / "own")
    prepare.main(prepare.Config(out=str(tmp_path / "own"), mix=[1, 3]))
    for repeats in (1, 3):
        mixed, noisy, curated = (Tokens(str(tmp_path / "own"), name, 1) for name in
                                 (f"noisy+{repeats}xcurated", "noisy", "curated"))
        assert mixed.tokens.tolist() == noisy.tokens.tolist() + repeats * curated.tokens.tolist()
        assert mixed.labels.tolist() == noisy.labels.tolist() + repeats * curated.labels.tolist()
    assert mixed.meta["n_documents"] == noisy.meta["n_documents"] + 3 * curated.meta["n_documents"]
    before = Tokens(str(tmp_path / "own"), "noisy+1xcurated", 1).sha256
    prepare.main(prepare.Config(out=str(tmp_path / "own"), mix=[1]))  # once more: written anew
    assert Tokens(str(tmp_path / "own"), "noisy+1xcurated", 1).sha256 == before
    assert any("mix" in problem for problem in prepare.Config(mix=[0]).validate())
    with pytest.raises(BadInput):
        prepare.main(prepare.Config(out=str(tmp_path / "nothing"), mix=[1]))


def test_the_corpus_is_a_function_of_the_seed(demo, tmp_path):
    small = dict(noisy_tokens=3000, curated_documents=60, held_out_documents=12, curated_repeats=2)
    prepare.main(prepare.Config(out=str(tmp_path / "a"), **small))
    prepare.main(prepare.Config(out=str(tmp_path / "b"), seed=1, **small))
    assert documents_of(tmp_path / "a", "test") == documents_of(demo, "test")
    assert documents_of(demo, "test") != documents_of(tmp_path / "b", "test")
    joined = documents_of(tmp_path / "a", "noisy+curated")
    assert joined == documents_of(tmp_path / "a", "noisy") + 2 * documents_of(tmp_path / "a", "curated")


# ---------------------------------------------------------------------------------------------- your own text

def test_own_files_become_a_corpus(tmp_path):
    curated, noisy = tmp_path / "c.jsonl", tmp_path / "n.txt"
    rows = [{"q": f"What is {i} plus {i}?", "a": f"It is {2 * i}."} for i in range(300)]
    curated.write_text("".join(json.dumps(r) + "\n" for r in rows + rows[:50]))  # fifty twice
    copies = "".join(f"{r['q']}\n{r['a']}\n<|endoftext|>\n" for r in rows)  # and all of them noisy
    noisy.write_text("Some text.\nTwo lines.\n<|endoftext|>\n" + copies + "The last one.\n")
    out = str(tmp_path / "out")
    demo_vocabulary = str(tmp_path / "vocabulary")
    os.makedirs(demo_vocabulary)
    save_tokenizer(demo_tokenizer(), demo_vocabulary)
    prepare.main(prepare.Config(curated=[str(curated)], noisy=[str(noisy)], field=["q", "a"], out=out,
                                held_out=0.1, tokenizer=demo_vocabulary))
    parts = {name: documents_of(out, name) for name in ("curated", "val", "test", "noisy")}
    text = {name: {d.removesuffix("<|endoftext|>").strip() for d in docs} for name, docs in parts.items()}
    assert sum(len(parts[n]) for n in ("curated", "val", "test")) == 350
    assert text["curated"] | text["val"] | text["test"] == {f"{r['q']}\n{r['a']}" for r in rows}
    assert 10 < len(text["val"]) < 60 and 10 < len(text["test"]) < 60
    assert not text["val"] & text["curated"] and not text["test"] & text["curated"]
    assert not text["val"] & text["test"]
    assert not (text["val"] | text["test"]) & text["noisy"]  # copies of what is held out were dropped
    assert {"Some text.\nTwo lines.", "The last one."} <= text["noisy"] and text["curated"] <= text["noisy"]
    assert Tokens(out, "noisy", 16).labels is None


def test_the_answer_field_is_labelled(tmp_path):
    rows = [{"q": f"What is {i} plus {i}?", "a": f"It is {2 * i}." if i % 7 else "", "source": "x y"}
            for i in range(300)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    again = [r | {"q": "Again: " + r["q"]} for r in rows + rows]
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(r) + "\n" for r in again))
    (tmp_path / "vocabulary").mkdir()
    save_tokenizer(demo_tokenizer(), str(tmp_path / "vocabulary"))
    for fields in (["q", "a"], ["q", "a", "source"]):
        out = str(tmp_path / str(len(fields)))
        cfg = prepare.Config(curated=[str(tmp_path / "c.jsonl")], noisy=[str(tmp_path / "n.jsonl")], out=out,
                             field=fields, answer_field="a", tokenizer=str(tmp_path / "vocabulary"))
        assert list(cfg.validate()) == []
        prepare.main(cfg)
        tokens, enc = Tokens(out, "noisy", 16), load_tokenizer(out)
        marked = enc.decode(tokens.tokens[tokens.labels == builtin.SOLUTION].tolist())
        answers = [r["a"] + "\n" * (r["a"] != "" and len(fields) > 2) for r in rows + rows]
        assert marked.replace("<|endoftext|>", "") == "".join(answers)
        assert enc.decode(tokens.tokens.tolist()).count("Again: ") == 600
    assert list(dataclasses.replace(cfg, answer_field="b").validate())


def test_a_long_document_comes_in_pieces_but_stays_one_document(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("a line of text\n" * 200_000 + "<|endoftext|>\nshort\n")
    pieces = list(read_documents([str(path)], ["text"]))
    assert len(pieces) > 3 and [end for _, end in pieces] == [False] * (len(pieces) - 2) + [True, True]
    assert "".join(text for [(text, _)], _ in pieces) == "a line of text\n" * 200_000 + "short\n"


@pytest.fixture
def texts(tmp_path):
    """Curated and noisy documents, copies of held-out ones among the noisy; options for prepare.Config."""
    curated = [{"text": f"A curated text, number {i}, about {i * i}.", "more": None} for i in range(150)]
    noisy = [{"text": f"Noise {i} " * (i % 7 + 1), "more": "x"} for i in range(400)] + curated[::3]
    for name, rows in (("curated", curated), ("noisy", noisy)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\n")
    return dict(curated=[str(tmp_path / "curated.jsonl")], noisy=[str(tmp_path / "noisy.jsonl")],
                held_out=0.1, tokenizer=str(tmp_path / "merges.txt"))


def contents(folder):
    return {name: open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))}


@pytest.mark.parametrize("kind", ["gz", "xz", "parquet", "txt.gz", "hf"])
def test_packed_files_hold_the_same_documents(tmp_path, texts, kind, monkeypatch):
    plain, other = str(tmp_path / "plain"), str(tmp_path / "other")
    prepare.main(prepare.Config(out=plain, **texts))
    paths = {}
    for side in ("curated", "noisy"):
        rows = [json.loads(line) for line in open(texts[side][0])]
        name = f"{side}.{kind}" if kind in ("parquet", "txt.gz") else f"{side}.jsonl.{kind}"
        path = paths[side] = str(tmp_path / name)
        if kind == "parquet":
            pyarrow = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
        elif kind == "txt.gz":
            with gzip.open(path, "wt") as f:
                f.write("<|endoftext|>".join("\n" * (i > 0) + r["text"] + "\n" for i, r in enumerate(rows)))
        elif kind == "hf":  # a stand-in for the package and the network
            paths[side] = f"hf:someone/{side}"
            module = types.ModuleType("datasets")
            module.load_dataset = lambda name, split, streaming: (
                json.loads(line) for line in open(texts[name.split("/")[1]][0]))
            monkeypatch.setitem(sys.modules, "datasets", module)
        else:
            with {"gz": gzip, "xz": lzma}[kind].open(path, "wt") as f:
                f.write(open(texts[side][0]).read())
    prepare.main(prepare.Config(out=other, **texts | {side: [path] for side, path in paths.items()}))
    if kind == "txt.gz":  # whose documents end with a line break, so that others are held out
        assert Tokens(other, "noisy", 1).meta["n_documents"] > 400
    else:
        assert contents(plain) == contents(other)


@pytest.mark.parametrize("damage", ["cut", "other", "cut parquet"])
def test_damaged_packed_files(tmp_path, texts, damage):
    path = tmp_path / ("noisy.parquet" if "parquet" in damage else "noisy.jsonl.gz")
    if "parquet" in damage:
        pytest.importorskip("pyarrow")
        path.write_bytes(b"PAR1 and no more")
    else:
        packed = gzip.compress(open(texts["noisy"][0], "rb").read())
        path.write_bytes(packed[:len(packed) // 2] if damage == "cut" else b"not packed at all")
    with pytest.raises(BadInput, match=f"{path}.*damaged or cut off"):
        prepare.main(prepare.Config(out=str(tmp_path / "out"), **texts | {"noisy": [str(path)]}))
    assert not os.path.exists(tmp_path / "out.part")


@pytest.mark.parametrize("at, max_tokens", [(1, 0), (100, 0), (151, 0), (300, 0), (230, 6000), (560, 0)])
def test_an_interrupted_corpus_goes_on_and_comes_out_the_same(tmp_path, texts, at, max_tokens, monkeypatch):
    """Interrupted after some documents, with a torn document behind what was noted. What was noted is not
    tokenized again."""
    cfg = prepare.Config(out=str(tmp_path / "whole"), max_tokens=max_tokens, **texts)
    prepare.main(cfg)
    cfg = dataclasses.replace(cfg, out=str(tmp_path / "cut"))
    monkeypatch.setattr(own_text, "SAVE_SECONDS", -1)
    add, calls = TokenWriter.add, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) > at:
            self.file.write(b"torn")
            self.file.flush()
            raise KeyboardInterrupt
        add(self, *args)
    monkeypatch.setattr(TokenWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare.main(cfg)
    monkeypatch.setattr(TokenWriter, "add", lambda *args: (calls.append(1), add(*args)))
    calls.clear()
    prepare.main(cfg)
    assert contents(tmp_path / "whole") == contents(tmp_path / "cut")
    assert not os.path.exists(tmp_path / "cut.part")
    files = [Tokens(cfg.out, name, 1) for name in ("curated", "val", "test", "noisy")]
    assert len(calls) == sum(tokens.meta["n_documents"] for tokens in files) - at
    if max_tokens:
        noisy = Tokens(cfg.out, "noisy", 1).meta
        assert max_tokens <= noisy["n_tokens"] - noisy["n_documents"] < max_tokens + 100


def test_a_working_file_that_is_too_short_is_refused(tmp_path):
    writer = TokenWriter(str(tmp_path), "a", demo_tokenizer())
    writer.add([1, 2, 3])
    writer.sync()
    assert TokenWriter(str(tmp_path), "a", writer.enc, n_tokens=4).hash.hexdigest() == writer.hash.hexdigest()
    with pytest.raises(BadInput, match="a.bin is shorter than progress.json"):
        TokenWriter(str(tmp_path), "a", writer.enc, n_tokens=5)


def test_an_error_while_the_corpus_is_moved_loses_nothing(tmp_path, texts, monkeypatch):
    cfg = prepare.Config(out=str(tmp_path / "out"), **texts)
    monkeypatch.setattr(own_text, "SAVE_SECONDS", -1)
    replace, calls = os.replace, []

    def full(a, b):
        if not b.startswith(str(tmp_path / "out.part")):
            calls.append(b)
            if len(calls) == 3:
                raise OSError(28, "No space left on device")
        replace(a, b)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        prepare.main(cfg)
    assert (tmp_path / "out.part" / "progress.json").exists()
    monkeypatch.undo()
    prepare.main(cfg)
    prepare.main(dataclasses.replace(cfg, out=str(tmp_path / "b")))
    assert contents(tmp_path / "out") == contents(tmp_path / "b")


def test_what_was_begun_with_other_settings_is_begun_again(tmp_path, texts, monkeypatch):
    monkeypatch.setattr(own_text, "SAVE_SECONDS", -1)
    encode = own_text.encode

    def cut_off(*args):
        yield from itertools.islice(encode(*args), 50)
        raise KeyboardInterrupt
    monkeypatch.setattr(own_text, "encode", cut_off)
    cfg = prepare.Config(out=str(tmp_path / "a"), **texts)
    with pytest.raises(KeyboardInterrupt):
        prepare.main(cfg)
    assert os.path.exists(tmp_path / "a.part" / "progress.json")
    monkeypatch.setattr(own_text, "encode", encode)
    prepare.main(dataclasses.replace(cfg, held_out=0.2))
    prepare.main(dataclasses.replace(cfg, held_out=0.2, out=str(tmp_path / "b")))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def refused_while_locked(folder, texts):
    """A prepare.py that another one keeps from writing into the folder; it leaves what the other wrote."""
    working = folder.parent / f"{folder.name}.part"
    os.makedirs(working)
    (working / "noisy.bin").write_bytes(b"of the other one")
    with locked(working / LOCK):
        with pytest.raises(BadInput, match="another prepare.py"):
            prepare.main(prepare.Config(out=str(folder), **texts))
    assert (working / "noisy.bin").read_bytes() == b"of the other one"
    prepare.main(prepare.Config(out=str(folder), **texts))
    assert not working.exists()


def test_two_at_a_time_are_refused(tmp_path, texts):
    refused_while_locked(tmp_path / "out", texts)


def hide(monkeypatch, *names):
    """From now on, importing these modules raises ImportError."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_a_system_without_locks_prepares_corpora(tmp_path, texts, monkeypatch):
    prepare.main(prepare.Config(out=str(tmp_path / "a"), **texts))
    hide(monkeypatch, "fcntl", "msvcrt")
    prepare.main(prepare.Config(out=str(tmp_path / "b"), **texts))
    assert contents(tmp_path / "a") == contents(tmp_path / "b") and not (tmp_path / "b.part").exists()


def test_the_locks_of_windows(tmp_path, texts, monkeypatch):
    """With a stand-in for msvcrt, which locks bytes from where the file stands, and raises another error."""
    fcntl = pytest.importorskip("fcntl")
    calls = []

    def locking(descriptor, mode, n_bytes):
        calls.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, n_bytes))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied")
    hide(monkeypatch, "fcntl")
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_LOCK=1, LK_NBLCK=2))
    refused_while_locked(tmp_path / "out", texts)
    assert calls == [(0, 2, 1)] * 3
