"""Checkpoints of state, data position and config; the only module that imports Orbax.

A run directory holds ``config.json`` (the effective config, written at the start) and
``checkpoints/<step>/`` with the items ``state`` (arrays), ``data`` (position of the input stream of every
process) and ``config`` (the config and what was measured in training). Checkpoints appear under their name
only when complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from camctrl_jax.checkpoints.failures import ONCE_MORE, CheckpointError, read_errors, write_errors
from camctrl_jax.checkpoints.mesh_reading import dtype_of
from camctrl_jax.files.json_file import read_json
from camctrl_jax.parallel.sharding import spec_of

CHECKPOINTS = "checkpoints"
CONFIG_FILE = "config.json"
NETWORKS = "networks"  # entry of the state of an imported checkpoint: parameters by network, nothing to train


class Checkpoints:
    """The checkpoints of one run directory, open for writing.

    Args:
        run_dir: created if it does not exist.
        keep: how many of the newest checkpoints stay.
        in_background: copy the state into host memory and write it behind the next steps; False writes a
            gigabyte at a time and waits for it.
        failure: what :func:`write_errors` says of a failed write; by default of this directory, and how a run
            goes on.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike,
        keep: int = 3,
        in_background: bool = True,
        failure: Callable[[], contextlib.AbstractContextManager[None]] | None = None,
    ) -> None:
        self._log_filter = _WithoutOrbax()
        logging.getLogger("absl").addFilter(self._log_filter)
        self.directory = Path(run_dir).absolute() / CHECKPOINTS
        self._failure = failure or partial(write_errors, self.directory)
        with self._failure():
            self.directory.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                cleanup_tmp_directories=True,
                enable_async_checkpointing=in_background,
            )
            handlers = {
                "state": ocp.StandardCheckpointHandler(save_concurrent_gb=96 if in_background else 1),
                "data": ocp.JsonCheckpointHandler(),
                "config": ocp.JsonCheckpointHandler(),
            }
            self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, data: dict, config: dict) -> None:
        """Start writing a checkpoint; arrays are copied before this returns, the disk is written behind it.

        Args:
            step: finished updates; the name of the checkpoint.
            state: pytree of arrays.
            data: this process's stream position, JSON-able.
            config: JSON-able, the same on every process.

        Raises:
            CheckpointError: this or the previous save failed. Earlier checkpoints are untouched.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave({"processes": _gather_json(data)}),
            config=ocp.args.JsonSave(config),
        )
        self.wait()
        try:
            with self._failure():
                self._manager.save(step, args=args, force=True)
        except CheckpointError:
            self._remove_partial()
            raise

    def wait(self) -> None:
        """Block until the last save is on disk.

        Raises:
            CheckpointError: it failed; its partial files are removed, so that a full disk has room again.
        """
        try:
            with self._failure():
                self._manager.wait_until_finished()
                self._manager.check_for_errors()
        except CheckpointError:
            self._remove_partial()
            raise

    def restore(self, abstract_state: Any, shardings: Any, step: int | None = None) -> tuple[Any, dict]:
        """Read a state onto the mesh of this run, and this process's stream position (that of the first
        process, where another number of processes wrote the checkpoint).

        Args:
            abstract_state: pytree of ``jax.ShapeDtypeStruct``.
            shardings: where its arrays go, a pytree of the same structure.
            step: which checkpoint; the newest by default.

        Raises:
            CheckpointError: the checkpoint holds other parameters, which is named before anything is read,
                or its files are damaged.
        """
        step = self._manager.latest_step() if step is None else step
        if step is None:
            raise CheckpointError(f"{self.directory} holds no complete checkpoint.")
        with read_errors(self.directory / str(step)):
            saved = _saved_tree(self._manager, step)
        if NETWORKS in saved:
            raise CheckpointError(
                f"{self.directory / str(step)} holds imported weights, not a training run: start from them "
                "with --config.init_from=<this directory> and another --workdir."
            )
        wanted, homes, finished = abstract_state, shardings, lambda restored: restored
        if _EARLIER_FIELD in saved and not abstract_state.kept:
            wanted, homes = _earlier_form(abstract_state), _earlier_form(shardings)
            finished = partial(_from_earlier_form, like=abstract_state)
        elif _LATER_FIELD not in saved and not abstract_state.kept:
            wanted, homes = _form_before(abstract_state), _form_before(shardings)
            finished = partial(_from_form_before, like=abstract_state)
        found, expected = flat_shapes(saved), flat_shapes(wanted)
        _check_kept(found, expected, self.directory / str(step))
        check_same_shapes(found, expected, str(self.directory / str(step)))
        # Never without target shardings: Orbax would put arrays where the run that wrote them had them.
        target = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            wanted,
            homes,
        )
        with read_errors(self.directory / str(step)):
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore()),
            )
        positions = restored["data"]["processes"]
        # Of another number of processes, one position tells how far all were: streams know what to do.
        own = jax.process_index() if len(positions) == jax.process_count() else 0
        return finished(restored["state"]), positions[own]

    def _remove_partial(self) -> None:
        if jax.process_index() != 0:
            return
        for _ in range(20):  # the failed save's other writers may still be adding files to it
            partial = list(self.directory.glob("*.orbax-checkpoint-tmp*"))
            if not partial:
                return
            for path in partial:
                shutil.rmtree(path, ignore_errors=True)
            time.sleep(0.1)

    def preempted(self, step: int) -> bool:
        """True on every process once any was told to stop (needs ``jax.distributed``)."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def close(self) -> None:
        """Finish the last save and release the writer threads."""
        try:
            with self._failure():
                self._manager.close()
        finally:
            logging.getLogger("absl").removeFilter(self._log_filter)


def _check_kept(saved: dict[str, tuple], wanted: dict[str, tuple], origin: Path) -> None:
    """Raises: CheckpointError if a run would keep other things beside its parameters than the saved one."""
    kept, would_keep = (
        {name: shape for name, shape in shapes.items() if name.startswith(f"{_LATER_FIELD}.")}
        for shapes in (saved, wanted)
    )
    if kept != would_keep:
        there, here = (
            ", ".join(f"{n} {s}" for n, s in each.items()) or "nothing" for each in (kept, would_keep)
        )
        raise CheckpointError(
            f"{origin} keeps {there} beside its parameters, and this run would keep {here}: a run has an "
            "error bank (--config.condition.error_bank, error_bank_size) from its start on, or none. Go on "
            "as it began, or start another run with --config.init_from=<this directory>."
        )


# States of the second version had every field but this one.
_LATER_FIELD = "kept"


def _form_before(state: Any) -> dict[str, Any]:
    """A state as the second version stored it."""
    names = (entry.name for entry in dataclasses.fields(state))
    return {name: getattr(state, name) for name in names if name != _LATER_FIELD}


def _from_form_before(restored: dict[str, Any], like: Any) -> Any:
    """Inverse of :func:`_form_before`."""
    return dataclasses.replace(like, **restored)


# Checkpoints of the first version had one further network by name, where states have any number by role.
_EARLIER_FIELD = "adversary"


def _earlier_form(state: Any) -> dict[str, Any]:
    """A state as the first version stored it."""
    kept = {name: getattr(state, name) for name in ("step", "params", "ema", "opt_state")}
    return kept | {_EARLIER_FIELD: state.others.get(_EARLIER_FIELD)}


def _from_earlier_form(restored: dict[str, Any], like: Any) -> Any:
    """Inverse of :func:`_earlier_form`."""
    other = restored.pop(_EARLIER_FIELD)
    return dataclasses.replace(like, **restored, others={} if other is None else {_EARLIER_FIELD: other})


def load_run_config(run_dir: str | os.PathLike) -> dict:
    """The effective config of a run, from its newest checkpoint (from ``config.json`` before the first).

    Returns:
        Nested dict: the keys of ``training.config.default_config`` and ``architecture``, which says what the
        parameters are without reference to presets: ``vae`` (fields of ``VAEConfig``, with the measured
        latent statistics) for a VAE run, ``mmdit`` (fields of ``MMDiTConfig``), ``text`` (settings of the
        embedder), ``clip`` (see ``Architecture``) and ``vae_spec`` (weights spec of the frozen VAE) for a
        denoising run. Entries that a run does not have are None.

    Raises:
        CheckpointError: ``run_dir`` is not a run directory, or its checkpoint cannot be read.
    """
    step = latest_step(run_dir)
    if step is not None:
        with _reader(run_dir, step) as manager:
            return manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"]
    path = Path(run_dir).absolute() / CONFIG_FILE
    if not path.exists():
        raise CheckpointError(f"{run_dir} is no run directory: it has no {CONFIG_FILE}.")
    return read_json(path)


def load_params(
    run_dir: str | os.PathLike,
    step: int | None = None,
    ema: bool = True,
    *,
    part: str = "mmdit",
    mesh: Mesh | None = None,
    dtype: Any = None,
    check: Callable[[dict], None] | None = None,
) -> dict:
    """Parameters of a run as a nested dict; nothing else is read from disk.

    Args:
        run_dir: what ``--workdir`` was.
        step: which checkpoint; the newest by default.
        ema: the moving average rather than the raw parameters.
        part: which network of an imported checkpoint, that holds several; a training run trains one.
        mesh: read straight onto this mesh, split by the rules of training; None gives numpy arrays.
        dtype: of the result; None keeps the stored one. With a mesh it may be a function of the dotted path.
        check: called with the stored parameters (shapes and dtypes) before anything is read.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
    """
    steps = checkpoint_steps(run_dir)
    if not steps or (step is not None and step not in steps):
        wanted = "" if step is None else f" of step {step}"
        raise CheckpointError(f"{run_dir} holds no complete checkpoint{wanted}; it has steps {steps}.")
    step = steps[-1] if step is None else step

    def restore_args(path: tuple, leaf: Any) -> Any:
        if mesh is None:
            return ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype)
        name = ".".join(_key_name(key) for key in path)
        sharding = NamedSharding(mesh, spec_of(name, tuple(leaf.shape), mesh))
        kept = dtype_of(dtype, name)
        return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=tuple(leaf.shape), dtype=kept)

    with _reader(run_dir, step) as manager:
        saved = _saved_tree(manager, step)
        names = (NETWORKS, part) if NETWORKS in saved else ("ema" if ema else "params",)
        for name in names:
            saved = saved[name]
        if check is not None:
            check(saved)
        item = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved)
        placed = jax.tree_util.tree_map_with_path(restore_args, item)
        for name in reversed(names):
            item, placed = {name: item}, {name: placed}
        args = ocp.args.PyTreeRestore(item=item, restore_args=placed, partial_restore=True)
        restored = manager.restore(step, args=ocp.args.Composite(state=args))["state"]
    for name in names:
        restored = restored[name]
    return restored


def save_networks(
    run_dir: str | os.PathLike,
    networks: dict[str, Any],
    config: dict,
    shown: str | os.PathLike | None = None,
) -> None:
    """Write parameters that were not trained here as a checkpoint of step 0, each in its own dtype.

    Args:
        run_dir: must not hold checkpoints.
        networks: nested dicts of arrays, by ``part`` of :func:`load_params`.
        config: JSON-able, with the entry ``architecture`` of :func:`load_run_config`.
        shown: what to call the directory in errors, where it will get another name.

    Raises:
        CheckpointError: the disk is full, or there is a checkpoint already.
    """
    if checkpoint_steps(run_dir):
        raise CheckpointError(f"{run_dir} holds checkpoints already: choose another directory.")
    failure = partial(write_errors, Path(shown or run_dir), ONCE_MORE)
    checkpoints = Checkpoints(run_dir, in_background=False, failure=failure)
    try:
        checkpoints.save(0, {NETWORKS: networks}, {}, config)
        checkpoints.wait()
    finally:
        checkpoints.close()


def checkpoint_steps(run_dir: str | os.PathLike) -> list[int]:
    """Steps of the complete checkpoints of a run, ascending; empty where there are none."""
    directory = Path(run_dir).absolute() / CHECKPOINTS
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.is_dir() else []


def latest_step(run_dir: str | os.PathLike) -> int | None:
    """Step of the newest complete checkpoint of a run, or None."""
    steps = checkpoint_steps(run_dir)
    return steps[-1] if steps else None


def check_same_shapes(saved: dict[str, tuple], wanted: dict[str, tuple], origin: str) -> None:
    """Compare two flat {parameter: shape} tables.

    Raises:
        CheckpointError: names the first parameter that differs, both shapes, and how many differ in all.
    """
    differing = [name for name in wanted if saved.get(name) != wanted[name]]
    differing += [name for name in saved if name not in wanted]
    if differing:
        first = differing[0]
        raise CheckpointError(
            f"{origin} does not fit the model of this run: {first} has shape "
            f"{saved.get(first, 'none (absent)')} there and {wanted.get(first, 'none (absent)')} here "
            f"({len(differing)} of {len(wanted)} arrays differ). "
            "Choose the preset that it was trained with (--config.model.preset; sizes of an autoencoder are "
            "--config.vae_sizes), or another --workdir."
        )


def flat_shapes(tree: Any) -> dict[str, tuple]:
    """{"params.block_0.kernel": (3, 4)} for any pytree of things that have a shape."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(_key_name(key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


@contextlib.contextmanager
def _reader(run_dir: str | os.PathLike, step: int) -> Iterator[Any]:
    """A read-only manager, in which ``state`` may be read in part; for one checkpoint."""
    log_filter = _WithoutOrbax()
    logging.getLogger("absl").addFilter(log_filter)
    try:
        handlers = {
            "state": ocp.PyTreeCheckpointHandler(),
            "data": ocp.JsonCheckpointHandler(),
            "config": ocp.JsonCheckpointHandler(),
        }
        options = ocp.CheckpointManagerOptions(read_only=True)
        directory = Path(run_dir).absolute() / CHECKPOINTS
        with (
            read_errors(directory / str(step)),
            ocp.CheckpointManager(directory, options=options, item_handlers=handlers) as manager,
        ):
            yield manager
    finally:
        logging.getLogger("absl").removeFilter(log_filter)


def _saved_tree(manager: ocp.CheckpointManager, step: int) -> Any:
    """What a checkpoint says that its state is; Orbax answers None where a file of it is gone."""
    os.listdir(Path(manager.directory) / str(step) / "state")  # Orbax takes "no permission" for "not there"
    metadata = manager.item_metadata(step)["state"]
    if metadata is None or metadata.tree is None:
        raise KeyError("the description of its arrays is missing")
    return metadata.tree


class _WithoutOrbax(logging.Filter):
    """Drops Orbax's own log records: it reports a failed write as pages of tracebacks from its threads, which
    here becomes one exception with one sentence. Whoever asks for --verbosity=0 sees them."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname or logging.getLogger("absl").isEnabledFor(logging.INFO)


def _gather_json(content: dict) -> list[dict]:
    """One process's content -> the list of all processes' contents, on every process."""
    if jax.process_count() == 1:
        return [content]
    encoded = np.frombuffer(json.dumps(content).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(encoded.size))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: encoded.size] = encoded
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths)]
