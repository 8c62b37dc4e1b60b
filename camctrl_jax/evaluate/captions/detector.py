"""Which colours of the palette a clip shows things in: a detector without a network, calibrated on renders.

A histogram of display colours says how likely a pixel of each colour shows an object of a palette colour,
by the instances of true renders; everything else (ground, walls, sky) is a class of its own. The score of a
colour is the largest mean likelihood in a small square of any frame looked at, so that a thing counts for
more than as many scattered pixels. A colour counts as shown above the threshold that best tells renders with
it from renders without.

It knows no shapes, and things that no caption names have colours, too: read it beside wrong captions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from camctrl_jax.worlds import World, at_frames, render_rgb
from camctrl_jax.worlds.geometry import render_geometry
from camctrl_jax.worlds.scene import SHAPES
from camctrl_jax.worlds.surfaces import COLOR_NAMES

FRAMES = 4
"""Frames of a clip that are looked at, evenly spread."""

_BINS = 24  # of each display channel
_SMOOTHED = 0.7  # bins, of the histogram
_SQUARE = 14  # of a picture's height: one side of the square that likelihoods are averaged over
_LEAST_SHARE = 0.004  # of a frame: a colour is shown if an object of it covers this much
_CANDIDATES = 97  # thresholds tried

_ANY_COLOR = "|".join(COLOR_NAMES)
_ANY_SHAPE = "|".join(shape for kind in SHAPES.values() for shape in kind)
_OBJECT = re.compile(rf"\b({_ANY_COLOR})(?: and (?:{_ANY_COLOR}) [a-z]+)? (?:{_ANY_SHAPE})\b")


def named_colors(caption: str) -> tuple[str, ...]:
    """The colours of the objects that a caption names, first colours only, in its order; each as often as it
    is named."""
    return tuple(_OBJECT.findall(caption))


def looked_at(frames: int) -> np.ndarray:
    """Indices of the frames of a clip that are looked at."""
    return np.unique(np.linspace(0, frames - 1, FRAMES).round().astype(int))


@dataclass(frozen=True, eq=False)
class Detector:
    """Calibrated on some kind of worlds and a size of pictures.

    Attributes:
        likelihood: f32 [colours, bins], that a pixel of such a display colour shows an object of a colour.
        thresholds: f64 [colours], of scores.
        absent: sorted f64 [scenes] for each colour, the scores of renders that do not show it.
    """

    likelihood: np.ndarray
    thresholds: np.ndarray
    absent: tuple[np.ndarray, ...]

    def scores(self, video: np.ndarray) -> np.ndarray:
        """Of a clip u8 [T, H, W, 3], f64 [colours]; only some frames are looked at."""
        return _scores(self.likelihood, video[looked_at(len(video))])

    def shown(self, scores: np.ndarray) -> np.ndarray:
        """Which colours scores f64 [colours] count as shown: bool [colours]."""
        return scores >= self.thresholds

    def surprise(self, scores: np.ndarray) -> np.ndarray:
        """Share of the renders without a colour that score lower, f64 [colours]: colours compare by it."""
        return np.array(
            [np.searchsorted(absent, score) / len(absent) for absent, score in zip(self.absent, scores)]
        )


def calibrated(worlds: Sequence[World], height: int, width: int, samples: int = 2) -> Detector:
    """The detector of worlds like these, which should be none of those that are judged.

    Args:
        worlds: of equally many frames; each colour should be shown by some and not by others.
        height, width: of the pictures.
        samples: rays per pixel and axis.
    """
    parts = [at_frames(world, looked_at(world.frames)) for world in worlds]
    videos = np.asarray(render_rgb(parts, height, width, samples))
    _, instances, _ = render_geometry(parts, height, width)
    counts = np.zeros((len(COLOR_NAMES) + 1, _BINS**3))
    for world, video, seen in zip(parts, videos, instances, strict=True):
        places = _classes(world)[seen].ravel() * _BINS**3 + _codes(video).ravel()
        counts += np.bincount(places, minlength=counts.size).reshape(counts.shape)
    smooth = np.stack(
        [ndimage.gaussian_filter(one.reshape((_BINS,) * 3), _SMOOTHED).ravel() for one in counts]
    )
    # A tenth of a pixel of doubt: colours that no render has say nothing.
    likelihood = (smooth[:-1] / (smooth.sum(axis=0) + 0.1)).astype(np.float32)
    scores = np.stack([_scores(likelihood, video) for video in videos])
    there = np.stack([_there(world, seen) for world, seen in zip(parts, instances, strict=True)])
    thresholds, absent = [], []
    for color in range(len(COLOR_NAMES)):
        values, has = scores[:, color], there[:, color]
        candidates = np.quantile(values, np.linspace(0.02, 0.98, _CANDIDATES))
        gains = [_share(values[has] >= one) - _share(values[~has] >= one) for one in candidates]
        thresholds.append(candidates[int(np.argmax(gains))])
        absent.append(np.sort(values[~has] if not has.all() else values))
    return Detector(likelihood, np.array(thresholds), tuple(absent))


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _classes(world: World) -> np.ndarray:
    """i64 by instance id: the colour of the object, or the class of everything else."""
    classes = np.full(world.scene.slots.surfaces + 1, len(COLOR_NAMES))
    for item in world.objects:
        classes[item.instance] = COLOR_NAMES.index(item.color)
    return classes


def _there(world: World, instances: np.ndarray) -> np.ndarray:
    """Bool [colours]: which an object has that is large enough in some frame of i32 [T, H, W]."""
    found = np.zeros(len(COLOR_NAMES), bool)
    for item in world.objects:
        share = (instances == item.instance).mean(axis=(1, 2)).max()
        found[COLOR_NAMES.index(item.color)] |= share >= _LEAST_SHARE
    return found


def _codes(video: np.ndarray) -> np.ndarray:
    """The bin of every pixel of u8 [..., 3]."""
    red, green, blue = np.moveaxis(video.astype(np.int64) * _BINS // 256, -1, 0)
    return (red * _BINS + green) * _BINS + blue


def _scores(likelihood: np.ndarray, frames: np.ndarray) -> np.ndarray:
    side = max(3, frames.shape[1] // _SQUARE)
    found = likelihood[:, _codes(frames)]  # [colours, F, H, W]
    return ndimage.uniform_filter(found, (0, 0, side, side)).max(axis=(1, 2, 3)).astype(np.float64)
