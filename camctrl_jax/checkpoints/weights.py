"""Weights by name: what a weights spec stands for, and the weights folders that releases are made of.

A weights spec is a string that names trained weights wherever the package takes some:

* ``default``: the small worlds model that is embedded in the package;
* ``student``: its student for laptops, embedded too: one to 32 steps, usually four, without guidance;
* a run directory, as ``--workdir`` of ``camctrl_jax.train`` made it (the moving average of its newest
  checkpoint);
* a weights folder: ``model.json``, ``vae*.safetensors``, ``mmdit*.safetensors`` and a model card,
  ``README.md``;
* a checkpoint that ``camctrl_jax.export from-diffusers`` made, or a diffusers folder itself.

A weights folder holds an autoencoder, a transformer, or both; parameters are one flat list of tensors per
network, named by their path in the parameter tree. Matrices are bfloat16, vectors (biases, gains) float32.
A transformer may be stored as its difference from that of another folder, whose autoencoder it takes
(``camctrl_jax.checkpoints.deltas``).
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
from jax.sharding import Mesh

import camctrl_jax
from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.deltas import DeltaOf, RestoredTensors, delta_tensors
from camctrl_jax.checkpoints.mesh_reading import Keep, onto_mesh
from camctrl_jax.checkpoints.runs import CheckpointError, latest_step, load_params, load_run_config
from camctrl_jax.errors import InvalidValue
from camctrl_jax.files.atomic import is_in_use, replaced_folder
from camctrl_jax.files.json_file import read_json
from camctrl_jax.files.safetensors import (
    SequentialTensors,
    flatten,
    open_sharded,
    save_sharded,
    unflatten,
)
from camctrl_jax.interop.described import (
    Distilled,
    SamplingDefaults,
    WeightsError,
    check_target_time,
    config_from_json,
    config_to_json,
)
from camctrl_jax.interop.diffusers_import import find_diffusers_folder
from camctrl_jax.interop.fields import Kind, check_fields, or_null, whole
from camctrl_jax.interop.finite import FILE_CAUSE, IMPORT_CAUSE, RUN_CAUSE, own_share, refuse_non_finite
from camctrl_jax.models import VAE, MMDiT, MMDiTConfig, VAEConfig

DEFAULT_SPEC, STUDENT_SPEC = EMBEDDED = ("default", "student")
MODEL_FILE = "model.json"
CARD_FILE = "README.md"
FORMAT = "camctrl_jax weights"
FORMAT_VERSION = 2
_WHOLE_VERSION = 1  # of folders that hold no differences: earlier packages read them
MAX_SHARD_BYTES = 16_000_000 - 1
_OBJECT = Kind("an object", lambda value: isinstance(value, dict))
_MODEL_KINDS = {
    "format_version": whole(1, 1000),
    **dict.fromkeys(("vae", "mmdit", "sampling", "text", "distilled", "delta"), or_null(_OBJECT)),
    "facts": _OBJECT,
}

_NO_AUTOENCODER = (
    "{path} holds no autoencoder. Name one that does: a run of configs/vae.py, a weights folder, or "
    f"'{DEFAULT_SPEC}'."
)

Params = dict[str, Any]


@dataclass(frozen=True)
class Weights:
    """What a weights spec stands for. Opening reads configurations; parameters are read when asked for.

    Attributes:
        spec: as given.
        path: the folder or run directory.
        vae_config: sizes of the autoencoder, or None if there is none here.
        mmdit_config: sizes of the transformer, or None if there is none here.
        text: settings of the text embedder (``camctrl_jax.data.text.embedder_from_settings``), with the
            transformer.
        sampling: the clips the transformer was trained on, and guidance; with the transformer.
        vae_spec: weights spec of the autoencoder that belongs to the transformer.
        facts: whatever else is known about the training; for people and reports.
        distilled: of a student, what it was made for; None for a model that is none.
        delta: what the transformer is stored as a difference from; None where it is stored whole.
        kind: how the parameters are stored: 'folder' (a weights folder), 'run' (checkpoints), 'diffusers'.
    """

    spec: str
    path: Path
    vae_config: VAEConfig | None = None
    mmdit_config: MMDiTConfig | None = None
    text: Mapping[str, Any] | None = None
    sampling: SamplingDefaults | None = None
    vae_spec: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    distilled: Distilled | None = None
    delta: DeltaOf | None = None
    kind: Literal["folder", "run", "diffusers"] = "folder"

    def vae_params(self, *, mesh: Mesh | None = None, dtype: Any = np.float32, ema: bool = True) -> Params:
        """Parameters of the autoencoder, checked by name and shape.

        Args:
            mesh: read them straight onto this mesh, each process its own part; None: into host memory.
            dtype: of the result; None keeps the stored one. With a mesh it may be a function of the dotted
                path.
            ema: of a training run, the moving average rather than the raw parameters.
        """
        if self.vae_config is None:
            raise WeightsError(_NO_AUTOENCODER.format(path=self.path))
        return self._read("vae", expected_vae(self.vae_config), mesh, dtype, ema)

    def mmdit_params(self, *, mesh: Mesh | None = None, dtype: Any = np.float32, ema: bool = True) -> Params:
        """Parameters of the transformer; arguments as of :meth:`vae_params`."""
        if self.mmdit_config is None:
            raise WeightsError(
                f"{self.path} holds no transformer, only an autoencoder. Name a run of configs/base.py or "
                f"configs/stage1.py, a weights folder, or '{DEFAULT_SPEC}'."
            )
        return self._read("mmdit", expected_mmdit(self.mmdit_config), mesh, dtype, ema)

    def _read(self, stem: str, expected: Params, mesh: Mesh | None, dtype: Any, ema: bool) -> Params:
        source = f"{self.path} ({stem})"
        if self.kind == "run":
            # Checked before anything is read.
            return load_params(
                self.path,
                ema=ema,
                part=stem,
                mesh=mesh,
                dtype=dtype,
                check=lambda saved: check_tensors(flatten(saved), flatten(expected), source),
            )
        keep = _host_copy(dtype) if mesh is None else onto_mesh(mesh, dtype)
        if self.kind == "diffusers":
            found = find_diffusers_folder(self.path)
            return found.vae_params(keep) if stem == "vae" else found.transformer_params(keep)
        flat = SequentialTensors(open_sharded(self.path, stem))
        if stem == "mmdit" and self.delta is not None:
            base = self._base(self.delta)
            others = base.stored_mmdit()
            self.delta.check(others, self.path, base.path)
            flat = RestoredTensors(flat, others)
        check_tensors(flat.shapes(), flatten(expected), source)
        kept = {}
        for name, array in flat.items():
            refuse_non_finite(own_share(array), f"{flat.path(name)}: {name}", FILE_CAUSE)
            kept[name] = keep(tuple(name.split(".")), array)
        return unflatten(kept)

    def _base(self, delta: DeltaOf) -> Weights:
        """The weights, stored whole, that this folder holds differences from."""
        try:
            return as_base(open_weights(delta.spec(self.path)))
        except WeightsError as error:
            raise WeightsError(f"{self.path} holds differences from {delta.of!r}: {error}") from error

    def stored_mmdit(self) -> SequentialTensors:
        """The tensors of a whole transformer in a folder, by dotted name, checked by name and shape."""
        flat = SequentialTensors(open_sharded(self.path, "mmdit"))
        check_tensors(flat.shapes(), flatten(expected_mmdit(self.mmdit_config)), f"{self.path} (mmdit)")
        return flat


def _host_copy(dtype: Any) -> Keep:
    """Into host memory, an array of its own. bfloat16 is exact in float32."""
    return lambda path, array: np.array(array, dtype=dtype or array.dtype, order="C")


def default_folder() -> Path:
    """The folder of the embedded default weights, whether or not it is there."""
    return Path(str(importlib.resources.files(camctrl_jax))) / "weights" / "worlds"


def student_folder() -> Path:
    """The folder of the embedded student, whether or not it is there."""
    return default_folder().with_name("worlds_student")


def open_weights(spec: str | os.PathLike) -> Weights:
    """Find what a weights spec names and read its configurations.

    Raises:
        WeightsError: nothing is there, it is neither a run nor a weights folder, or its ``model.json`` is
            damaged.
    """
    spec = os.fspath(spec)
    if spec in EMBEDDED:
        path = default_folder() if spec == DEFAULT_SPEC else student_folder()
        if not (path / MODEL_FILE).exists():
            raise WeightsError(
                f"The embedded {spec} weights are absent ({path} has no {MODEL_FILE}). A source checkout "
                "may come without them: install the released package, or name other weights, for example the "
                "directory of a run of your own (--checkpoint runs/stage1)."
            )
        return _open_folder(spec, path)
    path = Path(spec)
    if not path.exists():
        raise WeightsError(
            f"No weights at {spec!r}: expected '{DEFAULT_SPEC}', '{STUDENT_SPEC}', a run directory, a "
            f"weights folder or a diffusers folder. Is the path right? It was looked up from {Path.cwd()}."
        )
    if (path / MODEL_FILE).exists():
        return _open_folder(spec, path)
    found = find_diffusers_folder(path)
    if found is not None:
        return Weights(
            spec,
            path,
            vae_config=None if found.vae is None else found.vae_config(),
            mmdit_config=None if found.transformer is None else found.transformer_config(),
            sampling=_as_distilled(found.sampling(), found.distilled()),
            vae_spec=None if found.vae is None else spec,
            distilled=found.distilled(),
            kind="diffusers",
        )
    return _open_run(spec, path)


def _as_distilled(sampling: SamplingDefaults | None, distilled: Distilled | None) -> SamplingDefaults | None:
    """The sampling defaults of weights, those of a student as it was made to be sampled."""
    return sampling if sampling is None or distilled is None else distilled.defaults(sampling)


def open_vae(spec: str | os.PathLike) -> Weights:
    """The weights of the autoencoder that ``spec`` names, configurations only.

    For a run of the transformer this is the autoencoder that it was trained with.

    Raises:
        WeightsError: there is none.
    """
    weights = open_weights(spec)
    if weights.vae_config is None and weights.vae_spec:
        weights = open_weights(weights.vae_spec)
    if weights.vae_config is None:
        raise WeightsError(_NO_AUTOENCODER.format(path=weights.path))
    return weights


def load_vae(spec: str | os.PathLike) -> tuple[VAEConfig, Params]:
    """Configuration and float32 parameters of what :func:`open_vae` finds."""
    weights = open_vae(spec)
    return weights.vae_config, weights.vae_params()


def _open_folder(spec: str, path: Path) -> Weights:
    file = path / MODEL_FILE
    try:
        content = read_json(file)
        if content["format"] != FORMAT:
            raise InvalidValue(f"its format is {content['format']!r}, expected {FORMAT!r}")
        check_fields(content, _MODEL_KINDS, str(file))
        if content["format_version"] > FORMAT_VERSION:
            raise InvalidValue(
                f"its format version is {content['format_version']}, this package reads up to "
                f"{FORMAT_VERSION}; update camctrl_jax"
            )
        vae, mmdit, sampling = content.get("vae"), content.get("mmdit"), content.get("sampling")
        distilled = content.get("distilled")
        sampling = None if sampling is None else config_from_json(SamplingDefaults, sampling)
        distilled = None if distilled is None else config_from_json(Distilled, distilled)
        mmdit = None if mmdit is None else config_from_json(MMDiTConfig, mmdit)
        check_target_time(str(file), mmdit, distilled)
        delta = content.get("delta")
        delta = None if delta is None else config_from_json(DeltaOf, delta)
        own_vae = spec if vae is not None else None
        return Weights(
            spec=spec,
            path=path,
            vae_config=None if vae is None else config_from_json(VAEConfig, vae),
            mmdit_config=mmdit,
            text=content.get("text"),
            sampling=_as_distilled(sampling, distilled),
            vae_spec=own_vae if delta is None else delta.spec(path),
            facts=content.get("facts", {}),
            distilled=distilled,
            delta=delta,
        )
    except KeyError as error:
        raise WeightsError(f"{file}: the entry {error} is missing: not a complete weights folder.") from error
    except (ValueError, TypeError) as error:
        text = f"{str(error).rstrip('.')}."
        raise WeightsError(text if str(file) in text else f"{file}: {text}") from error


def as_base(base: Weights) -> Weights:
    """Weights, if differences can be taken from them: a folder that holds a whole transformer.

    Raises:
        WeightsError: they are a run, a diffusers folder, an autoencoder alone or themselves a difference.
    """
    if base.kind != "folder" or base.delta is not None or base.mmdit_config is None:
        raise WeightsError(
            f"{base.spec}: differences are taken from a weights folder whose transformer is stored whole, "
            "which this is not. Make one: python -m camctrl_jax.export weights --checkpoint "
            f"{base.spec} --out FOLDER."
        )
    return base


def _open_run(spec: str, path: Path) -> Weights:
    try:
        config = load_run_config(path)
    except CheckpointError as error:
        if latest_step(path) is not None:  # a run, but a damaged one
            raise WeightsError(str(error)) from error
        raise WeightsError(
            f"{path} is neither a weights folder (it has no {MODEL_FILE}), nor a diffusers folder (it has no "
            f"transformer/ or vae/), nor a run directory: {error}"
        ) from error
    if config.get("architecture") is None:
        raise WeightsError(
            f"{path} is a run without a checkpoint: nothing is trained yet. Let it reach its first one "
            "(--config.checkpoint_every)."
        )
    guidance = {name: config.get("sample", {}).get(name) for name in ("text_guidance", "camera_guidance")}
    try:
        built = Architecture.from_json(config["architecture"])
        sampling = built.sampling(guidance)
    except InvalidValue as error:
        raise WeightsError(
            f"The configuration stored with the checkpoints of {path} does not describe a model: "
            f"{str(error).rstrip('.')}. Copy the run again, or use an earlier checkpoint."
        ) from error
    check_target_time(f"The checkpoints of {path}", built.mmdit, built.distilled)
    return Weights(
        spec,
        path,
        vae_config=built.vae,
        mmdit_config=None if built.mmdit is None else _as_built(built.mmdit),
        text=built.text,
        sampling=sampling,
        vae_spec=spec if built.vae is not None else built.vae_spec,
        facts={"config": config},
        distilled=built.distilled,
        kind="run",
    )


def save_weights_folder(
    directory: str | os.PathLike,
    *,
    vae: tuple[VAEConfig, Params] | None = None,
    mmdit: tuple[MMDiTConfig, Params] | None = None,
    text: Mapping[str, Any] | None = None,
    sampling: SamplingDefaults | None = None,
    facts: Mapping[str, Any] | None = None,
    distilled: Distilled | None = None,
    delta_of: Weights | None = None,
    card: str,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    causes: Mapping[str, str] | None = None,
) -> Path:
    """Write a weights folder. It appears under its name only when complete.

    Args:
        directory: must not exist, or be empty: weights are never overwritten.
        vae: configuration and parameters of the autoencoder.
        mmdit: configuration and parameters of the transformer, one entry per layer.
        text: settings of the text embedder; required with ``mmdit``.
        sampling: the clips the transformer was trained on, and guidance; required with ``mmdit``. Of a
            student the guidance and steps that it was made for are stored.
        facts: JSON-able facts about the training (data, seeds, compute, figures).
        distilled: of a student, what it was made for.
        delta_of: what to store the transformer as a difference from (:func:`as_base`); its autoencoder is
            the one of these weights, and ``vae`` is None.
        card: the model card, Markdown.
        max_shard_bytes: largest file.
        causes: by network ('vae', 'mmdit'), what may have led to NaN or infinity in it and what to do; by
            default, that the run diverged.

    Returns:
        The folder.

    Raises:
        WeightsError: parameters that do not belong to their configuration, missing settings, or a folder
            that is already in use.
    """
    directory = Path(directory)
    if is_in_use(directory):
        raise WeightsError(f"{directory} already exists and is not an empty folder: choose another --out.")
    if vae is None and mmdit is None:
        raise WeightsError("A weights folder needs an autoencoder, a transformer, or both.")
    if mmdit is not None and (text is None or sampling is None):
        raise WeightsError("A transformer is saved with its text settings and its sampling defaults.")
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": _WHOLE_VERSION if delta_of is None else FORMAT_VERSION,
        "package_version": camctrl_jax.__version__,
    }
    networks: dict[str, dict[str, Any]] = {}
    causes = causes or {}
    if vae is not None:
        config, params = vae
        networks["vae"] = _stored(params, expected_vae(config), "autoencoder", causes.get("vae", RUN_CAUSE))
        content["vae"] = config_to_json(config)
    if mmdit is not None:
        config, params = mmdit
        cause = causes.get("mmdit", RUN_CAUSE)
        networks["mmdit"] = _stored(params, expected_mmdit(config), "transformer", cause)
        if delta_of is not None:
            others = as_base(delta_of).stored_mmdit()
            networks["mmdit"] = delta_tensors(networks["mmdit"], others)
            content["delta"] = config_to_json(DeltaOf.to(delta_of.spec, others, directory))
        sampling = _as_distilled(sampling, distilled)
        content |= {"mmdit": config_to_json(config), "text": dict(text), "sampling": config_to_json(sampling)}
    if distilled is not None:
        content["distilled"] = config_to_json(distilled)
    content["facts"] = dict(facts or {})
    serialised = json.dumps(content, indent=1, allow_nan=False) + "\n"  # may refuse facts: before any file

    with replaced_folder(directory) as partial:
        for stem, tensors in networks.items():
            save_sharded(partial, tensors, stem=stem, max_file_bytes=max_shard_bytes)
        (partial / CARD_FILE).write_text(card, "utf-8")
        (partial / MODEL_FILE).write_text(serialised, "utf-8")
    return directory


def cause_of_non_finite(weights: Weights) -> str:
    """What may have led to NaN or infinity in opened weights, and what to do."""
    if weights.kind != "run":
        return FILE_CAUSE
    return IMPORT_CAUSE if "imported" in weights.facts["config"] else RUN_CAUSE


def _stored(params: Params, expected: Params, what: str, cause: str) -> dict[str, np.ndarray]:
    flat = flatten(params)
    check_tensors(flat, flatten(expected), f"The {what}'s parameters")
    stored = {}
    for name, array in flat.items():
        array = np.asarray(array)
        refuse_non_finite(array, f"The {what}'s parameter {name!r}", cause)
        # Vectors are few and sensitive: gains, biases and tables keep float32.
        stored[name] = array.astype(ml_dtypes.bfloat16 if array.ndim >= 2 else np.float32)
    return stored


def expected_vae(config: VAEConfig) -> Params:
    """Shapes of the autoencoder's parameters, a nested dict of ``jax.ShapeDtypeStruct``."""
    return VAE(config).abstract_params()


def expected_mmdit(config: MMDiTConfig) -> Params:
    """Shapes of the transformer's parameters, per layer, a nested dict of ``jax.ShapeDtypeStruct``."""
    return MMDiT(dataclasses.replace(config, scan_layers=False)).abstract_params()


def check_tensors(found: Mapping[str, Any], expected: Mapping[str, Any], source: str) -> None:
    """Compare names and shapes of flat parameters.

    Raises:
        WeightsError: naming the missing, the unexpected and the misshaped tensors.
    """
    problems = []
    for what, names in (
        ("missing", expected.keys() - found.keys()),
        ("unexpected", found.keys() - expected.keys()),
    ):
        if names:
            problems.append(f"{len(names)} {what}: {_some(names)}")
    shapes = [
        f"{name} {list(np.shape(found[name]))} instead of {list(expected[name].shape)}"
        for name in sorted(found.keys() & expected.keys())
        if tuple(np.shape(found[name])) != tuple(expected[name].shape)
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape: {_some(shapes)}")
    if problems:
        raise WeightsError(
            f"{source} and the configuration do not belong together: {'; '.join(problems)}. "
            "The weights are of another preset or version: use the configuration they were trained with."
        )


def _some(names: Any, limit: int = 5) -> str:
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _as_built(config: MMDiTConfig) -> MMDiTConfig:
    """The configuration without the run-time choices of a training run."""
    return config_from_json(MMDiTConfig, config_to_json(config))
