r"""
The grader: find the answer in a model's text, and compare it with the right one.

    extract_answer("16 - 7 = 9 eggs are left. The answer is 9.", "gsm8k")   # "9"
    is_equal(r"\frac{1}{2}", "0.5")                                         # True

Both are pure functions of text. Nothing of the text is ever run as code, and the work is bounded: values come from a
small parser, with exact fractions as long as that is possible. Rounding is forgiven (1e-4), other differences are not.
"""
import cmath
import math
import random
import re
from fractions import Fraction

# ------------------------------------------------------------------------------------------------- extraction

KIND = {"asdiv": "text", "tabmwp": "text", "math": "latex", "math_oai": "latex",
        "mathqa": "letter", "mmlu_stem": "letter", "sat_math": "letter"}  # every other task: "number"

# where an answer is over and the model goes on: the next question, the end of its turn
RUN_ON = re.compile(r"<\|(?:endoftext|im_end|eot_id|end_of_text)\|>|</s>|I hope it is correct|Question:|"
                    r"\n[ \t#*]*(?:Question|Problem|Exercise|Example|Q|Table|User|USER|Human|Instruction)(?: ?\d{1,3})?[ \t*]*:")
# "the answer is", "Answer:", "the answer to the second question would be"; and what may stand before the answer itself
VERB = r"\b(?:is|are|was|would be|should be|must be|will be)\b"
CUE = re.compile(rf"\banswers?\b(?:(?: (?:to|for|of)\b[^.:\n]{{0,80}}?)? {VERB}|[ \t*]{{0,4}}(?:{VERB}|[:=]))", re.I)
FILLER = re.compile(r"(?:(?:thus|then|therefore|hence|equal to|given by|approximately|about|simply|just|exactly),? )+", re.I)
# a full stop, but not that of an initial, a title or "p.m."; and where an answer turns into its explanation
SENTENCE_END = re.compile(r"(?<!\b[A-Z])(?<!Mr)(?<!Mrs)(?<!Ms)(?<!Dr)(?<!Rs)(?<!\.m)\.(?=\s|\*|$)")
REASON = re.compile(r",? \(?(?:because|since|given that)\b.*|,? (?:and|so|but) (?:we|it|this|that|the|I) .*| "
                    r"\([^()]*=[^()]*\).*")
# 1 1/2, 1,234.50 (also 1,00,000), 3/4 or 0.5, .5
NUMBER = r"(?:\d+ \d+/\d+|\d{1,3}(?:,\d{2,3}){0,9},\d{3}(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?(?:/\d+)?|\.\d+)"
SIGNED = rf"(?:(?<![\w)\]}}.])[-+])?{NUMBER}"  # a minus after a digit is a subtraction
TEXT_COMMAND = r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|rm|underline|operatorname)\s*\{"


def extract_answer(text, task):
    """The answer that a solution ends in, as text; "" when there is none.

    Looks, in what the model wrote before it ran on into the next question, for the Minerva form (`final answer is
    $...$. I hope it is correct`), `\\boxed{...}`, `#### N` (GSM8K), `answer is ...` or `answer: ...`, always the last
    one; without any of them for the last number, formula or option letter.
    """
    text, kind = str(text)[:300_000], KIND.get(task, "number")
    end = RUN_ON.search(text)
    minerva = end and end[0].startswith("I hope")
    text = text[:end.start()][-20_000:] if end else text[-20_000:]
    text = text.replace("\u2212", "-").replace("\\$", "").replace("$$", "$")
    text = re.sub(r"(?<!\\)\\[()\[\]]", "$", text)  # \( \) \[ \] delimit formulas as $ does
    text = text if kind == "latex" else text.replace("$", "")
    for place in [cued] * bool(minerva) + [boxed, marked, cued]:
        if (found := place(text)) is not None:
            inner = boxed(found)
            return read_answer(found if inner is None else inner, kind)
    if kind == "letter":
        start = re.match(r"[\s*]{0,9}\(?(?:([A-E])(?:[.:,]\s|\)?\s*(?:\n|$))|([A-Ea-e])(?: ?[).:,]\s.{0,30}|\W*)$)", text)
        if start:
            return (start[1] or start[2]).upper()
        letters = re.findall(r"\( ?([A-Ea-e]) ?\)|\b([B-E]|A(?!\s+[a-z]))\b|"
                             r"\b(?:option|answer|ans|choice) ?:? ?([a-e])\b", text)
        return "".join(letters[-1]).upper() if letters else ""
    if kind == "latex":
        formulas = [f for f in re.findall(r"\$([^$]+)\$", text) if not re.search(r"square|\\Box|qed", f)]
        if formulas:
            return formulas[-1].strip()
    numbers = re.findall(SIGNED, text.replace("{,}", ","))
    return plain(numbers[-1]) if numbers else ""


def boxed(text):
    """What the last \\boxed or \\fbox holds, or None."""
    at = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if at < 0:
        return None
    rest = text[at:].split("box", 1)[1].removeprefix("ed").lstrip()
    if not rest.startswith("{"):
        return re.match(r"[^\s$.,]*", rest)[0]  # \boxed 5
    depth = 0
    for i, c in enumerate(rest):
        depth += (c == "{") - (c == "}")
        if depth == 0:
            return rest[1:i]
    return rest[1:].split("$")[0]  # cut off before the brace closed


def marked(text):
    """What stands behind the last `####` (unless it is a heading) or below a heading `# Answer`; or None."""
    lines = re.findall(r"(?:^|\n)#{1,6} (?:Final )?Answer:?\s{1,9}([^\n]+)|"
                       r"####[ \t]*(?!\W{0,9}(?:final answer|answer|step|part|solution|conclusion)\b)([^\s#][^\n#]*)", text, re.I)
    return "".join(lines[-1]) if lines else None


def cued(text):
    """The sentence or formula after the last `answer is` or `answer:` that is not cut off right there; or None."""
    for cue in reversed(list(CUE.finditer(text))):
        rest = text[cue.end():cue.end() + 2000].lstrip(" \t\n:*")
        rest = rest[FILLER.match(rest).end():] if FILLER.match(rest) else rest
        if rest.startswith("$") and "$" in rest[1:]:  # a formula, then `and $...$` where there are several
            span = re.match(r"\$[^$]*\$(?:(?:,|,? (?:and|or)) \$[^$]*\$)*", rest)[0]
        else:
            span = REASON.sub("", SENTENCE_END.split(rest.split("\n")[0], maxsplit=1)[0])
        if span.strip(" *."):
            return span.strip(" *")
    return None


def read_answer(span, kind):
    """The answer in a short piece of text that states it."""
    if kind == "latex":
        value = re.search(r"(?:\bis|\bare|\bequals|\bto) \$([^$]+)\$", span)  # "the value of $x$ is $5$"
        formula = value or (None if span.startswith("$") else re.search(r"\$([^$]+)\$", span))
        span = formula[1] if formula else span.replace("$", "")
        sides = span.split("=")
        if len(sides) > 1 and not re.search(VARIABLE + r"|[<>]|\\[lg]", re.sub(TEXT_COMMAND, "", span)):
            span = sides[-1]  # 4 + 3 = 7
        return span.strip()
    if kind == "letter":
        option = re.search(r"\b(?:option|choice) \(?([A-Ea-e])\b", span, re.I)
        letters = re.search(r"(?<![A-Za-z])([A-E])(?![A-Za-z])(?! (?!and)[a-z]{3})"  # but not the article of "A car"
                            r"(?:\)?,? ?(?:and|or|&|,) ?\(?([A-E])(?![A-Za-z']))?", span)
        small = re.match(r"[\"' (]{0,3}(?:([b-e])\b|(a)(?: ?[).:,\"']|$))", span)
        if letters and letters[2]:  # more than one is none
            return ", ".join(letters.groups())
        found = option or letters or small
        return "".join(filter(None, found.groups())).upper() if found else ""
    span = re.sub(TEXT_COMMAND + r"([^{}]*)\}", r"\1", span.replace("{,}", ","))
    span = re.sub(r"\\[%!,;]|[%\"`\u00a2]|\bRs\.? ?", "", span).strip()
    sides = [side for side in span.split("=") if re.search(r"\d", side)]
    value = re.sub(r"^([-+]) +(?=\d)", r"\1", sides[-1].strip()) if sides else ""  # 5 * 2 = 10: after the last =
    if kind == "text":
        span = re.sub(r"^\([A-E]\) ", "", span)
        if yes_no := re.match(r"(yes|no)\b", span, re.I):
            return yes_no[1]
        if not re.fullmatch(rf"{SIGNED}(?![\d:]|[a-z])[^\d=]*", value):
            return span  # a name, a time, `6th`, `2 hours and 15 minutes`
    if "\\" in value:
        return value
    # several numbers in a row, or a sum that was not worked out, stay together: the first of them is no answer
    more = rf"(?: ?[-+*/:^x] ?|,? (?:and|or|&) |, ?){NUMBER}| [a-z]+,? (?:and )?{NUMBER}(?= [a-z]+$)"
    found = re.search(rf"{SIGNED}(?:{more})*", value)
    return plain(found[0]) if found else ""


def plain(number):
    """Without thousands separators and a plus sign: '+1,234' -> '1234'."""
    return (number.replace(",", "") if re.fullmatch(SIGNED, number) else number).lstrip("+")


# --------------------------------------------------------------------------------------------------- equality

CHARACTERS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2019": "'",
                            "\u00a0": " ", "\u00b0": "^\\circ ", "\u20ac": "", "\u00a3": "", "\u2264": "<=", "\u2265": ">=",
                            "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u221a": "\\sqrt ", "\u222a": "\\cup ",
                            "\u2208": "\\in ", "\u00b1": "\\pm ", "\u00b2": "^2", "\u00b3": "^3", "\u2248": "\\approx "})
UNIT = re.compile(r"(?!(?:and|or|am|pm|mod|sin|cos|tan|log|ln|sqrt|pi)\b)(?:[A-Za-z]{4,}|(?=[a-z]*[aeiou])[a-z]{3}|in|cm|mm|km|"
                  r"kg|gm|mg|ml|mL|ft|lb|lbs|oz|yd|mi|hr|hrs|sq|mph|rpm)\b[A-Za-z .'/-]*(?:\^\{?\d\}?|(?<=[a-z])\d)?")
FUNCTIONS = {"sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "sec": lambda x: 1 / cmath.cos(x),
             "csc": lambda x: 1 / cmath.sin(x), "cot": lambda x: 1 / cmath.tan(x), "arcsin": cmath.asin,
             "arccos": cmath.acos, "arctan": cmath.atan, "ln": cmath.log, "log": cmath.log10, "exp": cmath.exp,
             "sqrt": cmath.sqrt}
NAMES = "|".join(sorted(FUNCTIONS, key=len, reverse=True))
VARIABLE = rf"(?<![\\A-Za-z])(?!(?:{NAMES}|pi)(?![a-z]))[A-Za-df-hj-z]|\\(?:theta|alpha|beta|gamma|phi|lambda|omega)"
LABEL = re.compile(r"(?:(?P<function>[A-Za-z](?:\^\{?-1\}?)? ?\([^()=]*\)|[A-Z] ?\^(?:T|\{?-1\}?)|\([a-z](?:, ?[a-z])*\))|"
                   r"[A-Za-z](?:_\w)?|\\[a-z]+|(?:m ?)?(?:\\(?:angle|triangle|overline|vec) ?)?\{?[A-Z]{1,4}\}?|\|[^|=]*\||"
                   r"\\(?:sin|cos|tan) ?\(?(?:[A-Za-z]|\\[a-z]+)\)?|[A-Za-z]{4,}(?: [A-Za-z]+)*) ?= ?(?P<value>[^=]+)|"
                   r"[A-Za-z] ?\\in(?![a-z])(?P<set>[^=]+)")  # f(x) =, A^{-1} =; x =, x_1 =, \angle ABC =, \cos A =, Area =


def is_equal(prediction, gold):
    """Whether two answers are the same, as numbers, formulas, tuples, intervals, lists, matrices, equations or words.

    Both are texts, in LaTeX or not. Units, currency and percent signs are dropped, so that 50% equals 50 and not 0.5.
    Tuples are ordered, lists and sets are not. Values with decimals may differ by a relative 1e-4, as they may have
    been rounded; whole numbers, fractions and closed forms must agree. Variables are compared at random points.
    """
    a, b = str(prediction), str(gold)
    if max(len(a), len(b)) <= 1000:
        a, b = normalise(a), normalise(b)
    return same(a, b) if max(len(a), len(b)) <= 1000 else a == b  # no answer is so long


def normalise(text):
    """One spelling for what LaTeX and prose write in many: fractions, spacing, units, number formats."""
    s = re.sub(r"(?:\\[,;:! ]?|\\q?quad|\s)+$", "", text.translate(CHARACTERS))
    s = s.strip(" \t\n,;:*").rstrip(" .").replace("**", "^")
    # \\frac, as JSON and Python print it; in a matrix \\ is the end of a row, and what follows it is a number or a letter
    s = re.sub(r"\\{2,}(?=(?:[dtc]?frac|sqrt|text|mbox|math[a-z]+|left|right|pi|begin|end|cdot|times|circ|infty|in|cup|pm|"
               r"theta|log|ln|sin|cos|tan|sec|csc|cot|overline|binom|leq?|geq?)(?![a-z])|[%$!,;{}])", lambda m: "\\", s)
    s = re.sub(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![a-z])", "", s)
    s = re.sub(r"[(\[]\s*(\\begin\{([a-z]*matrix|array)\}.*\\end\{\2\})\s*[)\]]", r"\1", s)  # an array in brackets
    s = re.sub(r",\s*\\!\s*|\{,\}", ",", s)  # 11,\! 111 and 11{,}111
    if re.search(r"\\?(?:sin|cos|tan|cot|sec|csc)\b", s):
        s = re.sub(r"(\d+)\s*\^\s*\{?\s*\\circ\s*\}?", r"{(\1\\pi/180)}", s)  # elsewhere 45^\circ is just 45
    s = re.sub(r"(?<!\\)\\[!,()\[\]]|\\?[$%]|\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree|\^o\b", "", s)
    s = re.sub(r"(?<!\\)\\(?:[;: ]|q?quad(?![a-z]))|~|\s+", " ", s)
    s = re.sub(r"\\[dtc]frac(?![a-z])", r"\\frac", s)
    s = re.sub(r"\\frac\s*(\d|\{[^{}]*\})\s*(\d|\{[^{}]*\})",  # \frac12
               lambda m: "\\frac{%s}{%s}" % (m[1].strip("{}"), m[2].strip("{}")), s)
    s = re.sub(r"\{([^{}]*)\\(over|choose)(?![a-z])([^{}]*)\}",
               lambda m: "\\%s{%s}{%s}" % ({"over": "frac", "choose": "binom"}[m[2]], m[1], m[3]), s)
    s = re.sub(r"\\(?:cdot|times|ast)(?![a-z])", "*", s)
    s = re.sub(r"\\div(?![a-z])", "/", s)
    s = re.sub(r"\\l(?:eq?|eqslant|t)(?![a-z])", lambda m: "<" if m[0] == "\\lt" else "<=", s)
    s = re.sub(r"\\g(?:eq?|eqslant|t)(?![a-z])", lambda m: ">" if m[0] == "\\gt" else ">=", s)
    s = re.sub(r"\\[lr]?vert(?![a-z])", "|", s)
    s = re.sub(r"(?<![\\A-Za-z])(?:inf|infinity|oo)(?![A-Za-z])", r"\\infty", s)
    s = re.sub(rf"(?<=[\d)}}!])\s*{TEXT_COMMAND}(?!\s*(?:[AaPp]\.?[Mm]|and|or)\b)[^{{}}]*\}}(?:\^\{{?\d\}}?)?$", "", s)
    s = re.sub(TEXT_COMMAND + r"([^{}]*)\}", r" \1 ", s)
    s = re.sub(r"(?<=\d) *\([A-Za-z .]+\)$", "", s.strip())  # 9 (apples)
    s = re.sub(r"^([A-Za-z]|\\[a-z]+)? ?\\approx(?![a-z])", "", s).split("\\approx")[0]  # x \approx 5, \sqrt3 \approx 1.7
    s = re.sub(r" +", " ", s).lstrip(" ,;:").rstrip(" .,;:")
    word = re.search(r"(?<![\\A-Za-z])[A-Za-z]", s)  # the first letter that belongs to no command
    if word and re.search(r"(?:[\d)}!]|\\pi) ?$", s[:word.start()]):
        spaced = s[word.start() - 1] == " "
        unit = UNIT.fullmatch(s, word.start())
        if unit and (spaced or not re.match(r"[a-z]{3}$", unit[0])):  # 5xyz is a product
            s = s[:word.start()].strip()
    s = re.sub(r"_\{(\w)\}|(?<=\d)_\{(\w+)\}", r"_\1\2", s)
    mixed = r"(?<![\w.^}/])(\d+) ?(?:\\frac\{(\d+)\}\{(\d+)\}|(?<= )(\d+) ?/ ?(\d+))"
    return re.sub(mixed, lambda m: f"({m[1]}+{m[2] or m[4]}/{m[3] or m[5]})", s)  # 1\frac{1}{2}, 1 1/2


def same(a, b, depth=0):
    """is_equal for normalised texts: word for word, else part by part, else by value."""
    if squash(a) == squash(b):
        return squash(a) != ""
    if a.count("=") != b.count("=") or re.search(r"\\in(?![a-z])", a + b):
        a, b = unlabel(a), unlabel(b)
    if not a or not b or depth > 4:
        return False
    kind_a, parts_a = take_apart(a)
    kind_b, parts_b = take_apart(b)
    if {kind_a, kind_b} == {"list", "()"}:  # a pair without its brackets
        kind_a = kind_b = "()"
    if {kind_a, kind_b} == {"list", "one"} and len(parts_a) == len(parts_b):  # {5} is 5
        kind_a = kind_b = "list"
    if kind_a != kind_b or len(parts_a) != len(parts_b):
        return False
    if kind_a == "one":
        return same_value(a, b)
    if kind_a != "list" or len(parts_a) > 20:
        return all(same(x, y, depth + 1) for x, y in zip(parts_a, parts_b))
    for x in parts_a:  # in any order
        match = next((y for y in parts_b if same(x, y, depth + 1)), None)
        if match is None:
            return False
        parts_b.remove(match)
    return True


def squash(s):
    """The text without case, full stops, spaces (except between digits) and leading article."""
    s = re.sub(r"^(?:the|an?) (?=\w\w)", "", s.lower())
    return re.sub(r" (?!\d)|(?<!\d) |\.(?!\d)" + ("" if "\\" in s else "|[{}]"), "", s)


def unlabel(s):
    """'x = 5', '5 = x', 'AB = 5' -> '5', 'f(x) = x^2' -> 'x^2', 'x \\in (1,2)' -> '(1,2)'.

    An equation between variables is not a labelled value, and stays: y = 2x + 3.
    """
    if turned := re.fullmatch(r"([^=]+)=( ?[A-Za-z])", s):
        if not re.search(VARIABLE, turned[1]):
            return turned[1].strip()
    m = LABEL.fullmatch(s)
    if m and (m["function"] or m["set"] or not re.search(VARIABLE, re.sub(r"\\(?:begin|end)\{[a-z]*\}", "", m["value"]))):
        return (m["value"] or m["set"]).strip()
    return s


def take_apart(s):
    """(kind, parts): a matrix and its shape, "()", "[)" ... for a tuple or interval, "list" for a list, set or union, or
    ("one", [s])."""
    if matrix := re.fullmatch(r"\\begin\{([a-zB]*matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", s):
        rows = [row.split("&") for row in re.split(r"\\{2,}", matrix[2].rstrip(" \\"))]
        return f"matrix {[len(row) for row in rows]}", [cell.strip() for row in rows for cell in row]
    for separator in (r"\\cup(?![a-z])|(?<=[)\]]) U (?=[(\[])", r"[,;]| and | or "):
        parts = split(s, separator)
        if len(parts) > 1:
            return "list", both_signs(parts)
    sides = re.split(r"(<=|>=|<|>)", s)
    if len(sides) in (3, 5):  # an inequality is an interval
        if ">" in sides[1]:
            sides = [{"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(x, x) for x in reversed(sides)]
        names = [bool(re.fullmatch(r"[A-Za-z]|\\[a-z]+", x.strip())) for x in sides[::2]]
        if len(sides) == 5 and names[1] and "<" in sides[1] and "<" in sides[3]:
            return "(["["=" in sides[1]] + ")]"["=" in sides[3]], [sides[0].strip(), sides[4].strip()]
        if len(sides) == 3 and names[0] != names[1]:
            if names[0]:
                return "(" + ")]"["=" in sides[1]], ["-\\infty", sides[2].strip()]
            return "(["["=" in sides[1]] + ")", [sides[0].strip(), "\\infty"]
    if s.startswith("\\{") and s.endswith("\\}"):
        return "list", both_signs(split(s[2:-2], r"[,;]"))
    if s[0] in "([" and s[-1] in ")]":
        parts = split(s[1:-1], r"[,;]", thousands=False)
        if len(parts) > 1:
            return s[0] + s[-1], parts
    return ("list", both_signs([s])) if "\\pm" in s else ("one", [s])


def both_signs(parts):
    return [p.replace("\\pm", sign) for p in parts for sign in ("+-" if "\\pm" in p else "+")]


def split(s, separator, thousands=True):
    """Split at a regular expression where no bracket is open; not at the commas of 1,000,000 if `thousands`."""
    depth, parts = 0, [""]
    tokens = rf"\\?[{{(\[]|\\?[}})\]]|{separator}|."
    if thousands:
        tokens = r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])|" + tokens
    for token in re.finditer(tokens, s):
        depth += (token[0][-1] in "([{") - (token[0][-1] in ")]}")
        if depth == 0 and re.fullmatch(separator, token[0]):
            parts.append("")
        else:
            parts[-1] += token[0]
    parts = [p.strip() for p in parts if p.strip()]
    return parts if depth == 0 else [s]


def same_value(a, b):
    """Whether two expressions, or two equations (their sides' difference, up to sign), have the same value."""
    words = rf"(?<!\\)\b(?!(?:{NAMES})(?![a-z]))[A-Za-z]{{4,}}"
    if a.count("=") != b.count("=") or a.count("=") > 1 or re.search(words, a + " " + b):
        return False
    tolerance = 1e-4 if re.search(r"\.\d*[1-9]", a + " " + b) else 1e-9  # only decimals are rounded
    equal = opposite = True
    for point in range(3):
        try:
            x, y = (difference(s, point) for s in (a, b))
            equal, opposite = equal and close(x, y, tolerance), opposite and close(x, -y, tolerance)
        except (ValueError, ArithmeticError, TypeError, RecursionError):  # not a formula, or one without a value
            return False
    return equal or opposite and "=" in a


def difference(s, point):
    """The value of an expression; of an equation, that of left less right."""
    left, *right = (Parser(side, point).value() for side in s.split("="))
    return left - right[0] if right else left


def close(x, y, tolerance):
    """Equal, or for values that are not both exact fractions (or if decimals were rounded) nearly so."""
    if tolerance < 1e-4 and isinstance(x, Fraction) and isinstance(y, Fraction):
        return x == y
    return x == y or abs(x - y) <= max(tolerance * max(abs(x), abs(y)), 1e-12) < math.inf


# ----------------------------------------------------------------------------------------------------- values

TOKEN = re.compile(rf"\s*(\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?[eE][-+]?\d{{1,3}}(?![\d.])|\d+\.?\d*|\.\d+|"
                   rf"\\?(?:{NAMES})(?![a-z])|\\[A-Za-z]+|pi\b|\S)")


class Parser:
    """A recursive-descent parser that computes as it reads: `Parser(s, point).value()`.

    Values are Fractions as long as they are exact, then floats, then complex numbers. A variable's value is a random
    fraction that depends on its name and on `point`. Raises ValueError, ArithmeticError, TypeError or RecursionError
    where there is no value.

        sum     = [sign] product { sign product }
        product = power { [* / :] power }              juxtaposition multiplies
        power   = [sign] power | atom {!} [ ^ power ]
        atom    = number | letter | ( sum ) | | sum | | \\frac a b | \\binom a b | \\sqrt[n] a | function power
    """

    def __init__(self, text, point):
        self.tokens, self.point, self.bars, self.infinite = TOKEN.findall(text), point, 0, False

    def peek(self):
        return self.tokens[0] if self.tokens else ""

    def take(self, *wanted):
        if not self.tokens or wanted and self.peek() not in wanted:
            raise ValueError(f"expected one of {wanted}, found {self.peek()!r}")
        return self.tokens.pop(0)

    def value(self):
        result = self.sum()
        if self.tokens:
            raise ValueError(f"{self.peek()!r} cannot be read")
        if abs(result) == math.inf and not self.infinite:
            raise OverflowError
        return result

    def sum(self):
        total = Fraction(0)
        sign = self.take() if self.peek() in ("+", "-") else "+"
        while True:
            term = self.product()
            total = bounded(total + term if sign == "+" else total - term)
            if self.peek() not in ("+", "-"):
                return total
            sign = self.take()

    def product(self):
        result = self.power()
        while (t := self.peek()) and t not in "+-)]},=&^!_" and t not in ("\\}", "\\]") and not (t == "|" and self.bars):
            if t in ("*", "/", ":"):
                self.take()
            factor = self.power()
            result = bounded(result / factor if t in ("/", ":") else result * factor)
        return result

    def power(self):
        if self.peek() in ("-", "+"):  # 2 * -3
            return -self.power() if self.take() == "-" else self.power()
        base = self.atom()
        while self.peek() == "!":
            self.take()
            base = Fraction(math.factorial(small_integer(base)))
        if self.peek() == "^":
            self.take()
            base = raise_to(base, self.power())
        return base

    def argument(self):
        """What a LaTeX command applies to: a group in braces, or a single digit, letter or command."""
        t = self.peek()
        if t.isdigit() and len(t) > 1:
            self.tokens[0] = t[1:]
            return Fraction(int(t[0]))
        return self.atom()

    def group(self, *end):
        result = self.sum()
        self.take(*end)
        return result

    def atom(self):
        t = self.take()
        if t[0].isdigit() or t[0] == "." and len(t) > 1:
            if self.peek() == "_":
                raise ValueError("a number in another base is compared as text")
            return Fraction(t.replace(",", ""))
        if t in ("(", "[", "{"):
            return self.group(")", "]", "}")
        if t == "|":
            self.bars += 1
            result = abs(self.group("|"))
            self.bars -= 1
            return result
        if t in ("\\pi", "pi", "e", "i"):
            return {"e": math.e, "i": 1j}.get(t, math.pi)
        if t == "\\infty":
            self.infinite = True
            return math.inf
        if t == "\\frac":
            return self.argument() / self.argument()
        if t in ("\\binom", "\\dbinom", "\\tbinom"):
            return Fraction(math.comb(small_integer(self.argument()), small_integer(self.argument())))
        name = t.removeprefix("\\")
        if name == "sqrt":
            index = Fraction(2)
            if self.peek() == "[":
                self.take()
                index = self.group("]")
            return root(self.atom(), index)
        if name in FUNCTIONS:
            return self.function(name)
        if re.fullmatch(r"[A-Za-z]|\\[A-Za-z]+", t) and name not in ("in", "cup", "begin", "end", "text"):
            if self.peek() == "_":  # x_1
                name += self.take() + self.take()
            return Fraction(random.Random(f"{name} {self.point}").randint(-400, 400) * 2 + 1, 211)
        raise ValueError(f"{t!r} cannot be read")

    def function(self, name):
        base = exponent = None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                base = self.atom()
            else:
                exponent = self.argument()
        if self.peek() in ("(", "{", "[", "|"):
            x = self.atom()
        else:  # sin 2x: what follows, up to the next sign or function
            x = self.power()
            while re.fullmatch(r"\d.*|[A-Za-z]|\\(?:pi|frac|theta|alpha|beta)", self.peek()):
                x = x * self.power()
        if exponent == -1:
            raise ValueError("an inverse function")
        result = FUNCTIONS[name](x) if base is None else cmath.log(x) / cmath.log(base)
        result = result.real if isinstance(result, complex) and result.imag == 0 else result
        return result if exponent is None else raise_to(result, exponent)


def bounded(x):
    """x; raises OverflowError when it is a fraction of more than 10,000 bits, which would take too long to go on with."""
    if isinstance(x, Fraction) and max(x.numerator.bit_length(), x.denominator.bit_length()) > 10_000:
        raise OverflowError
    return x


def small_integer(x):
    """x as an int from 0 to 300; raises ValueError for anything else."""
    if not isinstance(x, Fraction) or x.denominator != 1 or not 0 <= x <= 300:
        raise ValueError(f"{x} is not a small whole number")
    return int(x)


def raise_to(base, exponent):
    """base ** exponent: exact for whole exponents, else in floating point, and complex where it has to be."""
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        if max(base.numerator.bit_length(), base.denominator.bit_length(), 1) * abs(exponent) > 10_000:
            raise OverflowError
        return base ** int(exponent)
    exponent = float(exponent) if isinstance(exponent, Fraction) else exponent
    base = base if isinstance(base, complex) else complex(base) if base < 0 else float(base)
    result = base ** exponent
    return result.real if isinstance(result, complex) and abs(result.imag) < 1e-15 * abs(result) else result


def root(x, n):
    """The n-th root; the real one of a negative number where n is odd."""
    if isinstance(x, Fraction) and x < 0 and isinstance(n, Fraction) and n.denominator == 1 and n % 2:
        return -raise_to(-x, 1 / n)
    return raise_to(x, 1 / n)
