"""Stage 1: camera control, on labelled and unlabelled single clips together (4:1), T2V:I2V = 7:3.

Full size as in the paper (64 devices, 192x320), on datasets that build_dataset made:
  python -m camctrl_jax.train --config=configs/stage1.py --workdir=runs/stage1 --config.init_from=runs/base \\
      --config.data.datasets=data/labelled --config.data.unlabelled=data/videos \\
      --config.data.text.source=data/text.safetensors --config.vae.weights=weights/wan

The same on clips of ten seconds (121 frames), for the open base of 2B parameters and for the paper's model
at 8B, on 64 devices:
  python -m camctrl_jax.train --config=configs/stage1.py:motif_2b --workdir=runs/stage1 \\
      --config.init_from=weights/motif --config.vae.weights=weights/wan \\
      --config.data.datasets=data/labelled --config.data.unlabelled=data/videos \\
      --config.data.text.source=data/text.safetensors
  python -m camctrl_jax.train --config=configs/stage1.py:paper_8b --workdir=runs/stage1 \\
      --config.init_from=runs/base --config.vae.weights=weights/wan \\
      --config.data.datasets=data/labelled --config.data.unlabelled=data/videos \\
      --config.data.text.source=data/text.safetensors
What a machine needs for them: docs/results/reports, and python -m camctrl_jax.pod_report.

One GPU, about 20 minutes, nothing to download; from your own base model, or from the weights
in the package:
  python -m camctrl_jax.train --config=configs/stage1.py:worlds --workdir=runs/stage1 \\
      --config.init_from=runs/base --config.vae.weights=runs/vae
  python -m camctrl_jax.train --config=configs/stage1.py:worlds --workdir=runs/stage1

A laptop, about two minutes, from the weights in the package:
  python -m camctrl_jax.train --config=configs/stage1.py:worlds_cpu --workdir=runs/first

Your own videos without cameras, mixed with labelled worlds, at the size of the weights in the package:
  python -m camctrl_jax.train --config=configs/stage1.py:mixed --workdir=runs/mixed \\
      --config.data.datasets=data/worlds --config.data.unlabelled=data/mine

Seconds, to see every part run once:
  python -m camctrl_jax.train --config=configs/stage1.py:nano --workdir=runs/nano
"""

from ml_collections import ConfigDict

from camctrl_jax.training import variants
from camctrl_jax.training.config import choose_variant, default_config


def get_config(variant: str = "full") -> ConfigDict:
    """The recipe in one of its variants: full, motif_2b, paper_8b, worlds, worlds_cpu, mixed, nano."""
    config = default_config()
    choose_variant(config, variant, (full, motif_2b, paper_8b, worlds, worlds_cpu, mixed, nano))
    return config


def full(config: ConfigDict) -> None:
    """64 devices, 192x320, four seconds at 12 frames per second."""
    variants.pod(config, "paper")
    config.model.remat = "dots"
    config.mesh.fsdp = 8
    config.data.height, config.data.width = 192, 320
    config.batch_size = 320  # a multiple of five keeps 4:1 in every batch
    config.steps = 100_000


def motif_2b(config: ConfigDict) -> None:
    """64 devices, the open base of 2B parameters, ten seconds at 12 frames per second: 7,440 video tokens."""
    full(config)
    config.model.preset = "motif_2b"
    config.model.remat = "full"
    config.model.scan_layers = True
    config.mesh.data, config.mesh.fsdp = 1, -1
    config.data.frames = 121
    config.data.text.dim, config.data.text.max_tokens = 2560, 512


def paper_8b(config: ConfigDict) -> None:
    """64 devices, the paper's model at 8B parameters, clips of ten seconds."""
    motif_2b(config)
    config.model.preset = "paper_8b"
    config.data.text.dim, config.data.text.max_tokens = 4096, 256
    config.accumulate = 5


def worlds(config: ConfigDict) -> None:
    """One GPU: 96x160, latents of 15,000 worlds and 15,000 clips of places in device memory."""
    config.init_from = "default"
    config.tasks.t2v, config.tasks.i2v = 0.2, 0.8  # what such a small model is used for
    config.batch_size = 120
    config.steps = 14_500
    variants.worlds_and_places(config)
    variants.muon_on_worlds(config)
    config.checkpoint_every = 3000
    config.held_out.every = 500


def worlds_cpu(config: ConfigDict) -> None:
    """Two cores: clips of 17 frames of a few worlds."""
    variants.laptop(config)


def mixed(config: ConfigDict) -> None:
    """Datasets on disk at the size of the weights in the package; labelled and unlabelled."""
    worlds_cpu(config)
    config.data.kind = "datasets"


def nano(config: ConfigDict) -> None:
    """Seconds: a tiny model on latents of an untrained autoencoder."""
    worlds_cpu(config)
    variants.nano(config)
