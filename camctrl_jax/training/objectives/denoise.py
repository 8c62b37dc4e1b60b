"""Denoising: labelled and unlabelled clips together, one velocity regression.

Axes: B batch, T frames, L latent frames, h w latent height and width, C latent channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from camctrl_jax.camera import Cameras
from camctrl_jax.checkpoints.architecture import Architecture, clip_of
from camctrl_jax.checkpoints.weights import Weights, load_vae, open_vae, open_weights
from camctrl_jax.clip_shape import ClipShape, latents_of
from camctrl_jax.data.stream import Batch
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.data.text import TextEmbedder
from camctrl_jax.diffusion.condition import Condition, camera_condition
from camctrl_jax.diffusion.flow import FlowConfig, generation_loss, interpolate, sample_times, velocity_target
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.interop.described import SamplingDefaults
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.metrics.worlds_scores import FIRST_SCORED_FRAME
from camctrl_jax.models import VAE, MMDiT, MMDiTConfig, VAEConfig
from camctrl_jax.models.autoencoder import Autoencoder, compute_dtype, encode_video
from camctrl_jax.models.flops import mmdit_flops
from camctrl_jax.models.placement import ONE_DEVICE, Placement
from camctrl_jax.parallel.activations import placement_of
from camctrl_jax.parallel.sharding import whole
from camctrl_jax.sampling.pipeline import ClipBatch, Denoiser, Pipeline
from camctrl_jax.training.condition_errors import (
    ConditionConfig,
    ErrorBank,
    bank_of,
    errors_of,
    name_of,
    noised,
)
from camctrl_jax.training.input_settings import embedder_of
from camctrl_jax.training.objective import Frozen, Metrics, Objective, Preview, PreviewClips, Work
from camctrl_jax.training.state import Params, TrainState, create_state
from camctrl_jax.training.update import Aside, Examples, Update
from camctrl_jax.training.values import ConfigError, mmdit_config, require, untrained_vae, update_of
from camctrl_jax.training.world_sets import reference_of, retrieved_of, views_of

AUTOENCODER = "autoencoder"  # the role of the frozen VAE
ERRORS = "condition_errors"  # the role of the error bank in what a state keeps

# Fields of a batch that the loss reads beside latents.
_READ = ("world_from_camera", "intrinsics", "camera_valid", "condition_mask", "text", "text_mask")
_READ += ("retrieved_latents", "retrieved_world_from_camera", "retrieved_intrinsics")
# Folded into a step's key for random numbers beside times and noise.
_DISTURBANCE_KEY, _BANK_KEY = 2, 3
# What a transformer computes depends on these, but the shapes of its parameters do not tell them.
_SIZES_WITHOUT_SHAPE = ("heads", "rope_axes", "rope_theta", "num_decoder")
# Bytes of a half-precision value, and how many widths of it per token every pass over a block moves, about.
_HALF, _WIDTHS, _HIDDEN_WIDTHS = 2.0, 12, 4


@dataclass(frozen=True)
class Shown:
    """How samples of a model in training are drawn, and the clips that it is trained on."""

    sampling: Sampling
    defaults: SamplingDefaults


@dataclass(frozen=True)
class Denoise(Objective):
    """Regression of the velocity of rectified flow.

    Batches have the fields of ``camctrl_jax.data.stream``; if they hold ``video`` instead of ``latents``,
    the frozen VAE encodes it inside the step. An image is a clip of one frame.

    Frames retrieved from elsewhere in the videos (``retrieved_latents``) are given beside each window.

    Metrics beside the loss: that of clips whose camera the model sees (``loss_labelled``) and that of those
    without one (``loss_unlabelled``: no labels, or dropped).

    Attributes:
        update: how gradients become parameters.
        model: sizes and switches of the transformer.
        vae: sizes of the frozen autoencoder.
        flow: distribution of training times.
        disturbance: noise on given latents.
        bank: errors of the model on given latents, or None.
        dtype: of matrix products and convolutions.
        placement: where the transformer's intermediate values live.
        encode_chunk: clips that the VAE encodes at a time inside a step; 0 encodes all at once.
        resident_latents: whether what is rendered into device memory is encoded before it is trained on.
        vae_spec: weights spec of the autoencoder; 'random' is an untrained one.
        embedder: of texts.
        shown: for previews.
    """

    update: Update
    model: MMDiTConfig
    vae: VAEConfig
    flow: FlowConfig = field(default_factory=FlowConfig)
    disturbance: ConditionConfig = field(default_factory=ConditionConfig)
    bank: ErrorBank | None = None
    dtype: Any = jnp.float32
    placement: Placement = ONE_DEVICE
    encode_chunk: int = 0
    resident_latents: bool = True
    vae_spec: str = "random"
    embedder: TextEmbedder | None = None
    shown: Shown | None = None

    @property
    def scanned(self) -> MMDiTConfig | None:
        """The transformer, where its layers are stacked."""
        return self.model if self.model.scan_layers else None

    @property
    def reads_cameras(self) -> bool:
        """Whether the model has a camera."""
        return self.model.camera is not None

    def init(self, key: Array) -> Params:
        """Fresh parameters of the transformer, one entry per layer."""
        return MMDiT(replace(self.model, scan_layers=False), self.dtype).init_params(key)

    def state(self, params: Params, key: Array) -> TrainState:
        """A state at step 0, its error bank empty."""
        del key
        kept = {} if self.bank is None else {ERRORS: self.bank.empty()}
        return create_state(params, self.update.optimizer, kept=kept)

    def step(self, state: TrainState, batch: Batch, rng: Array, frozen: Frozen) -> tuple[TrainState, Metrics]:
        """One update; with an error bank, errors go into it and come out of it on the way."""
        if self.bank is None:
            return super().step(state, batch, rng, frozen)
        key = jax.random.fold_in(rng, state.step)
        examples = self.examples(batch, key, frozen)
        inputs, banks = examples.inputs, state.kept[ERRORS]
        _, latents, *grid, _ = inputs["latents"].shape
        name = name_of(tuple(grid))
        if latents == 1 or name not in banks:
            return super().step(state, batch, rng, frozen)
        use_key, place_key = jax.random.split(jax.random.fold_in(key, _BANK_KEY))
        inputs = self.bank.disturbed(banks[name], inputs, use_key)
        inputs["error_position"] = jax.random.uniform(place_key, inputs["time"].shape)
        examples = replace(examples, inputs=inputs)
        state, aside, metrics = self.update.minimise(state, partial(self.loss, frozen=frozen), examples)
        per_sample, errors = aside.samples
        given = inputs["condition_mask"]
        learned = self.bank.learned(
            banks[name], errors, inputs["time"], given.any(axis=1) & jnp.logical_not(given.all(axis=1))
        )
        state = replace(state, kept={ERRORS: banks | {name: learned}})
        return state, metrics | self.metrics(Aside(samples=per_sample), batch)

    def examples(self, batch: Batch, key: Array, frozen: Frozen) -> Examples:
        """Latents with times and noise, and what the condition is made of; latents to generate weigh.

        Noise and times of the window do not depend on what is retrieved.
        """
        if "latents" in batch:
            latents = batch["latents"].astype(jnp.float32)
        else:
            with jax.named_scope("encode_video"):
                vae = VAE(self.vae, self.dtype)
                latents = encode_video(vae, frozen[AUTOENCODER], batch["video"], clips=self.encode_chunk)
        time_key, noise_key = jax.random.split(key)
        tokens = int(np.prod(latents.shape[1:4])) // int(np.prod(self.model.patch))
        inputs = {name: batch[name] for name in _READ if name in batch} | {
            "latents": latents,
            **self.times(time_key, latents.shape[0], tokens),
            "noise": jax.random.normal(noise_key, latents.shape, jnp.float32),
        }
        if "retrieved_latents" in inputs:
            shape = inputs["retrieved_latents"].shape
            noise = jax.random.normal(jax.random.fold_in(noise_key, 1), shape, jnp.float32)
            inputs["noise"] = jnp.concatenate([noise, inputs["noise"]], axis=1)
        if self.disturbance.noise:
            inputs = noised(inputs, self.disturbance.noise, jax.random.fold_in(key, _DISTURBANCE_KEY))
        mask = batch["condition_mask"]
        return Examples(inputs, mask.shape[-1] - mask.sum(axis=-1))

    def times(self, key: Array, count: int, tokens: int) -> dict[str, Array]:
        """The ``time`` f32 [B] of every sample, of ``tokens`` video tokens, and what else belongs to it."""
        return {"time": sample_times(key, count, tokens, self.flow)}

    def measure(self, params: Params, batch: Batch, key: Array, frozen: Frozen) -> Metrics:
        """As in training, but what is given is not disturbed, so that values of all runs compare."""
        undisturbed = replace(self, disturbance=ConditionConfig())
        return super(Denoise, undisturbed).measure(params, batch, key, frozen)

    def condition(self, inputs: Mapping[str, Array]) -> Condition:
        """What the model is told of some examples."""
        plucker, retrieved = None, inputs.get("retrieved_latents")
        if self.model.camera is not None:
            frames = inputs["world_from_camera"].shape[1]
            stride = self.vae.spatial_stride
            height, width = (side * stride for side in inputs["latents"].shape[2:4])
            plucker = camera_condition(
                inputs["world_from_camera"],
                inputs["intrinsics"],
                inputs["camera_valid"],
                self.vae.clip_shape(frames, height, width),
                self.model.camera,
                None
                if retrieved is None
                else (inputs["retrieved_world_from_camera"], inputs["retrieved_intrinsics"]),
            )
        text, clean = (inputs["text"], inputs["text_mask"]), (inputs["latents"], inputs["condition_mask"])
        window = Condition(*text, plucker, *clean, until=inputs.get("until"))
        if retrieved is None:
            return window
        given = jnp.ones(retrieved.shape[:2], bool)
        return replace(
            window,
            clean=jnp.concatenate([retrieved.astype(jnp.float32), window.clean], axis=1),
            mask=jnp.concatenate([given, window.mask], axis=1),
            retrieved=retrieved.shape[1],
        )

    def target(
        self, inputs: Mapping[str, Array], condition: Condition, noisy: Array, frozen: Frozen
    ) -> Array:
        """What the model is to answer at ``noisy``, f32 [B, R + L, h, w, C]."""
        del noisy, frozen
        return velocity_target(condition.clean, inputs["noise"])

    def loss(self, params: Params, inputs: Mapping[str, Array], frozen: Frozen) -> tuple[Array, Aside]:
        """Mean squared error of the velocity over latents to generate, and that of every sample, f32 [B]."""
        condition = self.condition(inputs)  # its clean latents are of retrieved frames and the whole window
        denoiser = Denoiser(self.model, self.dtype, self.placement)
        noisy = interpolate(condition.clean, inputs["noise"], inputs["time"])
        velocity = denoiser(params, noisy, inputs["time"], condition)
        target = jax.lax.stop_gradient(self.target(inputs, condition, noisy, frozen))
        loss, per_sample = generation_loss(velocity, target, condition.mask)
        if "error_position" not in inputs:
            return loss, Aside(samples=per_sample)
        window = slice(condition.retrieved, None)
        errors = errors_of(
            velocity[:, window],
            target[:, window],
            inputs["time"],
            inputs["condition_mask"],
            inputs["error_position"],
        )
        return loss, Aside(samples=(per_sample, errors))

    def metrics(self, aside: Aside, batch: Batch) -> Metrics:
        """The loss of samples with a camera and of those without."""
        labelled = batch["camera_valid"]
        return {
            "loss_labelled": jnp.mean(aside.samples, where=labelled),
            "loss_unlabelled": jnp.mean(aside.samples, where=jnp.logical_not(labelled)),
        }

    def frozen(self) -> dict[str, Params]:
        """The autoencoder's parameters."""
        if self.vae_spec == "random":
            return {AUTOENCODER: VAE(self.vae).init_params(jax.random.key(0, impl="unsafe_rbg"))}
        return {AUTOENCODER: load_vae(self.vae_spec)[1]}

    def frozen_shapes(self) -> dict[str, Any]:
        """Shapes and dtypes of the autoencoder's parameters."""
        return {AUTOENCODER: VAE(self.vae).abstract_params()}

    def encoder(self, frozen: Frozen) -> Autoencoder | None:
        """The autoencoder, for what is encoded before it is trained on."""
        if not self.resident_latents:
            return None
        return Autoencoder(self.vae, frozen[AUTOENCODER], compute_dtype(), batch_size=16)

    def check_start(self, spec: str) -> None:
        """Raises: ConfigError if the transformer of this weights spec was made for other sizes, texts or
        latents, or is a student, for this objective.
        """
        weights = open_weights(spec)
        self.check_distilled(weights)
        for name in _SIZES_WITHOUT_SHAPE if weights.mmdit_config is not None else ():
            theirs, ours = getattr(weights.mmdit_config, name), getattr(self.model, name)
            if theirs != ours:
                raise ConfigError(
                    f"the model of this run (config.model.preset) has {name}={ours}, the weights of "
                    f"config.init_from={spec!r} were made with {theirs}; --config.model.preset=init_from "
                    "takes the sizes from the weights"
                )
        self.check_inputs_of(weights, "config.init_from")

    def starting_params(self, spec: str, mesh: Mesh) -> Params:
        """The transformer of a weights spec that :meth:`check_start` lets through."""
        self.check_start(spec)
        return open_weights(spec).mmdit_params(mesh=mesh)

    def check_distilled(self, weights: Weights) -> None:
        """Raises: ConfigError if these weights to start from are a student, with which this would do away."""
        student = weights.distilled
        if student is not None:
            raise ConfigError(
                f"config.init_from={weights.spec!r} is a student ({student.method}, {student.valid_steps[0]} "
                f"steps, guidance {dict(student.guidance_folded)} folded in), and a denoising run would "
                "unlearn it: start from its teacher, or distil further with configs/distill_progressive.py"
            )

    def check_inputs_of(self, weights: Weights, key: str) -> None:
        """Raises: ConfigError that names ``key`` if a transformer was trained with another text embedder, or
        on latents of another autoencoder, than this run's.
        """
        settings = self.embedder.settings()
        # Of weights from elsewhere nothing is known about their text.
        if weights.text and dict(weights.text) != settings:
            raise ConfigError(
                f"{key}={weights.spec!r} was trained with the text embedder {dict(weights.text)}, this "
                f"run has {settings}; set --config.data.text.* alike"
            )
        theirs = weights.vae_spec
        if theirs in (None, "random", self.vae_spec):
            return
        other = open_vae(theirs)
        own = None if self.vae_spec == "random" else open_vae(self.vae_spec)
        if own is None or other.vae_config != own.vae_config:
            raise ConfigError(
                f"{key}={weights.spec!r} was trained on latents of the autoencoder {theirs!r}, "
                f"this run has config.vae.weights={self.vae_spec!r}; use --config.vae.weights={theirs}"
            )

    def describe(
        self, state: TrainState, probe: Callable[[int], Iterable[Any]], before: Architecture | None
    ) -> Architecture:
        """The transformer, its text and its clips, and where its autoencoder is found."""
        spec = self.vae_spec  # a path has to be found from any working directory
        return Architecture(
            mmdit=self.model,
            text=self.embedder.settings(),
            clip=clip_of(self.shown.defaults),
            vae_spec=str(Path(spec).absolute()) if Path(spec).exists() else spec,
        )

    def preview(self, clips: PreviewClips, frozen: Frozen, mesh: Mesh) -> Callable[[Params], Preview]:
        """Image-to-video from the first frame of held-out clips along their true path; ``sample_psnr`` in
        dB.
        """
        truth = clips.batch["video"]
        pipeline = Pipeline(
            autoencoder=Autoencoder(self.vae, frozen[AUTOENCODER], self.dtype, batch_size=1),
            denoiser=Denoiser(replace(self.model, scan_layers=False), self.dtype),
            params={},
            embedder=self.embedder,
            defaults=self.shown.defaults,
            mesh=mesh,
        )
        batch = ClipBatch(
            prompts=clips.captions,
            seeds=range(len(truth)),
            shape=self.vae.clip_shape(*truth.shape[1:4]),
            cameras=[
                Cameras(poses.astype(np.float64), intrinsics.astype(np.float64))
                for poses, intrinsics in zip(clips.batch["world_from_camera"], clips.batch["intrinsics"])
            ],
            condition=truth[:, :1],
        )
        scored = slice(min(FIRST_SCORED_FRAME, truth.shape[1] - 1), None)

        def show(params: Params) -> Preview:
            latents = replace(pipeline, params=params).sample(batch, self.shown.sampling)
            video = whole(pipeline.autoencoder.decoded(latents))
            score = float(psnr(video[:, scored], truth[:, scored]).mean())
            return Preview(video, truth, {"sample_psnr": score})

        return show

    def work(self, batch: Mapping[str, Any]) -> Work:
        """Of the transformer; what the autoencoder takes is not in it."""
        model, (count, text) = self.model, batch["text"].shape[:2]
        if "latents" in batch:
            grid = batch["latents"].shape[1:4]
        else:
            grid = self.vae.clip_shape(*batch["video"].shape[1:4]).latent_shape
        if "retrieved_latents" in batch:
            grid = (grid[0] + batch["retrieved_latents"].shape[1], *grid[1:])
        one = mmdit_flops(model, grid, text)
        tokens = int(np.prod(grid)) // int(np.prod(model.patch)) + text
        moved = _HALF * count * tokens * (model.num_dual + model.num_single)
        return Work(
            flops=count * one.training,
            recomputed=count * one.recomputed(model.remat),
            passes=3 if model.remat == "none" else 4,
            activations=moved * _WIDTHS * model.width,
            hidden_activations=moved * _HIDDEN_WIDTHS * model.mlp_dim,
        )


def settings() -> dict[str, dict[str, Any]]:
    """The groups of ``config`` that are this objective's, with their defaults."""
    return {
        "flow": dataclasses.asdict(FlowConfig()) | {"shift": placeholder(float)},  # None: from the tokens
        # What given latents are disturbed with, so that a model goes on from frames of its own.
        "condition": dataclasses.asdict(ConditionConfig()),
        # The frozen autoencoder.
        "vae": {
            "weights": "default",  # as init_from; 'random' is an untrained one, for tests
            "encode_chunk": 16,  # clips encoded at a time inside a step, where batches hold video
        },
    }


def check(config: ConfigDict) -> None:
    """Raises: ConfigError for settings of this objective that cannot work."""
    require(
        config,
        config.vae.weights != "",
        "vae.weights",
        "a denoising run needs an autoencoder, e.g. 'default'",
    )
    require(config, config.vae.encode_chunk >= 0, "vae.encode_chunk", "expected 0 (all at once) or more")
    FlowConfig(**config.flow)
    ConditionConfig(**config.condition)
    mmdit_config(config)
    if config.vae.weights == "random":
        untrained_vae(config)


def _check_disturbance(config: ConfigDict) -> None:
    """Raises: ConfigError for given latents that are to be disturbed where none ever are."""
    most = max(_most_given(view) for view in views_of(config).values())
    for name, least, kind in (("noise", 1, "starts from frames"), ("error_bank", 2, "is extended")):
        require(
            config,
            not config.condition[name] or most >= least,
            f"condition.{name}",
            f"no sample of this run {kind} (config.tasks), so there is nothing to disturb: expected 0",
        )


def _most_given(config: ConfigDict) -> int:
    """How many latents a sample is given at most."""
    tasks, room = TaskConfig(**config.tasks), latents_of(config.data.frames) - 1  # one is left to generate
    low, high = tasks.extension_latents
    if tasks.extension > 0 and min(high, room) >= low:
        return min(high, room)
    return min(room, 1) if tasks.i2v + tasks.extension > 0 else 0


def build(config: ConfigDict, mesh: Mesh, placement: Placement | None = None) -> Denoise:
    """The objective of a configuration; see ``build_objective``."""
    _check_disturbance(config)
    model, flow = mmdit_config(config), FlowConfig(**config.flow)
    vae = untrained_vae(config) if config.vae.weights == "random" else open_vae(config.vae.weights).vae_config
    data, sample = config.data, config.sample
    shape = ClipShape(data.frames, data.height, data.width)
    defaults = SamplingDefaults(
        data.frames,
        data.height,
        data.width,
        data.fps,
        flow.shift,
        sample.text_guidance,
        sample.camera_guidance,
        retrieved_of(config),
        reference_of(config),
    )
    disturbance = ConditionConfig(**config.condition)
    views = views_of(config).values()
    sizes = [(view.data.frames, view.data.height, view.data.width) for view in views]
    grids = [vae.latent_shape(*size)[1:3] for size in sizes]
    return Denoise(
        update=update_of(config),
        model=model,
        vae=vae,
        flow=flow,
        disturbance=disturbance,
        bank=bank_of(disturbance, grids, vae.z_dim),
        dtype=jnp.dtype(config.dtype),
        placement=placement_of(mesh, config.mesh.context_attention) if placement is None else placement,
        encode_chunk=config.vae.encode_chunk,
        resident_latents=data.worlds.encode or data.kind != "worlds",
        vae_spec=config.vae.weights,
        embedder=embedder_of(config),
        shown=Shown(
            Sampling(
                Guidance(sample.text_guidance, sample.camera_guidance),
                sample.steps,
                flow.shift_of(shape.tokens(model.patch)),
            ),
            defaults,
        ),
    )
