"""Explore scenes clip after clip, in a page and from programs: python -m camctrl_jax.explore

  python -m camctrl_jax.explore                       the weights in the package, on http://127.0.0.1:8008
  python -m camctrl_jax.explore --checkpoint FOLDER   other weights
  python -m camctrl_jax.explore --student FOLDER      quick looks by their student, refined by the weights

Open the address that is printed. Start from a picture, a procedural world or a prompt; say or draw the next
path; look at the clip; go on, or go back and branch. Programs use the same address: /v1/openapi.json.

Everything is in --folder: explorations, each a folder that Exploration.load opens, and jobs. A server that
was stopped or killed finds both again and takes up what it was making. One server at a time has a folder.
Nothing is sent anywhere. Only this machine can reach it unless --host says otherwise; there are no passwords.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from camctrl_jax.errors import exit_status
from camctrl_jax.mesh_option import add_mesh_option


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    options = _parser().parse_args(argv)

    def work() -> None:
        # Only now, so that --help answers at once.
        from camctrl_jax.explore.serving import serve

        serve(**vars(options))

    return exit_status(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.explore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--folder", type=Path, default=Path("outputs/explore"), metavar="DIR", help="where everything is kept"
    )
    add(
        "--checkpoint",
        default="default",
        metavar="SPEC",
        help="'default', 'student', a run, or a weights folder",
    )
    add("--student", metavar="SPEC", help="a student of the checkpoint, for quick looks that it then refines")
    add("--vae", metavar="SPEC", help="another autoencoder than the one the checkpoint was trained with")
    add("--float32", action="store_true", help="compute in float32 on an accelerator too")
    add_mesh_option(add)
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="to listen on (default: this machine only); for another one say --allow-host too",
    )
    add("--port", type=_port, default=8008, metavar="N", help="default 8008; 0 takes any free one")
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that browsers reach the server by, besides localhost; may be given several times",
    )
    add("--queue", type=_count, default=32, metavar="N", help="jobs that may wait (default 32)")
    add("--queue-per-visitor", type=_count, default=6, metavar="N", help="of one visitor (default 6)")
    add("--storage", type=_gigabytes, default=20.0, metavar="GB", help="disk space of all (default 20)")
    return parser


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{value}: expected 0 to 65535")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: expected 1 or more")
    return value


def _gigabytes(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: expected gigabytes, more than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
