"""
Bad input: one clear line on standard error, exit code 2, and nothing on disk lost.

A message must say what is wrong, where, and what to do, so the tests look for the file or option and for the remedy.
Starting Python with torch takes seconds, hence the tests call a script's main in this process. In command lines and
messages W stands for the folder that the fixture `world` makes and T for tmp_path.
"""
import dataclasses
import json
import math
import os
import re
import shutil
import signal
import sys

import pytest
import torch

import eval_math
import plot
import prepare
import score
import train_ref
import train_slm
from analysis import categories, highlight
from controls import logprobs, rescore
from distillation import corpus, on_policy
from engine import cli
from engine.checkpoints import load_checkpoint
from weights import export, published

DEMO = {"noisy_tokens": 3000, "curated_problems": 30, "held_out_problems": 5}
MODEL = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 16 --batch_tokens 64 --device cpu --lr 1e-3"
RUN = f"{MODEL} --train_tokens 256 --data W/demo --train noisy --out T/new"  # four steps
SLM = f"{RUN} --scores W/scores"
DISTILL = f"{RUN} --ref W/ref/ckpt.pt"
SCORE = "--data W/demo --out T/new --device cpu --ckpt W/ref/ckpt.pt"
EVAL = f"{SCORE} --problems W/demo/eval.jsonl --shots 0 --max_new_tokens 4"
HIGHLIGHT = "--data W/demo --device cpu --ckpt W/ref/ckpt.pt --ref W/ref/ckpt.pt"
USERS = {"train": (train_ref, f"{RUN} --init_from"), "score": (score, f"{SCORE} --ckpt"), "eval": (eval_math, f"{EVAL} --ckpt"),
         "distill": (corpus, f"{RUN} --ref"), "highlight": (highlight, f"{HIGHLIGHT} --ref")}  # then a checkpoint
PREPARE = "--curated W/text.txt --noisy W/text.txt --out T/new"
TRAINERS = {"train_ref": (train_ref, RUN), "train_slm": (train_slm, SLM), "distill": (corpus, DISTILL)}
of_each_trainer = pytest.mark.parametrize("module, command", TRAINERS.values(), ids=TRAINERS)


def exit_code(module, command, world, tmp_path):
    """Run a script with this command line; 0 when it simply returns."""
    folders, name = {"W": str(world), "T": str(tmp_path)}, os.path.basename(module.__file__)
    words = [re.sub(r"(?<![\w-])[WT](?![\w-])", lambda found: folders[found[0]], word) for word in command.split()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *words])
        try:
            cli.launch(module.main, module.Config, module.__doc__)
        except SystemExit as end:
            return end.code or 0
    return 0


def contents(*folders):
    """{path: bytes} of all files below."""
    paths = [os.path.join(at, name) for folder in folders for at, _, names in os.walk(folder) for name in names]
    return {path: open(path, "rb").read() for path in paths}


def edit_json(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What a user has on disk: a corpus, one of another tokenizer, a run, scores. Tests only read it."""
    at = tmp_path_factory.mktemp("files")
    prepare.main(prepare.Config(out=str(at / "demo"), **DEMO))
    text = at / "text.txt"
    text.write_text("\n<|endoftext|>\n".join(f"Document {i}: Ava has {i} hens." for i in range(60)))
    prepare.main(prepare.Config(out=str(at / "other"), curated=[str(text)], noisy=[str(text)], held_out=0.2,
                                tokenizer=str(at / "demo"), vocab_size=300))
    assert exit_code(train_ref, f"{RUN} --train curated --out W/ref", at, at) == 0
    assert exit_code(score, f"{SCORE} --out W/scores", at, at) == 0
    return at


@pytest.fixture
def run(world, tmp_path):
    """run(module, command): the exit code of a script."""
    return lambda module, command: exit_code(module, command, world, tmp_path)


@pytest.fixture
def refused(world, tmp_path, run, capsys):
    """refused(says, module, command): the script ends with code 2 and one line that matches all patterns in `says`;
    all files that were there before are as they were. Another `code`: of what was interrupted."""
    def check(says, module, command, code=2):
        before = contents(world, tmp_path)
        capsys.readouterr()
        assert run(module, command) == code
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        script, message = lines[0].replace(str(world), "W").replace(str(tmp_path), "T").split(": ", 1)
        assert script == os.path.basename(module.__file__)
        assert [pattern for pattern in says if not re.search(pattern, message)] == [], message
        after = contents(world, tmp_path)
        assert [path for path in before if after.get(path) != before[path]] == [], "files changed or lost"
    return check


@pytest.fixture
def room():
    """room(n): from now on no file can grow beyond n bytes (None: any size), and writing fails as on a full disk."""
    resource = pytest.importorskip("resource")
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n or before, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


# ------------------------------------------------------------------------------------------------- command line

@pytest.mark.parametrize("module", [prepare, train_ref, score, train_slm, eval_math, plot, categories, highlight,
                                    logprobs, rescore, corpus, on_policy, export, published], ids=lambda module: module.__name__)
def test_help_and_unknown_option(module, run, refused, capsys):
    refused(["--colour", "--help"], module, "--colour red")
    assert run(module, "--help") == 0
    shown = capsys.readouterr().out
    assert [f.name for f in dataclasses.fields(module.Config) if f"--{f.name}" not in shown] == []


@pytest.mark.parametrize("module, command, says", [
    *((train_slm, f"{SLM} {options}", says) for options, says in [
        ("--lr nan", ["--lr", "'nan'"]),
        ("--n_layer 1.5", ["n_layer", "whole number", "1.5"]),
        ("--arch bert", ["arch", "gpt2 or llama", "'bert'"]),
        ("--keep 0.001", ["keep", "a token or more of a row", "0.001"]),
        ("--n_embd 18 --arch llama", [r"n_embd \(18\)", "divisible by 4, as n_head is 2"]),
        ("--train_tokens 10", [r"train_tokens \(10\)", "one batch of 64"]),
        ("--micro_rows 3", [r"batch_tokens \(64\)", r"block_size x processes x micro_rows \(16 x 1 x 3 = 48\)"]),
        ("--device cuda:99", ["'cuda:99'", "another --device"]),
        ("--data T/nowhere", ["T/nowhere", r"prepare\.py"]),
        ("--fsdp", ["fsdp", "torchrun"]),
        ("--init_from gpt2", ["no checkpoint gpt2", r"python -m weights\.published"]),
        ("--keep 1.2 --n_embd 15 --lr -1", ["keep.*; |; .*keep", "n_embd", "lr must be above 0"]),  # all at once
        ("--train curated", ["W/scores", "another corpus", r"curated\.bin", r"score\.py"]),
        ("--block_size 8", ["W/scores", "block_size 16, not 8", r"score\.py with --block_size 8"])]),
    (export, "--export W/ref/ckpt.pt", ["--export takes"]),
    *((prepare, f"{PREPARE} --tokenizer {tokenizer}", says) for tokenizer, says in [
        ("no-such-name", ["no-such-name", "give a corpus folder"]),
        ("W/demo --vocab_size 99999", ["vocab_size 99999", "between 257 and"])]),  # what is damaged: test_tokenizers.py
    *((module, f"{command} W/ref/ckpt.pt --data W/other", [r"W/ref/ckpt\.pt", "another tokenizer", "give its own --data"])
      for module, command in USERS.values()),
    (train_ref, f"{RUN} --init_from W/ref/ckpt.pt --block_size 32", ["block_size 32 is more than the 16 of the model"]),
])
def test_bad_values(module, command, says, refused):
    refused(says, module, command)


# ------------------------------------------------------------------------------------ corpora, scores, checkpoints

def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def no_tokens(path):
    path.write_bytes(b"")
    edit_json(path.with_suffix(".json"), n_tokens=0, labels=None)


def no_number(path):
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["model"]["wte.weight"][3] = torch.nan
    torch.save(checkpoint, path)


@pytest.mark.parametrize("name, damage, says", [
    ("demo/noisy.bin", no_tokens, [r"T/demo/noisy\.bin", "0 tokens", "one row of 16"]),
    ("demo/noisy.bin", os.remove, [r"T/demo/noisy\.bin", r"again with prepare\.py"]),
    ("demo/noisy.labels.bin", cut, [r"T/demo/noisy\.labels\.bin", "bytes where its sidecar says", r"again with prepare\.py"]),
    ("demo/noisy.json", lambda path: path.write_text("{}"), [r"T/demo/noisy\.json", "not a sidecar", r"again with prepare\.py"]),
    ("scores", shutil.rmtree, ["T/scores", "holds no scores", r"score\.py"]),
    ("scores/scores.json", lambda path: path.write_text("{"), ["T/scores", r"scores\.json is not JSON"]),
    ("ref/ckpt.pt", no_number, [r"loss of T/ref/ckpt\.pt is not finite", "another reference model"]),
])
def test_damaged_files(name, damage, says, world, tmp_path, refused):
    folder = name.split("/")[0]
    shutil.copytree(world / folder, tmp_path / folder)
    damage(tmp_path / name)
    module, command = {"demo": (train_ref, RUN), "scores": (train_slm, SLM), "ref": (score, SCORE)}[folder]
    refused(says, module, command.replace(f"W/{folder}", f"T/{folder}"))


def test_full_disk_leaves_the_old_corpus(world, tmp_path, refused, room):
    largest = max(len(content) for content in contents(shutil.copytree(world / "demo", tmp_path / "demo")).values())
    room(int(0.8 * largest))
    refused(["File too large|writing", "what was saved before is as it was"], prepare,
            f"--out T/demo --seed 1 {' '.join(f'--{name} {value}' for name, value in DEMO.items())}")


def change_model(**config):
    """A damage: the checkpoint's model_config gets these fields."""
    def damage(path):
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["model_config"] |= config
        torch.save(checkpoint, path)
    return damage


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("damage, says", [
    (lambda path: path.unlink(), ["there is no checkpoint", "train"]),
    (lambda path: path.write_bytes(path.read_bytes()[:10_000]), ["truncated", "train it again"]),
    (change_model(n_embd=32), ["do not fit", "wte", "train it again"]),
    (change_model(bias=False), ["of an older revision", "train it again"]),
], ids=["missing", "cut", "shape", "old"])
def test_bad_checkpoint(user, damage, says, world, tmp_path, refused):
    shutil.copy(world / "ref/ckpt.pt", tmp_path / "bad.pt")
    damage(tmp_path / "bad.pt")
    module, command = USERS[user]
    refused([r"T/bad\.pt", *says], module, f"{command} T/bad.pt")
    assert not (tmp_path / "new/config.json").exists()  # or the mended command would hear "already holds a run"


# ------------------------------------------------------------------------------------------- texts and evaluation

MAKE = f"{PREPARE} --tokenizer W/demo --curated T/a.jsonl"
ASK, GRADE = f"{EVAL} --problems T/a.jsonl", "--grade T/a.jsonl --task gsm8k"


@pytest.mark.parametrize("module, command, content, says", [  # what else a row can lack: test_readers.py
    (prepare, MAKE, b'{"text": "good"}\nnot JSON\n', [r"T/a\.jsonl, line 2", "JSON"]),
    (prepare, MAKE, b'{"text": "caf\xe9"}\n', [r"T/a\.jsonl", "UTF-8", "iconv"]),
    (prepare, MAKE, b"", ["came out empty", "more or longer documents"]),
    (prepare, MAKE, None, [r"T/a\.jsonl", "No such file"]),
    (eval_math, ASK, b"", [r"T/a\.jsonl", "no problems"]),
    (eval_math, ASK, b'{"question": "1 + 1?", "answer": "2"}\n17\n', [r"T/a\.jsonl, line 2", "JSON object"]),
    (eval_math, ASK, b'{"question": "1 + 1?", "answer": "two"}\n', [r"T/a\.jsonl, line 1", "holds no number"]),
    (eval_math, f"{EVAL} --shots 1 --shots_from T/a.jsonl", None, [r"T/a\.jsonl", "cannot read", "No such file"]),
    (eval_math, GRADE, b'{"generation": "5", "answer": "5"}\n{"gener', [r"T/a\.jsonl, line 2", "JSON object"]),
    (eval_math, GRADE, b'{"generation": "5"}\n', [r"T/a\.jsonl, row 1", "answer"])])
def test_bad_text(module, command, content, says, tmp_path, refused):
    if content is not None:
        (tmp_path / "a.jsonl").write_bytes(content)
    refused(says, module, command)


@pytest.mark.parametrize("options, says", [
    ("--grade T/a.jsonl", ["--ckpt names .*, or --grade", "--grade takes one --task"]),
    ("--task gsm9k", ["gsm9k", "gsm8k, math"]),
    ("--task gsm8k --problems a.jsonl", ["--problems", "task demo", "--data_dir"]),
    ("--task gsm8k --shots 9 --data_dir T", ["9 shots", r"prompts/word\.txt holds 8"]),
    ("--task svamp --data_dir T", [r"T/svamp\.jsonl, line 1", "row of svamp", "delete the file to download it again"]),
    ("--task mawps --data_dir T", ["cannot download https", "no network", r"T/mawps\.jsonl"]),
    ("--max_new_tokens 16", ["max_new_tokens 16", "context of 16"]),
    ("--data W/other", ["no W/other/eval.jsonl", "--problems and --shots_from"]),
    ("--ckpt W/ref/ckpt.pt T/none.pt", ["there is no checkpoint T/none.pt"]),  # said before the first is evaluated
])
def test_bad_tasks(options, says, tmp_path, refused, monkeypatch):
    def no_network(url, timeout):
        raise OSError("no network")
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    (tmp_path / "svamp.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    refused(says, eval_math, f"{SCORE} {options}")
    assert not (tmp_path / "new").exists() or os.listdir(tmp_path / "new") == []


# -------------------------------------------------------------------------------------------------- run folders

@of_each_trainer
def test_run_folder_in_use(module, command, run, refused):
    assert run(module, command) == 0
    refused(["T/new already holds a run", "--resume", "--out"], module, command)
    refused(["T/new", r"lr: 0\.001 -> 0\.002", "seed: 0 -> 7", "another --out"], module, f"{command} --resume --lr 2e-3 --seed 7")


@of_each_trainer
@pytest.mark.parametrize("change, says", [
    (lambda at: edit_json(at / "demo/noisy.json", sha256="other"), [r"files \(corpus\)|scores in W/scores .* another corpus"]),
    (lambda at: edit_json(at / "demo/val.json", sha256="other"), [r"files \(val\)", "another --out"]),
    (lambda at: edit_json(at / "demo/test.json", labels_sha256="other"), [r"files \(test_labels\)", "another --out"]),
    (lambda at: shutil.copy(at / "new/ckpt.pt", at / "start.pt"), [r"files \(init_from\)", "another --out"]),
    (lambda at: (at / "start.pt").unlink(), []),  # a run that goes on needs it no more
], ids=["corpus", "val", "test labels", "start", "no start"])
def test_resume_where_something_else_has_changed(change, says, module, command, world, tmp_path, run, refused):
    # All of it decides what the run reports, or what it says that it was made from.
    shutil.copytree(world / "demo", tmp_path / "demo")
    shutil.copy(world / "ref/best.pt", tmp_path / "start.pt")
    command += " --data T/demo --init_from T/start.pt"
    assert run(module, command) == 0
    (tmp_path / "new/done.json").unlink()
    change(tmp_path)
    if says:
        refused(says, module, f"{command} --resume")
    else:
        assert run(module, f"{command} --resume") == 0 and (tmp_path / "new/done.json").exists()


@of_each_trainer
@pytest.mark.parametrize("rate, options, says", [(1e30, "", "loss is"),
                                                 (math.nan, "--snapshot_every 1", "weights are not finite")])
def test_weights_that_are_thrown_away(rate, options, says, module, command, tmp_path, monkeypatch, refused):
    # Three good steps, then this one: what was saved must still be of use.
    monkeypatch.setattr(module, "learning_rate", lambda step, cfg: 1e-3 if step < 3 else rate)
    refused([says, "at step 4", "lower --lr", "T/new"], module, f"{command} --train_tokens 640 --eval_every 1 {options}")
    for path in (tmp_path / "new/ckpt.pt", tmp_path / "new/best.pt", *tmp_path.glob("new/step_*.pt")):
        weights = load_checkpoint(path)["model"]
        assert all(w.abs().max() < 100 for w in weights.values()), f"{path} has diverged weights"  # NaN fails too


@pytest.mark.parametrize("signals, step", [([signal.SIGINT], 3), ([signal.SIGTERM], 3), ([signal.SIGINT, signal.SIGINT], 0)])
def test_an_interrupted_run_saves_and_goes_on(signals, step, tmp_path, run, refused, room, monkeypatch):
    """A second signal ends it at once: the last evaluation has saved. After one, the disk is full for a while. (That it
    comes to the same weights all the same is tested in test_run.py.) A notebook has its own handlers back."""
    to_come, handler = signals.copy(), signal.getsignal(signal.SIGINT)  # the rate is asked for twice in a step

    def signalled(step, cfg):
        while step == 2 and to_come:
            signal.raise_signal(to_come.pop())
        return 1e-3
    with monkeypatch.context() as patch:
        patch.setattr(train_ref, "learning_rate", signalled)
        refused(["^interrupted; .*the same command .*--resume"], train_ref, RUN, code=130)
    assert signal.getsignal(signal.SIGINT) == handler
    assert load_checkpoint(tmp_path / "new/ckpt.pt")["step"] == step
    if step:
        room(16 * 1024)  # for the log but not for a checkpoint
        refused([r"could not save T/new/\w+\.pt .*free some space .*--resume"], train_ref, f"{RUN} --resume")
        assert sorted(os.listdir(tmp_path / "new")) == ["best.pt", "ckpt.pt", "config.json", "metrics.jsonl"]  # and no more
        room(None)
    assert run(train_ref, f"{RUN} --resume") == 0
    assert load_checkpoint(tmp_path / "new/ckpt.pt")["step"] == 4
