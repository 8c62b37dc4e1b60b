"""The multimodal diffusion transformer: dual-stream, single-stream and decoder blocks, as in Motif-Video.

One module serves the small ``worlds`` model, the paper's dual-stream model and the open base (presets.py).
Parameters have one entry per layer, named after diffusers' ``MotifVideoTransformer3DModel``.

Axes: B batch, L latent frames, h, w latent grid, V video tokens (L*h*w / patch), I image tokens, N text
tokens, M = I + N context tokens, S = V + M, D width, H head dimension. Modulation, norms, rotary embedding,
the timestep and the camera are computed in float32, the other matrix products in ``dtype``; parameters are
float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.mmdit.blocks import Conditioning, DualBlock, SingleBlock
from camctrl_jax.models.mmdit.config import PLUCKER_CHANNELS, MMDiTConfig
from camctrl_jax.models.mmdit.layers import (
    CameraEmbed,
    CameraWeights,
    ImageEmbed,
    OutputNorm,
    PatchEmbed,
    SharedModulation,
    TargetTimeEmbed,
    TimeEmbed,
    TwoLayer,
    dense,
    rope_tables,
    unpatch,
    valid_first,
)
from camctrl_jax.models.mmdit.stacking import equal_blocks, stack_name, unstack_layers
from camctrl_jax.models.placement import ONE_DEVICE, Placement, check_streams, join, join_tables, split
from camctrl_jax.models.remat import rematerialised

_zeros = nn.initializers.zeros


class _Tapped:
    """Video tokens [B, V, D] after the blocks whose numbers are wanted, as far as they have run."""

    def __init__(self, wanted: tuple[int, ...]) -> None:
        self.wanted = frozenset(wanted)
        self.found: dict[int, Array] = {}

    @property
    def complete(self) -> bool:
        """Whether something was wanted and all of it is there."""
        return bool(self.wanted) and self.wanted == self.found.keys()


class MMDiT(nn.Module):
    """The velocity network.

    Attributes:
        config: sizes and switches.
        dtype: compute dtype of matrix products and of the residual streams (float32 or bfloat16).
        placement: where intermediate values live; changes no number.
    """

    config: MMDiTConfig
    dtype: Any = jnp.float32
    placement: Placement = ONE_DEVICE

    @nn.compact
    def __call__(
        self,
        latents: Array,
        timesteps: Array,
        text: Array,
        text_mask: Array | None = None,
        plucker: Array | None = None,
        image: Array | None = None,
        retrieved: int = 0,
        until: Array | None = None,
        taps: tuple[int, ...] = (),
    ) -> Array | list[Array]:
        """Predict the velocity, or tell what stands between the blocks.

        Args:
            latents: [B, L, h, w, in_channels]: noisy latent | clean condition latent | mask.
            timesteps: f32 [B] in [0, 1].
            text: [B, N, text_dim] embeddings.
            text_mask: bool [B, N], true for valid tokens; None means all are.
            plucker: f32 [B, L, h, w, 6] (or [B, L, H, W, 6] for a camera of resolution 'pixel'). Zeros mean
              "no camera", which leaves the biases of the camera layers; None leaves the camera layers out.
            image: [B, I, image_dim] image-encoder features, or None.
            retrieved: how many latent frames at the front are retrieved ones, of any time outside the window
              that follows them: they have rotary times of their own, the window's are what they are alone.
            until: f32 [B] in [0, 1), the time that a step leads to, of a flow map; others do not read it.
            taps: numbers of blocks, from 1 for the first to ``config.depth`` for the last: the video tokens
              after these are returned in place of the velocity, and nothing after the last of them runs.

        Returns: f32 [B, L, h, w, out_channels]; with ``taps`` [B, V, D] in ``dtype`` for each.
        Raises: ValueError if shapes and configuration disagree.
        """
        config, dtype, place = self.config, self.dtype, self.placement
        grid = self._check(latents, text, plucker, image)
        if any(not 1 <= number <= config.depth for number in taps):
            raise InvalidValue(f"taps={taps}: expected numbers of blocks, from 1 to {config.depth}.")
        tapped = _Tapped(taps)
        if retrieved and (config.patch[0] != 1 or not 0 < retrieved < grid[0]):
            raise InvalidValue(
                f"{retrieved} of {grid[0]} latent frames are said to be retrieved ones: expected fewer than "
                f"all, and patches of one latent frame (config.patch is {config.patch})."
            )

        tokens = PatchEmbed(config.width, config.patch, dtype, name="x_embedder")(latents)  # [B, V, D]
        features, injected = None, {}
        if config.camera is not None and (plucker is not None or self.is_initializing()):
            added, features, injected = self._embed_camera(latents.shape[0], grid, plucker)
            tokens = tokens + added
        tokens = place.constrain(tokens.astype(dtype), "batch", "tokens", None)
        context, streams, lengths = self._embed_context(text, text_mask, image)
        streams = (tokens.shape[1], *streams)
        check_streams(dict(zip(("video", *("image",) * (len(streams) - 2), "text"), streams)), place.parts)

        time = TimeEmbed(config.width, name="time_text_embed")(timesteps)
        if config.target_time:
            if until is None and not self.is_initializing():
                raise InvalidValue(
                    "A flow map (config.target_time) answers for a whole step: say where it leads (until)."
                )
            until = timesteps if until is None else until
            time = time + TargetTimeEmbed(config.width, name="target_time_embed")(until)
        time = nn.silu(time)
        shared = SharedModulation(config, name="shared_modulation")(time) if config.shared_modulation else {}
        rope = rope_tables(grid, config.rope_axes, config.rope_theta, retrieved)
        video_tokens = streams[0]

        def conditioning(*others: int) -> Conditioning:
            """For video tokens followed by streams of these lengths, which have no position."""
            joint_rope = []
            for table, constant in zip(rope, (1.0, 0.0)):
                rest = [np.full((length, config.head_dim), constant, np.float32) for length in others]
                joint_rope.append(jnp.asarray(join_tables([table, *rest], place.parts)))
            key_lengths = None if lengths is None else lengths + sum(streams[:-1])
            video_rope = tuple(jnp.asarray(table) for table in rope)
            return Conditioning(time, shared, video_rope, tuple(joint_rope), key_lengths, lengths, features)

        video = tokens
        read = conditioning(*streams[1:])
        dual = self._run_layers(DualBlock, "transformer_blocks", range(config.num_dual), streams, tapped)
        video, context = dual((video, context), read, injected.get("dual"))
        first_decoder = config.num_single - config.num_decoder
        name = "single_transformer_blocks"
        if first_decoder and not tapped.complete:
            single = self._run_layers(SingleBlock, name, range(first_decoder), streams, tapped)
            video = single(join([video, context], place.parts), read, injected.get("single"))
        if config.num_decoder and not tapped.complete:
            indices = range(first_decoder, config.num_single)
            twice = (video_tokens, video_tokens)
            decoder = self._run_layers(SingleBlock, name, indices, twice, tapped, decoder=True)
            # The stream restarts from the patch embedding; what was computed so far becomes its context.
            video = decoder(join([tokens, video], place.parts), conditioning(video_tokens))
        if taps:
            return [place.constrain(tapped.found[number], "batch", "tokens", None) for number in taps]
        video = place.constrain(video, "batch", "tokens", None)

        video = OutputNorm(dtype, place, name="norm_out")(video, time)
        outputs = config.out_channels * int(np.prod(config.patch))
        video = dense(outputs, dtype, "proj_out", kernel_init=_zeros)(video)
        return unpatch(video.astype(jnp.float32), grid, config.patch)

    def init_params(self, rng: Array) -> dict:
        """Fresh parameters as a nested dict: adaLN-zero (the output is zero), camera layer zero. float32.

        They are the same whether or not ``config.scan_layers`` stacks them: equal layers are drawn in a scan.
        Drawn one by one, those of a large model take the compiler for a GPU minutes.
        """
        config = replace(self.config, scan_layers=True)
        latents = jnp.zeros((1, *config.patch, config.in_channels))
        text = jnp.zeros((1, 1, config.text_dim))

        # parent=None: a module made in a method is otherwise a part of the module that the method is of.
        alone = MMDiT(config, parent=None)

        @jax.jit  # so that the forward pass that init traces is dropped and only the initialisers run
        def draw(rng: Array) -> dict:
            params = alone.init(rng, latents, jnp.zeros(1), text)["params"]
            return params if self.config.scan_layers else unstack_layers(params, config)

        return draw(rng)

    def abstract_params(self) -> dict:
        """Shapes and dtypes of :meth:`init_params`, without computing anything."""
        return jax.eval_shape(self.init_params, jax.random.key(0))

    def _check(
        self, latents: Array, text: Array, plucker: Array | None, image: Array | None
    ) -> tuple[int, int, int]:
        """The token grid, after comparing every input with the configuration."""
        config = self.config
        size, patch = latents.shape[1:4], config.patch
        if latents.ndim != 5 or latents.shape[-1] != config.in_channels:
            raise InvalidValue(
                f"latents have shape {latents.shape}; expected [B, L, h, w, {config.in_channels}]."
            )
        if any(n % p for n, p in zip(size, patch)):
            raise InvalidValue(f"A latent grid of {size} cannot be cut into patches of {patch}.")
        if text.shape[-1] != config.text_dim:
            raise InvalidValue(
                f"text embeddings have {text.shape[-1]} channels; this model takes {config.text_dim}."
            )
        if image is not None and image.shape[-1] != config.image_dim:
            raise InvalidValue(
                f"image features have {image.shape[-1]} channels; this model takes {config.image_dim}."
            )
        grid = tuple(n // p for n, p in zip(size, patch))
        if plucker is not None:
            if config.camera is None:
                raise InvalidValue(
                    "A Pluecker map was given to a model without camera (config.camera is None)."
                )
            expected = (*(n * p for n, p in zip(grid, config.camera.patch)), PLUCKER_CHANNELS)
            if plucker.shape[1:] != expected:
                raise InvalidValue(
                    f"The Pluecker map has shape {plucker.shape}; latents of {latents.shape} and camera "
                    f"patches of {config.camera.patch} need [B, {', '.join(map(str, expected))}]."
                )
        return grid

    def _embed_camera(
        self, batch: int, grid: tuple[int, int, int], plucker: Array | None
    ) -> tuple[Array, Array | None, dict[str, CameraWeights | None]]:
        """(what is added to the video tokens, features and projections of the blocks that add them too)."""
        config = self.config
        if plucker is None:
            size = [n * p for n, p in zip(grid, config.camera.patch)]
            plucker = jnp.zeros((batch, *size, PLUCKER_CHANNELS))
        camera = CameraEmbed.of(config, self.placement, name="camera_embedder")
        features = camera.features(plucker)
        added = camera.tokens(features)
        if config.camera.injection == "first":
            return added, None, {}
        features = self.placement.constrain(features, "batch", "tokens", None)
        return added, features, {kind: camera.of_blocks(kind) for kind in ("dual", "single")}

    def _embed_context(
        self, text: Array, text_mask: Array | None, image: Array | None
    ) -> tuple[Array, tuple[int, ...], Array | None]:
        """(context tokens [B, M, D], lengths of the streams they are joined from, valid text tokens)."""
        config, dtype, place = self.config, self.dtype, self.placement
        lengths = None
        missing = -text.shape[1] % place.parts  # tokens that fill up the last part, and that nothing attends
        if missing:
            text_mask = jnp.ones(text.shape[:2], bool) if text_mask is None else text_mask
            text, text_mask = (
                jnp.pad(x, [(0, 0), (0, missing), (0, 0)][: x.ndim]) for x in (text, text_mask)
            )
        if text_mask is not None:
            text, lengths = valid_first(text, text_mask)
        embed = TwoLayer(config.width, lambda x: nn.gelu(x, approximate=True), dtype, name="context_embedder")
        context = embed(text.astype(dtype))  # [B, N, D]
        streams = (text.shape[1],)
        if config.image_dim is not None and (image is not None or self.is_initializing()):
            absent = image is None
            if absent:
                image = jnp.zeros((text.shape[0], 1, config.image_dim))
            embedded = ImageEmbed(config.width, dtype, name="image_embedder")(image)
            if not absent:
                streams = (image.shape[1], text.shape[1])
                context = join([embedded, context], place.parts)  # [B, M, D]
        return context, streams, lengths

    def _run_layers(
        self,
        block: type[nn.Module],
        name: str,
        indices: range,
        streams: tuple[int, ...],
        tapped: _Tapped,
        **attributes: Any,
    ) -> Callable[..., Any]:
        """A function (carry, conditioning, camera) -> carry that applies blocks ``name``_i for i in
        ``indices`` in order. Of single blocks it gives the first of ``streams``. ``camera`` are the blocks'
        projections of camera features, or None. ``tapped`` is handed what stands after the blocks it wants.
        """
        config, shape = self.config, (self.dtype, self.placement, streams)
        first = 1 if block is DualBlock else 1 + config.num_dual  # number of the block with index 0
        alone = rematerialised(block, config.remat, scanned=False)
        equal = equal_blocks(indices) if block is SingleBlock else indices

        def scanned(camera: CameraWeights | None) -> nn.Module:
            layers = nn.scan(
                rematerialised(block, config.remat, scanned=True),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast if camera is None else (nn.broadcast, 0),
                length=len(equal),
            )
            return layers(config, *shape, name=stack_name(name, equal), **attributes)

        def tap(index: int, carry: Any) -> None:
            if first + index not in tapped.wanted:
                return
            if block is SingleBlock and index in equal:
                lengths = (streams[0], sum(streams[1:]))
                tapped.found[first + index] = split(carry, lengths, self.placement.parts)[0]
            else:  # a narrow block gives the video alone
                tapped.found[first + index] = carry[0] if block is DualBlock else carry

        def in_pieces(carry: Any, conditioning: Conditioning, camera: CameraWeights | None) -> Any:
            """The scan, interrupted where something is to be tapped."""
            stacked = self.get_variable("params", stack_name(name, equal)), camera
            layer = rematerialised(block, config.remat, scanned=True)(
                config, *shape, parent=None, **attributes
            )

            def body(carry: Any, weights: Any) -> tuple[Any, None]:
                params, *rest = weights if camera is not None else weights[:1]
                return layer.apply({"params": params}, carry, conditioning, *rest)

            ends = [i + 1 for i in equal if first + i in tapped.wanted]
            for start, stop in itertools.pairwise(sorted({equal.start, *ends, equal.stop})):
                part = slice(start - equal.start, stop - equal.start)
                carry, _ = jax.lax.scan(body, carry, jax.tree.map(lambda x, part=part: x[part], stacked))
                tap(stop - 1, carry)
            return carry

        def run(carry: Any, conditioning: Conditioning, camera: CameraWeights | None = None) -> Any:
            def of(part: int | slice) -> tuple[CameraWeights, ...]:
                """The last argument of blocks, counted from the first of ``indices``; none without camera."""
                return () if camera is None else (jax.tree.map(lambda weights: weights[part], camera),)

            rest = indices
            if config.scan_layers and equal:
                if any(first + i in tapped.wanted for i in equal):
                    weights = of(slice(len(equal)))
                    carry = in_pieces(carry, conditioning, weights[0] if weights else None)
                else:
                    carry, _ = scanned(camera)(carry, conditioning, *of(slice(len(equal))))
                rest = indices[len(equal) :]
            for i in rest:
                narrow = {} if i in equal else {"narrow": True}
                layer = alone(config, *shape, name=f"{name}_{i}", **narrow, **attributes)
                carry, _ = layer(carry, conditioning, *of(i - indices.start))
                tap(i, carry)
            return carry

        return run
