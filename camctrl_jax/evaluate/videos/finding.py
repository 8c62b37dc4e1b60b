"""Which clips there are: videos, pose files and references of one name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.evaluate.videos.settings import VideosSettings
from camctrl_jax.video.decoding import VIDEO_SUFFIXES, list_images


@dataclass(frozen=True)
class Clip:
    """One clip to measure; paths that are missing are None."""

    name: str
    video: Path | None
    cameras: Path | None
    reference: Path | None


def find_clips(settings: VideosSettings) -> list[Clip]:
    """The clips that any of the folders names, in order.

    A name that only --cameras or --reference has is a clip too: it has failed, since its video is missing.

    Raises:
        MissingFile: no video at all.
        InvalidValue: two videos, or two pose files, of one name.
    """
    videos = _named(settings.generated, _is_video, "--generated")
    cameras = _named(settings.cameras, lambda path: not path.name.startswith("."), "--cameras")
    references = {} if settings.reference is None else _named(settings.reference, _is_video, "--reference")
    if not videos:
        raise MissingFile(
            f"--generated {settings.generated}: holds no videos ({' '.join(VIDEO_SUFFIXES)}) and no folders "
            "of pictures."
        )
    names = sorted({*videos, *cameras, *references})
    return [Clip(name, videos.get(name), cameras.get(name), references.get(name)) for name in names]


def _is_video(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return bool(list_images(path)) if path.is_dir() else path.suffix.lower() in VIDEO_SUFFIXES


def _named(folder: Path, wanted: Callable[[Path], bool], option: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not wanted(path):
            continue
        name = path.name if path.is_dir() else path.stem
        if name in found:
            raise InvalidValue(f"{option}: {found[name]} and {path} have one name; keep one of them.")
        found[name] = path
    return found
