"""Frechet distance of generated clips to their references, by video features, and the floor under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.errors import ClipError, InvalidValue
from camctrl_jax.estimators.protocols import VideoEmbedder, for_clip
from camctrl_jax.evaluate.videos.finding import Clip
from camctrl_jax.evaluate.videos.reading import read_pictures
from camctrl_jax.evaluate.videos.settings import VideosSettings
from camctrl_jax.evaluate.videos.store import ClipFeatures, files_of, keep_features, stored_features
from camctrl_jax.metrics.frechet import FeatureStatistics, frechet_distance

FOLDER = "features"
FEW_CLIPS = 128
"""Below it a distance is mostly its own bias: features have hundreds of channels."""

LEAST_CLIPS = 4  # so that a half has a covariance
SPLITS = 10
_SEED = 0
_RATES_APART = 0.01


def clip_features(clip: Clip, settings: VideosSettings, embedder: VideoEmbedder) -> ClipFeatures:
    """Features of a clip and of its reference, kept in ``settings.out`` and taken from there.

    The embedder sees the videos as they are, every frame, whatever ``--longest-side`` says. One that imports
    is bound to ``generated/NAME`` and ``reference/NAME``.

    Raises:
        UserError: a video is missing or broken, the two have other lengths or rates, or the embedder failed.
    """
    for path, reason, where in (
        (clip.video, "missing_video", settings.generated),
        (clip.reference, "missing_reference", settings.reference),
    ):
        if path is None:
            raise ClipError(reason, f"{where} holds no video named {clip.name}.")
    bound = {side: for_clip(embedder, f"{side}/{clip.name}") for side in ("generated", "reference")}
    key = {
        "fps": settings.fps,
        "files": files_of(clip, ("video", "reference")),
        "embedder": {side: asdict(each.fingerprint()) for side, each in bound.items()},
    }
    file = settings.out / FOLDER / f"{clip.name}.npz"
    stored = stored_features(file, key)
    if stored is not None:
        return stored
    # One after the other: two long clips in full size are much to hold.
    generated, made = _features(bound["generated"], clip.video, settings)
    reference, true = _features(bound["reference"], clip.reference, settings)
    if made.frames != true.frames or abs(made.fps / true.fps - 1.0) > _RATES_APART:
        raise ClipError(
            "other_length",
            f"{clip.video} has {made.frames} frames at {made.fps:.4g} a second, {clip.reference} "
            f"{true.frames} at {true.fps:.4g}: features of clips of another length or rate are not compared.",
        )
    found = ClipFeatures(generated, reference, made.frames, made.fps, made.size == true.size)
    if found.generated.shape != found.reference.shape:
        raise ClipError(
            "bad_result",
            f"{clip.name}: features have {len(found.generated)} and {len(found.reference)} channels.",
        )
    keep_features(file, key, found)
    return found


@dataclass(frozen=True)
class _Shape:
    frames: int
    fps: float
    size: tuple[int, int]


def _features(
    embedder: VideoEmbedder, path: Path | None, settings: VideosSettings
) -> tuple[np.ndarray, _Shape]:
    assert path is not None
    seen = read_pictures(path, settings.fps)
    if len(seen.frames) < embedder.least_frames:
        raise ClipError(
            "too_short",
            f"{path} has {len(seen.frames)} frames; these video features need {embedder.least_frames} or "
            "more.",
        )
    vector = np.asarray(embedder.embed_video(seen.frames, seen.fps), np.float64)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise ClipError("bad_result", f"video features of {path} are no finite vector.")
    return vector, _Shape(len(seen.frames), seen.fps, seen.size)


def frechet(features: Mapping[str, ClipFeatures], clips: int, embedder: VideoEmbedder) -> dict[str, Any]:
    """Distance of the generated clips to the references, and what it is to be read beside, JSON-able.

    A Frechet distance falls with the number of clips, so the floor (one half of the references against the
    other) has a distance of equally many beside it: one half of the generated clips against the references of
    the other half. Both are means over seeded random splits, the same ones.

    Args:
        features: of the clips that have them, by name.
        clips: all of them.
    """
    found: dict[str, Any] = {
        "clips": len(features),
        "without": clips - len(features),
        "embedder": asdict(embedder.fingerprint()),
    }
    if len(features) < LEAST_CLIPS:
        return found | {
            "reason": f"{len(features)} clips have features; {LEAST_CLIPS} or more are needed, "
            f"{FEW_CLIPS} or more mean something."
        }
    rows = [features[name] for name in sorted(features)]
    if len({row.generated.shape for row in rows}) > 1:
        raise InvalidValue("video features of the clips have another number of channels each.")
    made = np.stack([row.generated for row in rows])
    true = np.stack([row.reference for row in rows])
    lengths, rates = [row.frames for row in rows], [row.fps for row in rows]
    floors, halves = [], []
    generator = np.random.default_rng(_SEED)
    half = len(rows) // 2
    for _ in range(SPLITS):
        order = generator.permutation(len(rows))
        one, other = order[:half], order[half : 2 * half]
        floors.append(_distance(true[one], true[other]))
        halves.append(_distance(made[one], true[other]))
    return found | {
        "distance": _distance(made, true),
        "halves": {
            "clips": half,
            "splits": SPLITS,
            "seed": _SEED,
            "generated_to_reference": _spread(halves),
            "floor": _spread(floors),
        },
        "channels": made.shape[1],
        "frames": [min(lengths), max(lengths)],
        "fps": [min(rates), max(rates)],
        "warnings": _warnings(rows),
    }


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))


def _spread(distances: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(distances)), "low": float(min(distances)), "high": float(max(distances))}


def _warnings(rows: Sequence[ClipFeatures]) -> list[str]:
    found = []
    lengths, rates = [row.frames for row in rows], [row.fps for row in rows]
    if len(rows) < FEW_CLIPS:
        found.append(
            f"{len(rows)} clips are few: below about {FEW_CLIPS} the distance is mostly a matter of their "
            "number. Compare it with the floor, and only with results of equally many clips."
        )
    if len(set(lengths)) > 1:
        found.append(f"clips have {min(lengths)} to {max(lengths)} frames: features of all are pooled.")
    if max(rates) / min(rates) > 1.0 + _RATES_APART:
        found.append(f"clips have {min(rates):.4g} to {max(rates):.4g} frames a second: all are pooled.")
    if other := sum(not row.same_size for row in rows):
        found.append(
            f"{other} clips have pictures of another size than their reference: resizing alone moves the "
            "distance."
        )
    return found
