"""Points of a clip's line: what a job of kind "scene" makes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from camctrl_jax.errors import ClipError
from camctrl_jax.estimators.protocols import dilate
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.store import Store, changed
from camctrl_jax.files.atomic import replaced_folder
from camctrl_jax.files.json_file import write_json
from camctrl_jax.reconstruction.dense_depth import SweepSettings, key_frames, views_of
from camctrl_jax.reconstruction.ply import read_points
from camctrl_jax.reconstruction.scenes import scene_of_clip, write_scene
from camctrl_jax.sampling.exploration_folder import Clip, line_of
from camctrl_jax.sampling.exploration_path import joined

FOLDER = "scene"
FILES = {"glb": ("scene.glb", "model/gltf-binary"), "ply": ("points.ply", "application/octet-stream")}


_GROWN = 2  # pixels that masks are grown by: what moves also blurs its edge
_LEAST_SIDE = 32  # pixels, of pictures in which motion is looked for


def make_scene(
    store: Store, exploration: str, name: str, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Sweep planes through the key frames of a clip and all before it, and write the points.

    Only key frames are held, so memory does not grow with the line. What moves is masked where OpenCV is
    installed; depth that other views do not confirm is left out in any case.

    Args:
        store, exploration, name: which clip.
        progress: called with (views done, views); what it raises ends the work.

    Returns:
        What ``report.json`` says: how many points, how they were found, which share was masked.

    Raises:
        Refusal: a camera that stands still, or pictures that do not agree.
    """
    tree, folder = store.tree(exploration), store.folder(exploration)
    line = line_of(tree.clips, name)
    path = joined(*(store.cameras(exploration, clip) for clip in line))
    settings = SweepSettings()
    chosen = key_frames(path, views_of(len(path), settings))
    if len(chosen) < 2:
        raise Refusal("bad_request", "A scene needs frames from several places, and the camera stands still.")
    pictures = folder.read_line(line, tree.settings, chosen.tolist())
    try:
        views = replace(settings, views=len(pictures))
        masks = _moving(pictures, tree.settings.fps * len(chosen) / len(path))
        progress(0, len(pictures))
        scene = scene_of_clip(pictures, path[chosen], masks, views, progress)
    except ClipError as error:
        raise Refusal("bad_request", f"No points were found: {error}") from error
    store.check_room()
    masked = None if masks is None else round(float(masks.mean()), 4)
    report = {"points": len(scene.cloud.points), "masked": masked, **scene.facts}
    with replaced_folder(store.made(exploration, name, FOLDER), overwrite=True) as new:
        write_scene(new, scene, ("glb", "ply"))
        write_json(new / "report.json", report)
    return report


def points_of(store: Store, exploration: str, line: Sequence[Clip]) -> cKDTree | None:
    """Points f64 [P, 3] of the latest clip of a line of which they were found, in the exploration's frame.

    Those that were asked for last are kept: a page asks again with every change of a path.
    """
    for clip in reversed(line):
        path = store.made(exploration, clip.name, FOLDER) / FILES["ply"][0]
        if path.is_file():
            key = path, changed(path)
            found = store.points.get(key)
            return store.points.put(key, cKDTree(read_points(path))) if found is None else found
    return None


def _moving(pictures: np.ndarray, fps: float) -> np.ndarray | None:
    """bool [K, H, W], what moves; None where nothing can look for it."""
    if min(pictures.shape[1:3]) < _LEAST_SIDE or importlib.util.find_spec("cv2") is None:
        return None
    from camctrl_jax.estimators.motion_masks import EpipolarMasks  # OpenCV is of another extra

    return dilate(EpipolarMasks().segment(pictures, fps).moving, _GROWN)
