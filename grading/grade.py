r"""
The grader: it finds the answer in a model's text, and compares it with the right one.

    extract_answer("16 - 7 = 9 eggs are left. The answer is 9.", "gsm8k")   # "9"
    is_equal(r"\frac{1}{2}", "0.5")                                         # True

Both are pure functions of text. Nothing of the text is ever run as code, and the work is bounded: values come
from a small parser, with exact fractions as long as that is possible. Rounding is forgiven (1e-4), other
differences are not.
"""
import cmath
import math
import random
import re
from fractions import Fraction

from grading.spelling import (COUNT, E_POWER, GROUPED, NUMBER, NUMBER_WORD, SCALE, SIGNED, SPACED, any_of,
                              plain_characters, read_numbers)

# ----------------------------------------------------------------------------------------------- extraction

# The form of a task's answers. The answers of every other task are numbers.
KIND = {"asdiv": "text", "tabmwp": "text", "math": "latex", "math_oai": "latex",
        "mathqa": "letter", "mmlu_stem": "letter", "sat_math": "letter"}

# Where the answer is over and the model goes on, with the next question or with the end of its turn. In "The
# answer is 8.\nQuestion: Ann has 3 cats." that is from the end of the line.
RUN_ON = re.compile(any_of(
    r"<\|(?:endoftext|im_end|eot_id|end_of_text)\|>|</s>",
    r"I hope it is correct",
    r"Question:",
    r"\n[ \t#*]*(?=[QPETUHI])(?:Question|Problem|Exercise|Example|Q|Table|User|USER|Human|Instruction)"
    r"(?: ?\d{1,3})?[ \t*]*:"))

# The words after which an answer stands, for example "the answer is", "**Answer:**", or "the answer to your
# question would be".
VERB = r"\b(?:is|are|was|would be|should be|must be|will be)\b"
CUE = re.compile(r"\banswers?\b" + any_of(rf"(?: (?:to|for|of)\b[^.:\n]{{0,80}}?)? {VERB}",
                                          rf"[ \t*]{{0,4}}(?:{VERB}|[:=])"), re.I)

# Words between such a cue and the answer that belong to neither, as "thus" in "the answer is thus 18".
FILLER = re.compile(r"^(?:(?:thus|then|therefore|hence|equal to|given by|approximately|about|simply|just|"
                    r"exactly),? )+", re.I)

# A full stop that ends a sentence, as in "The answer is 5. But ...". Those of "J. Smith", "Mr. Smith" and
# "p.m." end none.
SENTENCE_END = re.compile(r"(?<!\b[A-Z])(?<!Mr)(?<!Mrs)(?<!Ms)(?<!Dr)(?<!Rs)(?<!\.m)\.(?=\s|\*|$)")

# The part of a sentence that explains the answer, for example " because 3 < 4", ", and we are done" or
# " (16 + 2 = 18)".
REASON = re.compile(any_of(r",? \(?(?:because|since|given that)\b.*",
                           r",? (?:and|so|but) (?:we|it|this|that|the|I) .*",
                           r" \([^()]*=[^()]*\).*"))

# The words after which stands what an answer leaves out, for example "all real numbers except x = 1".
EXCEPT = r"\b(?:except(?:ing)?|excluding|other than|apart from|but not)\b"
# What comes before a formula that is left out, as before "1" in "all real numbers except $-4$ and $1$", or
# before "5" in "any number that is not $5$". But in "those except 3 are $5$" the verb states what 5 is.
LEFT_OUT = re.compile(any_of(EXCEPT + r"(?:(?! (?:is|are|equals?|gives?)\b)[^$.,])*",
                             r"\bnot(?: equal to| in)? ")
                      + r"(?:\$[^$]*\$(?:,|,? (?:and|or)) (?:[a-z]+ )?)*$", re.I)

# The beginning of a LaTeX command that sets its argument as text, for example "\text{" or "\mathrm {".
TEXT_COMMAND = (r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|rm|underline|"
                r"operatorname)\s*\{")

# A formula, and those that follow it as further answers: "$2$", "$2$ million", or "$2$ and $-3$".
FORMULA = rf"\$[^$]*\$(?:{SCALE})*"
FORMULAS = rf"{FORMULA}(?:(?:,|,? (?:and|or)) {FORMULA})*"

# The end of the tags between which a model thinks aloud, as in "<think> 3 + 4 = 7 </think> The answer is 7."
THOUGHT = "(?:think(?:ing)?|thoughts?)>"

# A raised or lowered number behind a letter or a bracket, as in "cm^2" or "x_{10}", which is no number of its
# own; behind a digit only a lowered one is none.
INDEX = re.compile(r"(?:(?<=[A-Za-z)}\]])(?<!\d\)) ?\^|(?<=[\w)}\]])_)\{?[-+]?\d+\}?")


def without_thoughts(text):
    """What a model says aloud: the text without what stands between <think> and </think>.

    Where a thought is cut off, nothing comes after it. Where only </think> is there, the thought was opened
    in the prompt, and all that comes before is part of it.
    """
    said = re.sub(rf"<{THOUGHT}.*?(?:</{THOUGHT}|\Z)", "\n", text, flags=re.I | re.S)
    return re.split(f"</{THOUGHT}", said, flags=re.I)[-1]


def is_thinking(text):
    """Whether the text ends inside a thought, which some tag opened and none closed."""
    return re.findall(f"<(/?){THOUGHT}", text, re.I)[-1:] == [""]


def extract_answer(text, task):
    """The answer that a solution ends in, as text; "" when there is none.

    What the model thinks aloud is no answer, and is removed first. The answer is looked for in what the model
    wrote before it ran on into the next question. It is the last one in the form of Minerva (`final answer is
    $...$. I hope it is correct`), in `\\boxed{...}`, after `####` (GSM8K), or after `answer is` or `answer:`;
    without any of them it is the last number, formula or option letter.
    """
    text, kind = str(text), KIND.get(task, "number")
    # The work is bounded, and of a very long thought only the end is read.
    text = without_thoughts(text[max(0, text.rfind("</think>") - 200_000):][:300_000])
    end = RUN_ON.search(text)
    text = text[:end.start()][-20_000:] if end else text[-20_000:]
    # A dash in prose ends an answer, and is no minus sign: "The answer is 12 \u2014 5 more than 7".
    text = re.sub(r"(?<=[\w$%)}]) [\u2014\u2015] ", ". ", text)
    text = plain_characters(text)[-20_000:]  # a character may become several
    text = text.replace("\\$", "").replace("$$", "$")
    text = re.sub(r"(?<!\\)\\[()\[\]]", "$", text)  # \( \) \[ \] delimit formulas as $ does.
    text = re.sub(r"(?<=\d)\\[,;: ](?=\d{3}(?!\d))", " ", text)  # 9\,500 is 9 500.
    text = re.sub(r"(?<!\d)[£€¥₹] ?(?=[-+]?\.?\d)", "", text)  # -£340 is -340.
    if kind != "latex":
        text = text.replace("$", "")
    places = [boxed, marked, cued]
    if end and end[0].startswith("I hope"):
        places = [cued, boxed, marked]
    for place in places:
        found = place(text)
        if found is not None:
            inner = boxed(found)
            return read_answer(found if inner is None else inner, kind)
    if kind == "letter":
        return last_letter(text)
    if kind == "latex" and (formula := last_formula(text)) is not None:
        return formula
    numbers = re.findall(SIGNED, INDEX.sub("", text.replace("{,}", ",")))
    return plain(numbers[-1]) if numbers else ""


def boxed(text):
    """What the last \\boxed or \\fbox holds, or None."""
    at = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if at < 0:
        return None
    rest = text[at:].split("box", 1)[1].removeprefix("ed").lstrip()
    if not rest.startswith("{"):
        return re.match(r"[^\s$.,]*", rest)[0]  # This is \boxed 5.
    depth = 0
    for i, c in enumerate(rest):
        depth += (c == "{") - (c == "}")
        if depth == 0:
            return rest[1:i]
    return rest[1:].split("$")[0]  # The text is cut off before the brace closed.


def marked(text):
    """What stands behind the last `####` (unless it is a heading) or below a heading `# Answer`; or None."""
    below = r"(?:^|\n)#{1,6} (?:Final )?Answer:?\s{1,9}([^\n]+)"
    heading = r"\W{0,9}(?:final answer|answer|step|part|solution|conclusion)\b"
    behind = rf"####[ \t]*(?=[^\s#])(?!{heading})([^\s#][^\n#]*)"  # the first check is the quick one
    lines = re.findall(below + "|" + behind, text, re.I)
    return "".join(lines[-1]) if lines else None


def cued(text):
    """The sentence or formula after the last `answer is` or `answer:` behind which there is one; or None."""
    for cue in reversed(list(CUE.finditer(text))):
        rest = text[cue.end():cue.end() + 2000].lstrip(" \t\n:*")
        rest = FILLER.sub("", rest)
        if rest.startswith("$") and "$" in rest[1:]:  # The answer is one formula, or several.
            span = re.match(FORMULAS, rest)[0]
        else:
            span = REASON.sub("", SENTENCE_END.split(rest.split("\n")[0], maxsplit=1)[0])
        if span.strip(" *."):
            return span.strip(" *")
    return None


def last_letter(text):
    """The option letter that a text without any cue starts or ends with; or ""."""
    # The letter is all there is, as in "B" or "(B)"; or the option or the reason follows, as in "C) 12".
    start = re.match(r"[\s*]{0,9}\(?" + any_of(r"([A-E])(?:[.:,]\s|\)?\s*(?:\n|$))",
                                               r"([A-Ea-e])(?: ?[).:,]\s.{0,30}|\W*)$"), text)
    if start:
        return (start[1] or start[2]).upper()
    # The letter is in parentheses, a capital (but not the article of "A car"), or follows a word: "choice d".
    letters = re.findall(any_of(r"\( ?([A-Ea-e]) ?\)", r"\b([B-E]|A(?!\s+[a-z]))\b",
                                r"\b(?:option|answer|ans|choice) ?:? ?([a-e])\b"), text)
    return "".join(letters[-1]).upper() if letters else ""


def last_formula(text):
    """The last formula of a text without any cue, or None.

    Where the formula is what the answer leaves out, as in "all real numbers except $3$", it is the sentence.
    """
    formulas = [f for f in re.finditer(rf"\$([^$]+)\$((?:{SCALE})*)", text)
                if not re.search(r"square|\\Box|qed", f[1])]
    if not formulas:
        return None
    last = formulas[-1]
    sentence = re.split(r"\.\s|\n", text[:last.start()])[-1]
    if LEFT_OUT.search(sentence):
        return (sentence + last[1]).replace("$", "").strip()
    return (last[1] + last[2]).strip()


def read_answer(span, kind):
    """The answer in a short piece of text that states it."""
    if kind == "latex":
        return read_formula(span)
    if kind == "letter":
        return read_letter(span)
    span = re.sub(TEXT_COMMAND + r"([^{}]*)\}", r"\1", span.replace("{,}", ","))
    span = re.sub(" +", " ", re.sub(r"\\[%!,;]|[%\"`~\u00a2]|\bRs\.? ?", "", span)).strip()
    # In "5 * 2 = 10" the answer is what stands after the last equals sign.
    sides = [side for side in span.split("=") if re.search(r"\d", side)]
    value = re.sub(r"^([-+]) +(?=\d)", r"\1", sides[-1].strip()) if sides else ""
    if not sides and kind == "number" and (words := re.search(rf"{COUNT}(?:{SCALE})+|^an?{SCALE}", span)):
        return words[0]  # This is "two dozen" or "a million".
    if kind == "text":
        span = re.sub(r"^\([A-E]\) ", "", span)
        if yes_no := re.match(r"(yes|no)\b", span, re.I):
            return yes_no[1]
        if not re.fullmatch(rf"{SIGNED}(?![\d:]|[a-z])(?:[^\d=]*| [a-z. ]+\^\{{?\d\}}?)", value):
            return span  # The answer is a name, a time, `6th`, or `2 hours and 15 minutes`.
    if "\\" in value:
        number = re.match(SIGNED, value)  # of a number with a unit, such as "3 \cdot 10^8 m/s"
        return plain(number[0]) if number and not re.search(r"[\d\\]", value[number.end():]) else value
    # Several numbers in a row, or a sum that was not worked out, stay together: the first of them is no
    # answer. The patterns are for "3 + 4" and "3:4", for "3 and 4", "3, 4" and "1 2 3", and for "2 hours and
    # 15 minutes".
    more = any_of(rf" ?[-+*/:^x] ?{NUMBER}", rf",? (?:and|or|&) {NUMBER}", rf", ?{NUMBER}",
                  rf"(?: {NUMBER}){{2,}}", rf" [a-z]+,? (?:and )?{NUMBER}(?= [a-z]+$)")
    found = re.search(rf"{SIGNED}{more}*", value)
    return plain(found[0]) if found else ""


def read_formula(span):
    """The formula in a piece of text that states it, or all of the text where no formula is the answer."""
    statement = span
    found = re.search(rf"(?:\bis|\bare|\bequals|\bto) ({FORMULAS})", span)  # "the value of $x$ is $5$"
    if found is None and not span.startswith("$"):
        found = re.search(f"({FORMULAS})", span)
    if found and LEFT_OUT.search(span[:found.start(1)]):
        return span.replace("$", "").strip()
    if found:
        statement = found[1]
    several = statement.count("$") > 2
    statement = statement.replace("$", "")
    without_text = re.sub(TEXT_COMMAND, "", statement)
    if not several and not re.search(VARIABLE + r"|[<>]|\\[lg]", without_text):
        statement = statement.split("=")[-1]  # In "4 + 3 = 7" the answer is 7.
    return statement.strip()


def read_letter(span):
    """The option letter in a piece of text that states it, "A, C" where it states two; or ""."""
    option = re.search(r"\b(?:option|choice) \(?([A-Ea-e])\b", span, re.I)
    # A capital by itself, but not the article of "A car", and the second of two: "(A) or (B)".
    letters = re.search(r"(?<![A-Za-z])([A-E])(?![A-Za-z])(?! (?!and)[a-z]{3})"
                        r"(?:\)?,? ?(?:and|or|&|,) ?\(?([A-E])(?![A-Za-z']))?", span)
    # A small letter at the beginning; "a" only where it is not an article, as in "a ) 12".
    small = re.match(r"[\"' (]{0,3}(?:([b-e])\b|(a)(?: ?[).:,\"']|$))", span)
    if letters and letters[2]:
        return ", ".join(letters.groups())
    found = option or letters or small
    return "".join(filter(None, found.groups())).upper() if found else ""


def plain(number):
    """Without thousands separators and a plus sign: '+1,234' -> '1234'."""
    if re.fullmatch(SIGNED, number):
        number = number.replace(",", "")
        if "/" not in number:  # The space of a mixed number such as 1 1/2 stays.
            number = re.sub(r"(?<=\d) (?=\d{3})", "", number)
    return number.lstrip("+")


# ------------------------------------------------------------------------------------------------- equality

# Signs that LaTeX writes as a command. Currency signs are dropped.
SIGNS = str.maketrans({
    "\u20ac": "", "\u00a3": "", "\u00a5": "", "\u20b9": "",
    "\u00b0": "^\\circ ", "\u2264": "<=", "\u2265": ">=", "\u2248": "\\approx ", "\u03c0": "\\pi ",
    "\u221e": "\\infty ", "\u221a": "\\sqrt ", "\u222a": "\\cup ", "\u2208": "\\in ", "\u00b1": "\\pm "})

# The commands of other signs, for example \leq and \leqslant for <=.
SIGN_COMMANDS = {"*": "cdot|times|ast", "/": "div", "<": "lt", ">": "gt", "|": "[lr]?vert",
                 "<=": "leq?|leqslant", ">=": "geq?|geqslant"}

FUNCTIONS = {"sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan,
             "sec": lambda x: 1 / cmath.cos(x), "csc": lambda x: 1 / cmath.sin(x),
             "cot": lambda x: 1 / cmath.tan(x), "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh,
             "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan,
             "ln": cmath.log, "log": cmath.log10, "exp": cmath.exp, "sqrt": cmath.sqrt}
NAMES = "|".join(sorted(FUNCTIONS, key=len, reverse=True))

# Greek letters are variables, with a backslash or spelled out. So is a letter with an accent, as \bar{x}. A
# command that is neither that nor a function is unknown, and counts as a word.
SPELLED_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|sigma|omega|phi"
GREEK = set((SPELLED_GREEK + "|zeta|eta|iota|kappa|mu|nu|xi|rho|tau|upsilon|chi|psi|ell|varepsilon|vartheta|"
             "varphi|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega").split("|"))
ACCENTS = {"bar", "overline", "hat", "widehat", "vec", "overrightarrow", "tilde", "dot", "ddot"}

# What begins no unit: "and" begins another part of a list, "sin" a formula, "ten" and "third" a number (but
# "two-digit primes" are a unit). The last pattern tells the secant of "2 sec x" from the seconds of "2 sec".
NO_UNIT = any_of(rf"(?:and|or|am|pm|mod|pi|{SPELLED_GREEK}|{NAMES.replace('|sec', '')})\b",
                 rf"(?i:{NUMBER_WORD})\b(?!-)", r"sec ?(?:[A-Za-z]\b|[\d(\\])")

# A unit, to the end of the text: an abbreviation or a word of three letters with a vowel or of more, and what
# follows it, for example "cm^2", "square feet" or "miles per hour".
UNIT = re.compile(rf"(?!{NO_UNIT})" + any_of(
    r"[A-Za-z]{4,}", r"(?=[a-z]*[aeiou])[a-z]{3}",
    r"(?:in|cm|mm|km|kg|gm|mg|ml|mL|ft|lb|lbs|oz|yd|mi|hr|hrs|sq|mph|kph|kmph|rpm)\b"
) + r"[A-Za-z .'/-]*(?:\^\{?\d\}?|(?<=[a-z])\d)?")

# A variable: a Latin letter at the beginning of a word, or a Greek one, for example "x" or "\theta". The
# letters e and i are numbers, and "\sin" and "pi" are names.
VARIABLE = any_of(rf"(?<![\\A-Za-z])(?!(?:{NAMES}|pi)(?![a-z]))[A-Za-df-hj-z]",
                  r"\\(?:theta|alpha|beta|gamma|phi|lambda|omega)")

# A name for a function, for all of a matrix or for a point, whose value may hold variables: "f(x)" or
# "f^{-1}(x)", "A^T" or "A^{-1}", "(x, y)".
FUNCTION_LABEL = any_of(r"[A-Za-z](?:\^\{?-1\}?)? ?\([^()=]*\)", r"[A-Z] ?\^(?:T|\{?-1\}?)",
                        r"\([a-z](?:, ?[a-z])*\)")
# A name for a number: "x" or "x_1", "\theta", "\angle ABC" or "AB", "|z|", "\cos A", "Area" or "Total cost".
NUMBER_LABEL = any_of(
    r"[A-Za-z](?:_\w)?", r"\\[a-z]+", r"(?:m ?)?(?:\\(?:angle|triangle|overline|vec) ?)?\{?[A-Z]{1,4}\}?",
    r"\|[^|=]*\|", r"\\(?:sin|cos|tan) ?\(?(?:[A-Za-z]|\\[a-z]+)\)?", r"[A-Za-z]{4,}(?: [A-Za-z]+)*")
# A name and its value, as in "x = 5", or the set it belongs to, as in "x \in [-2,7]".
LABEL = re.compile(any_of(rf"(?:(?P<function>{FUNCTION_LABEL})|{NUMBER_LABEL}) ?= ?(?P<value>[^=]+)",
                          r"[A-Za-z] ?\\in(?![a-z])(?P<set>[^=]+)"))

EQUALS = re.compile(r"(?<![<>])=")  # The sign that is no part of <= or >=.


def is_equal(prediction, gold):
    """Whether two answers are the same number, formula, tuple, interval, list, matrix, equation or word.

    Both are texts, in LaTeX or not. Units, currency and percent signs are dropped, so that 50% equals 50 and
    not 0.5. Tuples are ordered, lists and sets are not. Values with decimals may differ by a relative 1e-4,
    as they may have been rounded; whole numbers, fractions and closed forms must agree. Variables are
    compared at random points. A chain of equal numbers such as 9/2 = 4.5 is that number.
    """
    a, b = str(prediction), str(gold)
    if max(len(a), len(b)) > 1000:  # No answer is so long.
        return a == b
    a, b = normalise(a), normalise(b)
    return same(a, b) if max(len(a), len(b)) <= 1000 else a == b


def normalise(text):
    """One spelling for what LaTeX and prose write in many: fractions, spacing, units, number formats."""
    s = re.sub(r"(?:\\[,;:! ]?|\\q?quad|\s)+$", "", plain_characters(text).translate(SIGNS))
    s = s.strip(" \t\n,;:*").rstrip(" .").replace("**", "^")
    s = normalise_commands(s)
    # A text after a number is its unit, as in 12 \text{ cm}^2.
    s = re.sub(r"(?<=[\d)}!])\s*" + TEXT_COMMAND + r"([^{}]*)\}(?:\^\{?\d\}?)?$", without_text_unit, s)
    words = words_in_formula(s)
    s = re.sub(TEXT_COMMAND + r"([^{}]*)\}", r" \1 ", s)
    s = re.sub(r"(?<=\d)( *)\(([A-Za-z .]+)\)$", without_unit_in_brackets, s.strip())  # 9 (apples) is 9.
    # An approximation is dropped: x \approx 5 is 5, \sqrt3 \approx 1.7 is \sqrt3.
    s = re.sub(r"^([A-Za-z]|\\[a-z]+)? ?\\approx(?![a-z])", "", s).split("\\approx")[0]
    s = re.sub(r" +", " ", s).lstrip(" ,;:").rstrip(" .,;:")
    s = re.sub(SPACED, lambda m: m[0].replace(" ", ""), s)  # 9 500 is 9500.
    s = without_unit(read_numbers(s))
    if words:
        s = re.sub(rf"(?<![\\A-Za-z])({'|'.join(words)})(?![A-Za-z])", lambda m: WORD + m[1], s)
    s = re.sub(r"_\{(\w)\}|(?<=\d)_\{(\w+)\}", r"_\1\2", s)  # x_{1} is x_1, and 12_{10} is 12_10.
    # The mixed numbers 1\frac{1}{2} and 1 1/2 are sums.
    mixed = r"(?<![\w.^}/])(\d+) ?(?:\\frac\{(\d+)\}\{(\d+)\}|(?<= )(\d+) ?/ ?(\d+))"
    return re.sub(mixed, lambda m: f"({m[1]}+{m[2] or m[4]}/{m[3] or m[5]})", s)


# A doubled backslash that is one of JSON or Python, as in "\\frac". In a matrix it is the end of a row, and
# letters may follow it, unless they are one of these commands.
ESCAPED = re.compile(r"(?<!\\)(?:\\\\)+(?=[A-Za-z]{3}|(?:pi|ln|in|le|ge|pm)(?![a-z])|[%$!,;{}])")
ESCAPED_IN_MATRIX = re.compile(
    rf"(?<!\\)(?:\\\\)+(?=(?:[dtc]?(?:frac|binom)|{NAMES}|text|mbox|math[a-z]+|left|right|begin|end|cdot|"
    r"times|circ|infty|pi|pm|in|cup|theta|overline|bar|dot|leq?|geq?)(?![a-z])|[%$!,;{}])")


def normalise_commands(s):
    """One spelling for each of LaTeX's commands, and none of those that only set how a formula looks."""
    in_matrix = re.search(r"(?<!\\)\\begin\{", s)  # where that is doubled too, all of the text is
    s = (ESCAPED_IN_MATRIX if in_matrix else ESCAPED).sub(lambda m: "\\", s)
    s = re.sub(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits|[bx]?cancel)(?![a-z])", "", s)
    # An array in brackets is a matrix.
    s = re.sub(r"[(\[]\s*(\\begin\{([a-z]*matrix|array)\}.*\\end\{\2\})\s*[)\]]", r"\1", s)
    s = re.sub(r",\s*\\!\s*|\{,\}", ",", s)  # 11,\! 111 and 11{,}111 are 11,111.
    # Degrees count in the argument of a function. Elsewhere 45^\circ is just 45.
    if re.search(r"\\?(?:sin|cos|tan|cot|sec|csc)\b", s):
        s = re.sub(r"(\d+)\s*\^\s*\{?\s*\\circ\s*\}?", r"{(\1\\pi/180)}", s)
    s = re.sub(r"(?<!\\)\\[!,()\[\]]|\\?[$%]|\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree|\^o\b", "", s)
    s = re.sub(r"(?<!\\)\\(?:[;: ]|q?quad(?![a-z]))|~|\s+", " ", s)
    s = re.sub(r"\\[dtc](frac|binom)(?![a-z])", r"\\\1", s)
    # \frac12 is \frac{1}{2}, {1 \over 2} too, and {5 \choose 2} is \binom{5}{2}.
    argument = r"\s*(?:(\d)|\{([^{}]*)\})"
    s = re.sub(rf"\\frac{argument}{argument}", r"\\frac{\1\2}{\3\4}", s)
    s = re.sub(r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}", r"\\frac{\1}{\2}", s)
    s = re.sub(r"\{([^{}]*)\\choose(?![a-z])([^{}]*)\}", r"\\binom{\1}{\2}", s)
    for sign, names in SIGN_COMMANDS.items():
        s = re.sub(rf"\\(?:{names})(?![a-z])", sign, s)
    return re.sub(r"(?<![\\A-Za-z])(?:inf|infinity|oo)(?![A-Za-z])", r"\\infty", s)


# What stands in front of a word that must not be read as letters: \text{no} + 1 is \wordno + 1. LaTeX has no
# such command.
WORD = "\\word"


def words_in_formula(s):
    r"""The words of \text{...} where letters would be a product: 2 + \text{no}, \text{(no)}."""
    words = []
    for text in re.finditer(TEXT_COMMAND + r"([^{}]*)\}", s):
        for word in re.finditer("[A-Za-z]{2,}", text[1]):
            before = s[:text.start()][-20:] + text[1][:word.start()]
            after = text[1][word.end():] + s[text.end():]
            beside = re.search(r"[-+*/^=<>(\[{|\d] ?$", before) or re.match(r" ?[-+*/^_!<>(\[{|)\]\d]", after)
            if beside and not re.fullmatch(rf"{NAMES}|pi|and|or|am|pm", word[0], re.I):
                words.append(word[0])
    return words


def without_text_unit(match):
    r"""Nothing for the unit \text{ cm}^2; for \text{ million}, \text{x} or \text{ pm}, what stands there."""
    words = match[1].strip(" .")
    is_variable = re.fullmatch(r"[a-fi-kn-rt-z]|[xyz]+", words)
    return match[0] if is_variable or re.match(rf"{NO_UNIT}|[AaPp]\.?[Mm]\b", words) else ""


def without_unit_in_brackets(match):
    """Nothing for the unit " (sq. ft)", and what stands there for an argument, as (y) in 3(y) or x_2(y).
    Behind a space also a letter is a unit, or an option: 5 (m), 12 (B)."""
    spaces, words = match.groups()
    if re.search(r"[A-Za-z}\])] ?[\^_]\d*$", match.string[:match.start()]):
        return match[0]
    if re.fullmatch(r"[A-EFJKLVWghlms]", words):
        return "" if spaces else match[0]
    is_argument = re.match(NO_UNIT, words) or not any(is_unit_word(word) for word in words.split())
    return match[0] if is_argument else ""


def is_unit_word(text):
    """Whether a unit begins a text. Letters in the order of the alphabet, such as "abc", are variables."""
    return bool(UNIT.match(text)) and text not in "abcdefghijklmnopqrstuvwxyz"


def without_unit(s):
    """The text without the unit that ends it: '5 hours' -> '5'. But 5xyz and 5wxyz are products."""
    word = re.search(r"(?<![\\A-Za-z])[A-Za-z]", s)  # the first letter that belongs to no command
    if word and re.search(r"(?:[\d)}!]|\\pi) ?$", s[:word.start()]):
        spaced = s[word.start() - 1] == " "
        unit = UNIT.fullmatch(s, word.start())
        product = r"[a-z]{3}|[b-df-hj-np-tv-xz]{4,}"  # three letters, or more without a vowel
        if unit and is_unit_word(unit[0]) and (spaced or not re.fullmatch(product, unit[0])):
            return s[:word.start()].strip()
    return s


def same(a, b, depth=0):
    """is_equal for normalised texts: word for word, else part by part, else by value."""
    if squash(a) == squash(b):
        return squash(a) != ""
    a, b = end_of_chain(a), end_of_chain(b)
    if a.count("=") != b.count("=") or re.search(r"\\in(?![a-z])", a + b):
        a, b = unlabel(a), unlabel(b)
    if not a or not b or depth > 4:
        return False
    kind_a, parts_a = take_apart(a)
    kind_b, parts_b = take_apart(b)
    if {kind_a, kind_b} == {"list", "()"}:  # One is a pair without its brackets.
        kind_a = kind_b = "()"
    if {kind_a, kind_b} == {"list", "one"} and len(parts_a) == len(parts_b):  # {5} is 5.
        kind_a = kind_b = "list"
    if kind_a != kind_b or len(parts_a) != len(parts_b):
        return False
    if kind_a == "one":
        return same_value(a, b)
    if kind_a != "list" or len(parts_a) > 20:
        return all(same(x, y, depth + 1) for x, y in zip(parts_a, parts_b))
    for x in parts_a:  # A list's order does not count.
        match = next((y for y in parts_b if same(x, y, depth + 1)), None)
        if match is None:
            return False
        parts_b.remove(match)
    return True


def squash(s):
    """The text without case, full stops, spaces (except between digits) and leading article."""
    s = re.sub(r"^(?:the|an?) (?=\w\w)", "", s.lower().replace(WORD, ""))
    dropped = r" (?!\d)|(?<!\d) |\.(?!\d)"
    if "\\" not in s:
        dropped += "|[{}]"
    return re.sub(dropped, "", s)


def end_of_chain(s):
    """'12-2 = 10' -> '10', 'x = 9/2 = 4.5' -> 'x = 4.5', where all sides (but a label) are equal numbers."""
    sides = [side.strip() for side in EQUALS.split(s)]
    for labels in (0, 1):
        numbers = sides[labels:]
        if len(numbers) > 1 and are_equal_numbers(numbers):
            return " = ".join(sides[:labels] + numbers[-1:])
    return s


def are_equal_numbers(texts):
    """Whether all are numbers or closed forms without variables, and have the same value."""
    if re.search(VARIABLE, " ".join(texts)):
        return False
    try:
        found = [values_of(s) for s in texts]
        return all(not words and close(values[0], found[-1][0][0], s + " " + texts[-1])
                   for s, (values, words) in zip(texts, found))
    except NO_VALUE:
        return False


def unlabel(s):
    """'x = 5', '5 = x', 'AB = 5' -> '5', 'f(x) = x^2' -> 'x^2', 'x \\in (1,2)' -> '(1,2)'.

    An equation between variables stays: y = 2x + 3. So does 'every number except x = 5'.
    """
    turned = re.fullmatch(r"([^=]+)= ?[A-Za-z]", s)
    if turned and not re.search(VARIABLE, turned[1]):
        return turned[1].strip()
    m = LABEL.fullmatch(s)
    if m is None or re.search(EXCEPT, s, re.I):
        return s
    value = (m["set"] or m["value"]).strip()
    has_variable = re.search(VARIABLE, re.sub(r"\\(?:begin|end)\{[a-z]*\}", "", value))
    return s if has_variable and not (m["function"] or m["set"]) else value


def take_apart(s):
    """The kind of a text, and its parts: "matrix" with its shape, "()" or "[)" and so on for a tuple or an
    interval, "list" for a list, a set or a union, and "one" for all else, which is its own only part."""
    if matrix := re.fullmatch(r"\\begin\{([a-zB]*matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", s):
        rows = [row.split("&") for row in re.split(r"\\{2,}", matrix[2].rstrip(" \\"))]
        return f"matrix {[len(row) for row in rows]}", [cell.strip() for row in rows for cell in row]
    for separator in (r"\\cup(?![a-z])|(?<=[)\]]) U (?=[(\[])", r"[,;]| and | or "):
        parts = split(s, separator)
        if len(parts) > 1:
            return "list", both_signs(parts)
    if interval := interval_of(s):
        return interval
    if s.startswith("\\{") and s.endswith("\\}"):
        return "list", both_signs(split(s[2:-2], r"[,;]"))
    if s[0] in "([" and s[-1] in ")]":
        parts = split(s[1:-1], r"[,;]", thousands=False)
        if len(parts) > 1:
            return s[0] + s[-1], parts
    if "\\pm" in s:
        return "list", both_signs([s])
    return "one", [s]


def interval_of(s):
    """The (kind, parts) of an inequality, 'x >= 5' -> ("[)", ["5", "\\infty"]); None for any other text."""
    sides = re.split(r"(<=|>=|<|>)", s)
    if len(sides) not in (3, 5):
        return None
    if ">" in sides[1]:
        sides = [side.translate(str.maketrans("<>", "><")) for side in reversed(sides)]
    named = [bool(re.fullmatch(r"[A-Za-z]|\\[a-z]+", side.strip())) for side in sides[::2]]
    if named == [True, False]:
        sides = ["-\\infty", "<", *sides]
    elif named == [False, True]:
        sides = [*sides, "<", "\\infty"]
    elif len(sides) != 5 or not named[1] or sides[1][0] + sides[3][0] != "<<":
        return None
    opening = "[" if "=" in sides[1] else "("
    closing = "]" if "=" in sides[3] else ")"
    return opening + closing, [sides[0].strip(), sides[4].strip()]


def both_signs(parts):
    """The parts, with those that hold a \\pm in both of its values."""
    both = [(part.replace("\\pm", "+"), part.replace("\\pm", "-")) for part in parts]
    return [part for pair in both for part in dict.fromkeys(pair)]


def split(s, separator, thousands=True):
    """Split at a regular expression where no bracket is open; not at the commas of 1,000 if `thousands`."""
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
    """Whether two expressions, or two equations, have the same value and name the same words."""
    if a.count("=") != b.count("=") or a.count("=") > 1:
        return False
    text = a + " " + b
    try:
        (xs, words), (ys, other_words) = values_of(a), values_of(b)
        if words != other_words:
            return False
        equal = all(close(x, y, text) for x, y in zip(xs, ys))
        opposite = all(close(x, -y, text) for x, y in zip(xs, ys))
        constant = all(close(x, xs[0], text) for x in xs)
    except NO_VALUE:
        return False
    if "=" not in a:
        return equal
    # An equation that holds for all values or for none says nothing: neither x = x and y = y are the same,
    # nor 12-2 = 9 and 13-3 = 9. But e and i, which are numbers here, may also be unknowns.
    says_nothing = constant and not re.search(r"(?<![\\A-Za-z])[ei](?![A-Za-z])", a)
    return not says_nothing and (equal or opposite)


def values_of(s):
    """The values of an expression (of an equation, left less right) at three points, and the words in it."""
    parsers = [Parser(s, point) for point in range(3)]
    return [parser.value() for parser in parsers], set(parsers[0].words)


def close(x, y, text):
    """Equal; or nearly so, if the text has decimals, which may be rounded, or if not both are fractions."""
    rounded = re.search(r"\.\d*[1-9]", text)
    if x == y or not rounded and isinstance(x, Fraction) and isinstance(y, Fraction):
        return x == y
    return abs(x - y) <= max((1e-4 if rounded else 1e-9) * max(abs(x), abs(y)), 1e-12) < math.inf


# --------------------------------------------------------------------------------------------------- values

# A part of a formula that the parser reads at once: a number such as "1,000.5", "1e5", "2.5" or ".5" (but not
# the point of "0.\overline{pq}"), the name of a function, a LaTeX command, a Greek letter, letters in a row
# (single ones also with spaces, as "a b"; and up to a function, as "x" in "xsin"), or a single character.
TOKEN = re.compile(r"\s*" + any_of(
    rf"{GROUPED}(?:\.\d+)?(?:{E_POWER})?", rf"\d+(?:\.\d+)?{E_POWER}",
    r"\d+(?:\.\d+|\.(?!\s*[\\({\[]))?", r"\.\d+",
    rf"\\?(?:{NAMES})(?![a-z])", r"\\[A-Za-z]+", r"pi\b", rf"(?P<greek>{SPELLED_GREEK})(?![A-Za-z])",
    r"(?P<letters>(?:[A-Za-z] )+[A-Za-z](?![A-Za-z])"
    rf"|[A-Za-z]+?(?=(?:{NAMES}|pi)(?![A-Za-z]))|[A-Za-z]+)", r"\S"))


def tokens_of(text):
    """The parts of a formula. Letters in a row are one part each where they are a product, else a word."""
    tokens = []
    for m in TOKEN.finditer(text):
        letters = (m["letters"] or "").replace(" ", "")
        if m["greek"]:
            tokens.append("\\" + m["greek"])
        elif not letters:
            tokens.append(m[0].strip())
        elif is_product(letters, text[:m.start("letters")][-30:], text[m.end():]):
            tokens += letters
        else:
            tokens.append(WORD + letters.lower())
    return tokens


def is_product(letters, before, after):
    """Whether letters in a row are a product of variables, as in 2xy or ab + 2a, and not a word.

    They are beside a digit, a sign, a bracket or a command, and where they are x, y and z only. A number word
    never is one, nor are four letters or more with one of e, i, o, u, which variables avoid.
    """
    if len(letters) == 1 or set(letters) <= set("xyz"):
        return True
    small = letters.lower()
    if re.fullmatch(NUMBER_WORD, small) or len(small) > 3 and re.search("[eiou]", small):
        return False
    return bool(re.search(r"(?:[-+*/^_=<>|:!()\[\]{}\d]|\\[A-Za-z]+) ?$", before)
                or re.match(r" ?[-+*/^=<>|:!)\]}\\]|[_(\[{\d]", after))


CONSTANTS = {"\\pi": math.pi, "pi": math.pi, "e": math.e, "i": 1j, "\\infty": math.inf}

# Commands whose arguments the parser reads, so that words in these are no words beside a factor.
READ_WITH_ARGUMENTS = ("\\frac", "\\sqrt", "\\binom")

# What the parser raises where a text has no value.
NO_VALUE = (ValueError, ArithmeticError, TypeError, IndexError, RecursionError)


class Parser:
    """A recursive-descent parser that computes as it reads: `Parser(s, point).value()`.

    Values are Fractions as long as they are exact, then floats, then complex numbers. A variable's value is a
    random fraction that depends on its name and on `point`. Raises one of NO_VALUE where there is no value.

        sum     = [sign] product { sign product }
        product = power { [* / :] power }     juxtaposition multiplies, but not two numbers: 1 2 3 is a list
        power   = [sign] power | atom {!} [ ^ power ]
        atom    = number | letter | ( sum ) | | sum | | \\frac a b | \\binom a b | \\sqrt[n] a
                | function power | word

    A word is a value like a variable's. But `words` tells which occurred, and words side by side have none.
    """

    def __init__(self, text, point):
        self.tokens, self.point = tokens_of(text), point
        self.infinite = "\\infty" in self.tokens
        self.bars = 0  # how many of | | are open
        self.words = []  # those that it has read, in order

    def peek(self):
        return self.tokens[0] if self.tokens else ""

    def take(self):
        return self.tokens.pop(0)

    def value(self):
        result = self.sum()
        if self.peek() == "=":
            self.take()
            result -= self.sum()
        if self.tokens:
            raise ValueError(f"{self.peek()!r} cannot be read")
        if abs(result) == math.inf and not self.infinite:
            raise OverflowError
        return result

    def sum(self):
        total = Fraction(0) if self.peek() in ("+", "-") else self.product()
        while self.peek() in ("+", "-"):
            sign, term = self.take(), self.product()
            total = bounded(total + term if sign == "+" else total - term)
        return total

    def product(self):
        result, kind = self.factor()
        while self.goes_on():
            sign = self.take() if self.peek() in ("*", "/", ":") else ""
            if not sign and (kind == "word" or kind == "number" and is_numeral(self.peek())):
                raise ValueError("no product: numbers side by side, or a word and what follows it")
            factor, kind = self.factor()
            result = bounded(result / factor if sign in ("/", ":") else result * factor)
        return result

    def goes_on(self):
        """Whether what follows belongs to the product."""
        t = self.peek()
        return t not in ("\\}", "\\]") and t not in "+-)]},=&^!_" and not (t == "|" and self.bars)

    def factor(self):
        """The value of a power, and whether it is a "number" by itself, a "word", or "other"."""
        t, before, words = self.peek(), len(self.tokens), len(self.words)
        value = self.power()
        if is_numeral(t) and len(self.tokens) == before - 1:
            return value, "number"
        if len(self.words) > words and t.startswith("\\") and t not in READ_WITH_ARGUMENTS:
            return value, "word"
        return value, "other"

    def power(self):
        if self.peek() in ("-", "+"):  # A factor may have a sign: 2 * -3.
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
            self.tokens[:1] = [t[0], t[1:]]
        return self.atom()

    def group(self, *end):
        result = self.sum()
        if self.take() not in end:
            raise ValueError("a bracket is not closed")
        return result

    def atom(self):
        t = self.take()
        if is_numeral(t):
            return Fraction(t.replace(",", ""))
        if t in ("(", "[", "{"):
            return self.group(")", "]", "}")
        if t == "|":
            self.bars += 1
            result = abs(self.group("|"))
            self.bars -= 1
            return result
        if t in CONSTANTS:
            return CONSTANTS[t]
        if t == "\\frac":
            return self.argument() / self.argument()
        if t == "\\binom":
            return Fraction(math.comb(small_integer(self.argument()), small_integer(self.argument())))
        name = t.removeprefix("\\")
        if name == "sqrt":
            index = self.atom() if self.peek() == "[" else Fraction(2)
            return root(self.atom(), index)
        if name in FUNCTIONS:
            return self.function(name)
        if not re.fullmatch(r"[A-Za-z]|\\[A-Za-z]+", t) or name in ("in", "cup", "begin", "end", "text"):
            raise ValueError(f"{t!r} cannot be read")
        known = not t.startswith("\\") or name in GREEK
        if name in ACCENTS:
            argument = self.raw_argument()
            name, known = name + argument, len(argument.strip("{}")) == 1
        while not known and self.peek() == "{":
            name += self.raw_argument()
        if self.peek() == "_":  # The variable has an index: x_1.
            name += self.take() + self.raw_argument()
        if not known:
            self.words.append(name)
        return Fraction(random.Random(f"{name} {self.point}").randint(-400, 400) * 2 + 1, 211)

    def raw_argument(self):
        """What an accent, an index or an unknown command applies to, as it is written: "{AB}"."""
        raw = self.take()
        while raw.count("{") > raw.count("}"):
            raw += self.take()
        return raw

    def function(self, name):
        base = exponent = None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                base = self.atom()
            else:
                exponent = self.argument()
        if self.peek() in ("(", "{", "[", "|"):
            x = self.atom()
        else:  # The argument of sin 2x is what follows, up to the next sign or function.
            x = self.power()
            while re.fullmatch(r"\d.*|[A-Za-z]|\\(?:pi|frac|theta|alpha|beta)", self.peek()):
                x = x * self.power()
        if exponent == -1:
            raise ValueError("an inverse function")
        result = FUNCTIONS[name](x) if base is None else cmath.log(x) / cmath.log(base)
        result = result.real if isinstance(result, complex) and result.imag == 0 else result
        return result if exponent is None else raise_to(result, exponent)


def is_numeral(token):
    """Whether a token is a number: 5, 0.5 or .5."""
    return token[:1].isdigit() or token[:1] == "." and len(token) > 1


def bounded(x):
    """x; raises OverflowError for a fraction of more than 10,000 bits, with which all would take too long."""
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
    if not isinstance(base, complex):
        base = complex(base) if base < 0 else float(base)
    result = base ** exponent
    return result.real if isinstance(result, complex) and abs(result.imag) < 1e-15 * abs(result) else result


def root(x, n):
    """The n-th root; the real one of a negative number where n is odd."""
    if isinstance(x, Fraction) and x < 0 and isinstance(n, Fraction) and n % 2 == 1:
        return -raise_to(-x, 1 / n)
    return raise_to(x, 1 / n)
