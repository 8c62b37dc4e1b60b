"""Compile a training step for machines that are not there, and say whether it fits and what bounds it.

  python -m camctrl_jax.pod_report --config=configs/stage2.py --topology=v5p:4x4x8

Topologies: a grid of TPU chips (v5e, v5p, v6e, such as v6e:8x8) or a number of GPUs (h100x64). Any value of
the recipe can be changed: --config.mesh.context=4. What is compiled is the step that train.py runs, with the
same state, shardings and batch. It takes a CPU, and the compiler: pip install 'camctrl_jax[tpu]', or for GPUs
jax-cuda13-plugin and jax-cuda13-pjrt of the version of jax, without dependencies.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from camctrl_jax.errors import exit_status
from camctrl_jax.files.atomic import write_text
from camctrl_jax.pod_report.machines import set_environment


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1.

    Returns:
        2 where the step does not fit into the memory of a device.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    overrides = [argument for argument in argv if argument.startswith("--config.")]
    options = _parser().parse_args([argument for argument in argv if argument not in overrides])
    return exit_status(
        lambda: _report(
            options.config, overrides, options.topology, options.batch, options.out, shlex.join(argv)
        )
    )


def _report(
    recipe: str, overrides: Sequence[str], topology: str, batch: str, out: Path | None, command: str
) -> int:
    # Only now, so that --help answers at once.
    from camctrl_jax.pod_report import markdown

    text, fits = markdown.report(recipe, overrides, topology, batch, command)
    print(text)
    if out is not None:
        write_text(out, f"{text}\n")
    return 0 if fits else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.pod_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", required=True, help="recipe and variant, e.g. configs/stage2.py:motif_2b")
    add("--topology", required=True, help="e.g. v5p:4x4x8, v6e:8x8 or h100x64")
    add("--batch", choices=("latents", "video"), default="latents", help="what batches hold (latents)")
    add("--out", type=Path, metavar="FILE", help="also write the report to this Markdown file")
    return parser


if __name__ == "__main__":
    set_environment()  # before anything imports JAX
    sys.exit(main())
