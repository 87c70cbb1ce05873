#!/usr/bin/env bash
# The paper's own weights on the paper's tasks, and the figures that their authors give beside ours.
#
#   pip install tokenizers safetensors && bash runs/rho.sh            # rho-math-1b: one GPU of 24 GB, an estimated hour
#   MODEL=rho-math-7b bash runs/rho.sh                                # one of 80 GB (weights in float32 and bfloat16)
#   MODEL=my/folder TASKS="gsm8k svamp" N=200 bash runs/rho.sh        # any folder that extras/pretrained.py reads
#
# **It has not been run: no network and no GPU were at hand.** The weights are downloaded once, and so are the test files.
# The prompts are ours, so that equality to the digit is not to be expected: the authors' are in their harness,
# github.com/ZubinGou/math-evaluation-harness, whose README has their figures. Goes on where it was cut off.
set -euo pipefail
MODEL=${MODEL:-rho-math-1b}
[ ! -e "$MODEL" ] || MODEL=$(realpath "$MODEL")
cd "$(dirname "$0")/.."
OUT=${OUT:-out/rho/$(basename "$MODEL")} DATA_DIR=${DATA_DIR:-data/tasks} PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-auto} N=${N:-0}
TASKS=${TASKS:-gsm8k math_oai svamp asdiv mawps tabmwp mathqa mmlu_stem sat_math} MORE=${MORE:-}

folder=$($PYTHON -m extras.pretrained --model "$MODEL")
$PYTHON eval_math.py --ckpt "$folder" --data "$folder" --data_dir "$DATA_DIR" --device "$DEVICE" --n "$N" --out "$OUT" \
  --task $TASKS $MORE

published() {  # TASK: by the authors, in per cent
  tasks="gsm8k math_oai svamp asdiv mawps tabmwp mathqa mmlu_stem sat_math"
  case $(basename "$MODEL") in
    rho-math-1b*) figures="36.2 15.6 52.1 67.0 83.9 29.0 32.5 23.3 28.1" ;;
    rho-math-7b*) figures="66.9 31.0 77.8 79.0 93.9 49.9 58.7 54.6 84.4" ;;
    tinyllama-1.1b) figures="2.9 3.2 11.0 18.1 20.4 12.5 14.6 16.1 21.9" ;;
    *) figures="- - - - - - - - -" ;;
  esac
  paste -d ' ' <(tr ' ' '\n' <<< "$tasks") <(tr ' ' '\n' <<< "$figures") | sed -n "s/^$1 //p"
}
printf '\n%-10s %8s %8s\n' task here authors
for task in $TASKS; do
  here=$($PYTHON -c 'import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
rows = [row for row in rows if row["task"] == sys.argv[2] and row["n"] == int(sys.argv[3])]
print("%.1f" % (100 * rows[-1]["accuracy"]))' "$OUT/summary.jsonl" "$task" "$N")
  printf '%-10s %8s %8s\n' "$task" "$here" "$(published "$task")"
done
