#!/usr/bin/env bash
# How steady are the figures, and which learning rate does each arm want? runs/demo.sh at three learning rates: those of
# seed 5 choose, by val, what runs/demo.sh uses for the other seeds.
#
#   bash runs/steady.sh                          # forty minutes on two cores
#   SEEDS="0 1" LRS=5e-3 ARMS="clm slm" bash runs/steady.sh
#
# `python -m extras.steady --runs out/steady` prints arm against learning rate. Restartable.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-5} ARMS=${ARMS:-slm clm clm_mixed documents_0.3 documents distill} PYTHON=${PYTHON:-python}
export SNAPSHOT=${SNAPSHOT:-1300} TOKENS=${TOKENS:-3993600} KEEP=${KEEP:-0.3}
runs=${OUT:-out/steady}
for lr in ${LRS:-5e-3 2e-3 1e-2}; do  # one reference model and one start for all of them
  LR=$lr REFS="$runs" OUT="$runs/lr$lr" bash runs/demo.sh
done
$PYTHON -m extras.steady --runs "$runs"
