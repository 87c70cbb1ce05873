"""
The built-in corpus: worked arithmetic word problems, alone (curated) and as a forum would have them (noisy).

    python -m corpora.builtin     # print a few documents of each side, coloured by true label

Three sides, each a stream of documents:

    web       what the base reads: chatter, user names, dates, and problems whose results are any numbers.
              From it a model learns to read, to copy and to chat, and nothing about arithmetic
    noisy     the same kind of text, but most results are right
    curated   the problems alone, all results right; so are val, test and the evaluation's problems

Every token carries its true label. Everything is a pure function of the seed. A problem:

    Question: Ava has 7 hens. Ava finds 5 more. Ava sells 3 of them. How many hens does Ava have now?
    Answer: finds 5: 7 + 5 = 12. sells 3: 12 - 3 = 9. The answer is 9.

With prepare.py --solutions programs, the solutions of the noisy and the curated side are programs, each with
what it prints (`worked_program`); those of the web stay as they are.
"""
import itertools
import math
import random
from collections import Counter

from corpora.tokenizers import SINGLE_BYTES, make_tokenizer
from corpora.writer import IRRELEVANT, LABELS, NOISE, OUTPUT, QUESTION, RESULT, SOLUTION, WRONG

NAMES = "Ava Ben Cleo Dan Emma Finn Gwen Hugo Iris Jack Kate Liam Mona Noah Olga Paul".split()
OBJECTS = "hens pigs eggs pens maps hats cups keys toys nuts figs pies coins books cards boats".split()
GAIN = "finds buys gets picks wins makes".split()         # "Ava finds 5 more."
LOSE = "sells loses eats drops breaks hides".split()      # "Ava sells 3 of them."

# Numbers are 0 .. LARGEST, one token each. Small ones are frequent, as in real text (`draw`), so a model
# learns the facts of arithmetic one after another, and its accuracy rises steadily.
LARGEST = 30                # prepare.py --largest
FIRST, STEP = 2 / 3, 2 / 5  # what a problem begins with, and what comes or goes at once: shares of it at most
MOST_STEPS = 3              # of a problem
MOST_PROBLEMS = 3           # of a document

WEB_CHATTER = 0.15          # share of the web's documents that are chatter alone
CHATTER = 0.75              # the same of the noisy documents: prepare.py --chatter
WEB_WORDS = 25              # most words of the chatter before, and of that after, a document's problems
NOISY_WORDS = 80
P_SLIP = 0.3                # share of the noisy problems with a slip in the arithmetic
P_USER = 0.2                # how often a user's name stands behind a sentence
PATTERN = r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]|\s"     # what the tokenizer takes for a word

# The chatter is a second-order Markov chain: four words may follow two others, the first the likeliest. Like
# real irrelevant text it can be learned, a little more with every step, and takes room from what matters.
WORDS = ("the weather in town was cold last night but my old car would not start so we took bus home after "
         "lunch with friends who like music and films about space they said this phone has great screen "
         "too much salt on road near river where dog runs fast every day our team played well until rain "
         "came down hard then everyone went inside bar for tea or beer while radio news talked of trains "
         "late again").split()
CHAIN = random.Random(0)  # the same for all seeds of the corpus
FOLLOW = {(a, b): CHAIN.sample(WORDS, 4) for a in WORDS for b in WORDS}
FORM = "has more of them doubles halves How many does have now + - * / = The answer is says".split()


def demo_tokenizer(largest=LARGEST, programs=False):
    """The 256 bytes, then the words, each with the space before it, but for those that begin a line."""
    numbers = [str(n) for n in range(largest + 1)]
    spaced = [f" {w}" for w in numbers + NAMES + OBJECTS + GAIN + LOSE + FORM + WORDS]
    words = list(dict.fromkeys(["Question", "Answer"] + spaced))
    if programs:
        words += ["python", "output", "print", "The", " x", *numbers[10:]]    # digits are single bytes
    return make_tokenizer("nanorho-demo", PATTERN, SINGLE_BYTES + [w.encode() for w in words])


def draw(rng, low, high):
    """A number from low to high, the logarithm of which is uniform: 1 is as frequent as 2 and 3 together."""
    return int(math.exp(rng.uniform(math.log(low), math.log(high + 1))))


def problem(rng, largest=LARGEST):
    """(question, steps) of a problem: sentences, and one to MOST_STEPS of (phrase, expression, result), as in
    ("finds 5", "7 + 5", 12). All numbers stay within 0 .. largest."""
    name, thing, have = rng.choice(NAMES), rng.choice(OBJECTS), draw(rng, 2, int(FIRST * largest))
    most = int(STEP * largest)
    question, steps, used = [f"{name} has {have} {thing}."], [], set()
    for _ in range(rng.randint(1, MOST_STEPS)):
        # The (verb, phrase, sentence, expression, result) that keep the number in range. A verb comes once.
        options = []
        if have < largest:
            b = draw(rng, 1, min(most, largest - have))
            options += [(v, f"{v} {b}", f"{v} {b} more", f"{have} + {b}", have + b) for v in GAIN]
        if have > 0:
            b = draw(rng, 1, min(most, have))
            options += [(v, f"{v} {b}", f"{v} {b} of them", f"{have} - {b}", have - b) for v in LOSE]
        if 0 < have <= largest // 2:
            options += [("doubles", "doubles", "doubles them", f"{have} * 2", have * 2)] * 3
        if have > 0 and have % 2 == 0:
            options += [("halves", "halves", "halves them", f"{have} / 2", have // 2)] * 3
        options = [option for option in options if option[0] not in used]
        verb, phrase, sentence, expression, have = rng.choice(options)
        used.add(verb)
        question.append(f"{name} {sentence}.")
        steps.append((phrase, expression, have))
    question.append(f"How many {thing} does {name} have now?")
    return question, steps


def with_slip(rng, steps, largest):
    """(the steps with one wrong result, carried on within 0 .. largest; its index). In 2% of them a later
    step (an odd number halved, say) leads back to the right answer; it is labelled wrong too."""
    at = rng.randrange(len(steps))
    wrong = list(steps[:at])
    for phrase, expression, result in steps[at:]:
        a, op, b = expression.split()
        if len(wrong) == at:
            near = range(result - 3, result + 4)
            result = rng.choice([n for n in near if n != result and 0 <= n <= largest])
        else:
            a, b = wrong[-1][2], int(b)
            result = min(max(calculate(a, op, b), 0), largest)
        wrong.append((phrase, f"{a} {op} {b}", result))
    return wrong, at


def misread(rng, steps, largest):
    """(the steps with one wrong number, calculated anew; its index), for a program, which makes no slips. The
    steps as they are where twenty tries find none with which all stays within 0 .. largest."""
    for _ in range(20):
        at, near, wrong = rng.randrange(len(steps)), rng.choice((-3, -2, -1, 1, 2, 3)), []
        for number, (phrase, expression, _) in enumerate(steps):
            a, op, b = expression.split()
            a, b = wrong[-1][2] if wrong else int(a), int(b) + near * (number == at)
            wrong.append((phrase, f"{a} {op} {b}", calculate(a, op, max(b, 1))))
        _, op, b = wrong[at][1].split()
        if op in "+-" and int(b) > 0 and all(0 <= result <= largest for *_, result in wrong):
            return wrong, at
    return steps, MOST_STEPS


def calculate(a, op, b):
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op]


def without_meaning(rng, steps, largest):
    """The steps with any numbers as their results, each carried on as a right one would be."""
    drawn = []
    for phrase, expression, _ in steps:
        a, rest = expression.split(" ", 1)
        a = drawn[-1][2] if drawn else a
        drawn.append((phrase, f"{a} {rest}", draw(rng, 1, largest)))
    return drawn


def worked_problem(question, steps, n_right=MOST_STEPS):
    """The (text, label) segments of a problem. n_right: how many results come before the first wrong one."""
    segments = [("Question:", QUESTION)] + [(" " + sentence, QUESTION) for sentence in question]
    segments.append(("\nAnswer:", SOLUTION))
    for i, (phrase, expression, result) in enumerate(steps):
        a, rest = expression.split(" ", 1)  # a: the number that the step before ended with
        segments += [(f" {phrase}:", SOLUTION), (f" {a}", WRONG if i > n_right else SOLUTION),
                     (f" {rest} =", SOLUTION), (f" {result}", RESULT if i < n_right else WRONG),
                     (".", SOLUTION)]
    answer_label = RESULT if n_right >= len(steps) else WRONG
    segments += [(" The answer is", SOLUTION), (f" {steps[-1][2]}", answer_label), (".", SOLUTION)]
    return segments


def worked_program(question, steps, n_right, answer):
    """The same with a program as the solution, and what it prints. Comments hold the phrases: without them a
    small model hardly learns what to copy. n_right: how many numbers come before the first wrong one. answer:
    what stands at the end, the right one behind a wrong program too, as where answers are known."""
    segments = [("Question:", QUESTION)] + [(" " + sentence, QUESTION) for sentence in question]
    segments.append(("\nAnswer:\n```python\n", SOLUTION))
    for i, (phrase, expression, _) in enumerate(steps):
        a, op, b = expression.split()
        segments += [(f"# {phrase}\nx = {a if i == 0 else 'x'} {op.replace('/', '//')}", SOLUTION),
                     (f" {b}", WRONG if i == n_right else SOLUTION), ("\n", SOLUTION)]
    segments += [("print(x)\n```\n", SOLUTION), (f"```output\n{steps[-1][2]}\n```\n", OUTPUT)]
    return segments + [("The answer is", SOLUTION), (f" {answer}", RESULT), (".", SOLUTION)]


def user(rng):
    """A user name. Its letters cannot be predicted: their gradient is noise."""
    return " ##" + "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(4, 8)))


def date(rng):
    """A date and time, whose digits cannot be predicted either."""
    month = rng.choice(["Jan", "Apr", "Jul", "Oct"])
    return f" <{month}{rng.randint(10, 28)}-{rng.randint(10, 23)}:{rng.randint(10, 59)}>"


def chatter(rng, n_words):
    """So many words of the chain, as one sentence."""
    words = [rng.choice(WORDS), rng.choice(WORDS)]
    while len(words) < n_words:
        words += rng.choices(FOLLOW[words[-2], words[-1]], (12, 4, 2, 1))
    return "".join(f" {w}" for w in words) + "."


def thread(rng, problems, most_words):
    """The segments of a forum thread around those of problems: users speak in between, and chat before and
    after."""
    before, inside, after = [], [], []
    if rng.random() < 0.5:
        before += [(user(rng), NOISE), (date(rng), NOISE)]
    if rng.random() < 0.6:
        before.append((chatter(rng, rng.randint(5, most_words)), IRRELEVANT))
    if before:
        before.append(("\n", IRRELEVANT))
    for text, label in problems:
        inside.append((text, label))
        if text[-1] in ".?" and rng.random() < P_USER:
            inside.append((user(rng), NOISE))
            if rng.random() < 0.5:
                inside.append((" says", NOISE))
    if rng.random() < 0.6:
        after.append((chatter(rng, rng.randint(5, most_words)), IRRELEVANT))
    if rng.random() < 0.3:
        after.append((date(rng), NOISE))
    return before + inside + after


def documents(seed, side, reserved=frozenset(), share_chatter=CHATTER, largest=LARGEST, programs=False):
    """Endless documents of one side: (segments, the (question, segments) of its problems).

    side: 'web', 'noisy', or any other name for curated documents, each with a stream of its own. reserved:
    texts of questions that must not occur. share_chatter: of the noisy documents, those without a problem;
    0: each is one problem, and nothing else. largest: number. programs: as solutions, but for the web's.
    """
    rng, chatter_alone, most_words, most_problems = random.Random(f"{side}-{seed}"), 0, 0, MOST_PROBLEMS
    if side == "web":
        chatter_alone, most_words = WEB_CHATTER, WEB_WORDS
    elif side == "noisy" and share_chatter == 0:
        most_problems = 1
    elif side == "noisy":
        chatter_alone, most_words = share_chatter, NOISY_WORDS
    while True:
        if rng.random() < chatter_alone:
            yield [(chatter(rng, rng.randint(30, 90)), IRRELEVANT)], []
            continue
        problems = []
        for _ in range(rng.randint(1, most_problems)):
            question, steps = problem(rng, largest)
            while " ".join(question) in reserved:
                question, steps = problem(rng, largest)
            n_right, answer = MOST_STEPS, steps[-1][2]
            if side == "web":
                steps, n_right = without_meaning(rng, steps, largest), 0
            elif side == "noisy" and rng.random() < P_SLIP:
                steps, n_right = (misread if programs else with_slip)(rng, steps, largest)
            if programs and side != "web":
                worked = worked_program(question, steps, n_right, answer)
            else:
                worked = worked_problem(question, steps, n_right)
            problems.append((" ".join(question), worked))
        segments = problems[0][1].copy()
        for _, others in problems[1:]:
            segments += [("\n\n", QUESTION), *others]
        yield (thread(rng, segments, most_words) if most_words else segments), problems


if __name__ == "__main__":
    colours = (36, 32, 92, 90, 35, 31)  # of the labels, on a terminal
    print(*(f"\033[{colour}m{name}\033[0m" for name, colour in zip(LABELS, colours)))
    for side in ("curated", "noisy", "web"):
        print(f"--- {side}")
        for segments, _ in itertools.islice(documents(0, side), 5):
            print("".join(f"\033[{colours[label]}m{text}\033[0m" for text, label in segments))
    draws = random.Random(0)
    frequency = Counter(expression for _ in range(20_000) for _, expression, _ in problem(draws)[1])
    so_far = itertools.accumulate(count for _, count in frequency.most_common())
    n_half = 1 + sum(count < frequency.total() / 2 for count in so_far)
    print(f"--- {len(frequency)} calculations in 20,000 problems; the {n_half} most frequent are half of all")
