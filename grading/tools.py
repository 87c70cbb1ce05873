"""
Tools that a model can use while it answers: functions that look at what it has written so far, and say what
is to stand there next (`reply` of engine/generation.py).

    calculator    behind '7 + 5 =' stands the result
    python        behind a program in a block, ```python, stands a block with what it prints, ```output
"""
import ast
import operator
import re
from fractions import Fraction

from grading.interpreter import run_program

NUMBER = r"[($]*-?\d[\d,]*(?:\.\d+)?\)*"
CALCULATION = re.compile(rf"(?<![\d.,])({NUMBER}(?:\s*[-+*/×÷]\s*{NUMBER})+)(\s*)=(\s*)$")
PROGRAM = re.compile(r"```python\n(.*?)\n```", re.S)
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
TAIL = 80    # characters of a calculation at most


def value_of(node):
    """The exact value of an expression of numbers, + - * / and brackets. Raises ValueError."""
    if isinstance(node, ast.Constant):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -value_of(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](value_of(node.left), value_of(node.right))
    raise ValueError("not a calculation")


def calculate(text):
    """What a calculator writes behind a text: '' or the result of the calculation with whose equals sign the
    text ends, with a blank before it where one stands before the sign.

    A result with more than six decimals is left to the model, as is what may be only the end of a longer
    expression ('x - 7 + 5 =').
    """
    found = CALCULATION.search(text[-TAIL:])
    if not found:
        return ""
    before = text[-TAIL:][:found.start()].rstrip()
    if before and before[-1] in "+-*/×÷(^":
        return ""
    expression, blank, behind = found.groups()
    for written, meant in (("×", "*"), ("÷", "/"), ("$", ""), (",", "")):
        expression = expression.replace(written, meant)
    try:
        value = value_of(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return ""
    if (value * 10**6).denominator != 1:
        return ""
    digits = str(int(value)) if value.denominator == 1 else f"{float(value):.6f}".rstrip("0")
    return (" " if blank and not behind else "") + digits


def run_last(text, rounds, seconds):
    """What stands behind a program with whose block a text ends: '' or a block with what it prints. The
    programs before it in the text run again, unheard. rounds: the most such blocks in a text."""
    programs, n_outputs = PROGRAM.findall(text), text.count("```output\n")
    if not re.search(r"\n```\n?$", text) or not n_outputs < min(len(programs), rounds):
        return ""
    printed = run_program(programs[-1], programs[:-1], seconds).replace("```", "'''")
    start = "" if text.endswith("\n") else "\n"
    return f"{start}```output\n{printed}\n```\n"


def reply_of(tool, enc, rounds, seconds):
    """The `reply` of engine.generation.generate for a tool, 'calculator' or 'python'; None without one."""
    def calculator(new_tokens):
        if "=" not in enc.decode(new_tokens[-2:]):    # so it is with most tokens
            return []
        return enc.encode_ordinary(calculate(enc.decode(new_tokens[-TAIL:])))

    def python(new_tokens):
        if "`" not in enc.decode(new_tokens[-2:]):
            return []
        return enc.encode_ordinary(run_last(enc.decode(new_tokens), rounds, seconds))
    return {"": None, "calculator": calculator, "python": python}[tool]
