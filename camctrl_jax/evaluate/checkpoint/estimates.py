"""What estimators say of the samples: ``evaluate videos`` on every folder of them, and on the true clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from camctrl_jax.evaluate.checkpoint.clips import CAMERAS, REFERENCE
from camctrl_jax.evaluate.checkpoint.sampling import Plan
from camctrl_jax.evaluate.checkpoint.settings import CheckpointSettings
from camctrl_jax.evaluate.videos import Estimators, VideosSettings, evaluate_videos

Say = Callable[[str], None]
MEASURES, TRUTH = "measures", "truth"


def estimate(
    settings: CheckpointSettings, plan: Plan, units: Sequence[Path], estimators: Estimators, say: Say
) -> dict[str, Any]:
    """Results of ``evaluate videos`` by folder: the true clips, and each sample of each row and task.

    The true clips are measured like samples: what estimators get wrong on real pictures, no model can be
    blamed for.
    """

    def measured(name: Path, generated: Path, base: Path, reference: bool) -> dict[str, Any]:
        say(f"measuring {name}")
        return evaluate_videos(
            VideosSettings(
                out=settings.out / MEASURES / name,
                generated=generated,
                cameras=base / CAMERAS,
                reference=base / REFERENCE if reference else None,
                fps=settings.fps,
                pose_frames=settings.pose_frames,
                longest_side=settings.longest_side,
                known_lens=settings.known_lens,
                clip_frames=plan.added if plan.clips > 1 else None,
                jobs=settings.jobs,
                shown=settings.shown,
            ),
            estimators,
            say,
        )

    out = settings.out
    found = {TRUTH: measured(Path(TRUTH), out / REFERENCE, out, False)}
    for unit in units:
        task = unit.name
        base = out / unit if task == "extension" else out
        for number in range(settings.seeds):
            generated = out / unit / f"seed_{number}"
            if generated.is_dir():  # not where every clip failed
                name = Path(*unit.parts[1:], f"seed_{number}")
                found[name.as_posix()] = measured(name, generated, base, task != "t2v")
    return found
