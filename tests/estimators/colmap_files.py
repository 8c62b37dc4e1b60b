"""COLMAP models in binary, written from the description of the format."""

import struct
from pathlib import Path

import numpy as np


def write_model(folder, cameras, views, points=()):
    """Write cameras.bin, images.bin and points3D.bin.

    Args:
        cameras: (id, model number, width, height, parameters) each.
        views: (id, qvec wxyz, t, camera id, name, [(x, y, point id)]) each.
        points: (id, xyz, error, [(image id, place)]) each.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = struct.pack("<Q", len(cameras))
    for identity, model, width, height, parameters in cameras:
        data += struct.pack("<iiQQ", identity, model, width, height)
        data += struct.pack(f"<{len(parameters)}d", *parameters)
    (folder / "cameras.bin").write_bytes(data)
    data = struct.pack("<Q", len(views))
    for identity, quaternion, shift, camera, name, seen in views:
        data += struct.pack("<i7di", identity, *quaternion, *shift, camera) + name.encode() + b"\0"
        data += struct.pack("<Q", len(seen)) + b"".join(struct.pack("<ddq", *place) for place in seen)
    (folder / "images.bin").write_bytes(data)
    data = struct.pack("<Q", len(points))
    for identity, place, error, track in points:
        data += struct.pack("<Q3d3BdQ", identity, *place, 0, 0, 0, error, len(track))
        data += b"".join(struct.pack("<ii", *element) for element in track)
    (folder / "points3D.bin").write_bytes(data)


def small_model(folder, frames=3, names="{:05d}.png", left_out=()):
    """A camera that goes right by 1 a frame, two points; SIMPLE_RADIAL, 64 x 40 pixels."""
    views, tracks = [], {11: [], 12: []}
    for index in range(frames):
        if index in left_out:
            continue
        seen = [(32.0 - index, 20.0, 11), (1.0, 2.0, -1), (40.0 - index, 25.0, 12)]
        views.append((index + 5, (1, 0, 0, 0), (-float(index), 0, 0), 7, names.format(index), seen))
        tracks[11].append((index + 5, 0))
        tracks[12].append((index + 5, 2))
    points = [(11, (0, 0, 40), 0.5, tracks[11]), (12, (8, 5, 40), 1.5, tracks[12])]
    write_model(folder, [(7, 2, 64, 40, (40.0, 32.0, 20.0, 0.05))], views, points)


def check_small_model(result, frames=3, left_out=()):
    kept = [index for index in range(frames) if index not in left_out]
    assert result.registered_frames.tolist() == kept
    np.testing.assert_allclose(result.cameras().positions, [(index, 0, 0) for index in kept], atol=1e-12)
    np.testing.assert_allclose(result.intrinsics[kept], [[0.625, 1.0, 0.5, 0.5]] * len(kept))
    np.testing.assert_allclose(result.distortion[kept], [[0.05, 0, 0, 0]] * len(kept))
    assert np.isnan(result.intrinsics[list(left_out)]).all()
    assert result.points.tolist() == [[0, 0, 40], [8, 5, 40]]
    assert result.observations_per_frame.tolist() == [0 if i in left_out else 2 for i in range(frames)]
    assert result.track_lengths.tolist() == [len(kept)] * 2
    assert result.mean_track_length == len(kept)
    assert result.mean_reprojection_error == 1.0
    first = result.observation_frame == kept[0]
    assert result.observation_xy[first].tolist() == [[32.0 - kept[0], 20.0], [40.0 - kept[0], 25.0]]
    assert result.observation_point[first].tolist() == [0, 1]
