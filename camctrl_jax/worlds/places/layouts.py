"""How places are laid out: gardens, rooms, towns. Each fills a ``Site`` and says where objects may stand."""

from __future__ import annotations

import numpy as np

from camctrl_jax.worlds.places.site import Area, Site
from camctrl_jax.worlds.surfaces import GROUNDS, contrasting, ground_surface, with_zones

GARDEN_RADIUS = 8.5
_FLOORS = ("plaza", "planks", "carpet", "asphalt")


def lay_out(site: Site, layout: str) -> None:
    """Build the fixed parts of a place of one of ``LAYOUTS``.

    What a place cannot do without is built first: the boxes of a scene may run out.
    """
    {"garden": _garden, "rooms": _rooms, "town": _town}[layout](site)


def place_ground(rng: np.random.Generator, layout: str):
    """(style, surface) of the ground of a place."""
    styles = {
        "garden": ("grass", "grass", "sand", "snow", "plaza", "carpet"),
        "rooms": GROUNDS,
        "town": ("plaza", "asphalt", "sand", "planks", "snow"),
    }[layout]
    style = styles[rng.integers(len(styles))]
    return style, with_zones(rng, ground_surface(rng, style), style, rng.uniform(2.6, 4.2))


# -------------------------------------------------------------------------------------------------- garden


def _garden(site: Site) -> None:
    """Open ground: a landmark or two, garden walls with gates and corners, patches; objects everywhere."""
    rng, radius = site.rng, GARDEN_RADIUS
    turn = rng.uniform(-np.pi, np.pi)
    _towers(site, radius + 3.5)
    site.monument(tuple(rng.uniform(-1.8, 1.8, 2)), rng.uniform(0.6, 1.1), rng.uniform(1.8, 3.2))
    spots = [turn + 2 * np.pi * (k + rng.uniform(-0.2, 0.2)) / 5 for k in range(5)]
    makers = [_pavilion, _gate, _corner, _block, _gate if rng.random() < 0.5 else _corner]
    for angle, make in zip(spots, [makers[i] for i in rng.permutation(5)], strict=True):
        distance = rng.uniform(0.6, 0.85) * radius
        make(site, np.array([np.sin(angle), np.cos(angle)]) * distance, angle + rng.normal(0.0, 0.4))
    _ring(site, radius + rng.uniform(0.8, 2.0), turn)
    _patches(site, 3, radius * 0.8)
    side = 0.5 * radius
    for x in (-side, side):
        for z in (-side, side):
            site.areas.append(Area(x - side, x + side, z - side, z + side, 6))


def _ring(site: Site, radius: float, turn: float) -> None:
    """The wall that bounds a garden, in stretches of different looks and heights with gaps between them."""
    rng, count = site.rng, 7
    for k in range(count):
        angle = turn + 2 * np.pi * k / count
        half = np.pi / count - rng.uniform(0.03, 0.14)
        ends = [radius * np.array([np.sin(a), np.cos(a)]) for a in (angle - half, angle + half)]
        style, surface = site.wall_look()
        site.wall(tuple(ends[0]), tuple(ends[1]), rng.uniform(1.3, 2.8), style, surface)


def _towers(site: Site, distance: float) -> None:
    """Two or three tall towers far out: seen over the walls, they tell directions apart."""
    rng = site.rng
    turn, count = rng.uniform(-np.pi, np.pi), int(rng.integers(2, 4))
    for k in range(count):
        angle = turn + 2 * np.pi * (k + rng.uniform(-0.3, 0.3)) / count
        away = distance + rng.uniform(1.0, 6.0)
        style, surface = site.wall_look()
        half = rng.uniform(0.6, 1.3), 0.5 * rng.uniform(5.0, 9.0), rng.uniform(0.6, 1.3)
        middle = away * np.sin(angle), away * np.cos(angle)
        site.box("tower", style, surface, middle, half, rng.uniform(0.0, np.pi / 2))


def _patches(site: Site, count: int, reach: float) -> None:
    for _ in range(count):
        x, z = site.rng.uniform(-reach, reach, 2)
        site.patch((x, z), site.rng.uniform(0.7, 1.6))


def _pavilion(site: Site, middle: np.ndarray, angle: float) -> None:
    """Four pillars with a roof."""
    rng = site.rng
    half, height = rng.uniform(1.0, 1.4), rng.uniform(2.3, 2.7)
    pillar, roof = site.plain(site.color()), site.plain(site.color())
    cos, sin = np.cos(angle), np.sin(angle)
    for x, z in ((-half, -half), (half, -half), (half, half), (-half, half)):
        corner = middle[0] + cos * x + sin * z, middle[1] - sin * x + cos * z
        if not site.cylinder("pillar", "", pillar, corner, 0.14, height):
            return
    site.box("roof", "", roof, tuple(middle), (half + 0.35, 0.12, half + 0.35), angle, height)
    site.landmarks.append((*middle, half * 1.5))


def _gate(site: Site, middle: np.ndarray, angle: float) -> None:
    """A free-standing wall with a gate in it."""
    rng = site.rng
    style, surface = site.wall_look()
    length, height = rng.uniform(4.0, 6.0), rng.uniform(2.4, 3.0)
    along = 0.5 * length * np.array([np.cos(angle), -np.sin(angle)])
    door = rng.uniform(0.4, 0.6) * length, rng.uniform(1.5, 1.9)
    site.wall(
        tuple(middle - along), tuple(middle + along), height, style, surface, (door,), 0.24, site.color()
    )


def _corner(site: Site, middle: np.ndarray, angle: float) -> None:
    """Two walls that meet: what is behind them is hidden."""
    rng = site.rng
    style, surface = site.wall_look()
    height = rng.uniform(1.9, 2.7)
    for way in (angle, angle + np.pi / 2):
        reach = rng.uniform(2.2, 3.4) * np.array([np.cos(way), -np.sin(way)])
        site.wall(tuple(middle), tuple(middle + reach), height, style, surface, thickness=0.24)


def _block(site: Site, middle: np.ndarray, angle: float) -> None:
    """A massive block to walk round, sometimes with a smaller one on top."""
    rng = site.rng
    style, surface = site.wall_look()
    half = rng.uniform(0.7, 1.3), rng.uniform(0.8, 1.4), rng.uniform(0.7, 1.3)
    site.box("block", style, surface, tuple(middle), half, angle)
    if rng.random() < 0.6:
        style, surface = site.wall_look()
        above = 0.6 * half[0], rng.uniform(0.4, 0.9), 0.6 * half[2]
        site.box("block", style, surface, tuple(middle), above, angle + 0.5, 2 * half[1])
    site.landmarks.append((*middle, float(np.hypot(half[0], half[2]))))


# --------------------------------------------------------------------------------------------------- rooms


def _rooms(site: Site) -> None:
    """A house without a roof: four to six rooms on a grid, doorways between them, each with a floor of its
    own."""
    rng = site.rng
    columns, rows = ((2, 2), (3, 2), (2, 3))[rng.choice(3, p=[0.4, 0.3, 0.3])]
    xs, zs = (np.concatenate([[0.0], np.cumsum(rng.uniform(4.4, 6.0, n))]) for n in (columns, rows))
    xs, zs = xs - 0.5 * xs[-1], zs - 0.5 * zs[-1]
    height = rng.uniform(2.45, 2.9)
    _towers(site, float(np.hypot(xs[-1], zs[-1])))
    outer_style, outer = site.wall_look()
    low = rng.random(4) < 0.3  # a parapet, over which the land outside is seen
    corners = [(xs[0], zs[0]), (xs[-1], zs[0]), (xs[-1], zs[-1]), (xs[0], zs[-1])]
    for side in range(4):
        top = rng.uniform(0.8, 1.1) if low[side] else height
        site.wall(corners[side], corners[(side + 1) % 4], top, outer_style, outer)
    for i in range(1, columns):
        _partition(site, (xs[i], zs[0]), (xs[i], zs[-1]), zs - zs[0], height)
    for j in range(1, rows):
        _partition(site, (xs[0], zs[j]), (xs[-1], zs[j]), xs - xs[0], height)
    first, each = int(rng.integers(len(_FLOORS))), 6 if columns * rows < 6 else 5
    for i in range(columns):
        for j in range(rows):
            area = Area(xs[i] + 0.1, xs[i + 1] - 0.1, zs[j] + 0.1, zs[j + 1] - 0.1, each)
            site.areas.append(area)
    area = site.areas[rng.integers(len(site.areas))]
    middle = 0.5 * (area.west + area.east), 0.5 * (area.south + area.north)
    site.monument(middle, rng.uniform(0.35, 0.5), rng.uniform(1.2, 2.0))
    for i in range(columns):
        for j in range(rows):
            area = site.areas[i * rows + j]
            bare = (i + j) % 2 and rng.random() < 0.5
            if bare or not site.room_for(1):
                continue  # the ground itself
            style = _FLOORS[(first + 2 * i + j) % len(_FLOORS)]
            surface = with_zones(rng, ground_surface(rng, style), style, rng.uniform(1.8, 3.0))
            middle = 0.5 * (area.west + area.east), 0.5 * (area.south + area.north)
            half = 0.5 * (area.east - area.west), 0.01, 0.5 * (area.north - area.south)
            site.box("floor", style, surface, middle, half)


def _partition(site: Site, start, stop, marks: np.ndarray, height: float) -> None:
    """An inner wall through the whole house, with a doorway into every room that it bounds."""
    rng = site.rng
    style, surface = site.wall_look()
    doors = []
    for first, last in zip(marks[:-1], marks[1:], strict=True):
        width = rng.uniform(1.55, 1.95)
        room = 0.5 * width + 0.55
        doors.append((float(rng.uniform(first + room, last - room)), float(width)))
    site.wall(start, stop, height, style, surface, tuple(doors), 0.18, site.color())


# ---------------------------------------------------------------------------------------------------- town


def _town(site: Site) -> None:
    """Streets between houses of different looks, a square where a house is missing, arches over streets."""
    rng = site.rng
    count = 3
    widths, depths = rng.uniform(3.0, 4.4, count), rng.uniform(3.0, 4.4, count)
    across, along = rng.uniform(2.7, 3.5, count - 1), rng.uniform(2.7, 3.5, count - 1)
    west = np.concatenate([[0.0], np.cumsum(widths[:-1] + across)])
    south = np.concatenate([[0.0], np.cumsum(depths[:-1] + along)])
    west, south = west - 0.5 * (west[-1] + widths[-1]), south - 0.5 * (south[-1] + depths[-1])
    empty = rng.choice(count * count, int(rng.integers(1, 3)), replace=False)
    edges = (west[0] - 2.6, west[-1] + widths[-1] + 2.6), (south[0] - 2.6, south[-1] + depths[-1] + 2.6)
    (left, right), (front, behind) = edges
    _towers(site, float(np.hypot(right, behind)))
    style, surface = site.wall_look()
    corners = [(left, front), (right, front), (right, behind), (left, behind)]
    for side in range(4):
        height = rng.uniform(1.2, 3.0)
        site.wall(corners[side], corners[(side + 1) % 4], height, style, surface)
    for i in range(count):
        for j in range(count):
            west_, east = west[i], west[i] + widths[i]
            south_, north = south[j], south[j] + depths[j]
            if i * count + j in empty:
                site.areas.append(Area(west_ - 0.8, east + 0.8, south_ - 0.8, north + 0.8, 5))
                middle = 0.5 * (west_ + east), 0.5 * (south_ + north)
                site.patch(middle, rng.uniform(1.0, 1.7))
                site.monument(middle, rng.uniform(0.5, 0.8), rng.uniform(1.6, 2.6))
                continue
            _house(site, west_, east, south_, north)
    for i in range(count - 1):  # the streets, one area between two crossings each
        x = west[i] + widths[i], west[i] + widths[i] + across[i]
        z = south[i] + depths[i], south[i] + depths[i] + along[i]
        site.areas.append(Area(*x, edges[1][0], edges[1][1], 5))
        site.areas.append(Area(edges[0][0], edges[0][1], *z, 5))
        for _ in range(2):
            j = int(rng.integers(count))
            if rng.random() < 0.5:
                middle = south[j] + 0.5 * depths[j]
                _arch(site, (x[0] - 0.3, middle), (x[1] + 0.3, middle))
            else:
                middle = west[j] + 0.5 * widths[j]
                _arch(site, (middle, z[0] - 0.3), (middle, z[1] + 0.3))
    site.areas.append(Area(edges[0][0], edges[0][0] + 2.4, *edges[1], 3))
    site.areas.append(Area(edges[0][1] - 2.4, edges[0][1], *edges[1], 3))
    _patches(site, 2, 5.0)


def _house(site: Site, west: float, east: float, south: float, north: float) -> None:
    """A house, sometimes with a tower on it."""
    rng = site.rng
    style, surface = site.wall_look()
    middle = 0.5 * (west + east), 0.5 * (south + north)
    half = 0.5 * (east - west), 0.5 * rng.uniform(2.4, 4.2), 0.5 * (north - south)
    site.box("house", style, surface, middle, half)
    if rng.random() < 0.45:
        style, surface = site.wall_look()
        top = 0.35 * half[0], 0.5 * rng.uniform(1.2, 2.6), 0.35 * half[2]
        site.box("house", style, surface, middle, top, rng.choice([0.0, np.pi / 4]), 2 * half[1])
    if rng.random() < 0.5:  # a door that is only painted, in a colour of its own
        door = site.plain(contrasting(rng, "brown"))
        side = int(rng.integers(4))
        x = middle[0] + (half[0] * (side - 1) if side % 2 == 0 else rng.uniform(-0.5, 0.5) * half[0])
        z = middle[1] + (half[2] * (side - 2) if side % 2 else rng.uniform(-0.5, 0.5) * half[2])
        site.box("door", "", door, (x, z), (0.45, 1.0, 0.04), np.pi / 2 if side % 2 == 0 else 0.0)


def _arch(site: Site, start, stop) -> None:
    """A beam from house to house, high enough to pass under."""
    rng = site.rng
    middle = 0.5 * (start[0] + stop[0]), 0.5 * (start[1] + stop[1])
    length = float(np.hypot(stop[0] - start[0], stop[1] - start[1]))
    yaw = float(np.arctan2(-(stop[1] - start[1]), stop[0] - start[0]))
    half = 0.5 * length, 0.5 * rng.uniform(0.25, 0.5), rng.uniform(0.15, 0.4)
    site.box("arch", "", site.plain(site.color()), middle, half, yaw, rng.uniform(2.2, 2.4))
