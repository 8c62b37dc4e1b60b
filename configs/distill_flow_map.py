"""A flow map: one student that is sampled with 1, 2, 4, 8, 16 or 32 steps, without guidance.

Beyond the paper. The shortest steps are learned from the guided teacher, by a quarter of each batch; longer
ones from two of the student's own, of half the length. It starts as its teacher; data and tasks are those of
stage 2.

The paper's model at 8B parameters on 128 devices:
  python -m camctrl_jax.train --config=configs/distill_flow_map.py --workdir=runs/flow_map \\
      --config.distil.teacher=runs/stage2 --config.vae.weights=weights/wan \\
      --config.data.datasets=data/labelled --config.data.unlabelled=data/videos \\
      --config.data.text.source=data/text.safetensors

The open base of 2B parameters, on 128 devices:
  python -m camctrl_jax.train --config=configs/distill_flow_map.py:motif_2b --workdir=runs/flow_map \\
      --config.distil.teacher=runs/stage2 --config.vae.weights=weights/wan \\
      --config.data.datasets=data/labelled --config.data.unlabelled=data/videos \\
      --config.data.text.source=data/text.safetensors
What a machine needs for them: docs/results/reports, and python -m camctrl_jax.pod_report.

One GPU or a few, nothing to download: the weights in the package as the teacher:
  python -m camctrl_jax.train --config=configs/distill_flow_map.py:worlds --workdir=runs/flow_map

A laptop, a few minutes:
  python -m camctrl_jax.train --config=configs/distill_flow_map.py:worlds_cpu --workdir=runs/flow_map_cpu

Seconds, to see every part run once:
  python -m camctrl_jax.train --config=configs/distill_flow_map.py:nano --workdir=runs/flow_map_nano
"""

from ml_collections import ConfigDict

from camctrl_jax.training import variants
from camctrl_jax.training.config import choose_variant, default_config


def get_config(variant: str = "full") -> ConfigDict:
    """The recipe in one of its variants: full, motif_2b, worlds, worlds_cpu, nano."""
    config = default_config()
    config.objective = "flow_map"
    config.tasks.extension, config.tasks.i2v, config.tasks.t2v = 0.2, 0.3, 0.5
    config.distil.steps, config.distil.teacher_steps = 4, 32
    choose_variant(config, variant, (full, motif_2b, worlds, worlds_cpu, nano))
    return config


def full(config: ConfigDict) -> None:
    """128 devices, 8B parameters, 384x640, clips of ten seconds at 12 frames per second; dual guidance.

    Four clips a device, of which one learns from the teacher.
    """
    variants.student_pod(config)
    config.batch_size = 512


def motif_2b(config: ConfigDict) -> None:
    """128 devices, the open base of 2B parameters."""
    full(config)
    variants.open_base(config)


def worlds(config: ConfigDict) -> None:
    """One, two or four GPUs: the sets of stage 2, with fewer clips; batches divide by five (4:1), and by
    four on each of four devices.

    Longer steps learn from the average: a slow one would hand on what the network no longer says.
    """
    variants.student_of_worlds(config)
    config.ema_decay = 0.995
    config.optimizer.learning_rate = 5e-4
    variants.student_sets(config, 160, long=80, memory=80, large=80, large_memory=80, large_turns=1)


def worlds_cpu(config: ConfigDict) -> None:
    """Two cores: clips of 17 frames of a few worlds, continued from two or three latents."""
    variants.laptop_student(config, batch_size=4)


def nano(config: ConfigDict) -> None:
    """Seconds: a tiny student of an untrained teacher; worlds, larger places, and memory."""
    variants.nano_student(config, batch_size=4)
