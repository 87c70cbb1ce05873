r"""
How characters and numbers are spelled. The extraction and the comparison of answers (grade.py) both use this.

    plain_characters("2½ × 10⁻³")          # "2 1/2 * 10^{-3}"
    re.match(NUMBER, "3.2 x 10^5 miles")   # "3.2 x 10^5"
    read_numbers("two dozen")              # "2*12"
"""
import re
import unicodedata
from fractions import Fraction


def any_of(*patterns):
    """A regular expression that matches where one of the patterns does, the first that fits."""
    return "(?:" + "|".join(patterns) + ")"


# ----------------------------------------------------------------------------------------------- characters

# Raised and lowered digits and signs, and fractions of one character: x², x₁ and ½ are x^2, x_1 and 1/2.
RAISED, LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "₀₁₂₃₄₅₆₇₈₉₊₋ₙ"
SMALL = str.maketrans(RAISED + LOWERED, "0123456789+-n" * 2)
FRACTIONS = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞↉"

# The other characters that have a plain spelling. The dashes are, in this order: two hyphens, the dashes as
# wide as a digit, half an em and an em, a bar, the minus sign, and two small dashes.
PLAIN = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63", "-"),
    **dict.fromkeys("×·∙⋅∗✕✖⨉⨯", "*"), **dict.fromkeys("÷\u2044\u2215", "/"), "\u2019": "'",
    **dict.fromkeys(map(chr, [0xa0, *range(0x2000, 0x200b), 0x202f, 0x205f, 0x3000]), " "),
    **dict.fromkeys("\u00ad\u200b\u2060\ufeff", ""),  # These take no room.
}
# What is as wide as a Chinese character, or bold, is the character itself.
WIDE, BOLD = range(0xff01, 0xff5f), range(0x1d400, 0x1d800)
for code in [*map(ord, FRACTIONS), *WIDE, *BOLD]:
    PLAIN[chr(code)] = unicodedata.normalize("NFKC", chr(code)).replace("\u2044", "/")
CHARACTERS = str.maketrans(PLAIN)


def plain_characters(text):
    """The text in plain characters, as far as there are such."""
    if text.isascii():
        return text
    text = re.sub(rf"(?<=\d)(?=[{FRACTIONS}])", " ", text)  # 2½ is the mixed number 2 1/2,
    text = re.sub(rf"\^([{FRACTIONS}])", r"^{\1}", text)    # and x^½ is x^{1/2}.
    # A line or a dot above a digit, which is the character behind it, repeats the digit.
    text = re.sub("(\\d)[\u0304\u0305\u0307]", r"\\overline{\1}", text)
    text = text.translate(CHARACTERS)
    small = f"[{RAISED}]{{1,4}}/[{LOWERED}]{{1,4}}"
    text = re.sub(rf"(?<=\d)(?={small})", " ", text)  # 3¹/₂ is the mixed number 3 1/2,
    text = re.sub(small, lambda m: m[0].translate(SMALL), text)  # and ¹/₂ is 1/2.
    text = re.sub(f"[{RAISED}]+", lambda m: "^" + braced(m[0].translate(SMALL)), text)
    return re.sub(f"[{LOWERED}]+", lambda m: "_" + braced(m[0].translate(SMALL)), text)


def braced(index):
    """A raised or lowered number as LaTeX writes it behind its sign: "2", or "{10}"."""
    return index if len(index) == 1 else f"{{{index}}}"


# ------------------------------------------------------------------------------------------- words of numbers

# Words that are a factor behind a number: "2.5 million" is 2500000, and "5 hundred thousand" is 500000. But
# "3 hundred-dollar bills" are 3.
SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9,
          "trillion": 10**12}
SCALE = rf"[ -]?(?i:{'|'.join(SCALES)})s?(?!-?[A-Za-z])"

# Number words. They are read in front of a scale word: "two dozen", "twenty-five thousand", "half a million".
# Elsewhere they stay words, so that "ten" is not 10; and they are no units, as in "3 tenths".
ONES = "one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
COUNTS = {word: number for number, word in enumerate(ONES + TEENS, 1)}
COUNTS |= {word: 10 * number for number, word in enumerate(TENS, 2)}
COUNT = (rf"\b(?i:half an?|(?:{'|'.join(TENS)})(?:[ -](?:{'|'.join(ONES)}))?|{'|'.join(ONES + TEENS)})"
         rf"(?= (?i:{'|'.join(SCALES)})\b(?!-))")
NUMBER_WORD = any_of("zero", *COUNTS, *(f"{word}s?" for word in SCALES), "tens", "half", "halves",
                     # "third", "fourth" and so on; "second" and "quarter" are units too
                     r"(?:thi|fou|fif|six|seven|eigh|nin|ten|hundred|thousand|million|billion)(?:rd|th)s?")

# ------------------------------------------------------------------------------------------ the number itself

# A number whose groups of three digits are set apart by spaces, for example "9 500" or "12 345 678.5". These
# are other numbers side by side: "2023 500", "1 200 35", "4 5 678", "1.5 500" and "x^2 500" (the groups do
# not fit), "9 500/1000" (a mixed number), "step 3 500" (the first is a label), and both "3 500-g bags" and
# "3 500 g bags" (a count and a size). But "3 500 g" is a weight of 3500.
LABEL_WORDS = ["day", "week", "month", "year", "step", "part", "page", "room", "grade", "class", "level",
               "question"]
NO_LABEL = "".join(rf"(?<!\b(?i:{word}) )" for word in LABEL_WORDS)
SIZE = (r"(?:-(?!dozen|hundred|[mbtr]+illion|thousand)[A-Za-z]"
        r"| (?:g|gram|kg|mg|ml|mL|L|liter|litre|cm|mm|m|km|foot|ft|inch|oz|ounce|lb|pound|watt|"
        r"volt|dollar|cent) (?!(?:across|as|has|is|less|minus|plus|this|times|was|[a-z]+wards)\b)[a-z]+s\b)")
SPACED = (rf"(?<![\d.,/^_A-Za-z\\])(?<!\d[ :-]){NO_LABEL}[1-9]\d{{0,2}}(?: \d{{3}}){{1,9}}"
          rf"(?!\d| \d| ?/ ?\d|{SIZE})")

GROUPED = r"\d{1,3}(?:,\d{3})+(?!\d)"             # 1,234, in groups of thousands
DECIMAL = any_of(r"\d+(?:\.\d+)?", r"\.\d+")      # 5, 0.5 or .5
E_POWER = r"[eE][-+]?\d{1,3}(?!\d|\.\d)"          # the power of ten of 1.2e3
# The power of "2^10", "10^{-4}", "10^(-4)" or "2**3"; and what makes "3.2 * 10^5", "3.2 x 10^5" or
# "3.2 \times 10^5" of 3.2.
POWER = r"(?: ?\^ ?|\*\*)" + any_of(r"\{ ?[-+]?\d+(?:[./]\d+)? ?\}", r"\([-+]?\d+\)", r"[-+]?\d+")
TIMES_TEN = rf" ?(?:\*|x|\\times|\\cdot) ?(?=10\b)10{POWER}"
# A decimal that repeats what is marked: "0.1\overline{6}", "0.\bar3", "0.\dot{1}4285\dot{7}" or "0.(3)". The
# check in front is the quick one: a point comes, and behind it a mark.
MARK = r"\\(?:overline|bar|dot) ?(?:\{ ?\d+ ?\}|\d)"
REPEATING = (rf"(?=[\d,]{{0,50}}\.\d{{0,50}}[\\(])(?:{GROUPED}|\d+|(?<!\d))\."
             rf"(?:\d*{MARK}(?:\d*{MARK})*|\(\d+\))(?![\d_])")

# A number as prose or a formula writes it: "0.\overline{3}", "1 1/2", "9 500", "1,234.50" (in prose also
# "1,00,000"), "1.2e3", "3/4", "0.5" or ".5"; with a power, and with scale words.
NUMBER = (any_of(REPEATING, r"\d+ \d+/\d+", rf"{SPACED}(?:\.\d+)?",
                 rf"\d{{1,3}}(?:,\d{{2,3}}){{0,9}},\d{{3}}(?!\d)(?:\.\d+)?(?:{E_POWER})?",
                 rf"{DECIMAL}(?:{E_POWER}|/\d+)?")
          + rf"(?:{TIMES_TEN}|{POWER})?(?:{SCALE})*")
# A number in brackets, of which there is a power: "(-2)^3" or "(1/2)^{10}".
BASE = r"\([-+]?\d+(?:[./]\d+)?\)"
# A number with its sign. A minus after a digit is a subtraction: "10-5" ends in 5, and not in -5. The check
# in front is the quick one: where it fails, no form of a number is tried.
SIGNED = rf"(?:(?=[-+]?\.?\d)(?:(?<![\w)\]}}.])[-+])?{NUMBER}|{COUNT}(?:{SCALE})+|{BASE}{POWER})"


def read_numbers(s):
    r"""The text with scale words as factors and repeating decimals as fractions.

    "1.5 million" is "1.5*1000000", "0.1\overline{6}" is "(15/90)", and "3.2 x 10^5" is "3.2*10^5".
    """
    s = re.sub(REPEATING, repeating_decimal, s)
    s = re.sub(rf"(?<=\d) ?x ?(?=10{POWER})", "*", s)
    s = re.sub(f"^an? (?={SCALE})", "1 ", s, flags=re.I)  # "a million"
    s = re.sub(COUNT, lambda m: str(count(m[0])), s)
    s = re.sub(rf"(?<=\d) ?\(({SCALE})\)", r" \1", s)  # "3 (million)"
    return re.sub(rf"(?<=[\d)}}!])(?:{SCALE})+", factors, s)


def repeating_decimal(match):
    """0.1666... is (16 - 1)/90: what repeats counts once more than what stands before it."""
    whole, decimals = match[0].replace(",", "").split(".", 1)
    before = re.match(r"\d*", decimals)[0]
    repeated = re.sub(r"\D", "", decimals[len(before):])
    nines = (10 ** len(repeated) - 1) * 10 ** len(before)
    return f"({int(whole + before + repeated) - int(whole + before or 0)}/{nines})"


def count(words):
    """The number that a number word says: "twenty-five" is 25."""
    words = words.lower()
    if words.startswith("half"):
        return Fraction(1, 2)
    return sum(COUNTS[word] for word in re.split("[ -]", words))


def factors(match):
    """The scale words behind a number, as factors: " hundred thousand" is "*100*1000"."""
    return "".join(f"*{SCALES[word]}" for word in re.findall("|".join(SCALES), match[0].lower()))
