"""Reading a pose file as a user asks for it, and what there is to say about it.

``camera``, ``generate`` and ``build_dataset`` read pose files through here, so that they take the same
options and give the same notes and hints. The options themselves are in :mod:`camctrl_jax.pose_options`,
which a parser can import without waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camctrl_jax.camera.formats import Format, PoseFile, read_pose_file
from camctrl_jax.camera.formats.posefile import AS_THE_FORMAT_SAYS, Convention
from camctrl_jax.camera.inspection import hints
from camctrl_jax.pose_options import add_reading_options

__all__ = ["ReadPath", "Reading", "add_reading_options", "read_path", "take_reading"]


@dataclass(frozen=True)
class Reading:
    """How to read a pose file.

    Attributes:
        format: its name; None detects it by content.
        image_size: (height, width) in pixels, for files with pixel intrinsics that do not say it.
        convention: where the file departs from its format.
    """

    format: str | None = None
    image_size: tuple[int, int] | None = None
    convention: Convention = AS_THE_FORMAT_SAYS


@dataclass(frozen=True)
class ReadPath:
    """A pose file that was read.

    Attributes:
        format: which it is.
        pose_file: what it holds.
        hints: what looks odd about it.
    """

    format: Format
    pose_file: PoseFile
    hints: tuple[str, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What its reader should know: the notes of the file, then the hints."""
        return (*self.pose_file.notes, *self.hints)


def take_reading(values: dict[str, Any]) -> Reading:
    """Take the values of :func:`~camctrl_jax.pose_options.add_reading_options` out of what was parsed.

    Args:
        values: the parser's, by name; loses the five that are taken.
    """
    convention = Convention(values.pop("invert"), values.pop("axes"), values.pop("quaternions"))
    return Reading(values.pop("source_format"), values.pop("image_size"), convention)


def read_path(path: str | Path, reading: Reading) -> ReadPath:
    """Read a pose file or folder, and look whether it was read as it was meant.

    Args:
        path: a file or folder; ``file.json#cam05`` picks one camera of a file that holds several.
        reading: how.

    Raises:
        FileNotFoundError: when nothing is there.
        CameraError: naming the file, the line or frame, the value, what was expected and the remedy.
    """
    read_format, pose_file = read_pose_file(
        path, format=reading.format, image_size=reading.image_size, convention=reading.convention
    )
    return ReadPath(read_format, pose_file, tuple(hints(pose_file.cameras, read_format, reading.convention)))
