"""lm-evaluation-harness on an exported checkpoint: the same generations and the same accuracy as eval_math.py."""
import json
import os

import pytest

import eval_math
import prepare
import train_ref
from helpers import sh
from weights import export

TASK = """
task: ours
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["Question:"], max_gen_toks: 40, do_sample: false}}
filter_list:
  - {{name: last, filter: [{{function: regex, regex_pattern: "The answer is (-?[0-9]+)"}}, {{function: take_first}}]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.mark.slow
def test_the_harness_gives_the_same_accuracy(tmp_path, monkeypatch):
    """A model that knows some problems by heart, asked about these and about others."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # both are read when the package is imported
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager
    data, run, hf = (str(tmp_path / name) for name in ("data", "run", "hf"))
    prepare.main(prepare.Config(out=data, curated_problems=12, noisy_tokens=1000, held_out_problems=12))
    train_ref.main(train_ref.Config(
        data=data, out=run, train="curated", arch="llama", n_layer=2, n_head=2, n_embd=64, block_size=192,
        batch_tokens=768, train_tokens=768 * 300, lr=5e-3, warmup_steps=10, eval_every=300, device="cpu"))
    problems = [open(os.path.join(data, name)).read() for name in ("curated.jsonl", "eval.jsonl")]
    (tmp_path / "problems.jsonl").write_text("".join(problems))  # 12 that it has read, and 12 that it has not
    ckpt = os.path.join(run, "ckpt.pt")
    eval_math.main(eval_math.Config(ckpt=[ckpt], data=data, problems=str(tmp_path / "problems.jsonl"), shots=0,
                                    shots_from=os.path.join(data, "curated.jsonl"), device="cpu"))
    [summary] = map(json.loads, open(os.path.join(run, "eval", "summary.jsonl")))
    path = os.path.join(run, "eval", summary["rows"])
    assert 3 <= summary["correct"] < summary["total"] == 24

    export.main(export.Config(export=[ckpt, hf]))
    (tmp_path / "ours.yaml").write_text(TASK.format(rows=path))
    results = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": hf, "dtype": "float32"}, tasks=["ours"], device="cpu", batch_size=4,
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False), log_samples=True)
    rows = [json.loads(row) for row in open(path)]
    right = [row["correct"] and "The answer is" in row["generation"] for row in rows]  # or ours takes the last number
    assert results["results"]["ours"]["exact_match,last"] == pytest.approx(sum(right) / 24) and any(right)
    theirs = {sample["doc_id"]: sample["resps"][0][0] for sample in results["samples"]["ours"]}
    assert [theirs[i] for i in range(24)] == [row["generation"].split("Question:")[0] for row in rows]

    out = sh("general.sh", tmp_path, CKPT=ckpt, BASE=ckpt, OUT=tmp_path / "out", TASKS="ours", DEVICE="cpu",
             HARNESS=f"--include_path {tmp_path}")
    share = f"{100 * sum(right) / 24:.1f}"
    assert out.endswith(f"| ours | {share} | {share} | +0.0 |  |\n| mean of 1 | | | +0.0 | 6.8 |\n")
