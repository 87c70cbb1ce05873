# The steps of one seed on the built-in corpus, for the scripts of this folder that run many of them. Each step can be
# given again after an interruption; scripts that run at the same time need different DATA. JOBS processes run at a
# time, SIZE=tiny is a try, and PYTHON and DEVICE are what runs. (No spaces in OUT, DATA and PYTHON.)
#
# The name of an arm says what it is and where it differs from what was tuned: slm, slm-keep0.04, clm-lr0.01. clm-x2:
# with twice the tokens, of a corpus that has three times as many. runs/map.sh has two more: slm-chatter0.9, on a corpus
# of that, and slm-clean250, by a reference that has read so many problems. Numbers have no exponent.
export DATA=${DATA:-data/seeds} PYTHON=${PYTHON:-python} JOBS=${JOBS:-2} DEVICE=${DEVICE:-cpu} SIZE=${SIZE:-full}
export TOKENS=4992000 BASE_TOKENS=3000000 REF_TOKENS=2000000 TUNE_TOKENS=2000000 EVERY=325 CORPUS="" PROBLEMS=0
if [ "$SIZE" = tiny ]; then  # a try, with a corpus of its own: one that is there is not made again
  DATA=$DATA-tiny
  TOKENS=30720 BASE_TOKENS=15360 REF_TOKENS=15360 TUNE_TOKENS=3072 EVERY=10 PROBLEMS=10
  CORPUS="--noisy_tokens 40000 --curated_problems 200 --held_out_problems 20"
fi

setting() {  # ARM NAME [DEFAULT]: the number behind -NAME in the name of an arm
  case $1 in *-$2[0-9]*) rest=${1#*-$2}; echo "${rest%%-*}" ;; *) echo "${3-}" ;; esac
}
corpus_of() {  # ARM: what its corpus's name has behind the seed
  case $1 in *-chatter*) echo "-chatter$(setting "$1" chatter)" ;; *-x[23]) echo "-x3" ;; esac
}
corpus() {  # SEED NAME OPTIONS: a corpus of the seed, with these options
  [ -f "$DATA/seed$1${2-}/val.json" ] || $PYTHON prepare.py --out "$DATA/seed$1${2-}" --seed "$1" $CORPUS "${@:3}"
}
train() {  # SCRIPT SEED RUN OPTIONS; a later option replaces an earlier one
  $PYTHON $1 --resume --data "$DATA/seed$2" --out "$OUT/seed$2/$3" --device "$DEVICE" --seed "$2" --eval_every $EVERY \
    "${@:4}"
}
base() {  # SEED
  train train_ref.py "$1" base --train web --train_tokens $BASE_TOKENS --seed $((1000 + $1))
}
ref() {  # SEED NAME: the reference, of the curated side of that corpus
  train train_ref.py "$1" "ref$2" --data "$DATA/seed$1$2" --init_from "$OUT/seed$1/base/ckpt.pt" \
    --train_tokens $REF_TOKENS
}
scores() {  # SEED CORPUS [REF]: the reference losses of that corpus, by the reference or by REF, as in -clean250
  $PYTHON score.py --ckpt "$OUT/seed$1/ref${3-}/ckpt.pt" --data "$DATA/seed$1$2" --out "$OUT/seed$1/scores$2${3-}" \
    --device "$DEVICE"
}
copies() { setting "$1" repeat 80; }  # ARM: how often a mixture has the curated side
mix() {  # SEED COPIES
  [ -f "$DATA/seed$1/noisy+$2xcurated.json" ] || $PYTHON prepare.py --out "$DATA/seed$1" --mix "$2"
}
arm() {  # SEED ARM: from the base; the same order of the text in all, the loss differs
  local at="$OUT/seed$1" script=train_slm.py keep="" rate=0.005 how="--rank_by ref"
  local of_corpus clean data reference own rescore tokens
  of_corpus=$(corpus_of "$2")
  clean=$(setting "$2" clean)
  data="$DATA/seed$1$of_corpus"
  reference="$at/scores$of_corpus${clean:+-clean$clean}"         # the folder of the reference losses
  own="$at/$2_scores"                                            # that of a control's own scores
  rescore="$PYTHON -m controls.rescore --data $data --seed $1 --out $own"
  case ${2%%-*} in
    slm)          keep=0.07 own=$reference how="--rank_by excess" ;;
    high_loss)    keep=0.07 own=$reference how="--rank_by loss" ;;
    low_ref)      keep=0.35 own=$reference ;;
    random)       keep=0.07; $rescore --how random ;;
    documents)    keep=0.3; $rescore --how documents --scores "$reference" ;;
    labels)       keep=1.0; $rescore --labels question solution result ;;
    frozen)       keep=0.2
                  $PYTHON score.py --ckpt "$at/base/ckpt.pt" --data "$data" --out "$at/$2_base" --device "$DEVICE"
                  $rescore --how less --scores "$reference" "$at/$2_base" ;;
    clm)          script=train_ref.py how="--train noisy" ;;
    curated)      script=train_ref.py rate=0.01 how="--train curated" ;;
    mixture)      script=train_ref.py rate=0.01 how="--train noisy+$(copies "$2")xcurated" ;;
    distill)      script="-m distillation.corpus" rate=0.01 how="--ref $at/ref/ckpt.pt" ;;
    distill_half) script="-m distillation.corpus" rate=0.01 how="--ref $at/ref/ckpt.pt --lm_share 0.5" ;;
  esac
  keep=$(setting "$2" keep "$keep")
  tokens=$(awk "BEGIN { print int($(setting "$2" x 1) * $TOKENS) }")
  [ -z "$keep" ] || how="$how --scores $own --keep $keep"
  train "$script" "$1" "$2" --data "$data" --init_from "$at/base/ckpt.pt" --lr "$(setting "$2" lr $rate)" \
    --train_tokens "$tokens" --snapshot_every $EVERY $how
}
tuned() {  # SEED ARM: the same fine-tuning on the curated text after any arm
  train train_ref.py "$1" "$2_tuned" --init_from "$OUT/seed$1/$2/ckpt.pt" --train_tokens $TUNE_TOKENS --lr 0.01 \
    --warmup_steps 10
}
evaluate() {  # SEED RUN: accuracy without shots, along the arms that the figure shows; at the end with two
  at="$OUT/seed$1/$2" about="--data $DATA/seed$1 --device $DEVICE" along=""
  case $2 in slm|clm) along=$(ls "$at"/step_*.pt 2>/dev/null || true) ;; esac
  for end in best ckpt; do
    [ $end = ckpt ] || [ "${2%%-*}" = ref ] || continue  # of a reference both
    $PYTHON eval_math.py $about --n $PROBLEMS --ckpt "$at/$end.pt"
    $PYTHON eval_math.py $about --n $PROBLEMS --shots 0 --ckpt ${along:-"$at/$end.pt"} --out "$at/eval0"
  done
}
export -f setting corpus_of corpus train base ref scores copies mix arm tuned evaluate

each() {  # for every line of standard input, put in the place of {}, JOBS at a time; they share JOBS cores
  lines=$(grep . || true)
  count=$(wc -l <<< "$lines")
  OMP_NUM_THREADS=$((count < JOBS ? JOBS / count : 1)) xargs -P "$JOBS" -I{} bash -euo pipefail -c "$*" <<< "$lines"
}
