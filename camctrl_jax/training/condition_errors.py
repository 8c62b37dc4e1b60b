"""What is done to given latents in training, so that a model learns to go on from its own imperfect frames.

Sampling goes on from frames that the model made itself; training shows it true ones. Two switches, both off
by default:

* **Noise** (the "noised condition" row of CameraCtrl II's ablations): each clip draws a level sigma ~ U(0,
  noise), and all its given latents, those of image to video and retrieved ones too, become
  ``(1 - sigma) z + sigma n``, n standard normal. The paper does not say its level.
* **Error bank** (error recycling, Stable Video Infinity, arXiv 2510.09212): errors that the model makes on
  the latents it generates, ``delta = x0_hat - x0`` with ``x0_hat = x_t - t v``, are kept, and later added to
  given latents of other clips, ``z + gamma delta``, in the clean slot and, noised, in the noisy one. The bank
  has a row for each of eight equal parts of t; an error is drawn from a row at random, whatever the time of
  the clip that it is added to: what sampling goes on from has no such time.

Of the source's three errors this is the one on the given image. It adds errors to the latents to generate and
to the noise as well, with the velocity towards the clean latents as the target; these are not here. It has
500 entries for each of 50 times and, in its code, keeps one in ten errors of clips that were not disturbed,
for those are milder; here the newest of all are kept.

Choices of this package: an entry is the error of four latents in a row of one clip, as errors of a clip hang
together; latent i of what is given, retrieved ones first, gets that of latent i modulo 4. Only clips with
something given are learned from: without, the error at a late time is another scene. Only extensions, clips
with more than one latent of the window given, carry errors: the first frame of image to video is a real
picture.

A bank is arrays in the state of a run, whole on every device: checkpointed with it, and the same on resuming.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from camctrl_jax.errors import InvalidValue

TIMES = 8  # rows of a bank
LATENTS = 4  # of an entry

Bank = dict[str, Array]  # errors f16 [TIMES, size, LATENTS, h, w, C], stored i32 [TIMES]: how many ever
Inputs = Mapping[str, Array]


@dataclass(frozen=True)
class ConditionConfig:
    """The switches.

    Attributes:
        noise: largest level of noise on given latents, as a time of the flow; 0 is off. 0.3 for the ablation.
        error_bank: probability that an extension's given latents carry errors; 0 is off. In the source's
            code 0.9 of the samples that are not left clean, of which there are a tenth to a half.
        error_bank_size: entries for each part of the time.
        error_gamma: what errors are multiplied by.
    """

    noise: float = 0.0
    error_bank: float = 0.0
    error_bank_size: int = 32
    error_gamma: float = 1.0

    def __post_init__(self) -> None:
        for name, expected, works in (
            ("noise", "a level from 0 (off) to below 1, such as 0.3", 0.0 <= self.noise < 1.0),
            ("error_bank", "a probability from 0 (off) to 1", 0.0 <= self.error_bank <= 1.0),
            ("error_bank_size", "1 or more entries", self.error_bank_size >= 1),
            ("error_gamma", "a number above 0", self.error_gamma > 0.0),
        ):
            if not works:
                raise InvalidValue(f"config.condition.{name}={getattr(self, name)}: expected {expected}.")


@dataclass(frozen=True)
class ErrorBank:
    """How errors are kept and used; see the module. Its arrays are a :data:`Bank` for each size of latents.

    Attributes:
        probability, size, gamma: of :class:`ConditionConfig`.
        grids: (h, w) of the latents that a run is trained on; batches of others neither give nor take errors.
        channels: C.
    """

    probability: float
    size: int
    gamma: float
    grids: tuple[tuple[int, int], ...]
    channels: int

    def empty(self) -> dict[str, Bank]:
        """Banks that hold nothing yet, by :func:`name_of` their grids."""
        return {
            name_of(grid): {
                "errors": jnp.zeros((TIMES, self.size, LATENTS, *grid, self.channels), jnp.float16),
                "stored": jnp.zeros(TIMES, jnp.int32),
            }
            for grid in self.grids
        }

    def disturbed(self, bank: Bank, inputs: Inputs, key: Array) -> dict[str, Array]:
        """Examples whose given latents carry errors, where the dice and the bank say so."""
        use_key, row_key, slot_key = jax.random.split(key, 3)
        batch = inputs["latents"].shape[0]
        filled = jnp.minimum(bank["stored"], self.size)  # [TIMES]
        # All rows that hold something are alike; where none does, nothing is added.
        row = jax.random.categorical(row_key, jnp.where(filled > 0, 0.0, -jnp.inf), shape=(batch,))
        slot = (jax.random.uniform(slot_key, (batch,)) * filled[row]).astype(jnp.int32)
        used = jax.random.bernoulli(use_key, self.probability, (batch,)) & (filled.sum() > 0)
        used &= inputs["condition_mask"].sum(axis=1) > 1
        errors = bank["errors"][row, slot].astype(jnp.float32)  # [B, LATENTS, h, w, C]
        errors = self.gamma * jnp.where(used[:, None, None, None, None], errors, 0.0)
        return given_replaced(
            inputs,
            lambda latents, start: latents + errors[:, (start + jnp.arange(latents.shape[1])) % LATENTS],
        )

    def learned(self, bank: Bank, errors: Array, time: Array, valid: Array) -> Bank:
        """The bank with errors of a batch, in the place of its oldest.

        Args:
            bank: as it was.
            errors: f [B, LATENTS, h, w, C].
            time: f32 [B] in [0, 1].
            valid: bool [B], which are to be kept.
        """
        row = jnp.minimum((time * TIMES).astype(jnp.int32), TIMES - 1)
        mine = valid[:, None] & (row[:, None] == jnp.arange(TIMES))  # [B, TIMES]
        rank = (jnp.cumsum(mine, axis=0) - 1)[jnp.arange(len(row)), row]
        # No slot twice: which of two would be kept is not defined on every device.
        kept = valid & (rank < self.size)
        slot = jnp.where(kept, (bank["stored"][row] + rank) % self.size, self.size)
        errors = errors.astype(jnp.float16)
        stored = bank["stored"] + jnp.minimum(mine.sum(axis=0), self.size)
        # Of a count only the place in the ring and whether the ring is full matter: kept small for long runs.
        stored = jnp.where(stored >= 2 * self.size, stored % self.size + self.size, stored)
        return {"errors": bank["errors"].at[row, slot].set(errors, mode="drop"), "stored": stored}


def name_of(grid: tuple[int, int]) -> str:
    """``12x20`` for latents of 12 rows and 20 columns."""
    return "x".join(map(str, grid))


def noised(inputs: Inputs, noise: float, key: Array) -> dict[str, Array]:
    """Examples whose given latents are blurred, each clip's by a level of its own up to ``noise``."""
    level_key, *noise_keys = jax.random.split(key, 3)
    level = noise * jax.random.uniform(level_key, (inputs["latents"].shape[0], 1, 1, 1, 1))

    def blurred(latents: Array, start: int) -> Array:
        beside = jax.random.normal(noise_keys[start == 0], latents.shape, jnp.float32)
        return (1.0 - level) * latents + level * beside

    return given_replaced(inputs, blurred)


def given_replaced(inputs: Inputs, change: Any) -> dict[str, Array]:
    """Examples with ``change(latents f32 [B, n, h, w, C], index of the first)`` where latents are given."""
    inputs, start = dict(inputs), 0
    if "retrieved_latents" in inputs:
        retrieved = inputs["retrieved_latents"].astype(jnp.float32)
        inputs["retrieved_latents"], start = change(retrieved, 0), retrieved.shape[1]
    given = inputs["condition_mask"][:, :, None, None, None]
    inputs["latents"] = jnp.where(given, change(inputs["latents"], start), inputs["latents"])
    return inputs


def errors_of(velocity: Array, target: Array, time: Array, condition_mask: Array, position: Array) -> Array:
    """x0_hat - x0 of some latents in a row that were generated, f32 [B, LATENTS, h, w, C].

    Args:
        velocity, target: f [B, L, h, w, C]; x0_hat = x_t - t v, so the error is t (target - velocity).
        time: f32 [B].
        condition_mask: bool [B, L], given latents first.
        position: f32 [B] in [0, 1), where among the generated ones the row begins.
    """
    latents = target.shape[1]
    given = condition_mask.sum(axis=1)
    begins = given + (position * jnp.maximum(latents - given - LATENTS + 1, 1)).astype(jnp.int32)
    # The last one again where fewer were generated.
    index = jnp.minimum(begins[:, None] + jnp.arange(LATENTS), latents - 1)[:, :, None, None, None]
    difference = jnp.take_along_axis(target, index, axis=1) - jnp.take_along_axis(
        velocity.astype(jnp.float32), index, axis=1
    )
    return time[:, None, None, None, None] * difference


def bank_of(config: ConditionConfig, grids: Any, channels: int) -> ErrorBank | None:
    """The bank of a run, or None where it has none. ``grids``: (h, w) of the latents it is trained on."""
    if config.error_bank == 0.0:
        return None
    grids = tuple(sorted(set(grids)))
    return ErrorBank(config.error_bank, config.error_bank_size, config.error_gamma, grids, channels)
