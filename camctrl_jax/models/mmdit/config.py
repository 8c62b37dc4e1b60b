"""Sizes and switches of the transformer, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from camctrl_jax.clip_shape import PATCH, SPATIAL_STRIDE, ClipShape
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.attention import Implementation
from camctrl_jax.models.remat import Remat, check_remat

PLUCKER_CHANNELS = 6
TIME_CHANNELS = 256
CAMERA_CHANNELS = 64  # of the deep encoder
CAMERA_BLOCKS = 2  # residual blocks of the deep encoder

_CAMERA_CHOICES = {
    "resolution": ("latent", "pixel"),
    "encoder": ("patchify", "deep"),
    "injection": ("first", "every"),
}


@dataclass(frozen=True)
class CameraConfig:
    """How the camera enters; the paper's ablations are values of it.

    Attributes:
        resolution: of the Pluecker map: 'latent' (the latent grid) or 'pixel' (the frames themselves, one map
            per latent frame).
        patch: what brings that grid to the token grid; by default (1, 2, 2), or (1, 16, 16) for pixels.
        encoder: 'patchify', one linear layer; or 'deep', residual convolutions on the map before it
            ("Complex Encoder").
        injection: 'first' adds the camera to the video tokens once; 'every' also at the start of every dual
            and single block, through a layer of its own from the same features ("Multilayer Inj.").

    The last layer of each way in is zero at initialisation, so that a new camera changes nothing.
    """

    resolution: Literal["latent", "pixel"] = "latent"
    patch: tuple[int, int, int] | None = None
    encoder: Literal["patchify", "deep"] = "patchify"
    injection: Literal["first", "every"] = "first"

    def __post_init__(self) -> None:
        for name, choices in _CAMERA_CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidValue(
                    f"camera.{name}={getattr(self, name)!r} is unknown; "
                    f"choose {' or '.join(map(repr, choices))}."
                )
        if self.patch is None:
            side = 1 if self.resolution == "latent" else SPATIAL_STRIDE
            object.__setattr__(self, "patch", (PATCH[0], side * PATCH[1], side * PATCH[2]))

    def grid(self, shape: ClipShape) -> tuple[int, int]:
        """Height and width of the Pluecker maps of a clip."""
        return shape.latent_size if self.resolution == "latent" else (shape.height, shape.width)


@dataclass(frozen=True)
class MMDiTConfig:
    """Sizes and switches of the transformer.

    ``num_single`` counts all single-stream blocks; the last ``num_decoder`` of them are decoder blocks.
    ``shared_modulation`` uses one adaLN weight matrix for the video streams of all dual blocks, one for their
    text streams and one for all single blocks, with a bias per block; exported, every block gets a copy of
    the matrix. ``fuse_projections`` computes query, key and value of one input as one matrix product (turn
    off to shard their outputs). ``remat`` names a policy of ``camctrl_jax.models.remat``. ``scan_layers``
    stacks the parameters of equal blocks and scans over them: same numbers, shorter compilation, slower on a
    GPU; see :func:`stack_layers`. ``target_time`` makes it a flow map: it is told the time that a step leads
    to, too, and answers with the velocity that leads there; without it, and at initialisation, that time
    changes nothing.
    """

    width: int
    heads: int
    head_dim: int
    num_dual: int
    num_single: int = 0
    num_decoder: int = 0
    mlp_ratio: float = 4.0
    patch: tuple[int, int, int] = (1, 2, 2)
    in_channels: int = 33
    out_channels: int = 16
    text_dim: int = 4096
    image_dim: int | None = None
    rope_axes: tuple[int, int, int] = (16, 24, 24)
    rope_theta: float = 10000.0
    text_cross_attention_dual: bool = False
    text_cross_attention_single: bool = False
    shared_modulation: bool = False
    camera: CameraConfig | None = field(default_factory=CameraConfig)
    target_time: bool = False
    attention: Implementation = "auto"
    fuse_projections: bool = True
    remat: Remat = "none"
    scan_layers: bool = False

    def __post_init__(self) -> None:
        if self.width != self.heads * self.head_dim:
            raise InvalidValue(
                f"width={self.width} must be heads * head_dim = {self.heads} * {self.head_dim}."
            )
        if sum(self.rope_axes) != self.head_dim or any(axis % 2 for axis in self.rope_axes):
            raise InvalidValue(
                f"rope_axes={self.rope_axes} must be even numbers that add up to head_dim={self.head_dim}."
            )
        if not 0 <= self.num_decoder <= self.num_single:
            raise InvalidValue(f"num_decoder={self.num_decoder} must lie in 0..num_single={self.num_single}.")
        camera = self.camera
        deep = camera is not None and camera.encoder == "deep"
        if deep and any(of_map % of_latents for of_map, of_latents in zip(camera.patch, self.patch)):
            raise InvalidValue(
                f"camera.patch={camera.patch} must be a multiple of patch={self.patch}: the deep camera "
                "encoder works on the latent grid."
            )
        check_remat(self.remat)

    @property
    def depth(self) -> int:
        """Blocks of all kinds."""
        return self.num_dual + self.num_single

    @property
    def mlp_dim(self) -> int:
        return int(self.width * self.mlp_ratio)
