"""An objective of one's own: regression of all clips to one colour."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from camctrl_jax.training.objective import Objective, equal_weights
from camctrl_jax.training.update import Aside, Examples, Update
from camctrl_jax.training.values import require, update_of


@dataclass(frozen=True)
class Constant(Objective):
    """The mean colour of the training set, times a known factor."""

    update: Update
    factor: float

    def init(self, key):
        return {"proj_out": {"kernel": jnp.zeros((4, 16)), "bias": jnp.zeros(16)}}

    def frozen(self):
        return {"scale": {"factor": jnp.float32(self.factor)}}

    def examples(self, batch, key, frozen):
        return Examples(batch["video"].astype(jnp.float32) / 255, equal_weights(batch))

    def loss(self, params, video, frozen):
        colour = params["proj_out"]["kernel"].sum(axis=0)[:3] + params["proj_out"]["bias"][:3]
        error = jnp.square(video - frozen["scale"]["factor"] * colour).mean(axis=(1, 2, 3, 4))
        return error.mean(), Aside(samples=error, means={"colour": colour.mean()})


def settings() -> dict[str, dict[str, Any]]:
    return {"constant": {"factor": 1.0}}


def check(config):
    require(config, config.constant.factor > 0, "constant.factor", "expected a positive factor")


def build(config, mesh, placement=None):
    return Constant(update_of(config), config.constant.factor)
