"""Which of a component's weights are read, where a folder holds them in several precisions or averages."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

from camctrl_jax.errors import UserError
from camctrl_jax.files.safetensors import open_sharded
from camctrl_jax.files.weight_files import FULL, listed, weight_variants
from camctrl_jax.interop.described import WeightsError

READ_DTYPES = (np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32))


def chosen_variant(component: Path, stem: str, wanted: str | None = None) -> tuple[str, str | None]:
    """The variant to read, and a remark where it is not simply all there is.

    Args:
        component: the folder of a network.
        stem: of its files' names.
        wanted: a variant by name; a component without it is read in full. None prefers the full weights, then
            the only variant in float32, then the only one in bfloat16; one that cannot be opened is passed
            over with a remark.

    Raises:
        WeightsError: there is no such variant and nothing in full, or none that can be read, or which of
            several is meant cannot be told.
    """
    found = weight_variants(component, stem)
    names = [variant for variant in found if variant != FULL]
    if wanted is not None and wanted in found:
        return wanted, f"{component}: variant {wanted} is read ({found[wanted].name})."
    if wanted is not None and FULL not in found and names:
        raise WeightsError(f"{component} has no variant {wanted!r}; it has {listed(names)} (--variant).")
    if not names:
        return (
            FULL,
            None if wanted is None else f"{component} has no variant {wanted}: {_full(found)} is read.",
        )
    if FULL in found:
        return FULL, f"{component}: {_full(found)} is read; also there: {listed(names)} (--variant)."
    precisions: dict[str, set[np.dtype]] = {}
    damaged: dict[str, UserError] = {}
    for variant in names:  # one that nobody asked for may be a pointer, or half downloaded
        try:
            precisions[variant] = _precisions(component, stem, variant)
        except UserError as error:
            damaged[variant] = error
    if not precisions:
        raise damaged[names[0]]
    readable = [variant for variant in precisions if precisions[variant] <= set(READ_DTYPES)]
    exact = [variant for variant in readable if precisions[variant] == {np.dtype(np.float32)}]
    best = exact or readable
    if len(best) == 1:
        others = [variant for variant in precisions if variant not in best]
        more = f"; also there: {listed(others)} (--variant)" if others else ""
        more += "".join(f"; {variant} cannot be read" for variant in damaged)
        return best[0], f"{component}: variant {best[0]} is read ({found[best[0]].name}){more}."
    if best:
        raise WeightsError(
            f"{component} holds the variants {listed(names)} and no full weights: say which is meant "
            "(--variant of export from-diffusers)."
        )
    held = "; ".join(f"{variant} ({_listed_dtypes(precisions[variant])})" for variant in precisions)
    if damaged:
        raise next(iter(damaged.values()))
    raise WeightsError(
        f"{component} holds weights in the variants {held} only; expected bfloat16 or float32. float16 has "
        "too small a range for these weights: large values have become infinite. Use the original weights."
    )


def _full(found: dict[str, Path]) -> str:
    return found[FULL].name if FULL in found else "what is there in full"


def _precisions(component: Path, stem: str, variant: str) -> set[np.dtype]:
    return {file.dtype(name) for file in open_sharded(component, stem, variant) for name in file}


def _listed_dtypes(dtypes: set[np.dtype]) -> str:
    return ", ".join(sorted(map(str, dtypes)))
