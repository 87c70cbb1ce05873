#!/usr/bin/env bash
# What a small model reaches on GSM8K: trained on its training set in the form of the prompts, evaluated on its test
# set.
#
#   TRAIN=train.jsonl TOKENIZER=gpt2 bash runs/gsm8k.sh     # about half an hour on two CPU cores
#
# TRAIN is grade_school_math/data/train.jsonl of github.com/openai/grade-school-math. The test set is downloaded, or
# read from DATA_DIR/gsm8k.jsonl. Restartable: the same command goes on where it was cut off.
set -euo pipefail
TRAIN=$(realpath "${TRAIN:?is the path of the train.jsonl of GSM8K}")
cd "$(dirname "$0")/.."
TOKENIZER=${TOKENIZER:-gpt2} DATA_DIR=${DATA_DIR:-data/tasks}
OUT=${OUT:-out/gsm8k} DATA=${DATA:-data/gsm8k} PYTHON=${PYTHON:-python}
MODEL="--n_layer 4 --n_head 4 --n_embd 192 --block_size 512 --batch_tokens 6144 --micro_rows 12 --fast"

[ -f "$DATA/curated.json" ] || $PYTHON prepare.py --curated "gsm8k:$TRAIN" --noisy "gsm8k:$TRAIN" \
  --tokenizer "$TOKENIZER" --vocab_size 4096 --out "$DATA"
[ -f "$DATA/overlap.json" ] || $PYTHON prepare.py --check_overlap gsm8k --data_dir "$DATA_DIR" --out "$DATA"
$PYTHON train_ref.py --resume --data "$DATA" --out "$OUT/ref" $MODEL --train_tokens 2.5e6 --lr 2e-3 \
  --warmup_steps 40 --eval_every 100 --eval_rows 64
$PYTHON eval_math.py --task gsm8k --data "$DATA" --data_dir "$DATA_DIR" --ckpt "$OUT/ref/ckpt.pt" --shots 2 \
  --samples 4 --likelihood
