#!/usr/bin/env bash
# How steady is what we measure with? CLM, CLM on noisy + curated text, SLM, and SLM whose keep falls from 1.0 over
# half of the first stage, from a fresh model in two stages (8M tokens at a learning rate, then 4M at a fifth of it),
# at three learning rates, each followed by the same short fine-tuning on the curated text; the same for all seeds.
#
#   bash runs/steady.sh                          # five seeds, 60 runs of 12M tokens: two hours and more on two cores
#   SEEDS=0 LRS=5e-3 ARMS="clm slm" bash runs/steady.sh
#
# Each run is measured with two shots and with none, and by extras/measures.py. `python -m extras.steady --runs
# out/steady` prints learning rate against arm. Restartable.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0 1 2 3 4} LRS=${LRS:-5e-3 2.5e-3 1e-2} ARMS=${ARMS:-slm slm_warm clm clm_mixed}
export OUT=${OUT:-out/steady} DATA=${DATA:-data/demo} PYTHON=${PYTHON:-python} JOBS=${JOBS:-2} DEVICE=${DEVICE:-cpu}
export FIRST=${FIRST:-7987200} SECOND=${SECOND:-3993600} TUNE=${TUNE:-307200}   # tokens of the stages, fine-tuning
export NOISY=${NOISY:-4000000} BASE=${BASE:-3993600} PROBLEMS=${PROBLEMS:-0}     # of the noisy side, of the base; 0: all

reference() {  # corpus, base, reference model and its scores of one seed, as in runs/demo.sh
  [ -f "$DATA/seed$1/noisy+curated.json" ] || $PYTHON prepare.py --out "$DATA/seed$1" --seed "$1" --noisy_tokens "$NOISY"
  $PYTHON train_ref.py --resume --data "$DATA/seed$1" --train noisy --out "$OUT/seed$1/base" --device "$DEVICE" \
    --lr 5e-3 --seed $((1000 + $1)) --eval_every 650 --train_tokens "$BASE"
  $PYTHON train_ref.py --resume --data "$DATA/seed$1" --train curated --out "$OUT/seed$1/ref" --device "$DEVICE" \
    --init_from "$OUT/seed$1/base/ckpt.pt" --train_tokens 600000 --lr 2e-3 --seed "$1" --eval_every 20 --patience 8
  $PYTHON score.py --ckpt "$OUT/seed$1/ref/best.pt" --data "$DATA/seed$1" --out "$OUT/seed$1/scores" --device "$DEVICE"
}
arm() {  # seed, learning rate, arm: two stages, fine-tuning, measures
  case $3 in
    clm)       how="--keep 1.0" ;;
    clm_mixed) how="--keep 1.0 --train noisy+curated" ;;
    slm_warm)  how="--keep 0.3 --scores $OUT/seed$1/scores --keep_warmup 2600" ;;
    *)         how="--keep 0.3 --scores $OUT/seed$1/scores" ;;
  esac
  at="$OUT/seed$1/lr$2/$3" low=$($PYTHON -c "print($2 / 5)")
  train="--resume --data $DATA/seed$1 --device $DEVICE --seed $1 --save_every 1000"
  $PYTHON train_slm.py $train --out "$at/first" --lr "$2" --train_tokens "$FIRST" --eval_every 650 $how
  $PYTHON train_slm.py $train --out "$at/second" --init_from "$at/first/ckpt.pt" --lr "$low" --train_tokens "$SECOND" \
    --eval_every 325 $how --keep_warmup 0
  $PYTHON train_ref.py $train --out "$at/tuned" --init_from "$at/second/ckpt.pt" --lr 3e-4 --train_tokens "$TUNE" \
    --warmup_steps 10 --eval_every 50
  measure "$1" "$at/second/ckpt.pt" "$at/tuned/ckpt.pt"
}
measure() {  # seed, checkpoints
  for shots in 2 0; do
    for ckpt in "${@:2}"; do
      $PYTHON eval_math.py --data "$DATA/seed$1" --device "$DEVICE" --shots $shots --ckpt "$ckpt" --n "$PROBLEMS" \
        --out "$(dirname "$ckpt")/eval$shots"
    done
  done
  $PYTHON -m extras.measures --data "$DATA/seed$1" --device "$DEVICE" --ckpt "${@:2}"
}
export -f reference arm measure

each() {  # each FUNCTION ARGUMENTS: for every line of standard input, JOBS at a time, a core each
  OMP_NUM_THREADS=1 xargs -P "$JOBS" -I{} bash -euo pipefail -c "$*"
}
for s in $SEEDS; do echo "$s"; done | each reference {}
for lr in $LRS; do for s in $SEEDS; do for a in $ARMS; do echo "$s $lr $a"; done; done; done | each arm {}
for s in $SEEDS; do echo "$s $OUT/seed$s/ref/best.pt"; done | each measure {}
$PYTHON -m extras.steady --runs "$OUT"
