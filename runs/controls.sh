#!/usr/bin/env bash
# SLM and its controls on the built-in corpus: what results/controls/ holds.
#
#   bash runs/controls.sh                                    # five seeds: some four hours on two cores
#   SEEDS=7 ARMS="slm clm" OUT=out/try bash runs/controls.sh
#   SEEDS="5 6" ARMS="slm-keep0.04 slm-lr0.01" TUNED="" OUT=out/tuning bash runs/controls.sh    # how one is tuned
#
# All arms start from one base, read the same noisy text, and are tuned alike on seeds 5 and 6 (docs/results.md).
# Ends with OUT/results.json, OUT/table.md and the figures.
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-out/controls} SEEDS=${SEEDS:-10 11 12 13 14}
ARMS=${ARMS-slm clm curated mixture low_ref frozen distill distill_half labels documents random high_loss
            low_ref-keep0.07 clm-x2 clm-x3}
ARMS=$(echo $ARMS)                              # in one line
TUNED=${TUNED-slm clm mixture low_ref frozen}   # those of them that are fine-tuned besides
. runs/steps.sh

for s in $SEEDS; do
  echo "corpus $s"
  case "$ARMS" in *-x[23]*) echo "corpus $s -x3 --noisy_tokens $((3 * TOKENS + 20000))" ;; esac
done | each "{}"
for s in $SEEDS; do
  for a in $ARMS; do case $a in mixture*) echo "$s $(copies "$a")" ;; esac; done
done | sort -u | each "mix {}"
for s in $SEEDS; do echo "$s"; done | each "base {}; ref {} ''; scores {} '' ''; evaluate {} base; evaluate {} ref"
for s in $SEEDS; do for a in $ARMS; do echo "$s $a"; done; done | each "arm {}; evaluate {}"
for s in $SEEDS; do
  for a in $TUNED; do case " $ARMS " in *" $a "*) echo "$s $a" ;; esac; done
done | each "tuned {}; evaluate {}_tuned"
$PYTHON plot.py --runs "$OUT"
