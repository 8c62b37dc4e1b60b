"""The fixed parts of a place while it is being built: walls, doorways, houses, floors, landmarks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from camctrl_jax.worlds.drafts import Draft
from camctrl_jax.worlds.motion import rotations
from camctrl_jax.worlds.places.solids import Footprints
from camctrl_jax.worlds.scene import FIRST_WALL, PLACE_SLOTS, Fixture
from camctrl_jax.worlds.surfaces import (
    COLOR_NAMES,
    WALL_STYLES,
    Surface,
    contrasting,
    linear,
    wall_surface,
    with_zones,
)

DOOR_HEIGHT = 2.15
RING = 0.75, 1.2
"""Metres beyond a monument at which a camera goes round it."""
_FLAT = 0.05  # metres; what is lower is walked over
_HEAD = 2.05  # metres; what begins higher is walked under


@dataclass(frozen=True)
class Area:
    """A rectangle in which objects stand, with how many of them: x from ``west`` to ``east``, z from
    ``south`` to ``north``."""

    west: float
    east: float
    south: float
    north: float
    objects: int

    @property
    def size(self) -> float:
        return (self.east - self.west) * (self.north - self.south)


@dataclass
class Site:
    """What stands in a place for good.

    Attributes:
        fixtures: what was built so far.
        solid: their outlines, without what is walked over or under.
        above: outlines of what is walked under.
        undersides: how high each of those begins, metres.
        areas: where objects go.
        landmarks: outlines (x, z, radius) of things to walk round.
        reserved: ground on which no objects stand.
    """

    rng: np.random.Generator
    draft: Draft
    fixtures: list[Fixture] = field(default_factory=list)
    solid: Footprints = field(default_factory=Footprints.none)
    above: Footprints = field(default_factory=Footprints.none)
    undersides: tuple[float, ...] = ()
    areas: list[Area] = field(default_factory=list)
    landmarks: list[tuple[float, float, float]] = field(default_factory=list)
    reserved: Footprints = field(default_factory=Footprints.none)
    _next: dict[str, int] = field(
        default_factory=lambda: {"box": FIRST_WALL, "cylinder": PLACE_SLOTS.first_cylinder}
    )

    def room_for(self, count: int) -> bool:
        """Whether so many more boxes fit into the scene."""
        return self._next["box"] + count <= PLACE_SLOTS.first_box

    def box(
        self,
        kind: str,
        style: str,
        surface: Surface,
        center: tuple[float, float],
        half: tuple[float, float, float],
        yaw: float = 0.0,
        bottom: float = 0.0,
    ) -> bool:
        """Build a box with its middle at (x, z) and its underside ``bottom`` metres high; False: no slot."""
        if not self.room_for(1):
            return False
        slot = self._next["box"]
        self._next["box"] += 1
        turn = rotations(np.array([yaw]), np.array([1.0, 0.0, 0.0]), np.zeros(1))[0]
        self._build(slot, kind, style, surface, center, half, bottom)
        self.draft.rotation[:, slot] = turn
        outline = np.array([center], float), np.array([[half[0], half[2]]]), np.array([yaw]), np.zeros(1)
        if bottom >= _HEAD:
            self.above = self.above.with_more(Footprints(*outline))
            self.undersides += (bottom,)
        elif bottom + 2 * half[1] > _FLAT:
            self.solid = self.solid.with_more(Footprints(*outline))
        return True

    def lower_than(self, top: float) -> Footprints:
        """Outlines of what is walked under, but not by what reaches up to ``top`` metres."""
        return self.above.only(np.array(self.undersides) < top)

    def cylinder(
        self,
        kind: str,
        style: str,
        surface: Surface,
        center: tuple[float, float],
        radius: float,
        height: float,
    ) -> bool:
        """Build an upright cylinder. The last six slots of them are left for objects."""
        slot = self._next["cylinder"]
        if slot >= PLACE_SLOTS.surfaces - 6:
            return False
        self._next["cylinder"] += 1
        self._build(slot, kind, style, surface, center, (radius, 0.5 * height, radius), 0.0)
        if height > _FLAT:
            self.solid = self.solid.with_more(Footprints.discs(np.array([center], float), radius))
        return True

    def free_cylinders(self) -> range:
        """Slots of cylinders that no fixture took."""
        return range(self._next["cylinder"], PLACE_SLOTS.surfaces)

    def _build(self, slot, kind, style, surface, center, half, bottom):
        self.draft.position[:, slot] = center[0], -bottom - half[1], center[1]
        self.draft.half_size[slot] = half
        self.draft.paint(slot, surface)
        self.fixtures.append(Fixture(slot, kind, style))

    # ------------------------------------------------------------------------------------------------ looks

    def color(self) -> str:
        return COLOR_NAMES[self.rng.integers(len(COLOR_NAMES))]

    def wall_look(self, style: str | None = None) -> tuple[str, Surface]:
        """A style of walls and its surface, in random colours, with regions of two to four metres."""
        rng = self.rng
        style = WALL_STYLES[rng.integers(len(WALL_STYLES))] if style is None else style
        color = self.color()
        surface = wall_surface(rng, style, color, contrasting(rng, color))
        return style, with_zones(rng, surface, style, rng.uniform(1.8, 3.2))

    def plain(self, color: str) -> Surface:
        """One colour with the slow variation: frames of doorways, roofs, patches."""
        rng = self.rng
        surface = wall_surface(rng, "concrete", color, color)
        base = linear(color)
        colors = np.stack([base, 0.7 * base, np.zeros(3)]).astype(np.float32)
        return Surface(surface.texture, surface.offset, colors, surface.pattern)

    # ---------------------------------------------------------------------------------------------- walls

    def wall(
        self,
        start: tuple[float, float],
        stop: tuple[float, float],
        height: float,
        style: str,
        surface: Surface,
        doors: tuple[tuple[float, float], ...] = (),
        thickness: float = 0.2,
        lintel: str = "",
    ) -> None:
        """A wall between two points (x, z), with doorways at (middle, width) in metres from its start.

        Doorways have lintels of colour ``lintel``; without a colour they are open to the sky.
        """
        begin, way = np.asarray(start, float), np.subtract(stop, start)
        length = float(np.hypot(*way))
        way = way / length
        yaw = float(np.arctan2(-way[1], way[0]))
        edges = [0.0]
        for middle, width in sorted(doors):
            edges += [middle - 0.5 * width, middle + 0.5 * width]
        edges.append(length)
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            if last - first > 0.05:
                middle = begin + 0.5 * (first + last) * way
                half = 0.5 * (last - first), 0.5 * height, 0.5 * thickness
                self.box("wall", style, surface, tuple(middle), half, yaw)
        if lintel and height > DOOR_HEIGHT + 0.15:
            frame = self.plain(lintel)
            for middle, width in doors:
                top = 0.5 * (height - DOOR_HEIGHT)
                half = 0.5 * width, top, 0.5 * thickness + 0.02
                self.box("lintel", "", frame, tuple(begin + middle * way), half, yaw, DOOR_HEIGHT)

    def monument(self, center: tuple[float, float], radius: float, height: float) -> None:
        """A block with a smaller one on top, with free ground round it for a camera to walk on."""
        rng, half = self.rng, 0.7 * radius
        for size, tall, bottom in ((half, 0.4 * height, 0.0), (0.6 * half, 0.6 * height, 0.4 * height)):
            style, surface = self.wall_look()
            self.box("block", style, surface, center, (size, 0.5 * tall, size), rng.uniform(0.0, 1.5), bottom)
        self.landmarks.append((*center, radius))
        ground = Footprints.discs(np.array([center], float), radius + RING[1] + 0.65)
        self.reserved = self.reserved.with_more(ground)

    def patch(self, center: tuple[float, float], size: float) -> None:
        """A round coloured patch on the ground."""
        self.cylinder("patch", "", self.plain(self.color()), center, size, 0.02)
