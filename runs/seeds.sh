#!/usr/bin/env bash
# The README's results: five seeds (corpus, initialisation and order of the rows all differ), SLM and its controls: CLM,
# random tokens, highest loss, CLM on noisy + curated text, CLM at three times the learning rate, fine-tuning afterwards.
# About an hour on two cores; restartable, like runs/demo.sh, whose steps it runs.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0 1 2 3 4} OUT=${OUT:-out/seeds}
export ARMS=${ARMS:-clm slm random high_loss clm_mixed clm_lr3} TUNED=${TUNED:-clm_tuned slm_tuned}
exec bash runs/demo.sh
