"""controls/logprobs.py: scores from the log-probabilities of another program, here the reference model's own losses."""
import json

import numpy as np
import pytest

import train_slm
from controls import logprobs
from controls.logprobs import align
from corpora.tokenizers import load_tokenizer
from data import Scores, Tokens
from engine.cli import BadInput
from helpers import records, train
from test_data import write


def test_align():
    own = [b"The", b" sum", b" is", b" 12"]
    text = ["The", " sum", " is", " 12"]
    assert align(own, 0, 14, text, [None, -1.0, -2.0, -3.0]).tolist() == [np.inf, 1, 2, 3]
    # " sum is" as one token of seven bytes, four of them ours; "12" without its space
    joined = align(own, 0, 14, ["The", " sum is", " ", "12"], [None, -7.0, -1.0, -2.0])
    np.testing.assert_allclose(joined, [np.inf, 4, 3, 3])
    # null in the middle; an empty token; a row that begins within a character
    assert align(own, 0, 14, ["The", " sum", "", " is 12"], [None, None, -9.0, -6.0]).tolist() == [np.inf, np.inf, 3, 3]
    assert align([b"\xa9", b"a", b"b"], 1, 3, ["a", "b"], [-1, -2]).tolist() == [np.inf, 1, 2]
    for theirs, values in ((["The", " sun", " is", " 12"], [None, -1, -2, -3]), (text, [None, -1, -2]),
                           (text[:3], [None, -1, -2]), (text, [None, 1.0, -2, -3]), (text, [None, float("nan"), -2, -3])):
        with pytest.raises(ValueError):
            align(own, 0, 14, theirs, values)


def run(demo, **options):
    cfg = logprobs.Config(data=demo, block_size=32, **options)
    assert list(cfg.validate()) == []
    logprobs.main(cfg)


@pytest.fixture
def lines(demo, scores, tmp_path):
    """What an interface would answer to the texts of --write_texts."""
    run(demo, write_texts=str(tmp_path / "texts.jsonl"))
    tokens, enc = Tokens(demo, "noisy", 32), load_tokenizer(demo)
    losses = Scores(scores, tokens).all().reshape(-1, 32).astype(float)
    found = []
    for line in map(json.loads, (tmp_path / "texts.jsonl").read_text().splitlines()):
        pieces = [enc.decode([int(t)]) for t in tokens.token_rows[line["row"]]]
        assert "".join(pieces) == line["text"]
        found.append({"row": line["row"], "tokens": pieces, "logprobs": [None, *(-losses[line["row"]]).tolist()]})
    return found


def test_scores_from_logprobs_are_those_of_the_model(demo, scores, lines, tmp_path, capsys):
    path = write(tmp_path / "api.jsonl", reversed(lines))
    run(demo, read=path, out=str(tmp_path / "api"))
    tokens = Tokens(demo, "noisy", 32)
    np.testing.assert_allclose(Scores(str(tmp_path / "api"), tokens).all(), Scores(scores, tokens).all(), rtol=2e-3, atol=1e-4)
    assert "solution" in capsys.readouterr().out
    with pytest.raises(BadInput, match="holds other scores"):
        run(demo, read=write(tmp_path / "other.jsonl", lines), out=str(tmp_path / "api"))


def test_what_is_wrong_is_named_by_its_line_and_nothing_is_written(demo, lines, tmp_path):
    for change, message in (({"tokens": ["x"], "logprobs": [None]}, "line 2: the tokens put together"), ({"row": -1}, "row -1"),
                            ({"logprobs": [None]}, "but 1 logprobs"), ({"tokens": None}, "line 2")):
        bad = [line | (change if number == 1 else {}) for number, line in enumerate(lines)]
        with pytest.raises(BadInput, match=message):
            run(demo, read=write(tmp_path / "bad.jsonl", bad), out=str(tmp_path / "bad"))
    unknown = [line | {"logprobs": [None] * len(line["tokens"])} for line in lines]
    for bad, message in ((unknown, "knows no loss"), (lines[:1], "lacks")):
        with pytest.raises(BadInput, match=message):
            run(demo, read=write(tmp_path / "bad.jsonl", bad), out=str(tmp_path / "bad"))
    assert not (tmp_path / "bad").exists()
    assert list(logprobs.Config().validate()) and list(logprobs.Config(read="a", write_texts="b").validate())


def test_unknown_losses_are_never_selected(demo, lines, tmp_path):
    for line in lines:
        line["logprobs"][1:20] = [None] * 19
    run(demo, read=write(tmp_path / "api.jsonl", lines), out=str(tmp_path / "api"))
    train(train_slm, tmp_path / "run", demo, scores=str(tmp_path / "api"), keep=1.0)  # all that may be
    assert {r["ratio"] for r in records(tmp_path / "run")} == {13 / 32}
