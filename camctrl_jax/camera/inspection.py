"""Signs that a path was read in the wrong convention or is damaged.

Hints, not verdicts: each says what it saw.
"""

from __future__ import annotations

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.posefile import AS_THE_FORMAT_SAYS, Convention, Format
from camctrl_jax.camera.misread import misread

_JUMP = 30.0  # degrees between neighbouring frames
_FAR = 100.0  # metres that no clip of a few seconds covers
_OFF_CENTRE = 0.15  # of the picture; crops and real lenses stay below


def hints(cameras: Cameras, pose_format: Format, convention: Convention = AS_THE_FORMAT_SAYS) -> list[str]:
    """Sentences about what looks odd; empty when nothing does.

    Args:
        cameras: a path as it was read.
        pose_format: of its file.
        convention: in which it was read.
    """
    found = []
    if hint := misread(cameras, pose_format, convention):
        found.append(hint)
    for sign in (_jump, _centimetres, _off_centre):
        if hint := sign(cameras):
            found.append(hint)
    return found


def _jump(cameras: Cameras) -> str:
    if len(cameras) < 2:
        return ""
    steps = cameras.rotation_steps
    frame = int(steps.argmax())
    if len(cameras) < 4 or steps[frame] < _JUMP or steps[frame] < 5.0 * np.median(steps):
        return ""
    return (
        f"the camera turns by {steps[frame]:.0f} degrees from frame {frame} to frame {frame + 1}: "
        "a cut or a bad pose"
    )


def _centimetres(cameras: Cameras) -> str:
    extent = float(np.ptp(cameras.positions, axis=0).max())
    if extent < _FAR:
        return ""
    unit = "metres" if cameras.metric else "units"
    return (
        f"the centres spread over {extent:.0f} {unit}: if that should be a walk, the file may be in "
        "centimetres (Cameras.scaled(0.01, metric=True))"
    )


def _off_centre(cameras: Cameras) -> str:
    """Pixels divided by the size of another picture leave the principal point where no lens has it."""
    cx, cy = np.median(cameras.intrinsics[:, 2:], axis=0)
    if max(abs(cx - 0.5), abs(cy - 0.5)) < _OFF_CENTRE:
        return ""
    return (
        f"the principal point ({cx:.2f}, {cy:.2f}) is far from the centre of the picture (0.5, 0.5): "
        "intrinsics in pixels may belong to another picture size, or the picture is a crop"
    )
