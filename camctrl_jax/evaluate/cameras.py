"""``evaluate cameras``: estimated camera paths against true ones, one file or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera.formats import PoseFile, PoseFileError, detect_format, read_pose_file
from camctrl_jax.errors import InvalidValue, MissingFile, UserError
from camctrl_jax.metrics.intervals import interval
from camctrl_jax.metrics.trajectories import PathErrors, path_errors

LEAST_FRAMES = 3
"""Two positions lie on a line whatever the camera did."""

_MEASURES = (
    "trans_err",
    "rot_err_deg",
    "trans_err_aligned",
    "rot_err_aligned_deg",
    "trans_err_first",
    "rot_err_first_deg",
    "rpe_trans",
    "rpe_rot_deg",
)


@dataclass(frozen=True)
class CamerasSettings:
    """What to compare.

    Attributes:
        reference, estimate: pose files; or folders of pose files, paired by name without suffix.
        reference_format, estimate_format: names of formats; None detects them.
        time_difference: seconds that two time stamps of one frame may be apart.
    """

    reference: Path
    estimate: Path
    reference_format: str | None = None
    estimate_format: str | None = None
    time_difference: float = 0.02

    def __post_init__(self) -> None:
        if not self.time_difference >= 0:
            raise InvalidValue(f"--time-difference {self.time_difference:g}: expected 0 s or more.")


@dataclass(frozen=True)
class Comparison:
    """One estimated path against its reference.

    Attributes:
        errors: of the frames that both have.
        paired_by: "name", "time" or "position".
        reference_frames, estimate_frames: how many poses each file holds.
        metric: whether lengths are metres, as the reference says.
    """

    errors: PathErrors
    paired_by: str
    reference_frames: int
    estimate_frames: int
    metric: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self.errors),
            "paired_by": self.paired_by,
            "reference_frames": self.reference_frames,
            "estimate_frames": self.estimate_frames,
            "unit": "m" if self.metric else "units of the reference",
        }


def evaluate_cameras(settings: CamerasSettings) -> dict[str, Any]:
    """Compare, and return plain values: those of one pair; of folders "clips", "failed" and "summary".

    Raises:
        UserError: nothing is there, or the only pair cannot be compared. Of folders, a pair that cannot be
            compared is counted under "failed" with its reason.
    """
    for name, path in (("reference", settings.reference), ("estimate", settings.estimate)):
        if not Path(str(path).rpartition("#")[0] or path).exists() and not path.exists():
            raise MissingFile(f"--{name} {path}: no such file or folder.")
    collections = [_is_collection(path) for path in (settings.reference, settings.estimate)]
    if collections == [False, False]:
        return compare(settings.reference, settings.estimate, settings).as_json()
    if collections != [True, True]:
        folder, file = (
            (settings.reference, settings.estimate)
            if collections[0]
            else (settings.estimate, settings.reference)
        )
        raise InvalidValue(
            f"{folder} is a folder of pose files and {file} is one path: name two files, or two folders."
        )
    return _compare_folders(settings)


def compare(reference: Path, estimate: Path, settings: CamerasSettings) -> Comparison:
    """Compare two pose files.

    Raises:
        UserError: a file that cannot be read, or fewer than 3 frames that both have.
    """
    _, true = read_pose_file(reference, format=settings.reference_format)
    _, found = read_pose_file(estimate, format=settings.estimate_format)
    pairs, paired_by = associate(true, found, settings.time_difference)
    if len(pairs) < LEAST_FRAMES:
        raise InvalidValue(
            f"{estimate} and {reference} have {len(pairs)} frames in common (paired by {paired_by}); at "
            f"least {LEAST_FRAMES} are needed."
        )
    errors = path_errors(
        found.cameras.orthonormalised().world_from_camera[pairs[:, 1]],
        true.cameras.orthonormalised().world_from_camera[pairs[:, 0]],
    )
    return Comparison(errors, paired_by, len(true.cameras), len(found.cameras), true.cameras.metric)


def associate(reference: PoseFile, estimate: PoseFile, time_difference: float) -> tuple[np.ndarray, str]:
    """Which poses belong to the same frame: int [N, 2] (reference, estimate), in the reference's order.

    By picture name where both files name pictures; by position where they hold equally many poses, unless
    both have times that disagree; otherwise by the nearest time.

    Raises:
        InvalidValue: other counts, and neither names nor times.
    """
    if reference.names and estimate.names:
        places = {Path(name).stem: index for index, name in enumerate(estimate.names)}
        named = [(i, places.get(Path(name).stem, -1)) for i, name in enumerate(reference.names)]
        pairs = np.array([pair for pair in named if pair[1] >= 0], int).reshape(-1, 2)
        if len(pairs):
            return pairs, "name"
    true, found = reference.cameras, estimate.cameras
    timed = true.times is not None and found.times is not None
    if len(true) == len(found) and (
        not timed or (np.abs(true.times - found.times) <= time_difference).mean() > 0.9
    ):
        return np.stack([np.arange(len(true))] * 2, axis=1), "position"
    if not timed:
        raise InvalidValue(
            f"the reference holds {len(true)} poses and the estimate {len(found)}: without picture names or "
            "times in both, which of them belong together is not known. Give files of equally many poses."
        )
    after = np.searchsorted(found.times, true.times).clip(1, max(len(found) - 1, 1))
    before_nearer = np.abs(found.times[after - 1] - true.times) <= np.abs(
        found.times[np.minimum(after, len(found) - 1)] - true.times
    )
    nearest = np.where(before_nearer, after - 1, np.minimum(after, len(found) - 1))
    apart = np.abs(found.times[nearest] - true.times)
    kept: dict[int, int] = {}  # estimate -> reference: a pose is compared once, with its nearest
    for i in np.argsort(apart, kind="stable"):
        if apart[i] <= time_difference:
            kept.setdefault(int(nearest[i]), int(i))
    pairs = np.array(sorted((i, j) for j, i in kept.items()), int).reshape(-1, 2)
    return pairs, "time"


def _is_collection(path: Path) -> bool:
    """Whether a folder holds pose files, instead of being one (COLMAP, poses.npy)."""
    if not path.is_dir():
        return False
    try:
        detect_format(path)
    except PoseFileError:
        return True
    return False


def _entries(folder: Path) -> dict[str, list[Path]]:
    """Pose files and pose folders by their name without suffix."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            found.setdefault(path.stem if path.is_file() else path.name, []).append(path)
    return found


def _compare_folders(settings: CamerasSettings) -> dict[str, Any]:
    references, estimates = _entries(settings.reference), _entries(settings.estimate)
    if not references:
        raise InvalidValue(f"--reference {settings.reference}: the folder is empty.")
    clips: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for name, paths in references.items():
        try:
            if len(paths) > 1 or len(estimates.get(name, ())) > 1:
                listed = ", ".join(map(str, (*paths, *estimates.get(name, ()))))
                raise InvalidValue(f"several files of one name: {listed}; keep one of each.")
            if name not in estimates:
                raise MissingFile(f"{settings.estimate} holds no estimate of this name.")
            clips[name] = compare(paths[0], estimates[name][0], settings).as_json()
        except UserError as error:
            failed[name] = str(error)
    extra = sorted(set(estimates) - set(references))
    return {
        "clips": clips,
        "failed": failed,
        "estimates_without_reference": extra,
        "summary": summary(clips, len(failed)),
    }


def summary(clips: Mapping[str, Mapping[str, Any]], failed: int) -> dict[str, Any]:
    """Means over clips with their intervals; ``rot_err_deg`` also over the paths that determine it."""
    rows = list(clips.values())

    def over(values: list[float]) -> dict[str, Any] | None:
        found = interval(np.array(values, np.float64)) if values else None
        return None if found is None else asdict(found)

    means = {name: over([row[name] for row in rows]) for name in _MEASURES}
    sound = [row["rot_err_deg"] for row in rows if not row["degenerate"]]
    return {
        "clips": len(rows),
        "failed": failed,
        "degenerate": sum(row["degenerate"] for row in rows),
        **means,
        "rot_err_deg_of_sound_paths": over(sound),
    }


def text(results: Mapping[str, Any]) -> str:
    """For people."""
    if "clips" not in results:
        return _pair_text(results)
    lines = [f"{name}: failed: {reason}" for name, reason in results["failed"].items()]
    lines += [f"{name}: an estimate without a reference" for name in results["estimates_without_reference"]]
    found = results["summary"]
    lines.append(
        f"{found['clips']} clips compared, {found['failed']} failed, {found['degenerate']} with degenerate "
        "paths; mean and 95 % interval over clips:"
    )
    for name in (*_MEASURES, "rot_err_deg_of_sound_paths"):
        if (row := found[name]) is not None:
            bounds = "" if row["low"] is None else f"  [{row['low']:.4g}, {row['high']:.4g}]"
            lines.append(f"  {name:28}{row['mean']:.4g}{bounds}")
    return "\n".join(lines)


def _pair_text(result: Mapping[str, Any]) -> str:
    unit = "m" if result["unit"] == "m" else "units"
    rows = [
        (
            "frames",
            f"{result['frames']} of {result['reference_frames']} true and {result['estimate_frames']} "
            f"estimated, paired by {result['paired_by']}",
        ),
        ("path", f"{result['path_length']:.4g} {unit}; scale of the estimate {result['scale']:.4g}"),
        ("TransErr", f"{result['trans_err']:.6g} {unit}"),
        ("RotErr", f"{result['rot_err_deg']:.6g} deg"),
    ]
    if result["degenerate"]:
        rows[-1] = (
            "RotErr",
            f"{result['rot_err_deg']:.6g} deg, MEANINGLESS: the path is nearly straight (s2/s1 "
            f"{result['spread_ratio']:.3g}), so positions do not fix the rotation. Read the forms below",
        )
    for form, name in (("aligned", "aligned by rotations"), ("first", "from the first frame")):
        rows.append(
            (
                name,
                f"{result[f'rot_err_{form}_deg']:.6g} deg, {result[f'trans_err_{form}']:.6g} {unit}",
            )
        )
    rows.append(("RPE, per frame", f"{result['rpe_rot_deg']:.6g} deg, {result['rpe_trans']:.6g} {unit}"))
    rows.append(
        (
            "sums (CamI2V)",
            f"RotErr {result['sum_rot_first_rad']:.6g} rad, TransErr {result['sum_trans_first']:.6g}",
        )
    )
    return "\n".join(f"{name + ':':24}{value}" for name, value in rows)


def run(settings: CamerasSettings, as_json: bool) -> int:
    """Compare and print; exit status 1 where a pair of folders could not be compared."""
    results = evaluate_cameras(settings)
    print(json.dumps(results, indent=2) if as_json else text(results))
    return 1 if results.get("failed") else 0
