"""The training loop: draw, step, log, save. It waits for the device only where it has to.

Order of one turn: the batch is drawn, the step is dispatched, the metrics of an *earlier* step are read (it
is done by then, so nothing waits), and a checkpoint is saved before the next batch is drawn, so that the
saved stream position is the one that follows the saved state.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax import Array

from camctrl_jax.data.bad_clips import TooManyBadClips
from camctrl_jax.data.stream import Batch, BatchStream
from camctrl_jax.training.checkpoint import Checkpoints, write_json
from camctrl_jax.training.state import TrainState
from camctrl_jax.training.writers import MetricsFile, ProgressLine, TensorBoard

# Steps that may be on their way to the device. Two keep it busy while the host prepares the next; more would
# only hold memory for their batches.
_IN_FLIGHT = 2

BAD_BATCH_FILE = "bad_batch.json"
BAD_CLIPS_FILE = "bad_clips.{process}.json"  # every process reads its own clips


class NonFiniteLoss(Exception):
    """Loss or gradient became NaN or infinite; says at which step and where the batch is described."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how often; every interval counts steps, 0 switches off.

    Attributes:
        steps: the run ends after this many updates, counted from the very beginning.
        log_every: steps between log entries, which hold averages over the interval.
        checkpoint_every: steps between checkpoints; the last step is always saved.
        sample_every: steps between samples.
    """

    steps: int
    log_every: int = 50
    checkpoint_every: int = 1000
    sample_every: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the state, its step, and the signal that stopped it early, if one did."""

    state: TrainState
    step: int
    stopped_by: str | None = None


class StopSignals:
    """While open, SIGTERM and SIGINT are noted instead of obeyed; a second SIGINT interrupts at once.

    With several processes SIGTERM stays with ``jax.distributed``, which tells all of them
    (:meth:`Checkpoints.preempted`): one that stopped alone would leave the others waiting.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python delivers signals to the main thread only; elsewhere (a notebook's worker) they stay as they
        # are.
        if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name


def train(
    state: TrainState,
    stream: BatchStream,
    step_function: Callable[[TrainState, Batch, Array], tuple[TrainState, Mapping[str, Array]]],
    rng: Array,
    config: LoopConfig,
    *,
    start: int,
    run_dir: Path,
    checkpoints: Checkpoints,
    describe: Callable[[TrainState], dict],
    place: Callable[[Batch], Batch],
    progress: ProgressLine,
    stored: Callable[[TrainState], TrainState] = lambda state: state,
    sample: Callable[[int, TrainState, TensorBoard], Mapping[str, float]] | None = None,
) -> Outcome:
    """Train from ``start`` to ``config.steps``, or until a signal.

    Args:
        state: at step ``start``; donated to the first step.
        stream: positioned at the batch of step ``start``.
        step_function: jitted ``(state, batch, rng) -> (state, metrics)`` that donates the state.
        rng: the run's key.
        config: lengths and intervals.
        start: finished updates of ``state``.
        run_dir: where metrics and the report of a bad batch go.
        checkpoints: where states go.
        describe: the JSON-able config to store with a checkpoint of this state.
        place: puts a batch on the mesh.
        progress: the progress line.
        stored: brings a state into the form that checkpoints hold; ``describe`` and ``sample`` see that form.
        sample: called every ``sample_every`` steps; what it returns is logged.

    Returns:
        The last state, which is also the newest checkpoint.

    Raises:
        NonFiniteLoss: the checkpoint before it is kept, nothing after it is saved.
        CheckpointError: the disk is full; earlier checkpoints stay.
    """
    log = _Log(run_dir, start, config, progress, stream)
    pending: deque[tuple[int, Mapping[str, Array], Batch]] = deque()
    step = start
    with StopSignals() as stop:
        try:
            for step in range(start + 1, config.steps + 1):
                drawing = time.perf_counter()
                batch = next(stream)
                # Kept for the report of a bad step: ids and flags, not the clips.
                small = {name: array for name, array in batch.items() if array.ndim == 1}
                placed = place(batch)
                if _idle(pending):
                    log.waited(time.perf_counter() - drawing)
                with jax.transfer_guard("disallow"):  # a hidden transfer would make every step wait
                    state, metrics = step_function(state, placed, rng)
                pending.append((step, metrics, small))
                if len(pending) > _IN_FLIGHT:
                    log.add(*pending.popleft())
                if checkpoints.preempted(step):
                    stop.received = "pre-emption"
                stopping = stop.received is not None
                saving = step == config.steps or stopping or _due(step, config.checkpoint_every)
                sampling = sample is not None and _due(step, config.sample_every)
                if saving or sampling:
                    while pending:  # only a state whose losses are known to be finite is worth keeping
                        log.add(*pending.popleft())
                kept = stored(state) if saving or sampling else None
                if saving:
                    log.list_bad_clips()
                    checkpoints.save(step, kept, stream.state(), describe(kept))
                if sampling:
                    with progress.paused():
                        log.write(step, sample(step, kept, log.tensorboard))
                del kept
                if stopping:
                    break
            checkpoints.wait()
        except TooManyBadClips:
            log.list_bad_clips()
            raise
        finally:
            log.close()
    return Outcome(state, step, stop.received if step < config.steps else None)


def _idle(pending: deque[tuple[int, Mapping[str, Array], Batch]]) -> bool:
    """Whether the devices have done every step that was handed to them."""
    return not pending or all(value.is_ready() for value in pending[-1][1].values())


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class _Log:
    """Reads finished metrics, refuses values that are not finite, averages, and writes."""

    def __init__(
        self, run_dir: Path, start: int, config: LoopConfig, progress: ProgressLine, stream: BatchStream
    ) -> None:
        self._config, self._progress, self._stream, self._run_dir = config, progress, stream, run_dir
        self._writing = jax.process_index() == 0
        self._file = MetricsFile(run_dir, start) if self._writing else None
        self.tensorboard = TensorBoard(run_dir, start) if self._writing else None
        self._sums: dict[str, list[float]] = {}
        self._listed = 0
        self._clips = -1  # not before the first step is done
        self._waited, self._since = 0.0, time.perf_counter()

    def waited(self, seconds: float) -> None:
        """Take in how long a batch took that the devices ran dry for.

        They had an earlier step to do for part of it. What other processes waited for, and copies to the
        devices that go on afterwards, are not in it.
        """
        self._waited += seconds

    def add(self, step: int, metrics: Mapping[str, Array], batch: Batch) -> None:
        """Take in the metrics of a step that is (nearly) done."""
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        broken = [
            name for name in ("loss", "grad_norm") if name in values and not math.isfinite(values[name])
        ]
        if broken:
            raise self._non_finite(step, broken[0], values, batch)
        for name, value in values.items():
            if math.isfinite(value):  # a share of the batch may be empty, and its mean undefined
                self._sums.setdefault(name, []).append(value)
        if self._clips < 0:
            self._clips = 0
            self._waited, self._since = 0.0, time.perf_counter()
            self._progress.begin(step)
        else:
            self._clips += len(next(iter(batch.values())))
        if step % self._config.log_every == 0 or step == self._config.steps:
            averages = {name: float(np.mean(series)) for name, series in self._sums.items()}
            self._sums = {}
            now = time.perf_counter()
            waited = {"data_wait": self._waited / max(now - self._since, 1e-9)}
            self._waited, self._since = 0.0, now
            if self._writing:
                rate = self._progress.show(step, averages, self._clips)
                self.write(step, {**averages, "clips_per_second": rate, **waited})

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values to the file and to TensorBoard, on the first process."""
        if self._writing and values:
            self._file.write(step, values)
            self.tensorboard.write(step, values)

    def list_bad_clips(self) -> None:
        """Write which clips of this process could not be used, and say so where there are new ones."""
        bad = self._stream.bad_clips()
        if len(bad) == self._listed:
            return
        path = self._run_dir / BAD_CLIPS_FILE.format(process=jax.process_index())
        write_json(path, bad)
        if self._writing:
            self._progress.say(f"{len(bad)} clips could not be used, others stood in for them: {path}")
        self._listed = len(bad)

    def _non_finite(self, step: int, name: str, values: dict[str, float], batch: Batch) -> NonFiniteLoss:
        path = self._run_dir / BAD_BATCH_FILE
        report = {
            "step": step,
            "metrics": {key: value if math.isfinite(value) else str(value) for key, value in values.items()},
            "clips": self._stream.describe(batch),
        }
        if self._writing:
            write_json(path, report)
        return NonFiniteLoss(
            f"{name} is {values[name]} at step {step}. The clips of its batch are listed in {path}; the last "
            "checkpoint is untouched. Look at these clips, or continue from the checkpoint with a lower "
            "--config.optimizer.learning_rate or --config.optimizer.clip_norm."
        )

    def close(self) -> None:
        self._progress.close()
        if self._writing:
            self._file.close()
            self.tensorboard.close()
