"""What a world is: fixed-shape scene arrays, the camera, the captions and the names of things.

World axes follow the camera axes of the package: x right, y DOWN, z forward, in metres. The ground is the
plane y = 0, so a camera 1.5 m above it has y = -1.5 and the sun's direction has a negative y.

Scenes of one kind have the same slots, so that they stack: one ground, then walls, boxes, spheres and upright
cylinders. A slot that a scene does not use is absent: its half size is zero and it lies under the ground.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.errors import InvalidValue


@dataclass(frozen=True)
class Slots:
    """How many surfaces of each kind a scene has room for, in the order of its arrays."""

    walls: int
    boxes: int
    spheres: int
    cylinders: int

    @property
    def first_box(self) -> int:
        return FIRST_WALL + self.walls

    @property
    def first_sphere(self) -> int:
        return self.first_box + self.boxes

    @property
    def first_cylinder(self) -> int:
        return self.first_sphere + self.spheres

    @property
    def surfaces(self) -> int:
        return self.first_cylinder + self.cylinders

    @property
    def sky(self) -> int:
        """What stands for the sky among slots: all bits that a slot takes in a packed hit."""
        return 15 if self.surfaces <= 15 else 63

    @property
    def kinds(self) -> tuple[tuple[str, int, int], ...]:
        """(kind of solid, first slot, first slot after it); walls are boxes."""
        return (
            ("box", FIRST_WALL, self.first_sphere),
            ("sphere", self.first_sphere, self.first_cylinder),
            ("cylinder", self.first_cylinder, self.surfaces),
        )


GROUND = 0
FIRST_WALL = 1
SLOTS = Slots(walls=3, boxes=4, spheres=3, cylinders=3)
PLACE_SLOTS = Slots(walls=30, boxes=12, spheres=7, cylinders=12)
"""Of worlds that lie in front of the first camera, and of places to explore."""

WALLS, BOXES, SPHERES, CYLINDERS = SLOTS.walls, SLOTS.boxes, SLOTS.spheres, SLOTS.cylinders
FIRST_BOX, FIRST_SPHERE, FIRST_CYLINDER = SLOTS.first_box, SLOTS.first_sphere, SLOTS.first_cylinder
SURFACES = SLOTS.surfaces


def slots_of(surfaces: int) -> Slots:
    """The slots of a scene with so many surfaces: each kind of scene has a number of its own."""
    for slots in (SLOTS, PLACE_SLOTS):
        if slots.surfaces == surfaces:
            return slots
    raise InvalidValue(
        f"a scene of {surfaces} surfaces; expected {SLOTS.surfaces}, or {PLACE_SLOTS.surfaces} of a place"
    )


SHAPES = {
    "box": ("cube", "crate", "block", "bench", "tower"),
    "sphere": ("ball",),
    "cylinder": ("drum", "pillar", "disc"),
}
"""Shape words by kind of primitive."""

SKY_INSTANCE = 0  # instance id of the sky; surface slot s has the id s + 1


LAYOUTS = ("garden", "rooms", "town")
ROUTES = ("clips", "wander", "out_and_back", "there_and_back", "detour", "loop", "around", "turn")


@dataclass(frozen=True)
class Places:
    """Worlds to explore: objects all round the first camera, walls and corners that hide, and long takes.

    Attributes:
        layout: one of ``LAYOUTS``; None draws one by the seed. A garden is open, with things to walk round;
            rooms have walls and doorways; a town has streets between houses.
        route: one of ``ROUTES``, see docs/worlds.md; None draws one that fits the length of the take. Of a
            seed that has no room for it, ``World.path_class`` and ``World.route_asked`` say so.
        take_frames: frames of the whole take, of which a world shows ``WorldsConfig.frames`` from anywhere;
            None: the world is the whole take.
    """

    layout: str | None = None
    route: str | None = None
    take_frames: int | None = None

    def validate(self, frames: int) -> None:
        """Raise InvalidValue for values that no place, or no world of so many frames, can have."""
        for name, value, known in (("layout", self.layout, LAYOUTS), ("route", self.route, ROUTES)):
            if value is not None and value not in known:
                raise InvalidValue(f"Places.{name} is {value!r}; expected None or one of {', '.join(known)}")
        if self.take_frames is not None and self.take_frames < frames:
            raise InvalidValue(
                f"Places.take_frames is {self.take_frames}; expected at least the {frames} frames of a world"
            )


@dataclass(frozen=True)
class WorldsConfig:
    """What kind of worlds to sample.

    ``frames`` frames at ``fps``; ``aspect`` is width / height, for which pixels are square; ``static`` holds
    every object at rest (the same objects, places and camera as the moving world of that seed). ``places``
    are worlds to explore, with as many objects as there is room for; without them all objects stand in front
    of the first camera, and ``min_objects`` and ``max_objects`` bound their number.
    """

    frames: int = 49
    fps: float = 12.0
    static: bool = False
    aspect: float = 5.0 / 3.0
    min_objects: int = 6
    max_objects: int = BOXES + SPHERES + CYLINDERS
    clearance: float = 0.4  # least distance of the camera to any surface, metres
    places: Places | None = None

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
        if self.places is not None:
            for name in ("min_objects", "max_objects"):
                usual = getattr(WorldsConfig, name)
                if getattr(self, name) != usual:
                    raise InvalidValue(
                        f"WorldsConfig.{name} is {getattr(self, name)} with places, which have as many "
                        f"objects as there is room for; leave it at {usual}"
                    )
            self.places.validate(self.frames)


@dataclass(frozen=True, eq=False)
class Scene:
    """Arrays of one scene, float32 unless stated; S = ``slots.surfaces`` slots, T frames.

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

    @property
    def slots(self) -> Slots:
        return slots_of(len(self.half_size))

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
    visible: bool  # its centre is in the first frame and no other object stands before it; in places: is seen

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


@dataclass(frozen=True)
class Fixture:
    """A part of a place that stands for good: ``kind`` as in its name, ``style`` as its surface."""

    slot: int
    kind: str
    style: str = ""


@dataclass(frozen=True, eq=False)
class World:
    """A dynamic scene with its camera path: everything that rendering and captions need.

    Of a place to explore it may show a window out of a longer take. The cameras of all windows of a take are
    in the same axes, and ``reference`` is the pose of the take's first frame; see ``reference_pose``.
    """

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
    setting: str = ""  # of a place: one of ``LAYOUTS``
    fixtures: tuple[Fixture, ...] = ()  # of a place
    returns: tuple[tuple[int, int], ...] = ()  # frames (earlier, later) whose camera poses are the very same
    route_asked: str = ""  # of a place, when there was no room for the route asked for; else empty
    reference: np.ndarray | None = None  # f64 [4, 4] world_from_camera; None: that of this world's frame 0

    @property
    def reference_pose(self) -> np.ndarray:
        """World-from-camera [4, 4] of the camera that poses are given relative to: the take's first."""
        return self.cameras.world_from_camera[0] if self.reference is None else self.reference

    @property
    def frames(self) -> int:
        return len(self.cameras)

    @property
    def instance_names(self) -> dict[int, str]:
        """Instance id -> name, for every id that can occur in ``Frames.instances``."""
        names = {SKY_INSTANCE: "sky", GROUND + 1: "ground"}
        for item in self.fixtures:
            names[item.slot + 1] = f"{item.kind} {item.slot}"
        for slot in range(FIRST_WALL, self.scene.slots.first_box):
            if self.scene.half_size[slot, 0] > 0 and not self.fixtures:
                names[slot + 1] = f"wall {slot - FIRST_WALL}"
        for item in self.objects:
            names[item.instance] = f"{item.color} {item.shape}"
        return names
