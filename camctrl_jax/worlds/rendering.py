"""An analytic ray caster for worlds in JAX: the same code renders on CPU, GPU and TPU.

Rays are planar: a bundle of rays is three arrays, one per coordinate, of any common shape. Directions are scaled so
that their component along the optical axis is 1; the ray parameter is then the z-depth itself.

The loop over primitives is unrolled into one element-wise expression per pass (nearest hit; sunlight), because on a
CPU core one fused loop that stays in registers is ten times faster than arrays with one row per primitive. The nearest
hit is one integer minimum: the bits of a positive float order like integers, and the lowest four carry the slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.worlds.scene import (
    FIRST_BOX,
    FIRST_CYLINDER,
    FIRST_SPHERE,
    FIRST_WALL,
    GROUND,
    SKY_INSTANCE,
    SURFACES,
    World,
)
from camctrl_jax.worlds.surfaces import PATTERN

_FAR = 1e9
_SLOT_BITS = 15
assert SURFACES <= _SLOT_BITS  # slot 15 of the packed hit is the sky

# Directions of the four waves of the slow variation, in units of the surface's frequency. No component is zero, so
# the variation shows on a face of any orientation; lengths are incommensurate, so it does not repeat.
_WAVES = ((0.61, 0.37, 0.70), (-0.86, 0.52, 0.55), (0.55, -1.03, -1.12), (1.57, 1.21, -0.83))


@dataclass(frozen=True)
class Frames:
    """Rendered frames with their exact truth, on the host. H, W pixels; pixel centres at +0.5.

    * ``rgb`` u8 [T, H, W, 3]
    * ``depth`` f32 [T, H, W]: z-depth of the pixel centre's ray, metres; the sky is ``inf``
    * ``instances`` i32 [T, H, W]: 0 sky, 1 ground, slot + 1 for the rest (``World.instance_names``)
    * ``moving`` bool [T, H, W]: the object seen there moves between frames t and t + 1
    * ``flow`` f32 [T-1, H, W, 2]: where the point seen at a pixel centre of frame t is in frame t + 1, minus that
      centre; pixels, u right, v down. The sky flows as points at infinity. 0 where the point passes behind the camera
    * ``occluded`` bool [T-1, H, W]: that point is not seen in frame t + 1: hidden, out of the image or behind
    """

    rgb: np.ndarray
    depth: np.ndarray
    instances: np.ndarray
    moving: np.ndarray
    flow: np.ndarray
    occluded: np.ndarray


# ----------------------------------------------------------------------------------------------- ray geometry


def _rotate(matrix, vector):
    """matrix [3, 3] (entries scalars or arrays) times a planar vector."""
    return tuple(matrix[i][0] * vector[0] + matrix[i][1] * vector[1] + matrix[i][2] * vector[2] for i in range(3))


def _rotate_back(matrix, vector):
    return tuple(matrix[0][i] * vector[0] + matrix[1][i] * vector[1] + matrix[2][i] * vector[2] for i in range(3))


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
    return (jnp.maximum(jnp.maximum(near[0], near[1]), near[2]),
            jnp.minimum(jnp.minimum(far[0], far[1]), far[2]))


def _quadric_interval(a, b, c):
    """Roots of a x^2 + 2 b x + c; an empty interval where there are none."""
    root = b * b - a * c
    spread = jnp.sqrt(jnp.maximum(root, 0.0))
    inverse = 1.0 / jnp.maximum(a, 1e-12)
    near = jnp.where(root > 0, (-b - spread) * inverse, _FAR)
    return near, (spread - b) * inverse


def _intervals(scene, origin, direction):
    """Yield (slot, near, far) of every solid but the ground; the ray is inside where near < far.

    ``origin`` and ``direction`` are planar; either may be scalars (one eye, or one sun).
    """
    for slot in range(FIRST_WALL, SURFACES):
        offset = tuple(origin[i] - scene["position"][slot, i] for i in range(3))
        half = scene["half_size"][slot]
        if FIRST_SPHERE <= slot < FIRST_CYLINDER:
            yield slot, *_quadric_interval(
                _dot(direction, direction), _dot(direction, offset), _dot(offset, offset) - half[0] * half[0]
            )
            continue
        rotation = scene["rotation"][slot]
        o, d = _rotate_back(rotation, offset), _rotate_back(rotation, direction)
        if slot < FIRST_SPHERE:
            yield slot, *_box_interval(o, tuple(_reciprocal(x) for x in d), half)
        else:
            near, far = _quadric_interval(
                d[0] * d[0] + d[2] * d[2], d[0] * o[0] + d[2] * o[2], o[0] * o[0] + o[2] * o[2] - half[0] * half[0]
            )
            top, bottom = _slab(o[1], _reciprocal(d[1]), half[1])
            yield slot, jnp.maximum(near, top), jnp.minimum(far, bottom)


def _nearest(scene, origin, direction):
    """(z-depth, slot) of the nearest surface along rays from ``origin`` (scalars); slot 15 is the sky."""
    bits = partial(jax.lax.bitcast_convert_type, new_dtype=jnp.int32)
    below = direction[1] > 1e-6
    ground = jnp.where(below, -origin[1] / jnp.where(below, direction[1], 1.0), _FAR)
    best = jnp.where(below, (bits(ground) & ~_SLOT_BITS) | GROUND, bits(jnp.float32(_FAR)) | _SLOT_BITS)
    for slot, near, far in _intervals(scene, origin, direction):
        hit = (near < far) & (near > 1e-3)
        best = jnp.minimum(best, (bits(jnp.where(hit, near, _FAR)) & ~_SLOT_BITS) | slot)
    depth = jax.lax.bitcast_convert_type(best & ~_SLOT_BITS, jnp.float32)
    return depth, jnp.where(depth < 0.5 * _FAR, best & _SLOT_BITS, _SLOT_BITS)


def _sunlight(scene, point):
    """Share of sunlight at ``point``, 0 to 1, soft where the sun's ray only grazes an object."""
    sun = scene["sun"][0]
    blocked = 0.0
    for slot, near, far in _intervals(scene, point, (sun[0], sun[1], sun[2])):
        chord = jnp.maximum(far - jnp.maximum(near, 0.0), 0.0)
        softness = 0.5 * scene["half_size"][slot, 0] + 0.02
        blocked = jnp.maximum(blocked, jnp.minimum(chord / softness, 1.0))
    return 1.0 - blocked


def _lookup(table, slot):
    """Rows of a small table by slot: table [S, ...] -> nested tuples of planar arrays."""
    if table.ndim == 1:
        return jnp.take(table, slot, mode="clip")
    return tuple(_lookup(table[:, i], slot) for i in range(table.shape[1]))


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


def _albedo(scene, slot, local, normal, step_x, step_y):
    """Linear RGB (planar) at local points; ``step_x``, ``step_y`` are the local extent of one pixel there."""
    pattern = dict(zip(PATTERN, _lookup(scene["pattern"], slot), strict=True))
    texture, offset = _lookup(scene["texture"], slot), _lookup(scene["offset"], slot)
    colors = _lookup(scene["colors"], slot)

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
    return tuple(
        jnp.maximum((colors[0][i] + mix * (colors[1][i] - colors[0][i])) * light + colors[2][i] * tint, 0.004)
        for i in range(3)
    )


def _sky(scene, direction, length):
    zenith, horizon, cloud, (amount, phase, _) = scene["sky"]
    up = -direction[1] / length
    height = _clip01(up)
    height = height * (2.0 - height)
    spread = 1.2 / (jnp.abs(up) + 0.25) / length
    x, z = direction[0] * spread, direction[2] * spread
    first = _wave(0.31 * x + 0.23 * z + phase)
    second = _wave(-0.27 * x + 0.45 * z + 1.7 * phase + 0.2 * first)
    third = _wave(0.83 * x + 0.51 * z + 2.3 * phase + 0.25 * second)
    cover = _clip01(0.45 * (first + second + 0.7 * third)) * amount * _clip01(4.0 * up)
    sun = scene["sun"]
    glow = jnp.maximum(_dot(direction, sun[0]) / length, 0.0)
    glow = glow * glow
    glow = 0.25 * glow * glow
    colors = []
    for i in range(3):
        clear = horizon[i] + height * (zenith[i] - horizon[i]) + glow * sun[1, i]
        colors.append(clear + cover * (cloud[i] - clear))
    return tuple(colors)


def _normal(scene, slot, local):
    """Outward normal in object coordinates: boxes, walls and the ground by the nearest face."""
    half = _lookup(scene["half_size"], slot)
    u = tuple(local[i] / jnp.maximum(half[i], 1e-6) for i in range(3))
    a = tuple(jnp.abs(v) for v in u)
    x_face = (a[0] >= a[1]) & (a[0] >= a[2])
    y_face = ~x_face & (a[1] >= a[2])
    box = (jnp.where(x_face, jnp.sign(u[0]), 0.0), jnp.where(y_face, jnp.sign(u[1]), 0.0),
           jnp.where(x_face | y_face, 0.0, jnp.sign(u[2])))
    ring = u[0] * u[0] + u[2] * u[2]
    round_length = jax.lax.rsqrt(jnp.maximum(ring + u[1] * u[1], 1e-12))
    side_length = jax.lax.rsqrt(jnp.maximum(ring, 1e-12))
    cap = u[1] * u[1] > ring
    sphere, cylinder = (slot >= FIRST_SPHERE) & (slot < FIRST_CYLINDER), slot >= FIRST_CYLINDER
    tube = (jnp.where(cap, 0.0, u[0] * side_length), jnp.where(cap, jnp.sign(u[1]), 0.0),
            jnp.where(cap, 0.0, u[2] * side_length))
    return tuple(jnp.where(sphere, u[i] * round_length, jnp.where(cylinder, tube[i], box[i])) for i in range(3))


def _color(scene, eye, camera, focal, direction):
    """Linear RGB (planar) seen along ``direction`` from ``eye``; ``camera`` [3, 3], ``focal`` [2] in pixels."""
    depth, slot = _nearest(scene, eye, direction)
    sky = slot == _SLOT_BITS
    depth = jnp.where(sky, 10.0, depth)
    point = tuple(eye[i] + depth * direction[i] for i in range(3))
    position, rotation = _lookup(scene["position"], slot), _lookup(scene["rotation"], slot)
    local = _rotate_back(rotation, tuple(point[i] - position[i] for i in range(3)))
    normal_local = _normal(scene, slot, local)
    normal = _rotate(rotation, normal_local)

    # How far the hit point moves on its tangent plane when the ray moves by one pixel.
    facing = _dot(normal, direction)
    slope = 1.0 / jnp.minimum(facing, -1e-3)
    steps = []
    for axis in range(2):
        shift = tuple(camera[i, axis] / focal[axis] for i in range(3))
        along = _dot(normal, shift) * slope
        steps.append(_rotate_back(rotation, tuple(depth * (shift[i] - along * direction[i]) for i in range(3))))

    albedo = _albedo(scene, slot, local, normal_local, *steps)
    sun = scene["sun"]
    lit = jnp.maximum(_dot(normal, sun[0]), 0.0) * _sunlight(scene, point)
    upward = 0.5 - 0.5 * normal[1]
    length = jnp.sqrt(_dot(direction, direction))
    mirrored = tuple(direction[i] - 2.0 * facing * normal[i] for i in range(3))
    shine = jnp.maximum(_dot(mirrored, sun[0]) / length, 0.0)
    for _ in range(4):
        shine = shine * shine
    shine = shine * jnp.take(scene["pattern"][:, PATTERN.index("gloss")], slot, mode="clip") * (lit > 0)

    background = _sky(scene, direction, length)
    clear = jnp.exp(-jnp.maximum(depth * length - 6.0, 0.0) * scene["sky"][3, 2])
    colors = []
    for i in range(3):
        light = lit * sun[1, i] + upward * sun[2, i] + (1.0 - upward) * sun[3, i]
        surface = albedo[i] * light + shine * sun[1, i]
        surface = scene["sky"][1, i] + clear * (surface - scene["sky"][1, i])
        colors.append(jnp.where(sky, background[i], surface))
    return tuple(colors)


# ----------------------------------------------------------------------------------------------------- images


def _at_frame(scene, t):
    """The scene's arrays with the poses of frame ``t`` alone."""
    take = partial(jax.lax.dynamic_index_in_dim, index=t, axis=0, keepdims=False)
    return {**scene, "position": take(scene["position"]), "rotation": take(scene["rotation"])}


def _directions(camera, intrinsics, u, v):
    """World directions of image points ``u``, ``v`` (fractions of width and height), unit along the optical axis."""
    x, y = (u - intrinsics[2]) / intrinsics[0], (v - intrinsics[3]) / intrinsics[1]
    return tuple(camera[i, 0] * x + camera[i, 1] * y + camera[i, 2] for i in range(3))


def _rgb_clip(scene, poses, intrinsics, height, width, samples, bands):
    """RGB u8 [T, H, W, 3] of one world. ``poses`` f32 [T, 4, 4], ``intrinsics`` f32 [T, 4]."""
    rows = height // bands

    def band(index):
        t, first = index // bands, (index % bands) * rows
        pose, lens = poses[t], intrinsics[t]
        eye = (pose[0, 3], pose[1, 3], pose[2, 3])
        s = jnp.arange(samples, dtype=jnp.float32)
        v = (first + jnp.arange(rows)[None, None, :, None] + (s[:, None, None, None] + 0.5) / samples) / height
        u = (jnp.arange(width)[None, None, None, :] + (s[None, :, None, None] + 0.5) / samples) / width
        u, v = jnp.broadcast_arrays(u, v)  # [samples, samples, rows, W]
        focal = (lens[0] * width, lens[1] * height)
        colors = _color(_at_frame(scene, t), eye, pose[:3, :3], focal, _directions(pose[:3, :3], lens, u, v))
        colors = jnp.stack([jnp.mean(c, axis=(0, 1)) for c in colors], axis=-1)  # [rows, W, 3]
        return (jnp.sqrt(_clip01(colors)) * 255.0 + 0.5).astype(jnp.uint8)

    frames = jax.lax.map(band, jnp.arange(poses.shape[0] * bands))
    return frames.reshape(poses.shape[0], height, width, 3)


@partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _rgb_clips(scenes, poses, intrinsics, height, width, samples, bands):
    clip = partial(_rgb_clip, height=height, width=width, samples=samples, bands=bands)
    return jax.vmap(clip)(scenes, poses, intrinsics)


@partial(jax.jit, static_argnums=(3, 4))
def _truth(scene, poses, intrinsics, height, width):
    """Depth, instances, moving, flow and occlusion of one world, from the rays through the pixel centres."""
    frames = poses.shape[0]
    v, u = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")

    def frame(t):
        now, pose = _at_frame(scene, t), poses[t]
        direction = _directions(pose[:3, :3], intrinsics[t], u / width, v / height)
        eye = (pose[0, 3], pose[1, 3], pose[2, 3])
        depth, slot = _nearest(now, eye, direction)
        sky = slot == _SLOT_BITS
        moving = jnp.take(scene["moving"][t], slot, mode="clip") & ~sky

        # The same material point one frame later; the sky is a direction.
        after = jnp.minimum(t + 1, frames - 1)
        later, pose_later, lens = _at_frame(scene, after), poses[after], intrinsics[after]
        eye_later = (pose_later[0, 3], pose_later[1, 3], pose_later[2, 3])
        reach = jnp.where(sky, 1.0, depth)
        position, rotation = _lookup(now["position"], slot), _lookup(now["rotation"], slot)
        local = _rotate_back(rotation, tuple(eye[i] + reach * direction[i] - position[i] for i in range(3)))
        carried = _rotate(_lookup(later["rotation"], slot), local)
        position = _lookup(later["position"], slot)
        ray = tuple(
            jnp.where(sky, direction[i], carried[i] + position[i] - eye_later[i]) for i in range(3)
        )
        seen = _rotate_back(pose_later[:3, :3], ray)
        ahead = seen[2] > 1e-3
        z = jnp.where(ahead, seen[2], 1.0)
        u_later = (lens[0] * seen[0] / z + lens[2]) * width
        v_later = (lens[1] * seen[1] / z + lens[3]) * height
        flow = jnp.where(ahead[..., None], jnp.stack([u_later - u, v_later - v], axis=-1), 0.0)

        towards = tuple(component / z for component in ray)  # unit along the later optical axis
        depth_later, _ = _nearest(later, eye_later, towards)
        hidden = depth_later < jnp.where(sky, 0.5 * _FAR, z * (1.0 - 1e-3) - 1e-3)
        inside = (u_later >= 0) & (u_later <= width) & (v_later >= 0) & (v_later <= height)
        instances = jnp.where(sky, SKY_INSTANCE, slot + 1)
        return jnp.where(sky, jnp.inf, depth), instances, moving, flow, hidden | ~inside | ~ahead

    return jax.lax.map(frame, jnp.arange(frames))


def _bands(height: int, width: int, samples: int, worlds: int) -> int:
    """Into how many bands of rows a frame is cut: the rays of one step should stay in a CPU core's cache."""
    limit = 16_384 if jax.default_backend() == "cpu" else 1 << 22
    for bands in range(1, height + 1):
        if height % bands == 0 and worlds * (height // bands) * width * samples**2 <= limit:
            return bands
    return height


def _check_size(height: int, width: int, samples: int) -> None:
    for name, value in (("height", height), ("width", width), ("samples", samples)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")


def _camera_arrays(world: World) -> tuple[np.ndarray, np.ndarray]:
    return (np.asarray(world.cameras.world_from_camera, np.float32),
            np.asarray(world.cameras.intrinsics, np.float32))


def render(world: World, height: int, width: int, samples: int = 2) -> Frames:
    """Render a world with all its truth; arrays on the host.

    ``samples`` squared rays per pixel are averaged for the colours; the truth is that of the pixel centre.
    """
    _check_size(height, width, samples)
    scene = world.scene.arrays()
    poses, intrinsics = _camera_arrays(world)
    rgb = render_rgb([world], height, width, samples)[0]
    depth, instances, moving, flow, occluded = _truth(scene, poses, intrinsics, height, width)
    return Frames(
        rgb=np.asarray(rgb),
        depth=np.asarray(depth),
        instances=np.asarray(instances),
        moving=np.asarray(moving),
        flow=np.asarray(flow[:-1]),
        occluded=np.asarray(occluded[:-1]),
    )


def stack_worlds(worlds: Sequence[World]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Scene arrays with a leading axis N, poses f32 [N, T, 4, 4] and intrinsics f32 [N, T, 4]."""
    if not worlds:
        raise ValueError("no worlds to stack; expected at least one")
    lengths = sorted({world.frames for world in worlds})
    if len(lengths) > 1:
        raise ValueError(f"worlds of {lengths} frames do not stack; sample them with one WorldsConfig.frames")
    scenes = [world.scene.arrays() for world in worlds]
    poses, intrinsics = zip(*(_camera_arrays(world) for world in worlds), strict=True)
    return ({name: np.stack([scene[name] for scene in scenes]) for name in scenes[0]},
            np.stack(poses), np.stack(intrinsics))


def iterate_rgb(
    worlds: Sequence[World], height: int, width: int, samples: int = 2, chunk: int | None = None
) -> Iterator[jax.Array]:
    """Yield u8 device arrays [n, T, H, W, 3], ``chunk`` worlds at a time (the last one may be shorter).

    Work memory is about 1.5 KB per ray in flight, whatever the number of worlds. By default ``chunk`` keeps about
    two million rays in flight on an accelerator, and is 1 on a CPU.
    """
    _check_size(height, width, samples)
    if chunk is None:
        chunk = 1 if jax.default_backend() == "cpu" else max(1, (1 << 21) // (height * width * samples**2))
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; expected at least 1")
    chunk = min(chunk, len(worlds))
    for first in range(0, len(worlds), max(chunk, 1)):
        part = list(worlds[first : first + chunk])
        count = len(part)
        part += part[-1:] * (chunk - count)  # one shape, one compilation
        bands = _bands(height, width, samples, chunk)
        yield _rgb_clips(*stack_worlds(part), height, width, samples, bands)[:count]


def render_rgb(
    worlds: Sequence[World], height: int, width: int, samples: int = 2, chunk: int | None = None
) -> jax.Array:
    """RGB u8 [N, T, H, W, 3] of many worlds on the default device. See ``iterate_rgb`` for memory and ``chunk``."""
    if not worlds:
        raise ValueError("no worlds to render; expected at least one")
    return jnp.concatenate(list(iterate_rgb(worlds, height, width, samples, chunk)))
