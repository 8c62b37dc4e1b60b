"""The base diffusion model: images and videos together, text-to-video and image-to-video, no camera.

Full size, on datasets that build_dataset made (cached latents or videos, text embeddings of a text encoder):
  python -m camctrl_jax.train --config=configs/base.py --workdir=runs/base \\
      --config.data.unlabelled=data/videos --config.data.text.source=data/text.safetensors \\
      --config.vae.weights=weights/wan

One GPU, a few minutes, nothing to download:
  python -m camctrl_jax.train --config=configs/base.py:worlds --workdir=runs/base \\
      --config.vae.weights=runs/vae

A laptop, about two minutes:
  python -m camctrl_jax.train --config=configs/base.py:worlds_cpu --workdir=runs/base_cpu

Seconds, to see every part run once:
  python -m camctrl_jax.train --config=configs/base.py:nano --workdir=runs/base_nano
"""

from ml_collections import ConfigDict

from camctrl_jax.training import variants
from camctrl_jax.training.config import choose_variant, default_config


def get_config(variant: str = "full") -> ConfigDict:
    """The recipe in one of its variants: full, worlds, worlds_cpu, nano."""
    config = default_config()
    variants.without_camera(config)
    config.data.video_turns = 4
    config.data.image_turns = 1
    config.tasks.t2v, config.tasks.i2v = 0.5, 0.5
    choose_variant(config, variant, (full, worlds, worlds_cpu, nano))
    return config


def full(config: ConfigDict) -> None:
    """64 devices, 192x320, four seconds at 12 frames per second; the size of the model is the user's."""
    variants.pod(config, "paper")
    config.model.remat = "dots"
    config.mesh.fsdp = 8
    config.data.height, config.data.width = 192, 320
    config.data.image_batch = 4096
    config.batch_size = 512
    config.steps = 300_000


def worlds(config: ConfigDict) -> None:
    """One GPU: 96x160, latents of 15,000 worlds and 15,000 clips of places in device memory."""
    config.data.image_batch = 512
    config.batch_size = 120
    config.tasks.t2v, config.tasks.i2v = 0.2, 0.8
    config.steps = 900
    variants.worlds_and_places(config)
    variants.muon_on_worlds(config)
    # The camera is learned next: the rate stays high enough to go on from.
    config.optimizer.final_learning_rate = 5e-4


def worlds_cpu(config: ConfigDict) -> None:
    """Two cores: clips of 17 frames of a few worlds; starts from the weights in the package."""
    variants.laptop(config, small_steps=False)
    config.data.worlds.seeds = (0, 32)
    config.data.image_batch = 16
    config.batch_size = 4


def nano(config: ConfigDict) -> None:
    """Seconds: a tiny model on latents of an untrained autoencoder."""
    worlds_cpu(config)
    variants.nano(config, worlds=8)
