"""An analytic ray caster for worlds in JAX: the same code renders on CPU, GPU and TPU.

Rays are planar: a bundle of rays is three arrays, one per coordinate, of any common shape. Directions are
scaled so that their component along the optical axis is 1; the ray parameter is then the z-depth itself.

Slots of one kind are visited by a loop whose body is one element-wise expression over the bundle; the nearest
hit is one integer minimum, since the bits of a positive float order like integers and the lowest four (six,
of places) can carry the slot. A bundle is small enough on a CPU to stay in the cache of a core.

A place has many slots, of which a picture shows few: only those are visited that can be in it, or throw a
shadow into it, which changes nothing in the result; see ``in_view``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.scene import GROUND, SKY_INSTANCE, SLOTS, Slots, World, slots_of
from camctrl_jax.worlds.surfaces import PATTERN, PATTERN_OF_PLACES

FAR = 1e9  # ray parameter of what is not hit
CELL = 16  # pixels of a side of what coarse truth is averaged over
FARTHEST = 50.0  # metres, beyond which coarse depth does not tell, the sky included
_EXPOSURE = 0.88  # white in full sun just stays below the largest value

# Directions of the four waves of the slow variation, in units of the surface's frequency. No component is
# zero, so the variation shows on a face of any orientation; lengths are incommensurate, so it does not
# repeat.
_WAVES = ((0.61, 0.37, 0.70), (-0.86, 0.52, 0.55), (0.55, -1.03, -1.12), (1.57, 1.21, -0.83))


@dataclass(frozen=True)
class Frames:
    """Rendered frames with their exact truth, on the host. H, W pixels; pixel centres at +0.5.

    * ``rgb`` u8 [T, H, W, 3]
    * ``depth`` f32 [T, H, W]: z-depth of the pixel centre's ray, metres; the sky is ``inf``
    * ``instances`` i32 [T, H, W]: 0 sky, 1 ground, slot + 1 for the rest (``World.instance_names``)
    * ``moving`` bool [T, H, W]: the object seen there moves between frames t and t + 1
    * ``flow`` f32 [T-1, H, W, 2]: where the point seen at a pixel centre of frame t is in frame t + 1, minus
      that centre; pixels, u right, v down. The sky flows as points at infinity. 0 where the point passes
      behind the camera
    * ``occluded`` bool [T-1, H, W]: that point is not seen in frame t + 1: hidden, out of the image or behind
    """

    rgb: np.ndarray
    depth: np.ndarray
    instances: np.ndarray
    moving: np.ndarray
    flow: np.ndarray
    occluded: np.ndarray


# ----------------------------------------------------------------------------------------------- ray geometry


def rotate(matrix, vector):
    """matrix [3, 3] (entries scalars or arrays) times a planar vector."""
    return tuple(
        matrix[i][0] * vector[0] + matrix[i][1] * vector[1] + matrix[i][2] * vector[2] for i in range(3)
    )


def rotate_back(matrix, vector):
    """The transpose of ``matrix`` times a planar vector."""
    return tuple(
        matrix[0][i] * vector[0] + matrix[1][i] * vector[1] + matrix[2][i] * vector[2] for i in range(3)
    )


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _reciprocal(x):
    return 1.0 / jnp.where(jnp.abs(x) < 1e-9, 1e-9, x)


def _slab(origin, inverse, half):
    """Interval of the ray parameter in |coordinate| < half."""
    middle = -origin * inverse
    reach = half * jnp.abs(inverse)
    return middle - reach, middle + reach


def _box_interval(origin, inverse, half):
    near, far = zip(*(_slab(origin[i], inverse[i], half[i]) for i in range(3)), strict=True)
    return (
        jnp.maximum(jnp.maximum(near[0], near[1]), near[2]),
        jnp.minimum(jnp.minimum(far[0], far[1]), far[2]),
    )


def _quadric_interval(a, b, c):
    """Roots of a x^2 + 2 b x + c; an empty interval where there are none."""
    root = b * b - a * c
    spread = jnp.sqrt(jnp.maximum(root, 0.0))
    inverse = 1.0 / jnp.maximum(a, 1e-12)
    near = jnp.where(root > 0, (-b - spread) * inverse, FAR)
    return near, (spread - b) * inverse


def _to_locals(scene, vector):
    """One world vector [3] in the axes of every slot's object: [S, 3]."""
    return jnp.sum(scene["rotation"] * vector[:, None], axis=1)


def _interval(kind, origin, direction, half):
    """(near, far) of a solid along a ray in its own coordinates; the ray is inside where near < far."""
    if kind == "box":
        return _box_interval(origin, tuple(_reciprocal(x) for x in direction), half)
    if kind == "sphere":
        a, b, c = _dot(direction, direction), _dot(direction, origin), _dot(origin, origin)
        return _quadric_interval(a, b, c - half[0] * half[0])
    (dx, dy, dz), (ox, oy, oz) = direction, origin
    near, far = _quadric_interval(dx * dx + dz * dz, dx * ox + dz * oz, ox * ox + oz * oz - half[0] * half[0])
    top, bottom = _slab(oy, _reciprocal(dy), half[1])
    return jnp.maximum(near, top), jnp.minimum(far, bottom)


def scene_slots(scene) -> Slots:
    """The slots of a scene's arrays."""
    return slots_of(scene["half_size"].shape[-2])


def in_view(scene, pose, lens, axis=None):
    """The scene at one frame with lists of the slots to visit: exact for all rays within that picture.

    A solid is left out when its box lies wholly beyond one side of the picture's pyramid, or behind the
    camera; as a thrower of shadows, when that box swept away from the sun down to the ground does. Scenes
    with few slots are returned as they are.

    Args:
        scene: of ``at_frame``.
        pose, lens: [4, 4] and [4].
        axis: name of the mapped axis over worlds, if there is one: all of them visit equally many slots.
    """
    slots = scene_slots(scene)
    if slots == SLOTS:
        return scene
    eye, camera = pose[:3, 3], pose[:3, :3]
    left, right = -lens[2] / lens[0], (1.0 - lens[2]) / lens[0]
    top, bottom = -lens[3] / lens[1], (1.0 - lens[3]) / lens[1]
    zero, one = jnp.zeros_like(left), jnp.ones_like(left)
    sides = jnp.stack(
        [
            jnp.stack([one, zero, -left]),
            jnp.stack([-one, zero, right]),
            jnp.stack([zero, one, -top]),
            jnp.stack([zero, -one, bottom]),
            jnp.stack([zero, zero, one]),
        ]
    )
    normals = jnp.sum(camera[None] * sides[:, None, :], axis=-1)  # [5, 3], pointing inwards
    rotation, half, center = scene["rotation"], scene["half_size"], scene["position"]

    def reach(way):
        """How far the box of each slot reaches along ``way`` [..., 3] from its centre."""
        along = jnp.sum(rotation * way[..., None, :, None], axis=-2)
        return jnp.sum(jnp.abs(along) * half, axis=-1)

    offset = center - eye
    here = jnp.sum(normals[:, None] * offset, axis=-1)  # [5, S]
    slack = reach(normals) + 1e-3 * (1.0 + jnp.abs(here))
    sun = scene["sun"][0]
    highest = center[:, 1] - reach(jnp.asarray([0.0, 1.0, 0.0]))
    # Metres from the top of each box to the ground, away from the sun.
    swept = jnp.maximum(-highest, 0.0) / jnp.maximum(-sun[1], 1e-2)
    there = here - swept * jnp.sum(normals * sun, axis=-1)[:, None]
    present = half[:, 0] > 0
    wanted = {
        "seen": present & (here + slack > 0).all(axis=0),
        "shading": present & (jnp.maximum(here, there) + slack > 0).all(axis=0),
    }
    kind = sum((jnp.arange(slots.surfaces) >= first).astype(jnp.int32) for _, first, _ in slots.kinds)
    lists = {}
    for name, chosen in wanted.items():
        order = jnp.argsort(2 * kind + ~chosen)  # stable: the chosen ones of each kind come first
        counts = jnp.stack([jnp.sum(chosen[first:stop]) for _, first, stop in slots.kinds])
        lists[name] = order, counts if axis is None else jax.lax.pmax(counts, axis)
    return {**scene, **lists}


def _visit(scene, name, body, start):
    """Fold ``body(slot, value, kind)`` over all slots, or those that ``in_view`` listed under ``name``."""
    value = start
    for index, (kind, first, stop) in enumerate(scene_slots(scene).kinds):
        if name in scene:
            order, counts = scene[name]

            def step(i, value, listed=order[first:stop], kind=kind):
                return body(listed[i], value, kind)

            value = jax.lax.fori_loop(0, counts[index], step, value)
        else:
            value = jax.lax.fori_loop(first, stop, partial(body, kind=kind), value)
    return value


def nearest_hits(scene, origin, direction):
    """Nearest surface along rays from one ``origin`` [3], packed in one int32; see ``unpack_hit``."""
    slot_bits = scene_slots(scene).sky
    bits = partial(jax.lax.bitcast_convert_type, new_dtype=jnp.int32)
    below = direction[1] > 1e-6
    ground = jnp.where(below, -origin[1] / jnp.where(below, direction[1], 1.0), FAR)
    best = jnp.where(below, (bits(ground) & ~slot_bits) | GROUND, bits(jnp.float32(FAR)) | slot_bits)
    origins = jnp.sum(scene["rotation"] * (origin - scene["position"])[:, :, None], axis=1)  # [S, 3]
    way = jnp.stack(direction)

    def meet(slot, best, kind):
        start = origin - scene["position"][slot] if kind == "sphere" else origins[slot]
        ray = tuple(way) if kind == "sphere" else rotate_back(scene["rotation"][slot], way)
        near, far = _interval(kind, start, ray, scene["half_size"][slot])
        hit = (near < far) & (near > 1e-3)
        return jnp.minimum(best, (bits(jnp.where(hit, near, FAR)) & ~slot_bits) | slot)

    return _visit(scene, "seen", meet, best)


def unpack_hit(scene, packed):
    """(z-depth, slot, whether it is the sky) of a packed hit; the sky has a depth of about ``FAR``."""
    sky = scene_slots(scene).sky
    depth = jax.lax.bitcast_convert_type(packed & ~sky, jnp.float32)
    slot = jnp.where(depth < 0.5 * FAR, packed & sky, sky)
    return depth, slot, slot == sky


def sunlight(scene, point):
    """Share of sunlight at ``point``, 0 to 1, soft where the sun's ray only grazes an object."""
    point = jnp.stack(point)
    suns = _to_locals(scene, scene["sun"][0])

    def shade(slot, blocked, kind):
        start, way = tuple(point[i] - scene["position"][slot, i] for i in range(3)), scene["sun"][0]
        if kind != "sphere":
            start, way = rotate_back(scene["rotation"][slot], start), suns[slot]
        near, far = _interval(kind, start, way, scene["half_size"][slot])
        chord = jnp.maximum(far - jnp.maximum(near, 0.0), 0.0)
        softness = 0.5 * scene["half_size"][slot, 0] + 0.02
        return jnp.maximum(blocked, jnp.minimum(chord / softness, 1.0))

    return 1.0 - _visit(scene, "shading", shade, jnp.zeros_like(point[0]))


def lookup(table, slot):
    """Rows of a small table by slot: table [S, ...] -> nested tuples of planar arrays."""
    if table.ndim == 1:
        return table.at[jnp.minimum(slot, table.shape[0] - 1)].get(mode="promise_in_bounds")
    return tuple(lookup(table[:, i], slot) for i in range(table.shape[1]))


# ---------------------------------------------------------------------------------------------------- shading


def _wave(turns):
    """A sine-like wave of period 1: two parabolas. A true sine costs eighty times as much on a CPU."""
    phase = turns - jnp.floor(turns + 0.5)
    return phase * (8.0 - 16.0 * jnp.abs(phase))


def _hash(x, y, z):
    """Uniform [0, 1) from cell indices, without integers (Hoskins' sine-free hash)."""
    x, y, z = (v * k - jnp.floor(v * k) for v, k in ((x, 0.1031), (y, 0.1030), (z, 0.0973)))
    mixed = x * (y + 33.33) + y * (z + 33.33) + z * (x + 33.33)
    value = (x + y + 2.0 * mixed) * (z + mixed)
    return value - jnp.floor(value)


def _clip01(x):
    return jnp.clip(x, 0.0, 1.0)


def _painting(scene, slot, local, normal, step_x, step_y):
    """(mix of the second colour 0..1, brightness 0..2, tint -1..1) at points of a surface, in its own
    coordinates.

    ``step_x``, ``step_y`` are the local extent of one pixel there.
    """
    zoned = scene["pattern"].shape[-1] == len(PATTERN_OF_PLACES)
    columns = PATTERN_OF_PLACES if zoned else PATTERN
    pattern = dict(zip(columns, lookup(scene["pattern"], slot), strict=True))
    texture, offset = lookup(scene["texture"], slot), lookup(scene["offset"], slot)

    # Slow variation: four waves, each bending the next; a wave fades out as its period nears two pixels.
    waves, bend = [], 0.0
    for i, k in enumerate(_WAVES):
        width = jnp.abs(_dot(k, step_x)) + jnp.abs(_dot(k, step_y))
        fade = _clip01(1.4 - 2.0 * width * pattern["wave_frequency"])
        phase = pattern["wave_frequency"] * _dot(k, local) + pattern["wave_phase"] * (i + 1.7) + bend
        waves.append(fade * _wave(phase))
        bend = 0.22 * (waves[-1] + bend)
    shade = 0.36 * (waves[0] + waves[1] + waves[2] + 0.7 * waves[3])
    tint = 0.5 * (waves[0] - waves[1] + waves[2])

    # Cells. A face that lies on a cell border would flicker between two cells: shrink the point a little.
    place = tuple(v * 0.998 for v in local)
    q = tuple(_dot(texture[i], place) + offset[i] for i in range(3))
    width = tuple(jnp.abs(_dot(texture[i], step_x)) + jnp.abs(_dot(texture[i], step_y)) for i in range(3))
    q = tuple(
        q[i] + pattern["warp"] * (0.6 * waves[i] + 0.3 * waves[(i + 2) % 4]) * (jnp.abs(texture[i][i]) > 0)
        for i in range(3)
    )
    row = jnp.floor(q[1] + 0.0) + jnp.floor(q[2])
    q = (q[0] + pattern["stagger"] * row, q[1], q[2])
    cell = tuple(jnp.floor(v) for v in q)
    inside = tuple(q[i] - cell[i] - 0.5 for i in range(3))
    widest = jnp.maximum(jnp.maximum(width[0], width[1]), width[2]) * (1.0 + pattern["warp"])
    fade = _clip01(1.5 - 1.6 * widest)

    random = _hash(cell[0] + 61.0 * pattern["seed"], cell[1], cell[2])
    other = _hash(cell[1] + 17.0, cell[2], cell[0] + 61.0 * pattern["seed"])
    total = 0.5 * (cell[0] + cell[1] + cell[2])
    parity = 2.0 * (total - jnp.floor(total))
    mix = random + pattern["parity"] * (parity - random)
    mix = pattern["cell_mix"] * (0.5 + fade * (mix - 0.5))

    # Dots and joints: only along the face, so the axis near the normal is left out.
    along = tuple(1.0 - jnp.abs(n) for n in normal)
    radius = pattern["dot_radius"] * (0.75 + 0.5 * other)
    distance = jnp.sqrt(sum(a * v * v for a, v in zip(along, inside, strict=True)))
    dot = _clip01((radius - distance) / jnp.maximum(widest, 0.02) + 0.5)
    dot = jnp.where(pattern["dot_radius"] > 0, 0.4 + fade * (dot - 0.4), 0.0)
    edge = 0.5
    for i in range(3):
        edge = jnp.minimum(edge, jnp.where(along[i] > 0.3, 0.5 - jnp.abs(inside[i]), 0.5))
    joint = _clip01((0.5 * pattern["joint"] - edge) / jnp.maximum(widest, 0.01) + 0.5)
    joint = jnp.where(pattern["joint"] > 0, 0.35 * fade * joint, 0.0)

    mix = jnp.maximum(mix, dot)
    light = (1.0 + pattern["cell_shade"] * fade * (2.0 * other - 1.0)) * (1.0 + pattern["wave_shade"] * shade)
    light = light * (1.0 - joint)
    if zoned:
        mix, light, tint = _zones(pattern, local, waves, step_x, step_y, mix, light, tint)
    return mix, light, tint


def _zones(pattern, local, waves, step_x, step_y, mix, light, tint):
    """Mix, brightness and tint with those of the zone added: regions of several metres that differ."""
    frequency, seed = pattern["zone_frequency"], 61.0 * pattern["seed"]
    place = tuple(0.998 * frequency * v + 0.5 for v in local)
    bent = pattern["zone_warp"]
    zone = (
        jnp.floor(place[0] + bent * (waves[0] + 0.5 * waves[2])),
        jnp.floor(place[1]),
        jnp.floor(place[2] + bent * (waves[1] - 0.5 * waves[3])),
    )
    width = sum(jnp.abs(step_x[i]) + jnp.abs(step_y[i]) for i in range(3)) * frequency
    fade = _clip01(1.5 - 1.2 * width)
    first = _hash(zone[0] + seed + 7.0, zone[1] + 29.0, zone[2] + 11.0)
    second = _hash(zone[2] + 43.0, zone[0] + seed + 3.0, zone[1] + 5.0)
    mix = mix + pattern["zone_mix"] * fade * (first - 0.5)
    light = light * (1.0 + pattern["zone_shade"] * fade * (2.0 * second - 1.0))
    hue = first + second
    hue = 2.0 * (hue - jnp.floor(hue)) - 1.0
    return mix, light, tint + pattern["zone_tint"] * (fade * hue - tint)


def _clouds(scene, direction, length):
    """(cloud cover 0..1, glow round the sun 0..1) of the sky."""
    amount, phase = scene["sky"][3, 0], scene["sky"][3, 1]
    up = -direction[1] / length
    spread = 1.2 / (jnp.abs(up) + 0.25) / length
    x, z = direction[0] * spread, direction[2] * spread
    first = _wave(0.31 * x + 0.23 * z + phase)
    second = _wave(-0.27 * x + 0.45 * z + 1.7 * phase + 0.2 * first)
    third = _wave(0.83 * x + 0.51 * z + 2.3 * phase + 0.25 * second)
    cover = _clip01(0.45 * (first + second + 0.7 * third)) * amount * _clip01(4.0 * up)
    glow = jnp.maximum(_dot(direction, scene["sun"][0]) / length, 0.0)
    glow = glow * glow
    return cover, glow * glow


def _normal(scene, slot, local):
    """Outward normal in object coordinates: boxes, walls and the ground by the nearest face."""
    half = lookup(scene["half_size"], slot)
    u = tuple(local[i] / jnp.maximum(half[i], 1e-6) for i in range(3))
    a = tuple(jnp.abs(v) for v in u)
    x_face = (a[0] >= a[1]) & (a[0] >= a[2])
    y_face = ~x_face & (a[1] >= a[2])
    box = (
        jnp.where(x_face, jnp.sign(u[0]), 0.0),
        jnp.where(y_face, jnp.sign(u[1]), 0.0),
        jnp.where(x_face | y_face, 0.0, jnp.sign(u[2])),
    )
    ring = u[0] * u[0] + u[2] * u[2]
    round_length = jax.lax.rsqrt(jnp.maximum(ring + u[1] * u[1], 1e-12))
    side_length = jax.lax.rsqrt(jnp.maximum(ring, 1e-12))
    cap = u[1] * u[1] > ring
    slots = scene_slots(scene)
    sphere = (slot >= slots.first_sphere) & (slot < slots.first_cylinder)
    cylinder = slot >= slots.first_cylinder
    tube = (
        jnp.where(cap, 0.0, u[0] * side_length),
        jnp.where(cap, jnp.sign(u[1]), 0.0),
        jnp.where(cap, 0.0, u[2] * side_length),
    )
    return tuple(
        jnp.where(sphere, u[i] * round_length, jnp.where(cylinder, tube[i], box[i])) for i in range(3)
    )


def hit_points(scene, eye, direction, packed):
    """(sky, depth, slot, local point, rotation, local normal) of packed hits; the sky stands at 10 m."""
    depth, slot, sky = unpack_hit(scene, packed)
    depth = jnp.where(sky, 10.0, depth)
    position, rotation = lookup(scene["position"], slot), lookup(scene["rotation"], slot)
    local = rotate_back(rotation, tuple(eye[i] + depth * direction[i] - position[i] for i in range(3)))
    return sky, depth, slot, local, rotation, _normal(scene, slot, local)


def _paint_pass(scene, eye, camera, focal, direction, packed):
    """What is painted at the hits, packed in one int32; for the sky, its clouds. ``focal`` [2] in pixels."""
    sky, depth, slot, local, rotation, normal_local = hit_points(scene, eye, direction, packed)
    # How far the hit point moves on its tangent plane when the ray moves by one pixel.
    normal = rotate(rotation, normal_local)
    slope = 1.0 / jnp.minimum(_dot(normal, direction), -1e-3)
    steps = []
    for axis in range(2):
        shift = tuple(camera[i, axis] / focal[axis] for i in range(3))
        along = _dot(normal, shift) * slope
        steps.append(
            rotate_back(rotation, tuple(depth * (shift[i] - along * direction[i]) for i in range(3)))
        )
    mix, light, tint = _painting(scene, slot, local, normal_local, *steps)
    cover, glow = _clouds(scene, direction, jnp.sqrt(_dot(direction, direction)))
    return _pack(
        (jnp.where(sky, cover, mix), 11), (jnp.where(sky, glow, 0.5 * light), 11), (0.5 + 0.5 * tint, 10)
    )


def _light_pass(scene, eye, direction, packed):
    """Sunlight that reaches the hits and their highlight, packed in one int32."""
    _, depth, slot, _, rotation, normal_local = hit_points(scene, eye, direction, packed)
    normal, sun = rotate(rotation, normal_local), scene["sun"][0]
    point = tuple(eye[i] + depth * direction[i] for i in range(3))
    lit = jnp.maximum(_dot(normal, sun), 0.0) * sunlight(scene, point)
    facing = _dot(normal, direction)
    mirrored = tuple(direction[i] - 2.0 * facing * normal[i] for i in range(3))
    shine = _clip01(_dot(mirrored, sun) * jax.lax.rsqrt(_dot(direction, direction)))
    for _ in range(4):
        shine = shine * shine
    gloss = lookup(scene["pattern"][:, PATTERN.index("gloss")], slot)
    upward = 0.5 - 0.5 * normal[1]
    return _pack((lit, 12), (jnp.where(lit > 0, gloss * shine, 0.0), 10), (upward, 10))


def _color_pass(scene, direction, packed, painted, lighted):
    """Linear RGB (planar) from the packed passes."""
    depth, slot, sky = unpack_hit(scene, packed)
    length = jnp.sqrt(_dot(direction, direction))
    clear = jnp.exp(-jnp.maximum(depth * length - 6.0, 0.0) * scene["sky"][3, 2])
    mix, light, tint = _unpack(painted, (11, 11, 10))
    lit, shine, upward = _unpack(lighted, (12, 10, 10))
    height = _clip01(-direction[1] / length)
    height = height * (2.0 - height)
    sun = scene["sun"]
    colors = []
    for i in range(3):
        base, second, hue = lookup(scene["colors"][:, :, i], slot)
        albedo = jnp.maximum((base + mix * (second - base)) * (2.0 * light) + hue * (2.0 * tint - 1.0), 0.004)
        ambient = sun[3, i] + upward * (sun[2, i] - sun[3, i])
        surface = albedo * (lit * sun[1, i] + ambient) + shine * sun[1, i]
        zenith, horizon, cloud = (scene["sky"][j, i] for j in range(3))
        surface = horizon + clear * (surface - horizon)
        background = horizon + height * (zenith - horizon) + 0.25 * light * sun[1, i]
        background = background + mix * (cloud - background)
        colors.append(jnp.where(sky, background, surface))
    return tuple(colors)


def _pack(*channels):
    """Values 0..1 with their numbers of bits -> one int32."""
    packed = 0
    for value, bits in channels:
        packed = (packed << bits) | (_clip01(value) * (2**bits - 1) + 0.5).astype(jnp.int32)
    return packed


def _unpack(packed, bits):
    values = []
    for count in reversed(bits):
        values.append((packed & (2**count - 1)).astype(jnp.float32) / (2**count - 1))
        packed = packed >> count
    return values[::-1]


# ----------------------------------------------------------------------------------------------------- images


def at_frame(scene, t):
    """The scene's arrays with the poses of frame ``t`` alone."""
    take = partial(jax.lax.dynamic_index_in_dim, index=t, axis=0, keepdims=False)
    return {**scene, "position": take(scene["position"]), "rotation": take(scene["rotation"])}


def directions(camera, intrinsics, u, v):
    """World directions of image points ``u``, ``v`` (fractions of width and height), unit along the optical
    axis."""
    x, y = (u - intrinsics[2]) / intrinsics[0], (v - intrinsics[3]) / intrinsics[1]
    return tuple(camera[i, 0] * x + camera[i, 1] * y + camera[i, 2] for i in range(3))


def _rgb_clip(scene, poses, intrinsics, height, width, samples, bands, axis):
    """RGB u8 [T, H, W, 3] of one world. ``poses`` f32 [T, 4, 4], ``intrinsics`` f32 [T, 4].

    Every pass is a loop of its own over bands of rows. The results of a loop are stored, so a pass that
    several later expressions need is computed once, and the compiler sees small expressions.
    """
    rows = height // bands
    s = (jnp.arange(samples, dtype=jnp.float32) + 0.5) / samples

    def frame(t):
        pose, lens = poses[t], intrinsics[t]
        here = in_view(at_frame(scene, t), pose, lens, axis)
        eye, camera = pose[:3, 3], pose[:3, :3]
        focal = (lens[0] * width, lens[1] * height)

        def rays(band):
            v = (band * rows + jnp.arange(rows)[None, None, :, None] + s[:, None, None, None]) / height
            u = (jnp.arange(width)[None, None, None, :] + s[None, :, None, None]) / width
            return directions(camera, lens, *jnp.broadcast_arrays(u, v))  # each [samples, samples, rows, W]

        def finish(args):
            band, hits, painted, lighted = args
            colors = _color_pass(here, rays(band), hits, painted, lighted)
            colors = jnp.stack([jnp.mean(c, axis=(0, 1)) for c in colors], axis=-1)  # [rows, W, 3]
            return (jnp.sqrt(_clip01(_EXPOSURE * colors)) * 255.0 + 0.5).astype(jnp.uint8)

        index = jnp.arange(bands)
        hits = jax.lax.map(lambda band: nearest_hits(here, eye, rays(band)), index)
        painted = jax.lax.map(
            lambda x: _paint_pass(here, eye, camera, focal, rays(x[0]), x[1]), (index, hits)
        )
        lighted = jax.lax.map(lambda x: _light_pass(here, eye, rays(x[0]), x[1]), (index, hits))
        return jax.lax.map(finish, (index, hits, painted, lighted)).reshape(height, width, 3)

    return jax.lax.map(frame, jnp.arange(poses.shape[0]))


@partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _rgb_clips(scenes, poses, intrinsics, height, width, samples, bands):
    clip = partial(_rgb_clip, height=height, width=width, samples=samples, bands=bands, axis="worlds")
    return jax.vmap(clip, axis_name="worlds")(scenes, poses, intrinsics)


@partial(jax.jit, static_argnums=(3, 4))
def _truth(scene, poses, intrinsics, height, width):
    """Depth, instances, moving, flow and occlusion of one world, from the rays through the pixel centres."""
    frames = poses.shape[0]
    v, u = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")

    def camera(t):
        pose = poses[t]
        return pose[:3, 3], pose[:3, :3], intrinsics[t]

    def first_hits(t):
        eye, axes, lens = camera(t)
        here = in_view(at_frame(scene, t), poses[t], lens)
        return nearest_hits(here, eye, directions(axes, lens, u / width, v / height))

    def follow(args):
        """Ray [3, H, W] from the next frame's eye to the same material point, in that camera's axes."""
        t, packed = args
        after = jnp.minimum(t + 1, frames - 1)
        eye, axes, lens = camera(t)
        eye_later, axes_later, _ = camera(after)
        direction = directions(axes, lens, u / width, v / height)
        sky, _, slot, local, _, _ = hit_points(at_frame(scene, t), eye, direction, packed)
        later = at_frame(scene, after)
        carried = rotate(lookup(later["rotation"], slot), local)
        position = lookup(later["position"], slot)
        ray = tuple(jnp.where(sky, direction[i], carried[i] + position[i] - eye_later[i]) for i in range(3))
        return jnp.stack(rotate_back(axes_later, ray))

    def flow_and_occlusion(args):
        t, packed, seen = args
        after = jnp.minimum(t + 1, frames - 1)
        eye, axes, lens = camera(after)
        _, _, sky = unpack_hit(scene, packed)
        ahead = seen[2] > 1e-3
        z = jnp.where(ahead, seen[2], 1.0)
        x, y = seen[0] / z, seen[1] / z
        u_later, v_later = (lens[0] * x + lens[2]) * width, (lens[1] * y + lens[3]) * height
        towards = tuple(axes[i, 0] * x + axes[i, 1] * y + axes[i, 2] for i in range(3))
        there = in_view(at_frame(scene, after), poses[after], lens)  # rays beyond the picture do not count
        depth_later, _, _ = unpack_hit(scene, nearest_hits(there, eye, towards))
        hidden = depth_later < jnp.where(sky, 0.5 * FAR, z * (1.0 - 1e-3) - 1e-3)
        inside = (u_later >= 0) & (u_later <= width) & (v_later >= 0) & (v_later <= height)
        flow = jnp.where(ahead[..., None], jnp.stack([u_later - u, v_later - v], axis=-1), 0.0)
        return flow, hidden | ~inside | ~ahead

    def surface(args):
        t, packed = args
        depth, slot, sky = unpack_hit(scene, packed)
        moving = lookup(scene["moving"][t], slot) & ~sky
        return jnp.where(sky, jnp.inf, depth), jnp.where(sky, SKY_INSTANCE, slot + 1), moving

    index = jnp.arange(frames)
    hits = jax.lax.map(first_hits, index)
    seen = jax.lax.map(follow, (index, hits))
    return (*jax.lax.map(surface, (index, hits)), *jax.lax.map(flow_and_occlusion, (index, hits, seen)))


@partial(jax.jit, static_argnums=(3, 4))
def _coarse_truth(scenes, poses, intrinsics, height, width):
    """Log-depth and moving share [N, T, h, w] of cells, from the rays through the pixel centres."""
    v, u = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")

    def in_cells(values):
        return values.reshape(height // CELL, CELL, width // CELL, CELL).mean((1, 3))

    def frame(scene, pose, lens, moving):
        here = in_view(scene, pose, lens, "worlds")
        packed = nearest_hits(here, pose[:3, 3], directions(pose[:3, :3], lens, u / width, v / height))
        depth, slot, sky = unpack_hit(scene, packed)
        moves = lookup(moving, slot) & ~sky
        return in_cells(jnp.log(jnp.minimum(depth, FARTHEST))), in_cells(moves.astype(jnp.float32))

    def clip(scene, poses, intrinsics):
        def at(t):
            return frame(at_frame(scene, t), poses[t], intrinsics[t], scene["moving"][t])

        return jax.lax.map(at, jnp.arange(poses.shape[0]))

    return jax.vmap(clip, axis_name="worlds")(scenes, poses, intrinsics)


def _bands(height: int, width: int, samples: int, worlds: int) -> int:
    """Into how many bands of rows a frame is cut: the rays of one step should stay in a CPU core's cache."""
    limit = 16_384 if jax.default_backend() == "cpu" else 1 << 22
    for bands in range(min(2, height), height + 1):
        if height % bands == 0 and worlds * (height // bands) * width * samples**2 <= limit:
            return bands
    return height


def _check_size(height: int, width: int, samples: int) -> None:
    for name, value in (("height", height), ("width", width), ("samples", samples)):
        if value < 1:
            raise InvalidValue(f"{name} is {value}; expected at least 1")


def _camera_arrays(world: World) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.asarray(world.cameras.world_from_camera, np.float32),
        np.asarray(world.cameras.intrinsics, np.float32),
    )


def render(world: World, height: int, width: int, samples: int = 2) -> Frames:
    """Render a world with all its truth; arrays on the host.

    ``samples`` squared rays per pixel are averaged for the colours; the truth is that of the pixel centre.
    """
    _check_size(height, width, samples)
    rgb = render_rgb([world], height, width, samples)[0]
    return Frames(np.asarray(rgb), *render_truth(world, height, width))


def render_truth(world: World, height: int, width: int) -> tuple[np.ndarray, ...]:
    """The fields of :class:`Frames` without ``rgb``, in their order; arrays on the host."""
    _check_size(height, width, 1)
    poses, intrinsics = _camera_arrays(world)
    depth, instances, moving, flow, occluded = _truth(world.scene.arrays(), poses, intrinsics, height, width)
    return (
        np.asarray(depth),
        np.asarray(instances),
        np.asarray(moving),
        np.asarray(flow[:-1]),
        np.asarray(occluded[:-1]),
    )


def render_coarse_truth(worlds: Sequence[World], height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """What small networks learn of many worlds, in cells of ``CELL`` pixels, on the default device.

    Args:
        worlds: of equally many frames T.
        height, width: pixels, multiples of ``CELL``.

    Returns:
        f32 [N, T, height / CELL, width / CELL] each: the mean logarithm of the depth in metres, at most
        ``FARTHEST``, and the share of pixels that show what moves; of ``Frames.depth`` and ``Frames.moving``.

    Raises:
        InvalidValue: no worlds, or a size that has no whole cells.
    """
    for name, value in (("height", height), ("width", width)):
        if value < CELL or value % CELL:
            raise InvalidValue(f"{name} is {value}; coarse truth needs a multiple of {CELL}")
    return _coarse_truth(*stack_worlds(worlds), height, width)


def stack_worlds(worlds: Sequence[World]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Scene arrays with a leading axis N, poses f32 [N, T, 4, 4] and intrinsics f32 [N, T, 4]."""
    if not worlds:
        raise InvalidValue("no worlds to stack; expected at least one")
    lengths = sorted({world.frames for world in worlds})
    if len(lengths) > 1:
        raise InvalidValue(
            f"worlds of {lengths} frames do not stack; sample them with one WorldsConfig.frames"
        )
    if len({world.scene.slots for world in worlds}) > 1:
        raise InvalidValue("worlds with and without places to explore do not stack; sample them alike")
    scenes = [world.scene.arrays() for world in worlds]
    poses, intrinsics = zip(*(_camera_arrays(world) for world in worlds), strict=True)
    return (
        {name: np.stack([scene[name] for scene in scenes]) for name in scenes[0]},
        np.stack(poses),
        np.stack(intrinsics),
    )


def iterate_rgb(
    worlds: Sequence[World], height: int, width: int, samples: int = 2, chunk: int | None = None
) -> Iterator[jax.Array]:
    """Yield u8 device arrays [n, T, H, W, 3], ``chunk`` worlds at a time (the last one may be shorter).

    Work memory depends on ``chunk`` alone. By default it keeps about four million rays in flight on an
    accelerator (68 clips of 96x160 with four rays per pixel), and is 1 on a CPU.
    """
    _check_size(height, width, samples)
    if chunk is None:
        chunk = 1 if jax.default_backend() == "cpu" else max(1, (1 << 22) // (height * width * samples**2))
    if chunk < 1:
        raise InvalidValue(f"chunk is {chunk}; expected at least 1")
    chunk = min(chunk, len(worlds))
    for first in range(0, len(worlds), max(chunk, 1)):
        part = list(worlds[first : first + chunk])
        count = len(part)
        part += part[-1:] * (chunk - count)  # one shape, one compilation
        bands = _bands(height, width, samples, chunk)
        yield _rgb_clips(*stack_worlds(part), height, width, samples, bands)[:count]


def iterate_rgb_on_host(
    worlds: Sequence[World], height: int, width: int, samples: int = 2, chunk: int | None = None
) -> Iterator[np.ndarray]:
    """As ``iterate_rgb``, as NumPy arrays; the next chunk renders while the caller uses this one."""
    pending = None
    for clips in iterate_rgb(worlds, height, width, samples, chunk):
        if pending is not None:
            yield np.asarray(pending)
        pending = clips
    if pending is not None:
        yield np.asarray(pending)


@partial(jax.jit, donate_argnums=0)
def _store(clips, part, first):
    return jax.lax.dynamic_update_slice_in_dim(clips, part, first, axis=0)


def render_rgb(
    worlds: Sequence[World], height: int, width: int, samples: int = 2, chunk: int | None = None
) -> jax.Array:
    """RGB u8 [N, T, H, W, 3] of many worlds, in the memory of the default device.

    Needs that array and the work memory of ``iterate_rgb``; use that where the clips are consumed chunk by
    chunk.
    """
    if not worlds:
        raise InvalidValue("no worlds to render; expected at least one")
    clips, first = None, 0
    for part in iterate_rgb(worlds, height, width, samples, chunk):
        if len(part) == len(worlds):
            return part
        if clips is None:
            clips = jnp.zeros((len(worlds), *part.shape[1:]), jnp.uint8)
        clips, first = _store(clips, part, first), first + len(part)
    return clips
