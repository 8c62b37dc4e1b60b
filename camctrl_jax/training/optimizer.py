"""AdamW or Muon with the paper's schedule: linear warm-up, cosine decay (or a linear one), global-norm
clipping.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import jax
import optax

from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.roles import role_of
from camctrl_jax.training.moments import check_moments, scale_by_short_adam
from camctrl_jax.training.muon import scale_by_muon

KINDS = ("adamw", "muon")
DECAYS = ("cosine", "linear")


@dataclass(frozen=True)
class OptimizerConfig:
    """Defaults are those of CameraCtrl II, section 5 of its appendix.

    Attributes:
        kind: 'adamw', or 'muon': matrices and convolutions by Muon, vectors, first and last layers by AdamW,
            all at the same learning rate.
        learning_rate: peak of the schedule.
        initial_learning_rate: where the warm-up starts.
        final_learning_rate: where the decay ends, at the last step.
        decay: from the peak to there, 'cosine' or 'linear'.
        warmup_steps: length of the linear warm-up.
        b1, b2: decay rates of the Adam moments.
        momentum: decay rate of Muon's average of gradients.
        update_rms: size of Muon's updates before the learning rate. Adam's are near 0.2 in long runs with
            large batches and near 1 at the start of any run.
        weight_decay: decoupled decay of matrices and convolutions; vectors (norms, biases) have none.
        clip_norm: largest global gradient norm; 0 switches clipping off.
        moments: how Adam's moments are stored: 'float32' (8 bytes per parameter) or 'bfloat16' (4).
            Parameters and arithmetic are float32 in any case. Muon's average of gradients is float32 always.
    """

    kind: str = "adamw"
    learning_rate: float = 1e-4
    initial_learning_rate: float = 5e-5
    final_learning_rate: float = 1e-5
    decay: str = "cosine"
    warmup_steps: int = 500
    b1: float = 0.9
    b2: float = 0.95
    momentum: float = 0.95
    update_rms: float = 0.2
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    moments: str = "float32"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidValue(f"optimizer.kind={self.kind!r} is unknown; choose one of {', '.join(KINDS)}.")
        if self.decay not in DECAYS:
            raise InvalidValue(
                f"optimizer.decay={self.decay!r} is unknown; choose one of {', '.join(DECAYS)}."
            )
        if not self.learning_rate > 0:
            raise InvalidValue(f"optimizer.learning_rate={self.learning_rate} must be positive.")
        if self.warmup_steps < 0:
            raise InvalidValue(f"optimizer.warmup_steps={self.warmup_steps} must not be negative.")
        if not self.update_rms > 0:
            raise InvalidValue(f"optimizer.update_rms={self.update_rms} must be positive.")
        if self.clip_norm < 0:
            raise InvalidValue(
                f"optimizer.clip_norm={self.clip_norm} must not be negative; 0 switches it off."
            )
        check_moments(self.moments)
        for name in ("b1", "b2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidValue(f"optimizer.{name}={getattr(self, name)} must lie in [0, 1).")


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate as a pure function of the step, so that a resumed run sees the same values.

    Args:
        config: peak, ends and warm-up.
        steps: length of the run; the decay reaches ``final_learning_rate`` there.
    """
    if config.warmup_steps >= steps:
        raise InvalidValue(
            f"optimizer.warmup_steps={config.warmup_steps} must be smaller than steps={steps}; "
            f"lower it with --config.optimizer.warmup_steps={max(steps // 10, 0)}."
        )
    if config.decay == "linear":
        warmup = config.warmup_steps
        up = optax.linear_schedule(config.initial_learning_rate, config.learning_rate, max(warmup, 1))
        down = optax.linear_schedule(config.learning_rate, config.final_learning_rate, steps - warmup)
        return optax.join_schedules([up, down], [warmup])
    return optax.warmup_cosine_decay_schedule(
        init_value=config.initial_learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=config.final_learning_rate,
    )


def decay_mask(params: dict) -> dict:
    """True for leaves that weight decay applies to: matrices and convolutions, never norms or biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: role_of(path).matrix, params)


def muon_labels(params: dict) -> dict:
    """'muon' for the leaves that ``kind='muon'`` treats as matrices, 'adamw' for the rest: vectors, and the
    layers next to data.
    """

    def label(path: tuple, _: object) -> str:
        role = role_of(path)
        return "muon" if role.matrix and not role.edge else "adamw"

    return jax.tree_util.tree_map_with_path(label, params)


def make_optimizer(
    config: OptimizerConfig, steps: int, frozen: Collection[str] = ()
) -> optax.GradientTransformation:
    """Clip, AdamW or Muon, schedule: the transformation a run of ``steps`` steps uses.

    Args:
        config: rates and limits.
        steps: length of the run.
        frozen: top-level names of parameters that stay as they are, weight decay included.
    """
    schedule = learning_rate_schedule(config, steps)
    if config.moments == "float32":
        rule = optax.adamw(
            schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=decay_mask
        )
    else:
        rule = optax.chain(
            scale_by_short_adam(config.b1, config.b2),
            optax.add_decayed_weights(config.weight_decay, decay_mask),
            optax.scale_by_learning_rate(schedule),
        )
    if config.kind == "muon":
        muon = optax.chain(
            scale_by_muon(config.momentum, config.update_rms),
            optax.add_decayed_weights(config.weight_decay),
            optax.scale_by_learning_rate(schedule),
        )
        rule = optax.partition({"adamw": rule, "muon": muon}, muon_labels)
    parts = [rule] if config.clip_norm == 0 else [optax.clip_by_global_norm(config.clip_norm), rule]
    if frozen:
        parts.append(optax.masked(optax.set_to_zero(), partial(_mask_of, names=frozenset(frozen))))
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


def _mask_of(params: dict, names: frozenset[str]) -> dict:
    return {name: jax.tree.map(lambda _, masked=name in names: masked, params[name]) for name in params}
