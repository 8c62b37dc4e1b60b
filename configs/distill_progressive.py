"""Progressive distillation: 16 steps without guidance for 32 with it, 16 evaluations for 64 or 96.

The student makes in one step what its teacher makes in two, guidance folded in, on the data and tasks of
stage 2. It starts as its teacher. Each further run halves the steps of the one before:
  python -m camctrl_jax.train --config=configs/distill_progressive.py:worlds --workdir=runs/student_8 \\
      --config.distil.teacher=runs/student_16 --config.distil.teacher_steps=16 --config.distil.steps=8 \\
      --config.distil.text_guidance=1 --config.distil.camera_guidance=1

The paper's model at 8B parameters on 128 devices:
  python -m camctrl_jax.train --config=configs/distill_progressive.py --workdir=runs/student_16 \\
      --config.distil.teacher=runs/stage2 --config.vae.weights=weights/wan \\
      --config.data.datasets=data/labelled --config.data.unlabelled=data/videos \\
      --config.data.text.source=data/text.safetensors

The open base of 2B parameters, on 128 devices:
  python -m camctrl_jax.train --config=configs/distill_progressive.py:motif_2b --workdir=runs/student_16 \\
      --config.distil.teacher=runs/stage2 --config.vae.weights=weights/wan \\
      --config.data.datasets=data/labelled --config.data.unlabelled=data/videos \\
      --config.data.text.source=data/text.safetensors
What a machine needs for them: docs/results/reports, and python -m camctrl_jax.pod_report.

One GPU or a few, nothing to download: the weights in the package as the teacher:
  python -m camctrl_jax.train --config=configs/distill_progressive.py:worlds --workdir=runs/student_16

A laptop, a few minutes:
  python -m camctrl_jax.train --config=configs/distill_progressive.py:worlds_cpu --workdir=runs/student_cpu

Seconds, to see every part run once:
  python -m camctrl_jax.train --config=configs/distill_progressive.py:nano --workdir=runs/student_nano
"""

from ml_collections import ConfigDict

from camctrl_jax.training import variants
from camctrl_jax.training.config import choose_variant, default_config


def get_config(variant: str = "full") -> ConfigDict:
    """The recipe in one of its variants: full, motif_2b, worlds, worlds_cpu, nano."""
    config = default_config()
    config.objective = "distil"
    config.tasks.extension, config.tasks.i2v, config.tasks.t2v = 0.2, 0.3, 0.5
    config.distil.steps, config.distil.teacher_steps = 16, 32
    choose_variant(config, variant, (full, motif_2b, worlds, worlds_cpu, nano))
    return config


def full(config: ConfigDict) -> None:
    """128 devices, 8B parameters, 384x640, clips of ten seconds at 12 frames per second; dual guidance."""
    variants.student_pod(config)


def motif_2b(config: ConfigDict) -> None:
    """128 devices, the open base of 2B parameters."""
    full(config)
    variants.open_base(config)


def worlds(config: ConfigDict) -> None:
    """One GPU or a few: the sets of stage 2, with fewer clips; batches divide by five (4:1) and by four."""
    variants.student_of_worlds(config)
    variants.student_sets(config, 120, long=60, memory=80, large=40, large_memory=20, large_turns=2)


def worlds_cpu(config: ConfigDict) -> None:
    """Two cores: clips of 17 frames of a few worlds, continued from two or three latents."""
    variants.laptop_student(config)


def nano(config: ConfigDict) -> None:
    """Seconds: a tiny student of an untrained teacher; worlds, larger places, and memory."""
    variants.nano_student(config)
