"""What ``python -m camctrl_jax.train`` does once its command line is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from ml_collections import ConfigDict

from camctrl_jax.parallel.hosts import join_hosts, leave_at_once
from camctrl_jax.training.command_line import with_plain_lists
from camctrl_jax.training.config import check_config, check_overrides, load_recipe
from camctrl_jax.training.initialisation import take_sizes
from camctrl_jax.training.run import train
from camctrl_jax.training.values import ConfigError


@dataclass(frozen=True)
class Asked:
    """The command line: words that are no options, the recipe with its overrides, and the run's directory."""

    words: tuple[str, ...]
    config: ConfigDict | None
    workdir: str | None
    print_config: bool = False


def run(asked: Asked) -> None:
    """Train, or print the effective configuration.

    Raises:
        UserError: whatever a person can mend.
    """
    if asked.words:
        raise ConfigError(f"unexpected argument {asked.words[0]!r}; every option is written --name=value")
    if asked.config is None:
        raise ConfigError("--config is missing, e.g. --config=configs/stage1.py:worlds_cpu; see --help")
    take_sizes(asked.config, asked.workdir)
    check_config(asked.config)
    if asked.print_config:
        print(asked.config)
        return
    if not asked.workdir:
        raise ConfigError("--workdir is missing; choose a directory for this run, e.g. --workdir=runs/first")
    join_hosts()
    path = train(asked.config, Path(asked.workdir).absolute())
    if jax.process_index() == 0:
        print(f"checkpoint: {path}")


def leave(status: int) -> None:
    """End a failed process of a job of several at once: the others are not waited for."""
    if jax.distributed.is_initialized():
        leave_at_once(status)


def read_command_line(argv: Sequence[str]) -> list[str]:
    """The command line as absl reads it, lists as Python literals.

    Raises:
        ConfigError: a recipe that is not there, an override of a key that it does not have, or a value that
            cannot be one of its key.
    """
    read = list(argv)
    for argument, following in zip(argv[1:], [*argv[2:], ""]):  # --config=FILE or --config FILE
        name, _, value = argument.partition("=")
        if name in ("--config", "-config") and (value or following):
            recipe = load_recipe(value or following)
            check_overrides(argv[1:], recipe)
            read = [argv[0], *with_plain_lists(argv[1:], recipe)]
    return read
