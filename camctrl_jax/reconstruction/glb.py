"""GLB files (glTF 2.0, binary) of points and cameras.

glTF's world is right-handed with y up and its cameras look along their own -z with y up; ours have y down
and look along +z. One half turn about x takes either into the other, for the world and for cameras alike: a
pose ``P`` becomes ``X P X`` with X = diag(1, -1, -1), and a point that is ahead of a camera stays ahead.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.estimators.protocols import PointCloud
from camctrl_jax.files.atomic import written_file
from camctrl_jax.reconstruction.ply import far_from_origin

_HALF_TURN = np.diag([1.0, -1.0, -1.0, 1.0])
_FLOAT, _SHORT, _POINTS, _VERTICES = 5126, 5123, 0, 34962


def write_glb(path: str | Path, cloud: PointCloud, cameras: Cameras, size: tuple[int, int]) -> None:
    """Write points with colours (linear, as glTF asks) and a node for each camera.

    Args:
        cameras: in the world of the points.
        size: (height, width) of their pictures, for the aspect ratio.
    """
    turned = cloud.points * np.diag(_HALF_TURN)[:3]
    # 32 bits are millimetres at ten kilometres: a cloud far from the origin, as on a map, is told from its
    # own middle, and its node stands there. JSON holds doubles.
    middle = np.median(turned, axis=0) if far_from_origin(turned) else np.zeros(3)
    points = np.ascontiguousarray(turned - middle, "<f4")
    node: dict[str, Any] = {"name": "points", "mesh": 0}
    if middle.any():
        node["translation"] = middle.tolist()
    colours = np.full((len(points), 4), 65535, "<u2")  # 16 bits: light in 8 shows bands in the dark
    colours[:, :3] = np.rint(65535.0 * _linear(cloud.colours / 255.0))
    data = points.tobytes() + colours.tobytes()
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "camctrl_jax"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(cameras) + 1))}],
        "nodes": [node, *_nodes(cameras)],
        "cameras": [_camera(lens, size) for lens in cameras.intrinsics],
        "materials": [
            {
                "name": "points",
                "extensions": {"KHR_materials_unlit": {}},
                "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
            }
        ],
        "extensionsUsed": ["KHR_materials_unlit"],
        "meshes": [
            {
                "name": "points",
                "primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "mode": _POINTS, "material": 0}],
            }
        ],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": _FLOAT,
                "count": len(points),
                "type": "VEC3",
                "min": points.min(axis=0).tolist(),
                "max": points.max(axis=0).tolist(),
            },
            {
                "bufferView": 1,
                "componentType": _SHORT,
                "normalized": True,
                "count": len(points),
                "type": "VEC4",
            },
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": points.nbytes, "target": _VERTICES},
            {"buffer": 0, "byteOffset": points.nbytes, "byteLength": colours.nbytes, "target": _VERTICES},
        ],
        "buffers": [{"byteLength": len(data)}],
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("utf-8")
    text += b" " * (-len(text) % 4)
    data += b"\0" * (-len(data) % 4)
    with written_file(path) as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(data)))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", len(data), b"BIN\0") + data)


def _nodes(cameras: Cameras) -> list[dict[str, Any]]:
    """A node for each camera; matrices by columns."""
    poses = _HALF_TURN @ cameras.orthonormalised().world_from_camera @ _HALF_TURN + 0.0
    nodes: list[dict[str, Any]] = []
    for index, pose in enumerate(poses):
        nodes.append({"name": f"camera {index}", "camera": index})
        if (pose != np.eye(4)).any():  # the identity is not to be said
            nodes[-1]["matrix"] = pose.T.reshape(-1).tolist()
    return nodes


def _camera(lens: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """A perspective camera; glTF knows no principal point, so it is taken to be the middle."""
    fx, fy = lens[0] * size[1], lens[1] * size[0]  # pixels
    vertical = 2.0 * math.atan(0.5 / lens[1])
    perspective = {"yfov": vertical, "aspectRatio": float(size[1] / fx / (size[0] / fy)), "znear": 0.01}
    return {"type": "perspective", "perspective": perspective}


def _linear(values: np.ndarray) -> np.ndarray:
    """sRGB 0 to 1 as light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
