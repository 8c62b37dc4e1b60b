"""What the user sees of a run, and what is kept of it."""

import io
import json
import resource

import numpy as np
import pytest

from camctrl_jax.checkpoints.runs import CheckpointError
from camctrl_jax.training.writers import METRICS_FILE, MetricsFile, ProgressLine, TensorBoard, duration


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress_after(stream, clock):
    """Twenty steps of eight clips in ten seconds, after a first step that took a minute to compile."""
    progress = ProgressLine(100, 0, stream=stream, clock=clock)
    clock.now += 60.0
    progress.begin(1)
    clock.now += 10.0
    return progress, progress.show(21, {"loss": 0.12345, "grad_norm": 1.0}, clips=160)


def test_speed_and_time_left_do_not_count_compilation():
    stream = io.StringIO()
    _, rate = progress_after(stream, Clock())
    assert rate == pytest.approx(16.0)
    assert stream.getvalue() == "step 21/100  loss 0.1235  16 clips/s  ETA 40s\n"  # 79 steps at two a second


def test_time_in_samples_does_not_count():
    clock = Clock()
    progress, _ = progress_after(io.StringIO(), clock)
    with progress.paused():
        clock.now += 500.0
    clock.now += 10.0
    assert progress.show(41, {}, clips=320) == pytest.approx(16.0)


def test_a_terminal_gets_one_line_that_is_redrawn():
    stream, clock = Terminal(), Clock()
    progress, _ = progress_after(stream, clock)
    progress.show(22, {"loss": 0.1}, clips=168)
    assert stream.getvalue().count("\n") == 0
    assert stream.getvalue().count("\r") == 2
    progress.say("a note")
    assert stream.getvalue().endswith("\na note\n")


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.4, "9s"), (75, "1m15s"), (3600, "1h00m"), (90_061, "25h01m")]
)
def test_durations_read_naturally(seconds, text):
    assert duration(seconds) == text


def read(path):
    return [json.loads(line) for line in (path / METRICS_FILE).read_text().splitlines()]


def test_metrics_are_json_lines_even_where_they_are_not_numbers(tmp_path):
    metrics = MetricsFile(tmp_path, 0)
    metrics.write(1, {"loss": 0.5, "loss_unlabelled": float("nan")})
    metrics.close()
    assert read(tmp_path) == [{"step": 1, "loss": 0.5, "loss_unlabelled": None}]


def test_a_resumed_run_repeats_no_step(tmp_path):
    first = MetricsFile(tmp_path, 0)
    for step in (10, 20, 30):
        first.write(step, {"loss": float(step)})
    first.close()
    with open(tmp_path / METRICS_FILE, "a") as file:
        file.write('{"step": 40, "lo')  # killed while writing
    second = MetricsFile(tmp_path, 20)  # the last checkpoint was at 20
    second.write(30, {"loss": -1.0})
    second.close()
    assert [(line["step"], line["loss"]) for line in read(tmp_path)] == [(10, 10.0), (20, 20.0), (30, -1.0)]


def test_tensorboard_is_optional(tmp_path, monkeypatch):
    monkeypatch.setattr("camctrl_jax.training.writers.EventsWriter", None)
    board = TensorBoard(tmp_path, 0)
    board.write(1, {"loss": 1.0})
    board.close()
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_reads_scalars_pictures_and_the_place_of_a_restart(tmp_path):
    loader = pytest.importorskip("tensorboardX.record_writer")
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    board = TensorBoard(tmp_path, start=20)
    board.write(21, {"loss": 0.5})
    board.write_image(21, "samples", image)
    board.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, events = path.read_bytes(), []
    while content:  # length u64, its checksum u32, an event, its checksum u32
        size = int.from_bytes(content[:8], "little")
        assert int.from_bytes(content[8:12], "little") == loader.masked_crc32c(content[:8])
        events.append(Event.FromString(content[12 : 12 + size]))
        content = content[12 + size + 4 :]
    version, restart, scalar, picture = events
    assert version.file_version == "brain.Event:2"
    assert (restart.step, restart.session_log.status) == (21, SessionLog.START)
    assert (scalar.step, scalar.summary.value[0].tag) == (21, "loss")
    assert scalar.summary.value[0].simple_value == 0.5
    shown = picture.summary.value[0].image
    assert (shown.height, shown.width, shown.colorspace) == (2, 3, 3)
    assert shown.encoded_image_string.startswith(b"\x89PNG")


@pytest.mark.parametrize("make", [MetricsFile, TensorBoard])
def test_a_full_disk_is_one_clear_error(tmp_path, make):
    if make is TensorBoard:
        pytest.importorskip("tensorboardX")
    writer = make(tmp_path, 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a write beyond it fails as on a full disk
    try:
        with pytest.raises(CheckpointError, match="the disk is full"):  # noqa: PT012
            for step in range(100):
                writer.write(step, {"loss": 0.25})
        writer.close()  # and closing does not hide it
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
