"""Rays against the solids of a scene in JAX: what they meet first, and what light reaches a point.

Rays are planar: a bundle of rays is three arrays, one per coordinate, of any common shape. Directions are
scaled so that their component along the optical axis is 1; the ray parameter is then the z-depth itself.

Slots of one kind are visited by a loop whose body is one element-wise expression over the bundle; the nearest
hit is one integer minimum, since the bits of a positive float order like integers and the lowest four (six,
of places) can carry the slot. A bundle is small enough on a CPU to stay in the cache of a core.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from camctrl_jax.worlds.culling import scene_slots, visit
from camctrl_jax.worlds.scene import GROUND

FAR = 1e9  # ray parameter of what is not hit


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


def dot(a, b):
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
        a, b, c = dot(direction, direction), dot(direction, origin), dot(origin, origin)
        return _quadric_interval(a, b, c - half[0] * half[0])
    (dx, dy, dz), (ox, oy, oz) = direction, origin
    near, far = _quadric_interval(dx * dx + dz * dz, dx * ox + dz * oz, ox * ox + oz * oz - half[0] * half[0])
    top, bottom = _slab(oy, _reciprocal(dy), half[1])
    return jnp.maximum(near, top), jnp.minimum(far, bottom)


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

    return visit(scene, "seen", meet, best)


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

    return 1.0 - visit(scene, "shading", shade, jnp.zeros_like(point[0]))


def lookup(table, slot):
    """Rows of a small table by slot: table [S, ...] -> nested tuples of planar arrays."""
    if table.ndim == 1:
        return table.at[jnp.minimum(slot, table.shape[0] - 1)].get(mode="promise_in_bounds")
    return tuple(lookup(table[:, i], slot) for i in range(table.shape[1]))


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


def at_frame(scene, t):
    """The scene's arrays with the poses of frame ``t`` alone."""
    take = partial(jax.lax.dynamic_index_in_dim, index=t, axis=0, keepdims=False)
    return {**scene, "position": take(scene["position"]), "rotation": take(scene["rotation"])}


def directions(camera, intrinsics, u, v):
    """World directions of image points ``u``, ``v`` (fractions of width and height), unit along the optical
    axis."""
    x, y = (u - intrinsics[2]) / intrinsics[0], (v - intrinsics[3]) / intrinsics[1]
    return tuple(camera[i, 0] * x + camera[i, 1] * y + camera[i, 2] for i in range(3))
