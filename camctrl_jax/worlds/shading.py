"""How hits look: what is painted on surfaces, the light that reaches them, and the sky behind them.

Each pass gives its values packed in one int32 a ray, so that a later pass reads little.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from camctrl_jax.worlds.rays import dot, hit_points, lookup, rotate, rotate_back, sunlight, unpack_hit
from camctrl_jax.worlds.surfaces import PATTERN, PATTERN_OF_PLACES

_EXPOSURE = 0.88  # white in full sun just stays below the largest value

# Directions of the four waves of the slow variation, in units of the surface's frequency. No component is
# zero, so the variation shows on a face of any orientation; lengths are incommensurate, so it does not
# repeat.
_WAVES = ((0.61, 0.37, 0.70), (-0.86, 0.52, 0.55), (0.55, -1.03, -1.12), (1.57, 1.21, -0.83))


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
        width = jnp.abs(dot(k, step_x)) + jnp.abs(dot(k, step_y))
        fade = _clip01(1.4 - 2.0 * width * pattern["wave_frequency"])
        phase = pattern["wave_frequency"] * dot(k, local) + pattern["wave_phase"] * (i + 1.7) + bend
        waves.append(fade * _wave(phase))
        bend = 0.22 * (waves[-1] + bend)
    shade = 0.36 * (waves[0] + waves[1] + waves[2] + 0.7 * waves[3])
    tint = 0.5 * (waves[0] - waves[1] + waves[2])

    # Cells. A face that lies on a cell border would flicker between two cells: shrink the point a little.
    place = tuple(v * 0.998 for v in local)
    q = tuple(dot(texture[i], place) + offset[i] for i in range(3))
    width = tuple(jnp.abs(dot(texture[i], step_x)) + jnp.abs(dot(texture[i], step_y)) for i in range(3))
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
    spot = _clip01((radius - distance) / jnp.maximum(widest, 0.02) + 0.5)
    spot = jnp.where(pattern["dot_radius"] > 0, 0.4 + fade * (spot - 0.4), 0.0)
    edge = 0.5
    for i in range(3):
        edge = jnp.minimum(edge, jnp.where(along[i] > 0.3, 0.5 - jnp.abs(inside[i]), 0.5))
    joint = _clip01((0.5 * pattern["joint"] - edge) / jnp.maximum(widest, 0.01) + 0.5)
    joint = jnp.where(pattern["joint"] > 0, 0.35 * fade * joint, 0.0)

    mix = jnp.maximum(mix, spot)
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
    glow = jnp.maximum(dot(direction, scene["sun"][0]) / length, 0.0)
    glow = glow * glow
    return cover, glow * glow


def paint_pass(scene, eye, camera, focal, direction, packed):
    """What is painted at the hits, packed in one int32; for the sky, its clouds. ``focal`` [2] in pixels."""
    sky, depth, slot, local, rotation, normal_local = hit_points(scene, eye, direction, packed)
    # How far the hit point moves on its tangent plane when the ray moves by one pixel.
    normal = rotate(rotation, normal_local)
    slope = 1.0 / jnp.minimum(dot(normal, direction), -1e-3)
    steps = []
    for axis in range(2):
        shift = tuple(camera[i, axis] / focal[axis] for i in range(3))
        along = dot(normal, shift) * slope
        steps.append(
            rotate_back(rotation, tuple(depth * (shift[i] - along * direction[i]) for i in range(3)))
        )
    mix, light, tint = _painting(scene, slot, local, normal_local, *steps)
    cover, glow = _clouds(scene, direction, jnp.sqrt(dot(direction, direction)))
    return _pack(
        (jnp.where(sky, cover, mix), 11), (jnp.where(sky, glow, 0.5 * light), 11), (0.5 + 0.5 * tint, 10)
    )


def light_pass(scene, eye, direction, packed):
    """Sunlight that reaches the hits and their highlight, packed in one int32."""
    _, depth, slot, _, rotation, normal_local = hit_points(scene, eye, direction, packed)
    normal, sun = rotate(rotation, normal_local), scene["sun"][0]
    point = tuple(eye[i] + depth * direction[i] for i in range(3))
    lit = jnp.maximum(dot(normal, sun), 0.0) * sunlight(scene, point)
    facing = dot(normal, direction)
    mirrored = tuple(direction[i] - 2.0 * facing * normal[i] for i in range(3))
    shine = _clip01(dot(mirrored, sun) * jax.lax.rsqrt(dot(direction, direction)))
    for _ in range(4):
        shine = shine * shine
    gloss = lookup(scene["pattern"][:, PATTERN.index("gloss")], slot)
    upward = 0.5 - 0.5 * normal[1]
    return _pack((lit, 12), (jnp.where(lit > 0, gloss * shine, 0.0), 10), (upward, 10))


def color_pass(scene, direction, packed, painted, lighted):
    """Linear RGB (planar) from the packed passes."""
    depth, slot, sky = unpack_hit(scene, packed)
    length = jnp.sqrt(dot(direction, direction))
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


def displayed(colors):
    """Display values u8 of linear values; the display curve is a square root."""
    return (jnp.sqrt(_clip01(_EXPOSURE * colors)) * 255.0 + 0.5).astype(jnp.uint8)
