#!/usr/bin/env bash
# GPT-2 (124M) is trained on with OpenWebMath, by CLM, by SLM and on random tokens, from the same weights,
# and evaluated on math.
#
#   TRAIN=train.jsonl bash runs/openwebmath.sh && bash runs/gpt2_math.sh     # one GPU of 24 GB
#   GPUS=4 bash runs/gpt2_math.sh                                            # several: the same result, sooner
#
# This was not run on a GPU yet. What follows is an estimate, not a measurement, for one of 24 GB with bf16
# (RTX 4090 class, 80,000 tokens/s at 40% of its peak): the reference model takes 3 minutes, the scores half
# an hour, CLM 1.8 hours, SLM and random about 1.6 hours each, the evaluation half an hour; in all 6 to 7
# hours, 3 to 5 dollars where such a card is rented. A step is one forward and one backward pass for each
# micro-batch, whatever the arm. The output layer is 29% of CLM's operations. SLM does not go backward
# through it for the 40% of the tokens that are not selected, which leaves 0.92 of CLM's operations; random
# does not go forward through it for these either, which leaves 0.88.
#
# MICRO is the number of rows of a forward pass: as many as fit into the card's memory, and GPUS x MICRO
# must divide 128. The tokens of a forward pass are ranked together, so another MICRO gives (slightly)
# another SLM. BASE may be gpt2-medium, gpt2-large, gpt2-xl, or a file or folder of GPT-2 weights. After an
# interruption the same command goes on.
set -euo pipefail
BASE=${BASE:-gpt2}
[ ! -e "$BASE" ] || BASE=$(realpath "$BASE")
cd "$(dirname "$0")/.."
DATA=${DATA:-data/openwebmath} OUT=${OUT:-out/gpt2_math} PYTHON=${PYTHON:-python} GPUS=${GPUS:-1}
SEEDS=${SEEDS:-0} ARMS=${ARMS:-clm slm random} DATA_DIR=${DATA_DIR:-data/tasks}
DEVICE=${DEVICE:-auto} SIZE=${SIZE:-full}
TASKS=${TASKS:-gsm8k math_oai svamp asdiv mawps tabmwp mathqa mmlu_stem sat_math}
TOKENS=${TOKENS:-499646464} MICRO=${MICRO:-16} REF_TOKENS=${REF_TOKENS:-9961472}  # 953 steps of 2^19; 76 of 2^17
T=1024 MODEL="--compile" BATCH=524288 REF_BATCH=131072 EVAL="--likelihood" EVERY=50
if [ "$SIZE" = tiny ]; then  # then BASE is a small folder, made by python -m extras.export
  T=128 MODEL="--warmup_steps 1" BATCH=1024 REF_BATCH=512 TOKENS=4096 REF_TOKENS=2048 MICRO=2 EVERY=2
  EVAL="--likelihood --shots 1 --max_new_tokens 8 --n 4"
fi
launch="$PYTHON"
if [ "$GPUS" -gt 1 ]; then  # this is torchrun; the -- keeps it from taking --n for an option of its own
  launch="$PYTHON -m torch.distributed.run --standalone --nproc_per_node $GPUS --"
fi

train() {  # script, seed, run, options
  $launch "$1" --resume --data "$DATA" --out "$OUT/seed$2/$3" --device "$DEVICE" $MODEL --init_from "$BASE" \
    --seed "$2" --block_size $T --micro_rows "$MICRO" --weight_decay 0.1 --eval_rows 64 --log_every 1 "${@:4}"
}
evaluate() {  # checkpoints, options
  $launch eval_math.py --data "$DATA" --task $TASKS --data_dir "$DATA_DIR" --device "$DEVICE" $EVAL "$@"
}
for s in $SEEDS; do
  train train_ref.py "$s" ref --train curated --train_tokens "$REF_TOKENS" --batch_tokens $REF_BATCH --lr 5e-5 \
    --eval_every 10 --patience 5
  $launch score.py --ckpt "$OUT/seed$s/ref/best.pt" --data "$DATA" --out "$OUT/seed$s/scores" --device "$DEVICE" \
    --block_size $T --batch_rows "$MICRO"
  for a in $ARMS; do
    case $a in
      clm) how="--keep 1.0" ;;
      slm) how="--keep 0.6 --scores $OUT/seed$s/scores" ;;
      *)   how="--keep 0.6 --select $a --scores $OUT/seed$s/scores" ;;
    esac
    train train_slm.py "$s" "$a" --train_tokens "$TOKENS" --batch_tokens $BATCH --lr 1e-4 --eval_every $EVERY \
      --save_every $EVERY $how
  done
  evaluate --ckpt "$OUT/seed$s/ref/best.pt" $(for a in $ARMS; do echo "$OUT/seed$s/$a/ckpt.pt"; done)
done
evaluate --ckpt "$BASE" --out "$OUT/start_eval"  # the weights that all began with
$PYTHON plot.py --runs "$OUT"
