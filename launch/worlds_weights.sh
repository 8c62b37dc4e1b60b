#!/usr/bin/env bash
# Make weights like those embedded in the package from nothing, on one GPU: VAE, base without a camera, camera control,
# evaluation on held-out worlds, and the weights folder. About 26 minutes on one H200. The embedded ones come from this
# script before the camera paths of worlds became larger (docs/decisions/013-larger-camera-paths.md).
#   bash launch/worlds_weights.sh OUT
# The length of each part can be changed: VAE_STEPS, BASE_STEPS, STAGE1_STEPS, WORLDS (clips), EVALUATED (held-out worlds);
# VARIANT=nano runs every part in a minute or two. VAE=WEIGHTS leaves out the first part and takes an autoencoder that exists
# (VAE=default: that of the package). Each part goes on where it was when the script is started again with the same OUT.
# While the VAE trains, the steps of the other two parts are compiled in the background into the same compilation cache.
set -euo pipefail
out="$(mkdir -p "${1:?usage: bash launch/worlds_weights.sh OUT}" && cd "$1" && pwd)"
vae="$out/vae"
if [ -n "${VAE:-}" ]; then
    vae="$VAE"
    [ ! -e "$vae" ] || vae="$(realpath "$vae")"
fi
cd "$(dirname "$0")/.."
variant="${VARIANT:-worlds}"
worlds="${WORLDS:-30000}"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$out/jax_cache}"
export XLA_PYTHON_CLIENT_PREALLOCATE=false # two processes share the GPU for a while

part() { echo "=== $1 at $(date +%T), $SECONDS s" | tee -a "$out/times.txt"; }

become_train() { # become_train RECIPE WORKDIR [FLAG ...]: the shell that calls it turns into the training process
    exec python3 -m camctrl_jax.train --config="configs/$1.py:$variant" --workdir="$2" "${@:3}"
}

compile_ahead() { # compile_ahead RECIPE [FLAG ...]: a few steps with the run's own settings, on few worlds
    local scratch="$out/compile_ahead/$1" process
    [ ! -d "$out/$1/checkpoints" ] || return 0
    become_train "$1" "$scratch" "${@:2}" --config.vae.weights=random --config.data.worlds.seeds="(0, 256)" \
        --config.checkpoint_every=6 --config.sample_every=0 >>"$out/compile_ahead.txt" 2>&1 &
    process=$!
    while kill -0 $process 2>/dev/null && [ ! -d "$scratch/checkpoints/6" ]; do sleep 1; done
    kill -KILL $process 2>/dev/null || true
    wait $process 2>/dev/null || true
    rm -rf "$scratch"
}

# What is compiled depends on the number of steps, through the learning rate schedule.
base=(${BASE_STEPS:+--config.steps="$BASE_STEPS"} ${BASE_FLAGS:-})
stage1=(${STAGE1_STEPS:+--config.steps="$STAGE1_STEPS"} ${STAGE1_FLAGS:-})
evaluate=(${EVALUATE_FLAGS:-})
[ "$variant" != nano ] || evaluate=(--frames 9 --steps 2 "${evaluate[@]}") # its clips are shorter than what is measured
data=(--config.vae.weights="$vae" --config.data.worlds.seeds="(0, $worlds)" --config.data.worlds.cache="$out/cache")

if [ -z "${VAE:-}" ]; then
    part "vae"
    (compile_ahead base "${base[@]}"; compile_ahead stage1 --config.init_from= "${stage1[@]}") &
    (become_train vae "$out/vae" ${VAE_STEPS:+--config.steps="$VAE_STEPS"} ${VAE_FLAGS:-})
    wait
fi
part "base"
(become_train base "$out/base" "${data[@]}" "${base[@]}")
part "stage 1"
(become_train stage1 "$out/stage1" --config.init_from="$out/base" "${data[@]}" "${stage1[@]}")
part "evaluation"
python3 -m camctrl_jax.evaluate worlds --checkpoint "$out/stage1" --paths own --tasks i2v --seeds 1 --count "${EVALUATED:-64}" \
    --steps 2 32 --camera-guidance 1 1.5 2 --out "$out/evaluation" "${evaluate[@]}"
part "weights folder"
[ -f "$out/weights/model.json" ] || python3 -m camctrl_jax.export weights --checkpoint "$out/stage1" --vae "$vae" \
    --evaluation "$out/evaluation/results.json" --out "$out/weights"
part "done"
