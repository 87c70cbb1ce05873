#!/usr/bin/env bash
# What training on a subject does to everything else: lm-evaluation-harness on a checkpoint and on another, CLM's or the
# base's, with the paper's differences beside ours. (There: 80 billion tokens of general text, SLM less CLM.)
#
#   pip install 'lm-eval[hf]'
#   CKPT=out/gpt2_math/slm/ckpt.pt BASE=out/gpt2_math/clm/ckpt.pt bash runs/general.sh
#
# TASKS are the harness's names: here 12 of the paper's 15. Of the others it has humaneval and mbpp, which run what the
# model writes (HARNESS=--confirm_run_unsafe_code, and in a container), and not TyDiQA. No such run was made here yet.
set -euo pipefail
CKPT=$(realpath "${CKPT:?is the checkpoint to measure}") BASE=$(realpath "${BASE:?is the one to compare it with}")
cd "$(dirname "$0")/.."
OUT=${OUT:-out/general} PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-cuda} HARNESS=${HARNESS:-}
TASKS=${TASKS:-mmlu,bbh,agieval,arc_easy,arc_challenge,boolq,piqa,hellaswag,winogrande,openbookqa,gsm8k,minerva_math}

for model in ckpt base; do
  path=$CKPT
  [ $model = ckpt ] || path=$BASE
  [ -f "$OUT/$model/config.json" ] || $PYTHON -m weights.export --export "$path" "$OUT/$model"
  if ! compgen -G "$OUT/$model/harness/*/results_*.json" > /dev/null; then
    $PYTHON -m lm_eval --model hf --model_args "pretrained=$OUT/$model,dtype=auto" --tasks "$TASKS" \
      --device "$DEVICE" --batch_size auto --output_path "$OUT/$model/harness" $HARNESS
  fi
done
$PYTHON - "$OUT" <<'END'
import glob, json, sys

PAPER = {"mmlu": 11.3, "boolq": 11.3, "arc_easy": 8.6}    # percentage points; the mean of its 15 is 6.8
shares = {}
for model in ("ckpt", "base"):
    [path] = glob.glob(f"{sys.argv[1]}/{model}/harness/*/results_*.json")
    found = json.load(open(path))
    tasks = found["results"].keys() - set(sum(found.get("group_subtasks", {}).values(), []))
    shares[model] = {task: 100 * next(value for metric, value in found["results"][task].items()
                                      if "," in metric and "stderr" not in metric) for task in sorted(tasks)}
less = {task: share - shares["base"][task] for task, share in shares["ckpt"].items()}
print("| task | checkpoint | compared with | difference | the paper's |\n|---|---|---|---|---|")
for task, difference in less.items():
    print(f"| {task} | {shares['ckpt'][task]:.1f} | {shares['base'][task]:.1f} | {difference:+.1f} | {PAPER.get(task, '')} |")
print(f"| mean of {len(less)} | | | {sum(less.values()) / len(less):+.1f} | 6.8 |")
END
