"""Model cards: what an exported folder says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from camctrl_jax.files.safetensors import flatten
from camctrl_jax.interop.described import Distilled
from camctrl_jax.metrics.worlds_scores import markdown_report


def model_card(
    title: str,
    networks: Mapping[str, Any],
    sampling: Any,
    facts: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    distilled: Distilled | None = None,
    delta_of: str | None = None,
) -> str:
    """A model card from what is known: what it is, how to use it, data, training, figures, limits."""
    names = {
        "vae": "causal video autoencoder (4x in time, 8x in space)",
        "mmdit": "camera-controlled transformer",
    }
    parts = [
        f"* {names[stem]}: {sum(np.size(x) for x in flatten(network[1]).values()) / 1e6:.1f}M parameters"
        for stem, network in networks.items()
        if network is not None
    ]
    stored = "matrices in bfloat16, vectors in float32"
    if delta_of is not None:
        stored = f"the transformer as its difference from {delta_of}, whose autoencoder belongs to it"
    lines = [
        f"# {title}",
        "",
        f"Weights of camctrl_jax, {stored}:",
        "",
        *parts,
        "",
    ]
    if sampling is not None:
        lines += [
            f"Clips of {sampling.frames} frames at {sampling.fps:g} fps, {sampling.height}x{sampling.width} "
            "pixels where nothing else is asked for. Camera translations are metres.",
            "",
            *student_card(distilled),
            "```",
            "python -m camctrl_jax.generate --checkpoint THIS_FOLDER --worlds-seed 1000000 \\",
            '    --camera "dolly in 1 m" --out outputs/first',
            "```",
            "",
        ]
    lines += ["## Training", ""]
    for part in ("autoencoder", "transformer"):
        if "config" in facts.get(part, {}):
            lines += [f"* {part}: {_training_line(facts[part])}"]
    lines += ["", "The complete configuration and all facts are in `model.json`.", ""]
    if evaluation is not None:
        lines += ["## Figures", "", markdown_report(evaluation), ""]
    extra = {key: value for key, value in facts.items() if isinstance(value, (str, int, float))}
    if extra:
        lines += ["## Facts", "", *(f"* {key}: {value}" for key, value in extra.items()), ""]
    return "\n".join(lines)


def student_card(distilled: Distilled | None) -> list[str]:
    """Lines of a card that say what a student is and how it is sampled; none of a model that is none."""
    if distilled is None:
        return []
    teacher = f" of the teacher {distilled.teacher_sha256}" if distilled.teacher_sha256 else ""
    return [
        f"A student{teacher}: {distilled.said}. A step is one evaluation. Guidance other than 1 and other "
        "numbers of steps are refused.",
        "",
    ]


def _training_line(facts: Mapping[str, Any]) -> str:
    config = facts["config"]
    data = config.get("data", {})
    sets = data.get("sets") or {}
    batch = "" if sets else f" of batch {config['batch_size']}"
    line = f"{facts['steps']} steps{batch}, seed {config['seed']}"
    if data.get("kind") != "worlds":
        return line
    if not sets:
        return f"{line}, {_worlds_line(data['worlds'])}"
    size = "clips of {frames} frames of {height}x{width} in batches of {batch_size}"
    each_set = (
        f"  * {name}: {size.format(**each)}, {_worlds_line(each['worlds'])}"
        for name, each in sets.items()
        if each.get("turns", 1)
    )
    return "\n".join([f"{line}, procedural worlds in sets:", *each_set])


def _worlds_line(worlds: Mapping[str, Any]) -> str:
    first, end = worlds["seeds"]
    take_frames = worlds.get("places", {}).get("take_frames")
    kind = f"takes of {take_frames} frames through places" if take_frames else "procedural worlds"
    return f"{kind} of seeds {first} to {end - 1}"


def torch_card(title: str, *, has_vae: bool, has_camera: bool, distilled: Distilled | None = None) -> str:
    """README of an exported diffusers folder."""
    vae = "" if has_vae else " --vae BASE_MODEL_FOLDER"
    camera = (
        "`camera/` holds the camera layer, which the stock class does not have, and its convention:\n"
        "Pluecker maps (moment, direction) of frames 0, 4, 8, ..., OpenCV axes, metres, relative to the\n"
        "first frame of the first clip."
        if has_camera
        else "The model has no camera layer: it is a base model."
    )
    if distilled is not None:
        camera += f"\n\n{student_card(distilled)[0]}"
    return f"""# {title}

Weights of camctrl_jax for PyTorch. `transformer/`{" and `vae/`" if has_vae else ""} load in the stock
classes of diffusers:

```python
from diffusers import MotifVideoTransformer3DModel
transformer = MotifVideoTransformer3DModel.from_pretrained("{title}", subfolder="transformer")
```

{camera}

`camera_pipeline.py` stands alone (torch, diffusers, safetensors, numpy). It makes clips along a camera path,
goes on from a clip, and weighs text and camera:

```
python camera_pipeline.py --help
python camera_pipeline.py --folder .{vae} --image first.png --poses poses.npy \\
    --intrinsics intrinsics.npy --out clip.mp4
```
"""
