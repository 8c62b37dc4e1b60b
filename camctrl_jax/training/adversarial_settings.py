"""Settings of adversarial post-training, ``config.adversarial``: defaults and checks."""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from camctrl_jax.diffusion.adversarial import AdversarialConfig
from camctrl_jax.models.critic import LOGITS, CriticConfig
from camctrl_jax.training import students
from camctrl_jax.training.synthetic import REAL_KEY
from camctrl_jax.training.values import mmdit_config, require


def settings() -> dict[str, dict[str, Any]]:
    """The groups of ``config`` that are this objective's, with their defaults."""
    return {
        **students.settings(),
        "adversarial": dataclasses.asdict(AdversarialConfig())
        | {
            "logits": "frame",  # one for each latent frame; 'clip': one for all, as in APT
            "time_shift": placeholder(float),  # of the times that the critic is told; None: from the tokens
            "critic_rate": 1.0,  # learning rates of the critic, in those of config.optimizer
            "critic_first": 0,  # updates of the critic before the generator's first
            "real": "",  # a weights spec: clips of this student count as real; '': those of the data
            "real_steps": 4,  # of its sampler
        },
    }


def check(config: ConfigDict) -> None:
    """Raises: ConfigError for settings of this objective that cannot work."""
    students.check(config)
    own, loss = config.adversarial, adversarial_config(config)
    require(config, config.distil.steps == 1, "distil.steps", "a generator makes one step: expected 1")
    require(config, own.logits in LOGITS, "adversarial.logits", f"expected one of {LOGITS}")
    rate, positive = own.critic_rate, "expected a positive number"
    require(config, own.time_shift is None or own.time_shift > 0, "adversarial.time_shift", positive)
    require(config, rate is not None and rate > 0, "adversarial.critic_rate", positive)
    expected = f"expected 0 or more, and fewer than steps={config.steps}"
    require(config, 0 <= own.critic_first < config.steps, "adversarial.critic_first", expected)
    require(
        config,
        config.accumulate == 1 or loss.penalty_every == 1,
        "accumulate",
        f"expected 1 with adversarial.penalty_every={loss.penalty_every}: of a batch in parts other samples "
        "would be penalised",
    )
    expected = f"there is nothing to hold on to: expected 0, or a student in {REAL_KEY}, such as 'student'"
    require(config, not loss.anchor or bool(own.real), "adversarial.anchor", expected)
    require(
        config,
        not loss.wrong_camera or mmdit_config(config).camera is not None,
        "adversarial.wrong_camera",
        "this model has no camera (config.model.camera.injection): expected 0",
    )
    CriticConfig(mmdit_config(config), own.logits)


def adversarial_config(config: ConfigDict) -> AdversarialConfig:
    """The losses of a configuration."""
    own = config.adversarial
    return AdversarialConfig(**{f.name: own[f.name] for f in dataclasses.fields(AdversarialConfig)})
