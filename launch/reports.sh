#!/usr/bin/env bash
# Compile the large recipes for machines that are not there and write what they need: docs/results/reports/*.md. A CPU is
# enough; about five minutes each on two cores. Needs the compilers of both: pip install 'camctrl_jax[tpu]', and without
# dependencies jax-cuda13-plugin and jax-cuda13-pjrt of the version of jax. TPU_PYTHON and GPU_PYTHON may name two environments.
#   bash launch/reports.sh [PATTERN]       only reports whose name matches
set -uo pipefail
cd "$(dirname "$0")/.."
out=docs/results/reports
failed=0

report() { # report NAME RECIPE TOPOLOGY [--config.KEY=VALUE ...]
    local name="$1" python="${TPU_PYTHON:-python3}"
    [[ "$name" =~ ${pattern} ]] || return 0
    [[ "$3" == h100* ]] && python="${GPU_PYTHON:-python3}"
    echo "== $name"
    "$python" -m camctrl_jax.pod_report --config="configs/$2" --topology="$3" "${@:4}" \
        --out="$out/$name.md" 2>"$out/.$name.log" >/dev/null || { failed=1; tail -3 "$out/.$name.log" >&2; }
    rm -f "$out/.$name.log"
}

pattern="${1:-.}"
mkdir -p "$out"
report stage1_2b_v5p stage1.py:motif_2b v5p:4x4x4
report stage1_2b_v6e stage1.py:motif_2b v6e:8x8
report stage1_2b_h100 stage1.py:motif_2b h100x64
report stage1_8b_v5p stage1.py:paper_8b v5p:4x4x4
report stage1_8b_v6e stage1.py:paper_8b v6e:8x8
report stage1_8b_h100 stage1.py:paper_8b h100x64
report stage2_2b_v5p stage2.py:motif_2b v5p:4x4x8
report stage2_2b_v6e stage2.py:motif_2b v6e:8x16
report stage2_2b_h100 stage2.py:motif_2b h100x128
report stage2_8b_v5p stage2.py v5p:4x4x8
report stage2_8b_v6e stage2.py v6e:8x16
report stage2_8b_h100 stage2.py h100x128
report distill_progressive_2b_h100 distill_progressive.py:motif_2b h100x128
report distill_flow_map_2b_h100 distill_flow_map.py:motif_2b h100x128
report distill_consistency_2b_h100 distill_apt.py:consistency_motif_2b h100x128
report distill_apt_2b_h100 distill_apt.py:motif_2b h100x128
exit $failed
