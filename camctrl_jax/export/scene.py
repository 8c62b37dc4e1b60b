"""``export scene``: a clip with cameras as points, for viewers and for trainers of splats."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import camctrl_jax
from camctrl_jax.camera.reading import Reading
from camctrl_jax.errors import FileInUse, InvalidValue, MissingFile
from camctrl_jax.estimators.imported import ImportedPointMaps
from camctrl_jax.estimators.motion_masks import EpipolarMasks
from camctrl_jax.estimators.protocols import dilate
from camctrl_jax.export.scene_source import SceneSource, source_of_files, source_of_world
from camctrl_jax.files.atomic import is_in_use, replaced_folder
from camctrl_jax.files.json_file import write_json
from camctrl_jax.reconstruction.dense_depth import SweepSettings
from camctrl_jax.reconstruction.scenes import (
    FORMATS,
    Scene,
    scene_of_clip,
    scene_of_maps,
    sparse_scene,
    write_scene,
)
from camctrl_jax.video.decoding import list_images
from camctrl_jax.video.greys import read_grey

METHODS = ("dense", "sparse", "maps")
_GROWN = 2  # pixels that masks are grown by: what moves also blurs its edge
_AS_THE_FILE_SAYS = Reading()


@dataclass(frozen=True)
class SceneRequest:
    """What the command line asks for.

    Attributes:
        out: the folder to make.
        source: a video, a folder of pictures, or a folder of ``generate``; None where ``worlds_seed`` is.
        cameras: the pose file; None where the source holds its own.
        intrinsics: fractions, instead of those of the pose file, which may hold none.
        worlds_seed: of a world, instead of a source; size (None: 96x160), frames (None: 49), still: of its
            render.
        method: one of :data:`METHODS`.
        maps: folder of point maps of the key frames, of the method "maps".
        masks: folder of masks, one for each frame of the clip, white = moving.
        motion: whether to look for what moves and leave it out.
        formats: of :data:`camctrl_jax.reconstruction.scenes.FORMATS`.
    """

    out: Path
    source: Path | None = None
    cameras: Path | None = None
    reading: Reading = _AS_THE_FILE_SAYS
    poses_of: str = "auto"
    metric: bool = False
    intrinsics: tuple[float, float, float, float] | None = None
    worlds_seed: int | None = None
    size: tuple[int, int] | None = None
    frames: int | None = None
    still: bool = False
    method: str = "dense"
    maps: Path | None = None
    masks: Path | None = None
    motion: bool = False
    formats: tuple[str, ...] = FORMATS
    settings: SweepSettings = field(default_factory=SweepSettings)


def export_scene(request: SceneRequest) -> dict[str, Any]:
    """Make the folder; returns the report that stands in it as ``report.json``.

    Raises:
        UserError: of many kinds, each with its remedy; nothing is left under the folder's name.
    """
    _check(request)
    started = time.monotonic()
    source = _source(request)
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    if len(source.frames) < 2:
        raise InvalidValue(f"{source.said}: is one frame; a scene needs several from different places.")
    masks = _masks(request, source)
    scene = _scene(request, source, masks)
    made = time.monotonic()
    height, width = source.frames.shape[1:3]
    with replaced_folder(request.out) as folder:
        written = write_scene(folder, scene, request.formats)
        report = {
            "source": source.said,
            "frames": source.indices.tolist(),
            "height": height,
            "width": width,
            "points": len(scene.cloud.points),
            "unit": "metre" if scene.cloud.metric else "unknown",
            **scene.facts,
            "masked": None if masks is None else round(float(masks.mean()), 4),
            "seconds": round(made - started, 1),
            "files": {name: path.relative_to(folder).as_posix() for name, path in written.items()},
            "camctrl_jax": camctrl_jax.__version__,
        }
        write_json(folder / "report.json", report)
    return report


def _check(request: SceneRequest) -> None:
    """What can be told before anything is read."""
    if (request.source is None) == (request.worlds_seed is None):
        raise InvalidValue("give either a source (a video, or a folder of generate) or --worlds-seed.")
    of_world = {"--size": request.size, "--frames": request.frames, "--still": request.still or None}
    for option, value in of_world.items():
        if request.source is not None and value is not None:
            raise InvalidValue(f"{option} is of the render of a world (--worlds-seed): leave it out.")
    if request.worlds_seed is not None and request.cameras is not None:
        raise InvalidValue("--cameras goes with a video; a world has its own.")
    if request.intrinsics is not None and request.cameras is None:
        raise InvalidValue("--intrinsics goes with --cameras; worlds and folders of generate hold their own.")
    if (request.method == "maps") != (request.maps is not None):
        raise InvalidValue("--method maps and --maps FOLDER go together.")
    if request.masks is not None and request.motion:
        raise InvalidValue("give --masks or --motion, not both.")
    if is_in_use(request.out):
        raise FileInUse(f"{request.out} already exists and is not an empty folder: choose another --out.")
    if request.method == "sparse":
        from camctrl_jax.estimators.colmap import Colmap

        Colmap().check()
    if request.maps is not None:
        ImportedPointMaps(request.maps).check()


def _source(request: SceneRequest) -> SceneSource:
    if request.worlds_seed is not None:
        return source_of_world(
            request.worlds_seed,
            request.size or (96, 160),
            49 if request.frames is None else request.frames,
            request.still,
            request.settings,
        )
    return source_of_files(
        request.source,
        request.cameras,
        request.reading,
        request.poses_of,
        request.metric,
        request.settings,
        request.intrinsics,
    )


def _masks(request: SceneRequest, source: SceneSource) -> np.ndarray | None:
    """bool [K, H, W] of what is left out, or None."""
    if request.masks is not None:
        return dilate(_given_masks(request.masks, source), _GROWN)
    if request.motion:
        return dilate(EpipolarMasks().segment(source.frames, source.fps).moving, _GROWN)
    return None


def _given_masks(folder: Path, source: SceneSource) -> np.ndarray:
    """Masks of the key frames out of a folder with one for every frame of the clip; white moves."""
    if not folder.is_dir():
        raise MissingFile(f"--masks {folder}: no such folder.")
    paths = list_images(folder)
    if len(paths) != source.total:
        raise InvalidValue(
            f"--masks {folder}: holds {len(paths)} pictures for {source.total} frames; each frame needs one."
        )
    masks = []
    for index in source.indices:
        mask = read_grey(paths[index]) != 0
        if mask.shape != source.frames.shape[1:3]:
            wanted = source.frames.shape[1:3]
            raise InvalidValue(f"{paths[index]}: is {list(mask.shape)}, the frames are {list(wanted)}.")
        masks.append(mask)
    return np.stack(masks)


def _scene(request: SceneRequest, source: SceneSource, masks: np.ndarray | None) -> Scene:
    if request.method == "sparse":
        return sparse_scene(source.frames, source.cameras, masks)
    if request.method == "maps":
        mapper = ImportedPointMaps(request.maps, metric=request.metric)
        return scene_of_maps(source.frames, source.cameras, mapper, masks)
    # The source holds key frames already.
    settings = replace(request.settings, views=len(source.frames))
    return scene_of_clip(source.frames, source.cameras, masks, settings, _Progress())


class _Progress:
    """One line on standard error, a tenth at a time."""

    def __call__(self, done: int, views: int) -> None:
        if done == views or done % max(1, views // 4) == 0:
            print(f"  depth of view {done}/{views}", file=sys.stderr, flush=True)
