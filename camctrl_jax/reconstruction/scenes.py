"""A clip with cameras as a 3-D scene, and the folder that holds it.

``scene_of_clip`` is dense, from a plane sweep; ``sparse_scene`` has the points of COLMAP with their tracks;
``scene_of_maps`` takes depth or points of an estimator. ``write_scene`` writes any of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats import save_cameras
from camctrl_jax.errors import ClipError, InvalidValue
from camctrl_jax.estimators.protocols import PointCloud, PointMapper, SfmResult
from camctrl_jax.estimators.triangulation import Triangulation
from camctrl_jax.files.atomic import write_text
from camctrl_jax.reconstruction.colmap_folder import write_model, write_pictures
from camctrl_jax.reconstruction.dense_depth import DenseDepth, SweepSettings, dense_depth
from camctrl_jax.reconstruction.fusion import fused_cloud
from camctrl_jax.reconstruction.glb import write_glb
from camctrl_jax.reconstruction.ply import write_ply
from camctrl_jax.reconstruction.point_maps import believed_point_maps, depth_of_point_maps

FORMATS = ("ply", "glb", "colmap", "transforms")


@dataclass(frozen=True, eq=False)
class Scene:
    """Points, and the views that they were made from.

    Attributes:
        cloud: the points, in the world and unit of the cameras.
        frames: u8 [K, H, W, 3], the views.
        cameras: theirs.
        facts: JSON-able, what is to be said of how it was made.
        depth: f32 [K, H, W], NaN where unknown; None of a sparse scene.
        model: COLMAP's, with what is seen where; None of a dense scene.
    """

    cloud: PointCloud
    frames: np.ndarray
    cameras: Cameras
    facts: dict[str, Any] = field(default_factory=dict)
    depth: np.ndarray | None = None
    model: SfmResult | None = None


def scene_of_clip(
    frames: np.ndarray,
    cameras: Cameras,
    masks: np.ndarray | None = None,
    settings: SweepSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scene:
    """The dense scene of a clip; see :func:`~camctrl_jax.reconstruction.dense_depth.dense_depth`.

    Raises:
        NoParallax: the camera does not move enough.
        ClipError: ``no_points``, no depth that enough views agree on.
    """
    settings = settings or SweepSettings()
    found: DenseDepth = dense_depth(frames, cameras, masks, settings, progress)
    views, path = frames[found.frames], cameras[found.frames]
    cloud = _not_empty(fused_cloud(found.depth, views, path), settings)
    facts = {
        "method": "plane sweep",
        "views": len(found.frames),
        "coverage": round(found.coverage, 4),
        "swept": round(float(found.swept.mean()), 4),
        "median_parallax_deg": round(found.parallax, 2),
        "planes": settings.planes,
        "near": float(f"{found.near:.4g}"),
        "far": float(f"{found.far:.4g}"),
    }
    return Scene(cloud, views, path, facts, depth=found.depth)


def sparse_scene(
    frames: np.ndarray,
    cameras: Cameras,
    masks: np.ndarray | None = None,
    triangulation: Triangulation | None = None,
) -> Scene:
    """The points that COLMAP triangulates with the cameras as they are.

    Raises:
        EstimatorFailed: see :class:`~camctrl_jax.estimators.triangulation.Triangulation`.
    """
    model, cloud = (triangulation or Triangulation()).reconstruct(frames, cameras, masks)
    facts = {
        "method": "triangulation by COLMAP",
        "views": len(frames),
        "mean_track_length": round(model.mean_track_length, 2),
    }
    return Scene(cloud, frames, cameras, facts, model=model)


def scene_of_maps(
    frames: np.ndarray,
    cameras: Cameras,
    mapper: PointMapper,
    masks: np.ndarray | None = None,
    *,
    keep: float = 0.7,
) -> Scene:
    """The scene of an estimator's depth or point maps, in the world and unit of the cameras.

    Args:
        keep: share of the pixels that stays, the surest ones, where the estimator says how sure it is.
    """
    maps = mapper.maps(frames, cameras)
    depth = depth_of_point_maps(maps, cameras, frames.shape[1:3])
    depth = believed_point_maps(depth, maps.confidence, masks, keep=keep)
    cloud = _not_empty(fused_cloud(depth, frames, cameras), None)
    facts = {
        "method": f"point maps of {mapper.fingerprint().name}",
        "views": len(frames),
        "coverage": round(float(np.isfinite(depth).mean()), 4),
    }
    return Scene(cloud, frames, cameras, facts, depth=depth)


def _not_empty(cloud: PointCloud, settings: SweepSettings | None) -> PointCloud:
    if len(cloud.points):
        return cloud
    why = "no pixel has a depth."
    if settings is not None:
        why = (
            f"no pixel has a depth that {settings.agree} other views confirm within "
            f"{100 * settings.tolerance:g} %. Do the cameras belong to this clip? Else try a smaller agree, "
            "a larger tolerance, or a path with more parallax."
        )
    raise ClipError("no_points", f"the scene is empty: {why}")


def write_scene(folder: Path, scene: Scene, formats: Sequence[str] = FORMATS) -> dict[str, Path]:
    """Fill a folder: ``points.ply``, ``scene.glb``, ``images/`` with ``sparse/0``, ``transforms.json``.

    ``images/`` serves COLMAP and ``transforms.json`` alike; the folder is a COLMAP project.

    Args:
        folder: is there; :func:`camctrl_jax.files.atomic.replaced_folder` makes it appear as a whole.
        formats: of :data:`FORMATS`.

    Returns:
        What was written, by format.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InvalidValue(f"formats are {list(formats)}; expected some of {', '.join(FORMATS)}.")
    size, written = scene.frames.shape[1:3], {}
    if "ply" in formats:
        written["ply"] = folder / "points.ply"
        write_ply(written["ply"], scene.cloud)
    if "glb" in formats:
        written["glb"] = folder / "scene.glb"
        write_glb(written["glb"], scene.cloud, scene.cameras, size)
    if "colmap" in formats or "transforms" in formats:
        names = write_pictures(folder / "images", scene.frames)
    if "colmap" in formats:
        written["colmap"] = folder / "sparse" / "0"
        write_model(written["colmap"], scene.cameras, size, names, scene.cloud, scene.model)
    if "transforms" in formats:
        written["transforms"] = folder / "transforms.json"
        pictures = [f"images/{name}" for name in names]
        save_cameras(
            scene.cameras, written["transforms"], format="transforms_json", image_size=size, names=pictures
        )
        if "ply" in formats:
            # nerfstudio's key for the points that splats start from.
            document = json.loads(written["transforms"].read_text("utf-8"))
            document["ply_file_path"] = "points.ply"
            write_text(written["transforms"], json.dumps(document, indent=2) + "\n")
    return written
