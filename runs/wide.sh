#!/usr/bin/env bash
# One small reference model, larger models: the crawl (runs/crawl.sh) with arms of four times the reference's width.
# SLM, CLM, distillation, documents; three seeds. Minutes on a GPU, and hours on a processor.
#
#   bash runs/wide.sh
#   SEEDS=5 SLM_LR=2e-3 CONTROL_LR=2e-3 OUT=out/rate_2e-3 bash runs/wide.sh  # how the rates were chosen: by val of seed 5
#
# Restartable.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0 1 2} OUT=${OUT:-out/wide} DEVICE=${DEVICE:-auto}
export MODEL=${MODEL:---n_layer 3 --n_head 4 --n_embd 256} START_LR=${START_LR:-1e-3}
export TUNE_TOKENS=${TUNE_TOKENS:-0} SNAPSHOT=${SNAPSHOT:-5200}
LR=${SLM_LR:-5e-4} ARMS=slm bash runs/crawl.sh
LR=${CONTROL_LR:-1e-3} ARMS="clm distill documents" bash runs/crawl.sh
