"""
The built-in corpus: worked arithmetic word problems, clean (curated) and as a forum would have them (noisy).

    python -m corpora.builtin     # print a few documents of each side, coloured by true label

Because we write the noise ourselves, every token carries its true label, so that the precision and recall of
a selection can be measured. Everything is a pure function of the seed. A curated document:

    Question: Ava has 7 hens. Ava finds 5 more. Ava sells 3 of them. How many hens does Ava have now?
    Answer: finds 5: 7 + 5 = 12. sells 3: 12 - 3 = 9. The answer is 9.

A noisy one holds the same kind of problem with user names inside it, dates and chatter around it, and in some
documents a slip in the arithmetic, carried on to a wrong answer; other documents are chatter alone.
"""
import itertools
import random

# What a token is, as its label says. USEFUL are the first three.
LABELS = ["question", "solution", "result", "irrelevant", "noise", "wrong"]
QUESTION, SOLUTION, RESULT, IRRELEVANT, NOISE, WRONG = range(6)
USEFUL = (QUESTION, SOLUTION, RESULT)      # what the curated side consists of
SOLUTIONS = (SOLUTION, RESULT)             # what follows "Answer:"; RESULT: what was computed, and the answer

NAMES = "Ava Ben Cleo Dan Emma Finn Gwen Hugo Iris Jack Kate Liam Mona Noah Olga Paul".split()
OBJECTS = "hens pigs eggs pens maps hats cups keys toys nuts figs pies coins books cards boats".split()
GAIN = "finds buys gets picks wins makes".split()         # "Ava finds 5 more."
LOSE = "sells loses eats drops breaks hides".split()      # "Ava sells 3 of them."
SKILLS = ["add", "double"]                                # adding and subtracting; doubling and halving
LARGEST = 20                                              # numbers are 0 .. 20, one token each, unless told

# The chatter is a second-order Markov chain: which words may follow depends on the two words before. Like
# real irrelevant text it can be learned, a little more with every step, and takes room from what matters.
CHATTER = ("the weather in town was cold last night but my old car would not start so we took bus home "
           "after lunch with friends who like music and films about space they said this phone has great "
           "screen too much salt on road near river where dog runs fast every day our team played well "
           "until rain came down hard then everyone went inside bar for tea or beer while radio news talked "
           "of trains late again").split()
CHATTER = list(dict.fromkeys(CHATTER))
FORM = "has more of them doubles halves How many does have now + - * / = The answer is says".split()


def words(largest=LARGEST):
    """The vocabulary, beside the 256 bytes and <|endoftext|>. A word includes the space before it, but for
    the two that begin a line."""
    numbers = [str(n) for n in range(largest + 1)]
    spaced = [f" {w}" for w in numbers + NAMES + OBJECTS + GAIN + LOSE + FORM + CHATTER]
    return list(dict.fromkeys(["Question", "Answer"] + spaced))


def problem(rng, largest=LARGEST, most_steps=3, skills=SKILLS):
    """A problem of one to most_steps steps, as (question, steps).

    rng: random.Random. skills: which of SKILLS it may take. question: a list of sentences. steps: a list of
    (phrase, expression, result), as in ("finds 5", "7 + 5", 12). Numbers stay within 0 .. largest, so that
    the facts are few enough for a small model: some 300 for the usual 20, four times as many for 40.
    """
    scale = largest / LARGEST
    name, thing, have = rng.choice(NAMES), rng.choice(OBJECTS), rng.randint(2, round(12 * scale))
    question, steps, used = [f"{name} has {have} {thing}."], [], set()
    for _ in range(rng.randint(1, most_steps)):
        # The (verb, phrase, sentence, expression, result) that keep the number in range. A verb comes once.
        options, most = [], round(9 * scale)
        if "add" in skills and have < largest:
            b = rng.randint(1, min(most, largest - have))
            options += [(v, f"{v} {b}", f"{v} {b} more", f"{have} + {b}", have + b) for v in GAIN]
        if "add" in skills and have > 0:
            b = rng.randint(1, min(most, have))
            options += [(v, f"{v} {b}", f"{v} {b} of them", f"{have} - {b}", have - b) for v in LOSE]
        if "double" in skills and 0 < have <= largest // 2:
            options += [("doubles", "doubles", "doubles them", f"{have} * 2", have * 2)] * 3
        if "double" in skills and have > 0 and have % 2 == 0:
            options += [("halves", "halves", "halves them", f"{have} / 2", have // 2)] * 3
        options = [option for option in options if option[0] not in used]
        if not options:  # doubling and halving alone: an odd number that is too large for both
            break
        verb, phrase, sentence, expression, have = rng.choice(options)
        used.add(verb)
        question.append(f"{name} {sentence}.")
        steps.append((phrase, expression, have))
    question.append(f"How many {thing} does {name} have now?")
    return (question, steps) if steps else problem(rng, largest, most_steps, skills)


def with_slip(rng, steps, largest=LARGEST):
    """The same steps with one wrong result, carried on. Returns (steps, index of the slip).

    In about 3% of them a later step (an odd number halved, say) leads back to the right answer. It is
    labelled wrong all the same.
    """
    at = rng.randrange(len(steps))
    wrong = list(steps[:at])
    for phrase, expression, result in steps[at:]:
        a, op, b = expression.split()
        if len(wrong) == at:
            near = range(result - 3, result + 4)
            result = rng.choice([n for n in near if n != result and 0 <= n <= largest])
        else:
            a, b = wrong[-1][2], int(b)
            result = min(max({"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op], 0), largest)
        wrong.append((phrase, f"{a} {op} {b}", result))
    return wrong, at


def clean_document(question, steps, n_right=None):
    """The (text, label) segments of a document.

    n_right: the number of the result from which on all are wrong; None: all are right.
    """
    if n_right is None:
        n_right = len(steps)
    segments = [("Question:", QUESTION)] + [(" " + sentence, QUESTION) for sentence in question]
    segments.append(("\nAnswer:", SOLUTION))
    for i, (phrase, expression, result) in enumerate(steps):
        a, rest = expression.split(" ", 1)  # a: the number that the step before ended with
        segments += [(f" {phrase}:", SOLUTION), (f" {a}", WRONG if i > n_right else SOLUTION),
                     (f" {rest} =", SOLUTION), (f" {result}", RESULT if i < n_right else WRONG),
                     (".", SOLUTION)]
    answer_label = RESULT if n_right == len(steps) else WRONG
    segments += [(" The answer is", SOLUTION), (f" {steps[-1][2]}", answer_label), (".", SOLUTION)]
    return segments


def user(rng):
    """A user name. Its letters cannot be predicted: their gradient is noise."""
    return " ##" + "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(4, 8)))


def date(rng):
    """A date and time, of which only the form can be predicted."""
    month = rng.choice(["Jan", "Apr", "Jul", "Oct"])
    return f" <{month}{rng.randint(10, 28)}-{rng.randint(10, 23)}:{rng.randint(10, 59)}>"


class Chatter:
    """The second-order chain: of the words that may follow two words, the first is likelier than the next."""

    def __init__(self):
        rng = random.Random(0)  # the same chain for all seeds of the corpus
        n = len(CHATTER)
        self.follow = [[rng.sample(CHATTER, 4) for _ in range(n)] for _ in range(n)]
        self.number = {w: i for i, w in enumerate(CHATTER)}

    def __call__(self, rng, n_words):
        """A sentence of so many words."""
        a, b = rng.choice(CHATTER), rng.choice(CHATTER)
        words = [a, b]
        while len(words) < n_words:
            a, b = b, rng.choices(self.follow[self.number[a]][self.number[b]], (12, 4, 2, 1))[0]
            words.append(b)
        return "".join(f" {w}" for w in words) + "."


def noisy_document(rng, chatter, question, steps, largest=LARGEST, p_slip=0.3, most_words=25):
    """The segments of a forum thread around a problem: user names inside it, dates and chatter around it, and
    with probability p_slip a slip in the arithmetic.

    most_words: of the chatter before, and of that after. What stands inside a problem has letters and no
    digits, which would confuse a small reference model.
    """
    n_right = None
    if rng.random() < p_slip:
        steps, n_right = with_slip(rng, steps, largest)
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
        before.append((chatter(rng, rng.randint(5, most_words)), IRRELEVANT))
    if before:
        before.append(("\n", IRRELEVANT))
    if rng.random() < 0.6:
        after.append((chatter(rng, rng.randint(5, most_words)), IRRELEVANT))
    if rng.random() < 0.3:
        after.append((date(rng), NOISE))
    return before + segments + after


def form_document(rng, question, steps, largest=LARGEST):
    """The segments of a problem whose results are any numbers. From such text a model learns the form, and to
    look numbers up in what it has read, and nothing about arithmetic."""
    drawn = []
    for phrase, expression, _ in steps:
        a, rest = expression.split(" ", 1)
        drawn.append((phrase, f"{drawn[-1][2] if drawn else a} {rest}", rng.randint(0, largest)))
    return clean_document(question, drawn, n_right=0)


def documents(seed, side, reserved=frozenset(), largest=LARGEST, most_steps=3, p_chatter=0.35, p_slip=0.3,
              most_words=25, skills=SKILLS):
    """Endless documents of one side: (segments, text of the question or None for chatter alone).

    side: 'noisy', 'form', or any other name for clean documents; the name seeds the stream, so that each has
    its own.
    reserved: texts of questions that must not occur: for a side to train on, those of the held-out problems.
    p_chatter: the share of noisy documents that are chatter alone. p_slip: of the other noisy documents, the
    share with a slip; most_words: of chatter before and after them. largest, most_steps and skills: see
    `problem`.
    """
    rng, chatter = random.Random(f"{side}-{seed}"), Chatter()
    while True:
        if side == "noisy" and rng.random() < p_chatter:
            yield [(chatter(rng, rng.randint(30, 90)), IRRELEVANT)], None
            continue
        question, steps = problem(rng, largest, most_steps, skills)
        key = " ".join(question)
        if key in reserved:
            continue
        if side == "form":
            yield form_document(rng, question, steps, largest), key
        elif side == "noisy":
            yield noisy_document(rng, chatter, question, steps, largest, p_slip, most_words), key
        else:
            yield clean_document(question, steps), key


def coloured(text, label):
    """The text in the colour of its label, for a terminal."""
    colour = {QUESTION: 36, SOLUTION: 32, RESULT: 92, IRRELEVANT: 90, NOISE: 35, WRONG: 31}[label]
    return f"\033[{colour}m{text}\033[0m"


if __name__ == "__main__":
    print("labels: " + " ".join(coloured(name, label) for label, name in enumerate(LABELS)))
    for side in ("curated", "noisy"):
        print(f"\n--- {side}")
        for segments, _ in itertools.islice(documents(0, side), 6):
            print("".join(coloured(text, label) for text, label in segments))
