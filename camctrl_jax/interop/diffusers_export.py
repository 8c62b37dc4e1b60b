"""A trained model as a folder for PyTorch: stock diffusers components, camera layer, and what runs them.

``transformer/`` and ``vae/`` are strict checkpoints of the stock classes, which need no custom code for them.
The camera layer is not part of the stock class and lies in ``camera/`` with the convention of its Pluecker
maps; ``camera_pipeline.py``, copied from this package, runs all of it with torch and diffusers alone.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.errors import FileInUse
from camctrl_jax.files.atomic import is_in_use, replaced_folder
from camctrl_jax.files.json_file import write_json
from camctrl_jax.files.safetensors import save_sharded, write_safetensors
from camctrl_jax.interop import diffusers_import as layout
from camctrl_jax.interop.described import Distilled, SamplingDefaults, config_to_json
from camctrl_jax.interop.finite import RUN_CAUSE, refuse_non_finite
from camctrl_jax.interop.keys import export_mmdit, export_vae
from camctrl_jax.interop.scheduler import SCHEDULER_CLASS
from camctrl_jax.interop.stock_configs import mmdit_to_stock, vae_to_stock
from camctrl_jax.models import MMDiTConfig, VAEConfig

PIPELINE_FILE = "camera_pipeline.py"
INDEX_FILE = "model_index.json"
MAX_FILE_BYTES = 10_000_000_000

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Exported:
    """What goes into the folder.

    Attributes:
        transformer: configuration and parameters, one entry per layer.
        vae: configuration and parameters; None leaves it to the base model's folder.
        sampling: the clips that the transformer was trained on, and guidance, or None if nothing is known.
        shift: timestep shift of the scheduler at these clips.
        null_text: embedding f [1, N, D] and mask bool [1, N] of the empty prompt, or None.
        readme: Markdown that says what the model is.
        cause: of parameters that hold NaN or infinity, what may have led to it and what to do.
        distilled: of a student, what it was made for; stored with ``sampling``.
    """

    transformer: tuple[MMDiTConfig, Params]
    vae: tuple[VAEConfig, Params] | None
    sampling: SamplingDefaults | None
    shift: float
    null_text: tuple[np.ndarray, np.ndarray] | None
    readme: str
    cause: str = RUN_CAUSE
    distilled: Distilled | None = None


def write_diffusers_folder(
    directory: Path, exported: Exported, *, dtype: Any = None, max_file_bytes: int = MAX_FILE_BYTES
) -> Path:
    """Write the folder. It appears under its name only when complete.

    Args:
        directory: must not exist, or be empty.
        exported: what to write.
        dtype: bfloat16 or float32 for every tensor of transformer and autoencoder; None keeps their own.
            The camera layer is float32 always: it is computed in float32.
        max_file_bytes: largest file of weights.

    Raises:
        FileInUse: the folder is in use.
        InvalidValue: a camera that the exported pipeline does not know.
        WeightsError: parameters hold NaN or infinity.
    """
    directory = Path(directory)
    if is_in_use(directory):
        raise FileInUse(f"{directory} already exists and is not an empty folder: choose another --out.")
    config, params = exported.transformer
    tensors, camera = export_mmdit(params)
    components = [(layout.TRANSFORMER, mmdit_to_stock(config), tensors)]
    if exported.vae is not None:
        components.append((layout.AUTOENCODER, vae_to_stock(exported.vae[0]), export_vae(exported.vae[1])))
    for name, _, weights in [*components, (layout.CAMERA, None, camera or {})]:
        for tensor, array in weights.items():
            refuse_non_finite(array, f"{name}: tensor {tensor}", exported.cause)

    with replaced_folder(directory) as partial:
        for name, stock, weights in components:
            (partial / name).mkdir()
            write_json(partial / name / "config.json", {"_class_name": layout.CLASSES[name], **stock})
            save_sharded(
                partial / name,
                weights,
                stem=layout.STEM,
                max_file_bytes=max_file_bytes,
                metadata={"format": "pt"},  # without it transformers-style loaders refuse the file
                dtype=dtype,
            )
        if camera is not None:
            (partial / layout.CAMERA).mkdir()
            settings = {"plucker_res": config.camera.resolution, "patch": list(config.camera.patch)}
            write_json(partial / layout.CAMERA / "config.json", settings | layout.CAMERA_CONVENTION)
            write_safetensors(
                partial / layout.CAMERA / f"{layout.CAMERA_STEM}.safetensors", camera, dtype=np.float32
            )
        if exported.sampling is not None:
            stored = config_to_json(exported.sampling)
            if exported.distilled is not None:
                stored[layout.DISTILLED] = config_to_json(exported.distilled)
            write_json(partial / layout.SAMPLING_FILE, stored)
        (partial / layout.SCHEDULER).mkdir()
        write_json(partial / layout.SCHEDULER / "scheduler_config.json", scheduler_settings(exported.shift))
        if exported.null_text is not None:
            (partial / layout.TEXT).mkdir()
            embeds, mask = exported.null_text
            write_safetensors(
                partial / layout.TEXT / f"{layout.NULL_STEM}.safetensors",
                {"embeds": np.asarray(embeds, np.float32), "mask": np.asarray(mask, bool)},
            )
        write_json(partial / INDEX_FILE, pipeline_index(has_vae=exported.vae is not None))
        source = importlib.resources.files("camctrl_jax.interop") / PIPELINE_FILE
        (partial / PIPELINE_FILE).write_text(source.read_text("utf-8"), "utf-8")
        (partial / "README.md").write_text(exported.readme, "utf-8")
    return directory


def pipeline_index(*, has_vae: bool) -> dict[str, Any]:
    """``model_index.json``: the folder as a stock ``MotifVideoPipeline``, without what is not in it.

    diffusers takes null for a part of that pipeline only from the caller, ``text_encoder=None`` and so on.
    """
    components = (layout.TRANSFORMER, layout.AUTOENCODER) if has_vae else (layout.TRANSFORMER,)
    absent = ("vae", "text_encoder", "tokenizer", "guider", "feature_extractor")
    return {
        "_class_name": "MotifVideoPipeline",
        **{name: [None, None] for name in absent},
        layout.SCHEDULER: ["diffusers", SCHEDULER_CLASS],
        **{name: ["diffusers", layout.CLASSES[name]] for name in components},
    }


def scheduler_settings(shift: float) -> dict[str, Any]:
    """Configuration of diffusers' ``FlowMatchEulerDiscreteScheduler`` for the time grid of this package."""
    return {
        "_class_name": SCHEDULER_CLASS,
        "num_train_timesteps": 1000,
        "shift": shift,
        "use_dynamic_shifting": False,
    }
