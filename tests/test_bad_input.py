"""
Bad input: one clear line on standard error, exit code 2, and nothing on disk lost.

A message must say what is wrong, where, and what to do, so the tests look for the file or option and for the remedy.
Starting Python with torch takes seconds, hence most tests call a script's main in this process; Ctrl-C and the full
disk need a process of their own.
"""
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import pytest
import torch

import common
import eval_math
import plot
import prepare
import score
import train_ref
import train_slm
from engine import cli
from extras import dynamics, export, highlight
from paper import plot_paper

MODEL = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 16 --batch_tokens 64 --device cpu --lr 1e-3".split()
SHORT = [*MODEL, "--train_tokens", 256]  # four steps
DEMO = {"noisy_tokens": 3000, "curated_documents": 30, "held_out_documents": 5, "curated_repeats": 1}


def script_name(module):
    """'train_ref.py', or 'highlight.py' of extras.highlight."""
    return module.__name__.rpartition(".")[2] + ".py"


def _exit_code(monkeypatch, module, *options):
    """Run a script with this command line; 0 when it simply returns."""
    monkeypatch.setattr(sys, "argv", [script_name(module), *map(str, options)])
    try:
        cli.run(module.main, module.Config, module.__doc__)
    except SystemExit as e:
        return e.code or 0
    return 0


def _contents(*folders):
    """{path: bytes} of all files below."""
    paths = [os.path.join(at, name) for folder in folders for at, _, names in os.walk(folder) for name in names]
    return {path: open(path, "rb").read() for path in paths}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What a user has on disk: a corpus, one of another tokenizer, a run, scores. Tests only read it."""
    at = tmp_path_factory.mktemp("files")
    prepare.main(prepare.Config(out=str(at / "demo"), **DEMO))
    text = at / "text.txt"
    text.write_text("\n<|endoftext|>\n".join(f"Document {i}: Ava has {i} hens." for i in range(60)))
    prepare.main(prepare.Config(out=str(at / "other"), curated=[str(text)], noisy=[str(text)], held_out=0.2,
                          tokenizer=str(at / "demo"), vocab_size=300))
    with pytest.MonkeyPatch.context() as m:
        assert _exit_code(m, train_ref, *SHORT, "--data", at / "demo", "--out", at / "ref") == 0
        assert _exit_code(m, score, "--data", at / "demo", "--ckpt", at / "ref/ckpt.pt", "--out", at / "scores",
                          "--device", "cpu") == 0
    return at


@pytest.fixture
def refused(world, tmp_path, monkeypatch, capsys):
    """refused(says, module, *options): the script ends with code 2 and one line that matches all patterns in `says`,
    with W for the folder `world` and T for tmp_path; all files that were there before are as they were."""
    def check(says, module, *options):
        before = _contents(world, tmp_path)
        capsys.readouterr()
        assert _exit_code(monkeypatch, module, *options) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        script, message = lines[0].replace(str(world), "W").replace(str(tmp_path), "T").split(": ", 1)
        assert script == script_name(module)
        assert [pattern for pattern in says if not re.search(pattern, message)] == [], message
        after = _contents(world, tmp_path)
        assert [path for path in before if after.get(path) != before[path]] == [], "files changed or lost"
    return check


# ------------------------------------------------------------------------------------------------- command line

@pytest.mark.parametrize("module", [prepare, train_ref, score, train_slm, eval_math, plot, plot_paper, highlight],
                         ids=lambda m: m.__name__)
def test_help_and_unknown_option(module, monkeypatch, capsys, refused):
    refused(["--colour", "--help"], module, "--colour", "red")
    assert _exit_code(monkeypatch, module, "--help") == 0
    assert "--out" in capsys.readouterr().out


def test_help_from_a_shell():  # the other tests go past `if __name__ == "__main__"`
    done = subprocess.run([sys.executable, "train_slm.py", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "--keep" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("options, says", [
    ("--lr abc", ["--lr", "'abc'"]),
    ("--lr nan", ["--lr", "'nan'"]),
    ("--n_layer 1.5", ["n_layer", "whole number", "1.5"]),
    ("--n_layer 0", ["n_layer", "at least 1", "0"]),
    ("--keep 0", ["keep", r"\(0, 1\]"]),
    ("--keep 1.2", ["keep", r"\(0, 1\]", "1.2"]),
    ("--select best", ["select", "excess, random", "'best'"]),
    ("--n_embd 15", [r"n_embd \(15\)", r"divisible by n_head \(2\)"]),
    ("--batch_tokens 100", [r"batch_tokens \(100\)", "divisible by block_size"]),
    ("--train_tokens 10", [r"train_tokens \(10\)", "one batch of 64"]),
    ("--micro_rows -1", ["micro_rows", "-1"]),
    ("--seed -1", ["seed", "-1"]),
    ("--beta2 1.5", ["beta2", "1.5"]),
    ("--fsdp", ["fsdp", "torchrun"]),
    ("--micro_rows 3", [r"batch_tokens \(64\)", "block_size x processes x micro_rows"]),
    ("--keep 0.001", ["keep 0.001", "64 tokens", "micro_rows"]),
    ("--filter_backward --compile", ["filter_backward", "compile"]),
    ("--init_from W/nowhere.bin", ["W/nowhere.bin", "gpt2-medium"]),
    ("--init_from W/demo", ["W/demo", "model.safetensors"]),
    ("--keep 1.2 --n_embd 15 --lr -1", ["keep.*; |; .*keep", "n_embd", "lr must be above 0"]),  # all at once
])
def test_bad_values(options, says, world, tmp_path, refused):
    refused(says, train_slm, *SHORT, "--data", world / "demo", "--scores", world / "scores", "--out", tmp_path / "run",
            *options.replace("W/", f"{world}/").split())


@pytest.mark.parametrize("options, says", [
    ("", ["--export takes"]),
    ("--export W/ref/ckpt.pt", ["--export takes"]),
    ("--export W/nowhere.pt T/new", ["W/nowhere.pt", "train"]),
    ("--export W/ref/ckpt.pt W/demo", ["W/demo is not empty"]),
    ("--export W/ref/ckpt.pt T/new --data W/other", ["another tokenizer", "--data"]),
])
def test_export(options, says, world, tmp_path, refused):
    refused(says, export, *options.replace("W/", f"{world}/").replace("T/", f"{tmp_path}/").split())


@pytest.mark.parametrize("module, device", [(train_ref, "cuda:99"), (train_slm, "tpu9"), (score, "abc"),
                                            (eval_math, "abc")])
def test_device_that_does_not_exist(module, device, world, tmp_path, refused):
    ckpt = ["--ckpt", world / "ref/ckpt.pt"] if module in (score, eval_math) else SHORT
    refused([f"'{device}'", "--device"], module, "--data", world / "demo", "--out", tmp_path / "new", *ckpt,
            "--device", device)


# -------------------------------------------------------------------------------------- corpora and tokenizers

def test_missing_corpus(world, tmp_path, refused):
    ckpt = ["--ckpt", world / "ref/ckpt.pt", "--device", "cpu"]
    for module, options in ((train_ref, SHORT), (train_slm, SHORT), (score, ckpt)):
        refused(["T/nowhere", r"prepare\.py"], module, *options, "--data", tmp_path / "nowhere", "--out", tmp_path / "new")
    refused(["T/nowhere", "give a corpus folder"], eval_math, *ckpt, "--data", tmp_path / "nowhere")


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _no_tokens(path):  # and a sidecar that says so
    path.write_bytes(b"")
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"n_tokens": 0, "labels": None}))


@pytest.mark.parametrize("name, damage, says", [
    ("noisy.bin", _no_tokens, ["0 tokens", "one row of 16"]),
    ("noisy.bin", lambda path: path.write_bytes(b""), ["0 bytes", r"again with prepare\.py"]),
    ("noisy.bin", lambda path: path.unlink(), [r"again with prepare\.py"]),
    ("noisy.bin", _cut, ["bytes where its sidecar says", r"again with prepare\.py"]),
    ("noisy.labels.bin", _cut, ["bytes where its sidecar says", r"again with prepare\.py"]),
    ("noisy.json", lambda path: path.write_text("{not JSON"), ["not a sidecar", r"again with prepare\.py"]),
    ("noisy.json", lambda path: path.write_text("{}"), ["not a sidecar", r"again with prepare\.py"]),
])
def test_damaged_corpus(name, damage, says, world, tmp_path, refused):
    damage(shutil.copytree(world / "demo", tmp_path / "demo") / name)
    refused([f"T/demo/{name}", *says], train_ref, *SHORT, "--data", tmp_path / "demo", "--train", "noisy",
            "--out", tmp_path / "run")


@pytest.mark.parametrize("name, content, says", [
    ("a.jsonl", b'{"text": "good"}\nnot JSON\n', ["T/a.jsonl, line 2", "JSON"]),
    ("a.jsonl", b'{"text": "good"}\n[1]\n', ["T/a.jsonl, line 2", "JSON object"]),
    ("a.jsonl", b'{"text": "good"}\n{"body": "x"}\n', ["T/a.jsonl, line 2", "'text'", "--field"]),
    ("a.jsonl", b'{"text": "\\ud800"}\n', ["T/a.jsonl"]),  # half a character: JSON can hold it, UTF-8 cannot
    ("a.jsonl", b'{"text": "caf\xe9"}\n', ["T/a.jsonl", "UTF-8", "iconv"]),
    ("a.txt", b"caf\xe9\n", ["T/a.txt", "UTF-8", "iconv"]),
    ("a.txt", b"", ["came out empty", "more or longer documents"]),
    ("a.txt", None, ["T/a.txt", "No such file"]),
])
def test_bad_text_leaves_the_old_corpus(name, content, says, world, tmp_path, refused):
    shutil.copytree(world / "other", tmp_path / "mine")  # `refused` sees to it that this stays as it is
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(says, prepare, "--curated", tmp_path / name, "--noisy", world / "text.txt", "--tokenizer", world / "demo",
            "--out", tmp_path / "mine")


def test_full_disk_leaves_the_old_corpus(world, tmp_path, refused, monkeypatch):
    room, fsync = iter(range(4)), os.fsync  # for a few files

    def nearly_full(descriptor):
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)
    monkeypatch.setattr(os, "fsync", nearly_full)
    shutil.copytree(world / "demo", tmp_path / "demo")
    options = [word for name, value in DEMO.items() for word in (f"--{name}", value)]
    refused(["No space left"], prepare, "--out", tmp_path / "demo", *options, "--seed", 1)


@pytest.mark.parametrize("tokenizer, says", [
    ("no-such-name", ["no-such-name", "give a corpus folder"]),
    ("{T}/missing.tiktoken", [r"T/missing\.tiktoken", "give a corpus folder"]),
    ("{T}/notes.tiktoken", [r"T/notes\.tiktoken", "not a tokenizer"]),
    ("{T}/notes.bpe", [r"T/notes\.bpe", "not a tokenizer", "line 1"]),
    ("{T}", ["the tokenizer 'T'", "give a corpus folder"]),  # a folder without one
    ("{T}/list", ["T/list", "not a tokenizer"]),
    ("{W}/demo --vocab_size 100", ["vocab_size 100", "between 257 and"]),
    ("{W}/demo --vocab_size 99999", ["vocab_size 99999", "between 257 and"]),
])
def test_bad_tokenizer(tokenizer, says, world, tmp_path, refused):
    for name in ("notes.tiktoken", "notes.bpe"):
        (tmp_path / name).write_text("words\nof\na\nnote\n")
    (tmp_path / "list").mkdir()
    (tmp_path / "list/tokenizer.json").write_text("[1, 2]")
    refused(says, prepare, "--curated", world / "text.txt", "--noisy", world / "text.txt", "--out", tmp_path / "new",
            "--tokenizer", *tokenizer.format(T=tmp_path, W=world).split())


# -------------------------------------------------------------------------------------- checkpoints and scores

def _users(world, tmp_path, ckpt, corpus="demo"):
    """The three command lines that read a checkpoint."""
    options = ["--data", world / corpus, "--out", tmp_path / "new"]
    problems = ["--problems", world / "demo/eval.jsonl", "--shots", 0, "--max_new_tokens", 4]
    return {"train": (train_slm, *options, *SHORT, "--keep", 1, "--init_from", ckpt),
            "score": (score, *options, "--device", "cpu", "--ckpt", ckpt),
            "eval": (eval_math, *options, "--device", "cpu", *problems, "--ckpt", ckpt)}


@pytest.mark.parametrize("user", ["train", "score", "eval"])
@pytest.mark.parametrize("kind, says", [
    ("missing", ["there is no checkpoint", "train"]),
    ("cut", ["truncated", "train it again"]),
    ("text", ["not a checkpoint", "train it again"]),
    ("shape", ["do not fit", "wte", "train it again"]),
    ("option", ["not a checkpoint|do not fit", "train it again"]),
])
def test_bad_checkpoint(user, kind, says, world, tmp_path, refused):
    path, whole = tmp_path / "bad.pt", world / "ref/ckpt.pt"
    ckpt = torch.load(whole, weights_only=True)
    if kind == "cut":
        path.write_bytes(whole.read_bytes()[:10_000])
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "shape":
        torch.save(ckpt | {"model_config": ckpt["model_config"] | {"n_embd": 32}}, path)
    elif kind == "option":  # of some other program's model
        torch.save(ckpt | {"model_config": ckpt["model_config"] | {"n_blocks": 3}}, path)
    refused([r"T/bad\.pt", *says], *_users(world, tmp_path, path)[user])
    assert not (tmp_path / "new/config.json").exists()  # or the mended command would hear "already holds a run"


@pytest.mark.parametrize("user", ["train", "score", "eval"])
def test_corpus_of_another_tokenizer(user, world, tmp_path, refused):
    refused([r"W/ref/ckpt\.pt", "another tokenizer", "W/other", "give its own --data|made with the model's tokenizer"],
            *_users(world, tmp_path, world / "ref/ckpt.pt", "other")[user])


@pytest.mark.parametrize("user", ["train", "score"])
def test_block_size_above_that_of_the_checkpoint(user, world, tmp_path, refused):
    refused(["block_size 32 is more than the 16", r"W/ref/ckpt\.pt"],
            *_users(world, tmp_path, world / "ref/ckpt.pt")[user], "--block_size", 32)


def _half_done(folder):
    sidecar = folder / "scores.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"rows_done": 1}))


@pytest.mark.parametrize("damage, options, says", [
    (shutil.rmtree, "", [r"score\.py"]),
    (None, "--train curated", ["another corpus", r"curated\.bin", r"score\.py"]),
    (None, "--block_size 8", ["block_size 16, not 8", r"score\.py with --block_size 8"]),
    (_half_done, "", ["not complete", r"score\.py"]),
    (lambda folder: _cut(folder / "loss.bin"), "", ["not complete", r"score\.py"]),
    (lambda folder: (folder / "loss.bin").unlink(), "", ["not complete", r"score\.py"]),
    (lambda folder: (folder / "scores.json").write_text("{}"), "", [r"score\.py"]),
    (lambda folder: (folder / "scores.json").write_text("{"), "", [r"scores\.json is not JSON"]),
], ids=["missing", "corpus", "block_size", "half done", "cut", "no file", "no fields", "no JSON"])
def test_scores_that_do_not_fit(damage, options, says, world, tmp_path, refused):
    folder = shutil.copytree(world / "scores", tmp_path / "scores")
    if damage:
        damage(folder)
    refused(["T/scores", *says], train_slm, *SHORT, "--data", world / "demo", "--scores", folder,
            "--out", tmp_path / "run", *options.split())


def test_scores_that_are_not_numbers(world, tmp_path, refused):
    folder = shutil.copytree(world / "scores", tmp_path / "scores")
    size = (folder / "loss.bin").stat().st_size
    command = (train_slm, *SHORT, "--data", world / "demo", "--scores", folder, "--out", tmp_path / "run")
    for n_bad in (size // 2, 1):  # throughout, and a single one, which the first epoch comes to
        values = torch.frombuffer(bytearray((world / "scores/loss.bin").read_bytes()), dtype=torch.float16).clone()
        values[-n_bad:] = torch.nan
        (folder / "loss.bin").write_bytes(values.numpy().tobytes())
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        refused([r"T/scores/loss\.bin", "not numbers", "score again"], *command, "--train_tokens", 64 * 100)


def test_a_reference_model_whose_losses_are_not_numbers(world, tmp_path, refused):
    checkpoint = torch.load(world / "ref/ckpt.pt", weights_only=True)
    checkpoint["model"]["wte.weight"][3] = torch.nan
    torch.save(checkpoint, tmp_path / "nan.pt")
    refused([r"loss of T/nan\.pt is not finite", "another reference model"], score, "--data", world / "demo", "--ckpt",
            tmp_path / "nan.pt", "--out", tmp_path / "new", "--device", "cpu")


# ---------------------------------------------------------------------------------------------- the paper's analysis

@pytest.mark.parametrize("options, says", [
    ("--select intersection", ["W/scores", "entropy"]),
    ("--labels answer", [r"noisy\.bin", "answer", "question, solution"]),
    ("--labels answer --softmax_tau -1", ["softmax_tau"]),
    ("--more_scores T/nowhere", ["T/nowhere", r"score\.py"]),
])
def test_variants_that_do_not_fit(options, says, world, tmp_path, refused):
    refused(says, train_slm, *SHORT, "--data", world / "demo", "--scores", world / "scores", "--out", tmp_path / "run",
            *options.replace("T/", f"{tmp_path}/").split())


def test_analysis_without_runs(world, tmp_path, refused):
    refused(["T/clm has 0 step_", "--snapshot_every"], dynamics, "--runs", tmp_path, "--data", world / "demo", "--device", "cpu")
    for arm in ("clm", "slm"):
        (tmp_path / arm).mkdir()
        for step in (0, 4, 8, 12):
            (tmp_path / arm / f"step_{step:06}.pt").write_bytes(b"")
    refused(["T/base/ckpt.pt"], dynamics, "--runs", tmp_path, "--data", world / "demo", "--device", "cpu")
    refused(["no seed", r"runs/paper\.sh main"], plot_paper, "--runs", tmp_path)
    ckpt = world / "ref/ckpt.pt"
    refused(["W/ref/ckpt.pt", "another tokenizer"], highlight, "--data", world / "other", "--ref", ckpt, "--ckpt", ckpt,
            "--device", "cpu")
    refused(["T/none.txt", "cannot read"], highlight, "--data", world / "demo", "--ref", ckpt, "--ckpt", ckpt, "--text",
            tmp_path / "none.txt", "--device", "cpu")
    refused(["T/none.jsonl", "cannot read"], score, "--data", world / "demo", "--from_logprobs", tmp_path / "none.jsonl",
            "--block_size", 16, "--out", tmp_path / "new")
    refused(["--block_size"], score, "--data", world / "demo", "--from_logprobs", tmp_path / "none.jsonl")


# -------------------------------------------------------------------------------------------------- evaluation

@pytest.mark.parametrize("content, says", [
    (b"", ["no problems"]),
    (b'{"question": "1 + 1?"}\n', ["line 1", "answer"]),
    (b'{"question": "1 + 1?", "answer": "2"}\n17\n', ["line 2", "JSON object"]),
    (b"what is 1 + 1?\n", ["line 1", "JSON object"]),
    (b'{"question": "1 + 1?", "answer": "two"}\n', ["line 1", "holds no number"]),
    (b'{"question": "caf\xe9", "answer": "2"}\n', ["UTF-8|utf-8"]),
    (None, ["cannot read", "No such file"]),
])
def test_bad_problems(content, says, world, tmp_path, refused):
    path = tmp_path / "a.jsonl"
    if content is not None:
        path.write_bytes(content)
    command = _users(world, tmp_path, world / "ref/ckpt.pt")["eval"]
    for option in ("--problems", "--shots_from"):
        refused([r"T/a\.jsonl", *says], *command, "--shots", 1, option, path)


@pytest.mark.parametrize("options, says", [
    ("--task gsm9k", ["gsm9k", "gsm8k, math"]),
    ("--task gsm8k --problems a.jsonl", ["--problems", "task demo", "--data_dir"]),
    ("--task gsm8k --shots 9 --data_dir T", ["9 shots", r"prompts/word\.txt holds 8"]),
    ("--task svamp --data_dir T", [r"T/svamp\.jsonl, line 1", "row of svamp", "delete the file to download it again"]),
    ("--task mawps --data_dir T", ["cannot download https", "no network", r"T/mawps\.jsonl"]),
    ("--temperature 0", ["temperature", "--samples"]),
    ("--max_new_tokens 16", ["max_new_tokens 16", "context of 16"]),
    ("--shots 100", ["100 shots", "--shots_from"]),
])
def test_bad_tasks(options, says, world, tmp_path, refused, monkeypatch):
    def no_network(url, timeout):
        raise OSError("no network")
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    (tmp_path / "svamp.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    refused(says, eval_math, "--data", world / "demo", "--ckpt", world / "ref/ckpt.pt", "--out", tmp_path / "new", "--device",
            "cpu", *options.replace("T", str(tmp_path)).split())


@pytest.mark.parametrize("content, says", [
    (None, ["cannot read", "No such file"]),
    (b"", ["holds no rows"]),
    (b"\xff\xfe\n", ["UTF-8"]),
    (b'{"generation": "5", "answer": "5"}\n{"gener', ["line 2", "JSON object"]),
    (b'{"generation": "5"}\n', ["row 1", "answer"]),
    (b'{"generation": null, "answer": 5}\n', ["row 1", "generation"]),
    (b"[" * 10_000, ["line 1", "JSON object"]),
])
def test_bad_generations(content, says, tmp_path, refused):
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)
    refused([r"T/rows\.jsonl", *says], eval_math, "--grade", path, "--task", "gsm8k")
    refused(["--grade takes one --task"], eval_math, "--grade", path)
    assert content is None or path.read_bytes() == content


def test_nothing_to_evaluate_or_to_plot(world, tmp_path, refused):
    refused(["--ckpt", "checkpoints"], eval_math, "--data", world / "demo")
    refused(["T has no", r"run runs/\w+\.sh"], plot, "--runs", tmp_path)


# -------------------------------------------------------------------------------------------------- run folders

def test_run_folder_in_use(world, tmp_path, refused):
    folder = shutil.copytree(world / "ref", tmp_path / "ref")
    command = (train_ref, *SHORT, "--data", world / "demo", "--out", folder)
    refused(["T/ref already holds a run", "--resume", "--out"], *command)
    config = json.loads((folder / "config.json").read_text())
    config["config"]["out"] = str(folder)
    (folder / "config.json").write_text(json.dumps(config))
    refused(["T/ref", r"lr: 0\.001 -> 0\.002", "seed: 0 -> 7", "another --out"],
            *command, "--resume", "--lr", 2e-3, "--seed", 7)


def test_resume_on_another_corpus(world, tmp_path, monkeypatch, refused):
    # The same command, but prepare.py has made another corpus in the folder: half of the run would be on either.
    corpus = shutil.copytree(world / "demo", tmp_path / "demo")
    command = (train_ref, *SHORT, "--data", corpus, "--out", tmp_path / "run")
    assert _exit_code(monkeypatch, *command) == 0
    (tmp_path / "run/done.json").unlink()
    prepare.main(prepare.Config(out=str(corpus), seed=1, **DEMO))
    refused(["T/run", "another corpus", "--out"], *command, "--resume")


@pytest.mark.parametrize("change, says", [
    ("val", r"files \(val\)"), ("test", r"files \(test\)"), ("test labels", r"files \(test_labels\)"),
    ("label names", r"files \(corpus_labels\)"), ("start", r"files \(init_from\)"), (None, "")])
@pytest.mark.parametrize("module", [train_ref, train_slm], ids=lambda m: m.__name__)
def test_resume_where_something_else_has_changed(change, says, module, world, tmp_path, monkeypatch, refused):
    # All of it decides what the run reports, or what it says that it was made from.
    corpus, start = shutil.copytree(world / "demo", tmp_path / "demo"), shutil.copy(world / "ref/ckpt.pt", tmp_path)
    keep = ["--keep", 1] if module is train_slm else []
    command = (module, *SHORT, *keep, "--data", corpus, "--out", tmp_path / "run", "--init_from", start)
    assert _exit_code(monkeypatch, *command) == 0
    (tmp_path / "run/done.json").unlink()

    def change_sidecar(name, **changed):
        meta = json.loads((corpus / f"{name}.json").read_text())
        (corpus / f"{name}.json").write_text(json.dumps(meta | changed))
    if change in ("val", "test"):
        other = {"val": "test", "test": "val"}[change]
        for ending in ("bin", "labels.bin", "json"):
            shutil.copy(corpus / f"{other}.{ending}", corpus / f"{change}.{ending}")
        change_sidecar(change, labels_sha256=json.loads((world / f"demo/{change}.json").read_text())["labels_sha256"])
    elif change == "test labels":
        change_sidecar("test", labels_sha256="other")
    elif change == "label names":
        train = command[command.index("--data") + 1] / ("curated.json" if module is train_ref else "noisy.json")
        change_sidecar(train.stem, useful_labels=["result"])
    elif change == "start":
        shutil.copy(world / "ref/best.pt", start)
        torch.save(torch.load(start, weights_only=True) | {"step": 99}, start)
    else:
        os.remove(start)  # a run that goes on needs it no more
        config = json.loads((tmp_path / "run/config.json").read_text())
        old = {key: value for key, value in config.items() if not key.startswith(("val", "test", "init_from"))}
        (tmp_path / "run/config.json").write_text(json.dumps(old))  # as an older revision wrote it
        assert _exit_code(monkeypatch, *command, "--resume") == 0
        now = json.loads((tmp_path / "run/config.json").read_text())
        assert now == {key: value for key, value in config.items() if key != "init_from_sha256"}
        return
    refused(["T/run", says, "another --out"], *command, "--resume")


@pytest.mark.parametrize("module", [train_ref, train_slm], ids=lambda m: m.__name__)
def test_loss_that_is_not_a_number(module, world, tmp_path, monkeypatch, refused):
    # Three good steps, then one that throws the weights away: what was saved must still be of use.
    monkeypatch.setattr(module, "learning_rate", lambda step, cfg: 1e-3 if step < 3 else 1e30)
    scores = ["--scores", world / "scores"] if module is train_slm else []
    refused(["loss is|not finite", "at step", "lower --lr", "T/run"], module, *MODEL, *scores, "--data", world / "demo",
            "--out", tmp_path / "run", "--train_tokens", 640, "--train", "noisy",
            "--save_every", 1, "--eval_every", 1, "--log_every", 1)
    for name in ("ckpt.pt", "best.pt"):
        weights = common.load_checkpoint(tmp_path / "run" / name)["model"]
        assert all(w.abs().max() < 100 for w in weights.values()), f"{name} has diverged weights"  # NaN fails too


def _kill_at(n, monkeypatch, module, *options):
    """A run killed in the middle of step n: nothing is saved after the last --save_every."""
    def learning_rate(step, cfg):
        if step == n:
            raise KeyboardInterrupt
        return common.learning_rate(step, cfg)
    with monkeypatch.context() as m:
        m.setattr(module, "learning_rate", learning_rate)
        assert _exit_code(m, module, *options) == 130


def _assert_same_weights(a, b):
    a, b = (common.load_checkpoint(folder / "ckpt.pt")["model"] for folder in (a, b))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("module", [train_ref, train_slm], ids=lambda m: m.__name__)
def test_resume_between_two_evaluations(module, world, tmp_path, monkeypatch):
    scores = ["--scores", world / "scores"] if module is train_slm else []
    command = (module, *SHORT, *scores, "--data", world / "demo", "--train", "noisy", "--save_every", 1,
               "--eval_every", 3)
    _kill_at(2, monkeypatch, *command, "--out", tmp_path / "cut")
    assert _exit_code(monkeypatch, *command, "--out", tmp_path / "cut", "--resume") == 0
    assert _exit_code(monkeypatch, *command, "--out", tmp_path / "whole") == 0
    _assert_same_weights(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
def test_disk_full_while_saving(world, tmp_path, monkeypatch):
    run = tmp_path / "run"
    options = [str(o) for o in (*MODEL, "--data", world / "demo", "--out", run, "--train_tokens", 640,
                                "--save_every", 1, "--eval_every", 3)]
    _kill_at(3, monkeypatch, train_ref, *options)
    assert common.load_checkpoint(run / "ckpt.pt")["step"] == 3
    before = _contents(run)

    resource = pytest.importorskip("resource")
    limit = 16 * 1024  # room for the log but not for a checkpoint: a write beyond it fails, as on a full disk
    done = subprocess.run([sys.executable, "train_ref.py", *options, "--resume"], cwd=ROOT,
                          capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert re.search(rf"could not save {run}/\w+\.pt .*free some space .*--resume", done.stderr), done.stderr
    after = _contents(run)
    assert after.keys() == before.keys()  # no temporary file is left
    assert all(after[path] == before[path] for path in before if not path.endswith("metrics.jsonl"))

    assert _exit_code(monkeypatch, train_ref, *options, "--resume") == 0  # now there is room
    assert common.load_checkpoint(run / "ckpt.pt")["step"] == 10


@pytest.mark.slow
def test_ctrl_c_saves(world, tmp_path, monkeypatch):
    # With dropout the resumed weights are those of an uninterrupted run only if the random numbers go on too.
    options = [str(o) for o in (*MODEL, "--dropout", 0.1, "--data", world / "demo", "--train_tokens", 64 * 400,
                                "--log_every", 1, "--eval_every", 1000, "--save_every", 1000)]
    process = subprocess.Popen([sys.executable, "train_ref.py", *options, "--out", tmp_path / "cut"], cwd=ROOT,
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    log, deadline = tmp_path / "cut/metrics.jsonl", time.time() + 60
    while process.poll() is None and time.time() < deadline and not (log.exists() and '"train"' in log.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and re.fullmatch(r"train_ref\.py: interrupted.*\n", stderr), stderr
    assert 0 < common.load_checkpoint(tmp_path / "cut/ckpt.pt")["step"] < 400  # Ctrl-C alone saves before step 400

    assert _exit_code(monkeypatch, train_ref, *options, "--out", tmp_path / "cut", "--resume") == 0
    assert _exit_code(monkeypatch, train_ref, *options, "--out", tmp_path / "whole") == 0
    _assert_same_weights(tmp_path / "cut", tmp_path / "whole")
