"""How well structure from motion finds the cameras of true renders: the noise under every measure of poses.

  python benchmarks/estimated_poses.py --out poses.jsonl
  python benchmarks/estimated_poses.py --out poses.jsonl --table

Held-out worlds, 16 frames at 4 a second, 2 x 2 samples a pixel; masks of three kinds, both mappers, known and
unknown intrinsics. Every result is a line of the file; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FRAMES, STRIDE = 16, 3
STILL = 0.05  # metres of path below which a camera stays on the spot, and has no path to be found
SIZES = ((96, 160), (192, 320))
# (mapper, masks, whether intrinsics are given)
SETTINGS = (
    *itertools.product(("incremental", "global"), ("none", "dis", "true"), (True,)),
    ("incremental", "true", False),
)


def measure(seed: int, size: tuple[int, int], wanted: list[tuple[str, str, bool]]) -> list[dict[str, Any]]:
    """Results of one clip, one for each setting that is wanted."""
    from camctrl_jax.estimators import dilate
    from camctrl_jax.estimators.checks import doubts, flatness
    from camctrl_jax.estimators.colmap import Colmap
    from camctrl_jax.estimators.motion_masks import EpipolarMasks
    from camctrl_jax.estimators.worlds_truth import WorldsTruth
    from camctrl_jax.metrics.trajectories import path_errors
    from camctrl_jax.worlds import sample_world

    world = sample_world(seed)
    chosen = np.arange(0, FRAMES * STRIDE, STRIDE)
    truth = WorldsTruth(world, size, tuple(chosen.tolist()))
    frames, cameras = truth.rgb, truth.cameras
    moving = truth.segment(frames, world.fps / STRIDE).moving
    # Motion is looked for at the full frame rate, as an evaluation would.
    found = EpipolarMasks().segment(truth.rendered.rgb, world.fps).moving[chosen]
    pixels = round(size[0] / 48)
    masks = {"none": None, "dis": dilate(found, pixels), "true": dilate(moving, pixels)}
    overlap = (found & moving).sum()
    shared = {
        "seed": seed,
        "size": list(size),
        "path": world.path_class,
        "still": cameras.path_length <= STILL,
        "moving": float(moving.mean()),
        "mask_precision": float(overlap / found.sum()) if found.any() else None,
        "mask_recall": float(overlap / moving.sum()) if moving.any() else None,
    }
    results = []
    for mapper, kind, known in wanted:
        intrinsics = cameras.intrinsics if known else None
        result = Colmap(mode=mapper).reconstruct(frames, masks[kind], intrinsics)
        line = shared | {"mapper": mapper, "masks": kind, "known": known, "seconds": round(result.seconds, 2)}
        line |= {"registered": int(result.registered.sum()), "reason": result.reason}
        line["doubts"] = list(doubts(result, size))
        if result.registered.any():
            line["reprojection_px"] = result.mean_reprojection_error
            line["flatness"] = flatness(result)
        if result.registered.sum() >= 3:
            reference = cameras[result.registered_frames]
            errors = path_errors(result.cameras().world_from_camera, reference.world_from_camera)
            line |= {
                "rot_deg": errors.rot_err_deg,
                "rot_aligned_deg": errors.rot_err_aligned_deg,
                "trans_share": None if shared["still"] else errors.trans_err / errors.path_length,
                "trans_aligned_share": None
                if shared["still"]
                else errors.trans_err_aligned / errors.path_length,
                "degenerate": bool(errors.degenerate),
            }
        results.append(line)
    return results


def table(lines: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    rows = [
        "| size | mapper | masks | intrinsics | clips | all 16 registered | and no doubts "
        "| RotErr deg, median (90 %) | aligned by rotations | TransErr / path | aligned by rotations "
        "| over 10 % (no doubts) | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for size, (mapper, kind, known) in itertools.product(SIZES, SETTINGS):
        found = [
            line
            for line in lines
            if (tuple(line["size"]), line["mapper"], line["masks"], line["known"])
            == (size, mapper, kind, known)
        ]
        if not found:
            continue
        whole = [line for line in found if line["registered"] == FRAMES]
        going = [line for line in whole if not line["still"]]
        sound = [line for line in going if not line["doubts"]]
        # Aligned by positions a straight path fits every other one, wherever it leads.
        wrong = [line for line in going if line["trans_aligned_share"] > 0.1]
        cells = [f"{size[0]}x{size[1]}", mapper, kind, "known" if known else "unknown"]
        cells += [str(sum(not line["still"] for line in found)), str(len(going)), str(len(sound))]
        cells += [_middle(going, "rot_deg", "{:.1f}"), _middle(going, "rot_aligned_deg", "{:.2f}")]
        cells += [_middle(going, "trans_share", "{:.1%}"), _middle(going, "trans_aligned_share", "{:.1%}")]
        cells += [f"{len(wrong)} ({sum(line in sound for line in wrong)})"]
        cells += [f"{np.median([line['seconds'] for line in found]):.1f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _middle(lines: list[dict[str, Any]], key: str, form: str) -> str:
    values = [line[key] for line in lines]
    if not values:
        return "-"
    return f"{form.format(np.median(values))} ({form.format(np.quantile(values, 0.9))})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not run again")
    parser.add_argument("--first-seed", type=int, default=1_000_000)
    parser.add_argument("--worlds", type=int, default=16)
    parser.add_argument("--table", action="store_true", help="print what is in the file, and run nothing")
    options = parser.parse_args()
    lines = (
        [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    )
    if not options.table:
        done = {
            (line["seed"], tuple(line["size"]), (line["mapper"], line["masks"], line["known"]))
            for line in lines
        }
        clips = itertools.product(range(options.first_seed, options.first_seed + options.worlds), SIZES)
        for seed, size in clips:
            wanted = [setting for setting in SETTINGS if (seed, size, setting) not in done]
            if wanted:
                results = measure(seed, size, wanted)
                with options.out.open("a") as file:
                    file.writelines(json.dumps(line) + "\n" for line in results)
                lines += results
                print(f"world {seed} at {size[0]}x{size[1]}", file=sys.stderr, flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
