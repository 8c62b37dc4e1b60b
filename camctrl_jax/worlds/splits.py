"""Which world seeds train and which judge. Nothing that is measured may have been trained on.

Training uses seeds below ``HELD_OUT_FIRST_SEED``; evaluation, samples during training and published figures
use seeds from it on.
"""

from __future__ import annotations

from camctrl_jax.errors import InvalidValue

HELD_OUT_FIRST_SEED = 1_000_000
EXPLORATIONS_FIRST_SEED = 4_000_000
"""Of places in which explorations of many clips are measured; held out like all from the first one on."""


def check_held_out(seeds: range) -> range:
    """The seeds themselves, if none of them can have been trained on.

    Raises:
        ValueError: some are training seeds.
    """
    if len(seeds) and min(seeds) < HELD_OUT_FIRST_SEED:
        raise InvalidValue(
            f"World seeds {seeds[0]} to {seeds[-1]} are partly training seeds (below {HELD_OUT_FIRST_SEED}); "
            f"held-out worlds start at {HELD_OUT_FIRST_SEED}."
        )
    return seeds
