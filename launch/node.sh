#!/usr/bin/env bash
# Train on one node with all of its accelerators. Started again with the same WORKDIR, it goes on where it was.
#   bash launch/node.sh configs/stage1.py:worlds runs/stage1 [--config.KEY=VALUE ...]
set -euo pipefail
recipe="${1:?usage: bash launch/node.sh RECIPE WORKDIR [--config.KEY=VALUE ...]}"
workdir="${2:?usage: bash launch/node.sh RECIPE WORKDIR [--config.KEY=VALUE ...]}"
cd "$(dirname "$0")/.."
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$workdir/jax_cache}"
exec python3 -m camctrl_jax.train --config="$recipe" --workdir="$workdir" "${@:3}"
