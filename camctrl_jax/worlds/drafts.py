"""Scenes while they are being filled, and what every kind of scene is made of: light and shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.worlds.scene import GROUND, SHAPES, SLOTS, Scene, Slots, moving_mask
from camctrl_jax.worlds.surfaces import PATTERN, PATTERN_OF_PLACES, Surface, linear

LIGHTINGS = ("midday", "evening", "overcast", "dusk", "morning")


@dataclass
class Draft:
    """Scene arrays while they are being filled."""

    position: np.ndarray
    rotation: np.ndarray
    half_size: np.ndarray
    texture: np.ndarray
    offset: np.ndarray
    colors: np.ndarray
    pattern: np.ndarray

    @classmethod
    def empty(cls, frames: int, slots: Slots = SLOTS) -> Draft:
        surfaces, columns = slots.surfaces, PATTERN if slots == SLOTS else PATTERN_OF_PLACES
        position = np.zeros((frames + 1, surfaces, 3))
        position[..., 1] = 50.0  # absent slots lie under the ground
        rotation = np.zeros((frames + 1, surfaces, 3, 3))
        rotation[...] = np.eye(3)
        return cls(
            position,
            rotation,
            np.zeros((surfaces, 3)),
            np.zeros((surfaces, 3, 3)),
            np.full((surfaces, 3), 0.5),
            np.zeros((surfaces, 3, 3)),
            np.zeros((surfaces, len(columns))),
        )

    def scene(self, sun: np.ndarray, sky: np.ndarray) -> Scene:
        """The finished scene, in float32, under a sun and a sky of ``lighting``."""
        position, rotation = self.position.astype(np.float32), self.rotation.astype(np.float32)
        return Scene(
            position,
            rotation,
            self.half_size.astype(np.float32),
            moving_mask(position, rotation),
            self.texture.astype(np.float32),
            self.offset.astype(np.float32),
            self.colors.astype(np.float32),
            self.pattern.astype(np.float32),
            sun.astype(np.float32),
            sky.astype(np.float32),
        )

    def lay_ground(self, surface: Surface) -> None:
        self.position[:, GROUND] = 0.0, 0.5, 0.0
        self.half_size[GROUND] = 1e6, 0.5, 1e6
        self.paint(GROUND, surface)

    def paint(self, slot: int, surface: Surface) -> None:
        self.texture[slot], self.offset[slot] = surface.texture, surface.offset
        self.colors[slot] = surface.colors
        self.pattern[slot, : len(surface.pattern)] = surface.pattern


def lighting(rng: np.random.Generator) -> tuple[str, np.ndarray, np.ndarray]:
    """(name, Scene.sun, Scene.sky)."""
    name = LIGHTINGS[rng.choice(len(LIGHTINGS), p=[0.35, 0.2, 0.15, 0.1, 0.2])]
    # The sun stands behind the camera or beside it, so that the sides in view are mostly lit.
    azimuth = rng.uniform(-2.0, 2.0) + np.pi
    elevation, sun, sky_light, zenith, horizon, cloud, amount = {
        "midday": (
            1.0,
            (1.0, 0.96, 0.88),
            (0.30, 0.36, 0.46),
            (0.30, 0.52, 0.85),
            (0.72, 0.82, 0.92),
            (0.97, 0.97, 0.97),
            0.85,
        ),
        "morning": (
            0.7,
            (1.0, 0.92, 0.78),
            (0.32, 0.36, 0.42),
            (0.42, 0.64, 0.88),
            (0.86, 0.88, 0.88),
            (0.98, 0.96, 0.93),
            0.6,
        ),
        "evening": (
            0.45,
            (1.15, 0.76, 0.48),
            (0.30, 0.30, 0.38),
            (0.38, 0.50, 0.72),
            (0.95, 0.76, 0.56),
            (0.98, 0.84, 0.70),
            0.7,
        ),
        "dusk": (
            0.42,
            (0.85, 0.58, 0.56),
            (0.30, 0.27, 0.38),
            (0.38, 0.36, 0.60),
            (0.90, 0.64, 0.62),
            (0.80, 0.58, 0.66),
            0.7,
        ),
        "overcast": (
            0.9,
            (0.30, 0.30, 0.30),
            (0.66, 0.68, 0.72),
            (0.66, 0.70, 0.75),
            (0.82, 0.84, 0.86),
            (0.92, 0.92, 0.93),
            0.7,
        ),
    }[name]
    elevation += rng.uniform(-0.12, 0.12)
    direction = np.array(
        [np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    )
    bounce = 0.55 * np.asarray(sky_light)
    sky = np.stack(
        [
            linear(zenith),
            linear(horizon),
            linear(cloud),
            [amount, rng.uniform(0.0, 50.0), rng.uniform(0.008, 0.03)],
        ]
    )
    return name, np.stack([direction, sun, sky_light, bounce]), sky


def sample_shape(rng: np.random.Generator, kind: str) -> tuple[str, np.ndarray]:
    """(shape word, half size [3]) of a box, sphere or cylinder."""
    if kind == "sphere":
        return SHAPES["sphere"][0], np.full(3, rng.uniform(0.28, 0.6))
    if kind == "box":
        word = SHAPES["box"][rng.integers(len(SHAPES["box"]))]
        if word == "cube":
            half = np.full(3, rng.uniform(0.28, 0.5))
        elif word == "bench":
            half = np.array([rng.uniform(0.6, 0.9), rng.uniform(0.18, 0.28), rng.uniform(0.25, 0.4)])
        elif word == "tower":
            half = np.array([rng.uniform(0.22, 0.35), rng.uniform(0.7, 1.2), rng.uniform(0.22, 0.35)])
        else:
            half = rng.uniform(0.3, 0.55, 3)
        return word, half
    word = SHAPES["cylinder"][rng.integers(len(SHAPES["cylinder"]))]
    radius, height = {
        "drum": (rng.uniform(0.28, 0.5), rng.uniform(0.3, 0.5)),
        "pillar": (rng.uniform(0.17, 0.28), rng.uniform(0.8, 1.4)),
        "disc": (rng.uniform(0.45, 0.75), rng.uniform(0.12, 0.2)),
    }[word]
    return word, np.array([radius, height, radius])
