"""The base diffusion model: images and videos together, text-to-video and image-to-video, no camera.

Full size, on datasets that build_dataset made (cached latents or videos, text embeddings of a text encoder):
  python -m camctrl_jax.train --config=configs/base.py --workdir=runs/base \\
      --config.data.unlabelled=data/videos --config.data.text.source=data/text.safetensors \\
      --config.vae.weights=weights/wan

One GPU, about three minutes on an H200, nothing to download:
  python -m camctrl_jax.train --config=configs/base.py:worlds --workdir=runs/base \\
      --config.vae.weights=runs/vae

A laptop, about two minutes:
  python -m camctrl_jax.train --config=configs/base.py:worlds_cpu --workdir=runs/base_cpu

Seconds, to see every part run once:
  python -m camctrl_jax.train --config=configs/base.py:nano --workdir=runs/base_nano
"""

from ml_collections import ConfigDict

from camctrl_jax.training.config import choose_variant, default_config


def get_config(variant: str = "full") -> ConfigDict:
    """The recipe in one of its variants: full, worlds, worlds_cpu, nano."""
    config = default_config()
    config.model.camera = False
    config.data.video_turns = 4
    config.data.image_turns = 1
    config.tasks.t2v, config.tasks.i2v = 0.5, 0.5
    choose_variant(config, variant, {"full": full, "worlds": worlds, "worlds_cpu": worlds_cpu, "nano": nano})
    return config


def full(config: ConfigDict) -> None:
    """64 devices, 192x320, four seconds at 12 frames per second; the size of the model is the user's."""
    config.model.preset = "paper"
    config.model.remat = "dots"
    config.mesh.fsdp = 8
    config.data.kind = "datasets"
    config.data.height, config.data.width = 192, 320
    config.data.workers = 8
    config.data.image_batch = 4096
    config.data.text.dim, config.data.text.max_tokens = 4096, 256
    config.batch_size = 512
    config.steps = 300_000
    config.checkpoint_every = 2000


def worlds(config: ConfigDict) -> None:
    """One GPU: 96x160, latents of 30,000 worlds in device memory."""
    config.data.worlds.seeds = (0, 30_000)
    config.data.image_batch = 512
    config.batch_size = 120
    config.tasks.t2v, config.tasks.i2v = 0.2, 0.8
    config.steps = 900
    config.ema_decay = 0.999
    config.optimizer.kind = "muon"
    config.optimizer.update_rms = 1.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.initial_learning_rate = 1e-5
    # The camera is learned next: the rate stays high enough to go on from.
    config.optimizer.final_learning_rate = 5e-4
    config.optimizer.warmup_steps = 100


def worlds_cpu(config: ConfigDict) -> None:
    """Two cores: clips of 17 frames of a few worlds; starts from the weights in the package."""
    config.dtype = "float32"
    config.init_from = "default"
    config.data.frames = 17
    config.data.worlds.frames = 17
    config.data.worlds.seeds = (0, 32)
    config.data.image_batch = 16
    config.batch_size = 4
    config.steps = 30
    config.ema_decay = 0.99
    config.optimizer.warmup_steps = 5
    config.log_every = 2
    config.checkpoint_every = 15


def nano(config: ConfigDict) -> None:
    """Seconds: a tiny model on latents of an untrained autoencoder."""
    worlds_cpu(config)
    config.init_from = ""
    config.vae.weights = "random"
    config.model.preset = "nano"
    config.model.num_single = 1
    config.data.height, config.data.width = 16, 32
    config.data.frames = config.data.worlds.frames = 5
    config.data.worlds.samples = 1
    config.data.worlds.seeds = (0, 8)
    config.steps = 20
    config.optimizer.learning_rate = 2e-3
    config.log_every = 5
    config.checkpoint_every = 10
