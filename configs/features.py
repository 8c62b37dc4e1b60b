"""Features of whole clips, for the Frechet distance between sets of worlds: a small network, exact labels.

One GPU, about six minutes on an H100, nothing to download:
  python -m camctrl_jax.train --config=configs/features.py --workdir=runs/features

A laptop, a few minutes: the same network on few short clips, to see it learn:
  python -m camctrl_jax.train --config=configs/features.py:worlds_cpu --workdir=runs/features_cpu

Seconds, to see every part run once:
  python -m camctrl_jax.train --config=configs/features.py:nano --workdir=runs/features_nano

`bash launch/clip_features.sh OUT` makes the folder that ships with the package, and its table.
"""

from ml_collections import ConfigDict

from camctrl_jax.training import variants
from camctrl_jax.training.config import choose_variant, default_config


def get_config(variant: str = "worlds") -> ConfigDict:
    """The recipe in one of its variants: worlds, worlds_cpu, nano."""
    config = default_config()
    config.objective = "label"
    config.data.worlds.labels = True
    config.data.worlds.unlabelled_share = 0.0
    choose_variant(config, variant, (worlds, worlds_cpu, nano))
    return config


def worlds(config: ConfigDict) -> None:
    """One GPU: 96x160, worlds of 49 frames, half of a batch through the autoencoder in the package."""
    config.data.worlds.seeds = (0, 10_000)
    config.batch_size = 64
    config.steps = 3200
    config.ema_decay = 0.999
    config.optimizer.learning_rate = 2e-3
    config.optimizer.initial_learning_rate = 1e-4
    config.optimizer.final_learning_rate = 1e-6
    config.optimizer.warmup_steps = 100
    config.checkpoint_every = 1600


def worlds_cpu(config: ConfigDict) -> None:
    """Two cores: few clips of 17 frames, a quarter of a batch through the autoencoder."""
    config.dtype = "float32"
    config.data.frames = config.data.worlds.frames = 17
    config.data.worlds.seeds = (0, 64)
    config.batch_size = 4
    config.label_loss.reconstructed = 0.25
    config.steps = 60
    config.ema_decay = 0.9
    config.optimizer.learning_rate = 2e-3
    config.optimizer.initial_learning_rate = 2e-4
    config.optimizer.warmup_steps = 5
    config.log_every = 5
    config.checkpoint_every = 30


def nano(config: ConfigDict) -> None:
    """Seconds: 16x32 pixels, five frames, an untrained autoencoder."""
    worlds_cpu(config)
    config.model.preset = "nano"
    config.vae.weights = "random"
    variants.nano_worlds(config, frames=5, worlds=8)
