#!/usr/bin/env bash
# The README's results: five seeds (corpus, initialisation and order of the rows all differ), SLM and its controls, by what
# each needs: the noisy text alone, the reference model besides, or the curated text too. An hour and a half on two
# cores; restartable, like runs/demo.sh, whose steps it runs. ARMS may also name random, low_ref, high_loss, and labels, the
# best that a selection can do: it knows the true labels.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0 1 2 3 4} OUT=${OUT:-out/seeds} SNAPSHOT=${SNAPSHOT:-325}
export ARMS=${ARMS:-slm clm clm_mixed distill documents}
exec bash runs/demo.sh
