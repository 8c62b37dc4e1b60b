"""What a world is: fixed-shape scene arrays, the camera, the captions and the names of things.

World axes follow the camera axes of the package: x right, y DOWN, z forward, in metres. The ground is the
plane y = 0, so a camera 1.5 m above it has y = -1.5 and the sun's direction has a negative y.

Every scene has the same slots, so that scenes stack: one ground, then walls, boxes, spheres and upright
cylinders. A slot that a scene does not use is absent: its half size is zero and it lies under the ground.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.errors import InvalidValue

WALLS, BOXES, SPHERES, CYLINDERS = 3, 4, 3, 3
GROUND = 0
FIRST_WALL = 1
FIRST_BOX = FIRST_WALL + WALLS
FIRST_SPHERE = FIRST_BOX + BOXES
FIRST_CYLINDER = FIRST_SPHERE + SPHERES
SURFACES = FIRST_CYLINDER + CYLINDERS

SHAPES = {
    "box": ("cube", "crate", "block", "bench", "tower"),
    "sphere": ("ball",),
    "cylinder": ("drum", "pillar", "disc"),
}
"""Shape words by kind of primitive."""

SKY_INSTANCE = 0  # instance id of the sky; surface slot s has the id s + 1


@dataclass(frozen=True)
class WorldsConfig:
    """What kind of worlds to sample.

    ``frames`` frames at ``fps``; ``aspect`` is width / height, for which pixels are square; ``static`` holds
    every object at rest (the same objects, places and camera as the moving world of that seed).
    """

    frames: int = 49
    fps: float = 12.0
    static: bool = False
    aspect: float = 5.0 / 3.0
    min_objects: int = 6
    max_objects: int = BOXES + SPHERES + CYLINDERS
    clearance: float = 0.4  # least distance of the camera to any surface, metres

    def validate(self) -> None:
        """Raise ValueError for values no world can have."""
        if self.frames < 1:
            raise InvalidValue(f"WorldsConfig.frames is {self.frames}; expected at least 1")
        for name in ("fps", "aspect", "clearance"):
            if not getattr(self, name) > 0:
                raise InvalidValue(
                    f"WorldsConfig.{name} is {getattr(self, name)}; expected a positive number"
                )
        if not 1 <= self.min_objects <= self.max_objects <= BOXES + SPHERES + CYLINDERS:
            raise InvalidValue(
                f"WorldsConfig asks for {self.min_objects} to {self.max_objects} objects; "
                f"expected 1 <= min_objects <= max_objects <= {BOXES + SPHERES + CYLINDERS}"
            )


@dataclass(frozen=True, eq=False)
class Scene:
    """Arrays of one scene, float32 unless stated; S = ``SURFACES`` slots, T frames.

    Poses run over T + 1 frames: the last one tells whether an object moves in the interval after the last
    frame.
    """

    position: np.ndarray  # [T+1, S, 3] object centre, metres
    rotation: np.ndarray  # [T+1, S, 3, 3] world_from_object
    half_size: (
        np.ndarray
    )  # [S, 3] metres; spheres: radius three times; cylinders: radius, half height, radius
    moving: np.ndarray  # bool [T, S] the object moves between frames t and t + 1
    texture: np.ndarray  # [S, 3, 3] texture cells per metre: texture_from_object
    offset: np.ndarray  # [S, 3] texture coordinates of the object's centre
    colors: np.ndarray  # [S, 3, 3] linear RGB: base, second colour, tint of the slow variation
    pattern: np.ndarray  # [S, len(PATTERN)] see surfaces.PATTERN
    sun: np.ndarray  # [4, 3] direction to the sun (unit), sun colour, sky light, light from the ground
    sky: np.ndarray  # [4, 3] zenith, horizon, cloud colour, (cloud amount, cloud phase, haze per metre)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, as the renderer takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def moving_mask(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Bool [T, S] from poses of T + 1 frames: whether each object moves between frames t and t + 1."""
    shifted = np.abs(np.diff(position, axis=0)).max(axis=-1) > 1e-5
    return shifted | (np.abs(np.diff(rotation, axis=0)).max(axis=(-1, -2)) > 1e-5)


@dataclass(frozen=True)
class WorldObject:
    """One object as the captions speak of it. ``slot`` indexes the scene arrays; its instance id is slot +
    1."""

    slot: int
    shape: str
    color: str
    second_color: str
    material: str
    motion: str
    direction: str  # where it goes, seen from the first frame; empty when the motion has no direction
    visible: bool  # its centre is in the first frame and no other object stands before it

    @property
    def instance(self) -> int:
        return self.slot + 1


@dataclass(frozen=True)
class Move:
    """One component of a camera path: ``amplitude`` in metres or degrees (always positive), frames of its
    window."""

    name: str
    amplitude: float
    start: float
    stop: float


@dataclass(frozen=True, eq=False)
class World:
    """A dynamic scene with its camera path: everything that rendering and captions need."""

    seed: int
    fps: float
    scene: Scene
    cameras: Cameras
    captions: tuple[str, ...]
    path_class: str
    moves: tuple[Move, ...]
    objects: tuple[WorldObject, ...]  # the largest in the first frame first, those not visible there last
    ground: str
    wall: str  # empty: no wall
    lighting: str

    @property
    def frames(self) -> int:
        return len(self.cameras)

    @property
    def instance_names(self) -> dict[int, str]:
        """Instance id -> name, for every id that can occur in ``Frames.instances``."""
        names = {SKY_INSTANCE: "sky", GROUND + 1: "ground"}
        for slot in range(FIRST_WALL, FIRST_BOX):
            if self.scene.half_size[slot, 0] > 0:
                names[slot + 1] = f"wall {slot - FIRST_WALL}"
        for item in self.objects:
            names[item.instance] = f"{item.color} {item.shape}"
        return names
