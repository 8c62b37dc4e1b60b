"""Where trained clip features come from: the folder in the package, another one, or a training run.

A folder holds ``config.json`` (sizes of the network, facts about its training), ``clip_features.safetensors``
(matrices float16, vectors float32) and a card, ``README.md``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

import camctrl_jax
from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.runs import CheckpointError, latest_step, load_params, load_run_config
from camctrl_jax.checkpoints.weights import CARD_FILE, check_tensors, default_folder
from camctrl_jax.errors import InvalidValue, file_failures
from camctrl_jax.files.atomic import is_in_use, replaced_folder
from camctrl_jax.files.safetensors import flatten, load_sharded, save_sharded, unflatten
from camctrl_jax.interop.described import WeightsError, config_from_json, config_to_json
from camctrl_jax.models import ClipFeatureNetwork, ClipFeatures, ClipFeaturesConfig

DEFAULT_SPEC = "default"
CONFIG_FILE = "config.json"
FORMAT = "camctrl_jax clip features"
FORMAT_VERSION = 1
_STEM = "clip_features"


@dataclass(frozen=True)
class StoredClipFeatures:
    """A trained network with what is known of it.

    Attributes:
        config: sizes.
        params: nested dict of f32 arrays.
        facts: JSON-able, about its training.
    """

    config: ClipFeaturesConfig
    params: dict[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


def default_clip_features_folder() -> Path:
    """The folder in the package, whether or not it is there."""
    return default_folder().parent / _STEM


def load_clip_features(
    spec: str | os.PathLike = DEFAULT_SPEC, *, batch_size: int | None = None
) -> ClipFeatures:
    """The network that a spec names, ready to look at clips.

    Args:
        spec: 'default' (shipped with the package), a folder of ``export features``, or a run of
            ``configs/features.py`` (its moving average).
        batch_size: clips in one call; None is 2 on a CPU and 16 on an accelerator.

    Raises:
        WeightsError: nothing is there, or it is something else, damaged, or newer than this package.
    """
    stored = open_clip_features(spec)
    size = (2 if jax.default_backend() == "cpu" else 16) if batch_size is None else batch_size
    return ClipFeatures(stored.config, jax.tree.map(jax.numpy.asarray, stored.params), size)


def open_clip_features(spec: str | os.PathLike = DEFAULT_SPEC) -> StoredClipFeatures:
    """Network and facts of a spec; arguments and errors as of :func:`load_clip_features`."""
    spec = os.fspath(spec)
    path = default_clip_features_folder() if spec == DEFAULT_SPEC else Path(spec)
    if not path.exists():
        raise WeightsError(
            f"No clip features at {path}: expected '{DEFAULT_SPEC}', a folder that `python -m "
            "camctrl_jax.export features` made, or a run of configs/features.py. "
            f"It was looked up from {Path.cwd()}."
        )
    content = _folder_config(path / CONFIG_FILE)
    return _open_run(path) if content is None else _open_folder(path, content)


def _folder_config(file: Path) -> Mapping[str, Any] | None:
    """What ``config.json`` of a folder of clip features says; None where it is not of one."""
    if not file.exists():
        return None
    try:
        with file_failures(file, "read"):
            content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise WeightsError(f"{file} is not JSON: {error}.") from error
    # A run has a file of this name, too.
    return content if isinstance(content, Mapping) and content.get("format") == FORMAT else None


def _open_folder(path: Path, content: Mapping[str, Any]) -> StoredClipFeatures:
    file = path / CONFIG_FILE
    try:
        if content["format_version"] > FORMAT_VERSION:
            raise InvalidValue(
                f"its format version is {content['format_version']}, this package reads up to "
                f"{FORMAT_VERSION}; update camctrl_jax"
            )
        config = config_from_json(ClipFeaturesConfig, content["network"])
    except KeyError as error:
        raise WeightsError(f"{file}: the entry {error} is missing: not complete clip features.") from error
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{file}: {str(error).rstrip('.')}.") from error
    flat = load_sharded(path, _STEM)
    check_tensors(flat, _expected(config), str(path))
    params = unflatten({name: np.array(array, np.float32) for name, array in flat.items()})
    return StoredClipFeatures(config, params, content.get("facts", {}))


def _open_run(path: Path) -> StoredClipFeatures:
    try:
        run = load_run_config(path)
    except CheckpointError as error:
        raise WeightsError(f"{path} holds neither clip features nor a training run: {error}") from error
    built = run.get("architecture")
    config = None if built is None else Architecture.from_json(built).clip_features
    if config is None:
        raise WeightsError(
            f"{path} is a run without clip features: expected one of configs/features.py that has reached "
            "its first checkpoint."
        )

    def check(saved: dict) -> None:
        check_tensors(flatten(saved), _expected(config), str(path))

    facts = {"steps": latest_step(path), "config": run}
    return StoredClipFeatures(config, load_params(path, dtype=np.float32, check=check), facts)


def _expected(config: ClipFeaturesConfig) -> dict[str, Any]:
    return flatten(ClipFeatureNetwork(config).abstract_params())


def save_clip_features(directory: str | os.PathLike, stored: StoredClipFeatures, card: str) -> Path:
    """Write a folder of clip features; it appears under its name only when complete.

    The same network, facts and card give the same bytes.

    Args:
        directory: must not exist, or be empty: nothing is ever overwritten.
        stored: what to write.
        card: Markdown.

    Raises:
        WeightsError: the folder is in use, or parameters are not finite or do not belong to the sizes.
    """
    directory = Path(directory)
    if is_in_use(directory):
        raise WeightsError(f"{directory} already exists and is not an empty folder: choose another --out.")
    flat = flatten(stored.params)
    check_tensors(flat, _expected(stored.config), "the parameters")
    tensors = {}
    for name, array in flat.items():
        with np.errstate(over="ignore"):  # what does not fit is refused by name
            tensors[name] = np.asarray(array).astype(np.float16 if np.ndim(array) >= 2 else np.float32)
        if not np.isfinite(tensors[name]).all():
            raise WeightsError(f"The parameter {name!r} holds NaN, infinity or more than float16 can.")
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "package_version": camctrl_jax.__version__,
        "network": config_to_json(stored.config),
        "facts": dict(stored.facts),
    }
    serialised = json.dumps(content, indent=1, allow_nan=False) + "\n"
    with replaced_folder(directory) as partial:
        save_sharded(partial, tensors, stem=_STEM)
        (partial / CARD_FILE).write_text(card, "utf-8")
        (partial / CONFIG_FILE).write_text(serialised, "utf-8")
    return directory
