"""What the recipes in ``configs/`` share: the variants for a laptop, and those that see every part run
once.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from camctrl_jax.training.values import NO_CAMERA
from camctrl_jax.training.world_sets import world_set

# Samples of sets whose only task is extension, without and with memory: one row of the paper's mix, apart.
EXTENSION_ONLY = {"t2v": 0.0, "i2v": 0.0, "extension": 1.0}
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


def long_clips(config: ConfigDict) -> None:
    """128 devices, the paper's model at 8B parameters, 384x640, clips of ten seconds."""
    pod(config, "paper_8b")
    config.model.remat = "full"
    config.model.scan_layers = True
    config.mesh.data, config.mesh.fsdp = 1, -1
    config.data.height, config.data.width, config.data.frames = 384, 640, 121
    config.vae.encode_chunk = 1
    config.batch_size = 128
    config.checkpoint_every = 1000


def open_base(config: ConfigDict) -> None:
    """The open base of 2B parameters in place of the paper's model."""
    config.model.preset = "motif_2b"
    config.data.text.dim, config.data.text.max_tokens = 2560, 512


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


def nano_sets(config: ConfigDict) -> None:
    """Worlds, larger places, and memory, a few of each."""
    config.tasks.extension_latents = (2, 2)
    takes = {"take_frames": 49, "windows_per_take": 5}
    sets = config.data.sets
    sets.worlds = world_set(config)
    sets.places = world_set(config, seeds=(0, 2), height=32, width=48, **takes)
    sets.memory = world_set(config, seeds=(2, 4), retrieved=2, **EXTENSION_ONLY, **takes)


# Of recipes that distil.


def student_pod(config: ConfigDict) -> None:
    """The paper's model and clips of stage 2 on 128 devices; the teacher is asked with dual guidance."""
    long_clips(config)
    config.distil.text_guidance, config.distil.camera_guidance = 7.5, 6.0
    config.steps = 10_000
    config.ema_decay = 0.999
    _linear(config, 1e-5, warmup=100)


def student_of_worlds(config: ConfigDict) -> None:
    """The weights in the package as the teacher, and the optimizer of one GPU's runs."""
    config.distil.teacher = "default"
    config.steps = 6000
    muon_on_worlds(config)
    _linear(config, 3e-4, warmup=100)
    config.checkpoint_every = 1500
    config.held_out.every = 500


def student_sets(
    config: ConfigDict,
    batch_size: int,
    *,
    long: int,
    memory: int,
    large: int,
    large_memory: int,
    large_turns: int,
) -> None:
    """The sets of stage 2 with about a third of their clips, each of which is seen more often: a student
    learns what its teacher makes of them, with noise that is new every time.

    Args:
        config: changed in place.
        batch_size: of worlds and places.
        long, memory, large, large_memory: batches of the sets that are called so.
        large_turns: of all larger clips.
    """
    config.batch_size = batch_size
    config.data.worlds.seeds = (0, 3000)
    takes = {"take_frames": 500, "windows_per_take": 4}
    remembering = {"retrieved": 4, **EXTENSION_ONLY, **takes}
    larger = {"height": 192, "width": 320, "turns": large_turns}
    sets = config.data.sets
    sets.worlds = world_set(config)
    sets.places = world_set(config, seeds=(0, 600), **takes)
    sets.long = world_set(config, seeds=(2000, 2240), batch_size=long, frames=97, **EXTENSION_ONLY, **takes)
    sets.memory = world_set(config, seeds=(3000, 3300), batch_size=memory, **remembering)
    sets.large_worlds = world_set(config, seeds=(8000, 9200), batch_size=large, **larger)
    sets.large_places = world_set(config, seeds=(5000, 5300), batch_size=large, **larger, **takes)
    sets.large_memory = world_set(
        config, seeds=(6000, 6200), batch_size=large_memory, **larger, **remembering
    )


def laptop_student(config: ConfigDict, batch_size: int = 5) -> None:
    """Two cores, a few minutes, on top of :func:`laptop`."""
    laptop(config)
    config.init_from = ""  # as its teacher
    config.batch_size = batch_size
    config.distil.teacher = "default"
    config.tasks.extension_latents = (2, 3)


def nano_student(config: ConfigDict, batch_size: int = 5) -> None:
    """Seconds: an untrained teacher; worlds, larger places, and memory."""
    laptop_student(config, batch_size)
    nano(config, frames=9)
    config.distil.teacher = "random"
    nano_sets(config)


def _linear(config: ConfigDict, rate: float, warmup: int) -> None:
    """A learning rate that falls to zero linearly."""
    config.optimizer.learning_rate = rate
    config.optimizer.initial_learning_rate = rate / 100
    config.optimizer.final_learning_rate = 0.0
    config.optimizer.decay = "linear"
    config.optimizer.warmup_steps = warmup
