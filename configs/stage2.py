"""Stage 2: clip extension, image-to-video and text-to-video together (2:3:5), at twice the resolution.

A clip is continued from 5 to 49 given frames (2 to 13 latents), which stay clean; the loss is on what is
generated. Starts from stage 1.

The paper's model at 8B parameters on 128 devices: 384x640, ten seconds (121 frames, 29,760 video tokens):
  python -m camctrl_jax.train --config=configs/stage2.py --workdir=runs/stage2 \\
      --config.init_from=runs/stage1 --config.vae.weights=weights/wan --config.data.datasets=data/labelled \\
      --config.data.unlabelled=data/videos --config.data.text.source=data/text.safetensors

The open base of 2B parameters, on 128 devices:
  python -m camctrl_jax.train --config=configs/stage2.py:motif_2b --workdir=runs/stage2 \\
      --config.init_from=runs/stage1 --config.vae.weights=weights/wan --config.data.datasets=data/labelled \\
      --config.data.unlabelled=data/videos --config.data.text.source=data/text.safetensors
What a machine needs for them: docs/results/reports, and python -m camctrl_jax.pod_report.

One GPU or a few, nothing to download: worlds and places at 192x320 and at 96x160, with memory of places:
  python -m camctrl_jax.train --config=configs/stage2.py:worlds --workdir=runs/stage2 \\
      --config.init_from=runs/stage1 --config.vae.weights=runs/vae

A laptop, about two minutes, from the weights in the package:
  python -m camctrl_jax.train --config=configs/stage2.py:worlds_cpu --workdir=runs/stage2_cpu

Seconds, to see every part run once:
  python -m camctrl_jax.train --config=configs/stage2.py:nano --workdir=runs/stage2_nano
"""

from ml_collections import ConfigDict

from camctrl_jax.training import variants
from camctrl_jax.training.config import choose_variant, default_config
from camctrl_jax.training.world_sets import world_set


def get_config(variant: str = "full") -> ConfigDict:
    """The recipe in one of its variants: full, motif_2b, worlds, worlds_cpu, nano."""
    config = default_config()
    config.tasks.extension, config.tasks.i2v, config.tasks.t2v = 0.2, 0.3, 0.5
    choose_variant(config, variant, (full, motif_2b, worlds, worlds_cpu, nano))
    return config


def full(config: ConfigDict) -> None:
    """128 devices, 8B parameters, 384x640, clips of ten seconds at 12 frames per second."""
    variants.long_clips(config)
    config.steps = 50_000


def motif_2b(config: ConfigDict) -> None:
    """128 devices, the open base of 2B parameters."""
    full(config)
    variants.open_base(config)


def worlds(config: ConfigDict) -> None:
    """One GPU or a few: latents of worlds, and of windows anywhere in takes of 500 frames through places.

    Clips of 49 frames at 192x320 and, for a laptop, at 96x160, extension:I2V:T2V = 2:3:5 as in the paper.
    They are extended from 5 to 45 frames (2 to 12 latents), after which one latent is left. The rest of the
    paper's range, 49 given frames, needs longer windows: ``long`` has 97 frames, so that 12 to 23 latents
    are generated after 2 to 13, as many as a clip adds in sampling. In the two sets with memory four frames
    from elsewhere in the take are given, too. Extension is half of all batches, more than in the paper: it
    is what explorations are made of, and two sets learn what the paper has not.

    A step has 60,000 to 130,000 tokens; batches divide by five (4:1) and by four (devices).
    """
    config.init_from = "default"
    config.batch_size = 120
    config.steps = 10_000
    variants.muon_on_worlds(config)
    config.checkpoint_every = 2500
    config.held_out.every = 500
    config.data.worlds.seeds = (0, 8000)
    large, takes = {"height": 192, "width": 320}, {"take_frames": 500, "windows_per_take": 4}
    extended = {**variants.EXTENSION_ONLY, **takes}
    memory = {"retrieved": 4, **extended}
    sets = config.data.sets
    sets.worlds = world_set(config)
    sets.places = world_set(config, seeds=(0, 2000), **takes)
    sets.long = world_set(config, seeds=(2000, 2600), batch_size=60, frames=97, **extended)
    sets.memory = world_set(config, seeds=(3000, 4000), batch_size=80, **memory)
    sets.large_worlds = world_set(config, turns=2, seeds=(8000, 11_000), batch_size=40, **large)
    sets.large_places = world_set(config, turns=2, seeds=(5000, 5750), batch_size=40, **large, **takes)
    sets.large_memory = world_set(config, turns=2, seeds=(6000, 6500), batch_size=20, **large, **memory)


def worlds_cpu(config: ConfigDict) -> None:
    """Two cores: clips of 17 frames of a few worlds, continued from two or three latents."""
    variants.laptop(config)
    config.tasks.extension_latents = (2, 3)


def nano(config: ConfigDict) -> None:
    """Seconds: a tiny model on latents of an untrained autoencoder; worlds, larger places, and memory."""
    worlds_cpu(config)
    variants.nano(config, frames=9)
    variants.nano_sets(config)
