#!/usr/bin/env bash
# GPT-2 (124M) is trained on with OpenWebMath, by CLM, by SLM and on random tokens, from the same weights, and evaluated
# on math.
#
#   TRAIN=train.jsonl bash runs/openwebmath.sh && bash runs/gpt2_math.sh     # one GPU of 24 GB
#   GPUS=4 bash runs/gpt2_math.sh                                            # several: the same result, sooner
#
# This was not run on a GPU yet: an estimate, not a measurement, is 6 to 7 hours on one of 24 GB. MICRO is the number of
# rows of a forward pass: as many as fit into the card's memory, and GPUS x MICRO must divide 128. The tokens of a forward
# pass are ranked together, so another MICRO gives (slightly) another SLM. BASE may be gpt2-medium, gpt2-large, gpt2-xl,
# or a folder of weights. After an interruption the same command goes on.
set -euo pipefail
BASE=${BASE:-gpt2}
[ ! -e "$BASE" ] || BASE=$(realpath "$BASE")
cd "$(dirname "$0")/.."
DATA=${DATA:-data/openwebmath} OUT=${OUT:-out/gpt2_math} PYTHON=${PYTHON:-python} GPUS=${GPUS:-1}
ARMS=${ARMS:-clm slm random} DATA_DIR=${DATA_DIR:-data/tasks} DEVICE=${DEVICE:-auto} SIZE=${SIZE:-full}
TASKS=${TASKS:-gsm8k math_oai svamp asdiv mawps tabmwp mathqa mmlu_stem sat_math} MICRO=${MICRO:-16}
TOKENS=499646464 REF_TOKENS=9961472 BATCH=524288 REF_BATCH=131072 EVERY=50   # 953 steps of 2^19; 76 of 2^17
T=1024 MODEL="--compile --fast" EVAL="--likelihood"
if [ "$SIZE" = tiny ]; then  # then BASE is a small folder, made by python -m weights.export
  T=128 MODEL="--warmup_steps 1 --fast" BATCH=1024 REF_BATCH=512 TOKENS=4096 REF_TOKENS=2048 MICRO=2 EVERY=2
  EVAL="--likelihood --shots 1 --max_new_tokens 8 --n 4"
fi
BASE_RUN=base_$(basename "$BASE")   # another BASE is another folder, and so never taken for this one
run="$PYTHON"
if [ "$GPUS" -gt 1 ]; then  # this is torchrun; the -- keeps it from taking --n for an option of its own
  run="$PYTHON -m torch.distributed.run --standalone --nproc_per_node $GPUS --"
fi
[ -f "$OUT/$BASE_RUN/ckpt.pt" ] || $PYTHON -m weights.published --model "$BASE" --out "$OUT/$BASE_RUN"

train() {  # script, run, options
  $run "$1" --resume --data "$DATA" --out "$OUT/$2" --device "$DEVICE" $MODEL --init_from "$OUT/$BASE_RUN/ckpt.pt" \
    --block_size $T --micro_rows "$MICRO" --eval_rows 64 --log_every 1 "${@:3}"
}
train train_ref.py ref --train_tokens $REF_TOKENS --batch_tokens $REF_BATCH --lr 5e-5 --eval_every 10 --patience 5
$run score.py --ckpt "$OUT/ref/best.pt" --data "$DATA" --out "$OUT/scores" --device "$DEVICE" --block_size $T \
  --batch_rows "$MICRO"
$PYTHON -m controls.rescore --how random --data "$DATA" --block_size $T --out "$OUT/random_scores"
for a in $ARMS; do
  script=train_slm.py
  case $a in
    clm) script=train_ref.py how="--train noisy" ;;
    slm) how="--keep 0.6 --scores $OUT/scores" ;;
    *)   how="--keep 0.6 --scores $OUT/${a}_scores --rank_by ref" ;;
  esac
  train $script "$a" --train_tokens $TOKENS --batch_tokens $BATCH --lr 1e-4 --eval_every $EVERY $how
done
$run eval_math.py --data "$DATA" --task $TASKS --data_dir "$DATA_DIR" --device "$DEVICE" $EVAL \
  --ckpt "$OUT/$BASE_RUN/ckpt.pt" "$OUT/ref/best.pt" $(for a in $ARMS; do echo "$OUT/$a/ckpt.pt"; done)
$PYTHON plot.py --runs "$OUT"
