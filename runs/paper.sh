#!/usr/bin/env bash
# The paper's analysis at laptop scale, three seeds: every figure, self-reference and weak-to-strong tables, variants.
#
#   bash runs/paper.sh                          # all parts; some two and a half hours on two cores
#   bash runs/paper.sh main ratios figures      # some; `main` first (its models and scores), `several` after `weak`
#   SIZE=tiny SEEDS="0 1" bash runs/paper.sh    # a try: tiny runs, one arm of each part
#
# Parts: main self weak ratios soft several schedule answers dynamics highlight figures. Run it again after an
# interruption: what is finished is not done again. Ends with results.json, table.md and the figures in OUT/figures. (No
# spaces in OUT, DATA and PYTHON.)
# The set-up is that of runs/demo.sh, and so are the learning rates of `main`, where CLM's is higher. All other arms
# have that of SLM, CLM too where ratios are compared (`keep_1.0`).
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0 1 2} OUT=${OUT:-out/paper} DATA=${DATA:-data/paper} PYTHON=${PYTHON:-python} JOBS=${JOBS:-2}
export DEVICE=${DEVICE:-cpu} SIZE=${SIZE:-full}
if [ "$SIZE" = tiny ]; then
  export BASE_TOKENS=30720 START_TOKENS=30720 TOKENS=30720 REF_TOKENS=30720 NOISY=40000 HELD_OUT=20000
  export PROBLEMS=10 ROWS=16 SNAPSHOT=4
else
  export BASE_TOKENS=3993600 START_TOKENS=2995200 TOKENS=5990400 REF_TOKENS=600000 NOISY=4000000 HELD_OUT=100000
  export PROBLEMS=0 ROWS=512 SNAPSHOT=390
fi
ALL="main self weak ratios soft several schedule answers dynamics highlight figures"
PARTS=${*:-$ALL}
for part in $PARTS; do
  case " $ALL " in *" $part "*) ;; *) echo "paper.sh: there is no part $part; there are $ALL" >&2; exit 2 ;; esac
done

arm() {  # an arm as in the part main: seed, name, options
  $PYTHON train_slm.py --resume --data "$DATA/seed$1" --scores "$OUT/seed$1/scores" --out "$OUT/seed$1/$2" \
    --device "$DEVICE" --init_from "$OUT/seed$1/start/ckpt.pt" --n_layer 3 --train_tokens "$TOKENS" --lr 5e-3 \
    --seed "$1" --eval_every 65 "${@:3}"
}
evaluate() {  # accuracy with two shots and with none, and losses without noise ids: seed, run, checkpoint
  at="$OUT/seed$1/$2" about="--data $DATA/seed$1 --device $DEVICE --ckpt $OUT/seed$1/$2/${3:-ckpt}.pt"
  $PYTHON eval_math.py $about --n "$PROBLEMS"
  $PYTHON eval_math.py $about --n "$PROBLEMS" --shots 0 --out "$at/eval0"
  $PYTHON -m extras.measures $about --max_rows "$ROWS" --no-calibrate
}
self_scores() {  # loss and entropy of the noisy corpus under a model that was trained on the noisy corpus: the base
  $PYTHON score.py --ckpt "$OUT/seed$1/base/ckpt.pt" --data "$DATA/seed$1" --out "$OUT/seed$1/self_scores" --entropy \
    --device "$DEVICE"
}
weak_scores() {  # a reference model of 32 channels instead of 64, else made like the other one
  $PYTHON train_ref.py --resume --data "$DATA/seed$1" --train noisy --out "$OUT/seed$1/weak_base" --device "$DEVICE" \
    --train_tokens "$BASE_TOKENS" --lr 5e-3 --seed $((1000 + $1)) --eval_every 650 --n_embd 32
  $PYTHON train_ref.py --resume --data "$DATA/seed$1" --train curated --out "$OUT/seed$1/weak_ref" --device "$DEVICE" \
    --init_from "$OUT/seed$1/weak_base/ckpt.pt" --train_tokens "$REF_TOKENS" --lr 2e-3 --seed "$1" --eval_every 20 --patience 8
  evaluate "$1" weak_ref best
  $PYTHON score.py --ckpt "$OUT/seed$1/weak_ref/best.pt" --data "$DATA/seed$1" --out "$OUT/seed$1/weak_scores" --device "$DEVICE"
}
export -f arm evaluate self_scores weak_scores

all_seeds() {  # all_seeds FUNCTION: with each seed and each line of standard input, JOBS at a time; @SEED@ is the seed
  while read -r line; do for s in $SEEDS; do echo "$1 $s ${line//@SEED@/$s}"; done; done |
    OMP_NUM_THREADS=1 xargs -P "$JOBS" -I{} bash -euo pipefail -c "{}"
}
arms() {  # train the arms on standard input, a name and options each, with every seed; then evaluate them
  lines=$(cat)
  if [ "$SIZE" = tiny ]; then lines=$(head -n 1 <<< "$lines"); fi  # one of each part
  all_seeds arm <<< "$lines"
  cut -d " " -f 1 <<< "$lines" | all_seeds evaluate
}

for part in $PARTS; do
  echo "--- $part"
  case $part in
    main)      # nothing that is set for runs/demo.sh elsewhere may change these three arms alone
               env -u START -u MODEL -u LR -u CONTROL_LR -u KEEP -u MIX -u REFS -u CORPUS -u REF_DATA -u REF_CORPUS \
                 ARMS="clm slm random" KEEP=0.3 CONTROL_LR=1e-2 TUNE_TOKENS=0 bash runs/demo.sh
               echo start | all_seeds evaluate ;;
    self)      echo | all_seeds self_scores                                                   # tables 3, 4
               for how in low_ref low_entropy intersection union; do
                 echo "self_$how --keep 0.3 --select $how --scores $OUT/seed@SEED@/self_scores"
               done | arms ;;
    weak)      echo | all_seeds weak_scores                                                   # table 5
               echo "weak --keep 0.3 --scores $OUT/seed@SEED@/weak_scores" | arms ;;
    ratios)    for k in 1.0 0.6 0.8 0.1; do echo "keep_$k --keep $k"; done | arms ;;    # figure 9; 0.3 is `slm`
    soft)      printf '%s\n' "soft_1 --softmax_tau 1" "soft_0.3 --softmax_tau 0.3" \
                 "soft_0.3_max_5 --softmax_tau 0.3 --max_weight 5" | arms ;;
    several)   for how in mean min; do
                 echo "several_$how --keep 0.3 --more_scores $OUT/seed@SEED@/weak_scores --combine $how"
               done | arms ;;
    schedule)  echo "warmup --keep 0.3 --keep_warmup 780" | arms ;;
    answers)   printf '%s\n' "answers --keep 1.0" "answers_slm --keep 0.5" "answers_random --keep 0.5 --select random" |
                 sed 's/$/ --labels solution result wrong/' | arms ;;
    dynamics)  [ -f "$DATA/held_out/noisy.json" ] ||
                 $PYTHON prepare.py --out "$DATA/held_out" --seed 9000 --noisy_tokens "$HELD_OUT"
               for s in $SEEDS; do
                 $PYTHON -m extras.dynamics --runs "$OUT/seed$s" --data "$DATA/held_out" --device "$DEVICE"
               done ;;
    highlight) s=${SEEDS%% *}; mkdir -p "$OUT/figures"
               $PYTHON -m extras.highlight --data "$DATA/seed$s" --ref "$OUT/seed$s/ref/best.pt" \
                 --out "$OUT/figures/highlight.png" \
                 --ckpt $(ls "$OUT/seed$s"/slm/step_*.pt | awk 'NR == 2 || NR == 4 || NR == 11') ;;
    figures)   $PYTHON -m paper.plot_paper --runs "$OUT" ;;
  esac
done
