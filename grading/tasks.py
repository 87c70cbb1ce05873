"""
The tasks of eval_math.py: where each test file is published, and how its rows become problems.

A problem is a dict: `question` (the text of the prompt up to where the model goes on), `answer` (the right
one), `solution` (the text the model should go on with) and `options` (of multiple choice).
"""
import hashlib
import http.client
import json
import os
import re
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from engine.cli import BadInput
from engine.files import TEXT, replacing
from engine.text_files import object_rows
from grading.grade import boxed, extract_answer


@dataclass
class Style:
    """A form of prompt; its worked problems are in grading/prompts/NAME.txt."""
    name: str
    shots: int            # how many are usual
    max_new_tokens: int   # a right solution is rarely longer
    stop: tuple           # texts that end a generation


DEMO = Style("demo", 2, 40, ("\nQuestion:",))  # whose worked problems are those of the corpus
WORD = Style("word", 8, 192, ("\nQuestion:",))
TABLE = Style("table", 4, 160, ("\nTable:", "\nQuestion:"))
CHOICE = Style("choice", 4, 192, ("\nQuestion:",))
MATH = Style("math", 4, 320, ("I hope it is correct.", "\nProblem:"))


@dataclass
class Task:
    style: Style
    source: str      # where the test file is published
    checksum: str    # of its questions and answers as `read` returns them
    read: Callable   # row -> problem


def problem(question, answer, solution, options=()):
    (question + solution).encode()  # a row of JSON can hold half a character, which UTF-8 cannot
    solution = re.sub("  +", " ", solution)
    return {"question": question, "answer": answer, "solution": solution, "options": list(options)}


def word(question, answer, solution=""):
    return problem(f"Question: {question.strip()}\nAnswer:", answer, f" {solution} The answer is {answer}.")


def choice(question, options, letter, solution=""):
    listed = " ".join(f"({a}) {text}" for a, text in zip("ABCDE", options))
    return problem(f"Question: {question.strip()}\nOptions: {listed}\nAnswer:", letter,
                   f" {solution} The answer is ({letter}).", options)


def listed_options(text):
    """'a ) 12 , b ) 16' or 'A) 12 B) 16' -> ['12', '16']"""
    parts = re.split(r"(?:^|(?<=[\s'\[]))[a-eA-E] ?[).]\s", text)
    stripped = [part.strip(" ,'[]") for part in parts]
    return [part for part in stripped if part]


def decimal(x):
    return str(int(x)) if float(x).is_integer() else str(x)


def demo(r):
    if not isinstance(r["answer"], (str, int, float)):
        raise TypeError(f"the answer is {repr(r['answer']):.40}, no text and no number")
    answer = extract_answer(str(r["answer"]), "demo")
    if not answer:
        raise ValueError("the answer holds no number")
    blank = "" if str(r["answer"]).startswith("\n") else " "
    return problem("Question: " + r["question"] + "\nAnswer:", answer, f"{blank}{r['answer']}")


def gsm8k(r):
    plain = re.sub(r"<<.*?>>", "", r["answer"])  # without the calculator's annotations
    solution, answer = plain.split("####")
    return word(r["question"], answer.strip().replace(",", ""), solution.strip())


def svamp(r):
    return word(r["Body"].strip().rstrip(".") + ". " + r["Question"], decimal(r["Answer"]))


def asdiv(r):
    without_unit = re.sub(r"\s*\(.*?\)", "", r["answer"])
    return word(r["body"] + " " + r["question"], without_unit)


def mawps(r):
    return word(r["input"], decimal(r["target"]))


def latex(r):
    answer = r["answer"] if "answer" in r else boxed(r["solution"])
    final = f"\nFinal Answer: The final answer is ${answer}$. I hope it is correct."
    return problem("Problem: " + r["problem"] + "\nSolution:", answer, " " + r["solution"] + final)


def table(r):
    unit = f" (in {r['unit']})" if r["unit"] else ""
    among = f" ({' or '.join(r['choices'])})" if r["choices"] else ""
    shown = f"Table: {r['table_title'] or ''}\n{r['table']}"
    question = shown + "\nQuestion: " + r["question"] + unit + among + "\nAnswer:"
    return problem(question, r["answer"], f" The answer is {r['answer']}.")


def mathqa(r):
    return choice(r["problem"], listed_options(r["options"]), r["correct"].upper(), r["rationale"].strip('"'))


def mmlu(r):
    return choice(r["question"], r["choices"], "ABCD"[r["answer"]])


def sat(r):
    return choice(r["question"], listed_options(r["options"]), r["Answer"])


GSM8K = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data/test.jsonl"
TABMWP = "https://raw.githubusercontent.com/lupantech/PromptPG/main/data/tabmwp/problems_test1k.json"
HARNESS = "https://raw.githubusercontent.com/ZubinGou/math-evaluation-harness/main/data/{}/test.jsonl"
TASKS = {
    "demo": Task(DEMO, "", "", demo),
    "gsm8k": Task(WORD, GSM8K, "8b9eddf9b17bc43a", gsm8k),
    "math": Task(MATH, HARNESS, "d5e5219155e927a3", latex),
    "math_oai": Task(MATH, HARNESS, "ee02b28f43529d42", latex),
    "gsm_hard": Task(WORD, HARNESS, "ec2b234918732f7d", mawps),  # rows like those of mawps
    "svamp": Task(WORD, HARNESS, "bfbfa6fb742657e3", svamp),
    "asdiv": Task(WORD, HARNESS, "2dd0c7407f2016c0", asdiv),
    "mawps": Task(WORD, HARNESS, "213368028b45431f", mawps),
    "tabmwp": Task(TABLE, TABMWP, "f2b8c588400ee584", table),
    "mathqa": Task(CHOICE, HARNESS, "5774aabe464d3ac2", mathqa),
    "mmlu_stem": Task(CHOICE, HARNESS, "ecbfde763d7f7162", mmlu),
    "sat_math": Task(CHOICE, HARNESS, "b95d05c636f65ed6", sat),
}


def demonstrations(style):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "prompts", f"{style.name}.txt")
    with open(path, encoding=TEXT) as f:
        return f.read().strip().split("\n\n")


def load_problems(name, path):
    """The problems of the task `name` in a file, see `object_rows`. Raises BadInput."""
    problems = []
    for where, row in object_rows(path):
        try:
            problems.append(TASKS[name].read(row))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
            what = "a question with its answer" if name == "demo" else f"a row of {name}"
            raise BadInput(f"{path}, {where}, is not {what}: {e!r}")
    if not problems:
        raise BadInput(f"{path} holds no problems")
    return problems


def checksum(problems):
    """Of the questions and answers in any order, so that the same test set in another format is the same."""
    pairs = sorted([p["question"], p["answer"]] for p in problems)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]


def load_task(name, folder):
    """The problems of a test set in `folder`, downloaded if they are not there. Raises BadInput."""
    task = TASKS[name]
    url = task.source.format(name)
    path = os.path.join(folder, name + ".jsonl")
    if not os.path.exists(path):
        path = os.path.join(folder, name + os.path.splitext(url)[1])
    if not os.path.exists(path):
        download(url, path)
    try:
        problems = load_problems(name, path)
    except BadInput as e:
        raise BadInput(f"{e}; delete the file to download it again")
    if checksum(problems) != task.checksum:
        print(f"{path} is not the published test set of {name} ({len(problems)} problems): do not compare it "
              f"with others' results", file=sys.stderr)
    return problems


def download(url, path):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    print(f"downloading {url}")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException) as e:
        raise BadInput(f"cannot download {url} ({e}): fetch it elsewhere, and save it as {path}")
    with replacing(path, "wb") as f:
        f.write(content)
