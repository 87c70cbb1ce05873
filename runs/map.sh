#!/usr/bin/env bash
# When does selection pay? Accuracy against the strength of the reference, the share that is kept, the share of useful
# text, and the tokens read: what results/map/ holds.
#
#   bash runs/map.sh                                    # three seeds: two and a half hours on two cores
#   SEEDS=7 OUT=out/try bash runs/map.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-out/map} SEEDS=${SEEDS:-10 11 12}
. runs/steps.sh
EVERY=100000  # only the end counts here
graded() {  # SEED RUN: accuracy without shots, of the last weights
  $PYTHON eval_math.py --data "$DATA/seed$1" --device "$DEVICE" --n $PROBLEMS --shots 0 --ckpt "$OUT/seed$1/$2/ckpt.pt" \
    --out "$OUT/seed$1/$2/eval0"
}
clean="250 500 1000 3000" chatter="0.3 0.6 0.9"
arms="slm clm low_ref random"
strength() {  # SEED PROBLEMS: a reference that has read so many
  ref "$1" "-clean$2"
  scores "$1" "" "-clean$2"
  graded "$1" "ref-clean$2"
}
export -f graded strength
for n in $clean; do arms="$arms slm-clean$n"; done
for keep in 0.02 0.15 0.35 0.6; do arms="$arms slm-keep$keep"; done
for keep in 0.02 0.15 0.6; do arms="$arms low_ref-keep$keep"; done  # low_ref has 0.35
for keep in 0.35 0.6; do arms="$arms random-keep$keep"; done
for share in $chatter; do arms="$arms slm-chatter$share clm-chatter$share"; done
for times in 0.2 0.5 2; do arms="$arms slm-x$times clm-x$times"; done

for s in $SEEDS; do
  echo "corpus $s"
  echo "corpus $s -x3 --noisy_tokens $((3 * TOKENS + 20000))"
  for n in $clean; do echo "corpus $s -clean$n --noisy_tokens 40000 --curated_problems $n"; done
  for share in $chatter; do echo "corpus $s -chatter$share --chatter $share"; done
done | each "{}"
for s in $SEEDS; do echo "$s"; done | each "base {}; ref {} ''; scores {} '' ''; scores {} -x3 ''; graded {} ref"
for s in $SEEDS; do
  for n in $clean; do echo "strength $s $n"; done
  for share in $chatter; do echo "scores $s -chatter$share"; done
done | each "{}"
for s in $SEEDS; do for a in $arms; do echo "$s $a"; done; done | each "arm {}; graded {}"
$PYTHON -m analysis.map --runs "$OUT" --data "$DATA"
