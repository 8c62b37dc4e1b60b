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
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from camctrl_jax.checkpoints.runs import Checkpoints
from camctrl_jax.data.bad_clips import TooManyBadClips
from camctrl_jax.data.stream import Batch, BatchStream
from camctrl_jax.errors import UserError
from camctrl_jax.files.json_file import write_json
from camctrl_jax.parallel.chips import chip_of
from camctrl_jax.training.state import TrainState
from camctrl_jax.training.writers import MetricsFile, ProgressLine, TensorBoard

# Steps that may be on their way to the device. Two keep it busy while the host prepares the next; more would
# only hold memory for their batches.
_IN_FLIGHT = 2

BAD_BATCH_FILE = "bad_batch.json"
BAD_CLIPS_FILE = "bad_clips.{process}.json"  # every process reads its own clips


class NonFiniteLoss(UserError):
    """A loss or a gradient, of whatever network a step trains, became NaN or infinite; says at which step and
    where the batch is described.
    """


@dataclass(frozen=True)
class LoopConfig:
    """How long and how often; every interval counts steps, 0 switches off.

    Attributes:
        steps: the run ends after this many updates, counted from the very beginning.
        log_every: steps between log entries, which hold averages over the interval.
        checkpoint_every: steps between checkpoints; the last step is always saved.
        sample_every: steps between samples.
        measure_every: steps between measurements on held-out clips.
        profile: first and last step of a trace, or ().
    """

    steps: int
    log_every: int = 50
    checkpoint_every: int = 1000
    sample_every: int = 0
    measure_every: int = 0
    profile: tuple[int, ...] = ()


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


@dataclass(frozen=True)
class Hooks:
    """What a run does beside its steps.

    Attributes:
        describe: the JSON-able config to store with a checkpoint of this state.
        stored: brings a state into the form that checkpoints hold; ``describe`` and ``sample`` see that form.
        sample: called every ``sample_every`` steps; what it returns is logged.
        measure: called every ``measure_every`` steps with the state of the step; what it returns is logged.
        work: operations of a step on a batch, over all devices; None where no formula is known.
    """

    describe: Callable[[TrainState], dict]
    stored: Callable[[TrainState], TrainState] = lambda state: state
    sample: Callable[[int, TrainState, TensorBoard | None], Mapping[str, float]] | None = None
    measure: Callable[[TrainState], Mapping[str, float]] | None = None
    work: Callable[[Batch], float | None] = lambda batch: None


@dataclass(frozen=True)
class Run:
    """Where a run is, and what it works with.

    Attributes:
        run_dir: where metrics, traces and the report of a bad batch go.
        start: finished updates at the beginning.
        stream: positioned at the batch of step ``start``.
        distribute: puts a batch on the mesh.
        checkpoints: where states go.
        progress: the progress line.
    """

    run_dir: Path
    start: int
    stream: BatchStream
    distribute: Callable[[Batch], Batch]
    checkpoints: Checkpoints
    progress: ProgressLine


def train(
    state: TrainState,
    step_function: Callable[[TrainState, Batch, Array], tuple[TrainState, Mapping[str, Array]]],
    rng: Array,
    config: LoopConfig,
    run: Run,
    hooks: Hooks,
) -> Outcome:
    """Train from ``run.start`` to ``config.steps``, or until a signal.

    Args:
        state: at step ``run.start``; donated to the first step.
        step_function: jitted ``(state, batch, rng) -> (state, metrics)`` that donates the state.
        rng: the run's key.
        config: lengths and intervals.
        run: what it works with.
        hooks: what else it does.

    Returns:
        The last state, which is also the newest checkpoint.

    Raises:
        NonFiniteLoss: the checkpoint before it is kept, nothing after it is saved.
        CheckpointError: the disk is full; earlier checkpoints stay.
    """
    log = _Log(run, config, hooks)
    trace = _Trace(run.run_dir, config.profile)
    pending: deque[_Pending] = deque()
    step = run.start
    with StopSignals() as stop:
        try:
            for step in range(run.start + 1, config.steps + 1):
                drawing = time.perf_counter()
                batch = next(run.stream)
                # Kept for the report of a bad step: ids and flags, not the clips.
                small = {name: array for name, array in batch.items() if array.ndim == 1}
                distributed = run.distribute(batch)
                if _idle(pending):
                    log.waited(time.perf_counter() - drawing)
                if trace.begins(step):
                    with run.progress.paused():
                        trace.begin(pending)
                with (
                    jax.transfer_guard("disallow"),  # a hidden transfer would make every step wait
                    jax.profiler.StepTraceAnnotation("train", step_num=step),
                ):
                    state, metrics = step_function(state, distributed, rng)
                clips = len(next(iter(distributed.values())))
                pending.append(_Pending(step, metrics, small, clips, hooks.work(distributed)))
                if trace.ends(step):
                    with run.progress.paused():
                        trace.end(pending)
                if len(pending) > _IN_FLIGHT:
                    log.add(pending.popleft())
                if run.checkpoints.preempted(step):
                    stop.received = "pre-emption"
                stopping = stop.received is not None
                saving = step == config.steps or stopping or _due(step, config.checkpoint_every)
                sampling = hooks.sample is not None and _due(step, config.sample_every)
                measuring = hooks.measure is not None and _due(step, config.measure_every)
                if saving or sampling or measuring:
                    while pending:  # only a state whose losses are known to be finite is worth keeping
                        log.add(pending.popleft())
                kept = hooks.stored(state) if saving or sampling else None
                if saving:
                    log.list_bad_clips()
                    run.checkpoints.save(step, kept, run.stream.state(), hooks.describe(kept))
                if measuring:
                    with run.progress.paused():
                        log.write(step, hooks.measure(state))
                if sampling:
                    with run.progress.paused():
                        log.write(step, hooks.sample(step, kept, log.tensorboard))
                del kept
                if stopping:
                    break
            run.checkpoints.wait()
        except TooManyBadClips:
            log.list_bad_clips()
            raise
        finally:
            trace.close()
            log.close()
    return Outcome(state, step, stop.received if step < config.steps else None)


class _Pending(NamedTuple):
    """A step on its way: its number, its metrics, ids and flags of its batch on this process, the clips of
    all processes, and its operations.
    """

    step: int
    metrics: Mapping[str, Array]
    batch: Batch
    clips: int
    work: float | None


class _Trace:
    """The trace of some steps, of the first process: for TensorBoard's profile page, and Perfetto."""

    def __init__(self, run_dir: Path, steps: tuple[int, ...]) -> None:
        self._folder = run_dir / TensorBoard.FOLDER
        self._steps = steps if jax.process_index() == 0 else ()
        self._open = False

    def begins(self, step: int) -> bool:
        """Whether a step, about to be handed to the device, is the first; a resumed run may begin later."""
        return bool(self._steps) and not self._open and self._steps[0] <= step <= self._steps[-1]

    def begin(self, pending: deque[_Pending]) -> None:
        """Start: what is on its way to the device is none of the trace's."""
        jax.block_until_ready([each.metrics for each in pending])
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every call of every library would bury the model's blocks
        jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True, profiler_options=options)
        self._open = True

    def ends(self, step: int) -> bool:
        """Whether a step that was handed to the device is the last."""
        return self._open and step >= self._steps[-1]

    def end(self, pending: deque[_Pending]) -> None:
        """Write what was traced once it is done."""
        jax.block_until_ready([each.metrics for each in pending])
        self.close()

    def close(self) -> None:
        """Write what was traced, if anything was."""
        if self._open:
            self._open = False
            jax.profiler.stop_trace()


def _idle(pending: deque[_Pending]) -> bool:
    """Whether the devices have done every step that was handed to them."""
    return not pending or all(value.is_ready() for value in pending[-1].metrics.values())


def _broken(name: str, value: float) -> bool:
    """Whether a metric is one that may not be what it is: the loss or the gradient of one of the networks.
    Others are means of shares of a batch, which may be empty.
    """
    return name.endswith(("loss", "grad_norm")) and not math.isfinite(value)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def peak_flops() -> float | None:
    """Dense bfloat16 operations per second of one device, from its data sheet; None where none is known."""
    chip = chip_of(jax.devices()[0].device_kind)
    return None if chip is None else chip.flops


class _Log:
    """Reads finished metrics, refuses values that are not finite, averages, and writes."""

    def __init__(self, run: Run, config: LoopConfig, hooks: Hooks) -> None:
        self._run, self._config, self._hooks = run, config, hooks
        self._writing = jax.process_index() == 0
        self._file = MetricsFile(run.run_dir, run.start) if self._writing else None
        self.tensorboard = TensorBoard(run.run_dir, run.start) if self._writing else None
        self._sums: dict[str, list[float]] = {}
        self._listed = 0
        self._clips = -1  # not before the first step is done
        self._work: float | None = 0.0
        self._peak = peak_flops()
        self._waited, self._since = 0.0, time.perf_counter()

    def waited(self, seconds: float) -> None:
        """Take in how long a batch took that the devices ran dry for.

        They had an earlier step to do for part of it. What other processes waited for, and copies to the
        devices that go on afterwards, are not in it.
        """
        self._waited += seconds

    def add(self, done: _Pending) -> None:
        """Take in the metrics of a step that is (nearly) done."""
        step, metrics, batch, clips, work = done
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        broken = [name for name, value in values.items() if _broken(name, value)]
        if broken:
            raise self._non_finite(step, broken, values, batch)
        for name, value in values.items():
            if math.isfinite(value):  # a share of the batch may be empty, and its mean undefined
                self._sums.setdefault(name, []).append(value)
        if self._clips < 0:
            self._clips = 0
            self._waited, self._since = 0.0, time.perf_counter()
            self._run.progress.begin(step)
        else:
            self._clips += clips
            self._work = None if self._work is None or work is None else self._work + work
        if step % self._config.log_every == 0 or step == self._config.steps:
            averages = {name: float(np.mean(series)) for name, series in self._sums.items()}
            self._sums = {}
            now = time.perf_counter()
            waited = {"data_wait": self._waited / max(now - self._since, 1e-9)}
            self._waited, self._since = 0.0, now
            if self._writing:
                rate = self._run.progress.show(step, averages, self._clips)
                self.write(step, {**averages, "clips_per_second": rate, **waited, **self._speed(rate)})

    def _speed(self, rate: float) -> dict[str, float]:
        """Model TFLOP/s of one device, and their share of its peak (MFU)."""
        if not self._work or self._clips <= 0:
            return {}
        flops = self._work / self._clips * rate / jax.device_count()
        values = {"model_tflops_per_device": flops / 1e12}
        return values if self._peak is None else values | {"mfu": flops / self._peak}

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values to the file and to TensorBoard, on the first process."""
        if self._writing and values:
            self._file.write(step, values)
            self.tensorboard.write(step, values)

    def list_bad_clips(self) -> None:
        """Write which clips of this process could not be used, and say so where there are new ones."""
        bad = self._run.stream.bad_clips()
        if len(bad) == self._listed:
            return
        path = self._run.run_dir / BAD_CLIPS_FILE.format(process=jax.process_index())
        write_json(path, bad)
        if self._writing:
            self._run.progress.say(f"{len(bad)} clips could not be used, others stood in for them: {path}")
        self._listed = len(bad)

    def _non_finite(
        self, step: int, broken: list[str], values: dict[str, float], batch: Batch
    ) -> NonFiniteLoss:
        path = self._run.run_dir / BAD_BATCH_FILE
        report = {
            "step": step,
            "metrics": {key: value if math.isfinite(value) else str(value) for key, value in values.items()},
            "clips": self._run.stream.describe(batch),
        }
        if self._writing:
            write_json(path, report)
        found = ", ".join(f"{name} is {values[name]}" for name in broken)
        return NonFiniteLoss(
            f"{found} at step {step}. The clips of its batch are listed in {path}; the last "
            "checkpoint is untouched. Look at these clips, or continue from the checkpoint with a lower "
            "--config.optimizer.learning_rate or --config.optimizer.clip_norm."
        )

    def close(self) -> None:
        self._run.progress.close()
        if self._writing:
            self._file.close()
            self.tensorboard.close()
