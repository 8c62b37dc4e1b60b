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

A laptop, about two minutes, from the weights in the package:
  python -m camctrl_jax.train --config=configs/stage2.py:worlds_cpu --workdir=runs/stage2_cpu

Seconds, to see every part run once:
  python -m camctrl_jax.train --config=configs/stage2.py:nano --workdir=runs/stage2_nano
"""

from ml_collections import ConfigDict

from camctrl_jax.training import variants
from camctrl_jax.training.config import choose_variant, default_config


def get_config(variant: str = "full") -> ConfigDict:
    """The recipe in one of its variants: full, motif_2b, worlds_cpu, nano."""
    config = default_config()
    config.tasks.extension, config.tasks.i2v, config.tasks.t2v = 0.2, 0.3, 0.5
    choose_variant(config, variant, (full, motif_2b, worlds_cpu, nano))
    return config


def full(config: ConfigDict) -> None:
    """128 devices, 8B parameters, 384x640, clips of ten seconds at 12 frames per second."""
    variants.pod(config, "paper_8b")
    config.model.remat = "full"
    config.model.scan_layers = True
    config.mesh.data, config.mesh.fsdp = 1, -1
    config.data.height, config.data.width, config.data.frames = 384, 640, 121
    config.vae.encode_chunk = 1
    config.batch_size = 128
    config.steps = 50_000
    config.checkpoint_every = 1000


def motif_2b(config: ConfigDict) -> None:
    """128 devices, the open base of 2B parameters."""
    full(config)
    config.model.preset = "motif_2b"
    config.data.text.dim, config.data.text.max_tokens = 2560, 512


def worlds_cpu(config: ConfigDict) -> None:
    """Two cores: clips of 17 frames of a few worlds, continued from two or three latents."""
    variants.laptop(config)
    config.tasks.extension_latents = (2, 3)


def nano(config: ConfigDict) -> None:
    """Seconds: a tiny model on latents of an untrained autoencoder."""
    worlds_cpu(config)
    variants.nano(config, frames=9)
    config.tasks.extension_latents = (2, 2)
