"""Embeddings: CLIP."""

from __future__ import annotations

from camctrl_jax.estimators.process import Installation, Program
from camctrl_jax.estimators.programs import ProgramEmbeddings
from camctrl_jax.estimators.recipes.runner import READING, runner


def clip(installation: Installation) -> ProgramEmbeddings:
    """The picture half of CLIP by transformers, from a local folder (config.json, model.safetensors).

    Its environment: torch, transformers, numpy, Pillow. Pictures are resized (bicubic, the shorter side to
    the size of the model), cropped in the middle and normalised as CLIP's were in training; embeddings are
    projected.
    """
    command = ("{python}", runner("clip"), "--weights", "{weights}", "--images", "{images}", "--out", "{out}")
    return ProgramEmbeddings(
        Program(
            "CLIP",
            (command,),
            installation,
            weight_names=("a folder such as openai/clip-vit-large-patch14",),
            licence=f"Code MIT; the model card of the weights advises against deployment. {READING}",
        )
    )
