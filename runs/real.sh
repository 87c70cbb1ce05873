#!/usr/bin/env bash
# The same four steps on real text: LaTeX of algebraic geometry (the Stacks project) as the target, the source of
# Python's standard library mixed into the noisy side at paragraph and line level. About 12 minutes on two cores.
#
#   MATH=stacks.tex.xz TOKENIZER=gpt2 bash runs/real.sh
#
# MATH is the project's .tex files one after the other (github.com/stacks/stacks-project), plain or .xz. TOKENIZER is
# `gpt2` (downloaded once) or a local file of GPT-2 merges; its first 2,048 ids make a vocabulary for a small model.
# TOKENS=100000 bash runs/real.sh ... tries the pipeline in a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
MATH=${MATH:?name the LaTeX file: MATH=stacks.tex.xz bash runs/real.sh} TOKENIZER=${TOKENIZER:-gpt2}
TOKENS=${TOKENS:-1536000} OUT=${OUT:-out/real} PYTHON=${PYTHON:-python} DATA=data/real
MODEL="--n_layer 4 --n_head 4 --n_embd 128 --block_size 256 --batch_tokens 2048"

[ -f data/real_source/noisy.jsonl ] || $PYTHON runs/mix_text.py --math "$MATH" --out data/real_source
[ -f $DATA/noisy.json ] || $PYTHON data.py --curated data/real_source/curated.jsonl --noisy data/real_source/noisy.jsonl \
  --tokenizer "$TOKENIZER" --vocab_size 2048 --held_out 0.1 --max_tokens 2000000 --out $DATA
train() {  # script, run, options
  $PYTHON "$1" --resume --data $DATA --out "$OUT/seed0/$2" $MODEL --eval_rows 64 "${@:3}"
}
train train_ref.py base --train noisy --train_tokens "$TOKENS" --lr 3e-3 --seed 1000 --eval_every 250
train train_ref.py ref --train curated --train_tokens $((TOKENS / 2)) --lr 1e-3 --init_from "$OUT/seed0/base/ckpt.pt" \
  --eval_every 50 --patience 4
$PYTHON score.py --ckpt "$OUT/seed0/ref/best.pt" --data $DATA --out "$OUT/seed0/scores"
export OMP_NUM_THREADS=1  # two arms at a time, a core each
LM="--train noisy --train_tokens $TOKENS --lr 1e-3 --init_from $OUT/seed0/base/ckpt.pt --eval_every 50"
train train_slm.py clm $LM --keep 1.0 &
train train_slm.py slm $LM --keep 0.4 --scores "$OUT/seed0/scores" &
wait
$PYTHON plot.py --runs "$OUT"
