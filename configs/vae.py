"""The causal video autoencoder: 4x in time, 8x in space, 16 channels.

Full size (the Wan 2.1 sizes, with discriminators), on datasets that build_dataset made:
  python -m camctrl_jax.train --config=configs/vae.py --workdir=runs/vae --config.data.unlabelled=data/videos

Two GPUs, eleven minutes on H200s, nothing to download; its videos take 43 GiB of each. Then its decoder alone
against discriminators, four minutes on one:
  python -m camctrl_jax.train --config=configs/vae.py:worlds --workdir=runs/vae
  python -m camctrl_jax.train --config=configs/vae.py:worlds_decoder --workdir=runs/decoder \\
      --config.init_from=runs/vae

The same on worlds at 96x160 alone, which is what docs/results/autoencoder.md measured, about seven minutes:
  python -m camctrl_jax.train --config=configs/vae.py:worlds_ahead --workdir=runs/vae_ahead

A laptop, about two minutes, a small autoencoder:
  python -m camctrl_jax.train --config=configs/vae.py:worlds_cpu --workdir=runs/vae_cpu

Half a minute each, to see every part run once:
  python -m camctrl_jax.train --config=configs/vae.py:nano --workdir=runs/vae_nano
  python -m camctrl_jax.train --config=configs/vae.py:nano_decoder --workdir=runs/decoder_nano \\
      --config.init_from=runs/vae_nano
"""

from ml_collections import ConfigDict

from camctrl_jax.training import variants
from camctrl_jax.training.config import choose_variant, default_config
from camctrl_jax.training.world_sets import world_set


def get_config(variant: str = "full") -> ConfigDict:
    """The recipe in one of its variants.

    full, worlds, worlds_decoder, worlds_ahead, worlds_cpu, nano, nano_decoder.
    """
    config = default_config()
    config.objective = "autoencode"
    config.optimizer.weight_decay = 0.0
    config.data.video_turns = 4
    config.data.image_turns = 1
    choose_variant(
        config, variant, (full, worlds, worlds_decoder, worlds_ahead, worlds_cpu, nano, nano_decoder)
    )
    return config


def full(config: ConfigDict) -> None:
    """64 devices, 192x320, windows of 17 frames."""
    config.model.preset = "wan21"
    config.model.remat = "full"
    config.data.kind = "datasets"
    config.data.height, config.data.width, config.data.frames = 192, 320, 17
    config.data.workers = 8
    config.batch_size = 128
    config.data.image_batch = 512
    config.steps = 300_000
    config.vae_loss.adversarial = 0.1
    config.vae_loss.adversarial_start = 50_000
    config.optimizer.warmup_steps = 2000
    config.checkpoint_every = 5000
    config.sample_every = 5000


def worlds(config: ConfigDict) -> None:
    """One GPU or two: worlds and windows of takes through places, at 96x160 and 192x320, in device memory.

    A step is sixteen clips at 96x160 or four at 192x320, as many pixels.
    """
    worlds_ahead(config)
    config.vae_loss.equivariance = 0.25
    config.batch_size = 16
    config.steps = 9000
    config.checkpoint_every = 3000
    places = {"take_frames": 193, "windows_per_take": 4}
    large = {"height": 192, "width": 320, "batch_size": 4}
    sets = config.data.sets
    sets.worlds = world_set(config, turns=2, seeds=(0, 6000))
    sets.places = world_set(config, turns=2, seeds=(0, 1500), **places)
    sets.large_worlds = world_set(config, seeds=(8000, 9000), **large)
    sets.large_places = world_set(config, seeds=(2000, 2250), **large, **places)


def worlds_decoder(config: ConfigDict) -> None:
    """One GPU: the decoder alone against discriminators, from an autoencoder (--config.init_from=)."""
    worlds(config)
    _decoder_alone(config)
    config.optimizer.kind = "adamw"
    config.optimizer.learning_rate = 3e-4
    config.batch_size = 8
    config.steps = 1600
    sets = config.data.sets
    sets.large_worlds.batch_size = sets.large_places.batch_size = 2
    sets.worlds.worlds.seeds, sets.places.worlds.seeds = (0, 3000), (0, 750)
    sets.large_worlds.worlds.seeds, sets.large_places.worlds.seeds = (8000, 8500), (2000, 2125)


def worlds_ahead(config: ConfigDict) -> None:
    """One GPU: 96x160, whole worlds of 49 frames that stay in device memory.

    Windows of the length that is used later: trained on 17 frames, the model lost 5 dB towards frame 49.
    The optimizer and the sizes are what won at equal time (docs/results/autoencoder.md).
    """
    config.optimizer.kind = "muon"
    config.optimizer.update_rms = 1.0
    config.vae_sizes.base_dim = 48
    config.vae_sizes.dim_mult = (1, 2, 3)
    config.vae_sizes.frame_wise_levels = (0, 2)
    config.data.worlds.seeds = (0, 8000)
    config.data.frames = 49
    config.data.image_turns = 0  # every clip begins with an image; one shape less to compile
    config.batch_size = 8
    config.steps = 9500
    config.ema_decay = 0.999
    config.optimizer.learning_rate = 1e-3
    config.optimizer.initial_learning_rate = 1e-5
    config.optimizer.warmup_steps = 100
    config.optimizer.final_learning_rate = 1e-6
    config.checkpoint_every = 4750


def worlds_cpu(config: ConfigDict) -> None:
    """Two cores: a small autoencoder at half the size."""
    config.dtype = "float32"
    config.model.preset = "nano"
    config.data.height, config.data.width, config.data.frames = 48, 80, 9
    config.data.worlds.seeds = (0, 48)
    config.data.worlds.frames = 17
    config.batch_size = 4
    config.data.image_batch = 16
    config.steps = 300
    config.ema_decay = 0.99
    config.optimizer.learning_rate = 2e-3
    config.optimizer.initial_learning_rate = 1e-4
    config.optimizer.warmup_steps = 20
    config.vae_loss.measure_clips = 16
    config.log_every = 10
    config.checkpoint_every = 100
    config.sample_every = 100


def _decoder_alone(config: ConfigDict) -> None:
    """Latents stay what they are."""
    config.init_from = "default"
    config.vae_loss.train_encoder = False
    config.vae_loss.adversarial = 0.1
    config.vae_loss.equivariance = 0.0


def nano(config: ConfigDict) -> None:
    """One step to compile, then seconds: worlds and windows of takes, all of five frames of 16x32 pixels."""
    worlds_cpu(config)
    variants.nano_worlds(config, frames=5, worlds=8)
    config.batch_size = 2
    config.data.image_turns = 0
    config.optimizer.warmup_steps = 2
    config.vae_loss.measure_clips = 4
    config.sample_every = 0
    config.data.sets.worlds = world_set(config)
    config.data.sets.places = world_set(config, seeds=(0, 3), take_frames=49, windows_per_take=2)


def nano_decoder(config: ConfigDict) -> None:
    """Seconds: the decoder of ``nano`` alone."""
    nano(config)
    _decoder_alone(config)
    config.vae_loss.discriminator_dim = 8
