#!/usr/bin/env bash
# A crawl of which a quarter is useful, and a reference model that exists already, from better text: SLM against CLM,
# distillation from the reference, and whole documents chosen by it. Eight seeds; more than three hours on two cores.
#
#   bash runs/crawl.sh
#   SEEDS=0 ARMS="slm distill" OUT=out/one bash runs/crawl.sh
#
# runs/demo.sh with another corpus for the arms: every document holds a problem, and chatter of 5 to 200 words before and
# after it. Restartable.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0 1 2 3 4 6 7 8} ARMS=${ARMS:-slm clm distill documents} OUT=${OUT:-out/crawl}
export DATA=${DATA:-data/crawl} CORPUS=${CORPUS:---p_chatter 0 --chatter_words 200} REF_DATA=${REF_DATA:-data/demo}
export TOKENS=${TOKENS:-7987200} KEEP=${KEEP:-0.2} CONTROL_LR=${CONTROL_LR:-2e-2} SNAPSHOT=${SNAPSHOT:-650}
exec bash runs/demo.sh
