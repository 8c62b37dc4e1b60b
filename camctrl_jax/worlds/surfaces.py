"""Looks of surfaces: a closed palette, and patterns as rows of numbers that the renderer evaluates.

A pattern lives in the object's own coordinates, in three dimensions, so it moves and turns with the object.
It is made of cells (checks, stripes, bricks, tiles with random colours, dots) and of a slow variation (four
warped waves) that never repeats and makes every place recognisable. Everything is faded out by the pixel's
footprint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Columns of Scene.pattern.
PATTERN = (
    "parity",  # 1: neighbouring cells alternate between the two colours; 0: each takes a random mix
    "cell_mix",  # how much of the second colour the cells take, 0 to 1
    "stagger",  # shift of every other row of cells, in cells
    "cell_shade",  # random brightness of each cell, relative
    "dot_radius",  # in cells; 0: no dots. Dots are of the second colour
    "joint",  # width of the darker joint between cells, in cells; 0: none
    "wave_shade",  # strength of the slow variation of brightness, relative
    "wave_frequency",  # cycles per metre of the slow variation
    "wave_phase",
    "warp",  # how much the waves bend the cells, in cells
    "gloss",  # strength of the highlight
    "seed",  # of the random colours of cells
)

PATTERN_OF_PLACES = (
    *PATTERN,
    "zone_frequency",  # zones per metre: large regions that differ, so that places are told apart
    "zone_warp",  # how much the waves bend their borders, in zones
    "zone_mix",  # how much a zone changes the mix of the second colour
    "zone_shade",  # random brightness of each zone, relative
    "zone_tint",  # how much of the tint goes by the zone instead of the slow variation
)
"""Columns of Scene.pattern of a place to explore."""

# Names and display (sRGB-like) values.
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.21, 0.17),
    "orange": (0.91, 0.50, 0.16),
    "yellow": (0.93, 0.79, 0.28),
    "green": (0.28, 0.60, 0.30),
    "teal": (0.14, 0.58, 0.57),
    "blue": (0.20, 0.40, 0.76),
    "purple": (0.50, 0.31, 0.64),
    "pink": (0.91, 0.55, 0.66),
    "white": (0.92, 0.91, 0.88),
    "black": (0.17, 0.17, 0.20),
    "brown": (0.50, 0.34, 0.22),
    "beige": (0.85, 0.76, 0.60),
}
COLOR_NAMES = tuple(COLORS)

MATERIALS = ("painted", "striped", "checkered", "dotted", "marbled", "tiled", "wooden", "shiny")
GROUNDS = ("grass", "sand", "plaza", "planks", "snow", "carpet", "asphalt")
WALL_STYLES = ("brick", "dotted", "striped", "checkered", "tiled", "wooden", "concrete")


@dataclass(frozen=True)
class Surface:
    """One row of the scene's texture arrays."""

    texture: np.ndarray  # [3, 3]
    offset: np.ndarray  # [3]
    colors: np.ndarray  # [3, 3]
    pattern: np.ndarray  # [len(PATTERN)]


def linear(color: str | tuple[float, float, float]) -> np.ndarray:
    """Linear RGB [3] of a palette name or display values; the renderer's display curve is a square root."""
    return np.square(np.asarray(COLORS[color] if isinstance(color, str) else color, np.float32))


def _row(rng: np.random.Generator, **values: float) -> np.ndarray:
    values = {"wave_phase": rng.random(), "seed": rng.random(), **values}
    return np.array([values.pop(name, 0.0) for name in PATTERN], np.float32)


def _turned(frequency: tuple[float, float, float], axis: int, angle: float) -> np.ndarray:
    """diag(frequency) times a rotation about ``axis``: [3, 3]."""
    matrix = np.eye(3, dtype=np.float32)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    cos, sin = np.cos(angle), np.sin(angle)
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = cos, -sin, sin, cos
    return np.asarray(frequency, np.float32)[:, None] * matrix


def _offsets(rng: np.random.Generator, texture: np.ndarray) -> np.ndarray:
    # An unused axis must sit in the middle of its cell: there it is neither a joint nor outside a dot.
    return np.where(texture.any(axis=1), rng.uniform(3.0, 40.0, 3), 0.5).astype(np.float32)


def _tint(rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    """Tint of the slow variation without its grey part, in proportion to the base colour: linear RGB [3]."""
    strength = 0.04 * float(base.mean())
    red, green, blue = rng.normal(0.0, strength, 3)
    grey = (red + green + blue) / 3
    return np.array([red - grey, green - grey, blue - grey], np.float32)


_CONTRASTING = {
    name: tuple(
        other
        for other, value in COLORS.items()
        if sum(abs(a - b) for a, b in zip(color, value, strict=True)) > 0.75
    )
    for name, color in COLORS.items()
}


def contrasting(rng: np.random.Generator, color: str) -> str:
    """A palette colour that is well apart from ``color``."""
    return _CONTRASTING[color][rng.integers(len(_CONTRASTING[color]))]


def object_surface(
    rng: np.random.Generator, material: str, color: str, second: str, half_size: np.ndarray
) -> Surface:
    """Surface of a free-standing object. Cells divide the object evenly, so patterns meet its faces
    cleanly."""
    size = 2.0 * np.asarray(half_size, np.float64)
    cell = rng.uniform(0.24, 0.42)
    cells = np.maximum(np.round(size / cell), 1.0 if material == "striped" else 2.0)
    frequency = cells / size
    waves = {"wave_shade": rng.uniform(0.10, 0.2), "wave_frequency": rng.uniform(0.7, 1.3)}
    tint = _tint(rng, linear(color))
    if material == "striped":
        axis = int(rng.integers(3))
        keep = np.zeros(3)
        keep[axis] = max(frequency[axis], 3.0 / size[axis])
        row = _row(rng, parity=1, cell_mix=1, cell_shade=0.25, **waves)
        frequency = keep
    elif material == "checkered":
        row = _row(rng, parity=1, cell_mix=1, cell_shade=0.25, **waves)
    elif material == "dotted":
        row = _row(rng, dot_radius=rng.uniform(0.3, 0.4), cell_shade=0.15, **waves)
    elif material == "tiled":
        row = _row(rng, cell_mix=1, cell_shade=0.35, joint=0.1, **waves)
    elif material == "marbled":
        row = _row(rng, cell_mix=0.75, warp=0.5, **{**waves, "wave_frequency": rng.uniform(1.2, 1.8)})
        frequency = frequency * 0.8
    elif material == "wooden":
        frequency = np.array([3.5, 3.5, 3.5]) * np.roll([1.0, 0.18, 0.18], int(rng.integers(3)))
        row = _row(rng, cell_mix=0.35, cell_shade=0.3, joint=0.09, warp=0.06, **waves)
    else:  # painted or shiny: the slow variation alone
        frequency = np.zeros(3)
        row = _row(
            rng,
            gloss=0.5 if material == "shiny" else 0.0,
            **{**waves, "wave_shade": rng.uniform(0.22, 0.32), "wave_frequency": rng.uniform(0.9, 1.4)},
        )
    texture = np.diag(frequency).astype(np.float32)
    offset = _offsets(rng, texture)
    if material in ("striped", "checkered", "dotted", "tiled"):
        # The object's lower faces lie on a cell border.
        offset = np.where(frequency > 0, np.floor(offset) + 0.5 * (frequency * size % 2.0), offset)
    return Surface(texture, offset.astype(np.float32), np.stack([linear(color), linear(second), tint]), row)


def ground_surface(rng: np.random.Generator, style: str) -> Surface:
    """Surface of the ground plane, in world coordinates."""
    angle = rng.uniform(0.0, np.pi / 2)
    vary = rng.uniform(-0.03, 0.03, 3)
    second = None
    if style == "grass":
        base, second = (0.34, 0.52, 0.20), (0.60, 0.66, 0.32)
        frequency, values = (1.2, 0, 1.2), {"cell_mix": 0.8, "warp": 0.55, "wave_shade": 0.25}
    elif style == "sand":
        base, second = (0.84, 0.72, 0.52), (0.64, 0.50, 0.34)
        frequency, values = (0.45, 0, 1.6), {"cell_mix": 0.6, "warp": 0.5, "wave_shade": 0.18}
    elif style == "plaza":
        base, second = (0.78, 0.73, 0.66), (0.46, 0.43, 0.44)
        cell = rng.uniform(0.8, 1.3)
        values = {
            "parity": float(rng.random() < 0.5),
            "cell_mix": 0.85,
            "cell_shade": 0.3,
            "wave_shade": 0.15,
        }
        frequency = (1 / cell, 0, 1 / cell)
        if rng.random() < 0.3:  # painted circles on slabs
            base, second = second, COLORS[COLOR_NAMES[rng.integers(len(COLOR_NAMES))]]
            values = {"dot_radius": 0.36, "cell_shade": 0.25, "wave_shade": 0.15}
    elif style == "planks":
        base, second = (0.66, 0.46, 0.29), (0.52, 0.35, 0.22)
        frequency = (rng.uniform(2.2, 3.0), 0, 0.4)
        values = {"cell_mix": 0.8, "cell_shade": 0.3, "stagger": 0.37, "joint": 0.09, "wave_shade": 0.12}
    elif style == "snow":
        base, second = (0.88, 0.91, 0.96), (0.66, 0.75, 0.88)
        frequency, values = (0.8, 0, 0.8), {"cell_mix": 0.8, "warp": 0.55, "wave_shade": 0.12}
    elif style == "carpet":
        color = COLOR_NAMES[rng.integers(len(COLOR_NAMES))]
        base, second = COLORS[color], COLORS[contrasting(rng, color)]
        base, second = (tuple(0.6 * np.asarray(c) + 0.2) for c in (base, second))
        frequency = (rng.uniform(0.9, 1.4), 0, rng.uniform(0.6, 1.4))
        values = {"cell_mix": 0.8, "cell_shade": 0.25, "wave_shade": 0.12, "stagger": rng.choice([0.0, 0.5])}
    else:  # asphalt with worn patches
        base, second = (0.36, 0.37, 0.41), (0.60, 0.59, 0.58)
        frequency, values = (
            (0.7, 0, 0.7),
            {"cell_mix": 0.8, "warp": 0.5, "cell_shade": 0.1, "wave_shade": 0.25},
        )
    row = _row(rng, wave_frequency=rng.uniform(0.45, 0.8), **values)
    texture = _turned(frequency, 1, angle)
    base, second = (linear(tuple(np.clip(np.asarray(color) + vary, 0.02, 1.0))) for color in (base, second))
    colors = np.stack([base, second, _tint(rng, base)])
    return Surface(texture, _offsets(rng, texture), colors.astype(np.float32), row)


def wall_surface(rng: np.random.Generator, style: str, color: str, second: str) -> Surface:
    """Surface of a wall: local x along it, y down, z through it."""
    base, other = linear(color), linear(second)
    waves = {"wave_shade": rng.uniform(0.12, 0.2), "wave_frequency": rng.uniform(0.35, 0.6)}
    cell = rng.uniform(0.8, 1.5)
    texture = _turned((1 / cell, 1 / cell, 0), 2, 0.0)
    if style == "brick":
        base, other = linear((0.68, 0.36, 0.27)), linear((0.55, 0.27, 0.22))
        texture = _turned((1 / 0.7, 1 / 0.32, 0), 2, 0.0)
        row = _row(rng, cell_mix=0.9, cell_shade=0.35, stagger=0.5, joint=0.1, **waves)
    elif style == "dotted":
        row = _row(rng, dot_radius=rng.uniform(0.28, 0.42), cell_shade=0.15, **waves)
    elif style == "striped":
        texture = _turned((1.6 / cell, 0, 0), 2, rng.choice([0.0, np.pi / 2, np.pi / 4, -np.pi / 4]))
        row = _row(rng, parity=float(rng.random() < 0.5), cell_mix=1, cell_shade=0.25, **waves)
    elif style == "checkered":
        texture = _turned((1 / cell, 1 / cell, 0), 2, rng.choice([0.0, np.pi / 4]))
        row = _row(rng, parity=1, cell_mix=1, cell_shade=0.3, **waves)
    elif style == "tiled":
        row = _row(rng, cell_mix=1, cell_shade=0.35, stagger=rng.choice([0.0, 0.5]), **waves)
    elif style == "wooden":
        base, other = linear((0.62, 0.45, 0.30)), linear((0.48, 0.33, 0.21))
        texture = _turned((2.5, 0.25, 0), 2, 0.0)
        row = _row(rng, cell_mix=0.8, cell_shade=0.3, joint=0.08, **waves)
    else:  # concrete: bent patches
        base, other = linear((0.66, 0.65, 0.62)), linear((0.50, 0.51, 0.52))
        row = _row(rng, cell_mix=0.8, warp=0.5, **{**waves, "wave_shade": 0.2})
    colors = np.stack([base, other, _tint(rng, base)]).astype(np.float32)
    return Surface(texture, _offsets(rng, texture), colors, row)


_ZONE_HUES = {
    "grass": ((0.66, 0.60, 0.28), (0.16, 0.40, 0.16), (0.50, 0.38, 0.26)),
    "sand": ((0.86, 0.52, 0.34), (0.60, 0.60, 0.52)),
    "snow": ((0.62, 0.76, 0.96), (0.70, 0.62, 0.56)),
    "asphalt": ((0.62, 0.40, 0.30), (0.30, 0.40, 0.56)),
}
"""What large regions of natural grounds turn to; those of laid floors turn to a colour of the palette."""


def with_zones(rng: np.random.Generator, surface: Surface, style: str, size: float) -> Surface:
    """The surface with regions of about ``size`` metres that differ in hue, brightness and mix."""
    natural = style in _ZONE_HUES
    if natural:
        hues = _ZONE_HUES[style]
        target = linear(hues[rng.integers(len(hues))])
    else:
        target = linear(COLOR_NAMES[rng.integers(len(COLOR_NAMES))])
    base = surface.colors[0]
    colors = surface.colors.copy()
    colors[2] = (0.5 if natural else 0.22) * (target - base)
    zones = {
        "zone_frequency": 1.0 / size,
        "zone_warp": 0.22 if natural else 0.0,
        "zone_mix": 0.5,
        "zone_shade": 0.16 if natural else 0.22,
        "zone_tint": 0.85,
    }
    added = [zones[name] for name in PATTERN_OF_PLACES[len(PATTERN) :]]
    pattern = np.concatenate([surface.pattern, np.asarray(added, np.float32)])
    return Surface(surface.texture, surface.offset, colors.astype(np.float32), pattern)
