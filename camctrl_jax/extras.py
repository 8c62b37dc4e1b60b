"""Optional dependencies, imported where they are used and named by the extra that brings them."""

from __future__ import annotations

import importlib
from types import ModuleType

from camctrl_jax.errors import UserError


class MissingExtra(UserError, ImportError):
    """A package that an extra brings is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or raise :class:`MissingExtra` that names the extra to install.

    Example: ``av = require("av", extra="data")``.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise  # the package is there, something inside it is broken: do not hide that
        raise MissingExtra(
            f"{module} is needed here but is not installed. "
            f"Install it with: pip install 'camctrl_jax[{extra}]'"
        ) from error
