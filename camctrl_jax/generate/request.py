"""What the command line asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from camctrl_jax.camera.playing import Playing
from camctrl_jax.camera.reading import Reading

NO_CAMERA = "none"
_AS_THE_FORMAT_SAYS, _ALL_OF_IT = Reading(), Playing()


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None is "as the model was trained" or "not given"."""

    out: Path
    checkpoint: str = "default"
    vae: str | None = None
    prompt: str | None = None
    image: Path | None = None
    worlds_seed: int | None = None
    camera: str | None = None
    reading: Reading = _AS_THE_FORMAT_SAYS
    playing: Playing = _ALL_OF_IT
    poses_of: str = "auto"
    camera_scale: float = 1.0
    intrinsics: tuple[float, float, float, float] | None = None
    frames: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    shift: float | None = None
    guidance: str = "eq3"
    text_guidance: float | None = None
    camera_guidance: float | None = None
    camera_guidance_without_text: float | None = None
    history_guidance: float = 1.0
    seed: int = 0
    float32: bool = False
    mesh: str | None = None
