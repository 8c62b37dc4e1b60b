#!/usr/bin/env bash
# Make weights like those in the package from nothing, part by part, in one sitting or in several.
#   bash launch/worlds_weights.sh OUT                    all parts, one after the other
#   bash launch/worlds_weights.sh OUT vae decoder        these parts alone: a sitting
# Parts, in their order:
#   vae           the autoencoder, without an adversary
#   decoder       its decoder alone, with the adversarial term, on latents that stay as they are
#   base          images and videos, no camera
#   stage1        camera control at 96x160
#   stage2        192x320 and 96x160: extension, image to video, text to video, with frames retrieved from before
#   stage2_again  the same once more, from its weights: for as long as there is time
#   evaluation    the benchmark on held-out worlds
#   weights       the folder to ship, with the evaluation in its card
# Every part of training leaves its run in OUT/PART and what other parts need of it in OUT/PART.weights, a folder of at
# most 60 MB: carry those (and OUT/evaluation) to another machine and go on there with the next part. A part that was
# stopped goes on where it was. All devices of the machine work on one part. PART_STEPS (VAE_STEPS, STAGE2_STEPS ...) and
# PART_FLAGS (--config.KEY=VALUE ...) change a part; VARIANT=nano runs all parts in a few minutes. OUT/log.txt holds the
# command, seconds and commit of every part.
set -euo pipefail
out="$(mkdir -p "${1:?usage: bash launch/worlds_weights.sh OUT [PART ...]}" && cd "$1" && pwd)"
shift
all=(vae decoder base stage1 stage2 stage2_again evaluation weights)
parts=("${@:-${all[@]}}")
for part in "${parts[@]}"; do
    [[ " ${all[*]} " == *" $part "* ]] || { echo "$part is not a part; the parts are: ${all[*]}" >&2; exit 1; }
done
cd "$(dirname "$0")/.."
variant="${VARIANT:-worlds}"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$out/jax_cache}"

# The trainer ends a stopped run in good order, with a checkpoint and exit code 0: no other part may begin from that.
trap 'log "stopped"; exit 130' INT TERM

log() { echo "$(date -u +%FT%TZ) $*" | tee -a "$out/log.txt"; }

made_by() { # made_by PART: its run, or the weights that another machine made
    if [ -d "$out/$1/checkpoints" ]; then echo "$out/$1"; elif [ -d "$out/$1.weights" ]; then echo "$out/$1.weights"; else
        echo "part $1 is not there: run it first, or bring $out/$1.weights from where it was run" >&2
        return 1
    fi
}

logged() { # logged PART COMMAND ...
    local part="$1" start=$SECONDS
    shift
    log "$part: $*"
    "$@"
    log "$part: $((SECONDS - start)) s, commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
}

train() { # train PART RECIPE [FLAG ...]
    local part="$1" recipe="$2" steps="${1^^}_STEPS" flags="${1^^}_FLAGS"
    logged "$part" python3 -m camctrl_jax.train --config="$recipe" --workdir="$out/$part" "${@:3}" \
        ${!steps:+--config.steps="${!steps}"} ${!flags:-}
}

store() { # store PART [FLAG ...]: its weights, in place of those of an earlier run
    rm -rf "$out/$1.weights"
    python3 -m camctrl_jax.export weights --checkpoint "$out/$1" --out "$out/$1.weights" "${@:2}"
}

# base and stage1 train on the same clips.
cache=(--config.data.worlds.cache="$out/cache")

autoencoder() { made_by decoder 2>/dev/null || made_by vae; }
transformer() { made_by stage2_again 2>/dev/null || made_by stage2; }

for part in "${parts[@]}"; do
    case "$part" in
    vae)
        train vae "configs/vae.py:$variant"
        store vae
        ;;
    decoder)
        decoder="worlds_decoder"
        [ "$variant" = worlds ] || decoder="${variant}_decoder"
        start="$(made_by vae)"
        train decoder "configs/vae.py:$decoder" --config.init_from="$start"
        store decoder
        ;;
    base)
        vae="$(autoencoder)"
        train base "configs/base.py:$variant" --config.vae.weights="$vae" "${cache[@]}"
        store base --vae "$vae"
        ;;
    stage1)
        vae="$(autoencoder)"
        start="$(made_by base)"
        train stage1 "configs/stage1.py:$variant" --config.init_from="$start" --config.vae.weights="$vae" "${cache[@]}"
        store stage1 --vae "$vae"
        ;;
    stage2)
        vae="$(autoencoder)"
        start="$(made_by stage1)"
        train stage2 "configs/stage2.py:$variant" --config.init_from="$start" --config.vae.weights="$vae"
        store stage2 --vae "$vae"
        ;;
    stage2_again)
        vae="$(autoencoder)"
        start="$(made_by stage2)"
        train stage2_again "configs/stage2.py:$variant" --config.init_from="$start" --config.vae.weights="$vae"
        store stage2_again --vae "$vae"
        ;;
    evaluation)
        small=()
        [ "$variant" != nano ] || small=(--frames 9 --steps 2 --count 2 --motion 0) # its clips are shorter than those of the benchmark
        start="$(transformer)"
        vae="$(autoencoder)"
        logged evaluation python3 -m camctrl_jax.evaluate worlds --checkpoint "$start" --vae "$vae" --out "$out/evaluation" \
            "${small[@]}" ${EVALUATION_FLAGS:-}
        ;;
    weights)
        start="$(transformer)"
        vae="$(autoencoder)"
        [ -f "$out/evaluation/results.json" ] || {
            echo "part evaluation is not there: run it first, or bring $out/evaluation from where it was run" >&2
            exit 1
        }
        rm -rf "$out/weights"
        python3 -m camctrl_jax.export weights --checkpoint "$start" --vae "$vae" --evaluation "$out/evaluation/results.json" \
            --out "$out/weights"
        ;;
    esac
    log "$part: done"
done
