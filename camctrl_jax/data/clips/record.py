"""One annotated clip as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from camctrl_jax.camera.cameras import CameraError, Cameras
from camctrl_jax.camera.framing import null_intrinsics
from camctrl_jax.clip_shape import latents_of, longest_clip
from camctrl_jax.errors import ClipError


@dataclass(frozen=True)
class ClipRecord:
    """A clip with its annotations; see the README beside this file for units and conventions.

    Attributes:
      id: unique name.
      num_frames: T = 4k+1.
      height, width: true size in pixels.
      fps: frames per second.
      cameras: T cameras, or None for an unlabelled clip.
      captions: one or more phrasings; ("",) if there is none.
      video: mp4 bytes, or None if latents are stored.
      latents: normalised, float16 [L, h, w, C], or None.
      text, text_mask: embeddings float16 [K, N, D] and bool [K, N] of the captions, or None.
      source: where the clip comes from.
      reference: where the clip is a take, or a window of one: the pose f64 [4, 4] of the take's first camera,
        in the world of ``cameras``. Of unlabelled clips it is not stored.
    """

    id: str
    num_frames: int
    height: int
    width: int
    fps: float
    cameras: Cameras | None
    captions: tuple[str, ...] = ("",)
    video: bytes | None = None
    latents: np.ndarray | None = None
    text: np.ndarray | None = None
    text_mask: np.ndarray | None = None
    source: str = ""
    reference: np.ndarray | None = None

    @property
    def labelled(self) -> bool:
        """Whether the cameras are known."""
        return self.cameras is not None

    @property
    def metric(self) -> bool:
        """Whether the translations are metres."""
        return self.cameras is not None and self.cameras.metric

    def validate(self) -> ClipRecord:
        """Check that the parts fit together and return the record itself. Raises ClipError."""
        if self.num_frames != longest_clip(self.num_frames):
            raise ClipError("frame_count", f"{self.id}: {self.num_frames} frames; expected 4k+1.")
        if (self.video is None) == (self.latents is None):
            raise ClipError("content", f"{self.id}: expected either a video or latents.")
        if self.latents is not None and len(self.latents) != latents_of(self.num_frames):
            raise ClipError(
                "frame_count",
                f"{self.id}: {len(self.latents)} latents do not belong to {self.num_frames} frames.",
            )
        if not self.captions:
            raise ClipError("no_caption", f"{self.id}: no caption; store '' for a clip without one.")
        if self.text is not None and len(self.text) != len(self.captions):
            raise ClipError(
                "content", f"{self.id}: {len(self.text)} embeddings of {len(self.captions)} captions."
            )
        if self.cameras is not None:
            if len(self.cameras) != self.num_frames:
                raise ClipError(
                    "pose_count", f"{self.id}: {len(self.cameras)} poses of {self.num_frames} frames."
                )
            try:
                self.cameras.validate(self.id)
                if self.reference is not None:
                    pose = np.asarray(self.reference, np.float64)[None]
                    Cameras(pose, self.cameras.intrinsics[:1]).validate(f"{self.id}: the take's first camera")
            except CameraError as error:
                raise ClipError("bad_pose", str(error)) from error
        return self

    def to_features(self) -> dict[str, Any]:
        """The features that the builder writes."""
        if self.cameras is None:
            poses = np.tile(np.eye(4), (self.num_frames, 1, 1))
            intrinsics = np.tile(
                null_intrinsics(self.height, self.width).astype(np.float64), (self.num_frames, 1)
            )
        else:
            poses, intrinsics = self.cameras.world_from_camera, self.cameras.intrinsics
        features: dict[str, Any] = {
            "id": self.id,
            "world_from_camera": poses,
            "intrinsics": intrinsics,
            "captions": list(self.captions),
            "fps": float(self.fps),
            "num_frames": self.num_frames,
            "height": self.height,
            "width": self.width,
            "metric": self.metric,
            "labelled": self.labelled,
            "source": self.source,
            "reference": np.zeros((0, 4, 4)),
        }
        if self.reference is not None and self.cameras is not None:
            features["reference"] = np.asarray(self.reference, np.float64)[None]
        if self.video is not None:
            features["video"] = self.video
        else:
            features["latents"] = np.asarray(self.latents, np.float16)
        if self.text is not None:
            features["text"] = np.asarray(self.text, np.float16)
            features["text_mask"] = np.asarray(self.text_mask, bool)
        return features

    @classmethod
    def from_features(cls, features: Mapping[str, Any]) -> ClipRecord:
        """The record of features as a TFDS data source returns them."""
        cameras = None
        if features["labelled"]:
            cameras = Cameras(
                features["world_from_camera"], features["intrinsics"], metric=bool(features["metric"])
            )
        return cls(
            id=features["id"].decode(),
            num_frames=int(features["num_frames"]),
            height=int(features["height"]),
            width=int(features["width"]),
            fps=float(features["fps"]),
            cameras=cameras,
            captions=tuple(caption.decode() for caption in features["captions"]),
            video=features.get("video"),
            latents=features.get("latents"),
            text=features.get("text"),
            text_mask=features.get("text_mask"),
            source=features["source"].decode(),
            reference=next(iter(features.get("reference", ())), None),  # earlier datasets have none
        )
