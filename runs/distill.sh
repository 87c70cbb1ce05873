#!/usr/bin/env bash
# On-policy distillation (extras/distill.py) on the built-in corpus, all losses and their controls: from a strong
# teacher to a weak student, and from two teachers of one skill each to a student that is to learn both.
#
#   bash runs/distill.sh                                  # five seeds: an hour on two cores, more on slow ones
#   MORE="fire_exact entropy_half first_k reward_reference" bash runs/distill.sh    # what the default leaves out
#   SEEDS=5 LOSSES="fire opd" OUT=out/try bash runs/distill.sh
#
# (No spaces in OUT, DATA and PYTHON. With other options, name another OUT, and for other corpora another DATA.)
#
# The teachers have three layers, the student two. All begin with a model that has learned the form of a worked problem,
# and no arithmetic; the student then reads half as many worked problems as the teachers, at a lower learning rate, and
# gets less than half of the answers right. From there on it sees the problems alone. Restartable; ends with
# OUT/results.json, OUT/table.md and OUT/accuracy.png.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0 1 2 3 4} OUT=${OUT:-out/distill} DATA=${DATA:-data/distill} PYTHON=${PYTHON:-python}
LOSSES=${LOSSES:-opd fire filter reweight exact_kl exact_kl_twice sft random_drop permuted_weights reward_answer}
export LOSSES="$LOSSES ${MORE:-}"
export PAIR=${PAIR-opd exact_kl sft}                  # the losses for the two teachers (empty: none)
export STEPS=${STEPS:-300} ROLLOUTS=${ROLLOUTS:-100}  # of each run; answers in a step
export LR=${LR:-5e-4} EXACT_LR=${EXACT_LR:-1e-3}      # of what learns from the drawn tokens; of the exact losses and sft
export DOCUMENTS=${DOCUMENTS:-20000}                  # worked problems of a teacher
export FORM_TOKENS=${FORM_TOKENS:-1996800} TEACHER_TOKENS=${TEACHER_TOKENS:-1996800}
export STUDENT_TOKENS=${STUDENT_TOKENS:-998400}
export PROBLEMS=${PROBLEMS:-0}                        # evaluate on the first so many problems; 0: all
export JOBS=${JOBS:-2}                                # cores: so many processes at a time
export DEVICE=${DEVICE:-cpu} OMP_NUM_THREADS=1

corpora() {  # problems of both skills, and of one skill each; the pair's file says whose each problem is
  data="$DATA/seed$1" made="$DOCUMENTS $FORM_TOKENS"
  if [ -f "$data/options.txt" ]; then
    if [ "$(cat "$data/options.txt")" = "$made" ]; then return; fi
    echo "distill.sh: $data was made with other DOCUMENTS or FORM_TOKENS: name another DATA" >&2
    return 2
  fi
  for skills in "both add double" "add add" "double double"; do
    set -- "$1" $skills
    $PYTHON prepare.py --out "$data/$2" --seed "$1" --skills "${@:3}" --curated_documents "$DOCUMENTS" \
      --noisy_tokens 1000 --curated_repeats 1 --form_tokens "$FORM_TOKENS"
  done
  for skill in add double; do sed "s/^{/{\"teacher\": \"$skill\", /" "$data/$skill/curated.jsonl"; done > "$data/pair.jsonl"
  # Evaluated on both skills in turn, without what the student may have read before.
  paste -d '\n' "$data/add/eval.jsonl" "$data/double/eval.jsonl" | grep -vxFf "$data/both/curated.jsonl" \
    > "$data/pair_eval.jsonl"
  echo "$made" > "$data/options.txt"
}
form() {  # what teachers (3 layers) and students (2) begin with
  $PYTHON train_ref.py --resume --data "$DATA/seed$1/both" --train form --out "$OUT/seed$1/form$2" --device "$DEVICE" \
    --n_layer "$2" --train_tokens "$FORM_TOKENS" --lr 5e-3 --seed "$1" --eval_every 325
}
teacher() {
  $PYTHON train_ref.py --resume --data "$DATA/seed$1/$2" --train curated --out "$OUT/seed$1/teacher_$2" \
    --device "$DEVICE" --init_from "$OUT/seed$1/form3/ckpt.pt" --train_tokens "$TEACHER_TOKENS" --lr 5e-3 --seed "$1" \
    --eval_every 325
}
student() {
  $PYTHON train_ref.py --resume --data "$DATA/seed$1/both" --train curated --out "$OUT/seed$1/student" \
    --device "$DEVICE" --init_from "$OUT/seed$1/form2/ckpt.pt" --train_tokens "$STUDENT_TOKENS" --lr 2e-3 --seed "$1" \
    --eval_every 325
}
arm() {  # SEED SETTING ARM
  how="--loss $3" problems="" lr=$LR steps=$STEPS
  case $3 in exact_kl*|fire_exact|sft) lr=$EXACT_LR ;; esac
  case $2 in
    strong) how="$how --teacher $OUT/seed$1/teacher_both/ckpt.pt" ;;
    pair)   how="$how --teacher add=$OUT/seed$1/teacher_add/ckpt.pt double=$OUT/seed$1/teacher_double/ckpt.pt"
            problems="--problems $DATA/seed$1/pair.jsonl --test_problems $DATA/seed$1/pair_eval.jsonl" ;;
  esac
  case $3 in
    exact_kl_twice)   how="--loss exact_kl --teacher $OUT/seed$1/teacher_both/ckpt.pt" steps=$((2 * STEPS)) ;;
    reward_answer)    how="--loss opd --reward answer --samples 4" ;;
    reward_reference) how="--loss opd --reward reference --samples 4 --teacher $OUT/seed$1/teacher_both/ckpt.pt" ;;
  esac
  $PYTHON -m extras.distill --resume --student "$OUT/seed$1/student/ckpt.pt" --data "$DATA/seed$1/both" $problems $how \
    --out "$OUT/$2/seed$1/$3" --device "$DEVICE" --steps "$steps" --rollouts "$ROLLOUTS" --lr "$lr" --seed "$1" \
    --eval_every 50 --eval_problems "$PROBLEMS"
}
evaluate() {  # SEED TEACHER: of the teachers
  about="--device $DEVICE --shots 0 --n $PROBLEMS --ckpt $OUT/seed$1/teacher_$2/ckpt.pt"
  $PYTHON eval_math.py $about --data "$DATA/seed$1/both"
  if [ -n "$PAIR" ]; then
    $PYTHON eval_math.py $about --data "$DATA/seed$1/both" --problems "$DATA/seed$1/pair_eval.jsonl" \
      --out "$OUT/seed$1/teacher_$2/pair"
  fi
}
export -f corpora form teacher student arm evaluate

each() { grep . | xargs -P "$JOBS" -I{} bash -euo pipefail -c "$* {}"; }  # for every line of standard input

teachers="both ${PAIR:+add double}"
for s in $SEEDS; do echo "$s"; done | each corpora
for s in $SEEDS; do echo "$s 3"; echo "$s 2"; done | each form
for s in $SEEDS; do for t in $teachers; do echo "$s $t"; done; done | each teacher
for s in $SEEDS; do echo "$s"; done | each student
for s in $SEEDS; do for t in $teachers; do echo "$s $t"; done; done | each evaluate
for s in $SEEDS; do
  for loss in $LOSSES; do echo "$s strong $loss"; done
  for loss in $PAIR; do echo "$s pair $loss"; done
done | each arm
$PYTHON -m extras.distill_table --runs "$OUT"
