#!/usr/bin/env bash
# On-policy distillation (distillation/on_policy.py) on the built-in corpus, from a strong teacher to a weak student: the
# method, its halves, and its controls.
#
#   bash runs/distill.sh                                  # five seeds: an hour on two cores, more on slow ones
#   SEEDS=5 LOSSES="fire opd" OUT=out/try bash runs/distill.sh
#
# The teacher has three layers, the student two. Both begin with a model that has learned the form of a worked problem,
# and no arithmetic; the student then reads half as many worked problems as the teacher, at a lower learning rate, and
# gets less than half of the answers right. From there on it sees the problems alone. Restartable; ends with
# OUT/results.json, OUT/table.md and OUT/headline.png. (No spaces in OUT, DATA and PYTHON.)
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${SIZE:-distill}   # or tiny, a try
export SEEDS=${SEEDS:-0 1 2 3 4} OUT=${OUT:-out/$SIZE} DATA=${DATA:-data/$SIZE} PYTHON=${PYTHON:-python}
LOSSES=${LOSSES:-opd fire filter reweight exact_kl sft random_drop permuted_weights}
export JOBS=${JOBS:-2} DEVICE=${DEVICE:-cpu} OMP_NUM_THREADS=1
DOCUMENTS=20000 NOISY=4000000 TOKENS=1996800 STEPS=300 ROLLOUTS=100 PROBLEMS=0   # NOISY: twice the side `form`
if [ "$SIZE" = tiny ]; then DOCUMENTS=300 NOISY=40000 TOKENS=15360 STEPS=2 ROLLOUTS=4 PROBLEMS=4; fi
export DOCUMENTS NOISY TOKENS STEPS ROLLOUTS PROBLEMS

corpus() {
  [ -f "$DATA/seed$1/val.json" ] || $PYTHON prepare.py --out "$DATA/seed$1" --seed "$1" \
    --curated_documents "$DOCUMENTS" --noisy_tokens "$NOISY"
}
train() {  # SEED RUN OPTIONS
  $PYTHON train_ref.py --resume --data "$DATA/seed$1" --out "$OUT/seed$1/$2" --device "$DEVICE" --seed "$1" \
    --eval_every 325 "${@:3}"
}
form() { train "$1" "form$2" --train form --n_layer "$2" --train_tokens "$TOKENS" --lr 5e-3; }
teacher() { train "$1" teacher --init_from "$OUT/seed$1/form3/ckpt.pt" --train_tokens "$TOKENS" --lr 5e-3; }
student() { train "$1" student --init_from "$OUT/seed$1/form2/ckpt.pt" --train_tokens $((TOKENS / 2)) --lr 2e-3; }
arm() {  # SEED LOSS
  lr=5e-4
  case $2 in exact_kl|sft) lr=1e-3 ;; esac
  $PYTHON -m distillation.on_policy --resume --student "$OUT/seed$1/student/ckpt.pt" --data "$DATA/seed$1" \
    --teacher "$OUT/seed$1/teacher/ckpt.pt" --loss "$2" --out "$OUT/seed$1/$2" --device "$DEVICE" --steps "$STEPS" \
    --rollouts "$ROLLOUTS" --lr $lr --seed "$1" --eval_every 50 --eval_problems "$PROBLEMS"
}
evaluate() {
  for run in teacher student; do
    $PYTHON eval_math.py --device "$DEVICE" --shots 0 --n "$PROBLEMS" --data "$DATA/seed$1" \
      --ckpt "$OUT/seed$1/$run/ckpt.pt" --out "$OUT/seed$1/$run/eval0"
  done
}
export -f corpus train form teacher student arm evaluate

each() { grep . | xargs -P "$JOBS" -I{} bash -euo pipefail -c "$* {}"; }  # for every line of standard input

for s in $SEEDS; do echo "$s"; done | each corpus
for s in $SEEDS; do echo "$s 3"; echo "$s 2"; done | each form
for s in $SEEDS; do echo "teacher $s"; echo "student $s"; done | each
for s in $SEEDS; do echo "$s"; done | each evaluate
for s in $SEEDS; do for loss in $LOSSES; do echo "$s $loss"; done; done | each arm
$PYTHON plot.py --runs "$OUT" --base fire
