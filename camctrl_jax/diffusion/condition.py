"""What steers a batch of clips: text, camera, and the clean latents that are given.

T2V, I2V and extension are one code path; they differ only in ``mask``. Frames that were retrieved from
earlier in a video (``camctrl_jax.camera.retrieval``) stand before the window as further given latents, each
encoded alone. Axes: B batch, T frames, L = 1 + (T - 1) / 4 latent frames of the window, R retrieved ones, h w
latent height and width, C latent channels, N text tokens of width D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from camctrl_jax.camera.plucker import plucker_map
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models import CameraConfig


class NullText(NamedTuple):
    """The empty prompt, what dropped text and the null branch of guidance see.

    text f [1 or B, N, D], mask bool [1 or B, N].
    """

    text: Array
    mask: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Condition:
    """One pytree of everything that a network is told beside the noisy latents and the time.

    Attributes:
        text: f [B, N, D], embedded prompts.
        text_mask: bool [B, N], tokens in use.
        plucker: f32 [B, R + L, h, w, 6], Pluecker maps on the grid that the network takes, zeros for no
            camera; None for a network without a camera.
        clean: f [B, R + L, h, w, C], normalised latents; only those of ``mask`` are read.
        mask: bool [B, R + L], True where the latent frame is given: of the window none for T2V, the first for
            I2V, the first Lc for extension; all retrieved ones.
        retrieved: R, a constant of a compiled program.
        begun: f32 [B, L, h, w, 6], the window's maps relative to its own first camera, where ``plucker`` is
            relative to another; None where they are the same. Text to video begins a video, and so is
            trained on these: the branch without history sees them.
        until: f32 [B] in [0, 1), the time that the velocity leads to, for networks that answer for a whole
            step (flow maps); others do not read it. None where nobody asks them.
    """

    text: Array
    text_mask: Array
    plucker: Array | None
    clean: Array
    mask: Array
    retrieved: int = field(default=0, metadata={"static": True})
    begun: Array | None = None
    until: Array | None = None

    def without_text(self, null: NullText) -> Condition:
        """The null branch of the text: the empty prompt for every clip.

        Raises:
            InvalidValue: it is padded to another length, or of another width, than the prompts.
        """
        if null.text.shape[1:] != self.text.shape[1:] or null.mask.shape[1:] != self.text_mask.shape[1:]:
            raise InvalidValue(
                f"The empty prompt's embedding is {null.text.shape[1:]}, the prompts' {self.text.shape[1:]}: "
                "embed both with the same settings, so that they have the same number of tokens and channels."
            )
        text = jnp.broadcast_to(null.text, self.text.shape).astype(self.text.dtype)
        return replace(self, text=text, text_mask=jnp.broadcast_to(null.mask, self.text_mask.shape))

    def without_camera(self) -> Condition:
        """The null branch of the camera: Pluecker maps of zeros."""
        return self if self.plucker is None else replace(self, plucker=jnp.zeros_like(self.plucker))

    def without_history(self) -> Condition:
        """The null branch of what is given, the T2V state: the window alone, nothing of it given, seen from
        its own first camera.
        """
        window, plucker = slice(self.retrieved, None), self.begun
        if plucker is None and self.plucker is not None:
            plucker = self.plucker[:, window]
        return replace(
            self,
            plucker=plucker,
            clean=jnp.zeros_like(self.clean[:, window]),
            mask=jnp.zeros_like(self.mask[:, window]),
            retrieved=0,
            begun=None,
        )

    def noised(self, level: Array | float, noise: Array) -> Condition:
        """What is given, blurred by noise as at time ``level`` of the flow: (1 - level) z + level noise.

        Args:
            level: f [] or [B, 1, 1, 1, 1] in [0, 1]; 0 is the condition as it is.
            noise: f [B, R + L, h, w, C], standard normal.
        """
        return replace(self, clean=(1.0 - level) * self.given + level * noise)

    @property
    def given(self) -> Array:
        """``clean`` where it is given, zeros elsewhere: f [B, R + L, h, w, C]."""
        # where, not multiply: a sampler may leave anything, even NaN, in frames it has yet to generate.
        return jnp.where(self._given, self.clean, 0.0)

    @property
    def _given(self) -> Array:
        return self.mask[:, :, None, None, None]  # [B, R + L, 1, 1, 1]

    def inputs(self, noisy: Array) -> Array:
        """The network's input, [noisy | clean where it is given | mask] along channels.

        The noisy slot keeps its noise at given positions: what the network answers there is ignored, and the
        clean slot holds the truth.

        Args:
            noisy: x_t, f [B, R + L, h, w, C].

        Returns:
            f [B, R + L, h, w, 2 C + 1] in the dtype of ``noisy``; 33 channels for C = 16.
        """
        mask = jnp.broadcast_to(self._given, (*noisy.shape[:-1], 1)).astype(noisy.dtype)
        return jnp.concatenate([noisy, self.given.astype(noisy.dtype), mask], axis=-1)


def stacked(conditions: Sequence[Condition]) -> Condition:
    """Several conditions of B clips as one of many, one after the other along the batch."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *conditions)


def camera_condition(
    world_from_camera: Array,
    intrinsics: Array,
    camera_valid: Array,
    shape: ClipShape,
    camera: CameraConfig,
    retrieved: tuple[Array, Array] | None = None,
) -> Array:
    """Pluecker maps of the frames that stand for the latents; zeros for samples without a camera.

    Args:
        world_from_camera: f32 [B, T, 4, 4], relative to the reference camera, T = 4k + 1.
        intrinsics: f32 [B, T, 4], fx/W, fy/H, cx/W, cy/H.
        camera_valid: bool [B]; False (unlabelled, or dropped) gives a zero map.
        shape: of the clips, T frames.
        camera: of the model; says whether the maps have a ray per latent position or per pixel.
        retrieved: poses f32 [B, R, 4, 4] and intrinsics f32 [B, R, 4] of retrieved frames, from the same
            reference camera; None is R = 0.

    Returns:
        f32 [B, R + L, h, w, 6] or f32 [B, R + L, H, W, 6], moment first, retrieved frames first.
    """
    frames, size = shape.pose_frames, camera.grid(shape)
    poses, lenses = world_from_camera[:, frames], intrinsics[:, frames]
    if retrieved is not None:
        poses, lenses = (jnp.concatenate(pair, axis=1) for pair in zip(retrieved, (poses, lenses)))
    plucker = plucker_map(poses, lenses, *size)
    # where, not multiply: an unlabelled clip may carry NaN poses, and NaN * 0 is NaN.
    return jnp.where(camera_valid[:, None, None, None, None], plucker, 0.0)
