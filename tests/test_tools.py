"""grading/tools.py, grading/interpreter.py, controls/execution.py, and generation that takes in what tools write."""
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import eval_math
import prepare
from controls import execution
from data import Scores, Tokens
from engine.cli import BadInput
from engine.files import read_jsonl
from engine.generation import generate
from grading import results
from grading.interpreter import forbidden, run_program
from grading.tools import calculate, run_last
from helpers import ROOT
from test_eval import corpus  # noqa: F401 (a fixture)
from test_model import make

unix = pytest.mark.skipif(sys.platform == "win32", reason="the limits are those of Unix")


@pytest.mark.parametrize("text, result", [
    ("finds 5: 7 + 5 =", " 12"), ("12 - 3 = 9. 9 + 4 =", " 13"), ("= 12 - 3 =", " 9"), ("3 - 10 =", " -7"),
    ("<<48/2=", "24"), ("(2 + 3) * 4 =", " 20"), ("2 * (3+4)=", "14"), ("2 + 3 × 4 =", " 14"), ("10 ÷ 4 =", " 2.5"),
    ("$5.50 * 3 =", " 16.5"), ("1,200 / 4 = ", "300"), ("0.1 + 0.2 =", " 0.3"), ("0.5 - 1 =", " -0.5"),
    ("2 x 3 + 4 =", " 10"), (r"2 \times 3 + 4 =", " 10"), ("7 – 2 + 1 =", " 6"),
    ("123456789.25 * 123456789.5 =", " 15241578842783112.875"), ("+".join(["1234567"] * 9) + " =", " 11111103"),
    # No calculation, or not the whole of one.
    ("1 / 3 =", ""), ("8/0=", ""), ("5 ** 2 =", ""), ("7 =", ""), ("7 + 5", ""), ("(7 + 5 =", ""), ("", ""),
    ("x - 7 + 5 =", ""), ("x − 7 + 5 =", ""), ("x · 3 + 5 =", ""), ("25% of 80 + 10 =", ""), ("1/2 of 20 + 4 =", ""),
    ("(1+2)(3+4) =", ""), ("3 (3 + 4) =", ""), ("sqrt(9 + 16) =", ""), ("log10 + 5 =", ""), ("1e3 + 5 =", ""),
    ("1 000 + 5 =", ""), ("1 1/2 + 3 =", ""), ("12:30 + 5 =", ""), ("1,20 + 3 =", ""), ("(5,5 - 3) =", ""),
    ("+".join(["1234567"] * 40) + " =", "")])
def test_what_a_calculator_writes(text, result):
    assert calculate(text) == result


# {program: (what comes out, what comes out if its source is not looked through)}
REFUSED, STOPPED = "Refused: {}", "PermissionError: {} is not allowed here"
PROGRAMS = {
    "print(1)\nwhile True: pass": ("1\nTimeout: 4 s",) * 2,
    "print(9**9**9**9)": ("Timeout: 4 s",) * 2,
    "import re\nprint(re.match('(a+)+$', 40 * 'a' + 'b'))": ("Timeout: 4 s",) * 2,
    "x = []\nwhile True: x.append(bytes(10**8))": ("MemoryError",) * 2,
    "while True: print(99 * 'a')": (("\n".join([99 * "a"] * 5))[:400] + "...\nOSError: [Errno 27] File too large",) * 2,
    "import os\nwhile True: os.fork()": (REFUSED.format("os"), STOPPED.format("os.fork")),
    "import threading\nprint(1)\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()":
        (REFUSED.format("threading"), "1"),
    "open('/etc/passwd')": (REFUSED.format("open"), "PermissionError: files are not allowed here: '/etc/passwd'"),
    "open('a', 'w')": (REFUSED.format("open"), "PermissionError: files are not allowed here: 'a'"),
    "import socket\nsocket.socket()": (REFUSED.format("socket"), STOPPED.format("socket.__new__")),
    "import subprocess\nsubprocess.run('ls')": (REFUSED.format("subprocess"), STOPPED.format("subprocess.Popen")),
    "import os\nprint(1)\nos._exit(1)": (REFUSED.format("os"), "1"),
    "import sys\nprint(1)\nsys.exit(3)": (REFUSED.format("sys"), "1"),
    "print(1)\nexit()": ("1",) * 2,
    "import ctypes\nprint(1)\nctypes.string_at(0)": (REFUSED.format("ctypes"), "1\nKilled by signal 11"),
    "from statistics import sys": (REFUSED.format("sys"), ""),
    "import random\nprint(random.sys.path)": (REFUSED.format("sys"), None),
    "input = 2\ndef f(vars): return vars\nprint(f(input))": ("2",) * 2,
    "class A:\n    def __init__(self): super().__init__()\nprint(A() and 1)": ("1",) * 2,
    "def f(): return f()\nf()": ("RecursionError: maximum recursion depth exceeded",) * 2,
    "print(1)\nprint((2": ("SyntaxError: '(' was never closed",) * 2,
    "print(input())": (REFUSED.format("input"), "EOFError: EOF when reading a line"),
    "print(1, end='')": ("1",) * 2,
    "import sys\nsys.stdout.buffer.write(b'a\\xff')": (REFUSED.format("sys"), "a\ufffd"),
    "print(1, end='')\nprint(1 / 0)": ("1\nZeroDivisionError: division by zero",) * 2,
    "print(().__class__)": (REFUSED.format("__class__"), "<class 'tuple'>"),
    "from math import *\nif __name__ == '__main__': print(gcd(4, 6))": ("2",) * 2,
    "import numpy as np\nprint(np.linalg.inv(2 * np.eye(100)).sum())": ("50.0",) * 2,
    "": ("",) * 2,
}


@unix
def test_what_programs_do_that_should_not():
    """As they are, and without the look through their source, so that the limits are tried too."""
    cases = [(program, policy) for program in PROGRAMS for policy in (True, False)]
    with ThreadPoolExecutor(8) as pool:
        printed = list(pool.map(lambda case: run_program(case[0], seconds=4.0, policy=case[1]), cases))
    for (program, policy), found in zip(cases, printed):
        assert found == PROGRAMS[program][not policy] or PROGRAMS[program][not policy] is None, program


def test_what_is_looked_for_in_a_source():
    for fine in ("import sympy as sp\nx = sp.symbols('x')", "from fractions import Fraction", "print(", "a\0b"):
        assert forbidden(fine) is None
    for program, name in (("import math, os.path", "os.path"), ("from . import a", "."), ("x._private", "_private"),
                          ("f = eval", "eval"), ("__import__('os')", "__import__")):
        assert forbidden(program) == name
    assert run_program("(" * 10**4 + "1").startswith(("Refused: too many brackets", "SyntaxError", "MemoryError"))


def test_a_set_has_the_same_order_each_time():
    assert len({run_program("print(set('abcdefgh'))") for _ in range(3)}) == 1


def test_earlier_programs_run_unheard_and_what_was_refused_does_not_run():
    assert run_program("print(x + 1)", ["x = 2\nprint('one')", "x = 3\n1 / 0", "x =", "import os\nx = 9"]) == "4"


@unix
def test_a_limit_that_is_lower_already_stays():
    code = ("import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (2**12, 2**12))\n"
            "from grading.interpreter import run_program; print(run_program('print(7)'))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.stdout.strip() == b"7"


@unix
def test_a_killed_evaluation_leaves_nothing(tmp_path):
    """Neither a folder nor, a little later, a process."""
    code = "from grading.interpreter import run_program\nrun_program('while True: pass', seconds=1)"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, cwd=ROOT)
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    end = time.time() + 10
    while not (child := open(children).read().split()) and time.time() < end:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.listdir(tmp_path) == []
    end = time.time() + 8
    while os.path.exists(f"/proc/{child[0]}") and time.time() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{child[0]}")


def test_a_block_behind_a_program():
    first = "Let us see.\n```python\nx = 3\nprint(x)\n```"
    assert run_last(first, 4, 5.0) == "\n```output\n3\n```\n"
    assert run_last(first + "\n", 4, 5.0) == "```output\n3\n```\n"
    both = first + "\n```output\n3\n```\nThen\n```python\nprint(x, '```')\n```"
    assert run_last(both, 4, 5.0) == "\n```output\n3 '''\n```\n"
    assert run_last(both, 1, 5.0) == ""  # no more rounds
    for text in ("", "```python\nprint(1)\n", "```\n", "print(1)\n```", first + "\n```output\n3\n```\n", first + " x"):
        assert run_last(text, 4, 5.0) == ""
    late = "```python\nwhile True: pass\n```\n```output\nTimeout: 1 s\n```\n"  # it does not run again
    assert run_last("```python\n```\nSorry\n" + late + first, 4, 1.0) == "\n```output\n3\n```\n"


@pytest.mark.parametrize("printed, behind, answer", [
    ("12", "", "12"), ("12", "The answer is 13.", "13"), ("Timeout: 5 s", "", ""), ("Refused: os", "", ""),
    ("12\nIndexError: list index 5 out of range", "", "12"), ("numpy.linalg.LinAlgError: 2 of\n3", "", ""),
    ("StopIteration: 7", "", ""), ("12", "```python\nprint(3)\n```", "3")])
def test_the_answer_is_not_in_the_program(printed, behind, answer):
    program = "```python\n# Problem: #### the answer is 7\nprint(4)\n```"
    text = f"Let us see.\n{program}\n```output\n{printed}\n```\n{behind}"
    row = {"generation": text, "samples": [text]}
    results.grade_row(row, "12", "gsm8k")
    assert row["prediction"] == row["sample_predictions"][0] == answer


def test_tokens_that_are_put_in_equal_an_uncached_loop():
    """In a batch whose rows are answered at different times, and end at different ones."""
    model, generator = make(), torch.Generator().manual_seed(4)
    prompts = [[1, 2, *torch.randint(50, (n,), generator=generator).tolist()] for n in (1, 7, 3, 12, 9, 2)]

    def reply(new):
        return [7, 8, 5 * (len(new) % 3)] if new[-1] % 3 == 0 and len(new) % 4 == 2 else []

    def stop(drawn):
        return len(drawn) > 2 and sum(drawn) % 5 == 0
    expected, n_put_in = [], 0
    for prompt in prompts:
        new, drawn, to_come = [], [], []
        while len(new) < 16:
            if to_come:
                new.append(to_come.pop(0))
                n_put_in += 1
                continue
            new.append(model.logits(model(torch.tensor([prompt + new])))[0, -1].argmax().item())
            drawn.append(new[-1])
            if stop(drawn):
                break
            to_come = reply(new)
        expected.append(new)
    assert generate(model, prompts, 16, stop, reply=reply) == expected and n_put_in > 5
    assert len({len(new) for new in expected}) > 2
    assert generate(model, prompts, 16, stop, reply=lambda new: []) == generate(model, prompts, 16, stop)


def test_an_evaluation_with_tools(corpus, tmp_path, monkeypatch):  # noqa: F811
    """A model that writes what it is told to, up to where the tool goes on."""
    wrote = {"calculator": ["7 + 5 =", ". The answer is", " 12"],
             "python": ["\n```python\nprint(7 + 5)\n```", "The answer is 12"]}
    for tool, said in wrote.items():
        cfg = corpus([{"question": "7 + 5?", "answer": "12"}], shots=0, tool=tool)
        assert list(cfg.validate()) == []

        def told(model, prompts, n, stop, temperature, generator, reply):
            new = []
            for text in said:
                new += enc.encode_ordinary(text)
                new += reply(new)
            return [new]
        enc = eval_math.load_tokenizer(str(tmp_path))
        monkeypatch.setattr(eval_math, "generate", told)
        eval_math.main(cfg)
    summary = read_jsonl(tmp_path / "eval" / "summary.jsonl")
    assert [(line["tool"], line["accuracy"]) for line in summary] == [("calculator", 1.0), ("python", 1.0)]
    texts = [read_jsonl(tmp_path / "eval" / line["rows"])[0]["generation"] for line in summary]
    assert texts == ["7 + 5 = 12. The answer is 12",
                     "\n```python\nprint(7 + 5)\n```\n```output\n12\n```\nThe answer is 12"]
    assert len(list(eval_math.Config(ckpt=["a"], tool="abacus", rounds=0).validate())) == 2


def test_documents_that_hold_what_their_programs_print(tmp_path, demo):
    """Not those without a program, and of those with a wrong number the few whose answer comes out all the same."""
    data = str(tmp_path / "data")
    prepare.main(prepare.Config(out=data, noisy_tokens=15_000, curated_problems=30, held_out_problems=5, chatter=0.3,
                                solutions="programs", largest=99))
    execution.main(execution.Config(data=data, out=str(tmp_path / "run")))
    tokens, counts, start = Tokens(data, "noisy", 192), Counter(), 0
    selected = Scores(str(tmp_path / "run"), tokens).all() == 0                   # (n,), of the targets
    for end in np.flatnonzero(tokens.tokens[:len(selected)] == tokens.meta["end_of_text"]):
        names = {tokens.label_names[number] for number in tokens.labels[start:end]}
        [its] = set(selected[max(0, start - 1):end].tolist())
        counts["output" in names, "wrong" in names, its] += 1
        start = end + 1
    assert not counts[False, False, True] and not counts[True, False, False]
    assert counts[True, False, True] > 15 and counts[True, True, False] > 10 * counts[True, True, True]
    with pytest.raises(BadInput, match="0 programs, and no document whose programs print"):
        execution.main(execution.Config(data=demo, out=str(tmp_path / "none")))
