"""Files for visitors: videos, pictures, cameras and whole projects."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from camctrl_jax.camera import save_cameras
from camctrl_jax.camera.formats import FORMATS
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.scenes import FILES, FOLDER
from camctrl_jax.explore.store import START, Store
from camctrl_jax.explore.views import cameras_view
from camctrl_jax.sampling.exploration_folder import CLIPS, CURSOR, SETTINGS, VIDEO, line_of
from camctrl_jax.sampling.exploration_path import joined
from camctrl_jax.video.encoding import write_mp4_of_parts
from camctrl_jax.video.pictures import encode_png

# A clip of an id never changes; its id is never given again.
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_PART = 1 << 18  # bytes
_GONE = "Clip {} was deleted meanwhile."


def video(store: Store, name: str, kept: bool) -> Response:
    """A clip's video; FileResponse understands Range."""
    exploration, _, clip = store.clip(name)
    path = store.folder(exploration).clip(clip.name) / VIDEO
    filename = f"{name}.mp4" if kept else None
    missing = f"{VIDEO} of clip {name} is missing on the server."
    return _file(path, "video/mp4", missing, filename=filename, headers=_FOREVER)


def line_video(store: Store, name: str, kept: bool) -> Response:
    """All clips up to one as a single video, which is kept for the next time."""
    exploration, tree, clip = store.clip(name)
    path = store.made(exploration, clip.name, "line.mp4")
    if not path.is_file():
        store.check_room()
        folder = store.folder(exploration)
        parts = (folder.read_frames(each, tree.settings) for each in line_of(tree.clips, clip.name))
        write_mp4_of_parts(path, parts, tree.settings.fps)
    filename = f"{name}-line.mp4" if kept else None
    return _file(path, "video/mp4", _GONE.format(name), filename=filename, headers=_FOREVER)


def truth(path: Path, name: str) -> Response:
    """The true render of a clip."""
    return _file(path, "video/mp4", _GONE.format(name))


def thumbnail(store: Store, name: str, frame: int) -> Response:
    """One frame as a PNG."""
    exploration, tree, clip = store.clip(name)
    if frame >= clip.frames:
        raise Refusal("bad_request", f"frame: clip {name} has frames 0 to {clip.frames - 1}.", "frame")
    picture = store.folder(exploration).read_frames(clip, tree.settings, [frame])[0]
    return Response(encode_png(picture), media_type="image/png", headers=_FOREVER)


def start_picture(store: Store, exploration: str) -> Response:
    """What an exploration starts from, before there is a clip."""
    path = store.home(exploration) / START
    return _file(path, "image/png", "This exploration was not started from a picture.", headers=_FOREVER)


def cameras(store: Store, name: str, pose_format: str | None, line: bool) -> Response:
    """Cameras of a clip, or of all its line: JSON, a pose file, or a zip of a format that is a folder."""
    exploration, tree, clip = store.clip(name)
    clips = line_of(tree.clips, clip.name) if line else [clip]
    path = joined(*(store.cameras(exploration, each) for each in clips))
    if pose_format is None:
        return JSONResponse(cameras_view(path))
    written = [known.name for known in FORMATS if known.write is not None]
    if pose_format not in written:
        raise Refusal("bad_request", f"format: expected one of {', '.join(written)}.", "format")
    size = tree.settings.height, tree.settings.width
    with store.own_scratch() as scratch:
        suffix = ".json" if "json" in pose_format else ".txt"
        target = scratch / f"cameras{suffix}"
        save_cameras(path, target, pose_format, image_size=size)
        if target.is_file():
            content, kind = target.read_bytes(), "application/octet-stream"
        else:
            suffix, kind = ".zip", "application/zip"
            content = b"".join(
                _zipped({f"cameras/{each.relative_to(target)}": each for each in _files(target)})
            )
    filename = f"{name}-{pose_format}{suffix}"
    disposition = f'attachment; filename="{filename}"'
    return Response(content, media_type=kind, headers={"Content-Disposition": disposition})


def scene(store: Store, name: str, kind: str) -> Response:
    """The points of a clip's line, once they were made."""
    if kind not in FILES:
        raise Refusal("bad_request", f"format: expected {' or '.join(FILES)}.", "format")
    exploration, _, clip = store.clip(name)
    file, media = FILES[kind]
    path = store.made(exploration, clip.name, FOLDER) / file
    missing = f"The points of clip {name} were not made yet: POST to the same address."
    return _file(path, media, missing, filename=f"{name}.{kind}")


def project(store: Store, exploration: str) -> Response:
    """The folder of an exploration as a zip; ``Exploration.load`` opens it once it is unpacked."""
    tree = store.tree(exploration)
    if not tree.clips:
        raise Refusal("conflict", tree.problem or "The exploration has no clip yet.")
    folder = store.folder(exploration)
    found = {f"{exploration}/{file}": folder.path / file for file in (SETTINGS, CURSOR)}
    for name in tree.clips:
        for path in _files(folder.clip(name)):
            found[f"{exploration}/{CLIPS}/{name}/{path.relative_to(folder.clip(name))}"] = path
    headers = {"Content-Disposition": f'attachment; filename="{exploration}.zip"'}
    return StreamingResponse(_zipped(found), media_type="application/zip", headers=headers)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


class _Pipe(io.RawIOBase):
    """Where a zip is written to, piece by piece, that is taken away."""

    def __init__(self) -> None:
        super().__init__()
        self._content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:
        self._content += content
        return len(content)

    def taken(self) -> bytes:
        """What was written since the last time."""
        content = bytes(self._content)
        self._content.clear()
        return content


def _zipped(files: dict[str, Path]) -> Iterator[bytes]:
    """A zip as it is sent: it takes no place on the disk, however many ask for it and stop half-way."""
    pipe = _Pipe()
    # Videos and pictures do not get smaller: stored.
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as packed:
        for name, path in files.items():
            with path.open("rb") as source, packed.open(_info(path, name), "w") as target:
                while part := source.read(_PART):
                    target.write(part)
                    yield pipe.taken()
    yield pipe.taken()


def _info(path: Path, name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)


def _file(path: Path, media: str, missing: str, **options: Any) -> Response:
    """A file, of which FileResponse sends any Range; an exploration may be deleted at any moment."""
    try:
        found = path.stat()
    except OSError as error:
        raise Refusal("not_found", missing) from error
    return FileResponse(path, media_type=media, stat_result=found, **options)
