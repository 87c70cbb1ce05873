#!/usr/bin/env bash
# The same four steps on real text. The curated side is LaTeX of algebraic geometry (the Stacks project);
# into the noisy side the source of Python's standard library is mixed, between paragraphs and between
# lines. Three seeds (sections, mixture, initialisation and order of the rows all differ) took about 75
# minutes on two cores. After an interruption the same command goes on.
#
#   MATH=stacks.tex.xz TOKENIZER=gpt2 bash runs/real.sh
#   SIZE=tiny SEEDS=0 MATH=... TOKENIZER=... bash runs/real.sh      # a try
#
# MATH is the project's .tex files one after the other (github.com/stacks/stacks-project), plain or .xz.
# TOKENIZER is `gpt2` (it is downloaded once) or a local file of GPT-2 merges; its first 2,048 ids make a
# vocabulary for a small model.
set -euo pipefail
MATH=$(realpath "${MATH:?name the LaTeX file: MATH=stacks.tex.xz bash runs/real.sh}")
TOKENIZER=${TOKENIZER:-gpt2}
[ ! -f "$TOKENIZER" ] || TOKENIZER=$(realpath "$TOKENIZER")
cd "$(dirname "$0")/.."
export MATH TOKENIZER SEEDS=${SEEDS:-0 1 2} ARMS=${ARMS:-clm slm random clm_mixed clm_curated}
export OUT=${OUT:-out/real} DATA=${DATA:-data/real} PYTHON=${PYTHON:-python} JOBS=${JOBS:-2} SIZE=${SIZE:-full}
export TOKENS=1536000 LIMIT=2000000 SECTIONS="--curated 300 --noisy 450"
export MODEL="--n_layer 4 --n_head 4 --n_embd 128"
if [ "$SIZE" = tiny ]; then
  TOKENS=20480 LIMIT=300000 SECTIONS="--curated 60 --noisy 20"
  MODEL="--n_layer 1 --n_head 2 --n_embd 16 --warmup_steps 2"
fi

train() {  # script, seed, run, options
  $PYTHON "$1" --resume --data "$DATA/seed$2" --out "$OUT/seed$2/$3" $MODEL --block_size 256 --batch_tokens 2048 \
    --eval_rows 64 --seed "$2" "${@:4}"
}
before() {  # for a seed: corpus, base, reference model, scores
  raw=$DATA/seed$1/raw corpus="--tokenizer $TOKENIZER --vocab_size 2048 --held_out 0.1"
  [ -f "$raw/noisy.jsonl" ] || $PYTHON -m corpora.mix_python --math "$MATH" --out "$raw" --seed "$1" $SECTIONS
  [ -f "$DATA/seed$1/noisy.json" ] ||
    $PYTHON prepare.py --curated "$raw/curated.jsonl" --noisy "$raw/noisy.jsonl" $corpus --max_tokens "$LIMIT" \
      --out "$DATA/seed$1"
  [ -f "$DATA/seed$1/noisy+1xcurated.json" ] || $PYTHON prepare.py --out "$DATA/seed$1" --mix 1
  train train_ref.py "$1" base --train noisy --train_tokens "$TOKENS" --lr 3e-3 --seed $((1000 + $1)) \
    --eval_every 250
  train train_ref.py "$1" ref --train curated --train_tokens $((TOKENS / 2)) --lr 1e-3 --eval_every 50 \
    --patience 4 --init_from "$OUT/seed$1/base/ckpt.pt"
  $PYTHON score.py --ckpt "$OUT/seed$1/ref/best.pt" --data "$DATA/seed$1" --out "$OUT/seed$1/scores"
}
arm() {  # seed, name
  case $2 in
    clm)       how="--keep 1.0" ;;
    slm)       how="--keep 0.4" ;;
    clm_mixed) how="--keep 1.0 --train noisy+1xcurated" ;;  # a control: all the text there is
    clm_curated) how="--keep 1.0 --train curated" ;;       # a control: no noisy text (its best val loss counts)
    *)         how="--keep 0.4 --select $2" ;;
  esac
  train train_slm.py "$1" "$2" --train_tokens "$TOKENS" --lr 1e-3 --init_from "$OUT/seed$1/base/ckpt.pt" \
    --eval_every 50 --scores "$OUT/seed$1/scores" $how
}
export -f train before arm
export OMP_NUM_THREADS=1  # JOBS processes run at a time, a core each
for s in $SEEDS; do echo "$s"; done | xargs -P "$JOBS" -I{} bash -euo pipefail -c "before {}"
for a in $ARMS; do for s in $SEEDS; do echo "$s $a"; done; done |
  xargs -P "$JOBS" -I{} bash -euo pipefail -c "arm {}"
$PYTHON plot.py --runs "$OUT"
