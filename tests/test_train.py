"""train.py as a user runs it: it resumes exactly, stops politely, and explains what is wrong."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from camctrl_jax import train as entry
from camctrl_jax.checkpoints.run_lock import LOCK_FILE
from camctrl_jax.checkpoints.runs import CheckpointError, checkpoint_steps, load_params, load_run_config
from camctrl_jax.errors import exit_status
from camctrl_jax.training import command as command_line
from camctrl_jax.training.config import load_recipe
from camctrl_jax.training.loop import BAD_BATCH_FILE, NonFiniteLoss
from camctrl_jax.training.run import train
from camctrl_jax.training.values import ConfigError

ROOT = Path(__file__).parents[1]
STEPS = 42
# The smallest model, for tests that need any model: compiling its step takes half the time.
SMALLEST = {"model.num_single": 0}


def command(workdir, *flags, config="stage1.py:nano"):
    return [
        sys.executable,
        "-m",
        "camctrl_jax.train",
        f"--config=configs/{config}",
        f"--workdir={workdir}",
        *flags,
    ]


def start(*arguments, **options):
    """A training process, its output line by line."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command(*arguments, **options), cwd=ROOT, env=environment, **pipes)


def finish(process, code=0):
    output = process.communicate()[0]
    assert process.returncode == code, output
    return output


def stop_at(process, step, number):
    """Send a signal once a step has been reported."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        match = re.match(r"step (\d+)/", line)
        if match and int(match[1]) >= step:
            process.send_signal(number)
            break
    rest = process.communicate()[0]
    return "".join(seen) + rest


def recipe(name="stage1", variant="nano", **changes):
    config = load_recipe(f"{ROOT / 'configs' / name}.py:{variant}")
    config.update_from_flattened_dict(changes)
    return config


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


@pytest.mark.slow
def test_killed_runs_end_bit_identical_to_the_uninterrupted_one(tmp_path, capsys):
    flags = (f"--config.steps={STEPS}", "--config.log_every=1", "--config.checkpoint_every=10")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    output = finish(start(whole, *flags))
    assert f"checkpoint: {whole}/checkpoints/{STEPS}" in output
    assert not re.search(r"^I\d{4} ", output, re.MULTILINE), output  # what libraries note for themselves

    killed = start(parts, *flags)
    # A save waits for the one before it: at step 21 the checkpoint of step 10 is complete.
    stop_at(killed, random.randrange(21, 27), signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert 10 <= checkpoint_steps(parts)[-1] < STEPS

    stopped = start(parts, *flags)  # the same command continues; this time it is asked to stop
    output = stop_at(stopped, random.randrange(31, 36), signal.SIGTERM)
    assert stopped.returncode == 0, output
    assert "stopped by SIGTERM at step" in output
    step = checkpoint_steps(parts)[-1]
    assert f"checkpoint: {parts}/checkpoints/{step}" in output
    assert step < STEPS

    output = finish(start(parts, *flags))
    assert f"parameters from {parts}/checkpoints/{step}" in output
    for ema in (True, False):
        expected, found = load_params(whole, ema=ema), load_params(parts, ema=ema)
        _compare(expected, found)
    # Equal losses at every step: the batches were the same, too.
    assert losses(parts) == losses(whole)
    assert len(losses(whole)) == STEPS

    assert train(recipe(steps=STEPS), parts) == parts / "checkpoints" / str(STEPS)
    assert f"is at step {STEPS} of {STEPS}; raise --config.steps" in capsys.readouterr().out


@pytest.mark.slow
def test_a_second_start_in_a_run_directory_is_refused_and_disturbs_nothing(tmp_path):
    flags = ("--config.steps=12", "--config.log_every=1", "--config.checkpoint_every=4")
    first = start(tmp_path, *flags)
    while not (tmp_path / LOCK_FILE).exists() or not (tmp_path / LOCK_FILE).read_text():
        assert first.poll() is None
        time.sleep(0.05)
    second = finish(start(tmp_path, "--config.steps=11"), code=1)
    assert f"is in use: process {first.pid} on {socket.gethostname()}" in second
    assert "Traceback" not in second
    assert "rendered" not in second  # refused before any work
    finish(first)
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 12
    assert list(losses(tmp_path)) == list(range(1, 13))
    assert checkpoint_steps(tmp_path)[-1] == 12


@pytest.mark.slow
def test_a_decoder_alone_trains_on_when_the_weights_it_began_with_are_gone(tmp_path):
    vae, decoder = tmp_path / "vae", tmp_path / "decoder"
    short = {"steps": 2, "optimizer.warmup_steps": 1, "checkpoint_every": 2}
    train(recipe("vae", **short), vae)
    encoder = load_params(vae)["encoder"]
    flags = ("--config.steps=8", "--config.log_every=1", "--config.checkpoint_every=4")
    flags += ("--config.vae_loss.train_encoder=False", f"--config.init_from={vae}")
    running = start(decoder, *flags, config="vae.py:nano")
    for line in running.stdout:
        if line.startswith("step 1/"):
            vae.rename(tmp_path / "gone")
            break
    finish(running)
    assert checkpoint_steps(decoder) == [4, 8]
    _compare(encoder, load_params(decoder)["encoder"])
    finish(start(decoder, *flags[1:], "--config.steps=9", config="vae.py:nano"))
    assert checkpoint_steps(decoder)[-1] == 9


def _compare(expected, found):
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            _compare(value, found[name])
        else:
            np.testing.assert_array_equal(value, found[name], err_msg=name)


def test_help_teaches():
    """Asked without a recipe, as a newcomer does: with one, the libraries that read it are loaded first."""
    help_of = [sys.executable, "-m", "camctrl_jax.train", "--help"]
    output = subprocess.run(help_of, cwd=ROOT, capture_output=True, text=True).stdout
    for text in ("configs/stage1.py", ":worlds_cpu", "--print_config", "Where a run starts", "--workdir"):
        assert text in output


def test_a_wrong_command_line_is_one_sentence(tmp_path):
    """In a process of its own; the tests below are of what else can be wrong, and share this one."""
    output = finish(start(tmp_path, "--config.steps=0"), code=1)
    assert "error: config.steps=0: expected at least 1" in output
    assert "Traceback" not in output


def test_a_missing_workdir_is_one_sentence(capsys):
    asked = command_line.Asked((), recipe(), "", False)
    assert exit_status(lambda: command_line.run(asked)) == 1
    assert capsys.readouterr().err.startswith("error: --workdir is missing")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.stpes=3"], "error: unknown config key 'stpes'; did you mean 'steps'?"),
        (["--config.model.camera=False"], "--config.model.camera=False: model.camera is a group of keys"),
        (["--config.steps=many"], "error: --config.steps=many: expected a whole number"),
    ],
)
def test_a_wrong_flag_is_one_sentence(capsys, flags, message):
    with pytest.raises(SystemExit, match=r"^1$"):
        entry.parse_flags(["train", f"--config={ROOT / 'configs' / 'stage1.py:nano'}", "--workdir=x", *flags])
    assert message in capsys.readouterr().err


def test_an_unknown_flag_is_one_sentence(capsys):
    with pytest.raises(SystemExit, match=r"^1$"):
        entry.parse_flags(["train", "--stpes=3"])
    assert capsys.readouterr().err.startswith("error: Unknown command line flag 'stpes'")


@pytest.mark.parametrize("spelling", ["--config={}", "--config {}"])
def test_an_unknown_key_is_found_however_the_recipe_is_given(capsys, spelling):
    config = spelling.format(ROOT / "configs" / "stage1.py:nano").split()
    with pytest.raises(SystemExit):
        entry.parse_flags(["train", *config, "--config.stpes=3"])
    assert "error: unknown config key 'stpes'; did you mean 'steps'?" in capsys.readouterr().err


def test_the_effective_config_can_be_printed(tmp_path):
    lists = ("--config.data.datasets=data/a, data/b", "--config.data.labelled_to_unlabelled=1,0")
    output = finish(start(tmp_path, "--config.steps=123", *lists, "--print_config"))
    assert "steps: 123" in output
    assert re.search(r"  datasets: \S*\s+- data/a\s+- data/b\n", output)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_another_batch_size_says_how_many_clips_it_passes_over(tmp_path, capsys):
    short = {"optimizer.warmup_steps": 1, "checkpoint_every": 4, **SMALLEST}
    train(recipe(steps=4, **short), tmp_path)
    assert "worlds: 10 clips, 8 labelled; drawn: 10" in capsys.readouterr().out
    train(recipe(steps=5, batch_size=10, **short), tmp_path)
    output = capsys.readouterr().out
    assert (
        "data since the checkpoint: clips of 5 frames, 16x32: batches of 10 clips where they were 5. "
        "Positions count batches: in the order of drawing 16 labelled clips are passed over and 4 unlabelled "
        "clips are passed over\n"
    ) in output
    assert "changed since the checkpoint: batch_size: 5 -> 10" in output
    with pytest.raises(
        ConfigError, match=rf"as many clips \(10\), but in others.*--config\.init_from={tmp_path} "
    ):
        train(recipe(steps=6, **short, **{"data.worlds.seeds": (10, 20)}), tmp_path)
    assert "rendered" not in capsys.readouterr().out
    assert train(recipe(steps=6, **short), tmp_path).name == "6"


def test_what_is_held_out_is_looked_up_before_any_work(tmp_path, capsys):
    changes = {"held_out.every": 2, "held_out.datasets": (str(tmp_path / "none"),)}
    with pytest.raises(ConfigError, match=r"config\.held_out\.datasets: .*none does not exist"):
        train(recipe(**SMALLEST, **changes), tmp_path / "run")
    assert "rendered" not in capsys.readouterr().out


@pytest.mark.slow
def test_stages_hand_their_weights_on(tmp_path, capsys):
    """VAE, base without a camera, stage 1: each starts from what the one before wrote."""
    short = {"steps": 4, "optimizer.warmup_steps": 1, "checkpoint_every": 4, **SMALLEST}
    vae, base, stage1 = (tmp_path / name for name in ("vae", "base", "stage1"))
    train(recipe("vae", **short, **{"data.image_turns": 0}), vae)
    built = load_run_config(vae)["architecture"]["vae"]
    assert len(built["latents_mean"]) == 16
    assert all(std > 0 for std in built["latents_std"])
    assert built["latents_std"] != [1.0] * 16  # measured, not the preset's

    train(recipe("base", **short, **{"vae.weights": str(vae)}), base)
    assert "camera_embedder" not in load_params(base)

    sampled = {"sample_every": 4, "sample.seeds": (100, 101), "sample.steps": 2}
    config = recipe(**short, **sampled, **{"vae.weights": str(vae), "init_from": str(base)})
    train(config, stage1)
    assert "(new: camera_embedder)" in capsys.readouterr().out
    params = load_params(stage1)
    assert np.any(params["camera_embedder"]["kernel"] != 0)
    assert load_run_config(stage1)["architecture"]["vae_spec"] == str(vae)
    assert (stage1 / "samples" / "0000004.png").exists()
    assert json.loads((stage1 / "config.json").read_text())["init_from"] == str(base)

    # Weights of one autoencoder's latents with another autoencoder, weights of other sizes, and the same
    # directory with another preset: each is refused before data are rendered.
    refused = [
        (ConfigError, r"latents of the autoencoder .*--config.vae.weights=", {"vae.weights": "random"}),
        (CheckpointError, r"init_from=.* does not fit .* has shape", {"model.num_single": 2}),
    ]
    for error, message, changes in refused:
        config = recipe(**{**short, "vae.weights": str(vae), "init_from": str(base), **changes})
        with pytest.raises(error, match=message):
            train(config, tmp_path / "refused")
    config = recipe(**short, **{"vae.weights": str(vae), "model.width": 96, "model.heads": 4})
    with pytest.raises(CheckpointError, match=r"checkpoints/4 does not fit the model .* has shape"):
        train(config, stage1)
    assert "rendered" not in capsys.readouterr().out


def test_loss_falls_on_a_nano_run(tmp_path):
    changes = {"steps": 150, "log_every": 15, "checkpoint_every": 150, "optimizer.learning_rate": 4e-3}
    train(recipe(**changes, **SMALLEST), tmp_path)
    values = list(losses(tmp_path).values())
    assert np.mean(values[-3:]) < 0.9 * values[0]


def test_a_run_that_diverges_stops_and_lists_the_clips(tmp_path):
    changes = {
        "optimizer.learning_rate": 1e30,
        "optimizer.initial_learning_rate": 1e30,
        "checkpoint_every": 1,
    }
    with pytest.raises(NonFiniteLoss, match=r"bad_batch\.json"):
        train(recipe(**changes, **SMALLEST), tmp_path)
    report = json.loads((tmp_path / BAD_BATCH_FILE).read_text())
    assert all(re.fullmatch(r"world-\d+", clip) for clip in report["clips"])
    assert len(report["clips"]) == 5
    assert checkpoint_steps(tmp_path)[-1] < report["step"]


def test_a_mesh_of_other_sizes_than_the_devices_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'fsdp': 64.* needs \d+ devices, but there are"):
        train(recipe(**{"mesh.fsdp": 64}), tmp_path)


def test_batches_that_cannot_be_split_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("camctrl_jax.training.program.batch_shards", lambda mesh: 4)
    with pytest.raises(ConfigError, match="batch of 5 cannot be split into the 4 parts"):
        train(recipe(), tmp_path)
