#!/usr/bin/env bash
# A setting where SLM should lose: numbers up to 40, so that there are four times as many facts, and a reference model that
# has not learned most of them. SLM, CLM and the mixture on three seeds; half an hour to an hour on two cores.
#
#   bash runs/hard.sh
#
# runs/demo.sh with another corpus and shorter arms. Restartable.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEEDS=${SEEDS:-0 1 2} ARMS=${ARMS:-slm clm clm_mixed} OUT=${OUT:-out/hard} TOKENS=${TOKENS:-3993600}
export KEEP=${KEEP:-0.3} CONTROL_LR=${CONTROL_LR:-1e-2} DATA=${DATA:-data/hard}
export CORPUS=${CORPUS:---largest 40 --curated_documents 200}
exec bash runs/demo.sh
