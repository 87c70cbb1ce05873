#!/usr/bin/env bash
# The whole method on the built-in corpus: corpus, base, reference model, scores, arms, fine-tuning, accuracy, figure.
#
#   bash runs/demo.sh                                   # SLM and CLM, one seed: some six minutes on two cores
#   SEEDS="0 1" ARMS="slm clm clm_mixed distill" OUT=out/more bash runs/demo.sh
#   SIZE=tiny bash runs/demo.sh                         # a try, in data/tiny and out/tiny
#
# The reference model has two layers and starts from a base that has read the noisy corpus. All arms start from one model
# of three layers that has learned the form of a worked problem, and no arithmetic. Ends with OUT/results.json and
# OUT/headline.png. Run it again after an interruption: what is finished is not done again, and a training run that was
# cut off goes on from its last checkpoint. (No spaces in OUT, DATA and PYTHON.)
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${SIZE:-demo}   # or tiny
export SEEDS=${SEEDS:-0} ARMS=${ARMS:-slm clm} OUT=${OUT:-out/$SIZE} DATA=${DATA:-data/$SIZE} PYTHON=${PYTHON:-python}
export KEEP=${KEEP:-0.6} JOBS=${JOBS:-2} DEVICE=${DEVICE:-cpu}   # share selected; processes at a time
export TUNE=${TUNE:-yes}                                         # no: without the fine-tuning after each arm
NOISY=4000000 BASE_TOKENS=3993600 REF_TOKENS=600000 START_TOKENS=2995200 TOKENS=5990400 TUNE_TOKENS=307200 SNAPSHOT=975
PROBLEMS=0 ROWS=512
if [ "$SIZE" = tiny ]; then
  NOISY=40000 BASE_TOKENS=30720 REF_TOKENS=30720 START_TOKENS=15360 TOKENS=30720 TUNE_TOKENS=3072 SNAPSHOT=10
  PROBLEMS=10 ROWS=16
fi
export NOISY BASE_TOKENS REF_TOKENS START_TOKENS TOKENS TUNE_TOKENS SNAPSHOT PROBLEMS ROWS

corpus() {  # SEED
  [ -f "$DATA/seed$1/val.json" ] || $PYTHON prepare.py --out "$DATA/seed$1" --seed "$1" --noisy_tokens "$NOISY"
  [ -f "$DATA/seed$1/noisy+10xcurated.json" ] || $PYTHON prepare.py --out "$DATA/seed$1" --mix 10
}
train() {  # SCRIPT SEED RUN OPTIONS
  $PYTHON $1 --resume --data "$DATA/seed$2" --out "$OUT/seed$2/$3" --device "$DEVICE" --lr 5e-3 "${@:4}"
}
base() {  # a small model that has seen the noisy corpus
  train train_ref.py "$1" base --train noisy --train_tokens "$BASE_TOKENS" --seed $((1000 + $1)) --eval_every 650
}
start() {  # a model of the arms' size that has learned the form of a worked problem, and no arithmetic
  train train_ref.py "$1" start --train form --n_layer 3 --train_tokens "$START_TOKENS" --seed $((2000 + $1)) \
    --eval_every 650
}
ref() {  # step 1: the reference model, from the base; it stops where the loss on held-out `val` is lowest
  train train_ref.py "$1" ref --init_from "$OUT/seed$1/base/ckpt.pt" --train_tokens "$REF_TOKENS" --lr 2e-3 --seed "$1" \
    --eval_every 20 --patience 8
}
scores() {  # step 2: the reference loss of every token of the noisy corpus
  $PYTHON score.py --ckpt "$OUT/seed$1/ref/best.pt" --data "$DATA/seed$1" --out "$OUT/seed$1/scores" --device "$DEVICE"
}
arm() {  # step 3: SEED ARM. Same first weights, order and tokens; the loss differs
  scores=$OUT/seed$1/scores other=$OUT/seed$1/$2_scores  # the reference's, and those that a control ranks by
  rescore="$PYTHON -m controls.rescore --data $DATA/seed$1 --seed $1 --out $other"
  script=train_slm.py how="--keep $KEEP --scores $other --rank_by ref"
  case $2 in
    slm)       how="--keep $KEEP --scores $scores" ;;
    clm)       script=train_ref.py how="--train noisy" ;;
    clm_mixed) script=train_ref.py how="--train noisy+10xcurated" ;;              # all the text there is
    distill)   script="-m distillation.corpus" how="--ref $OUT/seed$1/ref/best.pt --lr 1e-2" ;;
    low_ref)   how="--keep $KEEP --scores $scores --rank_by ref" ;;
    high_loss) how="--keep $KEEP --scores $scores --rank_by loss" ;;
    labels)    $rescore --labels question solution result                         # the best a selection can do
               how="--keep 1.0 --scores $other --rank_by ref" ;;
    documents) $rescore --how documents --scores "$scores" ;;
    random)    $rescore --how random ;;
  esac
  train "$script" "$1" "$2" --init_from "$OUT/seed$1/start/ckpt.pt" --train_tokens "$TOKENS" --seed "$1" \
    --eval_every 65 --snapshot_every "$SNAPSHOT" $how
  [ "$TUNE" = no ] || train train_ref.py "$1" "$2_tuned" --init_from "$OUT/seed$1/$2/ckpt.pt" \
    --train_tokens "$TUNE_TOKENS" --lr 3e-4 --warmup_steps 10 --seed "$1" --eval_every 50
}
evaluate() {  # step 4: accuracy, and losses without noise: of the last weights of a run, and along an arm
  at="$OUT/seed$1/$2" about="--data $DATA/seed$1 --device $DEVICE"
  end="$at/ckpt.pt"
  [ "$2" != ref ] || end="$at/best.pt"
  along=$(ls "$at"/step_*.pt 2>/dev/null || true)
  $PYTHON eval_math.py $about --n "$PROBLEMS" --ckpt "$end"  # two shots
  $PYTHON eval_math.py $about --n "$PROBLEMS" --shots 0 --ckpt ${along:-"$end"} --out "$at/eval0"
  [ -z "$along" ] || $PYTHON -m analysis.measures $about --max_rows "$ROWS" --no-calibrate --ckpt $along
  $PYTHON -m analysis.measures $about --max_rows "$ROWS" --ckpt "$end"
}
export -f corpus train base start ref scores arm evaluate

each() {  # for every line of standard input, JOBS at a time; they share JOBS cores
  lines=$(grep . || true)
  count=$(wc -l <<< "$lines")
  OMP_NUM_THREADS=$((count < JOBS ? JOBS / count : 1)) xargs -P "$JOBS" -I{} bash -euo pipefail -c "$*" <<< "$lines"
}
for s in $SEEDS; do echo "$s"; done | each "corpus {}"
for s in $SEEDS; do echo "base $s"; echo "start $s"; done | each "{}"
for s in $SEEDS; do echo "$s"; done | each "ref {}; scores {}"
for s in $SEEDS; do for a in $ARMS; do echo "$s $a"; done; done | each "arm {}"
for s in $SEEDS; do
  for a in ref $ARMS; do echo "$s $a"; done
  if [ "$TUNE" != no ]; then for a in $ARMS; do echo "$s ${a}_tuned"; done; fi
done | each "evaluate {}"
$PYTHON plot.py --runs "$OUT"
