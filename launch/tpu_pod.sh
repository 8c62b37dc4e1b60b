#!/usr/bin/env bash
# Train on a TPU pod of virtual machines: ask for it as a queued resource, install, start on every worker.
#   PROJECT=my-project ZONE=us-east5-a bash launch/tpu_pod.sh create my-pod v5p-128
#   PROJECT=... ZONE=... bash launch/tpu_pod.sh install my-pod
#   PROJECT=... ZONE=... bash launch/tpu_pod.sh train my-pod configs/stage1.py:motif_2b gs://bucket/stage1 [--config.KEY=VALUE ...]
#   PROJECT=... ZONE=... bash launch/tpu_pod.sh delete my-pod
# v5p-128 are 64 chips, which the reports call v5p:4x4x4. SPOT=1 asks for pre-emptible machines. The same `train` continues.
# WORKDIR is seen by all workers: a mounted bucket or file system.
set -euo pipefail
usage="usage: PROJECT=... ZONE=... bash launch/tpu_pod.sh create|install|train|delete NAME ..."
action="${1:?$usage}"
name="${2:?$usage}"
: "${PROJECT:?$usage}" "${ZONE:?$usage}"
where=(--project="$PROJECT" --zone="$ZONE")
cd "$(dirname "$0")/.."

on_all_workers() { gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"; }

case "$action" in
create)
    kind="${3:?the accelerator type, such as v5p-128}"
    case "$kind" in
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) runtime=v2-alpha-tpuv5-lite ;;
    esac
    gcloud compute tpus queued-resources create "$name" --node-id="$name" "${where[@]}" \
        --accelerator-type="$kind" --runtime-version="${RUNTIME:-$runtime}" ${SPOT:+--spot}
    ;;
install)
    archive="$(mktemp -d)/camctrl_jax.tar.gz"
    git archive --format=tar.gz --prefix=camctrl_jax/ -o "$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$name":camctrl_jax.tar.gz "${where[@]}" --worker=all
    on_all_workers "tar xzf camctrl_jax.tar.gz && python3 -m venv venv && venv/bin/pip install -q 'camctrl_jax/[tpu,data,train]'"
    ;;
train)
    recipe="${3:?a recipe, such as configs/stage1.py:motif_2b}"
    workdir="${4:?a directory that all workers see}"
    command="cd camctrl_jax && CAMCTRL_HOSTS=all JAX_COMPILATION_CACHE_DIR=\$HOME/jax_cache"
    command+=" ../venv/bin/python -m camctrl_jax.train --config=$(printf %q "$recipe") --workdir=$(printf %q "$workdir")"
    for flag in "${@:5}"; do command+=" $(printf %q "$flag")"; done
    on_all_workers "$command"
    ;;
delete)
    gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
    ;;
*)
    echo "$usage" >&2
    exit 1
    ;;
esac
