#!/usr/bin/env bash
# Answers that calculate, and fine-tuning on solutions of which some are wrong: what results/tools/ holds.
#
#   bash runs/tools.sh                                    # five seeds: some two hours on two cores
#   SEEDS=5 OUT=out/try bash runs/tools.sh
#
# Base, reference, CLM and SLM twice, with numbers up to 99: on the corpus of text, graded without a tool and with a
# calculator; and on that of programs, which are run (-programs). There what a program prints is never trained on, so
# all losses go by scores: train_slm.py with --keep 1.0 is plain training on what has a score.
#
# Then each way to choose among the solutions of a noisy text of programs, three in ten of them wrong, from the base.
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-out/tools} SEEDS=${SEEDS:-10 11 12 13 14} DATA=${DATA:-data/tools}
. runs/steps.sh
CORPUS="$CORPUS --largest 99" EVERY=100000  # only the end counts here
export SFT_TOKENS=600000
if [ "$SIZE" = tiny ]; then SFT_TOKENS=30720; fi

graded() {  # SEED RUN CORPUS [TOOL]: accuracy without shots
  $PYTHON eval_math.py --data "$DATA/seed$1$3" --device "$DEVICE" --n $PROBLEMS --shots 0 --max_new_tokens 100 \
    --ckpt "$OUT/seed$1/$2/ckpt.pt" --out "$OUT/seed$1/$2/eval0" ${4:+--tool $4}
}
made() {  # SEED CORPUS SIDE NAME OPTIONS: other scores
  $PYTHON -m controls.rescore --data "$DATA/seed$1$2" --corpus "$3" --out "$OUT/seed$1/$4" --seed "$1" "${@:5}"
}
scored() {  # SEED CORPUS NAME: those of the reference
  $PYTHON score.py --ckpt "$OUT/seed$1/ref-programs/ckpt.pt" --data "$DATA/seed$1$2" --out "$OUT/seed$1/$3" \
    --device "$DEVICE"
}
learn() {  # SEED CORPUS RUN SIDE SCORES OPTIONS
  train train_slm.py "$1" "$3" --data "$DATA/seed$1$2" --train "$4" --scores "$OUT/seed$1/$5" "${@:6}"
}
models_of_text() {  # SEED: base and reference, and the scores of the noisy side
  base "$1"
  ref "$1" ""
  scores "$1" "" ""
  for run in base ref; do
    graded "$1" $run ""
    graded "$1" $run "" calculator
  done
}
arm_of_text() {  # SEED ARM
  arm "$1" "$2"
  graded "$1" "$2" ""
  graded "$1" "$2" "" calculator
}
export plain="--keep 1.0 --rank_by ref" not_printed="--labels question solution result irrelevant noise wrong"
models_of_programs() {  # SEED: the same on programs
  local from="--init_from $OUT/seed$1/base-programs/ckpt.pt" side
  for side in web curated noisy; do made "$1" -programs $side all_$side $not_printed; done
  learn "$1" -programs base-programs web all_web $plain --train_tokens $BASE_TOKENS --seed $((1000 + $1))
  learn "$1" -programs ref-programs curated all_curated $plain $from --train_tokens $REF_TOKENS
  scored "$1" -programs of_ref
  made "$1" -programs noisy of_ref_all $not_printed --scores "$OUT/seed$1/of_ref"
  for run in base ref; do graded "$1" $run-programs -programs python; done
}
arm_of_programs() {  # SEED ARM
  local how="all_noisy $plain"
  [ "$2" = clm ] || how="of_ref_all --keep 0.07"
  learn "$1" -programs "$2-programs" noisy $how --train_tokens $TOKENS --init_from "$OUT/seed$1/base-programs/ckpt.pt"
  graded "$1" "$2-programs" -programs python
}
fine_tuned() {  # SEED: from the base, on the solutions of a text, by each way to choose among them
  local at="$OUT/seed$1" arm how select
  scored "$1" -sft sft_of_ref
  $PYTHON -m controls.execution --data "$DATA/seed$1-sft" --out "$at/sft_run"
  for arm in all random slm documents execution; do
    how="" select=$plain
    case $arm in
      random)    how="--how random" select="--keep 0.5 --rank_by ref" ;;
      slm)       how="--scores $at/sft_of_ref" select="--keep 0.5" ;;
      documents) how="--how documents --scores $at/sft_of_ref" select="--keep 0.5 --rank_by ref" ;;
      execution) how="--scores $at/sft_run" ;;
    esac
    made "$1" -sft noisy "sft_${arm}_scores" --labels solution result wrong $how
    learn "$1" -sft "sft_$arm" noisy "sft_${arm}_scores" $select --train_tokens $SFT_TOKENS --lr 0.001 \
      --init_from "$at/base-programs/ckpt.pt"
    graded "$1" "sft_$arm" -sft python
  done
}
export -f graded made scored learn models_of_text arm_of_text models_of_programs arm_of_programs fine_tuned

for s in $SEEDS; do
  echo "$s"
  echo "$s -programs --solutions programs"
  echo "$s -sft --solutions programs --chatter 0 --noisy_tokens $SFT_TOKENS"
done | each "corpus {}"
for s in $SEEDS; do echo "models_of_text $s"; echo "models_of_programs $s"; done | each "{}"
for s in $SEEDS; do
  for a in slm clm; do echo "arm_of_text $s $a"; echo "arm_of_programs $s $a"; done
  echo "fine_tuned $s"
done | each "{}"
$PYTHON plot.py --runs "$OUT"
