"""
The built-in corpus: worked arithmetic word problems, clean (curated) and as a forum would have them (noisy).

    python -m corpora.builtin     # print a few documents of each side, coloured by true label

Every token carries its true label, so that the precision and recall of a selection can be measured.
Everything is a pure function of the seed. A curated document:

    Question: Ava has 7 hens. Ava finds 5 more. Ava sells 3 of them. How many hens does Ava have now?
    Answer: finds 5: 7 + 5 = 12. sells 3: 12 - 3 = 9. The answer is 9.
"""
import itertools
import random

from corpora.tokenizers import SINGLE_BYTES, make_tokenizer
from corpora.writer import IRRELEVANT, LABELS, NOISE, QUESTION, RESULT, SOLUTION, WRONG

NAMES = "Ava Ben Cleo Dan Emma Finn Gwen Hugo Iris Jack Kate Liam Mona Noah Olga Paul".split()
OBJECTS = "hens pigs eggs pens maps hats cups keys toys nuts figs pies coins books cards boats".split()
GAIN = "finds buys gets picks wins makes".split()         # "Ava finds 5 more."
LOSE = "sells loses eats drops breaks hides".split()      # "Ava sells 3 of them."
LARGEST, FIRST, STEP = 20, 12, 9   # numbers are 0 .. 20, one token each; at first 2 .. 12; one adds up to 9
MOST_STEPS = 3                     # of a problem
P_CHATTER = 0.35                   # share of the noisy documents that are chatter alone
P_SLIP = 0.3                       # of the others, share with a slip in the arithmetic
MOST_WORDS = 25                    # of the chatter before, and of that after, a noisy problem
PATTERN = r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]|\s"     # what the tokenizer takes for a word

# The chatter is a second-order Markov chain: four words may follow two others, the first the likeliest. Like
# real irrelevant text it can be learned, a little more with every step, and takes room from what matters.
CHATTER = ("the weather in town was cold last night but my old car would not start so we took bus home after "
           "lunch with friends who like music and films about space they said this phone has great screen "
           "too much salt on road near river where dog runs fast every day our team played well until rain "
           "came down hard then everyone went inside bar for tea or beer while radio news talked of trains "
           "late again").split()
CHAIN = random.Random(0)  # the same for all seeds of the corpus
FOLLOW = {(a, b): CHAIN.sample(CHATTER, 4) for a in CHATTER for b in CHATTER}
FORM = "has more of them doubles halves How many does have now + - * / = The answer is says".split()


def demo_tokenizer():
    """The 256 bytes, then the words, each with the space before it, but for two that begin a line."""
    numbers = [str(n) for n in range(LARGEST + 1)]
    spaced = [f" {w}" for w in numbers + NAMES + OBJECTS + GAIN + LOSE + FORM + CHATTER]
    words = list(dict.fromkeys(["Question", "Answer"] + spaced))
    return make_tokenizer("nanorho-demo", PATTERN, SINGLE_BYTES + [w.encode() for w in words])


def problem(rng):
    """(question, steps) of a problem: sentences, and one to MOST_STEPS of (phrase, expression, result), as in
    ("finds 5", "7 + 5", 12). Numbers stay within 0 .. LARGEST: some 300 facts, for a small model."""
    name, thing, have = rng.choice(NAMES), rng.choice(OBJECTS), rng.randint(2, FIRST)
    question, steps, used = [f"{name} has {have} {thing}."], [], set()
    for _ in range(rng.randint(1, MOST_STEPS)):
        # The (verb, phrase, sentence, expression, result) that keep the number in range. A verb comes once.
        options = []
        if have < LARGEST:
            b = rng.randint(1, min(STEP, LARGEST - have))
            options += [(v, f"{v} {b}", f"{v} {b} more", f"{have} + {b}", have + b) for v in GAIN]
        if have > 0:
            b = rng.randint(1, min(STEP, have))
            options += [(v, f"{v} {b}", f"{v} {b} of them", f"{have} - {b}", have - b) for v in LOSE]
        if 0 < have <= LARGEST // 2:
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


def with_slip(rng, steps):
    """(the steps with one wrong result, carried on; its index). In about 3% of them a later step (an odd
    number halved, say) leads back to the right answer; it is labelled wrong too."""
    at = rng.randrange(len(steps))
    wrong = list(steps[:at])
    for phrase, expression, result in steps[at:]:
        a, op, b = expression.split()
        if len(wrong) == at:
            near = range(result - 3, result + 4)
            result = rng.choice([n for n in near if n != result and 0 <= n <= LARGEST])
        else:
            a, b = wrong[-1][2], int(b)
            result = min(max({"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op], 0), LARGEST)
        wrong.append((phrase, f"{a} {op} {b}", result))
    return wrong, at


def clean_document(question, steps, n_right=MOST_STEPS):
    """The (text, label) segments of a document. n_right: how many results come before the first slip."""
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


def user(rng):
    """A user name. Its letters cannot be predicted: their gradient is noise."""
    return " ##" + "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(4, 8)))


def date(rng):
    month = rng.choice(["Jan", "Apr", "Jul", "Oct"])
    return f" <{month}{rng.randint(10, 28)}-{rng.randint(10, 23)}:{rng.randint(10, 59)}>"


def chatter(rng, n_words):
    words = [rng.choice(CHATTER), rng.choice(CHATTER)]
    while len(words) < n_words:
        words += rng.choices(FOLLOW[words[-2], words[-1]], (12, 4, 2, 1))
    return "".join(f" {w}" for w in words) + "."


def noisy_document(rng, question, steps):
    """The segments of a forum thread around a problem. What stands inside the problem has no digits, which
    would confuse a small reference model."""
    n_right = MOST_STEPS
    if rng.random() < P_SLIP:
        steps, n_right = with_slip(rng, steps)
    segments = []
    for text, label in clean_document(question, steps, n_right):
        segments.append((text, label))
        if text[-1] in ".?" and rng.random() < 0.2:
            segments.append((user(rng), NOISE))
            if rng.random() < 0.5:
                segments.append((" says", NOISE))
    before, after = [], []
    if rng.random() < 0.5:
        before += [(user(rng), NOISE), (date(rng), NOISE)]
    if rng.random() < 0.6:
        before.append((chatter(rng, rng.randint(5, MOST_WORDS)), IRRELEVANT))
    if before:
        before.append(("\n", IRRELEVANT))
    if rng.random() < 0.6:
        after.append((chatter(rng, rng.randint(5, MOST_WORDS)), IRRELEVANT))
    if rng.random() < 0.3:
        after.append((date(rng), NOISE))
    return before + segments + after


def form_document(rng, question, steps):
    """The segments of a problem whose results are any numbers. From such text a model learns the form, and to
    look numbers up in what it has read, and nothing about arithmetic."""
    drawn = []
    for phrase, expression, _ in steps:
        a, rest = expression.split(" ", 1)
        drawn.append((phrase, f"{drawn[-1][2] if drawn else a} {rest}", rng.randint(0, LARGEST)))
    return clean_document(question, drawn, n_right=0)


def documents(seed, side, reserved=frozenset()):
    """Endless documents of one side: (segments, text of the question or None for chatter alone).

    side: 'noisy', 'form', or any other name for clean documents, each with a stream of its own. reserved:
    texts of questions that must not occur.
    """
    rng = random.Random(f"{side}-{seed}")
    while True:
        if side == "noisy" and rng.random() < P_CHATTER:
            yield [(chatter(rng, rng.randint(30, 90)), IRRELEVANT)], None
            continue
        question, steps = problem(rng)
        key = " ".join(question)
        if key in reserved:
            continue
        if side == "form":
            yield form_document(rng, question, steps), key
        elif side == "noisy":
            yield noisy_document(rng, question, steps), key
        else:
            yield clean_document(question, steps), key


if __name__ == "__main__":
    colours = (36, 32, 92, 90, 35, 31)  # of the labels, on a terminal
    print(*(f"\033[{colour}m{name}\033[0m" for name, colour in zip(LABELS, colours)))
    for side in ("curated", "noisy"):
        for segments, _ in itertools.islice(documents(0, side), 6):
            print("".join(f"\033[{colours[label]}m{text}\033[0m" for text, label in segments))
