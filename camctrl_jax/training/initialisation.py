"""Where a run starts: its own newest checkpoint, ``config.init_from``, or scratch, in this order."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import jax
from jax import Array
from ml_collections import ConfigDict

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.runs import (
    CHECKPOINTS,
    Checkpoints,
    check_same_shapes,
    flat_shapes,
    latest_step,
    load_run_config,
)
from camctrl_jax.checkpoints.weights import WeightsError, open_vae, open_weights
from camctrl_jax.models.roles import ADDED_PARTS, OPTIONAL_PARTS
from camctrl_jax.parallel.sharding import distribute, shardings_of
from camctrl_jax.training.objective import Objective
from camctrl_jax.training.program import Program
from camctrl_jax.training.state import Params, TrainState
from camctrl_jax.training.values import FROM_WEIGHTS, UNTRAINED, ConfigError, fill_in_sizes


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        state: in the form of the step, on the mesh.
        step: finished updates.
        position: of the input stream, or None at the beginning.
        origin: where the parameters come from, for people.
        architecture: what they were there, or None.
    """

    state: TrainState
    step: int
    position: dict | None
    origin: str
    architecture: Architecture | None


def take_sizes(config: ConfigDict, workdir: str | Path | None) -> None:
    """Fill in what ``config.model.preset='init_from'`` stands for; other presets have sizes of their own.

    A run that has a checkpoint is what it was, whatever has become of the weights that it started from.

    Raises:
        ConfigError: ``config.init_from`` names no transformer, or one that does not fit the rest.
    """
    if config.model.preset != FROM_WEIGHTS:
        return
    if workdir and latest_step(workdir) is not None:
        built, source = _own_architecture(workdir), f"the checkpoint in {workdir}"
        sizes = None if built is None else built.mmdit
    else:
        source = f"config.init_from={config.init_from!r}"
        sizes = open_weights(config.init_from).mmdit_config if config.init_from else None
    if sizes is None:
        raise ConfigError(
            f"config.model.preset='{FROM_WEIGHTS}' takes the sizes of {source}, which names no transformer; "
            "name a diffusers folder, a checkpoint or a weights folder"
        )
    fill_in_sizes(config, sizes, source)


def _own_architecture(workdir: str | Path) -> Architecture | None:
    built = load_run_config(workdir).get("architecture")
    return None if built is None else Architecture.from_json(built)


def check_start(config: ConfigDict, objective: Objective, workdir: Path) -> None:
    """Compare what a run starts from with the run, by configurations: before parameters of anything are read.

    Raises:
        ConfigError: they do not belong together.
        WeightsError: ``config.init_from`` names nothing.
    """
    step = latest_step(workdir)
    if step is None:
        spec = config.init_from or objective.begins_as
        if spec:
            objective.check_start(spec)
    elif step > 0:  # step 0 is imported weights, which restoring refuses
        saved = load_run_config(workdir)
        objective.check_resumed(_own_architecture(workdir), saved, f"the checkpoint in {workdir}")


def start_of(config: ConfigDict, program: Program, checkpoints: Checkpoints, workdir: Path) -> Start:
    """The state that a run starts from.

    Raises:
        CheckpointError: a checkpoint that is damaged, or of another model.
        ConfigError, WeightsError: ``config.init_from`` names nothing that fits.
    """
    step = checkpoints.latest_step()
    # Step 0 is imported weights, which restoring refuses: training here would in time delete them.
    if step is not None:
        state, position = checkpoints.restore(program.stored_state, program.stored_shardings)
        origin = f"{workdir / CHECKPOINTS / str(step)}"
        return Start(program.from_stored(state), step, position, origin, _own_architecture(workdir))
    # The generator of the initialisation is the one that compiles fast: threefry takes a minute on a laptop.
    key = jax.random.key(config.seed, impl="unsafe_rbg")
    given, new, origin, architecture = {}, set(program.abstract_params), "scratch", None
    spec = config.init_from or program.objective.begins_as
    if spec:
        origin = f"config.init_from={spec!r}" if config.init_from else f"its teacher, {spec!r}"
        if spec != UNTRAINED:
            architecture = _architecture_of(spec)
        loaded = program.objective.starting_params(spec, program.mesh)
        given, new = take_over(program.abstract_params, loaded, origin)
        origin += f" (new: {', '.join(sorted(new))})" if new else ""
    return Start(_created(program, given, new, key), 0, None, origin, architecture)


def _architecture_of(spec: str) -> Architecture:
    opened = open_weights(spec)
    vae = opened.vae_config
    if vae is None:  # a run of the transformer stands for its autoencoder
        with contextlib.suppress(WeightsError):
            vae = open_vae(spec).vae_config
    return Architecture(vae, opened.mmdit_config, distilled=opened.distilled)


def _created(program: Program, given: Params, new: set[str], key: Array) -> TrainState:
    """The state of parameters that are ``given``, those of the top-level names ``new`` drawn from ``key``."""
    homes = shardings_of(program.abstract_params, program.mesh)
    # A jit that returns only what is drawn compiles only that.
    draw = jax.jit(
        lambda key: {name: part for name, part in program.objective.init(key).items() if name in new},
        out_shardings={name: homes[name] for name in new},
    )
    drawn = draw(key) if new else {}
    given = distribute(given, {name: homes[name] for name in given})
    # Donated, so that a large model is not held a second time. Not where layers get stacked: nothing can
    # take over their buffers, and JAX warns of each.
    donated = () if program.objective.scanned is not None else (0,)
    others = program.objective.starting_others(program.mesh)
    others = distribute(others, shardings_of(others, program.mesh))
    create = jax.jit(program.create, donate_argnums=donated, out_shardings=program.shardings)
    return create(given | drawn, key, others)


def take_over(wanted: Params, loaded: Params, origin: str) -> tuple[Params, set[str]]:
    """What a model takes over from existing weights.

    The camera layer may be missing from the source (a base model was trained without); its own zero
    initialisation then begins as exactly the base. Camera weights that this model has no layer for are left
    out; nothing else is.

    Args:
        wanted: parameters of the model of this run, arrays or ``jax.ShapeDtypeStruct``.
        loaded: nested dict of arrays, numpy or JAX; those on a mesh stay there.
        origin: where they come from, for the message.

    Returns:
        (parameters taken over, in the dtype of ``wanted``; top-level names that have to be initialised).

    Raises:
        CheckpointError: the sizes differ; names the first parameter that does.
    """
    new = {name for name in ADDED_PARTS if name in wanted and name not in loaded}
    wanted = {name: part for name, part in wanted.items() if name not in new}
    loaded = {name: part for name, part in loaded.items() if name in wanted or name not in OPTIONAL_PARTS}
    check_same_shapes(flat_shapes(loaded), flat_shapes(wanted), origin)
    return jax.tree.map(lambda leaf, array: array.astype(leaf.dtype), wanted, loaded), new
