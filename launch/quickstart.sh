#!/usr/bin/env bash
# Install, train for about two minutes from the weights in the package, then generate a clip along a camera path with
# what was trained. Nothing is downloaded but Python packages; two CPU cores are enough.
#   bash launch/quickstart.sh [OUT]                       OUT defaults to outputs/quickstart
#   CAMERA="orbit left 40 deg" bash launch/quickstart.sh  another path: see python -m camctrl_jax.camera preset --list
# Started again with the same OUT, the training goes on where it was (or is done already), and the clip is made anew.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-outputs/quickstart}"
camera="${CAMERA:-dolly in 1 m}"
source launch/environment.sh "quickstart"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$out/jax_cache}"

echo "== 1/2  training: configs/stage1.py:worlds_cpu"
python -m camctrl_jax.train --config=configs/stage1.py:worlds_cpu --workdir="$out/run"

echo "== 2/2  generating along the path: $camera"
python -m camctrl_jax.generate --checkpoint "$out/run" --worlds-seed 1000001 --frames 49 \
    --camera "$camera" --out "$out/clip"

echo
echo "checkpoint         $out/run/checkpoints/$(ls "$out/run/checkpoints" | grep -x '[0-9]*' | sort -n | tail -1)"
echo "video              $out/clip/video.mp4   (beside the true render of the same path: $out/clip/comparison.mp4)"
echo "camera trajectory  $out/clip/trajectory.png"
