"""What the recipes in ``configs/`` share: the variants for a laptop, and those that see every part run
once.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from camctrl_jax.training.values import NO_CAMERA
from camctrl_jax.training.world_sets import world_set

# Batches of a few short clips: small steps, so that what the weights know of longer ones stays.
_SMALL_STEPS = {"learning_rate": 2e-5, "initial_learning_rate": 1e-6, "final_learning_rate": 2e-6}


def without_camera(config: ConfigDict) -> None:
    """The base model: no camera layer at all."""
    config.model.camera.injection = NO_CAMERA


def pod(config: ConfigDict, preset: str) -> None:
    """Datasets on disk and the paper's model, or another preset, on a pod."""
    config.model.preset = preset
    config.data.kind = "datasets"
    config.data.workers = 8
    config.data.text.dim, config.data.text.max_tokens = 4096, 256
    config.checkpoint_every = 2000


def muon_on_worlds(config: ConfigDict) -> None:
    """The optimizer of one GPU's runs on worlds."""
    config.ema_decay = 0.999
    config.optimizer.kind = "muon"
    config.optimizer.update_rms = 1.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.initial_learning_rate = 1e-5
    config.optimizer.warmup_steps = 100


def worlds_and_places(config: ConfigDict) -> None:
    """Worlds that lie ahead of the first camera and places to explore, in turns: of places whole takes of a
    clip's length, and windows out of long ones.
    """
    config.data.worlds.seeds = (0, 15_000)
    sets = config.data.sets
    sets.worlds = world_set(config, turns=2)
    sets.places = world_set(config, seeds=(0, 7500), take_frames=config.data.worlds.frames)
    sets.takes = world_set(config, seeds=(10_000, 11_875), take_frames=500, windows_per_take=4)


def laptop(config: ConfigDict, *, small_steps: bool = True) -> None:
    """Two cores, about two minutes: clips of 17 frames of a few worlds, from the weights in the package."""
    config.init_from = "default"
    config.dtype = "float32"
    config.data.frames = 17
    config.data.worlds.frames = 17
    config.data.worlds.seeds = (0, 40)
    config.batch_size = 5
    config.steps = 30
    config.ema_decay = 0.99
    config.optimizer.warmup_steps = 5
    if small_steps:
        config.optimizer.update(_SMALL_STEPS)
    config.log_every = 2
    config.checkpoint_every = 15


def nano(config: ConfigDict, *, frames: int = 5, worlds: int = 10) -> None:
    """Seconds, on top of :func:`laptop`: a tiny model on latents of an untrained autoencoder."""
    config.init_from = ""
    config.vae.weights = "random"
    config.model.preset = "nano"
    config.model.num_single = 1
    nano_worlds(config, frames, worlds)
    config.optimizer.learning_rate = 2e-3


def nano_worlds(config: ConfigDict, frames: int, worlds: int) -> None:
    """A few worlds of 16x32 pixels, for 20 steps."""
    config.data.height, config.data.width = 16, 32
    config.data.frames = config.data.worlds.frames = frames
    config.data.worlds.samples = 1
    config.data.worlds.seeds = (0, worlds)
    config.steps = 20
    config.log_every = 5
    config.checkpoint_every = 10
