#!/usr/bin/env bash
# The whole method on the built-in corpus: the README's eight commands, with the two arms side by side.
#
#   bash runs/demo.sh      # five to ten minutes on two cores; writes data/demo and out/
#
# After an interruption the same command goes on where it was cut off.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -f data/demo/val.json ] || python prepare.py
python train_ref.py --resume --train web --out out/base --train_tokens 3e6
python train_ref.py --resume --init_from out/base/ckpt.pt --train_tokens 2e6
python score.py
OMP_NUM_THREADS=1 python train_slm.py --resume --init_from out/base/ckpt.pt --keep 0.07 &
trap 'kill $! 2> /dev/null || true' EXIT  # it must not go on alone
OMP_NUM_THREADS=1 python train_ref.py --resume --init_from out/base/ckpt.pt --train noisy --out out/clm
wait $!
python eval_math.py --shots 0 --ckpt out/base/ckpt.pt out/ref/ckpt.pt out/clm/ckpt.pt out/slm/ckpt.pt
python plot.py
