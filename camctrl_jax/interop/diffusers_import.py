"""Weights from a diffusers folder: the transformer and the autoencoder of Motif-Video, by configuration.

A diffusers folder holds one folder a component, ``transformer/`` and ``vae/``, each with a ``config.json``
and safetensors (one file, or shards with an index). Sizes come from ``config.json`` alone. Tensors are read
one after the other, straight to where they will live, so an import needs the memory of the model once.

What the exporter adds is read as well: ``camera/``, the camera layer and its convention, ``sampling.json``,
the clips and guidance of the training, and ``text/null.safetensors``, the embedded empty prompt.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.files.json_file import read_json
from camctrl_jax.files.safetensors import (
    SafetensorsError,
    SafetensorsFile,
    SequentialTensors,
    load_sharded,
    open_sharded,
)
from camctrl_jax.interop.described import SamplingDefaults, WeightsError, config_from_json
from camctrl_jax.interop.keys import import_mmdit, import_vae
from camctrl_jax.interop.stock_configs import mmdit_from_stock, vae_from_stock
from camctrl_jax.models import CameraConfig, MMDiTConfig, VAEConfig

STEM = "diffusion_pytorch_model"
TRANSFORMER, AUTOENCODER, CAMERA, SCHEDULER, TEXT = "transformer", "vae", "camera", "scheduler", "text"
CLASSES = {TRANSFORMER: "MotifVideoTransformer3DModel", AUTOENCODER: "AutoencoderKLWan"}
CAMERA_STEM, NULL_STEM = "camera_embedder", "null"
SAMPLING_FILE = "sampling.json"

# What a camera layer must have been trained on to mean the same here (DESIGN: one convention, in camera/).
CAMERA_CONVENTION = {
    "order": "moment_first",
    "axes": "opencv",
    "frame_stride": 4,
    "reference": "first frame of the first clip",
    "translation_scale": 1.0,
}

_STORED = (np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32))
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

Params = dict[str, Any]
Keep = Callable[[tuple[str, ...], np.ndarray], Any]


@dataclass(frozen=True)
class DiffusersFolder:
    """The components of a diffusers folder, found but not read.

    Attributes:
        path: the folder.
        transformer, vae, camera: the folder of each component, or None.
    """

    path: Path
    transformer: Path | None
    vae: Path | None
    camera: Path | None

    def transformer_config(self) -> MMDiTConfig:
        """Sizes of the transformer; with a camera layer if the folder has one.

        Raises:
            WeightsError: no or a damaged ``config.json``, or a model that this implementation cannot run.
        """
        file = _required(self.transformer, self.path, TRANSFORMER) / "config.json"
        stock = _read_config(file, TRANSFORMER)
        camera = None
        if self.camera is not None:
            camera = camera_config(self.camera / "config.json")
        return _checked(lambda: mmdit_from_stock(stock, camera, str(file)), file)

    def vae_config(self) -> VAEConfig:
        """Sizes of the autoencoder. Raises as :meth:`transformer_config`."""
        file = _required(self.vae, self.path, AUTOENCODER) / "config.json"
        stock = _read_config(file, AUTOENCODER)
        return _checked(lambda: vae_from_stock(stock, str(file)), file)

    def transformer_params(self, keep: Keep | None = None) -> Params:
        """Parameters of the transformer, in their stored dtype.

        Args:
            keep: called with (path, array) of every parameter, what it returns is stored; see
                ``camctrl_jax.checkpoints.mesh_reading.onto_mesh``. None keeps arrays of their own in
                host memory.

        Raises:
            WeightsError, SafetensorsError: files that are absent, damaged, or of another model or format.
        """
        config = self.transformer_config()
        tensors = _open_tensors(_required(self.transformer, self.path, TRANSFORMER), STEM)
        camera = None if self.camera is None else _open_tensors(self.camera, CAMERA_STEM)
        _refuse_older_layout(tensors, self.path)
        return _checked(
            lambda: import_mmdit(
                tensors, config, camera, source=str(self.transformer), keep=keep or _own_copy
            ),
            self.path,
        )

    def vae_params(self, keep: Keep | None = None) -> Params:
        """Parameters of the autoencoder; arguments and errors as of :meth:`transformer_params`."""
        folder = _required(self.vae, self.path, AUTOENCODER)
        config, tensors = self.vae_config(), _open_tensors(folder, STEM)
        return _checked(
            lambda: import_vae(tensors, config, source=str(folder), keep=keep or _own_copy), self.path
        )

    def sampling(self) -> SamplingDefaults | None:
        """The sampling defaults that the exporter stored, or None.

        Raises:
            WeightsError: they are damaged.
        """
        file = self.path / SAMPLING_FILE
        if not file.is_file():
            return None
        return _checked(lambda: config_from_json(SamplingDefaults, _read_json(file)), file)

    def shift(self) -> float | None:
        """Timestep shift of the folder's scheduler, or None if it does not say."""
        file = self.path / SCHEDULER / "scheduler_config.json"
        shift = _read_json(file).get("shift") if file.is_file() else None
        return float(shift) if isinstance(shift, (int, float)) and shift > 0 else None

    def null_text(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Embedding f32 [1, N, D] and mask bool [1, N] of the empty prompt that the exporter stored, or None.

        Raises:
            WeightsError, SafetensorsError: the file is damaged.
        """
        if not (self.path / TEXT / f"{NULL_STEM}.safetensors").is_file():
            return None
        stored = load_sharded(self.path / TEXT, NULL_STEM)
        return _checked(lambda: (stored["embeds"], stored["mask"]), self.path / TEXT)


def find_diffusers_folder(path: str | os.PathLike) -> DiffusersFolder | None:
    """The components at ``path``, or None if it is no diffusers folder.

    ``path`` is the folder of a pipeline, or of one component alone (its ``config.json`` names the class). A
    folder counts as a component if it holds a configuration or weights.
    """
    path = Path(path)
    parts = {
        name: path / name if _is_component(path / name) else None
        for name in (TRANSFORMER, AUTOENCODER, CAMERA)
    }
    if parts[TRANSFORMER] is None and parts[AUTOENCODER] is None:
        own = path / "config.json"
        try:
            content = json.loads(own.read_text("utf-8")) if own.is_file() else None
        except ValueError:
            return None
        class_name = content.get("_class_name") if isinstance(content, dict) else None
        for name, expected in CLASSES.items():
            if class_name == expected:
                parts[name] = path
    if parts[TRANSFORMER] is None and parts[AUTOENCODER] is None:
        return None
    return DiffusersFolder(path, parts[TRANSFORMER], parts[AUTOENCODER], parts[CAMERA])


def _is_component(folder: Path) -> bool:
    return (folder / "config.json").is_file() or any(folder.glob(f"{STEM}*"))


def camera_config(file: Path) -> CameraConfig:
    """The camera layer that ``camera/config.json`` describes.

    Raises:
        WeightsError: it is damaged, or was trained on another convention of Pluecker maps.
    """
    content = _read_json(file)
    for name, expected in CAMERA_CONVENTION.items():
        if content.get(name) != expected:
            raise WeightsError(
                f"{file}: {name} is {content.get(name)!r}; Pluecker maps are made with {expected!r} here."
            )
    return _checked(lambda: CameraConfig(content["plucker_res"], tuple(content["patch"])), file)


def _own_copy(path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
    return np.array(array, order="C")


def _required(component: Path | None, folder: Path, name: str) -> Path:
    if component is None:
        raise WeightsError(f"{folder} has no component {name!r} (a folder of that name with config.json).")
    return component


def _checked(function: Callable[[], Any], source: Path) -> Any:
    """Call ``function``; what it finds wrong becomes a WeightsError."""
    try:
        return function()
    except (WeightsError, SafetensorsError):
        raise
    except KeyError as error:
        raise WeightsError(f"{source}: the entry {error} is missing.") from error
    except (ValueError, TypeError) as error:
        raise WeightsError(str(error) if str(source) in str(error) else f"{source}: {error}") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except MissingFile as error:
        raise WeightsError(f"{file} is absent: sizes are read from it, never guessed.") from error
    except InvalidValue as error:
        raise WeightsError(f"{error} Copy or download it again.") from error


def _read_config(file: Path, component: str) -> dict[str, Any]:
    content = _read_json(file)
    class_name, expected = content.get("_class_name"), CLASSES[component]
    if class_name not in (None, expected):
        raise WeightsError(
            f"{file} is of a {class_name}; this package imports {expected}: another model, or another "
            "component's folder."
        )
    return content


def _open_tensors(component: Path, stem: str) -> SequentialTensors:
    """The weights of a component, opened lazily, their format and dtypes checked."""
    try:
        files = open_sharded(component, stem)
    except FileNotFoundError as error:
        raise WeightsError(_absent(component, stem, str(error))) from error
    for file in files:
        _check_dtypes(file)
    return SequentialTensors(files)


def _absent(component: Path, stem: str, reason: str) -> str:
    others = sorted(path.name for path in component.iterdir()) if component.is_dir() else []
    pickles = [name for name in others if name.endswith(_PICKLES)]
    if pickles:
        return (
            f"{component} holds {', '.join(pickles)}: a pickle, which can run code when it is opened and is "
            "never read here. Load it where you trust it and save it with "
            "save_pretrained(..., safe_serialization=True)."
        )
    variants = [name for name in others if name.startswith(f"{stem}.") and name.endswith(".safetensors")]
    if variants:
        return (
            f"{component} holds {', '.join(variants)}, not {stem}.safetensors: a variant. Import the float32 "
            "or bfloat16 weights; if these are such, rename the file."
        )
    ggufs = [name for name in others if name.endswith(".gguf")]
    if ggufs:
        return f"{component} holds {', '.join(ggufs)}: quantised weights are not imported."
    return f"{reason} Download the whole folder."


def _check_dtypes(file: SafetensorsFile) -> None:
    for name in file:
        dtype = file.dtype(name)
        if dtype in _STORED:
            continue
        why = " (its range is too small for these weights: large values have become infinite)"
        raise WeightsError(
            f"{file.path}: {name} is {dtype}{why if dtype == np.float16 else ''}; expected bfloat16 or "
            "float32. Use the original weights."
        )


def _refuse_older_layout(tensors: Mapping[str, Any], source: Path) -> None:
    """The first public code of Motif-Video had another text cross-attention, with a norm over the width."""
    older = sorted(name for name in tensors if ".cross_attn_query_proj." in name)
    if older:
        raise WeightsError(
            f"{source} has the text cross-attention of the first release ({older[0]}), which normalises "
            "queries over the whole width and shares keys and values with the self-attention. It is another "
            "function than diffusers' class computes (cross_attn.to_q, to_k, to_v), and no conversion is "
            "exact: use the weights in diffusers' layout."
        )
