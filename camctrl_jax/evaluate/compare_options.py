"""The command line of ``evaluate compare``; imports nothing heavy before it is parsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COMPARE = """\
Compare two results on what both have: of evaluate worlds and explorations scene by scene, of evaluate
checkpoint and evaluate videos clip by clip.

  python -m camctrl_jax.evaluate compare outputs/before outputs/after
  python -m camctrl_jax.evaluate compare outputs/model_a outputs/model_b --json
  python -m camctrl_jax.evaluate compare outputs/before outputs/after --strips side_by_side.png
  python -m camctrl_jax.evaluate compare outputs/memory outputs/memory --rows last-13 retrieved-4

Prints each measure's mean difference, second minus first, with its 95 % interval over scenes or clips: much
narrower than the intervals of either, since scenes differ more than models do.

Of checkpoints, clips are paired by name, and the value of a clip is its mean over seeds; rows of the same
steps and guidance are compared, or those that --rows names. Results of other clips are refused.

Of videos, clips are paired by name. How many were measured, registered, and registered without doubts is
compared first: a model whose hard clips do not register has fine means over the easy ones. Each measure says
how many clips have it in one result alone. Results of other protocols (frames, rates, paths, estimators,
picture sizes that estimators see) are refused: their difference would not be one of the models.
"""


def add_compare(add: Any) -> None:
    """The options of ``evaluate compare``; ``add`` is a parser's ``add_argument``."""
    add(
        "first",
        type=Path,
        help="a folder of evaluate worlds, explorations, checkpoint or videos, or its results.json",
    )
    add("second", type=Path, help="another one, of the same kind")
    add(
        "--rows",
        nargs=2,
        metavar="ROW",
        help="of all but videos, the row of each to compare, such as '32 steps, camera 2, text 1', "
        "steps32_camera2_text1 or last-13 (default: equal ones, or the only one of each)",
    )
    add(
        "--strips",
        type=Path,
        metavar="PNG",
        help="also draw the first scenes that both have: true render, first result, second one (of worlds, "
        "captions and explorations)",
    )
    add("--shown", type=int, default=6, metavar="N", help="scenes on --strips (default 6)")
    add(
        "--same-noise",
        action="store_true",
        help="of worlds: also PSNR between the first samples of both, drawn from the same noise: how much a "
        "student kept of its teacher",
    )
    add("--json", dest="as_json", action="store_true", help="print JSON")


def run_compare(as_json: bool, rows: list[str] | None, **values: Any) -> None:
    """Compare and print."""
    from camctrl_jax.evaluate.comparing import CompareSettings, compare_results

    settings = CompareSettings(rows=None if rows is None else (rows[0], rows[1]), **values)
    found, page = compare_results(settings)
    print(json.dumps(found, indent=2) if as_json else page)
