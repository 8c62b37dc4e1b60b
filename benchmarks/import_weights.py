"""Import of full-size Motif-Video-2B: seconds and peak host memory, beside diffusers' own loader.

  python benchmarks/import_weights.py --folder /tmp/motif

Writes a diffusers folder of random bfloat16 weights of the full size (4.08 GB) unless it is there, then reads
it in fresh processes: onto the device straight from the folder, into a checkpoint, and with diffusers'
``from_pretrained``. Memory is the highest resident set of the process (VmHWM), its libraries included; the
same process without the import is measured as well, so that the weights' own share can be told.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TASKS = ("libraries alone", "onto the device", "into a checkpoint", "diffusers from_pretrained")


def write_random_folder(folder: Path) -> None:
    """transformer/ of the full size: random signs and mantissas, magnitudes about 1/100; one file."""
    import ml_dtypes

    from camctrl_jax.files.safetensors import write_safetensors
    from camctrl_jax.interop.keys import MMDIT_KEYS, key_matches
    from camctrl_jax.interop.stock_configs import mmdit_to_stock
    from camctrl_jax.models import MMDiT, mmdit_preset

    config = mmdit_preset("motif_2b", camera=None)
    shapes = {
        key: entry.torch_shape
        for entry in key_matches(MMDiT(config).abstract_params(), MMDIT_KEYS)
        for key in entry.keys
    }
    rng = np.random.default_rng(0)

    class Random(dict):
        def __getitem__(self, key: str) -> np.ndarray:
            size = int(np.prod(shapes[key]))
            bits = np.frombuffer(rng.bytes(2 * size), np.uint16) & 0x807F | 0x3C00
            return bits.view(ml_dtypes.bfloat16).reshape(shapes[key])

    transformer = folder / "transformer"
    transformer.mkdir(parents=True)
    write_safetensors(
        transformer / "diffusion_pytorch_model.safetensors", Random.fromkeys(shapes), {"format": "pt"}
    )
    stock = {"_class_name": "MotifVideoTransformer3DModel", **mmdit_to_stock(config)}
    (transformer / "config.json").write_text(json.dumps(stock))


def run_task(task: str, folder: Path) -> dict[str, float]:
    """Do one task in this process; seconds, and the peak resident set in bytes."""
    if task == "diffusers from_pretrained":
        import torch
        from diffusers import MotifVideoTransformer3DModel

        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.zeros(1, device=device)
        started = time.monotonic()
        model = MotifVideoTransformer3DModel.from_pretrained(
            folder, subfolder="transformer", torch_dtype=torch.bfloat16
        )
        model.to(device)
        if device == "cuda":
            torch.cuda.synchronize()
    else:
        import jax

        from camctrl_jax.checkpoints.mesh_reading import onto_mesh
        from camctrl_jax.export.from_diffusers import import_diffusers
        from camctrl_jax.interop.diffusers_import import find_diffusers_folder
        from camctrl_jax.parallel.mesh import MeshConfig, make_mesh

        mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
        jax.block_until_ready(jax.numpy.zeros(1))
        started = time.monotonic()
        if task == "onto the device":
            params = find_diffusers_folder(folder).transformer_params(onto_mesh(mesh))
            jax.block_until_ready(params)
        elif task == "into a checkpoint":
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                import_diffusers(folder, Path(scratch) / "checkpoint")
    seconds = time.monotonic() - started
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {"seconds": seconds, "peak_bytes": 1024 * int(peak[1])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "random_motif_2b")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print("RESULT", json.dumps(run_task(options.task, options.folder)))
        return
    if not options.folder.exists():
        started = time.monotonic()
        try:
            write_random_folder(options.folder)
        except BaseException:
            shutil.rmtree(options.folder, ignore_errors=True)
            raise
        print(f"wrote {options.folder} in {time.monotonic() - started:.1f} s", flush=True)
    size = (options.folder / "transformer" / "diffusion_pytorch_model.safetensors").stat().st_size
    print(f"\n| {size / 1e9:.2f} GB in bfloat16 | seconds | peak host memory, GB | of the file |")
    print("|---|---|---|---|", flush=True)
    for task in TASKS:
        command = [sys.executable, __file__, "--folder", str(options.folder), "--task", task]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
        if line is None:
            print(f"| {task} | failed: {done.stderr.strip().splitlines()[-1][:120]} | | |", flush=True)
            continue
        result = json.loads(line.removeprefix("RESULT"))
        peak = result["peak_bytes"]
        print(f"| {task} | {result['seconds']:.1f} | {peak / 1e9:.2f} | {peak / size:.2f} |", flush=True)


if __name__ == "__main__":
    main()
