"""
Grading of math answers: what counts as the answer in a generation, and which answers are the same.

The texts are written for these tests, in the manner of base and chat models. A grader that is too generous is
as wrong as one that is too strict, so every rule has cases of both outcomes, and every pair is checked in
both directions.
"""
import builtins
import gc
import itertools
import random
import signal
import time
from decimal import Decimal
from fractions import Fraction

import pytest

from grading.grade import extract_answer, is_equal

KINDS = {"number": ["gsm8k", "svamp", "mawps", "demo"], "word": ["asdiv", "tabmwp"],
         "latex": ["math", "math_oai"], "letter": ["mathqa", "mmlu_stem", "sat_math"]}
TASKS = [task for tasks in KINDS.values() for task in tasks]
SECONDS = 0.1  # for one call; most take milliseconds


def short(value):
    """A readable test name, also for a long or an unprintable text."""
    return ascii(value[:50])[1:-1]


@pytest.fixture(autouse=True)
def no_hang_and_no_collection():
    """A call that hangs fails its test after 20 s of processor time, by an exception that `except Exception`
    lets pass. No call has a full garbage collection to wait for, which takes long beside torch."""
    def stop(*_):
        pytest.fail("hangs")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, 20)
    gc.disable()
    yield
    gc.enable()
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


# Text, task and the very string expected.
EXACT = [
    # numbers after "answer is" or "answer:"
    ("Mia boils 5 + 6 = 11 eggs.\nSo 20 - 11 = 9 are left.\nThe answer is 9.\n\nQuestion: Tom has 5", "gsm8k", "9"),
    ("He sells 12 jars for $4 each, so he earns 12 * 4 = 48 dollars. The answer is 48.", "svamp", "48"),
    ("The rent is 2 * 1,250.25.\nThe answer is $2,500.50.", "gsm8k", "2500.50"), ("The answer is 18 dollars.", "mawps", "18"),
    ("The answer is 18 dollars", "gsm8k", "18"), ("So the shop gives a discount of 80 / 400. The answer is 20%.", "gsm8k", "20"),
    ("It was 4 degrees and fell by 7. The answer is -3.", "svamp", "-3"), ("The answer is 3/4 of the cake.", "gsm8k", "3/4"),
    ("Each child gets 3 of the 4 slices. The answer is 3/4.", "gsm8k", "3/4"), ("The answer is 0.25 liters.", "gsm8k", "0.25"),
    ("There are 7 / 2 kilograms in each bag. The answer is 3.5.", "mawps", "3.5"), ("THE ANSWER IS 64.", "gsm8k", "64"),
    ("The answer is 1,234,567.", "gsm8k", "1234567"), ("The answer is approximately 12.", "gsm8k", "12"),
    ("answer: 64", "demo", "64"), ("The answer is: 64", "gsm8k", "64"), ("The answer is **64**.", "gsm8k", "64"),
    ("**Answer:** 64", "gsm8k", "64"), ("**Answer: 64 tiles**", "gsm8k", "64"), ("Therefore, the answer is\n64.", "gsm8k", "64"),
    ("Step 1: 8 rows.\nStep 2: 8 tiles in each.\nAnswer:\n64", "gsm8k", "64"), ("**Answer:**\n\n64 tiles", "gsm8k", "64"),
    ("The final answer is: $64$", "gsm8k", "64"), ("The answer is \\(64\\).", "gsm8k", "64"),
    # the answer ends with its sentence or line: the numbers after it are no answer
    ("The answer is: 64\nTo check: 64 / 8 = 8.", "gsm8k", "64"),
    ("The answer is 12. This is because 3 people get 4 each.", "svamp", "12"),
    ("The answer is 2.5. Remember that 1 hour has 60 minutes.", "gsm8k", "2.5"),
    ("The answer is 5. But that counts Sunday twice, so the correct answer is 4.", "gsm8k", "4"),
    # a calculation after a cue ends in the answer
    ("The answer is 5 * 2 = 10.", "gsm8k", "10"), ("So the answer is 36 * 2 = 72 dollars.", "mawps", "72"),
    ("The answer is 2 + 2 = 4, times 3 = 12.", "gsm8k", "12"), ("The answer is x = 14.", "svamp", "14"),
    ("The answer is 10-5=5.", "svamp", "5"), (r"The answer is $\frac{9}{2}=4.5$.", "math", "4.5"),
    ("The answer is 5-10=-5.", "svamp", "-5"), ("The answer is 3 + 4 = <<3+4=7>>7.", "gsm8k", "7"),
    # GSM8K's mark, and a heading
    ("May: 48/2 = <<48/2=24>>24 clips.\nBoth: 48+24 = <<48+24=72>>72 clips.\n#### 72", "gsm8k", "72"), ("#### -5", "gsm8k", "-5"),
    ("He pays 2 * 617 = 1234.\n#### 1,234\n\nQuestion: Ann pays 3 * 5 = 15.\n#### 15", "gsm8k", "1234"),
    ("#### $75", "gsm8k", "75"), ("3 + 9 = 12\n#### 12 apples", "gsm8k", "12"),
    ("#### 10\nI forgot the 2 twins.\n#### 12", "gsm8k", "12"), ("3 * 14 = 42 pages.\n\n# Answer\n\n42", "gsm8k", "42"),
    ("The answer is 5.\nWait, I forgot the last day.\n#### 6", "gsm8k", "6"),
    ("# Answer\n\n42\n\nThat is 3 weeks of 14 pages each.", "gsm8k", "42"),
    # a box, and Minerva's form
    (r"Thus Mia pays \boxed{45} dollars for 3 shirts.", "gsm8k", "45"), (r"\boxed{1,200}", "gsm8k", "1200"),
    (r"\[ \boxed{\$18} \]", "gsm8k", "18"), (r"\boxed{18 \text{ dollars}}", "gsm8k", "18"), (r"\boxed{x = 14}", "svamp", "14"),
    (r"The discount is \boxed{20\%}, that is 5 dollars.", "gsm8k", "20"), ("So \\boxed{8}.\n#### 9", "gsm8k", "8"),
    ("Final Answer: The final answer is $64$. I hope it is correct.\n\nProblem:\nFind 5 + 5.", "gsm8k", "64"),
    # no cue: the last number
    ("In May 48/2 = <<48/2=24>>24 clips.\nIn both 48+24 = <<48+24=72>>72 clips.", "gsm8k", "72"),
    ("She earns 9 * 2 = $18 every day.", "gsm8k", "18"), ("4 bottles cost 4 * $2.50 = $10.00", "svamp", "10.00"),
    ("For 5 walls he needs 1,250 bricks.", "mawps", "1250"), ("From 2 degrees it fell to -8 degrees.", "svamp", "-8"),
    ("So what is left is 10-5", "svamp", "5"), ("The price rose by 20%.", "gsm8k", "20"),
    ("The answer to the question of 3 friends is 21.", "gsm8k", "21"), (" 8 - 3 = 5\n\nQ: Sara has 9 pens.\nA: 9", "demo", "5"),
    # a generation that runs on into the next question
    ("The answer is 8.\nQuestion: Ann has 3 cats. Bob has 4.\nAnswer: The answer is 7.", "gsm8k", "8"),
    ("The answer is 8. Question: Ann has 3 cats. The answer is 3.", "gsm8k", "8"),
    ("The answer is 8.\n\nProblem: Ann has 3 cats.\nThe answer is 3.", "gsm8k", "8"),
    ("The answer is 8.\n\nQ: Ann has 3 cats.\nA: The answer is 3.", "mawps", "8"),
    ("The answer is 8.<|endoftext|>The answer is 99.", "gsm8k", "8"),
    # numbers or words
    ("More are wanted than sold. The answer is shortage.", "tabmwp", "shortage"),
    ("The answer is shortage. At this price 900 are wanted and 200 offered.", "tabmwp", "shortage"),
    ("The table has 12 rows. The answer is clarinet.\n\nQuestion: Look at the 3 rows.", "tabmwp", "clarinet"),
    ("3 of 10 pets are cats. The answer is 3/10.", "tabmwp", "3/10"),
    ("They have 7 + 8 = 15 dollars and need 14. The answer is yes.", "asdiv", "yes"),
    ("Answer: Friday\n\nQuestion: On which day are 3 left?", "asdiv", "Friday"),
    # option letters
    ("B", "mmlu_stem", "B"), (" B\n\nQuestion: Which gas has the mass (C) 16?", "mmlu_stem", "B"), ("(B)", "sat_math", "B"),
    ("B. Because (A) is too small.", "mmlu_stem", "B"), ("B\nA is too small.", "mmlu_stem", "B"), ("C) 12", "sat_math", "C"),
    ("A", "mmlu_stem", "A"), ("(A) because 3 < 4.", "sat_math", "A"), ("The answer is (B).", "mathqa", "B"),
    ("The force doubles. The answer is D.", "mmlu_stem", "D"), ("the answer is b ) 12", "mathqa", "B"), ("#### C", "mathqa", "C"),
    ("A car goes 60 miles in 2 hours. The answer is A.", "mathqa", "A"), ("the answer is b .", "mathqa", "B"),
    ("so the train needs 4 hours . the answer is d ) 4\n\nQuestion: a man rows b ) 5", "mathqa", "D"),
    ("Answer: C", "mmlu_stem", "C"), ("Answer:\nC", "mmlu_stem", "C"), ("**Answer: D**", "sat_math", "D"),
    ("**Answer:** (D) $x = 4$", "sat_math", "D"), ("The answer is **(B)**.", "mmlu_stem", "B"),
    ("The correct answer is option B.", "mmlu_stem", "B"), ("The correct answer is B) 12 cm.", "mathqa", "B"),
    ("The correct answer is C. A is wrong because the mass cancels.", "mmlu_stem", "C"), ("The answer is $C$.", "sat_math", "C"),
    ("First I thought that the answer is A. On reflection, the answer is C.", "mmlu_stem", "C"),
    ("The answer is (E) none of these.", "mathqa", "E"), (r"Therefore, the answer is $\text{B}$.", "sat_math", "B"),
    (r"Option A gives 3, so we take \boxed{B}.", "sat_math", "B"), (r"\boxed{\text{(C)}}", "sat_math", "C"),
    (r"The area is $\boxed{\textbf{(D)}\ 24}$.", "mathqa", "D"), ("A car needs 2 hours, so we pick E.", "mathqa", "E"),
    ("The final answer is $(A)$. I hope it is correct.\n\nProblem: Is it (B) or (C)?", "sat_math", "A"),
    ("(A) is too small and (B) is too large, so it must be (C).", "mathqa", "C"),
    ("The speed is 60 km/h, which matches choice D.", "mathqa", "D"),
    # other forms met in the outputs of chat models
    (r"Final Answer: The final answer is $\boxed{7}$. I hope it is correct.", "math", "7"), ("#### - 10", "gsm8k", "-10"),
    (r"Final Answer: The final answer is $\boxed{7}$. I hope it is correct.", "gsm8k", "7"),
    ("#### Step 1: x\n3 * 4 = 12\n#### Step 2: total\n12 + 6 = 18\nThe answer is 18.", "gsm8k", "18"), ("b ) 12", "mathqa", "B"),
    ("#### Final Answer\n\nThe total cost is 18 dollars.", "gsm8k", "18"), ("She has 45 - 12 = 33 left.\n####", "gsm8k", "33"),
    ("The answer is 18 since 16 - 7 = 9 eggs remain.", "gsm8k", "18"), ("The answer is thus 18.", "gsm8k", "18"),
    ("The answer is 18 (16 + 2 = 18, by 9 * 2 = 18).", "svamp", "18"), ("The answer is 5, and we are done.", "math", "5"),
    ("The answer is 5 because $2 + 3 = 5$.", "math", "5"), ("The answer is $4 + 3 = 7$.", "math", "7"),
    ("**Answer:** The value of $x$ is $5$.", "math", "5"), ("The answer to $x + 3 = 8$ is $5$.", "math", "5"),
    (r"Hence $x = 5$. $\blacksquare$", "math", "x = 5"), ("The answer is 4.\n\nQuestion 2: The answer is 9.", "gsm8k", "4"),
    ("The answer is 4.<|im_end|>The answer is 9.", "gsm8k", "4"), ("The answer is 4.\nUser: The answer is 9.", "gsm8k", "4"),
    ("The answer is no, the relation is not a function.", "tabmwp", "no"), ('The answer is "Friday".', "tabmwp", "Friday"),
    ("The answer is (A) Friday.", "tabmwp", "Friday"), ("Rs. 500 is paid. The answer is Rs. 500.", "gsm8k", "500"),
    ("the answer is d because 3 is prime .", "mathqa", "D"), ("The answer is 12, which is (C).", "mathqa", "C"),
    ("The answer is vitamin D, which is option A.", "mmlu_stem", "A"), ("so x is 12 . ans : b", "mathqa", "B"),
    # cut off right after the cue: what was said before it counts
    ("She eats 3 + 4 = 7 eggs. So the answer is", "gsm8k", "7"), ("She eats 3 + 4 = 7 eggs.\nThe answer is:\n", "svamp", "7"),
    ("She eats 3 + 4 = 7 eggs.\n\n**Answer:**", "gsm8k", "7"), ("She pays 3 * 4 = 12 dollars. The answer is $", "gsm8k", "12"),
    ("3 + 4 = 7. The answer is\n\nQuestion: How many of 9 are left?", "mawps", "7"),
    ("There are 4 rows in the table. The answer is", "tabmwp", "4"),
    ("We have $x = 3$ and $y = 4$. The answer is", "math", "y = 4"),
    # spaces between groups of exactly three digits
    ("The answer is 9 500.", "gsm8k", "9500"), ("The answer is 9 500 dollars.", "asdiv", "9500"),
    ("The answer is -9 500.", "svamp", "-9500"), ("The answer is $9\\,500$.", "gsm8k", "9500"),
    ("The answer is 9\u202f500.", "gsm8k", "9500"), ("The answer is 12 345 678.50 dollars.", "gsm8k", "12345678.50"),
    ("The answer is 409 500.", "gsm8k", "409500"), ("So the house costs 400 000 + 9 500 = 409 500", "mawps", "409500"),
    ("So the house costs 409 500 dollars.", "math", "409500"), ("The answer is 9 500 and 3.", "gsm8k", "9 500 and 3"),
    ("The sack weighs 3 500 g.", "gsm8k", "3500"), ("The answer is 3 500 g bags.", "gsm8k", "3"),
    ("The answer is 3 500-g bags.", "gsm8k", "3"), ("The answer is 3 500 g bags.", "asdiv", "3 500 g bags"),
    ("The answer is 1 1/2.", "gsm8k", "1 1/2"), ("The answer is 9 500/1000.", "gsm8k", "9 500/1000"),
    ("The answer is 1 2 3.", "gsm8k", "1 2 3"), ("The answer is 1 200 35.", "gsm8k", "1 200 35"),
    ("We get the answers 12 and 345", "gsm8k", "345"), ("In 2023 500 people came", "gsm8k", "500"),
    ("On day 3 500 people came", "gsm8k", "500"), ("The point is (3, 500)", "gsm8k", "500"),
    ("Their weights are 1.5 500 and 2.5 600", "gsm8k", "600"),
    # a currency sign between sign and number
    *((f"The answer is {price}.", task, "-340")
      for price in ["-£340", "-€340", "-$340", "-\\$340", "£-340", "$-340"]
      for task in TASKS if task not in KINDS["letter"]),
    ("So he lost -£ 340", "gsm8k", "-340"), ("It changes by -£1,340.50 a day.", "gsm8k", "-1340.50"),
    ("The answer is 50 - £20 = £30.", "gsm8k", "30"), ("So what is left is 50-£20", "gsm8k", "20"),
    ("The answer is 340€.", "asdiv", "340"),
    # a formula that is left out is no answer, but one beside it is
    ("The answer for all $x$ except $0$ is $5$.", "math", "5"), ("Every case except $n=1$ gives $x=5$.", "math", "x=5"),
    ("Those in the domain but not the range are $0, 1$ and there are $14$ of them.", "math", "14"),
    # nothing to grade
    *(("", task, "") for task in TASKS), (" \n\n ", "gsm8k", ""), ("I am not sure how to solve this.", "gsm8k", ""),
    ("\n\nQuestion: Tom has 5 dogs and buys 2. How many has he?", "gsm8k", ""), ("I do not know.", "math", ""),
    ("She has 3 apples. The answer is unknown.", "gsm8k", ""), (r"\boxed{}", "math_oai", ""), ("The answer is 12.", "mathqa", ""),
    ("Of the 12 marbles some are red. The answer is impossible to determine.", "mawps", ""),
    ("A car travels at 60 mph for 2 hours, so it goes 120 miles.", "mathqa", ""),
    ("The answer is a prime number.", "mmlu_stem", ""), ("Let us compute 3 * 4 = 12. The answer is", "sat_math", ""),
    # what is thought aloud is no answer: closed, several times, cut off, or opened in the prompt
    ("<think>\nThe answer is 3? No.\nQuestion: who has 9?\n</think>\nThe answer is 5.", "gsm8k", "5"),
    ("<think>\nProblem: is it \\boxed{4}?\n</think>\n\nIt is \\boxed{6}.", "math", "6"),
    ("<think>Table: A has 2.</think>The answer is no.", "tabmwp", "no"), ("The answer is 5.\n<think>\nOr is it 8", "gsm8k", "5"),
    ("<think>\nExample: (A) is 3.\n</think>\n(C)", "sat_math", "C"), ("<THINKING>It is 8.</THINKING>\nIt is 5.", "gsm8k", "5"),
    ("<think>a 1</think> Now <think>Question: b 2</think>5 are left.", "svamp", "5"),
    ("<think>I write <think> here, 8.</think> The answer is 5.", "gsm8k", "5"),
    ("The answer is 5.\n<think>\nQuestion: is it 8? The answer is 8.\n</think>", "gsm8k", "5"),
    ("So it is 8.\nQuestion: or not?\n</think>\nThe answer is 5.", "gsm8k", "5"),
    ("<think>\n2 + 3 = 5. The answer is 5.", "gsm8k", ""), ("2 + 3 = 5. The answer is 5.\n</think>\n", "gsm8k", ""),
    ("<think>It is 8.</think>The answer is 5.\nQuestion: Ann has 9.\nThe answer is 9.", "gsm8k", "5"),
    ("<think>" + "hm 9. " * 100_000 + "</think>The answer is 5.", "gsm8k", "5"),
    # characters, and raised or lowered numbers, which are no numbers of their own
    ("The field has 40 m\u00b2", "gsm8k", "40"), ("The field has 40 m^2", "gsm8k", "40"),
    ("From x^2 = 49 we get 7 = x_1", "gsm8k", "7"), ("The answer is 40 square m\u00b2.", "asdiv", "40"),
    ("The answer is \u20137.", "gsm8k", "-7"), ("The answer is \u22127.", "gsm8k", "-7"),
    ("The answer is \u20147.", "gsm8k", "-7"), ("The answer is 9 \u2014 2 more than 7.", "gsm8k", "9"),
    ("The answer is \uff14\uff12.", "gsm8k", "42"), ("The answer is 3 \u00d7 5 = 15.", "gsm8k", "15"),
    ("The answer is 2\u00a0400.", "gsm8k", "2400"), ("The answer is 2\u00be.", "gsm8k", "2 3/4"),
    ("The answer is \u00bc of them.", "svamp", "1/4"), ("The answer is (-3)^3.", "gsm8k", "(-3)^3"),
    ("The answer is 4.5~million.", "gsm8k", "4.5million"), ("The answer is One Hundred Hills.", "tabmwp", "One Hundred Hills"),
]

# Text, task and an answer the extracted one equals: spaces and units are left to the extraction.
BY_VALUE = [
    (r"\boxed{\frac{3}{4}}", "gsm8k", "3/4"), ("60 / 10 = 6 buses are needed.", "asdiv", "6"),
    ("The answer is 6 buses.", "asdiv", "6"), ("The answer is 6 (buses).", "asdiv", "6"), ("The answer is -5.", "tabmwp", "-5"),
    ("1.5 * 3 = 4.50\nThe answer is $4.50.", "asdiv", "4.5"), ("15 + 2 = 17\n#### 17 seats", "asdiv", "17"),
    ("Boys to girls is 6 to 8. The answer is 3:4.", "asdiv", "3:4"), ("The answer is 1,190.", "tabmwp", "1190"),
    ("The bus leaves at 2:35 P.M. The answer is 2:35 P.M.\n\nQuestion: When is lunch?", "tabmwp", "2:35 P.M."),
    ("The answer is 2 hours and 15 minutes.", "tabmwp", "2 hours and 15 minutes"), (r"\boxed{x = 3}", "math", "3"),
    (r"\boxed{\text{surplus}}", "tabmwp", "surplus"), (r"The sum is \fbox{17}, as $8 + 9 = 17$ shows for $n = 2$.", "math", "17"),
    (r"We get $x = 3$. Final Answer: The final answer is $24$. I hope it is correct.", "math", "24"),
    ("First \\boxed{12}. The final answer is $24$. I hope it is correct.\n\nProblem:\nFind $x$.", "math", "24"),
    ("Final Answer: The final answer is $24$. I hope it is correct. And $25$ is $5^2$.", "math", "24"),
    (r"Final Answer: The final answer is $\$18.90$. I hope it is correct.", "math", "18.90"),
    (r"The final answer is $\frac{1}{2}$. I hope it is correct. \boxed{7}", "math", r"\frac{1}{2}"),
    (r"so the probability is $\boxed{\frac{3}{8}}$.", "math_oai", r"\frac{3}{8}"), (r"\boxed{\{1, 2\}}", "math", r"\{2, 1\}"),
    (r"\[ \boxed{\frac{\sqrt{3}}{2 + \sqrt{5}}} \] where $\sqrt{5} > 2$.", "math_oai", r"\frac{\sqrt{3}}{2+\sqrt{5}}"),
    (r"We try \boxed{3}, but $3^2 \ne 10$. Hence \boxed{\sqrt{10}}.", "math", r"\sqrt{10}"),
    (r"Then $a + b = \boxed 5$ for $a = 2$.", "math", "5"), (r"Her name is $\boxed{\text{Evelyn}}$.", "math", r"\text{Evelyn}"),
    (r"$$\boxed{\begin{pmatrix} 1 \\ -2 \end{pmatrix}}$$", "math_oai", r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}"),
    (r"\boxed{\left(-\infty, \frac{1}{2}\right]}", "math", r"(-\infty, 0.5]"), ("The answer is 3.5 cm.", "math", "3.5"),
    ("For $n = 4$ we get $6$.\nThe answer is $\\frac{3}{4}$.\n\nQuestion: Find $5 + 5$.", "math", r"\frac{3}{4}"),
    (r"**Answer:** \(\frac{3}{4}\)", "math", r"\frac{3}{4}"), (r"Therefore, the answer is: \[ x = 4. \]", "math", "4"),
    ("Therefore, the answer is:\n\\[\nx = 4.\n\\]\nThis uses that 5 is prime.", "math", "4"),
    ("The answer is $0.5$. It lies between $0$ and $1$.", "math", r"\frac{1}{2}"), ("So there are 7 ways in all.", "math", "7"),
    ("The line has slope 2. The answer is $y = 2x + 3$.", "math_oai", "y = 2x + 3"),
    ("The answer is $2x + y = 5$.", "math", "2x + y = 5"), ("The answer is $2$ and $-3$.", "math", "-3, 2"),
    (r"The answer is $(-\infty, 2) \cup (3, \infty)$.", "math", r"(-\infty,2)\cup(3,\infty)"),
    ("The answer is Evelyn.", "math", r"\text{Evelyn}"), ("# Answer\n\n$\\sqrt{2}$", "math_oai", r"\sqrt{2}"),
    (r"Since $a = 3$, the area is $9\pi$ for this circle.", "math", r"9\pi"),
    (r"Since $a = 3$ we finally have $x = \frac{7}{2}$.", "math", "3.5"),
    ("The answer is $8$.\n\nProblem:\nWhat is $9 + 9$?\n\nSolution:\n$\\boxed{18}$", "math", "8"),
    ("The answer is $8$.<|endoftext|>\\boxed{18}", "math_oai", "8"),
    # scale words
    *((text, task, value) for task in ["gsm8k", "svamp", "asdiv", "tabmwp", "math"] for text, value in [
        ("The answer is $4.5 million.", "4500000"), ("#### 7 thousand", "7000"),
        ("The answer is 7 billion people.", "7000000000"), ("So the town pays 3 dozen", "36"),
        (r"\boxed{4.5 \text{ million}}", "4500000"), ("The answer is 6 hundred thousand.", "600000"),
        ("The answer is three dozen eggs.", "36"), ("The answer is half a million.", "500000")]),
    ("The answer is a million dollars.", "gsm8k", "1000000"), ("The answer is $4.5$ million.", "math", "4500000"),
    ("So the town pays $4$ thousand", "math", "4000"), ("The answer is 3 hundred-dollar bills.", "gsm8k", "3"),
    ("He pays 4 dollars a dozen", "gsm8k", "4"),
    # numbers with an exponent
    *((text, task, value) for task in ["gsm8k", "mawps", "asdiv", "math"] for text, value in [
        ("The answer is 4.5e3.", "4500"), ("The answer is 4.5E+3.", "4500"), ("#### 5e-2", "0.05"),
        ("The answer is 6.5 \u00d7 10^4.", "65000"), ("The answer is 6.5 x 10^4.", "65000"),
        ("The answer is 6.5*10^{-4}.", "0.00065"), ("The answer is 6.5 \u00d7 10\u207b\u2074.", "0.00065"),
        (r"The answer is $6.5 \times 10^4$.", "65000"), (r"The answer is $6.5\cdot10^{4}$.", "65000"),
        ("The answer is $3^{5}$.", "243"), ("The answer is 3**5.", "243"), ("The answer is -3^5.", "-243"),
        ("The answer is 10^5.", "100000"), ("The answer is 10\u2075.", "100000"),
        ("So the light goes 10^5", "100000"), (r"So it goes $6.5 \times 10^4$", "65000"),
        ("The answer is 1,250e2.", "125000")]),
    (r"The answer is $6 \cdot 10^{4}$ km/h.", "gsm8k", "60000"), ("The answer is 6.5 x 10^4 dollars.", "asdiv", "65000"),
    # repeating decimals
    (r"The answer is $0.\overline{6}$.", "gsm8k", "2/3"), (r"So it is 1.\overline{6} liters", "gsm8k", "5/3"),
    ("The answer is 0.6\u0305.", "gsm8k", "2/3"), ("The answer is 0.6\u0305.", "math", "2/3"),
]

# Text, task and answers that would be a guess: more than one was given.
SEVERAL = [
    ("The answer is 3 and 4.", "gsm8k", ["3", "4", "34", "7"]), ("The answer is 3, 4.", "svamp", ["3", "4", "34", "3.4"]),
    ("The answer is 3 or 4.", "mawps", ["3", "4"]), (r"\boxed{3, 4}", "gsm8k", ["3", "4"]),
    ("The answer is 3 and 4.", "asdiv", ["3", "4"]), ("The answer is $3$ and $4$.", "math", ["3", "4"]),
    ("The answer is the numbers $3$ and $4$.", "math", ["3", "4"]), ("The answer is 2^3 and 5.", "gsm8k", ["8", "5", "2"]),
    ("The answer is that the roots are $3$ and $4$.", "math", ["3", "4"]),
    ("The answer is the equations $4 + 3 = 7$ and $2 + 2 = 4$.", "math", ["7", "4"]),
    ("The answer is 2 dozen and 5.", "gsm8k", ["24", "5", "2", "29"]),
    ("The answer is 3 million or 4 million.", "gsm8k", ["3000000", "4000000", "3"]),
    # what is left out
    ("The answer is the set of all real numbers except $x=-4$ and $x=1$.", "math", ["-4", "1", "-4, 1", "x=1"]),
    ("So it is the set of all real numbers except $x=-4$ and $x=1$.", "math", ["-4", "1", "-4, 1", "x=1"]),
    (r"\boxed{\text{all real numbers except } x=-4 \text{ and } x=1}", "math", ["-4", "1", "-4, 1"]),
    ("The answer is every real number except $x=3$.", "math", ["3", "x=3"]), ("So it is not $5$.", "math", ["5"]),
    ("The answer is all real numbers other than $3$.", "math", ["3"]),
    ("The answer is all numbers not equal to $5$.", "math", ["5"]),
    ("The answer is everything except $1 + 1 = 2$.", "math", ["2"]),
    # a list without commas
    ("The answer is 1 2 3.", "gsm8k", ["1", "123", "6", "3"]), ("The answer is 2 hours and 15 minutes.", "tabmwp", ["2", "15"]),
    ("The answer is 1 200 35.", "gsm8k", ["1", "1200", "120035", "35"]), ("The answer is A and C.", "mmlu_stem", ["A", "C"]),
    ("The answer is (A) or (B).", "mathqa", ["A", "B"]), (r"\boxed{A, D}", "sat_math", ["A", "D"]),
]

EQUAL = [
    ("sqrt(3)", r"\sqrt{3}"), ("2*sqrt(3)", r"2\sqrt3"), (r"3\sqrt13", r"3\sqrt{13}"), (r"\log_{10} 100", "2"), ("AB = 5", "5"),
    (r"\left(\begin{array}{c}1\\2\end{array}\right)", r"\begin{pmatrix}1\\2\end{pmatrix}"), (r"\log_{12} 144", "2"),
    (r"\angle ABC = 30^\circ", "30"), ("|z| = 5", "5"), ("x_1 = 5, x_2 = 6", "6, 5"), (r"\cos A = \frac12", "1/2"), ("5\\,", "5"),
    (r"\text{Area} = 5", "5"), ("5 = x", "5"), (r"n \approx 5", "5"), (r"2\sqrt3 \approx 3.46", r"2\sqrt{3}"), ("12 gm", "12"),
    (r"\mathbf{A}^{-1} = \begin{pmatrix}1 & 0\\0 & 2\end{pmatrix}", r"\begin{pmatrix}1 & 0\\0 & 2\end{pmatrix}"),
    (r"\lvert -5 \rvert", "5"), (r"{1\over 2}", "0.5"), (r"{5 \choose 2}", "10"), (r"\sin 30^\circ", "1/2"),
    (r"x \ge 5", r"[5, \infty)"), (r"-2 < x \le 7", "(-2,7]"), (r"7 > x", r"(-\infty, 7)"), (r"\underline{5}", "5"),
    (r"\csc \frac{\pi}{2}", r"\sec 0"), (r"\cot \frac{\pi}{4}", "1"), (r"\arctan 1", r"\frac{\pi}{4}"), (r"\sqrt[3]{-8}", "-2"),
    (r"x\in[-2,7]", "[-2,7]"), ("(-inf, 2)", r"(-\infty, 2)"),
    # plain numbers, currencies (also between sign and number), units
    ("18", "18"), ("3.0", "3"), (".5", "0.5"), ("+7", "7"), ("-5", "-5.0"), ("18 dollars", "18"), ("$18", "18"), ("5 cm", "5"),
    (r"\$18.90", "18.9"), ("$18.90", "18.90 dollars"), ("1,234", "1234"), ("1,234,567.50", "1234567.5"), ("5 hours", "5"),
    ("10%", "10"), (r"10\%", "10"), (r"145^\circ", "145"), (r"145^{\circ}", "145"), (r"12 \text{ cm}^2", "12"), ("-£340", "-340"),
    (r"15\mbox{ cm}^2", "15"), (r"11,\! 111,\! 100", "11111100"), (r"10,\!080", "10,080"), ("£-340", "-340"), ("-€5", "-5"),
    ("-$5", "-5"), ("$-5", "-5"), (r"-\$5", "-5"), ("-¥5", "-5"),
    (r"\text{all real numbers except } 3", "All real numbers except 3"),
    # fractions, decimals, repeating decimals, mixed numbers
    ("0.5", "1/2"), ("6/8", "3/4"), ("1 1/2", "3/2"), (r"1\frac{1}{2}", "3/2"), (r"137 \frac{1}{2}", "137.5"), ("0.33333", "1/3"),
    (r"-2\frac{1}{3}", r"-\frac{7}{3}"), (r"-\frac{3}{4}", r"\frac{-3}{4}"), ("-3/4", r"\frac{3}{-4}"), ("3.14159", r"\pi"),
    ("1.41421", r"\sqrt{2}"), (r"\frac12", "1/2"), (r"\frac1{2}", r"\frac{1}{2}"), (r"\frac 59", "5/9"), (r"\frac9{19}", "9/19"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"), (r"\tfrac{1}{2}", "0.5"), (r"\\frac{1}{2}", r"\frac{1}{2}"), (r"0.\overline{6}", "2/3"),
    (r"0.\bar{6}", r"\frac{2}{3}"), (r"0.\dot6", "2/3"), (r"0.8\overline{3}", "5/6"), (r"2.1\overline{45}", r"\frac{118}{55}"),
    (r"0.\dot{2}7027\dot{0}", "10/37"), (r"0.\dot2\dot7", "3/11"), (r".\overline{09}", r"\frac{1}{11}"), (r"0.\overline{9}", "1"),
    (r"-1.\overline{3}", "-4/3"), (r"0.\overline{6}", r"0.6\overline{6}"), ("0.6\u0305", "2/3"), ("0.6\u0307", "2/3"),
    ("0.(6)", "2/3"), (r"66.\overline{6}\%", "200/3"), (r"0.\overline{6} \text{ cm}", "2/3"), (r"0.\overline{6}", "0.66667"),
    (r"\frac{0.\overline{3}}{2}", "1/6"), (r"0.\overline{3}x", r"\frac{x}{3}"),
    # tuples, intervals, matrices
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)"), ("( 8, -2 )", "(8,-2)"), ("[-2, 7]", "[-2,7]"),
    (r"\left(\frac{3}{5},\frac{8}{3}\right]", "(0.6, 8/3]"), (r"(-\infty, 2]", r"\left(-\infty,2\right]"),
    (r"(-\infty,2]\cup[3,\infty)", r"(-\infty, 2] \cup [3, \infty)"),
    (r"\begin{pmatrix} 1/2 \\ -3 \end{pmatrix}", r"\begin{pmatrix} \frac{1}{2} \\ -3 \end{pmatrix}"),
    (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
    (r"\begin{pmatrix} x\\y \end{pmatrix}", r"\begin{pmatrix} x \\ y \end{pmatrix}"),
    (r"\begin{pmatrix} 3\\\pi-3 \end{pmatrix}", r"\begin{pmatrix} 3 \\ \pi - 3 \end{pmatrix}"),
    (r"\begin{pmatrix} 1\\abc \end{pmatrix}", r"\begin{pmatrix} 1 \\ abc \end{pmatrix}"),
    (r"\\begin{pmatrix} \\alpha \\\\ 1 \\end{pmatrix}", r"\begin{pmatrix} \alpha \\ 1 \end{pmatrix}"),
    # solutions in any order
    ("1, 2", "2, 1"), (r"1 \text{ and } 2", "1, 2"), ("1 or 2", "2,1"), (r"\{1,2,3\}", r"\{ 3, 1, 2 \}"), (r"\pm 2", "2, -2"),
    (r"\frac{1}{2}, -3", "-3, 0.5"), (r"1 \pm \sqrt{2}", r"1-\sqrt{2}, 1+\sqrt{2}"), (r"x = 1 \text{ or } x = 2", "1, 2"),
    (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1-\sqrt{5}, 1+\sqrt{5}\}"),
    # closed forms and expressions
    (r"\sqrt{8}", r"2\sqrt{2}"), (r"\sqrt2", r"\sqrt{2}"), (r"11\sqrt2", r"11 \sqrt{2}"), ("3^{1/2}", r"\sqrt{3}"), ("5!", "120"),
    (r"\sqrt[3]{54}", r"3\sqrt[3]{2}"), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"), (r"18+2\pi", r"2(9+\pi)"),
    ("2^{10}", "1024"), ("2^{100}", "1267650600228229401496703205376"), (r"2 \cdot 3", "6"), (r"2 \times 3", "6"),
    (r"1.5 \times 10^3", "1500"), (r"\binom{5}{2}", "10"), (r"\log_2 8", "3"), (r"\log_{2} 8", "3"), ("3+4i", "4i + 3"),
    (r"\sin \frac{\pi}{6}", r"\frac{1}{2}"), (r"\sin(2x)", r"2\sin(x)\cos(x)"), (r"\cot x", r"\frac{\cos x}{\sin x}"),
    ("6 - 5i", "6-5i"), ("(x+1)^2", "x^2+2x+1"), ("(a+5)(b+2)", "ab + 2a + 5b + 10"), ("2x+3y", "3y + 2x"),
    ("x^{-1}", r"\frac{1}{x}"), (r"\frac{x+1}{2}", "0.5x + 0.5"),
    # labels and equations
    ("x = 5", "5"), (r"x=\frac{1}{2}", "0.5"), (r"x \in [-2,7]", "[-2,7]"), ("f(x) = x^2", "x^2"), ("y = 2x + 3", "y = 3 + 2x"),
    ("y = 2x + 3", "3 + 2x = y"), ("2x + y = 5", "y + 2x = 5"), ("e = 5", "5 = e"), (r"\mu + 1 = 5", r"1 + \mu = 5"),
    # chains of equal numbers
    ("$12-2=10$", "10"), (r"\frac{9}{2}=4.5", "4.5"), (r"\frac{9}{2}=4.5", "9/2"), (r"2^2\cdot3^2\cdot5^2=900", "900"),
    (r"2^2\cdot3^2\cdot5^2=900", r"30^2"), ("10 = 12-2", "10"), ("2 + 2 + 2 = 4 + 2 = 6", "6"), ("12-2=10", "6+4=10"),
    (r"\sqrt{3} = 1.73205", r"\sqrt3"), ("i^2 = -1", "-1"), (r"\sin 30^\circ = \frac12", "0.5"), ("2 = 1 + 1, 4 = 3 + 1", "4, 2"),
    (r"\$12 - \$2 = \$10", "10 dollars"), ("x = 12 - 2 = 10", "10"), (r"x = \frac{9}{2} = 4.5", "x = 4.5"),
    ("f(2) = 3 + 4 = 7", "7"), (r"x = \frac92 = 4.5 \text{ or } x = 1", "1, 4.5"), ("x^2 = 3^2 = 9", "x^2 = 9"),
    ("(1+1=2, 3)", "(2, 3)"),
    # spaces between groups of exactly three digits
    ("9 500", "9500"), ("409 500", "409,500"), ("-9 500", "-9500"), ("9 500.5", "9500.5"), ("12 345 678", "12345678"),
    (r"9\,500", "9500"), (r"9\ 500", "9500"), ("9~500", "9500"), ("9\u00a0500", "9500"), (r"\$9 500", "9500"), ("2^2 3^2", "36"),
    ("9 500 dollars", "9500"), (r"9 500 \text{ cm}^2", "9500"), ("1, 9 500", "9500, 1"), ("(9 500, 2)", "(9500, 2)"),
    (r"\frac{1}{2 500}", "1/2500"), ("9 500 + 500", "10 000"), ("3 500 g", "3500 g"), ("9 500/1000", "9.5"),
    # letters, words, bases, long numbers
    ("(A)", "A"), (r"\text{A}", "(A)"), (r"\text{(E)}", "E"), (r"\text{Evelyn}", "Evelyn"), ("Evelyn", "evelyn"), ("Yes", "yes."),
    ("2:35 P.M.", "2:35 pm"), ("the shortage", "shortage"), ("a clarinet", "Clarinet"), (r"\text{even}", "even"), ("3:4", "3:4"),
    ("1010_2", "1010_{2}"), ("1" * 400, "1" * 400),
    # letters that are a product, words that are one atom
    ("3pq", "3qp"), ("pq - 4p", "-4p + qp"), ("xz", "zx"), ("xyz", "zyx"), ("5(ab+c)", "5(c+ba)"), (r"\pi rs", r"\pi sr"),
    (r"\frac{pq}{2}", r"\frac{qp}{2}"), ("A = lw", "A = wl"), ("abcd + 1", "1 + dcba"), ("x y", "y x"), (r"2 \theta", "2 theta"),
    (r"\alpha\beta", r"\beta\alpha"), (r"\bar{x}y", r"y\bar{x}"), (r"2\overline{PQ}", r"\overline{PQ} + \overline{PQ}"),
    (r"x + \heartsuit", r"\heartsuit + x"), (r"1 + \text{cat}", r"\text{cat} + 1"), ("speed * time", "time * speed"),
    (r"\text{PQR}", "PQR"), (r"3 + \text{dog}", "3 + dog"), (r"\sinh x", r"\sinh(x)"),
    (r"\frac{\cancel{5}}{2\cdot\cancel{5}}", "1/2"),
    # scale words
    ("4.5 million", "4500000"), ("7 thousand", "7,000"), ("3 dozen", "36"), ("4 trillion", "4000 billion"),
    ("4 million", "4 million"), ("4 Million", "4,000,000"), (r"6 \text{ hundred}", "600"), ("6 hundred thousand", "600000"),
    (r"\$4.5 \text{ million}", "4.5 million dollars"), ("7 thousand people", "7000"), ("-4 million", "-4000000"),
    (r"1\frac{1}{2} \text{ million}", "1500000"), ("1 1/2 million", "1500000"), ("2^3 million", "8000000"),
    ("half a million", "500000"), ("three dozen eggs", "36"), ("forty-two thousand", "42000"), ("a million", "1000000"),
    ("4 (million)", "4000000"), ("4 million, 3 dozen", "36, 4000000"),
    # units, and what is none
    ("7 (pears)", "7"), ("7 (fl. oz)", "7"), ("7 (U.S. dollars)", "7"), ("7 (cm)", "7"), ("7 (m)", "7"), ("7 (B)", "7"),
    ("10^2 (pears)", "100"), ("7 sec", "7"), ("7 two-digit numbers", "7"), ("7 quarters", "7"), ("7 percent", "7%"),
    (r"\text{7 pears}", "7"), (r"7\text{ m}", "7"), ("4(y)", "4y"), ("4(ab)", "4ba"), ("2(t + 1)", "2t + 2"),
    (r"\cot^2(t)", r"\csc^2(t) - 1"), (r"\log_5(k)", r"\frac{\ln k}{\ln 5}"), (r"5\text{y}", "5y"), ("2 sec x", r"2\sec x"),
    (r"\sin^2 \text{x}", r"1 - \cos^2 x"),
    # characters, and numbers with an exponent
    ("x\u00b2 + 1", "1 + x^2"), ("2\u00b9\u00b2", "4096"), ("10\u207b\u00b2", "0.01"), ("x\u2081 + x\u2082", "x_2 + x_1"),
    ("101\u2082", "101_2"), ("3\u00be", "15/4"), ("\u2153", "1/3"), ("3\u20444", "3/4"), ("\u00b3/\u2084", "3/4"), ("-3^2", "-9"),
    ("\u00b3\u2044\u2084", "3/4"), ("9\u20112", "7"), ("9\u20142", "7"), ("9\u20122", "7"), ("3\u22c55", "15"), ("7\u200b", "7"),
    ("3\u22195", "15"), ("3\u27155", "15"), ("15\u22153", "5"), ("7\u2003cm", "7"), ("12\u2009345", "12345"), ("\U0001d7d5", "7"),
    ("\uff17\uff0e\uff15", "7.5"), ("x^\u00bd", r"\sqrt{x}"), ("4.5e3", "4500"), ("4.5E+3", "4500"), ("5e-2", "0.05"),
    ("6.5 x 10^4", "65000"), ("6.5*10^{-4}", "0.00065"), (r"6.5 \times 10^4 \text{ m}", "65000"), ("3**4", "81"),
    ("1,250e2", "125000"), ("(-3)^3", "-27"), (r"\text{2 dozen eggs}", "24"), (r"\text{rise}/\text{run}", "rise/run"),
    ("x\u2081\u2080 + 1", "1 + x_{10}"), ("20 km/h", "20"), (r"20\,\text{km}/\text{h}", "20"),
]

UNEQUAL = [
    (r"2:35 \text{ P.M.}", r"2:35 \text{ A.M.}"), ("5xyz", "5"), ("5 hours and 30 minutes", "5"), ("4 boys and 6 girls", "4"),
    (r"\sin^{-1} x", r"\frac{1}{\sin x}"), ("x <", "x < 5"), ("AB = x + 2", "x + 2"), (r"x \ge 5", r"(5, \infty)"),
    (r"\begin{pmatrix} & 1\end{pmatrix}", r"\begin{pmatrix}2 & 1\end{pmatrix}"), ("x > 5", "x < 5"), (r"\infty", r"-\infty"),
    (r"2\sqrt{5}", r"\frac{161}{36}"), ("(100,200)", "100200"), ("a + b = 7", "7"),
    # nothing is no answer, not even to nothing
    ("", "5"), ("", "0"), ("", ""),
    # plain numbers, and a currency sign between sign and number
    ("5", "6"), ("5", "-5"), ("12345", "12346"), ("1000000", "1000001"), ("1,234", "234"), ("1,234", "1"), ("100001/100000", "1"),
    ("1267650600228229401496703205376", "1267650600228229401496703205377"), ("1" * 400, "2" * 400), ("1e400", "1e500"),
    ("inf", "1e400"), (r"\infty", "1e400"), ("50%", "0.5"), (r"50\%", "0.5"), ("0.5", "50"), (r"50\%", r"\frac{1}{2}"),
    ("0.333", "1/3"), ("3.14", r"\pi"), ("22/7", r"\pi"), (".0000481", ".0000484"), ("0", "0.00002"), ("0.1", "0.11"),
    ("1010_2", "1010"), ("12_8", "12_{10}"), ("1_000", "1000"), ("1/0", "1"), ("1/0", "0"), ("1/0", "2/0"), ("1/0", r"\infty"),
    ("True", "1"), ("False", "0"), ("None", "0"), ("-£340", "340"), ("£-340", "340"), ("-€5", "5"), ("-$5", "5"), ("$-5", "5"),
    (r"-\$5", "5"),
    # fractions, and repeating decimals
    (r"\frac{1}{2}", r"\frac{2}{1}"), (r"-\frac{1}{2}", r"\frac{1}{2}"), (r"\frac{12}{3}", r"\frac{1}{23}"), (r"\frac12", "12"),
    (r"1\frac{1}{2}", r"\frac{11}{2}"), ("1 1/2", "11/2"), ("1 1/2", "1/2"), (r"0.\overline{6}", "0.6"), (r"0.\dot{6}", "0"),
    (r"0.\overline{6}", r"0.\overline{7}"), ("0.(6)", "0"), (r"0.\overline{12}", r"0.\overline{21}"), (r"0.\overline{6}", "0.67"),
    (r"0.1\overline{2}", r"0.\overline{12}"), (r"0.\overline{pq}", r"0.\overline{qp}"), (r"0.\overline{p}", "0"),
    (r"0.\overline{1}_2", "1/9"),
    # lists, tuples, intervals, matrices
    ("1, 2", "1"), ("1, 2", "2"), ("1, 2", "1, 3"), ("1, 2", "12"), ("3 and 4", "3"), ("3 and 4", "34"), ("1, 2, 3", "1, 2"),
    (r"\{1,2\}", r"\{1,2,3\}"), (r"\pm 2", "2"), (r"\pm 2", "-2"), ("(1,2)", "(2,1)"), ("(5,5)", "5"), ("(1,2)", "(1,2,3)"),
    ("[1,2)", "[1,2]"), ("(1,2)", "[1,2]"), ("(1,2)", "(1,2]"), (r"(5,\infty)", r"[5,\infty)"), (r"(5,\infty)", r"(-\infty,5)"),
    ("(1,2)", "(1,3)"), (r"(0,9) \cup (9,36)", "(0,36)"), (r"(0,9) \cup (9,36)", r"(0,9] \cup (9,36)"),
    (r"(0,9) \cup (9,36)", "(0,9)"), (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"),
    # closed forms and expressions; some agree at a whole number or two
    (r"\sqrt{8}", r"2\sqrt{3}"), (r"\sqrt{2}", r"-\sqrt{2}"), ("2^{10}", "210"), ("5!", "5"), (r"\binom{5}{2}", r"\frac{5}{2}"),
    (r"\log_2 8", r"\log_3 8"), (r"\sin x", r"\cos x"), ("3+4i", "3-4i"), ("3+4i", "7"), ("2", "2x"), ("x", "y"), ("2x", "x^2"),
    ("x^2", "x^3"), ("(x+1)^2", "x^2+1"), ("a+b", "a-b"), ("10^{10^{10}}", "10^{10^{11}}"), ("1000000!", "1000001!"),
    # labels and equations
    ("x = 5", "6"), ("x = 5", "x"), ("5", "2x + y = 5"), ("2x+3", "y = 2x+3"), ("y = 2x + 3", "y = 2x - 3"), ("x = x", "y = y"),
    ("y = 2x + 3", "x = 2y + 3"), ("f(x) = x^2", "x^3"), (r"x \in [-2,7]", "[-2,7)"), ("2x = x + x", "0 = 0"), ("x = y", "0"),
    ("x + 1 = x + 2", "y + 1 = y + 2"),
    # chains
    ("12-2=9", "9"), ("12-2=9", "10"), ("12-2=9", "12-3"), ("12-2=9", "13-3=9"), ("12-2=10", "12"), ("12-2=10", "0"),
    ("12-2=10", "8+3=11"), ("10=10=9", "9"), ("10=10=9", "10"), ("9=10=10", "10"), ("12/4=3=6/2=4", "4"), ("x = 12-2 = 9", "9"),
    (r"\frac{9}{2}=4.6", "4.6"), (r"\frac{9}{2}=4.5", "9"), (r"\frac{9}{2}=4.5", "4.6"), ("x = 12-2 = 9", "10"), ("=10", "="),
    ("x = 12-2 = 10", "12"), ("x = 2y = 4", "4"), ("y = 2x + 3 = 5", "5"), ("x^2 = 3^2 = 9", "9"), ("1010_2 = 10", "9"),
    # numbers side by side
    ("9 500", "9"), ("9 500", "500"), ("9 500", "4500"), ("9 500", "9.5"), ("409 500", "409"), ("9 500", "9 501"), ("1 2 3", "6"),
    ("1 2 3", "123"), ("1 2 3", "1"), ("2 3", "6"), ("12 34", "1234"), ("1 200 35", "120035"), ("12 3456", "123456"),
    ("1.5 500", "750"), ("1.5 500", "1.55"), ("2023 500", "2023500"), ("0 500", "500"), ("9, 500", "9500"), ("(9, 500)", "9500"),
    ("12 and 345", "12345"), ("1 200, 300", "1200300"), ("3 500 g bags", "3500"), ("3 500-g bags", "3500"),
    ("9 500/1000", "9500"), ("x^2 500", "x^{2500}"), (r"\begin{pmatrix} 1 \\ 200 \end{pmatrix}", "1200"),
    (r"\sqrt2 500", r"\sqrt{2500}"),
    # what is left out
    ("the set of all real numbers except $x=-4$ and $x=1$", "-4"), ("every real number except x = 3", "3"),
    ("the set of all real numbers except $x=-4$ and $x=1$", "-4, 1"), ("Real numbers other than x = 3 and x = 4", "3, 4"),
    (r"\text{all real numbers except } 3", "3"), (r"\text{all real numbers except } 3", "all real numbers except 4"),
    # letters and words
    ("A", "B"), ("(A)", "(C)"), (r"\text{(E)}", r"\text{(D)}"), ("A and C", "A"), ("yes", "no"), ("shortage", "surplus"),
    (r"\text{east}", r"\text{west}"), ("2:35 P.M.", "2:35 A.M."), ("2:35 P.M.", "2:53 P.M."), ("2:35 P.M.", "2"), ("5:6", "6:5"),
    # words whose letters are the same, and commands that cannot be read
    ("PQR", "PRQ"), ("PQ", "QP"), (r"\text{XI}", r"\text{IX}"), ("won", "own"), (r"\mathrm{on}", r"\mathrm{no}"), ("TTH", "THT"),
    ("T T H", "T H T"), ("TH, HH", "HT, HH"), ("(no, 1)", "(on, 1)"), ("one", "eon"), ("own or won", "now or own"),
    ("the dog", "the god"), ("dog cat", "cat dog"), ("5 ten", "5 net"), ("5 ten", "5"), (r"1 + \text{dog}", r"1 + \text{god}"),
    (r"\text{dog}^2", r"\text{god}^2"), ("loop + 2", "pool + 2"), (r"\frac{\text{dog}}{2}", r"\frac{\text{god}}{2}"),
    (r"x = \text{dog}", r"x = \text{god}"), (r"0 \cdot \text{dog}", "0"), (r"0 \cdot \text{dog}", r"0 \cdot \text{cat}"),
    (r"0\heartsuit", "0"), (r"\heartsuit", r"\diamondsuit"), (r"\heartsuit\diamondsuit", r"\diamondsuit\heartsuit"),
    (r"\overline{PQ}", r"\overline{QP}"), (r"\vec{u}", r"\vec{v}"), (r"\bar{x}", "x"), (r"\angle PQR", r"\angle QRP"),
    (r"P \setminus Q", r"Q \setminus P"), (r"3 \pmod 8", r"8 \pmod 3"), (r"f \circ g", r"g \circ f"),
    (r"\lfloor x \rfloor", r"\rfloor x \lfloor"), (r"\heartsuit - \heartsuit", "0"),
    # scale words, and number words that are no unit
    ("4 million", "4"), ("4 million", "4 billion"), ("4 thousand", "4 hundred"), (r"4 \text{ thousand}", "4"), ("3 dozen", "3"),
    ("4 million people", "4"), ("half a million", "1000000"), ("three dozen", "3"), ("ten", "10"), ("7 tenths", "7"),
    ("2 thirds", "2"), ("7 ten", "7"), ("7 hundredths", "7"), ("3 hundred-dollar bills", "300"),
    # arguments and variables that are no unit
    ("4(y)", "4"), ("4 (y)", "4"), ("4(y)", "4(z)"), ("4(ab)", "4"), ("4(B)", "4"), (r"\cot^2(t)", r"\cot^2(u)"), ("3abcd", "3"),
    (r"\log_5(k)", r"\log_5(m)"), (r"\log_5(pears)", r"\log_5"), ("x_2(red)", "x_2"), ("4 (sin x)", "4"), (r"5\text{y}", "5"),
    (r"5\text{y}", r"5\text{z}"), ("2 arctan x", "2"), ("2 sec x", "2"), ("2 theta", "2"), ("2 theta", "2 alpha"), ("3wxyz", "3"),
    ("2:35 (P.M.)", "2:35 (A.M.)"), ("50 percent", "0.5"),
    # characters, and numbers with an exponent
    ("x\u00b2", "x\u00b3"), ("x\u2081", "x\u2082"), ("10\u207b\u00b2", "100"), ("3\u00be", "9/4"), ("9\u20132", "92"),
    ("101\u2082", "101"), ("3\u22c55", "35"), ("4.5e3", "4.5"), ("4.5e3", "4.5e4"), ("6.5 x 10^4", "6.5"), ("10^{-4}", "10^4"),
    ("-3^2", "9"), ("3**4", "12"), (r"\text{(no)}", r"\text{(on)}"), (r"\text{on/off}", r"\text{no/off}"),
    (r"\text{2 no}", r"\text{2 on}"), (r"f(\text{no})", r"f(\text{on})"), ("x_{10} + 1", "x_{11} + 1"), ("rise/run", "run/rise"),
]

# Answers as in MATH, all of a different value.
GOLDS = [
    "2", "-7", "58,600", "0.17", r"\frac{3}{4}", r"-\frac{7}{9}", r"127 \frac{1}{2}", r"\frac 58", r"3\sqrt{17}", r"11\sqrt2",
    r"1+2\sqrt{3}", r"\frac{\sqrt{5}}{3}", r"14\pi", r"16+2\pi", r"\frac{3000}{\pi}", "6 - 5i", "(8,-3)", r"(5,\infty)", "[-2,7]",
    r"\frac{1}{2} + \frac{\sqrt{3}}{2}i", r"\left( 4, \frac{\pi}{2} \right)", "(-2,7]", r"\left(\frac{3}{5},\frac{8}{3}\right]",
    r"(0,9) \cup (9,25)", r"\begin{pmatrix} -18 \\ -49 \\ 95 \end{pmatrix}", r"\begin{pmatrix} 0 & 1 \\ -1 & 0 \end{pmatrix}",
    r"\text{Ellen}", r"\text{(E)}", "4342_6", "x^8 + x^4 + 1", "y = -2x + 5", "(a+5)(b+3)", r"135^\circ", r"15\mbox{ cm}^2",
    r"\$19.80", r"10\%", r"\{1\pm\sqrt{5},-2\}", "3, 5, 7", r"\cot x", r"10,\!090",
]


@pytest.mark.parametrize("text, task, expected", EXACT, ids=short)
def test_extracted_string(text, task, expected):
    assert extract_answer(text, task) == expected


@pytest.mark.parametrize("text, task, gold", BY_VALUE, ids=short)
def test_extracted_value(text, task, gold):
    answer = extract_answer(text, task)
    assert is_equal(answer, gold), answer
    if task in KINDS["latex"]:
        assert "$" not in answer.replace(r"\$", "")


@pytest.mark.parametrize("text, task, guesses", SEVERAL, ids=short)
def test_several_answers_are_not_graded_by_one_of_them(text, task, guesses):
    answer = extract_answer(text, task)
    assert answer not in guesses and not any(is_equal(answer, guess) for guess in guesses), answer


@pytest.mark.parametrize("a, b", EQUAL, ids=short)
def test_equal(a, b):
    assert is_equal(a, b) is is_equal(b, a) is True


@pytest.mark.parametrize("a, b", UNEQUAL, ids=short)
def test_unequal(a, b):
    assert is_equal(a, b) is is_equal(b, a) is False


def test_golds_equal_only_themselves():
    assert [a for a in GOLDS if not is_equal(a, a)] == []
    assert [(a, b) for a, b in itertools.combinations(GOLDS, 2) if is_equal(a, b)] == []


def spellings(x, times):
    """The ways to write a fraction, the plain ones not reduced."""
    n, d = x.numerator * times, x.denominator * times
    yield from (f"{n}/{d}", rf"\frac{{{n}}}{{{d}}}")
    if n < 0:
        yield rf"-\frac{{{-n}}}{{{d}}}"
    whole, rest = divmod(abs(x), 1)
    if whole and rest:
        sign = "-" if n < 0 else ""
        yield from (f"{sign}{whole} {rest}", rf"{sign}{whole}\frac{{{rest.numerator}}}{{{rest.denominator}}}")
    decimal = Decimal(x.numerator) / Decimal(x.denominator)
    if Fraction(decimal) == x:
        yield f"{decimal:f}"


@pytest.mark.parametrize("seed", range(40))
def test_spellings_of_a_fraction(seed):
    rng = random.Random(seed)
    b = rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 25])
    x, times = Fraction(rng.randint(-60, 60), b), rng.randint(1, 4)
    same = list(spellings(x, times))
    other = list(spellings(x + Fraction(1, b), times))
    assert [(p, q) for p, q in itertools.combinations(same, 2) if not is_equal(p, q)] == []
    assert [(p, q) for p, q in zip(same, itertools.cycle(other)) if is_equal(p, q)] == []


def nested(times, *more):
    """Brackets and commands inside each other, each of which a careless parser follows down."""
    nests = [("(", "1", ")"), ("{", "1", "}"), (r"\frac{", "1", "}{2}"), (r"\sqrt{", "2", "}"), ("2^{", "2", "}"),
             (r"\left(", "1", r"\right)")]
    return [opening * times + middle + closing * times for opening, middle, closing in nests + list(more)]


# Short enough to be put after a cue too.
BOMBS = nested(300, ("[", "1", "]"), (r"\{", "1", r"\}"), ("|", "1", "|"), (r"\text{", "a", "}"), (r"\sin(", "x", ")")) + [
    "9**9**9", "9^9^9^9", "9^{9^{9^9}}", "10^{10^{10}}", "2^{-10^{10}}", "1e999999999", "1e-999999999", "1.7e308*10", "1000000!",
    "((10!)!)!", "3!!!!!", "(-1)!", "2.5!", r"\binom{10^9}{5*10^8}", r"\binom{1000000000}{500000000}", r"\sqrt[10^{10}]{2}",
    r"\sqrt[0]{2}", r"\sqrt{-4}", "(-8)^{1/3}", "0^{-1}", "0^0", "1/0", r"\frac{1}{0}", r"\log 0", r"\log_1 5", r"\log_0 0",
    r"\tan \frac{\pi}{2}", "(1+i)^{1000000}", "(x+y+z)^{1000}", "x^{x^{x^{x^{x}}}}", "e^{e^{e^{e^{e}}}}", r"\infty - \infty",
    "nan", "-inf", "1_{999999999}", "zz_{36}", "5_1", "5_0", "19_8", "1_x", "0." + "3" * 5000, "9" * 5000, "1/" + "7" * 5000,
    "1" + "0" * 5000 + r"\%", r"\pm 1" * 40, r"\pm x + " * 40 + "1", "1" + "!" * 500, "2^" * 500 + "2", "-" * 501 + "1",
    "*".join(["(x+1)"] * 200), "+".join(f"x^{{{n}}}" for n in range(200)), "abcdefghijklmnopqrstuvwxyz",
    "=" * 50, "1=" * 499 + "1", "300!=" * 190 + "300!",
    "9^9^9=9^9^9", "9^{999}=" * 120 + "9^{999}", "1 000" + " 000" * 200, "\0", "5\0", "\0" * 50, "1\x002", "\ud800", "\udfff5",
    "\\text{\ud83d}", "\u00b2", "1\u00b2", "\u0663", "\u2460", "\u00bd", "\u22123", "\uff15", "\u200b", "\u202e12", "\r", "\\",
    "\x1b[0m", r"\1", r"\g<1>", r"\N{DIGIT ONE}", "%s", "{0.__class__}", "__import__('os').getpid()", "(lambda: 0)()", "[][0]",
    "{}[0]", "()", "[]", "{}", ",", ", ,", "(,)", "[,)", r"\frac", r"\frac{", r"\frac{1", r"\frac{}{}", r"\frac{1}", r"\sqrt",
    r"\sqrt[3", r"\binom{1}", "^", "2^", "_2", "x_", "!", r"\pm", r"\cup", r"\left(", r"\begin{pmatrix}", r"\text{", r"\in", "=5",
    r"\begin{pmatrix}\end{pmatrix}", "5=", "$", "$$", r"\(", r"\[", r"\$", "%", r"\%", "-", "+", ".", "-.", "/", "1/", "/2", ":",
    "&", r"\\", "x <", r"\begin{pmatrix} & 1\end{pmatrix}", "-" * 990 + "1", r"\ln" * 330 + "2", "\u221a" * 900 + "2",
    r"\heartsuit" * 90, r"\text{no}+" * 100 + "1", "ab " * 300, "a b " * 240, "abc+" * 200 + "1", r"\bar{x}" * 140,
    r"0.\dot1" * 140, "0.\\overline{" + "3" * 900 + "}", "1 dozen" * 140, "1" + " dozen" * 160, "1 (million)" * 90, "theta" * 190,
    "\u00b2" * 900, "\u2082" * 900, "\u00bd" * 300, "1\u0305" * 400, "xsin" * 240, r"\foo{" * 190 + "1" + "}" * 190,
    "+".join(f"1/{n}^{{{8000 // n.bit_length() - 1}}}" for n in range(3, 83, 2)), "*".join(["300!"] * 190),
]
MEGABYTE = [
    "123 ", "12 345 ", "except $1$ and ", "£", "1=", "not $", "day 1 ", "(", "{", "9", r"\frac", "a ", "$", "1,", "1 ", "-", "\n",
    " ", "\\", r"\boxed{", r"\boxed{1}", "#### 1\n", "####", "# Answer\n\n", "answer is ", "The answer is 1. ", "**", "<<1=1>>",
    "final answer is $", "^{", "2^", "1+", "(1,", "<think>", "</think>", "<think></think>", "</", "two dozen ", "1 dozen ", "0.(",
    "twenty-", "1 million", "a million ", r"0.\dot1", r"\bar{1}", r".\overline", "0.(3)", "\u00b9", "\u2082", "\u00bd", "1\u00bd",
    "1\u0305", "\u00b9\u2044\u2082", "10^", "10^{", "1 * 10^", "* 10^2 ", "1e5", "5 x 10^2 x ", "1 \u2014 ", "cm^2 ", "_1", "0.",
    "1,23", "1,234", "$1$ million ", "1 1/2 ", "\u00a0", "=", "x", r"\pm 1", r"\text{", r"\begin{pmatrix}", "1 and ", "(A) ",
    "A. ",
]
HUGE = [(unit * 10**6)[:10**6] for unit in MEGABYTE]
HUGE += nested(10**5, (r"\boxed{", "5", "}"), ("$", "5", "$"))
# a gap, where a careless pattern tries every split of it
HUGE += ["The answer is" + " " * 10**6, "answer:" + "*" * 10**6, "# Answer" + "\n" * 10**6, r"\boxed" + " " * 10**6,
         " " * 10**6 + "x", "1" + " " * 10**6 + "2", "-" + " " * 10**6 + "2", "final answer is $" + "1 " * (5 * 10**5)]
HUGE += [random.Random(seed).randbytes(10**size).decode("latin-1") for seed, size in enumerate([1, 2, 3, 5])]


def quick(function, *args):
    """The result of a call, which has to be quick: in processor time, as other programs may run beside."""
    start = time.process_time()
    result = function(*args)
    seconds = time.process_time() - start
    called = function.__name__, [short(a) for a in args]
    assert seconds < SECONDS, (called, seconds)
    assert type(result) is (bool if function is is_equal else str), called
    return result


@pytest.mark.parametrize("text", HUGE + BOMBS, ids=short)
def test_junk(text):
    templates = ["*", "The answer is *.", r"\boxed{*}"] if text in BOMBS else ["*"]
    for template, task in itertools.product(templates, TASKS):
        quick(extract_answer, template.replace("*", text), task)
    quick(is_equal, text, text)
    assert not quick(is_equal, text, "") and not quick(is_equal, "", text)
    quick(is_equal, text, "1/2")
    quick(is_equal, "x + 1", text)
    quick(is_equal, f"({text}, 1)", f"(1, {text})")


def test_long_lists():
    """Unordered, so that a careless comparison tries every order, or every pair."""
    for numbers in [range(8), range(60), range(3000), [1] * 3000]:
        forward, backward = (", ".join(map(str, list(numbers)[::step])) for step in (1, -1))
        quick(is_equal, forward, backward)
        quick(is_equal, forward, backward + ", 1")
        quick(is_equal, rf"\{{{forward}\}}", rf"\{{{backward}, x\}}")
    forward, backward = (", ".join(rf"\sqrt{{{n}}}" for n in range(2, 402)[::step]) for step in (1, -1))
    quick(is_equal, forward, backward)


def test_generations_cut_anywhere():
    rng = random.Random(0)
    for text, task, _ in EXACT + BY_VALUE + SEVERAL:
        quick(extract_answer, text[:rng.randint(0, len(text))], task)


def test_eval_is_never_called(monkeypatch):
    """Nor by a library behind the scenes. A first pass leaves aside what an import inside a call may run."""
    calls = []
    for patched in (False, True):
        if patched:
            monkeypatch.setattr(builtins, "eval", lambda *args: calls.append(args))
        for a, b in EQUAL + [("__import__('os').getpid()", "1"), ("(lambda: 1)()", "1"), ("2**3", "8")]:
            is_equal(a, b)
            extract_answer(f"The answer is {a}.", "gsm8k")
    monkeypatch.undo()
    assert calls == []
