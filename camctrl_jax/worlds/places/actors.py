"""The objects of a place: what they are, where they stand, how they move for as long as a take lasts.

Motion goes in phases of whole periods with rests between them, so that what slides comes back and what
bounces rests on the ground. Nothing walks through walls or through each other: every object keeps the whole
outline that it ever covers for itself.
"""

from __future__ import annotations

import numpy as np

from camctrl_jax.worlds.drafts import sample_shape
from camctrl_jax.worlds.motion import Motion, rotations
from camctrl_jax.worlds.places.site import Area, Site
from camctrl_jax.worlds.places.solids import Footprints
from camctrl_jax.worlds.scene import PLACE_SLOTS, WorldObject
from camctrl_jax.worlds.surfaces import COLOR_NAMES, MATERIALS, contrasting, object_surface

_TRIES = 24  # places tried at once for one object
_GAP = 0.12  # least gap to walls and to other objects, metres
_STOPS = 12  # points by which the way of an object is told
_KINDS = {
    "box": ("rest", "rest", "rest", "spin", "spin", "slide", "return"),
    "sphere": ("rest", "slide", "slide", "return", "bounce", "bounce", "orbit"),
    "cylinder": ("rest", "rest", "rest", "slide", "return", "orbit", "spin"),
}


def populate(site: Site, frames: int, fps: float) -> tuple[list[WorldObject], Footprints]:
    """Place objects in the areas of a site.

    Returns: the objects, none yet visible, and the outlines of all ground that they ever cover.
    """
    rng = site.rng
    slots = [
        *range(PLACE_SLOTS.first_box, PLACE_SLOTS.first_cylinder),
        *site.free_cylinders(),
    ]
    slots = [int(slot) for slot in rng.permutation(slots)]
    objects: list[WorldObject] = []
    covered, fixed = Footprints.none(), site.solid.with_more(site.reserved)
    colors = rng.permutation(len(COLOR_NAMES))
    # One object for every area in turn, so that none is empty when slots run out.
    most = max(area.objects for area in site.areas)
    turns = [area for count in range(most) for area in site.areas if area.objects > count]
    for area in turns:
        if not slots:
            break
        slot = slots[-1]
        kind = (
            "box"
            if slot < PLACE_SLOTS.first_sphere
            else "sphere"
            if slot < PLACE_SLOTS.first_cylinder
            else "cylinder"
        )
        word, half = sample_shape(rng, kind)
        if word == "tower" and rng.random() < 0.4:
            half = half * (1.2, rng.uniform(1.5, 2.2), 1.2)  # seen from afar
        radius = float(np.hypot(half[0], half[2])) if kind == "box" else float(half[0])
        name = _KINDS[kind][rng.integers(len(_KINDS[kind]))]
        if word in ("pillar", "tower"):
            name = ("rest", "rest", "rest", "spin")[rng.integers(4)]
        motion = sample_long_motion(rng, name, kind, radius, frames, fps)
        found = _place(rng, area, motion, radius, _solid_for(site, fixed, half, motion), covered)
        if found is None and name != "rest":
            motion = sample_long_motion(rng, "rest", kind, radius, frames, fps)
            found = _place(rng, area, motion, radius, _solid_for(site, fixed, half, motion), covered)
        if found is None:
            continue
        slots.pop()
        place, outline = found
        covered = covered.with_more(outline)
        color = COLOR_NAMES[colors[len(objects) % len(colors)]]
        material = MATERIALS[rng.integers(len(MATERIALS))]
        second = contrasting(rng, color)
        draft = site.draft
        draft.paint(slot, object_surface(rng, material, color, second, half))
        draft.half_size[slot] = half
        draft.position[:, slot] = np.array([place[0], -half[1], place[1]]) + motion.shift
        draft.rotation[:, slot] = rotations(motion.yaw + rng.uniform(-np.pi, np.pi), motion.axle, motion.roll)
        objects.append(WorldObject(slot, word, color, second, material, motion.kind, "", visible=False))
    return objects, covered


def _solid_for(site: Site, fixed: Footprints, half: np.ndarray, motion: Motion) -> Footprints:
    """The outlines ``fixed``, with those of roofs, arches and lintels into which an object would reach."""
    top = 2.0 * float(half[1]) - float(motion.shift[:, 1].min()) + _GAP
    return fixed.with_more(site.lower_than(top))


def _place(
    rng: np.random.Generator,
    area: Area,
    motion: Motion,
    radius: float,
    solid: Footprints,
    covered: Footprints,
) -> tuple[np.ndarray, Footprints] | None:
    """(x, z) in the area where the whole way is clear of all else, and the outline of that way."""
    stops, spread = _stops(motion)
    reach = radius + spread
    least, most = stops.min(axis=0) - reach, stops.max(axis=0) + reach
    low = np.array([area.west, area.south]) - least
    high = np.array([area.east, area.north]) - most
    if (low > high).any():
        return None
    places = rng.uniform(low, high, (_TRIES, 2))
    for few in np.split(places, (2, 6, 14)):  # the first that is clear is taken, and mostly soon found
        way = few[:, None] + stops  # [tries, stops, 2]
        clear = (solid.nearest(way, reach + _GAP) > reach + _GAP).all(axis=1)
        clear[clear] = (covered.nearest(way[clear], reach + _GAP) > reach + _GAP).all(axis=1)
        if clear.any():
            place = few[clear.argmax()]
            return place, Footprints.discs(place + stops, reach)
    return None


def _stops(motion: Motion) -> tuple[np.ndarray, float]:
    """Ground points [N, 2] of a way, and within which distance of one of them each of its points lies."""
    track = motion.shift[:, ::2]
    if not np.ptp(track, axis=0).any():
        return track[:1], 0.0
    # Farthest points first: each next one is that which is farthest from all before.
    stops, away = track[:1], np.linalg.norm(track - track[0], axis=1)
    while len(stops) < _STOPS and away.max() > 0.05:
        stops = np.concatenate([stops, track[away.argmax()][None]])
        away = np.minimum(away, np.linalg.norm(track - stops[-1], axis=1))
    return stops, float(away.max())


def _phase(rng: np.random.Generator, frames: int, fps: float, period: float, pausing: float) -> np.ndarray:
    """Periods done, f64 [T+1]: runs of whole periods, with rests in which it stays at a whole number."""
    count = np.zeros(frames + 1)
    done, frame = 0, 0
    step = max(2, round(period * fps))
    if rng.random() < pausing:
        frame = int(rng.uniform(0.2, 2.5) * fps)
    while frame <= frames:
        runs = int(rng.integers(1, 4)) if pausing > 0 else frames
        stop = min(frame + runs * step, frames + 1 + step)
        inside = np.arange(frame, min(stop, frames) + 1)
        count[inside] = done + (inside - frame) / step
        done = done + (stop - frame) // step
        rest = int(rng.uniform(0.5, 3.0) * fps) if rng.random() < pausing else 0
        count[min(stop, frames + 1) :] = done
        frame = stop + rest
    return count


def sample_long_motion(
    rng: np.random.Generator, kind: str, shape: str, size: float, frames: int, fps: float
) -> Motion:
    """A motion of ``kind`` that goes on, with rests, for as many frames as there are."""
    still = np.zeros(frames + 1)
    shift, yaw, roll, axle = np.zeros((frames + 1, 3)), still, still, np.array([1.0, 0.0, 0.0])
    sign = rng.choice([-1.0, 1.0])
    if kind in ("slide", "return"):
        heading = rng.uniform(-np.pi, np.pi)
        way = np.array([np.sin(heading), 0.0, np.cos(heading)])
        distance = rng.uniform(0.8, 2.4)
        period = distance / rng.uniform(0.3, 0.65)
        phase = _phase(rng, frames, fps, period, 0.6 if kind == "slide" else 0.0) % 2.0
        share = np.where(phase < 1.0, phase, 2.0 - phase)
        travelled = distance * share * share * (3.0 - 2.0 * share)
        shift = travelled[:, None] * way
        if shape == "sphere":  # rolls without slipping
            roll, axle = -travelled / size, np.array([way[2], 0.0, -way[0]])
    elif kind == "bounce":
        part = _phase(rng, frames, fps, rng.uniform(0.8, 1.2), 0.3) % 1.0
        shift[:, 1] = -rng.uniform(0.35, 0.9) * 4.0 * part * (1.0 - part)
    elif kind == "orbit":
        radius, start = rng.uniform(0.4, 0.8), rng.uniform(-np.pi, np.pi)
        angle = start + sign * 0.5 * np.pi * _phase(rng, frames, fps, rng.uniform(1.6, 3.0), 0.2)
        shift[:, 0] = radius * (np.sin(angle) - np.sin(start))
        shift[:, 2] = radius * (np.cos(angle) - np.cos(start))
        yaw = angle - start
    elif kind == "spin":
        yaw = sign * rng.uniform(0.35, 0.9) * _phase(rng, frames, fps, 1.0, 0.15)
    return Motion(kind, shift, yaw, roll, axle, False)
