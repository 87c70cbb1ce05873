#!/usr/bin/env bash
# The whole method on the built-in corpus: corpus, base, reference model, scores, arms, fine-tuning, accuracy, figure.
#
#   bash runs/demo.sh                                   # SLM and CLM, one seed: some six minutes on two cores
#   SEEDS="0 1" ARMS="slm clm clm_mixed distill" OUT=out/more bash runs/demo.sh
#   TOKENS=30720 START_TOKENS=30720 BASE_TOKENS=30720 REF_TOKENS=30720 TUNE_TOKENS=3072 NOISY=100000 PROBLEMS=20 \
#     DATA=data/tiny OUT=out/tiny bash runs/demo.sh     # a try
#
# The reference model has two layers and starts from a base that has read the noisy corpus. All arms start from one model
# of three layers that has learned the form of a worked problem, and no arithmetic. Ends with OUT/results.json and
# OUT/headline.png. Run it again after an interruption: what is finished is not done again, and a training run that was
# cut off goes on from its last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0} ARMS=${ARMS:-slm clm} OUT=${OUT:-out/demo} PYTHON=${PYTHON:-python}
export DATA=${DATA:-data/demo} NOISY=${NOISY:-4000000}   # corpus folder, tokens of its noisy side
export CORPUS=${CORPUS:-}                 # more options of prepare.py
export REF_DATA=${REF_DATA:-$DATA} REF_CORPUS=${REF_CORPUS:-}   # the reference may learn from another corpus
export REFS=${REFS:-$OUT}                 # folder of the base, the reference model, its scores and the start
export MODEL=${MODEL---n_layer 3}         # sizes of what the arms start from
export START=${START-start}               # the run whose weights the arms start from (empty: fresh models)
export START_LR=${START_LR:-5e-3}         # learning rate of that run (a wider MODEL wants a lower one)
export LR=${LR:-}                         # one learning rate for all arms (default: each arm's own)
export CONTROL_LR=${CONTROL_LR:-}         # that of CLM and of distillation (default: 5e-3, and 1e-2)
export MIX=${MIX:-}                       # 30: the mixture repeats the curated side so often (the corpus's own: 10 times)
export KEEP=${KEEP:-0.6}                  # of the arms that select tokens
export TOKENS=${TOKENS:-5990400}          # tokens of each arm: 3,900 steps
export START_TOKENS=${START_TOKENS:-2995200}   # of what they start from
export BASE_TOKENS=${BASE_TOKENS:-3993600} REF_TOKENS=${REF_TOKENS:-600000}  # of the base; of the reference at most
export TUNE_TOKENS=${TUNE_TOKENS:-307200}  # of the fine-tuning on curated text after each arm: 200 steps; 0: none
export SNAPSHOT=${SNAPSHOT:-975}          # steps between the weights of an arm that are kept and evaluated
export PROBLEMS=${PROBLEMS:-0}            # evaluate on the first so many problems; 0: all 500
export ROWS=${ROWS:-512}                  # measure the losses without noise on so many rows; 0: not at all
export JOBS=${JOBS:-2}                    # cores: so many processes at a time, or threads of a single one
export DEVICE=${DEVICE:-cpu}

corpus() {  # SEED FOLDER TOKENS OPTIONS: a built-in corpus of this seed
  folder="$2/seed$1" made="noisy_tokens ${*:3}"
  if [ ! -f "$folder/val.json" ]; then
    $PYTHON prepare.py --out "$folder" --seed "$1" --noisy_tokens "${@:3}"
    echo "$made" > "$folder/options.txt"
  elif [ "$(cat "$folder/options.txt")" != "$made" ]; then
    echo "demo.sh: $folder was made with other options ($(cat "$folder/options.txt")): name another folder" >&2
    return 2
  fi
}
corpora() {  # that of the arms, that of the reference model where it is another one, and the mixture
  corpus "$1" "$DATA" "$NOISY" $CORPUS
  if [ "$REF_DATA" != "$DATA" ]; then corpus "$1" "$REF_DATA" "$NOISY" $REF_CORPUS; fi
  mixed="$DATA/seed$1/noisy+${MIX}xcurated.json"
  if [ -n "$MIX" ] && [ ! -f "$mixed" ]; then $PYTHON prepare.py --out "$DATA/seed$1" --mix "$MIX"; fi
}
base() {  # a small model that has seen the noisy corpus
  $PYTHON train_ref.py --resume --data "$REF_DATA/seed$1" --train noisy --out "$REFS/seed$1/base" --device "$DEVICE" \
    --train_tokens "$BASE_TOKENS" --lr 5e-3 --seed $((1000 + $1)) --eval_every 650
}
ref() {  # step 1: the reference model, from the base; it stops where the loss on held-out `val` is lowest
  $PYTHON train_ref.py --resume --data "$REF_DATA/seed$1" --train curated --out "$REFS/seed$1/ref" --device "$DEVICE" \
    --init_from "$REFS/seed$1/base/ckpt.pt" --train_tokens "$REF_TOKENS" --lr 2e-3 --seed "$1" --eval_every 20 --patience 8
}
score() {  # step 2: the reference loss of every token of the noisy corpus
  $PYTHON score.py --ckpt "$REFS/seed$1/ref/best.pt" --data "$DATA/seed$1" --out "$REFS/seed$1/scores" --device "$DEVICE"
}
start() {  # a model of the arms' size that has learned the form of a worked problem, and no arithmetic
  $PYTHON train_ref.py --resume --data "$DATA/seed$1" --train form --out "$REFS/seed$1/start" --device "$DEVICE" \
    --train_tokens "$START_TOKENS" --lr "$START_LR" --seed $((2000 + $1)) --eval_every 650 $MODEL
}
arm() {  # step 3: same first weights, order and tokens; the loss differs, and the learning rate (runs/steady.sh chose it)
  lr=5e-3 tokens=$TOKENS
  case $2 in
    slm)       how="--keep $KEEP" ;;
    clm)       how="--keep 1.0" lr=${CONTROL_LR:-$lr} ;;
    clm_long)  how="--keep 1.0" lr=${CONTROL_LR:-$lr} tokens=$((TOKENS * 3 / 2)) ;;    # CLM with SLM's whole budget
    clm_mixed) how="--keep 1.0 --train noisy+${MIX:+${MIX}x}curated" ;;         # a control: all the text there is
    documents) how="--keep 0.6 --select documents" ;;                           # the same reference chooses documents
    documents_*) how="--keep ${2#documents_} --select documents" ;;             # another share of them
    distill)   how="--keep 1.0 --distill $REFS/seed$1/ref/best.pt" lr=${CONTROL_LR:-1e-2} ;;  # its probabilities
    labels)    how="--keep 1.0 --labels question solution result" ;;            # the best that a selection can do
    slm_filtered) how="--keep $KEEP --filter_backward" ;;
    *)         how="--keep $KEEP --select $2" ;;                                # random, high_loss, low_ref
  esac
  $PYTHON train_slm.py --resume --data "$DATA/seed$1" --scores "$REFS/seed$1/scores" --out "$OUT/seed$1/$2" \
    --device "$DEVICE" --train_tokens "$tokens" --lr "${LR:-$lr}" --seed "$1" --eval_every 65 \
    --snapshot_every "$SNAPSHOT" $MODEL ${START:+--init_from "$REFS/seed$1/$START/ckpt.pt"} $how
  if [ "$TUNE_TOKENS" != 0 ]; then
    $PYTHON train_ref.py --resume --data "$DATA/seed$1" --train curated --out "$OUT/seed$1/$2_tuned" --device "$DEVICE" \
      --init_from "$OUT/seed$1/$2/ckpt.pt" --train_tokens "$TUNE_TOKENS" --lr 3e-4 --warmup_steps 10 --seed "$1" \
      --eval_every 50
  fi
}
evaluate() {  # step 4: accuracy, and losses without noise: of the last weights of a run, and along an arm
  at="$OUT/seed$1/$2" about="--data $DATA/seed$1 --device $DEVICE"
  end="$at/ckpt.pt"
  if [ "$2" = ref ]; then at="$REFS/seed$1/ref" end="$REFS/seed$1/ref/best.pt"; fi
  along=$(ls "$at"/step_*.pt 2>/dev/null || true)
  $PYTHON eval_math.py $about --n "$PROBLEMS" --ckpt "$end"  # two shots
  $PYTHON eval_math.py $about --n "$PROBLEMS" --shots 0 --ckpt ${along:-"$end"} --out "$at/eval0"
  if [ "$ROWS" = 0 ]; then return; fi
  if [ -n "$along" ]; then $PYTHON -m extras.measures $about --max_rows "$ROWS" --no-calibrate --ckpt $along; fi
  $PYTHON -m extras.measures $about --max_rows "$ROWS" --ckpt "$end"
}
export -f corpus corpora base ref score start arm evaluate

each() {  # each FUNCTION ARGUMENTS: for every line of standard input, JOBS at a time; they share JOBS cores
  lines=$(grep . || true)
  count=$(wc -l <<< "$lines")
  OMP_NUM_THREADS=$((count < JOBS ? JOBS / count : 1)) xargs -P "$JOBS" -I{} bash -euo pipefail -c "$*" <<< "$lines"
}
for s in $SEEDS; do echo "$s"; done | each corpora {}
for s in $SEEDS; do echo "base $s"; if [ "$START" = start ]; then echo "start $s"; fi; done | each {}
for s in $SEEDS; do echo "$s"; done | each ref {}
for s in $SEEDS; do echo "$s"; done | each score {}
for s in $SEEDS; do for a in $ARMS; do echo "$s $a"; done; done | each arm {}
for s in $SEEDS; do
  for a in ref $ARMS; do echo "$s $a"; done
  if [ "$TUNE_TOKENS" != 0 ]; then for a in $ARMS; do echo "$s ${a}_tuned"; done; fi
done | each evaluate {}
$PYTHON plot.py --runs "$OUT"
