"""Train the autoencoder or the diffusion model.

  python -m camctrl_jax.train --config=configs/stage1.py:worlds_cpu --workdir=runs/first

A config file is a recipe; what follows the colon is its variant:

  configs/vae.py      the causal video autoencoder
  configs/base.py     the diffusion model without a camera, on images and videos
  configs/stage1.py   camera control, on labelled and unlabelled videos together
  configs/stage2.py   extension, image- and text-to-video, at twice the resolution

  configs/distill_progressive.py   a student of half as many steps, guidance folded in
  configs/distill_flow_map.py      a student for any number of steps
  configs/distill_apt.py           a student of one step, in two runs

  (none)        full size, on datasets that `python -m camctrl_jax.build_dataset` made
  :worlds       one GPU, on procedural worlds: no data to download
  :worlds_cpu   a laptop, about two minutes
  :nano         seconds, to see every part run once

Any value can be changed on the command line, and --print_config shows them all. Lists are written with
commas, or the option is given several times:

  python -m camctrl_jax.train --config=configs/stage1.py:worlds --config.steps=2000 --print_config
  python -m camctrl_jax.train --config=configs/stage1.py:mixed --workdir=runs/mixed \\
      --config.data.datasets=data/a,data/b --config.data.labelled_to_unlabelled=1,0

Where a run starts, in this order:
  1. the newest checkpoint in --workdir: the same command, started again, continues where it was;
  2. --config.init_from: 'default' (the weights in the package), a run directory, a weights
     folder, or a diffusers folder of an open base model;
  3. from scratch.

The same command on every host makes one run of them; camctrl_jax/parallel/hosts.py lists the environment
variables by which they find each other, launch/ has scripts for Slurm, TPU pods and Kubernetes.

--workdir then holds config.json, metrics.jsonl, tensorboard/, samples/ and checkpoints/, and belongs to one
run at a time. Ctrl-C and SIGTERM save a checkpoint and end the run with exit code 0.
"--config.profile=(10,12)" writes a trace of these steps for TensorBoard and Perfetto. Set
JAX_COMPILATION_CACHE_DIR to compile only once.
"""

from __future__ import annotations

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from camctrl_jax.errors import exit_status

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe and variant, e.g. configs/stage1.py:worlds."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the run; created, or continued if it holds a checkpoint."
)
_PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the effective config and stop.")


def main(argv: list[str]) -> int:
    """Entry point; what a person can mend ends with one sentence on standard error and exit code 1."""
    # The one import that waits: with it --help would take seconds.
    from camctrl_jax.training import command

    asked = command.Asked(tuple(argv[1:]), _CONFIG.value, _WORKDIR.value, _PRINT_CONFIG.value)
    status = exit_status(lambda: command.run(asked))
    if status:
        command.leave(status)
    return status


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the command line; an unknown config key ends in one sentence that names the nearest key."""
    if any(argument.lstrip("-").startswith("config") for argument in argv[1:]):
        # absl applies overrides while it loads the recipe, and would fail with a traceback: a first look.
        # Only where a recipe is given, which imports what --help does without.
        from camctrl_jax.training.command import read_command_line

        given, argv = argv, []
        status = exit_status(lambda: argv.extend(read_command_line(given)))
        if status:
            sys.exit(status)
    try:
        remaining = flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {error}; see --help", file=sys.stderr, flush=True)
        sys.exit(1)
    if flags.FLAGS["verbosity"].using_default_value:  # absl would show what libraries note for themselves
        logging.set_verbosity(logging.WARNING)
    return remaining


def run() -> None:
    """Run :func:`main` under absl."""
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
