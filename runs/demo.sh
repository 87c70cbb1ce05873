#!/usr/bin/env bash
# The whole method on the built-in corpus: corpus, base model, reference model, scores, arms, few-shot accuracy, figure.
#
#   bash runs/demo.sh                                   # CLM and SLM, one seed: minutes on two cores
#   SEEDS="0 1 2" ARMS="clm slm random" OUT=out/more bash runs/demo.sh
#   TOKENS=30720 REF_TOKENS=30720 NOISY=100000 PROBLEMS=20 DATA=data/tiny OUT=out/tiny bash runs/demo.sh  # a try
#
# Ends with OUT/results.json and OUT/headline.png. Run it again after an interruption: what is finished is not done
# again, and a training run that was cut off goes on from its last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0} ARMS=${ARMS:-clm slm} TUNED=${TUNED:-} OUT=${OUT:-out/demo} PYTHON=${PYTHON:-python}
export DATA=${DATA:-data/demo} NOISY=${NOISY:-4000000}   # corpus folder, tokens of its noisy side
export TOKENS=${TOKENS:-3993600}         # tokens of each arm: 2,600 steps
export BASE_TOKENS=${BASE_TOKENS:-$TOKENS}  # of the base run
export SNAPSHOT=${SNAPSHOT:-260}          # steps between the weights of an arm that are kept and evaluated
export REF_TOKENS=${REF_TOKENS:-600000}  # of the reference model at most: 12 epochs, it stops before it overfits
export PROBLEMS=${PROBLEMS:-0}           # evaluate on the first so many problems; 0: all 500
export JOBS=${JOBS:-2}                   # cores: so many processes at a time, or threads of a single one
export DEVICE=${DEVICE:-cpu}

corpus() {  # the built-in corpus of this seed
  [ -f "$DATA/seed$1/noisy+curated.json" ] || $PYTHON prepare.py --out "$DATA/seed$1" --seed "$1" --noisy_tokens "$NOISY"
}
base() {  # a model that has seen the noisy corpus: the reference model and all arms start from it, as in the paper
  $PYTHON train_ref.py --resume --data "$DATA/seed$1" --train noisy --out "$OUT/seed$1/base" --device "$DEVICE" \
    --train_tokens "$BASE_TOKENS" --lr 5e-3 --seed $((1000 + $1)) --eval_every 650
}
curated() {  # train on the curated side, stop where the loss on held-out `val` is lowest: seed, run, run to start from
  $PYTHON train_ref.py --resume --data "$DATA/seed$1" --train curated --out "$OUT/seed$1/$2" --device "$DEVICE" \
    --init_from "$OUT/seed$1/$3/ckpt.pt" --train_tokens "$REF_TOKENS" --lr 2e-3 --seed "$1" --eval_every 20 --patience 8
}
score() {  # step 2: the reference loss of every token of the noisy corpus
  $PYTHON score.py --ckpt "$OUT/seed$1/ref/best.pt" --data "$DATA/seed$1" --out "$OUT/seed$1/scores" \
    --device "$DEVICE"
}
arm() {  # step 3: same start, rows, order, learning rate and tokens; only what is selected differs (two controls aside)
  case $2 in
    clm)       how="--keep 1.0" ;;
    slm)       how="--keep 0.3" ;;
    slm_filtered) how="--keep 0.3 --filter_backward" ;;
    clm_mixed) how="--keep 1.0 --train noisy+curated" ;;   # a control: all the text there is
    clm_lr3)   how="--keep 1.0 --lr 3e-3" ;;               # a control: is CLM's learning rate too low?
    *)         how="--keep 0.3 --select $2" ;;             # random, high_loss, low_ref
  esac
  $PYTHON train_slm.py --resume --data "$DATA/seed$1" --scores "$OUT/seed$1/scores" --out "$OUT/seed$1/$2" \
    --device "$DEVICE" --init_from "$OUT/seed$1/base/ckpt.pt" --train_tokens "$TOKENS" --lr 1e-3 --seed "$1" \
    --eval_every 65 --snapshot_every "$SNAPSHOT" $how
}
accuracy() {  # step 4: few-shot accuracy: seed, run, checkpoints
  $PYTHON eval_math.py --data "$DATA/seed$1" --device "$DEVICE" --n "$PROBLEMS" --ckpt "$OUT/seed$1/$2"/$3
}
export -f corpus base curated score arm accuracy

each() {  # each FUNCTION ARGUMENTS: for every line of standard input, JOBS at a time; they share JOBS cores
  lines=$(grep . || true)
  count=$(wc -l <<< "$lines")
  OMP_NUM_THREADS=$((count < JOBS ? JOBS / count : 1)) xargs -P "$JOBS" -I{} bash -euo pipefail -c "$*" <<< "$lines"
}
for s in $SEEDS; do echo "$s"; done | each corpus {}
for s in $SEEDS; do echo "$s"; done | each base {}
for s in $SEEDS; do echo "$s"; done | each curated {} ref base            # step 1: the reference model
for s in $SEEDS; do echo "$s"; done | each score {}
for s in $SEEDS; do for a in $ARMS; do echo "$s $a"; done; done | each arm {}
for s in $SEEDS; do for a in $TUNED; do echo "$s $a ${a%_tuned}"; done; done | each curated {}
for s in $SEEDS; do
  for a in $ARMS; do echo "$s $a step_*.pt"; done
  for a in ref $TUNED; do echo "$s $a best.pt"; done
done | each accuracy {}
$PYTHON plot.py --runs "$OUT"
