#!/usr/bin/env bash
# Reproduce the weights embedded in the package from nothing, on one GPU: VAE, base without a camera, camera control,
# evaluation on held-out worlds, and the weights folder. About 25 minutes on one H200.
#   bash launch/worlds_weights.sh OUT
# The length of each part can be changed: VAE_STEPS, BASE_STEPS, STAGE1_STEPS, WORLDS (clips), EVALUATED (held-out worlds).
# Every part continues where it was when the script is started again with the same OUT.
set -euo pipefail
out="${1:?usage: bash launch/worlds_weights.sh OUT}"
cd "$(dirname "$0")/.."
mkdir -p "$out"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$out/jax_cache}"
worlds="${WORLDS:-20000}"

part() { echo "=== $1 at $(date +%T), $SECONDS s" | tee -a "$out/times.txt"; }

part "vae"
python3 -m camctrl_jax.train --config=configs/vae.py:worlds --workdir="$out/vae" \
    ${VAE_STEPS:+--config.steps="$VAE_STEPS"} ${VAE_FLAGS:-}
part "base"
python3 -m camctrl_jax.train --config=configs/base.py:worlds --workdir="$out/base" --config.vae.weights="$out/vae" \
    --config.data.worlds.seeds="(0, $worlds)" --config.data.worlds.cache="$out/cache" \
    ${BASE_STEPS:+--config.steps="$BASE_STEPS"} ${BASE_FLAGS:-}
part "stage 1"
python3 -m camctrl_jax.train --config=configs/stage1.py:worlds --workdir="$out/stage1" --config.vae.weights="$out/vae" \
    --config.init_from="$out/base" --config.data.worlds.seeds="(0, $worlds)" --config.data.worlds.cache="$out/cache" \
    ${STAGE1_STEPS:+--config.steps="$STAGE1_STEPS"} ${STAGE1_FLAGS:-}
part "evaluation"
python3 -m camctrl_jax.evaluate worlds --checkpoint "$out/stage1" --count "${EVALUATED:-64}" --out "$out/evaluation"
part "weights folder"
python3 -m camctrl_jax.export weights --checkpoint "$out/stage1" --vae "$out/vae" \
    --evaluation "$out/evaluation/results.json" --out "$out/weights"
part "done"
