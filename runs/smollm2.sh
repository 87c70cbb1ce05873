#!/usr/bin/env bash
# SmolLM2-135M is trained on with real text in which math problems are hidden, by CLM, on the mixture, by SLM and on
# random tokens, from the same weights; each with the same short fine-tuning after it.
#
#   pip install tokenizers safetensors
#   GSM8K=train.jsonl MATH=MATH/train BOOKS=textbooks.jsonl.xz bash runs/smollm2.sh      # one GPU of 24 GB
#   MODEL=smollm2-360m SEEDS="0 1" GSM8K=... BOOKS=... bash runs/smollm2.sh
#
# GSM8K and MATH are the training sets, as for runs/openwebmath.sh; MATH may be left out. BOOKS: rows with `text`, any
# texts of yours. corpora/natural_pairs.py hides the problems between their sentences, a quarter of the characters, one in
# five with a wrong number at its end; CURATED of them are the curated side. MODEL: a published name of
# extras/pretrained.py, downloaded once, or a folder.
#
# **It has not been run on a GPU, and the learning rates are guesses.** 25M tokens an arm (the noisy side several times)
# are 0.02 EFLOP at 135M parameters: ten minutes on a card that reaches 40 TFLOP/s, an estimate without the evaluation.
# MICRO rows go through the model at once; it must divide 32, and the tokens of these rows are ranked together, so that
# another MICRO gives (slightly) another SLM. After an interruption the same command goes on; with other options, name
# another DATA and OUT.
set -euo pipefail
: "${GSM8K:?is the path of the train.jsonl of GSM8K}" "${BOOKS:?is the path of a .jsonl of texts}"
GSM8K=$(realpath "$GSM8K") BOOKS=$(realpath "$BOOKS") MODEL=${MODEL:-smollm2-135m} MATH=${MATH:-}
[ -z "$MATH" ] || MATH=$(realpath "$MATH")
[ ! -e "$MODEL" ] || MODEL=$(realpath "$MODEL")
cd "$(dirname "$0")/.."
name=$(basename "$MODEL")
DATA=${DATA:-data/$name} OUT=${OUT:-out/$name} PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-auto} SIZE=${SIZE:-full}
SEEDS=${SEEDS:-0} ARMS=${ARMS:-clm clm_mixed slm random} DATA_DIR=${DATA_DIR:-data/tasks} TASKS=${TASKS:-gsm8k math_oai}
TOKENS=${TOKENS:-24903680} REF_TOKENS=${REF_TOKENS:-3932160} TUNE_TOKENS=${TUNE_TOKENS:-655360} MICRO=${MICRO:-8}
CURATED=${CURATED:-600} T=1024 BATCH=131072 SMALL_BATCH=32768 MORE="--compile" EVAL="--likelihood" EVERY=10
if [ "$SIZE" = tiny ]; then  # a try on a CPU, with a small MODEL
  T=128 BATCH=1024 SMALL_BATCH=512 TOKENS=4096 REF_TOKENS=2048 TUNE_TOKENS=1024 MICRO=2 MORE="" CURATED=60 EVERY=2
  EVAL="--likelihood --shots 1 --max_new_tokens 8 --n 4"
fi
folder=$($PYTHON -m extras.pretrained --model "$MODEL")

train() {  # script, seed, run, options
  $PYTHON "$1" --resume --data "$DATA/seed$2" --out "$OUT/seed$2/$3" --device "$DEVICE" $MORE --block_size $T \
    --seed "$2" --micro_rows "$MICRO" --weight_decay 0.1 --warmup_steps 2 --eval_rows 64 --log_every 1 \
    --save_every $EVERY "${@:4}"
}
evaluate() {  # seed, checkpoints and options
  $PYTHON eval_math.py --data "$DATA/seed$1" --task $TASKS --data_dir "$DATA_DIR" --device "$DEVICE" $EVAL "${@:2}"
}
corpus() {  # seed: the problems as eval_math.py asks them, hidden in the texts; and the mixture
  raw="$DATA/seed$1/raw"
  if [ ! -f "$raw/noisy.jsonl" ]; then
    $PYTHON -m corpora.curated_math --gsm8k "$GSM8K" ${MATH:+--math "$MATH"} --out "$raw/problems.jsonl"
    $PYTHON -m corpora.natural_pairs --problems "$raw/problems.jsonl" --books "$BOOKS" --curated "$CURATED" \
      --seed "$1" --out "$raw"
  fi
  if [ ! -f "$DATA/seed$1/val.json" ]; then
    $PYTHON prepare.py --curated "$raw/curated.jsonl" --noisy "$raw/noisy.jsonl" --field text question answer \
      --tokenizer "$folder" --held_out 0.1 --out "$DATA/seed$1"
  fi
  if [ ! -f "$DATA/seed$1/noisy+10xcurated.json" ]; then $PYTHON prepare.py --out "$DATA/seed$1" --mix 10; fi
}
for s in $SEEDS; do
  corpus "$s"
  train train_ref.py "$s" ref --train curated --init_from "$folder" --train_tokens "$REF_TOKENS" \
    --batch_tokens $SMALL_BATCH --lr 5e-5 --eval_every 5 --patience 4
  $PYTHON score.py --ckpt "$OUT/seed$s/ref/best.pt" --data "$DATA/seed$s" --out "$OUT/seed$s/scores" \
    --device "$DEVICE" --block_size $T --batch_rows "$MICRO"
  ends="$OUT/seed$s/ref/best.pt"
  for a in $ARMS; do
    case $a in
      clm)       how="--keep 1.0" ;;
      clm_mixed) how="--keep 1.0 --train noisy+10xcurated" ;;  # a control: all the text there is
      slm)       how="--keep 0.4 --scores $OUT/seed$s/scores" ;;
      *)         how="--keep 0.4 --select $a --scores $OUT/seed$s/scores" ;;
    esac
    train train_slm.py "$s" "$a" --init_from "$folder" --train_tokens "$TOKENS" --batch_tokens $BATCH --lr 1e-4 \
      --eval_every $EVERY $how
    train train_ref.py "$s" "${a}_tuned" --train curated --init_from "$OUT/seed$s/$a/ckpt.pt" \
      --train_tokens "$TUNE_TOKENS" --batch_tokens $SMALL_BATCH --lr 5e-5 --eval_every 5
    ends="$ends $OUT/seed$s/$a/ckpt.pt $OUT/seed$s/${a}_tuned/ckpt.pt"
  done
  evaluate "$s" --ckpt $ends
done
evaluate "${SEEDS%% *}" --ckpt "$folder" --out "$OUT/start_eval"  # the weights that all began with
$PYTHON plot.py --runs "$OUT"
