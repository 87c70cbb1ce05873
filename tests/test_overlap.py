"""Test questions in a corpus are found."""
import json

import prepare
from test_data import own_corpus, write


def test_check_overlap(tmp_path, capsys):
    """Questions that the corpus holds, in another case and punctuation, and ones that it nearly holds."""
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen".split()
    questions = [" ".join(words) + "?", "Short: " + " ".join(words[5:14]), "Ava has few words",
                 "x " + " ".join(words[:12]), " ".join(words[:6]) + " other " + " ".join(words[6:])]
    filler = ["A document about something else, number %d." % i for i in range(40)]
    noisy = ["Then. " + ", ".join(words[:13]).upper() + "!", " ".join(words[5:10]), " ".join(words[10:14])]
    curated = [f"{i} " + " ".join(words[5:13]) for i in range(9)]  # most of the nine are not held out
    sides = [write(tmp_path / f"{i}.jsonl", [{"text": text} for text in filler + some])
             for i, some in enumerate((curated, noisy))]
    out = own_corpus(tmp_path / "corpus", *sides, held_out=0.05)
    write(tmp_path / "corpus" / "eval.jsonl", [{"question": q, "answer": "1"} for q in questions])
    prepare.main(prepare.Config(out=out, check_overlap=["demo"]))
    result = json.load(open(f"{out}/overlap.json"))["demo"]
    # Question 0 is found by 13 words, question 1 (of 10 words) by 8 of them, which no document's end divides.
    # Question 3 has 13 words, of which the corpus holds 12.
    assert set(result["noisy"]["which"]) == {"0", "1"} and set(result["curated"]["which"]) == {"1"}
    assert result["noisy"]["too_short"] == 1 and result["noisy"]["questions"] == 5
    assert "demo: 2 of 5 questions in noisy" in capsys.readouterr().out
