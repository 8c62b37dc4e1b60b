"""AdamW with the paper's schedule: linear warm-up, cosine decay, global-norm clipping."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import jax
import optax

from camctrl_jax.training.moments import check_moments, scale_by_compact_adam


@dataclass(frozen=True)
class OptimizerConfig:
    """Defaults are those of CameraCtrl II, section 5 of its appendix.

    Attributes:
        learning_rate: peak of the schedule.
        initial_learning_rate: where the warm-up starts.
        final_learning_rate: where the cosine ends, at the last step.
        warmup_steps: length of the linear warm-up.
        b1, b2: decay rates of the Adam moments.
        weight_decay: decoupled decay of matrices and convolutions; vectors (norms, biases) have none.
        clip_norm: largest global gradient norm; 0 switches clipping off.
        moments: how Adam's moments are stored: 'float32' (8 bytes per parameter), 'bfloat16' (4) or 'int8'
            (a little more than 2). Parameters and arithmetic are float32 in any case.
    """

    learning_rate: float = 1e-4
    initial_learning_rate: float = 5e-5
    final_learning_rate: float = 1e-5
    warmup_steps: int = 500
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    moments: str = "float32"

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"optimizer.learning_rate={self.learning_rate} must be positive.")
        if self.warmup_steps < 0:
            raise ValueError(f"optimizer.warmup_steps={self.warmup_steps} must not be negative.")
        if self.clip_norm < 0:
            raise ValueError(f"optimizer.clip_norm={self.clip_norm} must not be negative; 0 switches it off.")
        check_moments(self.moments)
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name}={getattr(self, name)} must lie in [0, 1).")


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate as a pure function of the step, so that a resumed run sees the same values.

    Args:
        config: peak, ends and warm-up.
        steps: length of the run; the cosine reaches ``final_learning_rate`` there.
    """
    if config.warmup_steps >= steps:
        raise ValueError(
            f"optimizer.warmup_steps={config.warmup_steps} must be smaller than steps={steps}; "
            f"lower it with --config.optimizer.warmup_steps={max(steps // 10, 0)}."
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=config.initial_learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=config.final_learning_rate,
    )


def decay_mask(params: dict) -> dict:
    """True for leaves that weight decay applies to: matrices and convolutions, never norms or biases."""
    # By name: stacked over layers, a bias has two axes as well.
    return jax.tree_util.tree_map_with_path(lambda path, _: str(path[-1].key).endswith("kernel"), params)


def make_optimizer(
    config: OptimizerConfig, steps: int, frozen: Collection[str] = ()
) -> optax.GradientTransformation:
    """Clip, AdamW, schedule: the transformation a run of ``steps`` steps uses.

    Args:
        config: rates and limits.
        steps: length of the run.
        frozen: top-level names of parameters that stay as they are, weight decay included.
    """
    schedule = learning_rate_schedule(config, steps)
    if config.moments == "float32":
        adamw = optax.adamw(
            schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=decay_mask
        )
    else:
        adamw = optax.chain(
            scale_by_compact_adam(config.b1, config.b2, config.moments),
            optax.add_decayed_weights(config.weight_decay, decay_mask),
            optax.scale_by_learning_rate(schedule),
        )
    parts = [adamw] if config.clip_norm == 0 else [optax.clip_by_global_norm(config.clip_norm), adamw]
    if frozen:
        parts.append(optax.masked(optax.set_to_zero(), partial(_mask_of, names=frozenset(frozen))))
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


def _mask_of(params: dict, names: frozenset[str]) -> dict:
    return {name: jax.tree.map(lambda _, masked=name in names: masked, params[name]) for name in params}
