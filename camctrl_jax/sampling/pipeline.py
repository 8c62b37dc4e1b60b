"""A trained model as a whole: text, autoencoder and transformer, from prompts and cameras to video.

Axes: B batch, T = 4k + 1 frames, L = k + 1 latent frames, R retrieved ones, H, W pixels, h = H / 8, w = W /
8.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from camctrl_jax.camera import Cameras
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.text import TextEmbedder
from camctrl_jax.diffusion.condition import Condition, NullText, camera_condition
from camctrl_jax.diffusion.flow import shift_for_tokens
from camctrl_jax.diffusion.sampler import Sampling, initial_noise, sample
from camctrl_jax.errors import InvalidValue
from camctrl_jax.interop.described import Distilled, SamplingDefaults
from camctrl_jax.models import MMDiT, MMDiTConfig, mmdit_in_dtype, stack_layers, unstack_layers
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.models.fingerprint import fingerprint_of_parameters
from camctrl_jax.models.placement import ONE_DEVICE, Placement
from camctrl_jax.parallel.sharding import distribute_samples
from camctrl_jax.sampling.continuation import check_beginning, frames_to_show
from camctrl_jax.sampling.students import check_sampling, check_shift

Params = dict[str, Any]
Progress = Callable[[int, int], None]
TEXT_STEP = 64  # text tokens
# Folded into a clip's seed for noise beside its own; the next number is that of retrieved frames.
_RETRIEVED_NOISE, _CONDITION_NOISE = 1, 2


@dataclass(frozen=True)
class Denoiser:
    """The transformer as a pure function of its parameters. Equal settings share compilations."""

    config: MMDiTConfig
    dtype: Any
    placement: Placement = ONE_DEVICE

    def __call__(self, params: Params, noisy: Array, time: Array, condition: Condition) -> Array:
        """The velocity; shapes as in ``camctrl_jax.diffusion.sampler.ModelVelocity``."""
        return MMDiT(self.config, self.dtype, self.placement).apply(
            {"params": params},
            condition.inputs(noisy),
            time,
            condition.text,
            condition.text_mask,
            condition.plucker,
            retrieved=condition.retrieved,
            until=condition.until,
        )


@dataclass(frozen=True)
class RetrievedFrames:
    """Earlier frames of each clip's video that the network is shown beside the window, wherever they come
    from.

    Attributes:
        video: u8 [B, R, H, W, 3], frames of the size of the clips; each is encoded alone.
        cameras: B paths of R poses, in the world frame of the clips' paths; None where the clips have none.
    """

    video: np.ndarray
    cameras: Sequence[Cameras] | None = None

    @property
    def count(self) -> int:
        """R."""
        return self.video.shape[1]


@dataclass(frozen=True)
class ClipBatch:
    """Clips to sample. Each depends on its own inputs and seed, not on the batch around it.

    Attributes:
        prompts: B texts; "" is no text.
        seeds: B seeds of the noise.
        shape: of the clips.
        cameras: B paths of T frames, or None for a model without a camera or for no camera condition.
        condition: u8 [B, T', H, W, 3], the given T' = 4k + 1 < T first frames (one: I2V), or None: T2V.
        references: B poses world_from_camera f64 [4, 4] of the reference cameras, that Pluecker maps are
            relative to; by default each path's first.
        retrieved: earlier frames beside ``condition``, for weights that were trained with such.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    shape: ClipShape
    cameras: Sequence[Cameras] | None = None
    condition: np.ndarray | None = None
    references: Sequence[np.ndarray] | None = None
    retrieved: RetrievedFrames | None = None


@dataclass(frozen=True)
class Extension:
    """How a video goes on: by how much, from how much of its end, and with how much memory of the rest.

    Attributes:
        new_latents: Ln, 4 frames each.
        condition_latents: Lc; 1 conditions on the last frame alone, as I2V does.
        retrieved: earlier frames, chosen from the video before the condition by what the coming cameras see
            (``camctrl_jax.camera.retrieval``); 0 is off. For weights that were trained with such: with
            ``SamplingDefaults.retrieved`` of them; other numbers work and were not learned, and more have
            rotary times that are new to the network.
    """

    new_latents: int = 12
    condition_latents: int = 4
    retrieved: int = 0

    def __post_init__(self) -> None:
        if self.condition_latents < 1 or self.new_latents < 1:
            raise InvalidValue(
                f"condition_latents={self.condition_latents} and new_latents={self.new_latents}: expected "
                "1 or more; 4 and 12 are usual."
            )
        if self.retrieved < 0:
            raise InvalidValue(f"retrieved={self.retrieved}: expected a number of frames, or 0 for none.")


def sampling_form(config: MMDiTConfig, params: Params, dtype: Any) -> tuple[MMDiTConfig, Params]:
    """A transformer as it samples fastest, on the default device: (its configuration, parameters).

    Weights are rounded once to the dtype they are used in. On an accelerator the layers are scanned, which
    compiles in a fraction of the time and, without a backward pass, runs as fast.
    """
    params = mmdit_in_dtype(params, dtype)
    if jax.default_backend() == "cpu" or config.scan_layers:
        return config, jax.device_put(params)
    config = replace(config, scan_layers=True)
    return config, jax.device_put(stack_layers(params, config))


def used_text(
    text: np.ndarray, text_mask: np.ndarray, null_text: np.ndarray, null_mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same without the padding that no prompt needs: text tokens up to a multiple of ``TEXT_STEP``.

    Padding is not attended to, but the network computes it. Most prompts fill a fraction of what a text
    encoder pads to, and every other length compiles anew, hence the steps.

    Args:
        text, text_mask: f32 [B, N, D] and bool [B, N], valid tokens first.
        null_text, null_mask: f32 [1, N, D] and bool [1, N].

    Returns: the four, of N' <= N tokens.
    """
    longest = int(max(text_mask.sum(axis=1).max(), null_mask.sum(axis=1).max()))
    kept = min(text.shape[1], -(-longest // TEXT_STEP) * TEXT_STEP)
    return text[:, :kept], text_mask[:, :kept], null_text[:, :kept], null_mask[:, :kept]


def retrieve(video: np.ndarray, paths: Sequence[Cameras], count: int, given: int) -> RetrievedFrames:
    """The frames of videos so far that show most of what their next cameras see.

    Args:
        video: u8 [B, T', H, W, 3], all frames so far.
        paths: B paths of more than T' poses; those beyond are the next cameras.
        count: R, frames to choose; repeated where there are fewer.
        given: last frames of the video that the network is shown anyway; not chosen unless there are no
        others.
    """
    end = video.shape[1]
    chosen = [frames_to_show(path[:end], path[end:], count, given) for path in paths]
    frames = np.stack([clip[indices] for clip, indices in zip(video, chosen)])
    return RetrievedFrames(frames, [path[indices] for path, indices in zip(paths, chosen)])


def _seen_from(references: Sequence[np.ndarray], paths: Sequence[Cameras]) -> tuple[Array, Array]:
    """Poses f32 [B, T, 4, 4] relative to each path's reference camera, and intrinsics f32 [B, T, 4]."""
    # In float64: far from the origin float32 would lose the digits that tell neighbouring poses apart.
    paths = [
        path.transformed(np.linalg.inv(reference)) for path, reference in zip(paths, references, strict=True)
    ]
    return (
        jnp.asarray(np.stack([path.world_from_camera for path in paths]), jnp.float32),
        jnp.asarray(np.stack([path.intrinsics for path in paths]), jnp.float32),
    )


def _check_so_far(paths: Sequence[Cameras], so_far: Sequence[Cameras] | None, frames: int) -> None:
    """That every path begins with its own so far, of ``frames`` frames."""
    if so_far is None:
        return
    if len(so_far) != len(paths) or any(len(path) != frames for path in so_far):
        raise InvalidValue(
            f"cameras_so_far holds paths of {[len(path) for path in so_far]} poses: expected {len(paths)} "
            f"of the {frames} frames so far."
        )
    for number, (path, beginning) in enumerate(zip(paths, so_far)):
        check_beginning(path, beginning, "The path" if len(paths) == 1 else f"The path of clip {number}")


@dataclass(frozen=True)
class Pipeline:
    """Everything that sampling needs.

    Attributes:
        autoencoder: the VAE.
        denoiser, params: the transformer.
        embedder: of prompts.
        defaults: the clips it was trained on.
        mesh: where the parameters lie, if not on the default device; every process then samples the same
            clips, and the devices share the work.
        distilled: of a student, what it was made for; it is sampled in no other way.
    """

    autoencoder: Autoencoder
    denoiser: Denoiser
    params: Params
    embedder: TextEmbedder
    defaults: SamplingDefaults
    mesh: Mesh | None = None
    distilled: Distilled | None = None

    def shift(self, shape: ClipShape) -> float:
        """Timestep shift for clips of this size, as in training."""
        if self.defaults.shift is not None:
            return self.defaults.shift
        return shift_for_tokens(shape.tokens(self.denoiser.config.patch))

    def sample(self, clips: ClipBatch, sampling: Sampling, progress: Progress | None = None) -> Array:
        """Sample a batch of clips.

        Args:
            clips: what to sample.
            sampling: how; its shift is that of training where it is not given.
            progress: as for ``camctrl_jax.diffusion.sampler.sample``.

        Returns:
            Normalised latents, f32 [B, L, h, w, C]; ``autoencoder.decode`` makes video of them.

        Raises:
            InvalidValue: a student that was not made for this sampling.
        """
        check_sampling(sampling, self.distilled)
        if sampling.shift is None:
            sampling = replace(sampling, shift=self.shift(clips.shape))
        check_shift(sampling, self.shift(clips.shape), self.distilled)
        condition, null = self.condition(clips)
        if clips.condition is None and clips.retrieved is None:  # nothing that history guidance could weigh
            sampling = replace(sampling, guidance=replace(sampling.guidance, history=1.0))
        if sampling.guidance.history != 1.0 and clips.references is not None:
            condition = self._with_begun(condition, clips)
        noise, told = self._noise(clips), condition
        if sampling.condition_noise:
            blur = self._noise(clips, _CONDITION_NOISE)
            told = condition.noised(sampling.condition_noise, blur)
        latents = sample(self.denoiser, self.params, noise, told, null, sampling, progress)
        if sampling.condition_noise:  # what is given comes back as it was given
            window = slice(condition.retrieved, None)
            given = condition.mask[:, window, None, None, None]
            latents = jnp.where(given, condition.clean[:, window], latents)
        return latents

    def _noise(self, clips: ClipBatch, use: int | None = None) -> Array:
        """f32 [B, R + L, h, w, C]; that of the window does not depend on R."""
        shape = self._latent_shape(clips.shape)
        noise = initial_noise(clips.seeds, shape, use)
        if clips.retrieved is not None:
            count, further = clips.retrieved.count, _RETRIEVED_NOISE if use is None else use + 1
            noise = jnp.concatenate([initial_noise(clips.seeds, (count, *shape[1:]), further), noise], axis=1)
        return self._distributed(noise)

    def condition(self, clips: ClipBatch) -> tuple[Condition, NullText]:
        """What steers a batch of clips, and the empty prompt."""
        self._check_retrieved(clips)
        shape = self._latent_shape(clips.shape)
        batch = len(clips.prompts)
        clean, given = jnp.zeros((batch, *shape), jnp.float32), 0
        if clips.condition is not None:
            latents = self.autoencoder.encode(self._distributed(clips.condition))
            given = latents.shape[1]
            if given >= shape[0]:
                raise InvalidValue(
                    f"{clips.condition.shape[1]} frames are given and a clip has {clips.shape.frames}: "
                    "nothing to sample."
                )
            clean = clean.at[:, :given].set(latents)
        mask = jnp.broadcast_to(jnp.arange(shape[0]) < given, (batch, shape[0]))
        retrieved = 0
        if clips.retrieved is not None:
            retrieved = clips.retrieved.count
            clean = jnp.concatenate([self._encode_retrieved(clips), clean], axis=1)
            mask = jnp.concatenate([jnp.ones((batch, retrieved), bool), mask], axis=1)
        text, text_mask, null_text, null_mask = used_text(
            *self.embedder.embed(list(clips.prompts)), *self.embedder.embed([""])
        )
        condition = Condition(
            text=jnp.asarray(text),
            text_mask=jnp.asarray(text_mask),
            plucker=None if self.denoiser.config.camera is None else self._plucker(clips),
            clean=clean,
            mask=mask,
            retrieved=retrieved,
        )
        null = NullText(jnp.asarray(null_text), jnp.asarray(null_mask))
        return self._distributed(condition), self._distributed(null)

    def extend(
        self,
        video: np.ndarray,
        clips: ClipBatch,
        extension: Extension,
        sampling: Sampling,
        progress: Progress | None = None,
        *,
        cameras_so_far: Sequence[Cameras] | None = None,
    ) -> np.ndarray:
        """Go on from the end of a video: one more clip of ``4 * new_latents`` frames, appended to it.

        The last ``4 * (condition_latents - 1) + 1`` frames are encoded again, so that the first of them is a
        one-frame latent as in training, and condition a clip of ``condition_latents + new_latents`` latents.
        All of it is decoded, causally, and what follows the condition frames is appended. The cameras of all
        clips are seen from one reference camera: the first frame of the first clip. But a clip that goes on
        from one latent is an image-to-video clip, which in training begins at its own first frame, and so do
        all clips of weights that were trained that way (``SamplingDefaults.reference`` is 'clip').

        With ``extension.retrieved``, frames before the condition that show what the new cameras will see are
        chosen by path and shown to the network too. How long the video is changes no shape that is compiled.

        Args:
            video: u8 [B, T', H, W, 3], all frames so far, not fewer than the condition.
            clips: prompts and seeds of the new clip (give every clip another seed: equal seeds are equal
                noise), and paths of the whole exploration, from the first frame of the first clip to the last
                frame that this call adds (``camera.compose`` joins paths end to end), or None for no camera.
                Its shape, condition and references follow from the video; where it has ``retrieved`` of its
                own, those are shown and none are chosen.
            extension: how much is added, and what it goes on from.
            sampling, progress: as for :meth:`sample`.
            cameras_so_far: B paths of the T' frames so far, as they were sampled: the paths of ``clips`` must
                begin with them, in any world frame. None: it is not checked that they do.

        Returns:
            u8 [B, T' + 4 * new_latents, H, W, 3].

        Raises:
            InvalidValue: a video shorter than the condition, or paths that do not end with the new frames, or
                do not begin with those so far; retrieval without paths, or of weights that know none.
        """
        config = self.autoencoder.config
        added = config.temporal_stride * extension.new_latents
        given = config.temporal_stride * (extension.condition_latents - 1) + 1
        if video.dtype != np.uint8 or video.ndim != 5 or video.shape[1] < given:
            raise InvalidValue(
                f"The video is {video.dtype} {list(video.shape)}: expected uint8 [B, T, H, W, 3] of at least "
                f"{given} frames, the condition of {extension.condition_latents} latents."
            )
        windows, references, retrieved = None, None, clips.retrieved
        if clips.cameras is not None:
            for path in clips.cameras:
                if len(path) != video.shape[1] + added:  # of a longer path, which part is meant?
                    raise InvalidValue(
                        f"A path has {len(path)} poses: expected those of the {video.shape[1]} frames so far "
                        f"and of the {added} to come, {video.shape[1] + added} in all."
                    )
            _check_so_far(clips.cameras, cameras_so_far, video.shape[1])
            windows = [path[len(path) - given - added :] for path in clips.cameras]
            references = [path.world_from_camera[0] for path in clips.cameras]
            if retrieved is None and extension.retrieved:
                retrieved = retrieve(video, clips.cameras, extension.retrieved, given)
        elif cameras_so_far is not None:
            raise InvalidValue(
                "cameras_so_far tells where the video's cameras were, and clips.cameras is None: expected "
                "the paths of the whole exploration."
            )
        elif retrieved is None and extension.retrieved:
            raise InvalidValue(
                f"Extension.retrieved={extension.retrieved} chooses frames by what the cameras see, and "
                "clips.cameras is None: give the paths, frames of your own as clips.retrieved, or 0."
            )
        window = replace(clips, cameras=windows, references=references, retrieved=retrieved)
        new = self.continue_from(video[:, -given:], window, extension, sampling, progress)
        return np.concatenate([video, new], axis=1)

    def continue_from(
        self,
        given: np.ndarray,
        clips: ClipBatch,
        extension: Extension,
        sampling: Sampling,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """What follows given frames, alone: :meth:`extend` for whoever keeps the video elsewhere.

        Args:
            given: u8 [B, 4 * (condition_latents - 1) + 1, H, W, 3], the last frames so far.
            clips: prompts and seeds; paths of the given frames and the new ones, in the world of
                ``references``, the first cameras of the first clips (set aside where these weights want each
                clip's own, see :meth:`extend`); and what is ``retrieved``. Its shape and condition follow.
            extension: how much is added; its ``retrieved`` is not looked at.
            sampling, progress: as for :meth:`sample`.

        Returns:
            u8 [B, 4 * new_latents, H, W, 3].
        """
        config = self.autoencoder.config
        added = config.temporal_stride * extension.new_latents
        seen_from_first = extension.condition_latents > 1 and self.defaults.reference == "take"
        window = replace(
            clips,
            shape=config.clip_shape(given.shape[1] + added, *given.shape[2:4]),
            condition=given,
            references=clips.references if seen_from_first else None,
        )
        latents = self.sample(window, sampling, progress)
        return self.autoencoder.decode(latents)[:, given.shape[1] :]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Tells these weights from others, on every device and in every form that they are sampled in.

        16 hexadecimal digits of the parameters of both networks as bfloat16. Read from the device once.
        """
        config, params = self.denoiser.config, self.params
        if config.scan_layers:
            params = unstack_layers(params, config)
        return fingerprint_of_parameters(params, self.autoencoder.params)

    def _latent_shape(self, shape: ClipShape) -> tuple[int, int, int, int]:
        return self.autoencoder.config.latent_shape(shape.frames, shape.height, shape.width)

    def _check_retrieved(self, clips: ClipBatch) -> None:
        """That frames retrieved for clips are of their size, and of use to these weights."""
        frames, batch, shape = clips.retrieved, len(clips.prompts), clips.shape
        if frames is None:
            return
        if self.defaults.retrieved == 0:
            raise InvalidValue(
                f"{frames.count} retrieved frames are given to weights that were trained without any "
                "(SamplingDefaults.retrieved is 0): they would only disturb. Use weights that were, or none."
            )
        expected = (batch, frames.count, shape.height, shape.width, 3)
        if frames.video.dtype != np.uint8 or frames.video.shape != expected or frames.count == 0:
            raise InvalidValue(
                f"The retrieved frames are {frames.video.dtype} {list(frames.video.shape)}: expected uint8 "
                f"[{batch}, R, {shape.height}, {shape.width}, 3], R of 1 or more."
            )
        counts = None if frames.cameras is None else [len(path) for path in frames.cameras]
        needed = None if clips.cameras is None else [frames.count] * batch
        if counts != needed:
            raise InvalidValue(
                f"The retrieved frames have {counts or 'no'} poses: expected {needed or 'none'}, one for "
                "each frame where the clips have paths."
            )

    def _encode_retrieved(self, clips: ClipBatch) -> Array:
        """Each frame's own latent, f32 [B, R, h, w, C]."""
        video = clips.retrieved.video
        alone = video.reshape(-1, 1, *video.shape[2:])
        latents = self.autoencoder.encode(self._distributed(alone))
        return latents.reshape(*video.shape[:2], *latents.shape[2:])

    def _plucker(self, clips: ClipBatch) -> Array:
        camera = self.denoiser.config.camera
        batch, cameras, references = len(clips.prompts), clips.cameras, clips.references
        frames = clips.retrieved
        if cameras is None:
            height, width = camera.grid(clips.shape)
            latents = clips.shape.latents + (0 if frames is None else frames.count)
            return jnp.zeros((batch, latents, height, width, 6), jnp.float32)
        if references is None:
            references = [path.world_from_camera[0] for path in cameras]
        return camera_condition(
            *_seen_from(references, cameras),
            jnp.ones(batch, bool),
            clips.shape,
            camera,
            None if frames is None else _seen_from(references, frames.cameras),
        )

    def _with_begun(self, condition: Condition, clips: ClipBatch) -> Condition:
        """With maps of the window from its own first camera, for the branch without history."""
        if condition.plucker is None:
            return condition
        begun = self._plucker(replace(clips, references=None, retrieved=None))
        return replace(condition, begun=self._distributed(begun))

    def _distributed(self, batch: Any) -> Any:
        """Arrays that every process holds whole, on the mesh if there is one, samples over its devices."""
        return batch if self.mesh is None else distribute_samples(batch, self.mesh)
