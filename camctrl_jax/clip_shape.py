"""The size of a clip in frames, pixels, latents and tokens: the one place that knows how they belong
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from camctrl_jax.errors import InvalidValue

# Of every autoencoder of this package: frames per latent after the first, pixels per latent position.
TEMPORAL_STRIDE, SPATIAL_STRIDE = 4, 8
PATCH = (1, 2, 2)  # latents per token along time, height and width


def latents_of(frames: int, stride: int = TEMPORAL_STRIDE) -> int:
    """Latents of a clip: one for the first frame, one for every further ``stride``."""
    return (frames - 1) // stride + 1


def frames_of(latents: int, stride: int = TEMPORAL_STRIDE) -> int:
    """Frames of a clip of so many latents; inverse of :func:`latents_of`."""
    return stride * (latents - 1) + 1


def longest_clip(frames: int, stride: int = TEMPORAL_STRIDE) -> int:
    """The longest clip, stride * k + 1 frames, that can be cut from so many frames."""
    return frames_of(latents_of(max(frames, 1), stride), stride)


@dataclass(frozen=True)
class ClipShape:
    """A clip's size, and what an autoencoder makes of it.

    Attributes:
        frames: T.
        height, width: pixels.
        temporal_stride, spatial_stride: of the autoencoder.
    """

    frames: int
    height: int
    width: int
    temporal_stride: int = TEMPORAL_STRIDE
    spatial_stride: int = SPATIAL_STRIDE

    @property
    def latents(self) -> int:
        """L."""
        return latents_of(self.frames, self.temporal_stride)

    @property
    def latent_size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.height // self.spatial_stride, self.width // self.spatial_stride

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(L, h, w)."""
        return self.latents, *self.latent_size

    @property
    def pose_frames(self) -> slice:
        """The L frames whose poses stand for the latents: 0, 4, 8, ...

        Latent 0 holds frame 0 and latent k frames 4k-3 to 4k, so 4k is the newest frame that it has seen.
        """
        return slice(0, self.frames, self.temporal_stride)

    def tokens(self, patch: tuple[int, int, int] = PATCH) -> int:
        """Video tokens of a transformer that patchifies the latents so."""
        return prod(self.latent_shape) // prod(patch)

    def check(
        self, patch: tuple[int, int, int] = PATCH, *, least_latents: int = 1, prefix: str = ""
    ) -> ClipShape:
        """The shape itself, if an autoencoder and a transformer can work on it.

        Args:
            patch: of the transformer; (1, 1, 1) for the autoencoder alone.
            least_latents: 2 where an image will not do.
            prefix: what stands before the names in messages, e.g. ``config.data.``.

        Raises:
            InvalidValue: names the value and the nearest that works.
        """
        stride = self.temporal_stride
        if self.frames != longest_clip(self.frames, stride) or self.latents < least_latents:
            low = max(longest_clip(self.frames, stride), frames_of(least_latents, stride))
            raise InvalidValue(
                f"{prefix}frames={self.frames}: expected {stride}k+1 frames, for example {low} or "
                f"{low + stride}."
            )
        for name, side in (("height", patch[1]), ("width", patch[2])):
            size, multiple = getattr(self, name), self.spatial_stride * side
            if size < multiple or size % multiple:
                near = max(1, round(size / multiple)) * multiple
                raise InvalidValue(
                    f"{prefix}{name}={size}: expected a multiple of {multiple} pixels, for example {near}."
                )
        return self
