"""Adversarial post-training (APT): clips in one step, one evaluation for 64 or 96.

Two runs. The first makes a student that agrees with itself along its teacher's path (consistency), with the
teacher's guidance folded in; its clips are soft. The second trains it against a critic that starts from the
teacher's weights. Both read the data and tasks of stage 2, cameras included. For the paper's order name the
student of 16 steps (configs/distill_progressive.py) as the teacher of the first:
  python -m camctrl_jax.train --config=configs/distill_apt.py:consistency_worlds --workdir=runs/consistency \\
      --config.distil.teacher=runs/student_16 --config.distil.teacher_steps=16 \\
      --config.distil.text_guidance=1 --config.distil.camera_guidance=1

The paper's model at 8B parameters on 128 devices:
  python -m camctrl_jax.train --config=configs/distill_apt.py:consistency --workdir=runs/consistency \\
      --config.distil.teacher=runs/stage2 --config.vae.weights=weights/wan \\
      --config.data.datasets=data/labelled --config.data.unlabelled=data/videos \\
      --config.data.text.source=data/text.safetensors
  python -m camctrl_jax.train --config=configs/distill_apt.py --workdir=runs/apt \\
      --config.init_from=runs/consistency --config.distil.teacher=runs/stage2 \\
      --config.vae.weights=weights/wan --config.data.datasets=data/labelled \\
      --config.data.unlabelled=data/videos --config.data.text.source=data/text.safetensors

The open base of 2B parameters, on 128 devices:
  python -m camctrl_jax.train --config=configs/distill_apt.py:consistency_motif_2b \\
      --workdir=runs/consistency --config.distil.teacher=runs/stage2 --config.vae.weights=weights/wan \\
      --config.data.datasets=data/labelled --config.data.unlabelled=data/videos \\
      --config.data.text.source=data/text.safetensors
  python -m camctrl_jax.train --config=configs/distill_apt.py:motif_2b --workdir=runs/apt \\
      --config.init_from=runs/consistency --config.distil.teacher=runs/stage2 \\
      --config.vae.weights=weights/wan --config.data.datasets=data/labelled \\
      --config.data.unlabelled=data/videos --config.data.text.source=data/text.safetensors
What a machine needs for them: docs/results/reports, and python -m camctrl_jax.pod_report.

One GPU or a few, nothing to download: the weights in the package as the teacher:
  python -m camctrl_jax.train --config=configs/distill_apt.py:consistency_worlds --workdir=runs/consistency
  python -m camctrl_jax.train --config=configs/distill_apt.py:worlds --workdir=runs/apt \\
      --config.init_from=runs/consistency

A laptop, a few minutes each:
  python -m camctrl_jax.train --config=configs/distill_apt.py:consistency_worlds_cpu \\
      --workdir=runs/consistency_cpu
  python -m camctrl_jax.train --config=configs/distill_apt.py:worlds_cpu --workdir=runs/apt_cpu \\
      --config.init_from=runs/consistency_cpu

Seconds each, to see every part run once:
  python -m camctrl_jax.train --config=configs/distill_apt.py:consistency_nano \\
      --workdir=runs/consistency_nano
  python -m camctrl_jax.train --config=configs/distill_apt.py:nano --workdir=runs/apt_nano \\
      --config.init_from=runs/consistency_nano
"""

from ml_collections import ConfigDict

from camctrl_jax.training import variants
from camctrl_jax.training.config import choose_variant, default_config


def get_config(variant: str = "full") -> ConfigDict:
    """The recipe in one of its variants: full, motif_2b, worlds, worlds_cpu, nano; and what they start from:
    consistency, consistency_motif_2b, consistency_worlds, consistency_worlds_cpu, consistency_nano.
    """
    config = default_config()
    config.objective = "adversarial"
    config.tasks.extension, config.tasks.i2v, config.tasks.t2v = 0.2, 0.3, 0.5
    config.distil.steps, config.distil.teacher_steps = 1, 32
    first = (consistency, consistency_motif_2b, consistency_worlds, consistency_worlds_cpu, consistency_nano)
    choose_variant(config, variant, (full, motif_2b, worlds, worlds_cpu, nano, *first))
    return config


def full(config: ConfigDict) -> None:
    """128 devices, 8B parameters, 384x640, clips of ten seconds; rates and losses of APT.

    The non-saturating loss and one logit a clip are the paper's. Its batches are larger; ``rp`` is steadier
    with small ones.
    """
    variants.student_pod(config)
    config.steps = 1000
    config.checkpoint_every = 100
    _alternating(config, rate=3e-6)
    config.adversarial.loss, config.adversarial.logits = "ns", "clip"


def motif_2b(config: ConfigDict) -> None:
    """128 devices, the open base of 2B parameters."""
    full(config)
    variants.open_base(config)


def worlds(config: ConfigDict) -> None:
    """One GPU or a few: the sets of stage 2, half of the clips a step. Relativistic, a logit a latent frame;
    half a weight on clips with the cameras of others.

    The critic sees four clips for each: true, made, moved, and with a wrong camera. Two cards of 80 GB
    take a step in two parts, as it is here; one takes it in five (--config.accumulate=5).

    Clips of the flow map in the package, four steps, count as real, and the generator is held to those of its
    own noise; with another teacher, or other guidance, name a student of that one, or none
    (--config.adversarial.real= --config.adversarial.anchor=0). Of short runs from the flow map on one set
    (worlds, 30 clips on one card) with a critic that counts this did least harm
    (docs/results/distillation.md). A start from consistency, the other sets, a whole run, and what memory it
    takes in parts, were not tried so.
    """
    variants.student_of_worlds(config)
    variants.student_sets(config, 60, long=40, memory=40, large=20, large_memory=20, large_turns=2)
    config.accumulate = 2
    config.steps = 3000
    config.checkpoint_every = 500
    config.held_out.every = 250
    _alternating(config, rate=5e-5)
    config.adversarial.critic_first = 200
    config.adversarial.real, config.adversarial.anchor = "student", 100.0
    _seeing_little_noise(config)
    config.adversarial.time_shift = 0.25  # told that little noise is left, its backbone looks at fine detail
    config.adversarial.wrong_camera = 0.5
    config.adversarial.centering = 0.01  # relativistic logits drift otherwise


def worlds_cpu(config: ConfigDict) -> None:
    """Two cores: clips of 17 frames of a few worlds, continued from two or three latents."""
    variants.laptop_student(config)
    _alternating(config, rate=1e-5)
    _seeing_little_noise(config)
    config.adversarial.wrong_camera = 0.25


def nano(config: ConfigDict) -> None:
    """Seconds: tiny networks; worlds, larger places, and memory; by default from an untrained teacher."""
    variants.nano_student(config)
    _alternating(config, rate=1e-4)
    config.init_from = "random"
    config.adversarial.wrong_camera = 0.25


def consistency(config: ConfigDict) -> None:
    """Where ``full`` starts: 5000 updates at a rate of 1e-5, as APT's successor has them."""
    _before(config)
    variants.student_pod(config)
    config.steps = 5000


def consistency_motif_2b(config: ConfigDict) -> None:
    """Where ``motif_2b`` starts."""
    consistency(config)
    variants.open_base(config)


def consistency_worlds(config: ConfigDict) -> None:
    """Where ``worlds`` starts: the sets of stage 2, with fewer clips."""
    _before(config)
    variants.student_of_worlds(config)
    variants.student_sets(config, 120, long=60, memory=80, large=40, large_memory=20, large_turns=2)


def consistency_worlds_cpu(config: ConfigDict) -> None:
    """Where ``worlds_cpu`` starts."""
    _before(config)
    variants.laptop_student(config)


def consistency_nano(config: ConfigDict) -> None:
    """Where ``nano`` starts: a tiny student of an untrained teacher."""
    _before(config)
    variants.nano_student(config)


def _before(config: ConfigDict) -> None:
    config.objective = "consistency"


def _alternating(config: ConfigDict, rate: float) -> None:
    """Adam without an average of gradients, at one rate; the critic's is ``critic_rate`` times it."""
    config.ema_decay = 0.995
    config.optimizer.kind = "adamw"
    config.optimizer.b1, config.optimizer.b2 = 0.0, 0.9
    config.optimizer.weight_decay = 0.0
    config.optimizer.warmup_steps = 0
    config.optimizer.decay = "linear"
    config.optimizer.learning_rate = config.optimizer.initial_learning_rate = rate
    config.optimizer.final_learning_rate = rate
    config.optimizer.clip_norm = 5.0


def _seeing_little_noise(config: ConfigDict) -> None:
    """Noise of 0.1 on latents of worlds is plain to see in the video: a critic that is penalised with it is
    taught to overlook it. Lambda sigma^2 is what it is by default.
    """
    config.adversarial.sigma, config.adversarial.penalty = 0.02, 2500.0
