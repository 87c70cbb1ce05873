#!/usr/bin/env bash
# The demo's tables at keep 0.3 in docs/results.md: SLM and its controls, by what each needs: the noisy text alone, the
# reference model besides, or the curated text too. Five seeds (corpus, initialisation and order of the rows all differ),
# and four more of SLM and CLM, whose difference varies most. Two and a half hours on two cores; restartable, like
# runs/demo.sh, whose steps it runs. ARMS may also name documents, random, low_ref, high_loss, and labels, the best that a
# selection can do: it knows the true labels. SEEDS: only these, all arms.
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-out/seeds} SNAPSHOT=${SNAPSHOT:-325} KEEP=${KEEP:-0.3} CONTROL_LR=${CONTROL_LR-1e-2}
SEEDS=${SEEDS:-0 1 2 3 4} ARMS=${ARMS:-slm clm clm_mixed distill} bash runs/demo.sh
if [ -z "${SEEDS:-}" ]; then SEEDS="6 7 8 9" ARMS="slm clm" bash runs/demo.sh; fi
