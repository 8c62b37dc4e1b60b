"""Estimators of motion, cameras, depth, flow, appearance and points, behind small protocols.

Nothing here needs weights or a network to begin with: optical flow and motion masks by OpenCV
(:mod:`~camctrl_jax.estimators.opencv_flow`, :mod:`~camctrl_jax.estimators.motion_masks`), structure from
motion by pycolmap (:mod:`~camctrl_jax.estimators.colmap`), histograms as embeddings
(:mod:`~camctrl_jax.estimators.histograms`), the exact truth of a world
(:mod:`~camctrl_jax.estimators.worlds_truth`), and whatever a user has already
(:mod:`~camctrl_jax.estimators.imported`). Learned estimators run in environments of their own:
:mod:`~camctrl_jax.estimators.process` runs them, :mod:`~camctrl_jax.estimators.recipes` says how. There is no
default for metric depth: metres come from a user's files, from a world, or from a program of the user's.

Importing this package imports none of them, and neither OpenCV nor pycolmap.
"""

from camctrl_jax.estimators.protocols import (
    ClipEmbedder,
    DepthResult,
    EstimatorFailed,
    Fingerprint,
    MetricDepth,
    MotionMasks,
    MotionSegmenter,
    OpticalFlow,
    PointCloud,
    PointMapper,
    PointMaps,
    PointReconstructor,
    SfmResult,
    SfmStatus,
    StructureFromMotion,
    VideoEmbedder,
    dilate,
    for_clip,
)

__all__ = [
    "ClipEmbedder",
    "DepthResult",
    "EstimatorFailed",
    "Fingerprint",
    "MetricDepth",
    "MotionMasks",
    "MotionSegmenter",
    "OpticalFlow",
    "PointCloud",
    "PointMapper",
    "PointMaps",
    "PointReconstructor",
    "SfmResult",
    "SfmStatus",
    "StructureFromMotion",
    "VideoEmbedder",
    "dilate",
    "for_clip",
]
