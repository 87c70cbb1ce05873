#!/usr/bin/env bash
# What is to be measured on a GPU, in one command that ends within 25 minutes (H100): the tests that need one,
# a training step at GPT-2's size compiled in bfloat16, scoring, generation, and the demo.
#
#   bash runs/gpu.sh                                     # writes results/gpu/
#   PARTS="environment tests" bash runs/gpu.sh           # some of the parts
#   SIZE=tiny DEVICE=cpu OUT=out/try bash runs/gpu.sh    # a try without a GPU, in two minutes
#
# Each part has a time limit, writes OUT/PART.log, and adds its exit code and seconds to OUT/summary.tsv. A
# part that fails does not stop the others; then the exit code is 1. Run the same again after an interruption:
# parts that ended well are not run again. Delete OUT to measure anew.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-cuda} SIZE=${SIZE:-full}
export OUT=${OUT:-results/gpu} WORK=${WORK:-out/gpu}   # what stays; the run folders of the demo
PARTS=${PARTS:-environment tests training scoring generation demo}
if [ "$SIZE" = tiny ]; then
  SHAPE="--part demo --rows 1 --rounds 1 --seconds 0" STEPS="clm_nanogpt slm_0.3" COMPILE=""
  QUESTIONS="--questions 4 --n_layer 1 --n_head 2 --n_embd 32 --prefix 20 --question 6 --new_tokens 5"
  DEMO="TOKENS=15360 START_TOKENS=15360 BASE_TOKENS=15360 REF_TOKENS=15360 TUNE_TOKENS=0 NOISY=40000 PROBLEMS=4 ROWS=16"
else
  SHAPE="--part gpt2 --rounds 10 --seconds 20" STEPS="clm_nanogpt clm slm_0.6 slm_0.3" COMPILE="--compile"
  QUESTIONS="--questions 1024 --naive_questions 16"
  DEMO="JOBS=${JOBS:-4}"
fi
export SHAPE STEPS COMPILE QUESTIONS DEMO

environment() {
  [ "$DEVICE" = cpu ] || nvidia-smi
  $PYTHON -c 'import platform, torch; from engine.files import source_revision
print("Python", platform.python_version(), "torch", torch.__version__, "CUDA", torch.version.cuda)
print("source", source_revision(), "CPU threads", torch.get_num_threads())
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory, "bytes")'
}
tests() { $PYTHON -m pytest -q -m cuda tests; }
training() {  # time, tokens/s, MFU and memory of a step, with 1 and with 8 micro-batches
  $PYTHON -m bench.step $SHAPE --steps $STEPS --micro_batches 1 8 $COMPILE --device "$DEVICE" \
    --out "$OUT/training"
}
scoring() {  # not compiled, as score.py does it
  $PYTHON -m bench.step $SHAPE --steps forward score --device "$DEVICE" --out "$OUT/scoring"
}
generation() { $PYTHON -m bench.generation $QUESTIONS --device "$DEVICE" --out "$OUT/generation"; }
demo() {
  mkdir -p "$OUT/demo"
  env $DEMO OUT="$WORK/demo" DATA="$WORK/data" bash runs/demo.sh
  cp "$WORK/demo/results.json" "$WORK/demo/headline.png" "$OUT/demo"
}
export -f environment tests training scoring generation demo

mkdir -p "$OUT"
touch "$OUT/summary.tsv"
child=
part() {  # NAME SECONDS: run the function of this name, for so many seconds at most
  [[ " $PARTS " == *" $1 "* ]] || return 0
  if grep -q "^$1"$'\t0\t' "$OUT/summary.tsv"; then
    echo "$1: done before"
    return 0
  fi
  local start=$SECONDS code=0
  # In the background, so that Ctrl-C ends this script at once. A part has 15 s to save when its time is up.
  timeout -k 15 "$2" bash -euo pipefail -c "$1" > "$OUT/$1.log" 2>&1 &
  child=$!
  wait "$child" || code=$?
  grep -v "^$1"$'\t' "$OUT/summary.tsv" > "$OUT/summary.tmp" || true  # without what an earlier try left
  printf '%s\t%s\t%s\n' "$1" "$code" $((SECONDS - start)) >> "$OUT/summary.tmp"
  mv "$OUT/summary.tmp" "$OUT/summary.tsv"
  case $code in
    0)       echo "$1: done in $((SECONDS - start)) s" ;;
    124|137) echo "$1: not done within $2 s, see $OUT/$1.log" ;;
    *)       echo "$1: exit code $code, see $OUT/$1.log" ;;
  esac
}
trap '[ -z "$child" ] || kill "$child" || true; exit 130' INT TERM
part environment 60
part tests 300
part training 420
part scoring 90
part generation 120
part demo 360
! cut -f 2 "$OUT/summary.tsv" | grep -qv '^0$'  # 1 where a part did not end well
