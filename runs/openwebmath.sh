#!/usr/bin/env bash
# This makes a real corpus: OpenWebMath as the noisy side, the training sets of GSM8K and MATH as the curated side.
#
#   TRAIN=train.jsonl bash runs/openwebmath.sh                              # streamed (pip install datasets)
#   TRAIN=train.jsonl MATH=math_train.jsonl NOISY="a.parquet b.parquet" bash runs/openwebmath.sh    # files of yours
#
# TRAIN is GSM8K's train.jsonl. MATH is a .jsonl of MATH's training set; it may be left out. NOISY names any files that
# prepare.py reads (.parquet needs pip install pyarrow), and TOKENS says how much of them is taken. The last step writes
# DATA/overlap.json, which lists the test questions that occur in the corpus.
set -euo pipefail
TRAIN=$(realpath "${TRAIN:?is the path of the train.jsonl of GSM8K}")
MATH=${MATH:+$(realpath "$MATH")}
files=""
for f in ${NOISY:-hf:open-web-math/open-web-math}; do
  [ ! -e "$f" ] || f=$(realpath "$f")
  files="$files $f"
done
TOKENIZER=${TOKENIZER:-gpt2}
[ ! -e "$TOKENIZER" ] || TOKENIZER=$(realpath "$TOKENIZER")
cd "$(dirname "$0")/.."
DATA=${DATA:-data/openwebmath} TOKENS=${TOKENS:-500e6} PYTHON=${PYTHON:-python} DATA_DIR=${DATA_DIR:-data/tasks}
TASKS=${TASKS:-gsm8k math_oai svamp asdiv mawps tabmwp mathqa mmlu_stem sat_math}

settings="$TRAIN $MATH $files $TOKENIZER $TOKENS"
mkdir -p "$(dirname "$DATA")"
[ -f "$DATA.settings" ] || echo "$settings" > "$DATA.settings"
if [ "$(cat "$DATA.settings")" != "$settings" ]; then
  echo "openwebmath.sh: $DATA was made with other settings: delete $DATA*, or choose another DATA" >&2
  exit 2
fi
[ -f "$DATA/noisy.json" ] || $PYTHON prepare.py --curated "gsm8k:$TRAIN" ${MATH:+"math:$MATH"} --noisy $files \
  --tokenizer "$TOKENIZER" --max_tokens "$TOKENS" --out "$DATA"
[ -f "$DATA/overlap.json" ] || $PYTHON prepare.py --check_overlap $TASKS --data_dir "$DATA_DIR" --out "$DATA"
