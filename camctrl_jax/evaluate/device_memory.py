"""What a user can do when a device has no memory for a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from camctrl_jax.errors import InvalidValue


@contextlib.contextmanager
def memory_failures(batch_size: int) -> Iterator[None]:
    """While a batch of clips is made: the device's lack of memory as an error that names ``--batch-size``.

    Raises:
        InvalidValue: the device has no memory for so many clips.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InvalidValue(
            f"--batch-size {batch_size}: the device has no memory for so many clips at a time; take fewer. "
            "What is done is kept."
        ) from error
