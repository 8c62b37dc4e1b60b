#!/usr/bin/env bash
# Make clip features like those embedded in the package from nothing, on one GPU: training on exact labels of worlds, the
# folder, and the table of what their Frechet distance sees. About ten minutes on one H100.
#   bash launch/clip_features.sh OUT
# VARIANT=nano runs training and export in seconds. FLAGS are further flags of training; WORLDS (256) is the size of the sets
# that are compared. Training goes on where it was when the script is started again with the same OUT.
set -euo pipefail
out="$(mkdir -p "${1:?usage: bash launch/clip_features.sh OUT}" && cd "$1" && pwd)"
cd "$(dirname "$0")/.."
variant="${VARIANT:-worlds}"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$out/jax_cache}" PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

part() { echo "=== $1 at $(date +%T), $SECONDS s" | tee -a "$out/times.txt"; }

part "training"
python3 -m camctrl_jax.train --config="configs/features.py:$variant" --workdir="$out/features" ${FLAGS:-}
part "folder"
[ -f "$out/clip_features/config.json" ] ||
    python3 -m camctrl_jax.export features --checkpoint "$out/features" --out "$out/clip_features"
if [ "$variant" != nano ]; then # its clips are smaller than what is measured
    part "table"
    python3 docs/results/clip_features.py --worlds "${WORLDS:-256}" --features "$out/clip_features" --samples \
        --json "$out/table.json" | tee "$out/table.md"
fi
part "done"
