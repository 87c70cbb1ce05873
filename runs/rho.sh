#!/usr/bin/env bash
# The paper's own weights on the paper's tasks, and the figures that their authors give beside ours.
#
#   pip install tokenizers safetensors && bash runs/rho.sh            # rho-math-1b: one GPU of 24 GB, an estimated hour
#   MODEL=rho-math-7b bash runs/rho.sh                                # one of 48 GB or more (weights in float32: 29 GB)
#   MODEL=my/folder TASKS="gsm8k svamp" N=200 bash runs/rho.sh        # any folder that extras/pretrained.py reads
#
# **It has not been run: no network and no GPU were at hand.** The weights are downloaded once, and so are the test files.
# The prompts are ours, so that equality to the digit is not to be expected: the authors' are in their harness. Their
# figures are those of github.com/microsoft/rho, of which four tasks are in its README. Goes on where it was cut off.
set -euo pipefail
MODEL=${MODEL:-rho-math-1b}
[ ! -e "$MODEL" ] || MODEL=$(realpath "$MODEL")
cd "$(dirname "$0")/.."
OUT=${OUT:-out/rho} DATA_DIR=${DATA_DIR:-data/tasks} PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-auto} N=${N:-0}
TASKS=${TASKS:-gsm8k math_oai svamp asdiv mawps tabmwp mathqa mmlu_stem sat_math} MORE=${MORE:-}

folder=$($PYTHON -c 'import os, sys; from extras.pretrained import weights_file
print(os.path.dirname(weights_file(sys.argv[1])))' "$MODEL")
$PYTHON eval_math.py --ckpt "$folder" --data "$folder" --data_dir "$DATA_DIR" --device "$DEVICE" --n "$N" --out "$OUT" \
  --task $TASKS $MORE

published() {  # by the authors, in per cent
  case $(basename "$MODEL")/$1 in
    rho-math-1b/gsm8k) echo 36.2 ;;     rho-math-7b/gsm8k) echo 66.9 ;;
    rho-math-1b/math_oai) echo 15.6 ;;  rho-math-7b/math_oai) echo 31.0 ;;
    rho-math-1b/mmlu_stem) echo 23.3 ;; rho-math-7b/mmlu_stem) echo 54.6 ;;
    rho-math-1b/sat_math) echo 28.1 ;;  rho-math-7b/sat_math) echo 84.4 ;;
    *) echo - ;;
  esac
}
printf '\n%-10s %8s %8s\n' task here authors
for task in $TASKS; do
  here=$($PYTHON -c 'import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
print("%.1f" % (100 * [row["accuracy"] for row in rows if row["task"] == sys.argv[2]][-1]))' "$OUT/summary.jsonl" "$task")
  printf '%-10s %8s %8s\n' "$task" "$here" "$(published "$task")"
done
