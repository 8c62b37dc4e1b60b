"""Pictures and videos of what a model in training makes of held-out clips."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from camctrl_jax.errors import file_failures
from camctrl_jax.training.objective import Preview
from camctrl_jax.training.state import Params, TrainState
from camctrl_jax.training.writers import TensorBoard
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import frame_strip, shown_frames, video_grid, write_png

SAMPLES = "samples"  # in the run directory
_SHOWN_FRAMES = 6


def sampler_of(
    preview: Callable[[Params], Preview], run_dir: Path, fps: float
) -> Callable[[int, TrainState, TensorBoard | None], Mapping[str, float]]:
    """A function that draws samples of a state's average, writes them and returns what to log.

    Every process draws, for the devices share the work; the first one writes: a picture, and a video where
    PyAV is installed.
    """
    folder = run_dir / SAMPLES

    def sample(step: int, state: TrainState, tensorboard: TensorBoard | None) -> Mapping[str, float]:
        made = preview(state.ema)
        if jax.process_index() == 0:
            strip = _strip(made)
            with file_failures(folder):
                folder.mkdir(parents=True, exist_ok=True)
            write_png(folder / f"{step:07d}.png", strip)
            if importlib.util.find_spec("av") is not None:
                grid = video_grid(np.stack([*made.truth, *made.video]), columns=len(made.truth))
                write_mp4(folder / f"{step:07d}.mp4", grid, fps)
            tensorboard.write_image(step, "samples", strip)
        return made.metrics

    return sample


def _strip(made: Preview) -> np.ndarray:
    rows = [clip for pair in zip(made.truth, made.video) for clip in pair]  # truth above, model below
    return frame_strip(rows, list(shown_frames(made.video.shape[1], _SHOWN_FRAMES)))
