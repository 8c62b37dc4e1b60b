"""``evaluate videos``: clips of any model, with the paths that were asked for, and truth if there is any."""

from camctrl_jax.evaluate.videos.finding import Clip, find_clips
from camctrl_jax.evaluate.videos.measuring import measure_clip
from camctrl_jax.evaluate.videos.report import markdown, summarise
from camctrl_jax.evaluate.videos.running import evaluate_videos
from camctrl_jax.evaluate.videos.settings import Estimators, VideosSettings

__all__ = [
    "Clip",
    "Estimators",
    "VideosSettings",
    "evaluate_videos",
    "find_clips",
    "markdown",
    "measure_clip",
    "summarise",
]
