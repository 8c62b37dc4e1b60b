"""A training run from its configuration to its last checkpoint; reads from top to bottom."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax import Array
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from camctrl_jax.checkpoints.run_lock import RunInProgress, run_lock
from camctrl_jax.checkpoints.runs import CHECKPOINTS, CONFIG_FILE, Checkpoints, load_run_config
from camctrl_jax.errors import InvalidValue, UserError
from camctrl_jax.files.json_file import write_json
from camctrl_jax.parallel.hosts import is_peer_lost
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.parallel.sharding import distribute, distribute_batch
from camctrl_jax.training import loop
from camctrl_jax.training.compiling import Step, step_of
from camctrl_jax.training.config import as_json, differences
from camctrl_jax.training.initialisation import Start, check_start, start_of, take_sizes
from camctrl_jax.training.input_settings import Inputs
from camctrl_jax.training.inputs import (
    batch_shapes,
    check_folders,
    check_position,
    held_out_batches,
    held_out_remarks,
    open_inputs,
    preview_clips,
)
from camctrl_jax.training.objective import Frozen, Objective
from camctrl_jax.training.previews import sampler_of
from camctrl_jax.training.program import Program, build_program
from camctrl_jax.training.state import TrainState
from camctrl_jax.training.values import ConfigError
from camctrl_jax.training.writers import ProgressLine


class PeerLost(UserError):
    """Another process of the job has ended."""


def train(config: ConfigDict, workdir: Path) -> Path:
    """Run a recipe from its current position to its end.

    Args:
        config: checked by ``check_config``.
        workdir: directory of the run, absolute.

    Returns:
        The path of the last checkpoint.

    Raises:
        UserError: whatever a person can mend.
        PeerLost: another process of the job has ended.
    """
    begun = time.monotonic()
    with _peers(), _alone_in(workdir), contextlib.ExitStack() as opened:
        # 1. Settings and devices.
        take_sizes(config, workdir)
        check_folders(config)
        try:
            mesh = make_mesh(MeshConfig(**config.mesh))
        except InvalidValue as error:
            raise ConfigError(f"config.mesh: {error}") from error

        # 2. What is optimised, and what it reads but does not train.
        program = build_program(config, mesh)
        objective = program.objective
        check_start(config, objective, workdir)  # before gigabytes are read
        read = objective.frozen()
        frozen = distribute(read, program.frozen_homes(read))
        # What one process computes alone, it computes from arrays of its own.
        read = {role: params for role, params in read.items() if role not in objective.shared_out}
        own = frozen if jax.process_count() == 1 else jax.device_get(read)

        # 3. Its state: the newest own checkpoint, config.init_from, or scratch.
        checkpoints = Checkpoints(workdir, keep=config.keep_checkpoints)
        opened.callback(checkpoints.close)
        start = start_of(config, program, checkpoints, workdir)
        _say_what_starts(config, program, start)
        if start.step >= config.steps:
            if jax.process_index() == 0:
                at = f"{workdir} is at step {start.step} of {config.steps}"
                print(f"nothing to do: {at}; raise --config.steps to go on")
            return workdir / CHECKPOINTS / str(start.step)

        # 4. The data, at the position that belongs to the state.
        progress = ProgressLine(config.steps, start.step)
        show = partial(_show_rendered, progress)
        encoder, cameras = objective.encoder(own), objective.reads_cameras
        sample = _sample_of(config, objective, frozen, program, workdir)
        # Datasets open at once, worlds take minutes to render: what may be wrong comes first.
        measure = _measure_of(config, program, frozen, encoder) if config.held_out.datasets else None
        if start.position is not None:
            with _of_other_data(start):
                check_position(config, start.position)
        run_key = jax.jit(
            lambda: jax.random.fold_in(jax.random.key(config.seed), 1), out_shardings=program.everywhere
        )()
        # The step is compiled while worlds are rendered.
        aside = ThreadPoolExecutor(1)
        opened.callback(aside.shutdown, wait=False, cancel_futures=True)
        step = aside.submit(_compiled_step, config, program, start.state, run_key, frozen, encoder)
        inputs = open_inputs(config, mesh, encoder, cameras, show)
        _say_what_is_drawn(config, inputs, progress)
        if start.position is not None:
            _continue_data(config, inputs, start, load_run_config(workdir), progress)
        if not config.held_out.datasets:
            measure = _measure_of(config, program, frozen, encoder)

        # 5. What is stored with every checkpoint, and what is shown now and then.
        hooks = loop.Hooks(
            describe=partial(_described, config, objective, inputs, start),
            stored=program.to_stored,
            sample=sample,
            measure=measure,
            work=lambda batch: getattr(objective.work(batch), "flops", None),
        )
        if jax.process_index() == 0:
            for change in differences(load_run_config(workdir), as_json(config)) if start.step else ():
                print(f"changed since the checkpoint: {change}")
            write_json(workdir / CONFIG_FILE, as_json(config))

        # 6. Train.
        distribution = partial(distribute_batch, mesh=mesh)
        compiled = step.result()
        if jax.process_index() == 0:
            progress.say(f"ready to train {time.monotonic() - begun:.0f} s after the start")
        outcome = loop.train(
            start.state,
            compiled,
            run_key,
            _loop_config(config),
            loop.Run(workdir, start.step, inputs.stream, distribution, checkpoints, progress),
            hooks,
        )
        # After an error this is left out: a step that is still running may read a batch in shared memory
        inputs.stream.close()
        if outcome.stopped_by:
            print(f"stopped by {outcome.stopped_by} at step {outcome.step}; the same command continues it")
        return workdir / CHECKPOINTS / str(outcome.step)


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """What the runtime says when another process is gone becomes :class:`PeerLost`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_peer_lost(error):
            raise
        raise PeerLost(
            f"another process of this job has ended ({str(error).splitlines()[0][:200]}). Start the same "
            "command again, with any number of hosts, to continue from the last checkpoint."
        ) from error


@contextlib.contextmanager
def _alone_in(workdir: Path) -> Iterator[None]:
    """Hold the run directory; the first process does for all, and a refusal is told to all."""
    with contextlib.ExitStack() as held:
        refusal = None
        if jax.process_index() == 0:
            try:
                held.enter_context(run_lock(workdir))
            except RunInProgress as error:
                refusal = error
        if jax.process_count() > 1:
            refused = multihost_utils.broadcast_one_to_all(np.int32(refusal is not None))
            if refused and refusal is None:
                refusal = RunInProgress(f"{workdir} is in use; the first process of this job says by whom.")
        if refusal is not None:
            raise refusal
        yield


def _compiled_step(
    config: ConfigDict, program: Program, state: TrainState, key: Array, frozen: Frozen, encoder: Any
) -> Step:
    """The step for all batches whose shapes are known beforehand."""
    return step_of(program, state, batch_shapes(config, program.mesh, encoder), key, frozen)


def _loop_config(config: ConfigDict) -> loop.LoopConfig:
    return loop.LoopConfig(
        steps=config.steps,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        sample_every=config.sample_every,
        measure_every=config.held_out.every,
        profile=tuple(config.profile),
    )


def _say_what_starts(config: ConfigDict, program: Program, start: Start) -> None:
    if jax.process_index() != 0:
        return
    count = sum(leaf.size for leaf in jax.tree.leaves(program.abstract_params))
    print(f"{config.objective} {config.model.preset}: {count / 1e6:.1f}M parameters from {start.origin}")
    processes = "" if jax.process_count() == 1 else f" in {jax.process_count()} processes"
    mesh = program.mesh
    print(f"on {mesh.size} x {jax.devices()[0].device_kind}{processes}, mesh {dict(mesh.shape)}")


def _say_what_is_drawn(config: ConfigDict, inputs: Inputs, progress: ProgressLine) -> None:
    """What of every dataset is trained on, on the first process; warnings where little or none of it is."""
    if jax.process_index() != 0:
        return
    for report in inputs.reports:
        progress.say(report)
    for remark in (*inputs.remarks, *held_out_remarks(config)):
        logging.warning("%s", remark)


@contextlib.contextmanager
def _of_other_data(start: Start) -> Iterator[None]:
    """What a position in other data is refused with names the checkpoint, and what to do instead."""
    try:
        yield
    except InvalidValue as error:
        raise ConfigError(
            f"{start.origin} was written by a run on other data: {error} To train its weights on these data, "
            f"begin another run from them: --config.init_from={Path(start.origin).parents[1]} and another "
            "--workdir."
        ) from error


def _continue_data(
    config: ConfigDict, inputs: Inputs, start: Start, saved: Mapping[str, Any], progress: ProgressLine
) -> None:
    """Move the data to the position of the checkpoint, and say which clips do not come as they would have.

    Raises:
        ConfigError: the position is one in other data.
    """
    with _of_other_data(start):
        changes = inputs.stream.restore(start.position)
    before = saved.get("batch_size")
    if "buckets" not in start.position and before not in (None, config.batch_size):
        # Checkpoints of earlier versions say only how many batches there were.
        count = start.step * abs(config.batch_size - before)
        fate = "passed over" if config.batch_size > before else "drawn again"
        changes = (
            *changes,
            f"batches of {config.batch_size} clips where they were {before}. Positions count batches: in the "
            f"order of drawing at most {count} clips are {fate}",
        )
    for change in changes if jax.process_index() == 0 else ():
        progress.say(f"data since the checkpoint: {change}")


def _show_rendered(progress: ProgressLine, done: int, count: int) -> None:
    """Tell how far the rendering of worlds is, in tenths."""
    if done == count or done * 10 // count > (done - 1) * 10 // count:
        progress.say(f"rendered {done}/{count} worlds")


def _described(
    config: ConfigDict, objective: Objective, inputs: Inputs, start: Start, state: TrainState
) -> dict[str, Any]:
    """What is stored with a checkpoint: the configuration, and what the parameters are."""
    architecture = objective.describe(state, inputs.probe, start.architecture)
    return as_json(config) | {"architecture": architecture.to_json()}


def _sample_of(
    config: ConfigDict, objective: Objective, frozen: Frozen, program: Program, workdir: Path
) -> Any:
    """The callback that draws samples, or None."""
    if not config.sample_every:
        return None
    preview = objective.preview(preview_clips(config), frozen, program.mesh)
    if preview is None:
        raise ConfigError(
            f"config.sample_every={config.sample_every}: the objective {config.objective!r} has nothing to "
            "show; 0 switches it off"
        )
    return sampler_of(preview, workdir, config.data.fps)


def _measure_of(config: ConfigDict, program: Program, frozen: Frozen, encoder: Any) -> Any:
    """The callback that measures what the objective looks at on clips that are not trained on, or None.

    Noise and times of a batch follow from its number alone, so values of different steps, runs and seeds
    compare. Where there are several sets of worlds, of each set alone, and the mean over sets.
    """
    if not config.held_out.every:
        return None
    sets = held_out_batches(config, program.mesh, encoder, program.objective.reads_cameras)
    key_of = jax.jit(
        lambda number: jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), number),
        out_shardings=program.everywhere,
    )

    def means(found: list[dict[str, Any]]) -> dict[str, float]:
        """Of every value over those that have it."""
        values: dict[str, list[float]] = {}
        for name, value in itertools.chain.from_iterable(each.items() for each in found):
            if not np.isnan(value):
                values.setdefault(name, []).append(float(value))
        return {name: float(np.mean(each)) for name, each in values.items()}

    def measure(state: TrainState) -> dict[str, float]:
        numbers, own = itertools.count(), {}
        looked_at = program.objective.measured(state)
        for name, batches in sets.items():
            own[name] = means(
                [
                    jax.device_get(program.jitted_measure(looked_at, batch, key_of(next(numbers)), frozen))
                    for batch in batches
                ]
            )
        every = means(list(own.values()))  # sets weigh alike, of however many batches
        return {f"held_out_{name}": value for name, value in every.items()} | {
            f"held_out_{name}_{key}": value
            for name, values in own.items()
            if name
            for key, value in values.items()
        }

    return measure
