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

# How operators are written too; a dollar sign counts for nothing.
SPELLINGS = {"\\times": "*", "\\cdot": "*", "×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-",
             "$": ""}
NUMBER = r"\(*-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?\)*"
CALCULATION = re.compile(rf"(?<![\w.,:%)\]])({NUMBER}(?:\s*[-+*/x]\s*{NUMBER})+)(\s*)=(\s*)$")
# Before a calculation: a sign that it is only the end of a longer one, as in '25% of 80 + 10 ='.
WORDS = "of|times|plus|minus|by|over|root|sqrt|log|ln|sin|cos|tan|[a-z]"
LONGER = re.compile(rf"([-+*/^(\d)\]%]|\\\w+|\b({WORDS}))$", re.I)
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
TAIL = 200   # characters of a calculation at most

# A program in its block, with what it printed where that is there; and an error in that.
PROGRAM = re.compile(r"^```python[ \t]*\n(.*?)^```[ \t]*$(?:\n```output\n(.*?)^```)?", re.M | re.S)
FAILED = re.compile(r"^((Timeout|Refused|Killed)\b.*|[\w.]*(Error|Exception|Iteration)\b[\s\S]*)\Z", re.M)


def value_of(node, text):
    """The exact value of an expression of numbers, + - * / and brackets: a node of its `text`. Raises
    ValueError."""
    if isinstance(node, ast.Constant):
        return Fraction(ast.get_source_segment(text, node))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -value_of(node.operand, text)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](value_of(node.left, text), value_of(node.right, text))
    raise ValueError("not a calculation")


def calculate(text):
    """What a calculator writes behind a text: '' or the result of the calculation with whose equals sign the
    text ends, with a blank before it where one stands before the sign.

    A result of more than six decimals is left to the model, and so is what looks like the end of a longer
    calculation.
    """
    for written, meant in SPELLINGS.items():
        text = text.replace(written, meant)
    found = CALCULATION.search(text[-TAIL:])
    if not found or (found.start() == 0 and len(text) > TAIL):
        return ""
    if LONGER.search(text[-TAIL:][:found.start()].rstrip()):
        return ""
    expression, blank, behind = found.groups()
    expression = expression.replace(",", "").replace("x", "*")
    try:
        value = value_of(ast.parse(expression, mode="eval").body, expression)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return ""
    millionths = value * 10**6
    if millionths.denominator != 1:
        return ""
    whole, rest = divmod(abs(int(millionths)), 10**6)
    digits = f"{'-' if value < 0 else ''}{whole}"
    if rest:
        digits += f".{rest:06}".rstrip("0")
    return (" " if blank and not behind else "") + digits


def run_last(text, rounds, seconds):
    """What stands behind a program with whose block a text ends: '' or a block with what it prints. Those
    before it that did not run out of time run again, unheard. rounds: so many programs of a text run."""
    *before, last = list(PROGRAM.finditer(text)) or [None]
    if not last or len(before) >= rounds or last[2] is not None or text[last.end():].strip():
        return ""
    earlier = [found[1] for found in before if "Timeout:" not in (found[2] or "")]
    printed = run_program(last[1], earlier, seconds).replace("```", "'''")
    start = "" if text.endswith("\n") else "\n"
    return f"{start}```output\n{printed}\n```\n"


def without_programs(text):
    """A text as it is graded: of a program that was run what it printed, unless that is an error."""
    def printed(found):
        if found[2] is None:
            return found[0]
        return FAILED.sub("", found[2].rstrip("\n"))
    return PROGRAM.sub(printed, text)


def reply_of(tool, enc, rounds, seconds):
    """The `reply` of engine.generation.generate for a tool, 'calculator' or 'python'; None without one."""
    def calculator(new_tokens):
        if "=" not in enc.decode(new_tokens[-2:]):    # so it is with most tokens
            return []
        return enc.encode_ordinary(calculate(enc.decode(new_tokens[-TAIL - 1:])))

    def python(new_tokens):
        if "`" not in enc.decode(new_tokens[-2:]):
            return []
        return enc.encode_ordinary(run_last(enc.decode(new_tokens), rounds, seconds))
    return {"": None, "calculator": calculator, "python": python}[tool]
