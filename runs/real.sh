#!/usr/bin/env bash
# The same four steps on real text, three pairs of a curated and a noisy side. Three seeds (documents, mixture,
# initialisation and order of the rows all differ). After an interruption the same command goes on.
#
#   MATH=stacks.tex.xz TOKENIZER=gpt2 bash runs/real.sh                # LaTeX, with program source mixed in
#   PAIR=posts POSTS=newsgroups.jsonl.xz GROUP=sci.space TOKENIZER=gpt2 bash runs/real.sh   # one group of twenty
#   PAIR=school PROBLEMS=gsm8k_train.jsonl BOOKS=textbooks.jsonl.xz TOKENIZER=gpt2 bash runs/real.sh
#   SIZE=tiny SEEDS=0 MATH=... TOKENIZER=... bash runs/real.sh         # a try
#
# MATH: the Stacks project's .tex files one after the other (github.com/stacks/stacks-project), plain or .xz. POSTS, and
# PROBLEMS and BOOKS: what corpora/natural_pairs.py reads. TOKENIZER is `gpt2` (it is downloaded once) or a local file of
# GPT-2 merges; its first 2,048 ids make a vocabulary for a small model.
set -euo pipefail
export PAIR=${PAIR:-latex} GROUP=${GROUP:-sci.space} TOKENIZER=${TOKENIZER:-gpt2}
case $PAIR in
  latex)  : "${MATH:?name the LaTeX file: MATH=stacks.tex.xz bash runs/real.sh}"
          export MATH=$(realpath "$MATH") ;;
  posts)  : "${POSTS:?name the posts: PAIR=posts POSTS=newsgroups.jsonl.xz bash runs/real.sh}"
          export POSTS=$(realpath "$POSTS") ;;
  school) : "${PROBLEMS:?name the problems: PAIR=school PROBLEMS=... BOOKS=... bash runs/real.sh}"
          : "${BOOKS:?name the books: PAIR=school PROBLEMS=... BOOKS=... bash runs/real.sh}"
          export PROBLEMS=$(realpath "$PROBLEMS") BOOKS=$(realpath "$BOOKS") ;;
  *)      echo "real.sh: there is no pair $PAIR; there are latex, posts and school" >&2; exit 2 ;;
esac
[ ! -f "$TOKENIZER" ] || TOKENIZER=$(realpath "$TOKENIZER")
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0 1 2} ARMS=${ARMS:-clm slm random clm_mixed clm_curated documents distill}
export OUT=${OUT:-out/real/$PAIR} DATA=${DATA:-data/real/$PAIR} PYTHON=${PYTHON:-python} JOBS=${JOBS:-2} SIZE=${SIZE:-full}
export TOKENS=${TOKENS:-1536000} REF_TOKENS=${REF_TOKENS:-768000}  # of the base and of each arm; of the reference at most
export CURATED=${CURATED:-600} MIX=${MIX:-1}  # documents held out too, of the natural pairs; curated sides in the mixture
TUNE_TOKENS=204800 LIMIT=2000000 SECTIONS="--curated 300 --noisy 450"
export ROWS=64 MEASURE=${MEASURE:-}  # of val and test, for the losses; more options of extras/measures.py
export MODEL="--n_layer 4 --n_head 4 --n_embd 128"
if [ "$SIZE" = tiny ]; then
  TOKENS=20480 REF_TOKENS=10240 TUNE_TOKENS=4096 LIMIT=300000 SECTIONS="--curated 60 --noisy 20" CURATED=60 ROWS=8
  MODEL="--n_layer 1 --n_head 2 --n_embd 16 --warmup_steps 2"
fi
export TUNE_TOKENS LIMIT SECTIONS

train() {  # script, seed, run, options
  $PYTHON "$1" --resume --data "$DATA/seed$2" --out "$OUT/seed$2/$3" $MODEL --block_size 256 --batch_tokens 2048 \
    --eval_rows 64 --seed "$2" "${@:4}"
}
source_files() {  # seed, folder: curated.jsonl and noisy.jsonl
  case $PAIR in
    latex)  $PYTHON -m corpora.mix_python --math "$MATH" --out "$2" --seed "$1" $SECTIONS ;;
    posts)  $PYTHON -m corpora.natural_pairs --posts "$POSTS" --group "$GROUP" --curated "$CURATED" --out "$2" --seed "$1" ;;
    school) $PYTHON -m corpora.natural_pairs --problems "$PROBLEMS" --books "$BOOKS" --curated "$CURATED" --out "$2" \
              --seed "$1" ;;
  esac
}
before() {  # for a seed: corpus, base, reference model, scores
  raw=$DATA/seed$1/raw how="--tokenizer $TOKENIZER --vocab_size 2048 --max_tokens $LIMIT --held_out 0.1"
  if [ "$PAIR" = posts ]; then how="$how --field other wanted --answer_field wanted --held_out 0.25"; fi
  if [ "$PAIR" = school ]; then how="$how --field text question answer --answer_field answer"; fi
  [ -f "$raw/noisy.jsonl" ] || source_files "$1" "$raw"
  [ -f "$DATA/seed$1/val.json" ] ||
    $PYTHON prepare.py --curated "$raw/curated.jsonl" --noisy "$raw/noisy.jsonl" $how --out "$DATA/seed$1"
  [ -f "$DATA/seed$1/noisy+${MIX}xcurated.json" ] || $PYTHON prepare.py --out "$DATA/seed$1" --mix "$MIX"
  train train_ref.py "$1" base --train noisy --train_tokens "$TOKENS" --lr 3e-3 --seed $((1000 + $1)) \
    --eval_every 250
  train train_ref.py "$1" ref --train curated --train_tokens "$REF_TOKENS" --lr 1e-3 --eval_every 50 \
    --patience 4 --init_from "$OUT/seed$1/base/ckpt.pt"
  $PYTHON score.py --ckpt "$OUT/seed$1/ref/best.pt" --data "$DATA/seed$1" --out "$OUT/seed$1/scores"
  measures "$1" ref best
}
arm() {  # seed, name
  case $2 in
    clm)       how="--keep 1.0" ;;
    slm)       how="--keep 0.4" ;;
    clm_mixed) how="--keep 1.0 --train noisy+${MIX}xcurated" ;;  # a control: all the text there is
    clm_curated) how="--keep 1.0 --train curated" ;;        # a control: no noisy text
    distill)   how="--keep 1.0 --distill $OUT/seed$1/ref/best.pt" ;;
    documents_excess)  # of the base less the reference, its mean over a document: what Moore and Lewis select by
      $PYTHON score.py --ckpt "$OUT/seed$1/base/ckpt.pt" --data "$DATA/seed$1" --out "$OUT/seed$1/base_scores"
      how="--keep 0.4 --select documents --more_scores $OUT/seed$1/base_scores --combine less" ;;
    *)         how="--keep 0.4 --select $2" ;;
  esac
  train train_slm.py "$1" "$2" --train_tokens "$TOKENS" --lr 1e-3 --init_from "$OUT/seed$1/base/ckpt.pt" \
    --eval_every 50 --scores "$OUT/seed$1/scores" $how
  train train_ref.py "$1" "$2_tuned" --train curated --train_tokens "$TUNE_TOKENS" --lr 3e-4 --warmup_steps 10 \
    --eval_every 25 --init_from "$OUT/seed$1/$2/ckpt.pt"
  measures "$1" "$2" ckpt
  measures "$1" "$2_tuned" ckpt
}
measures() {  # seed, run, checkpoint
  $PYTHON -m extras.measures --data "$DATA/seed$1" --max_rows "$ROWS" $MEASURE --ckpt "$OUT/seed$1/$2/$3.pt"
}
export -f train source_files before arm measures
export OMP_NUM_THREADS=1  # JOBS processes run at a time, a core each
for s in $SEEDS; do echo "$s"; done | xargs -P "$JOBS" -I{} bash -euo pipefail -c "before {}"
for s in $SEEDS; do for a in $ARMS; do echo "$s $a"; done; done |
  xargs -P "$JOBS" -I{} bash -euo pipefail -c "arm {}"
$PYTHON plot.py --runs "$OUT"
