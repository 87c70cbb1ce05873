#!/usr/bin/env bash
# Answers that calculate, and fine-tuning on solutions of which some are wrong: what results/tools/ holds.
#
#   bash runs/tools.sh                                    # five seeds: some hours on two cores
#   SEEDS=5 OUT=out/try bash runs/tools.sh
#
# Numbers go up to 99. Of each seed there are
#
#   text        base, reference, CLM and SLM as in the other scripts, graded without a tool and with a calculator
#   programs    the same on the corpus whose solutions are programs, which are run. What a program prints is never
#               trained on, so all losses go by scores: train_slm.py --keep 1.0 trains on all that has a score
#   sft         from the base of programs, fine-tuning on problems with programs, a quarter of them wrong: on all of
#               their solutions, and on what some rules choose of them (tuned on seeds 5 and 6, SFT_TOKENS=100000)
#
# What to compare are accuracies: the test loss in the tables counts what is never trained on too.
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-out/tools} SEEDS=${SEEDS:-10 11 12 13 14} DATA=${DATA:-data/tools}
. runs/steps.sh
CORPUS="$CORPUS --largest 99" EVERY=100000  # only the end counts here
export SFT_TOKENS=${SFT_TOKENS:-200000}
if [ "$SIZE" = tiny ]; then SFT_TOKENS=30720; fi
export ARMS=${ARMS:-all random high_loss slm documents execution any_documents}  # of sft; also slm-keep0.3-lr0.01

of() {  # KIND COMMAND: the command, with the data and the runs of text, programs or sft
  OUT="$OUT/$1" DATA="$DATA/$1" "${@:2}"
}
corpora() {  # SEED
  of text corpus "$1"
  of programs corpus "$1" "" --solutions programs
  of sft corpus "$1" "" --solutions programs --chatter 0 --noisy_tokens $SFT_TOKENS
}
graded() {  # SEED RUN [TOOL]: accuracy without shots
  $PYTHON eval_math.py --data "$DATA/seed$1" --device "$DEVICE" --n $PROBLEMS --shots 0 --max_new_tokens 100 \
    --ckpt "$OUT/seed$1/$2/ckpt.pt" --out "$OUT/seed$1/$2/eval0" ${3:+--tool $3}
}
rescored() {  # SEED SIDE NAME OPTIONS: a score folder NAME of that side
  $PYTHON -m controls.rescore --data "$DATA/seed$1" --corpus "$2" --out "$OUT/seed$1/$3" --seed "$1" "${@:4}"
}
train_by() {  # SEED RUN SIDE SCORES OPTIONS: train on what has a score
  train train_slm.py "$1" "$2" --train "$3" --scores "$OUT/seed$1/$4" "${@:5}"
}
models_of_text() {  # SEED: base and reference, and the scores of the noisy side
  base "$1"
  ref "$1" ""
  scores "$1" ""
  for run in base ref; do graded "$1" $run; graded "$1" $run calculator; done
}
arm_of_text() {  # SEED ARM
  arm "$1" "$2"
  graded "$1" "$2"
  graded "$1" "$2" calculator
}
# Plain training on what has a score; and what gets one, all but the output of programs.
export plain="--keep 1.0 --rank_by ref" not_printed="--labels question solution result irrelevant noise wrong"
models_of_programs() {  # SEED; the web, and so the base, has no programs
  base "$1"
  for side in curated noisy; do rescored "$1" $side counted_$side $not_printed; done
  train_by "$1" ref curated counted_curated $plain --train_tokens $REF_TOKENS --init_from "$OUT/seed$1/base/ckpt.pt"
  scores "$1" ""
  rescored "$1" noisy counted_scores $not_printed --scores "$OUT/seed$1/scores"
  for run in base ref; do graded "$1" $run python; done
}
arm_of_programs() {  # SEED ARM
  local by=counted_noisy how=$plain
  if [ "$2" = slm ]; then by=counted_scores how="--keep 0.07"; fi
  train_by "$1" "$2" noisy $by $how --train_tokens $TOKENS --init_from "$OUT/seed$1/base/ckpt.pt"
  graded "$1" "$2" python
}
fine_tuned() {  # SEED: three epochs, by each way to choose, from the base of programs; its reference gives the losses
  local at="$OUT/seed$1" programs="${OUT%sft}programs/seed$1" arm how keep rank
  $PYTHON score.py --ckpt "$programs/ref/ckpt.pt" --data "$DATA/seed$1" --out "$at/scores" --device "$DEVICE"
  $PYTHON -m controls.execution --data "$DATA/seed$1" --out "$at/checked"
  rescored "$1" noisy any --how random
  for arm in $ARMS; do
    how="" keep=1.0 rank="--rank_by ref"
    case ${arm%%-*} in
      random)        how="--how random" keep=0.9 ;;
      high_loss)     keep=0.5 rank="--rank_by loss" ;;
      slm)           how="--scores $at/scores" keep=0.5 rank="" ;;
      documents)     how="--how documents --scores $at/scores" keep=0.7 ;;
      execution)     how="--scores $at/checked" ;;
      any_documents) how="--how documents --scores $at/any" keep=0.73 ;;  # as many as execution keeps
    esac
    rescored "$1" noisy "${arm}_scores" --labels solution result wrong $how
    train_by "$1" "$arm" noisy "${arm}_scores" --keep "$(setting "$arm" keep $keep)" $rank \
      --train_tokens $((3 * SFT_TOKENS)) --lr "$(setting "$arm" lr 0.005)" --init_from "$programs/base/ckpt.pt"
    graded "$1" "$arm" python
  done
}
export -f of corpora graded rescored train_by models_of_text arm_of_text models_of_programs arm_of_programs fine_tuned

for s in $SEEDS; do echo "corpora $s"; done | each "{}"
for s in $SEEDS; do echo "text models_of_text $s"; echo "programs models_of_programs $s"; done | each "of {}"
for s in $SEEDS; do
  for a in slm clm; do echo "text arm_of_text $s $a"; echo "programs arm_of_programs $s $a"; done
  echo "sft fine_tuned $s"
done | each "of {}"
for kind in text programs sft; do $PYTHON plot.py --runs "$OUT/$kind"; done
