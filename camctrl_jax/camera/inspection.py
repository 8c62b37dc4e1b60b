"""Signs that a path was read in the wrong convention or is damaged.

Hints, not verdicts: each says what it saw.
"""

from __future__ import annotations

import numpy as np

from camctrl_jax.camera.cameras import Cameras

_SMOOTHER = 3.0  # how many times smoother the inverse path must be to be worth a word
_JUMP = 30.0  # degrees between neighbouring frames
_FAR = 100.0  # metres that no clip of a few seconds covers
_OFF_CENTRE = 0.15  # of the picture; crops and real lenses stay below


def hints(cameras: Cameras) -> list[str]:
    """Sentences about what looks odd; empty when nothing does."""
    found = []
    for sign in (_inverted, _jump, _backwards, _centimetres, _off_centre):
        if hint := sign(cameras):
            found.append(hint)
    return found


def _roughness(positions: np.ndarray) -> float:
    """Second differences over first differences: 0 on a straight even path, about 1.7 for white noise."""
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1).mean()
    bends = np.linalg.norm(np.diff(positions, n=2, axis=0), axis=1).mean()
    return float(bends / steps) if steps > 0 else 0.0


def _inverted(cameras: Cameras) -> str:
    """A path that is rough as read and smooth when inverted was probably stored the other way round.

    Rotation noise shakes the centre of a wrongly inverted camera by its distance to the origin, so this
    speaks on real, noisy data. On a clean orbit around the origin or a clean pan both readings are smooth;
    it keeps silent.
    """
    if len(cameras) < 8:
        return ""
    as_read, inverse = _roughness(cameras.positions), _roughness(cameras.camera_from_world[:, :3, 3])
    if as_read < 0.2 or inverse == 0.0 or as_read < _SMOOTHER * inverse:
        return ""
    return (
        f"the centres are {as_read / inverse:.1f} times smoother if the matrices are inverted: the file may "
        "hold the inverse of what its format says (camera-to-world for world-to-camera, or the other way "
        "round)"
    )


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


def _backwards(cameras: Cameras) -> str:
    steps = np.diff(cameras.positions, axis=0)
    length = np.linalg.norm(steps, axis=1)
    moving = length > 1e-6 * max(1.0, float(np.abs(cameras.positions).max(initial=0.0)))
    if moving.sum() < 4:
        return ""
    along = (steps[moving] * cameras.rotations[:-1][moving][:, :, 2]).sum(axis=1) / length[moving]
    if along.mean() > -0.8:
        return ""
    return (
        "the camera moves backwards along its line of sight nearly all the way: a pull-back, or axes in "
        "which z points backwards (OpenGL)"
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
