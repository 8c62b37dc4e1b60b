"""The loop: order of events, signals, values that are not finite, full disks."""

import io
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from camctrl_jax.checkpoints.runs import CheckpointError, Checkpoints, checkpoint_steps
from camctrl_jax.training.loop import (
    BAD_BATCH_FILE,
    BAD_CLIPS_FILE,
    Hooks,
    LoopConfig,
    NonFiniteLoss,
    Run,
    train,
)
from camctrl_jax.training.state import create_state, global_norm
from camctrl_jax.training.update import Update
from camctrl_jax.training.writers import ProgressLine

OPTIMIZER = optax.sgd(0.1)


class Numbers:
    """Batches 0, 1, 2, ...; writes down what is asked of it."""

    def __init__(self, events, bad=()):
        self.position, self.events, self.bad = 0, events, bad

    def __next__(self):
        self.events.append(f"draw {self.position}")
        value = np.nan if self.position in self.bad else float(self.position)
        self.position += 1
        return {"x": np.full((4, 1), value, np.float32), "clip_index": np.arange(4) + 4 * (self.position - 1)}

    def state(self):
        return {"position": self.position}

    def restore(self, state):
        self.position = state["position"]

    def describe(self, batch):
        return [f"clip-{index}" for index in batch["clip_index"]]

    def bad_clips(self):
        return {f"clip-{number}": "truncated" for number in range(self.position // 3)}


@jax.jit
def fit_mean(state, batch, rng):
    loss, grads = jax.value_and_grad(lambda params: jnp.mean((params["w"] - batch["x"]) ** 2))(state.params)
    metrics = {
        "loss": loss,
        "grad_norm": global_norm(grads),
        "sometimes": jnp.where(loss > 1, loss, jnp.nan),
    }
    return Update(OPTIMIZER, ema_decay=0.99).apply(state, grads), metrics


class Recorded(Checkpoints):
    def __init__(self, run_dir, events):
        super().__init__(run_dir)
        self.events = events

    def save(self, step, *arguments):
        self.events.append(f"save {step}")
        super().save(step, *arguments)


def run(
    tmp_path,
    config,
    *,
    events=None,
    bad=(),
    stream=None,
    hooks=None,
    step_function=fit_mean,
    start=0,
    state=None,
):
    events = [] if events is None else events
    checkpoints = Recorded(tmp_path, events)
    stream = Numbers(events, bad) if stream is None else stream
    progress = ProgressLine(config.steps, start, stream=io.StringIO())
    try:
        return train(
            create_state({"w": jnp.zeros(())}, OPTIMIZER) if state is None else state,
            step_function,
            jax.random.key(0),
            config,
            Run(tmp_path, start, stream, jax.device_put, checkpoints, progress),
            Hooks(**{"describe": lambda state: {"facts": 1}} | (hooks or {})),
        )
    finally:
        checkpoints.close()


def test_state_is_saved_before_the_next_batch_is_drawn(tmp_path):
    events = []
    outcome = run(tmp_path, LoopConfig(steps=5, checkpoint_every=2), events=events)
    assert events == ["draw 0", "draw 1", "save 2", "draw 2", "draw 3", "save 4", "draw 4", "save 5"]
    assert (outcome.step, outcome.stopped_by) == (5, None)
    assert int(outcome.state.step) == 5


def test_clips_that_could_not_be_used_are_listed_with_every_checkpoint(tmp_path):
    run(tmp_path / "short", LoopConfig(steps=2))
    assert not list((tmp_path / "short").glob("bad_clips*"))
    run(tmp_path / "long", LoopConfig(steps=7, checkpoint_every=2))
    listed = json.loads((tmp_path / "long" / BAD_CLIPS_FILE.format(process=0)).read_text())
    assert listed == {"clip-0": "truncated", "clip-1": "truncated"}


def test_logged_values_are_means_over_the_interval(tmp_path):
    run(tmp_path, LoopConfig(steps=4, log_every=2))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    # w: 0 -> 0 (x=0) -> 0.2 (x=1) -> 0.56 (x=2): losses 0, 1, 3.24, 5.9536.
    assert lines[0]["loss"] == pytest.approx(0.5)
    assert lines[1]["loss"] == pytest.approx((3.24 + 5.9536) / 2, rel=1e-5)
    assert "sometimes" not in lines[0]  # undefined in the whole interval
    assert lines[1]["sometimes"] == pytest.approx(lines[1]["loss"])
    assert all(0.0 <= line["data_wait"] <= 1.0 for line in lines)


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def passes(self, seconds, function):
        def timed(*arguments):
            self.now += seconds
            return function(*arguments)

        return timed


class Loss:
    """The metric of a step that the device may still be working on."""

    def __init__(self, ready):
        self.ready = ready

    def is_ready(self):
        return self.ready

    def __array__(self, *_, **__):
        return np.array(1.0)


# Six steps: drawing a batch takes a second, handing out its step three. The first step, of which compilation
# is a part, is read in the third turn; what counts is from there on, the batches of steps 4 to 6.
@pytest.mark.parametrize(
    ("busy", "save_every", "share"),
    [({1, 2, 3, 4, 5, 6}, 0, 0.0), (set(), 0, 3 / 12), ({4, 5}, 0, 1 / 12), ({1, 2, 3, 4, 5, 6}, 4, 1 / 12)],
    ids=["busy", "dry", "dry after step 3", "dry after a save"],
)
def test_only_batches_that_the_device_ran_dry_for_count(tmp_path, monkeypatch, busy, save_every, share):
    clock, done = Clock(), []
    monkeypatch.setattr("camctrl_jax.training.loop.time", clock)

    class Slow(Numbers):
        __next__ = clock.passes(1.0, Numbers.__next__)

    def step_function(state, batch, rng):
        done.append(len(done) + 1)
        return state, {"loss": Loss(done[-1] not in busy)}

    run(
        tmp_path,
        LoopConfig(steps=6, log_every=6, checkpoint_every=save_every),
        stream=Slow([]),
        step_function=clock.passes(3.0, step_function),
    )
    (line,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert line["data_wait"] == pytest.approx(share)


def test_resumed_equals_uninterrupted(tmp_path):
    whole = run(tmp_path / "whole", LoopConfig(steps=6)).state
    run(tmp_path / "parts", LoopConfig(steps=3))
    opened = Checkpoints(tmp_path / "parts")
    shapes = jax.eval_shape(lambda: whole)
    place = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), shapes)
    state, position = opened.restore(shapes, place)
    opened.close()
    stream = Numbers([])
    stream.restore(position)
    resumed = run(tmp_path / "parts", LoopConfig(steps=6), stream=stream, start=3, state=state).state
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_leads_to_a_checkpoint(tmp_path, name):
    class Interrupted(Numbers):
        def __next__(self):
            if self.position == 3:
                os.kill(os.getpid(), getattr(signal, name))
            return super().__next__()

    before = signal.getsignal(getattr(signal, name))
    outcome = run(tmp_path, LoopConfig(steps=1000), stream=Interrupted([]))
    assert (outcome.step, outcome.stopped_by) == (4, name)
    assert checkpoint_steps(tmp_path) == [4]
    assert signal.getsignal(getattr(signal, name)) is before


def test_nan_stops_the_run_names_the_clips_and_keeps_the_last_good_checkpoint(tmp_path):
    events = []
    with pytest.raises(NonFiniteLoss, match=r"loss is nan at step 6.*bad_batch.json"):
        run(tmp_path, LoopConfig(steps=100, checkpoint_every=2), events=events, bad=(5,))
    assert checkpoint_steps(tmp_path) == [2, 4]
    report = json.loads((tmp_path / BAD_BATCH_FILE).read_text())
    assert report["step"] == 6
    assert report["clips"] == ["clip-20", "clip-21", "clip-22", "clip-23"]
    assert report["metrics"]["loss"] == "nan"


def test_nan_at_a_step_that_would_be_saved_is_not_saved(tmp_path):
    with pytest.raises(NonFiniteLoss, match="step 4"):
        run(tmp_path, LoopConfig(steps=4, checkpoint_every=2), bad=(3,))
    assert checkpoint_steps(tmp_path) == [2]


def test_a_gradient_that_is_not_finite_counts_too(tmp_path):
    def step(state, batch, rng):
        state, metrics = fit_mean(state, batch, rng)
        return state, metrics | {"grad_norm": jnp.where(state.step == 3, jnp.inf, 1.0)}

    with pytest.raises(NonFiniteLoss, match="grad_norm is inf at step 3"):
        run(tmp_path, LoopConfig(steps=10), step_function=jax.jit(step))


@pytest.mark.parametrize("name", ["critic_loss", "critic_grad_norm"])
def test_a_second_network_that_is_not_finite_counts_too(tmp_path, name):
    def step(state, batch, rng):
        state, metrics = fit_mean(state, batch, rng)
        share = jnp.where(state.step == 2, jnp.nan, 1.0)  # a mean over an empty share of the batch may be NaN
        return state, metrics | {name: jnp.where(state.step == 3, jnp.nan, 1.0), "loss_labelled": share}

    with pytest.raises(NonFiniteLoss, match=f"{name} is nan at step 3"):
        run(tmp_path, LoopConfig(steps=10, checkpoint_every=1), step_function=jax.jit(step))
    assert checkpoint_steps(tmp_path) == [1, 2]


def test_a_full_disk_ends_the_run_with_the_earlier_checkpoint_in_place(tmp_path, monkeypatch):
    save = Recorded.save

    def full_from_four_on(self, step, *arguments):
        if step >= 4:
            raise CheckpointError("the disk is full")
        save(self, step, *arguments)

    monkeypatch.setattr(Recorded, "save", full_from_four_on)
    with pytest.raises(CheckpointError, match="disk is full"):
        run(tmp_path, LoopConfig(steps=10, checkpoint_every=2))
    assert checkpoint_steps(tmp_path) == [2]


def test_samples_are_drawn_on_time_and_logged(tmp_path):
    seen = []

    def sample(step, state, tensorboard):
        seen.append((step, int(state.step)))
        return {"sample_psnr": 20.0 + step}

    run(tmp_path, LoopConfig(steps=4, log_every=100, sample_every=2), hooks={"sample": sample})
    assert seen == [(2, 2), (4, 4)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["sample_psnr"] for line in lines if "sample_psnr" in line] == [22.0, 24.0]


def test_a_hidden_transfer_in_the_step_is_refused(tmp_path):
    def step(state, batch, rng):
        return fit_mean(state, {**batch, "x": np.ones((4, 1), np.float32)}, rng)

    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run(tmp_path, LoopConfig(steps=2), step_function=step)


def test_held_out_clips_are_measured_on_time_with_the_state_of_the_step(tmp_path):
    seen = []

    def measure(state):
        seen.append(int(state.step))
        return {"held_out_loss": 1.0 / seen[-1]}

    config = LoopConfig(steps=5, log_every=100, measure_every=2)
    run(tmp_path, config, hooks={"measure": measure})
    assert seen == [2, 4]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["held_out_loss"] for line in lines if "held_out_loss" in line] == [0.5, 0.25]


def test_model_flops_are_logged(tmp_path, monkeypatch):
    monkeypatch.setattr("camctrl_jax.training.loop.peak_flops", lambda: 1e12)
    run(tmp_path, LoopConfig(steps=4, log_every=2), hooks={"work": lambda batch: 4e9 * len(batch["x"])})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        expected = 4e9 * line["clips_per_second"] / jax.device_count()
        assert line.get("model_tflops_per_device", 0.0) == pytest.approx(expected / 1e12)
        assert line.get("mfu", 0.0) == pytest.approx(expected / 1e12)
    assert "mfu" in lines[-1]


def test_a_trace_of_the_asked_steps_is_written(tmp_path):
    run(tmp_path, LoopConfig(steps=4, profile=(2, 3)))
    names = {path.name.split(".", 1)[-1] for path in (tmp_path / "tensorboard").rglob("*") if path.is_file()}
    assert {"xplane.pb", "json.gz"} <= {name for full in names for name in (full, full.split(".", 1)[-1])}
