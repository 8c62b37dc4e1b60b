"""One vector a clip by a user's I3D file, for the Frechet video distance (FVD).

FVD is :func:`camctrl_jax.metrics.frechet.frechet_distance` between the vectors of two sets of clips. What it
reads depends on everything that is done to a clip before the network sees it; here that is, by default, the
protocol of StyleGAN-V (Skorokhodov et al. 2022), whose file ``i3d_torchscript.pt`` is a port of the network
of the original FVD (Unterthiner et al. 2018; I3D, Kinetics-400):

* frames: the first 16 of a clip, one after the other (``frames``, ``stride``, ``place``). A clip of fewer
  than ``(frames - 1) * stride + 1`` is refused (``too_short``): never padded, looped or slowed down. Nothing
  is resampled in time: both sets must have the same frame rate, or they are told apart by it;
* picture: ``fit="squash"``, the default: the file itself resizes to 224 x 224, whatever the aspect ratio,
  linearly between pixels and without a filter before making smaller (``resize=True``), and brings 0 .. 255
  to -1 .. 1 (``rescale=True``). ``fit="crop"``: the shorter side is made 224 here, bilinearly likewise, the
  middle 224 x 224 is cut out and brought to -1 .. 1, and the file is told to do neither; other code does
  this, and its numbers are not comparable with the first. Both sets must have the same picture size:
  resizing alone moves the distance;
* what goes in: f32 [1, 3, T, H, W], RGB; clip by clip, so that a vector does not depend on what else is in a
  batch;
* what comes out: the 400 logits before the softmax (``return_features=True``), f64 [400];
* N: published numbers take 2048 clips a side. FVD falls as N grows, and below 400 clips a covariance of 400
  channels is not even of full rank: compare only distances of equal N, and print the distance of two halves
  of real clips (the floor) beside them. N, frames, stride, frame rate and picture size belong to every
  number.

The file is a TorchScript archive: a *program*, not only numbers. Loading it runs its author's code in this
process, which no check of this package makes safe: use a file from a source that you trust, and pin it with
``sha256``. Plain weights of other I3D networks are not read: their numbers would be another measure.
torch is imported when the file is loaded (extra ``torch``).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.estimators.protocols import EstimatorFailed, Fingerprint, checked_frames, hashed
from camctrl_jax.extras import require

SIDE, LOGITS = 224, 400
FITS, PLACES = ("squash", "crop"), ("first", "middle")
# Time is halved three times, rounding up, and then averaged over pairs.
LEAST_FRAMES = 9


@dataclass(frozen=True)
class I3d:
    """The logits of a clip by an I3D in TorchScript; the module states the protocol.

    Attributes:
        weights: the file ``i3d_torchscript.pt``, or one that is called alike.
        frames: how many frames of a clip it sees, 9 or more.
        stride: every how many-th frame.
        place: which of a longer clip: the "first", or those in the "middle".
        fit: "squash" (the file resizes and rescales) or "crop".
        device: of torch: "cpu", "cuda", ...
        sha256: refuse a file with another hash; None takes any.
    """

    weights: Path
    frames: int = 16
    stride: int = 1
    place: str = "first"
    fit: str = "squash"
    device: str = "cpu"
    sha256: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.weights, (list, tuple)) and len(self.weights) == 1:
            object.__setattr__(self, "weights", self.weights[0])
        if not isinstance(self.weights, (str, Path)):
            raise InvalidValue(f"i3d: weights is {self.weights!r}; expected one file.")
        object.__setattr__(self, "weights", Path(self.weights))
        for name, least in (("frames", LEAST_FRAMES), ("stride", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InvalidValue(f"i3d: {name} is {value!r}; expected a whole number, {least} or more.")
        for name, known in (("place", PLACES), ("fit", FITS)):
            if getattr(self, name) not in known:
                raise InvalidValue(f"i3d: {name} is {getattr(self, name)!r}; expected one of {known}.")

    @property
    def least_frames(self) -> int:
        """Frames that a clip must have."""
        return (self.frames - 1) * self.stride + 1

    def fingerprint(self) -> Fingerprint:
        """What is done to a clip, and the hash of the file; not the device."""
        torch = require("torch", extra="torch")
        settings = tuple((name, getattr(self, name)) for name in ("frames", "stride", "place", "fit"))
        return Fingerprint("i3d", f"1, torch {torch.__version__}", settings, self._hashed)

    def check(self) -> None:
        """Load the file and try it on a small clip, before any work is done.

        Raises:
            MissingExtra: torch is not installed.
            MissingFile: the file is not there.
            InvalidValue: it is not TorchScript, has another hash, is not called like the file of StyleGAN-V,
                or gives something else than 400 logits.
        """
        ramp = np.linspace(0, 255, self.frames * 32 * 32 * 3).astype(np.uint8)
        self._logits(ramp.reshape(self.frames, 32, 32, 3))

    def embed_video(self, frames: np.ndarray, fps: float) -> np.ndarray:
        """See :class:`~camctrl_jax.estimators.protocols.VideoEmbedder`; ``fps`` changes nothing.

        Returns:
            f64 [400].

        Raises:
            EstimatorFailed: ``too_short``, or ``bad_result`` where a logit is NaN or infinity.
            UserError: as :meth:`check`.
        """
        frames = checked_frames(frames)
        spare = len(frames) - self.least_frames
        if spare < 0:
            raise EstimatorFailed(
                "too_short",
                f"i3d: the clip has {len(frames)} frames; {self.frames} frames at stride {self.stride} need "
                f"{self.least_frames}. Nothing is padded: set frames or stride for all clips alike.",
            )
        first = 0 if self.place == "first" else spare // 2
        logits = self._logits(frames[first : first + self.least_frames : self.stride])
        if not np.isfinite(logits).all():
            raise EstimatorFailed("bad_result", f"{self.weights}: a logit of this clip is NaN or infinity.")
        return logits

    @cached_property
    def _hashed(self) -> tuple[tuple[str, str], ...]:
        if not self.weights.is_file():
            raise MissingFile(
                f"i3d: there is no file {self.weights}. Give the TorchScript file of StyleGAN-V's FVD "
                "(i3d_torchscript.pt) as weights; it is not part of this package."
            )
        found = hashed([self.weights])
        if self.sha256 is not None and found[0][1] != self.sha256.lower():
            raise InvalidValue(
                f"{self.weights}: its SHA-256 is {found[0][1]}, not {self.sha256}; it was not loaded."
            )
        return found

    @cached_property
    def _network(self) -> Any:
        torch = require("torch", extra="torch")
        assert self._hashed  # there, and the one that was asked for
        try:
            with warnings.catch_warnings():  # TorchScript is on its way out; there is no other such file
                warnings.simplefilter("ignore", DeprecationWarning)
                return torch.jit.load(str(self.weights), map_location=self.device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InvalidValue(
                f"{self.weights}: is not a TorchScript file that torch {torch.__version__} can load on "
                f"{self.device} ({first}). A file of plain weights (a state dict) cannot be used."
            ) from error

    def _logits(self, frames: np.ndarray) -> np.ndarray:
        """Logits f64 [400] of exactly the frames to be seen, u8 [T, H, W, 3]."""
        torch, network = require("torch", extra="torch"), self._network
        clip = torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))  # [3, T, H, W]
        clip = clip.to(self.device).float()
        by_file = self.fit == "squash"
        if not by_file:
            clip = _cropped(torch, clip) * (2.0 / 255.0) - 1.0
        try:
            with torch.no_grad(), _exact(torch):
                found = network(clip[None], rescale=by_file, resize=by_file, return_features=True)
        except Exception as error:  # TorchScript raises RuntimeError and classes of its own
            last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise InvalidValue(
                f"{self.weights}: cannot be called as StyleGAN-V's I3D is, network(clip [1, 3, T, H, W], "
                f"rescale=..., resize=..., return_features=True), on {list(clip.shape)}: {last}"
            ) from error
        if not isinstance(found, torch.Tensor) or tuple(found.shape) != (1, LOGITS):
            shape = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise InvalidValue(
                f"{self.weights}: gives {shape} for one clip, expected [1, {LOGITS}], the logits of "
                "Kinetics-400: is it another network?"
            )
        return found[0].double().cpu().numpy()


def _cropped(torch: Any, clip: Any) -> Any:
    """The middle SIDE x SIDE of a clip f32 [3, T, H, W] whose shorter side was made SIDE."""
    height, width = clip.shape[-2:]
    scale = SIDE / min(height, width)
    size = max(SIDE, round(height * scale)), max(SIDE, round(width * scale))
    larger = torch.nn.functional.interpolate(clip, size, mode="bilinear", align_corners=False)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    return larger[..., top : top + SIDE, left : left + SIDE]


@contextlib.contextmanager
def _exact(torch: Any) -> Iterator[None]:
    """On an accelerator: whole float32, and algorithms that repeat."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
