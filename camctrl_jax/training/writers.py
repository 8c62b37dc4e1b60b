"""Where the numbers of a run go: the progress line, metrics.jsonl, and TensorBoard if it is installed."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from camctrl_jax.checkpoints.runs import write_errors
from camctrl_jax.files.atomic import write_text
from camctrl_jax.video.pictures import encode_png

try:  # the extra 'train'; a run goes without
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
except ImportError:
    EventsWriter = None

METRICS_FILE = "metrics.jsonl"


class MetricsFile:
    """``metrics.jsonl``: one JSON object per logged step, ``{"step": 50, "loss": 0.31, ...}``.

    Args:
        run_dir: where the file lies.
        start: the step that this run starts from; lines of later steps, written by a run that was killed
            after its last checkpoint, are dropped, so that no step appears twice.
    """

    def __init__(self, run_dir: Path, start: int) -> None:
        self._path = run_dir / METRICS_FILE
        with write_errors(self._path):
            run_dir.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                kept = [line for line in self._path.read_text().splitlines() if _step_of(line) <= start]
                write_text(self._path, "".join(f"{line}\n" for line in kept))
            self._file = open(self._path, "a")  # noqa: SIM115 (open as long as the run)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line; values that are not finite become null, which JSON has and NaN is not."""
        record = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with write_errors(self._path):
            self._file.write(json.dumps({"step": step, **record}) + "\n")
            self._file.flush()

    def close(self) -> None:
        # Every line was flushed. What a full disk left in the buffer fails again here, and would hide the
        # CheckpointError that says so.
        with contextlib.suppress(OSError):
            self._file.close()


def _step_of(line: str) -> float:
    """Step of a metrics line; a line that a killed run left half written counts as far in the future."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf


class TensorBoard:
    """Scalars and pictures for TensorBoard; does nothing where tensorboardX (extra ``train``) is not
    installed.

    Events are written here and now: the thread of tensorboardX's ``SummaryWriter`` dies on a full disk, and
    the queue to it then blocks the run for ever.
    """

    FOLDER = "tensorboard"  # in the run directory

    def __init__(self, run_dir: Path, start: int) -> None:
        self._writer = None
        if EventsWriter is None:
            return
        self._path = run_dir / self.FOLDER
        with write_errors(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(self._path / "events"))
        # Tells TensorBoard to forget later steps, of a run that was killed after its last checkpoint.
        self._add(start + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One point of every curve."""
        if self._writer is not None:
            points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            self._add(step, summary=Summary(value=points))

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture, u8 [H, W, 3]."""
        if self._writer is not None:
            height, width, channels = image.shape
            picture = Summary.Image(
                height=height, width=width, colorspace=channels, encoded_image_string=encode_png(image)
            )
            self._add(step, summary=Summary(value=[Summary.Value(tag=name, image=picture)]))

    def _add(self, step: int, **content: Any) -> None:
        with write_errors(self._path):
            self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # what could be written was flushed; see MetricsFile.close
                self._writer.close()


class ProgressLine:
    """Step, metrics, clips per second and time left: one line that is redrawn on a terminal, plain lines
    elsewhere.

    Args:
        steps: length of the run.
        start: the step it starts from.
        shown: names of the metrics to show, those that exist.
        stream: where to; standard output by default.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        steps: int,
        start: int,
        shown: tuple[str, ...] = ("loss", "psnr"),
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps, self._shown, self._clock = steps, shown, clock
        self._stream = sys.stdout if stream is None else stream
        self._live = self._stream.isatty()
        self._mark: tuple[int, float] | None = None
        self._open = False
        self._start = start

    def begin(self, step: int) -> None:
        """Start the clock at a finished step: after the first, so that compilation does not count."""
        self._mark = (step, self._clock())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside, sampling for instance, does not count as training time."""
        began = self._clock()
        yield
        if self._mark is not None:
            self._mark = (self._mark[0], self._mark[1] + self._clock() - began)

    def show(self, step: int, values: Mapping[str, float], clips: int) -> float:
        """Show a step.

        Args:
            step: finished updates.
            values: averages since the last line.
            clips: clips seen since :meth:`begin`.

        Returns:
            clips per second since :meth:`begin`.
        """
        since, began = self._mark or (step, self._clock())
        seconds = max(self._clock() - began, 1e-9)
        rate = clips / seconds
        parts = [f"step {step}/{self._steps}"]
        parts += [f"{name} {values[name]:.4g}" for name in self._shown if name in values]
        if step > since:
            left = seconds / (step - since) * (self._steps - step)
            parts += [f"{rate:.4g} clips/s", f"ETA {duration(left)}"]
        line = "  ".join(parts)
        if self._live:
            self._stream.write(f"\r\x1b[K{line}")
            self._open = True
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()
        return rate

    def say(self, text: str) -> None:
        """A line of its own, below the progress so far."""
        self.close()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the live line."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False


def duration(seconds: float) -> str:
    """3661 -> "1h01m", 75 -> "1m15s", 9.4 -> "9s"."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    if seconds >= 60:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds}s"
