#!/usr/bin/env bash
# The README's results: five seeds (corpus, initialisation and order of the rows all differ), SLM and its controls, by what
# each needs: the noisy text alone, the reference model besides, or the curated text too. Two hours and a half on two
# cores; restartable, like runs/demo.sh, whose steps it runs. `labels` is no control: it knows the true labels.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0 1 2 3 4} OUT=${OUT:-out/seeds} SNAPSHOT=${SNAPSHOT:-130}
export ARMS=${ARMS:-slm clm clm_mixed documents distill random labels}
exec bash runs/demo.sh
