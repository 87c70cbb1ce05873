#!/usr/bin/env bash
# On-policy distillation (distillation/on_policy.py) on the built-in corpus: the method, its halves, and its controls.
#
#   bash runs/distill.sh                                  # five seeds: two hours on two cores
#   SEEDS=5 LOSSES="fire-lr0.001 opd opd-base" OUT=out/try bash runs/distill.sh
#
# The teacher is the reference, the student CLM, which has read five million noisy tokens and answers half of the
# problems; with -base it is the base, which cannot calculate. The student sees the curated side's problems, never their
# solutions. Restartable; ends with OUT/results.json, OUT/table.md and OUT/headline.png.
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-out/distill} SEEDS=${SEEDS:-10 11 12 13 14} STEPS=200 ROLLOUTS=100
LOSSES=${LOSSES:-opd fire filter reweight exact_kl random_drop permuted_weights}
. runs/steps.sh
if [ "$SIZE" = tiny ]; then STEPS=2 ROLLOUTS=4; fi

on_policy() {  # SEED LOSS
  local lr=0.0005 student=clm
  case $2 in exact_kl*) lr=0.001 ;; esac
  case $2 in *-base*) student=base ;; esac
  local at="$OUT/seed$1"
  $PYTHON -m distillation.on_policy --resume --student "$at/$student/ckpt.pt" --teacher "$at/ref/ckpt.pt" \
    --data "$DATA/seed$1" --out "$at/$2" --loss "${2%%-*}" --lr "$(setting "$2" lr $lr)" --seed "$1" \
    --steps $STEPS --rollouts $ROLLOUTS --eval_every 25 --eval_problems $PROBLEMS --device "$DEVICE"
}
export -f on_policy

for s in $SEEDS; do echo "$s"; done | each "corpus {} ''; base {}; ref {} ''; arm {} clm
  for run in base ref clm; do evaluate {} \$run; done"
for s in $SEEDS; do for loss in $LOSSES; do echo "$s $loss"; done; done | each "on_policy {}"
$PYTHON plot.py --runs "$OUT" --base opd
