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
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.files.foreign import what_file_instead
from camctrl_jax.files.json_file import read_json
from camctrl_jax.files.safetensors import (
    SafetensorsError,
    SafetensorsFile,
    SequentialTensors,
    load_sharded,
    open_sharded,
)
from camctrl_jax.files.weight_files import FULL, listed, weight_variants
from camctrl_jax.interop.described import Distilled, SamplingDefaults, WeightsError, config_from_json
from camctrl_jax.interop.finite import FILE_CAUSE, refuse_non_finite
from camctrl_jax.interop.keys import import_mmdit, import_vae
from camctrl_jax.interop.scheduler import SchedulerSettings, scheduler_settings_of
from camctrl_jax.interop.stock_configs import mmdit_from_stock, vae_from_stock
from camctrl_jax.interop.variants import READ_DTYPES, chosen_variant
from camctrl_jax.models import CameraConfig, MMDiTConfig, VAEConfig

STEM = "diffusion_pytorch_model"
TRANSFORMER, AUTOENCODER, CAMERA, SCHEDULER, TEXT = "transformer", "vae", "camera", "scheduler", "text"
CLASSES = {TRANSFORMER: "MotifVideoTransformer3DModel", AUTOENCODER: "AutoencoderKLWan"}
CAMERA_STEM, NULL_STEM = "camera_embedder", "null"
SAMPLING_FILE = "sampling.json"
DISTILLED = "distilled"  # its entry that says what a student is

# What a camera layer must have been trained on to mean the same here (DESIGN: one convention, in camera/).
CAMERA_CONVENTION = {
    "order": "moment_first",
    "axes": "opencv",
    "frame_stride": 4,
    "reference": "first frame of the first clip",
    "translation_scale": 1.0,
}

_PICKLES = (".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".pkl")

Params = dict[str, Any]
Keep = Callable[[tuple[str, ...], np.ndarray], Any]


@dataclass(frozen=True)
class DiffusersFolder:
    """The components of a diffusers folder, found but not read.

    Attributes:
        path: the folder.
        transformer, vae, camera: the folder of each component, or None.
        variant: which of several sets of weights is read; None chooses (``interop.variants``).
    """

    path: Path
    transformer: Path | None
    vae: Path | None
    camera: Path | None
    variant: str | None = None

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
            WeightsError, SafetensorsError: files that are absent, damaged, or of another model or format,
                and tensors that hold NaN or infinity.
        """
        config = self.transformer_config()
        tensors = _open_tensors(_required(self.transformer, self.path, TRANSFORMER), STEM, self.variant)
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
        config, tensors = self.vae_config(), _open_tensors(folder, STEM, self.variant)
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
        content = {name: value for name, value in _read_json(file).items() if name != DISTILLED}
        return _checked(lambda: config_from_json(SamplingDefaults, content), file)

    def distilled(self) -> Distilled | None:
        """Of a student, what the exporter stored beside the sampling defaults.

        Raises:
            WeightsError: it is damaged.
        """
        file = self.path / SAMPLING_FILE
        stored = _read_json(file).get(DISTILLED) if file.is_file() else None
        return None if stored is None else _checked(lambda: config_from_json(Distilled, stored), file)

    def scheduler(self) -> SchedulerSettings:
        """What the folder's scheduler says: its timestep shift, and what of it is not done here.

        Raises:
            WeightsError: the file is damaged, or of another process than a flow.
        """
        file = self.path / SCHEDULER / "scheduler_config.json"
        if not file.is_file():
            return SchedulerSettings()
        content = _read_json(file)
        return _checked(lambda: scheduler_settings_of(content, str(file)), file)

    def remarks(self) -> tuple[str, ...]:
        """Which weights are read where there are several, and what of the scheduler is not done here.

        Raises:
            WeightsError: the variant that was asked for is in no component.
        """
        components = [folder for folder in (self.transformer, self.vae) if folder is not None]
        if self.variant is not None:
            there = {name for folder in components for name in weight_variants(folder, STEM) if name != FULL}
            if self.variant not in there:
                raise WeightsError(
                    f"{self.path} has no variant {self.variant!r} of its weights; there "
                    f"{'is ' + listed(sorted(there)) if there else 'are no variants: leave --variant out'}."
                )
        chosen = (chosen_variant(folder, STEM, self.variant)[1] for folder in components)
        return (*(remark for remark in chosen if remark is not None), *self.scheduler().remarks)

    def null_text(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Embedding f32 [1, N, D] and mask bool [1, N] of the empty prompt that the exporter stored, or None.

        Raises:
            WeightsError, SafetensorsError: the file is damaged.
        """
        if not (self.path / TEXT / f"{NULL_STEM}.safetensors").is_file():
            return None
        stored = load_sharded(self.path / TEXT, NULL_STEM)
        embeds, mask = _checked(lambda: (stored["embeds"], stored["mask"]), self.path / TEXT)
        refuse_non_finite(embeds, f"{self.path / TEXT / NULL_STEM}.safetensors: embeds", FILE_CAUSE)
        return embeds, mask


def find_diffusers_folder(path: str | os.PathLike, variant: str | None = None) -> DiffusersFolder | None:
    """The components at ``path``, or None if it is no diffusers folder.

    ``path`` is the folder of a pipeline, or of one component alone (its ``config.json`` names the class). A
    folder counts as a component if it holds a configuration or weights. ``variant`` as in
    :class:`DiffusersFolder`.

    Raises:
        WeightsError: in place of the component's ``config.json`` there is a Git LFS pointer or the like.
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
        except (ValueError, RecursionError) as error:
            instead = what_file_instead(own, text_expected=True)
            if instead is not None:
                raise WeightsError(f"{own} {instead}") from error
            return None
        class_name = content.get("_class_name") if isinstance(content, dict) else None
        for name, expected in CLASSES.items():
            if class_name == expected:
                parts[name] = path
    if parts[TRANSFORMER] is None and parts[AUTOENCODER] is None:
        return None
    return DiffusersFolder(path, parts[TRANSFORMER], parts[AUTOENCODER], parts[CAMERA], variant)


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
    layer = {name: content[name] for name in ("plucker_res", "patch") if name in content}
    missing = {"plucker_res", "patch"} - layer.keys()
    if missing:
        raise WeightsError(f"{file}: the entry {sorted(missing)[0]!r} is missing.")
    return _checked(lambda: config_from_json(CameraConfig, layer), file)


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
        text = f"{str(error).rstrip('.')}."
        raise WeightsError(text if str(source) in text else f"{source}: {text}") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except MissingFile as error:
        raise WeightsError(f"{file} is absent: sizes are read from it, never guessed.") from error
    except InvalidValue as error:
        text = str(error)
        raise WeightsError(
            text if "again" in text or "Run" in text else f"{text} Download it again."
        ) from error


def _read_config(file: Path, component: str) -> dict[str, Any]:
    content = _read_json(file)
    class_name, expected = content.get("_class_name"), CLASSES[component]
    if class_name not in (None, expected):
        raise WeightsError(
            f"{file} is of a {class_name}; this package imports {expected}: another model, or another "
            "component's folder."
        )
    return content


def _open_tensors(component: Path, stem: str, variant: str | None = None) -> SequentialTensors:
    """The weights of a component, opened lazily, their format and dtypes checked."""
    chosen, _ = chosen_variant(component, stem, variant)
    try:
        files = open_sharded(component, stem, chosen)
    except FileNotFoundError as error:
        raise WeightsError(_absent(component, stem, str(error))) from error
    for file in files:
        _check_dtypes(file)
    return SequentialTensors(files)


def _absent(component: Path, stem: str, reason: str) -> str:
    others = sorted(path.name for path in component.iterdir()) if component.is_dir() else []
    pickles = [name for name in others if name.endswith(_PICKLES)]
    if pickles and not weight_variants(component, stem):
        return (
            f"{component} holds {listed(pickles, 3)}: a pickle, which can run code when it is opened and is "
            "never read here. Load it where you trust it and save it with "
            "save_pretrained(..., safe_serialization=True)."
        )
    shards = [name for name in others if re.search(r"-\d+-of-\d+\b.*\.safetensors$", name)]
    if shards and not weight_variants(component, stem):
        return (
            f"{component} holds {listed(shards, 3)} but no index of them ({stem}.safetensors.index.json), "
            "which says what belongs to the model. Download the whole folder."
        )
    foreign = [name for name in others if name.endswith(".safetensors")]
    if foreign and not weight_variants(component, stem):
        return (
            f"{component} holds {listed(foreign, 3)}, not {stem}.safetensors: weights of another library, "
            "with other names inside. Use those in diffusers' layout."
        )
    ggufs = [name for name in others if name.endswith(".gguf")]
    if ggufs:
        return f"{component} holds {', '.join(ggufs)}: quantised weights are not imported."
    return f"{reason} Download the whole folder."


def _check_dtypes(file: SafetensorsFile) -> None:
    for name in file:
        dtype = file.dtype(name)
        if dtype in READ_DTYPES:
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
