"""Points of a clip's line: what a job of kind "scene" makes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from camctrl_jax.errors import ClipError
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.store import Store
from camctrl_jax.files.atomic import replaced_folder
from camctrl_jax.files.json_file import write_json
from camctrl_jax.reconstruction.dense_depth import SweepSettings, key_frames, views_of
from camctrl_jax.reconstruction.scenes import scene_of_clip, write_scene
from camctrl_jax.sampling.exploration_path import joined

FOLDER = "scene"
FILES = {"glb": ("scene.glb", "model/gltf-binary"), "ply": ("points.ply", "application/octet-stream")}


def make_scene(store: Store, exploration: str, name: str, progress: Callable[[int, int], None]) -> None:
    """Sweep planes through the key frames of a clip and all before it, and write the points.

    Only key frames are held, so memory does not grow with the line. What moves is not masked: depth that
    other views do not confirm is left out, which takes most of it.

    Args:
        store, exploration, name: which clip.
        progress: called with (views done, views); what it raises ends the work.

    Raises:
        Refusal: a camera that stands still, or pictures that do not agree.
    """
    tree, folder = store.tree(exploration), store.folder(exploration)
    line = store.line(tree, tree.clips[name])
    path = joined(*(store.cameras(exploration, clip) for clip in line))
    settings = SweepSettings()
    chosen = key_frames(path, views_of(len(path), settings))
    if len(chosen) < 2:
        raise Refusal("bad_request", "A scene needs frames from several places, and the camera stands still.")
    frames = []
    for clip in line:
        own = [int(frame) - clip.first for frame in chosen if clip.first <= frame < clip.end]
        if own:
            frames.append(folder.read_frames(clip, tree.settings, own))
    pictures = np.concatenate(frames)
    try:
        views = replace(settings, views=len(pictures))
        scene = scene_of_clip(pictures, path[chosen], None, views, progress)
    except ClipError as error:
        raise Refusal("bad_request", f"No points were found: {error}") from error
    target = store.made(exploration, name, FOLDER)
    store.check_room()
    if target.exists():
        shutil.rmtree(target)
    with replaced_folder(target) as new:
        write_scene(new, scene, ("glb", "ply"))
        write_json(new / "report.json", {"points": len(scene.cloud.points), **scene.facts})
