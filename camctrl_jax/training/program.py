"""What a run computes, before it has any arrays: model, step, and where every array of its state lives.

``train.py`` runs it; ``camctrl_jax.parallel.report`` compiles the same thing for machines that are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from camctrl_jax.compiler import compiler_options
from camctrl_jax.models import VAE, MMDiT, VAEConfig
from camctrl_jax.models.placement import Placement
from camctrl_jax.parallel.activations import placement_of
from camctrl_jax.parallel.sharding import ShardingRules, batch_sharding, batch_shards
from camctrl_jax.training.autoencode import (
    ENCODER_PARTS,
    AutoencodeConfig,
    init_discriminators,
    make_autoencode_step,
)
from camctrl_jax.training.config import ConfigError, RunParts, autoencode_config, run_parts
from camctrl_jax.training.denoise import DenoiseConfig, make_denoise_step
from camctrl_jax.training.layers import stack_state, unstack_state
from camctrl_jax.training.optimizer import make_optimizer
from camctrl_jax.training.state import Params, StepFunction, TrainState, create_state


@dataclass(frozen=True)
class Program:
    """The pieces of a run.

    Attributes:
        parts: frozen settings.
        mesh: the devices.
        vae: the autoencoder: frozen in a denoising run, else the model itself.
        model: what is trained, one entry per layer; for sampling as well as for initialisation.
        step: ``(state, batch, rng, frozen) -> (state, metrics)``, not yet jitted.
        create: ``(parameters with one entry per layer, key) -> state`` in the form of the step.
    """

    parts: RunParts
    mesh: Mesh
    vae: VAE
    model: MMDiT | VAE
    step: StepFunction
    create: Callable[[Params, Array], TrainState]

    @property
    def scanned(self) -> bool:
        """Whether the step holds layers stacked."""
        return getattr(self.parts.model, "scan_layers", False)

    def fresh_params(self, key: Array) -> Params:
        """Initial parameters, one entry per layer."""
        return self.model.init_params(key)

    @cached_property
    def abstract_params(self) -> Any:
        """Shapes and dtypes of the parameters, one entry per layer."""
        return jax.eval_shape(self.fresh_params, _key())

    @cached_property
    def abstract_state(self) -> Any:
        """Shapes and dtypes of the state, in the form of the step."""
        return jax.eval_shape(lambda key: self.create(self.fresh_params(key), key), _key())

    @cached_property
    def shardings(self) -> Any:
        """Where the state lives, in the form of the step."""
        return ShardingRules().shardings(self.abstract_state, self.mesh)

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of what every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @cached_property
    def jitted_step(self) -> Any:
        """The step under ``jax.jit``: the state is donated and stays where it is."""
        return jax.jit(
            self.step,
            donate_argnums=0,
            out_shardings=(self.shardings, self.everywhere),
            compiler_options=compiler_options(self.mesh.devices.flat[0].platform),
        )

    @cached_property
    def stored_state(self) -> Any:
        """Shapes and dtypes of the state as checkpoints hold it: one entry per layer."""
        if not self.scanned:
            return self.abstract_state
        return jax.eval_shape(partial(unstack_state, config=self.parts.model), self.abstract_state)

    @cached_property
    def stored_shardings(self) -> Any:
        """Where a state lies that comes from, or goes to, a checkpoint."""
        return ShardingRules().shardings(self.stored_state, self.mesh)

    @cached_property
    def to_stored(self) -> Callable[[TrainState], TrainState]:
        """From the form of the step to that of checkpoints."""
        if not self.scanned:
            return lambda state: state
        unstack = partial(unstack_state, config=self.parts.model)
        return jax.jit(unstack, out_shardings=self.stored_shardings)

    @cached_property
    def from_stored(self) -> Callable[[TrainState], TrainState]:
        """From the form of checkpoints to that of the step."""
        if not self.scanned:
            return lambda state: state
        stack = partial(stack_state, config=self.parts.model)
        return jax.jit(stack, out_shardings=self.shardings)

    def abstract_batch(self, batch: dict[str, tuple[tuple[int, ...], Any]]) -> dict[str, Any]:
        """``{name: (global shape, dtype)}`` as arguments to lower the step with."""
        return {
            name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(name, shape, self.mesh))
            for name, (shape, dtype) in batch.items()
        }


def build_program(
    config: ConfigDict, mesh: Mesh, vae_config: VAEConfig | None = None, placement: Placement | None = None
) -> Program:
    """The program of a configuration on a mesh.

    Args:
        config: checked by ``check_config``.
        mesh: over all devices of the run.
        vae_config: sizes of the frozen autoencoder of a denoising run.
        placement: where the transformer's intermediate values live; None is what the mesh says.

    Raises:
        ConfigError: batches that the mesh, or ``config.accumulate``, cannot split.
    """
    parts = run_parts(config)
    shards = batch_shards(mesh) * config.accumulate
    for size in (config.batch_size, config.data.image_batch):
        if size % shards:
            times = "" if config.accumulate == 1 else f" in {config.accumulate} turns (config.accumulate)"
            raise ConfigError(
                f"a batch of {size} cannot be split into the {batch_shards(mesh)} parts of mesh.data x "
                f"mesh.fsdp{times}; choose a multiple of {shards} for config.batch_size (and "
                "data.image_batch)"
            )
    dtype = jnp.dtype(config.dtype)
    if config.objective == "denoise":
        if placement is None:
            placement = placement_of(mesh, parts.mesh.context_attention)
        return _denoiser(config, parts, mesh, VAE(vae_config, dtype), dtype, placement)
    settings = autoencode_config(config)
    vae = VAE(parts.model, dtype, remat=config.model.remat != "none")
    frozen = () if settings.train_encoder else ENCODER_PARTS
    optimizer = make_optimizer(parts.optimizer, config.steps, frozen)
    adversary = make_optimizer(parts.optimizer, config.steps)
    step = make_autoencode_step(vae, optimizer, settings, adversary)
    create = partial(_autoencoder_state, settings=settings, optimizer=optimizer, adversary=adversary)
    return Program(parts, mesh, vae, vae, step, create)


def _denoiser(
    config: ConfigDict, parts: RunParts, mesh: Mesh, vae: VAE, dtype: Any, placement: Placement
) -> Program:
    optimizer = make_optimizer(parts.optimizer, config.steps)
    settings = DenoiseConfig(parts.flow, config.ema_decay, config.vae.encode_chunk, config.accumulate)
    step = make_denoise_step(MMDiT(parts.model, dtype, placement), optimizer, settings, vae)

    def create(params: Params, key: Array) -> TrainState:
        del key
        if parts.model.scan_layers:
            params = stack_state(params, parts.model)
        return create_state(params, optimizer)

    return Program(parts, mesh, vae, MMDiT(replace(parts.model, scan_layers=False), dtype), step, create)


def _autoencoder_state(
    params: Params,
    key: Array,
    *,
    settings: AutoencodeConfig,
    optimizer: optax.GradientTransformation,
    adversary: optax.GradientTransformation,
) -> TrainState:
    if settings.adversarial == 0:
        return create_state(params, optimizer)
    return create_state(params, optimizer, (init_discriminators(settings, key), adversary))


def _key() -> Array:
    return jax.eval_shape(lambda: jax.random.key(0, impl="unsafe_rbg"))
