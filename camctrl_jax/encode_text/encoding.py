"""Encoding in parts that survive an interruption, and putting them together."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.data.text import TEXT_FORMAT, TEXT_FORMAT_VERSION
from camctrl_jax.encode_text.encoder import TextEncoder, find_encoder, fingerprint
from camctrl_jax.encode_text.settings import Settings
from camctrl_jax.encode_text.texts import gather_texts
from camctrl_jax.errors import InvalidValue
from camctrl_jax.files.json_file import read_json, write_json
from camctrl_jax.files.safetensors import SafetensorsError, SafetensorsFile, write_safetensors

TEXTS_PER_PART = 256
PLAN_FILE = "plan.json"

Say = Callable[[str], None]


def encode(settings: Settings, say: Say = lambda line: None) -> Path:
    """Encode texts into a file that ``PrecomputedText.load`` reads.

    Args:
        settings: what to encode, and how.
        say: called with lines about the progress.

    Returns:
        ``settings.out``, or the folder of the parts after a shard.

    Raises:
        InvalidValue: nothing to encode, an encoder that cannot be used, a file or parts of another call.
        MissingExtra: the extra 'torch' is not installed.
        FileFailure: a file that cannot be read or written.
    """
    out, shard = settings.out, settings.shard
    folders = find_encoder(settings.encoder, settings.tokenizer)
    texts = gather_texts(settings.datasets, settings.prompts, settings.negative_prompt)
    plan = _plan(settings, fingerprint(*folders), texts)
    if out.exists() and not settings.overwrite:
        if _holds(out, plan):
            say(f"{out} is complete: {len(texts)} texts, nothing to do")
            return out
        raise InvalidValue(
            f"{out} exists and was made of other texts, another encoder or other settings: add "
            "--overwrite to replace it, or choose another --out."
        )
    groups = [texts[i : i + TEXTS_PER_PART] for i in range(0, len(texts), TEXTS_PER_PART)]
    parts = out.with_name(f"{out.name}.parts")
    _begin(parts, plan)
    own = shard.of(len(groups))
    missing = [number for number in own if not _part_file(parts, number).exists()]
    say(f"{len(texts)} texts; {len(own) - len(missing)} of {len(own)} parts are there already")
    if missing:
        network = TextEncoder.load(*folders, settings.max_tokens, settings.dtype, settings.device)
        _encode_parts(network, groups, missing, parts, settings.batch_size, say)
    if shard.count > 1:
        say(f"the parts of shard {shard.index}/{shard.count} are in {parts}")
        return parts
    width = _finish(parts, out, texts, plan)
    say(f"{len(texts)} texts of width {width}: --config.data.text.dim={width}")
    return out


def _plan(settings: Settings, encoder: str, texts: Sequence[str]) -> dict[str, str]:
    """What decides the result; stored in it."""
    return {
        "format": TEXT_FORMAT,
        "format_version": TEXT_FORMAT_VERSION,
        "encoder_fingerprint": encoder,
        "texts_sha256": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
        "texts_per_part": str(TEXTS_PER_PART),
        "max_tokens": str(settings.max_tokens),
        "dtype": settings.dtype,
        "negative_prompt": settings.negative_prompt,
    }


def _encode_parts(
    network: TextEncoder,
    groups: Sequence[Sequence[str]],
    missing: Sequence[int],
    parts: Path,
    batch_size: int,
    say: Say,
) -> None:
    started = time.monotonic()
    for done, number in enumerate(missing, 1):
        tokens, counts = network.encode(groups[number], batch_size)
        _check_width(parts, number, tokens)
        write_safetensors(_part_file(parts, number), {"tokens": tokens, "counts": counts})
        left = (time.monotonic() - started) / done * (len(missing) - done)
        say(f"part {number + 1} of {len(groups)}, {left:.0f} s left")
    if network.cut:
        say(f"{network.cut} texts have more than {network.max_tokens} tokens and lost their end")


def _part_file(parts: Path, number: int) -> Path:
    return parts / f"{number:05d}.safetensors"


def _holds(file: Path, plan: Mapping[str, str]) -> bool:
    """Whether a finished file was made of this plan."""
    try:
        return {name: SafetensorsFile(file).metadata.get(name) for name in plan} == dict(plan)
    except SafetensorsError:
        return False


def _begin(parts: Path, plan: Mapping[str, str]) -> None:
    """Make the folder of parts, or check that it belongs to the same call."""
    file = parts / PLAN_FILE
    if not file.exists():
        write_json(file, plan)
        return
    begun = read_json(file)
    differing = sorted(name for name in plan if begun.get(name) != plan[name])
    if differing:
        raise InvalidValue(
            f"{parts} holds parts of another request ({', '.join(differing)} differ): repeat the command "
            "that it was begun with, or delete the folder to start again."
        )


def _check_width(parts: Path, number: int, tokens: np.ndarray) -> None:
    """Every part must have the width of the first one that is there."""
    first = next((path for path in sorted(parts.glob("*.safetensors"))), None)
    if first is not None and SafetensorsFile(first).shape("tokens")[1] != tokens.shape[1]:
        raise InvalidValue(
            f"{first} has embeddings of {SafetensorsFile(first).shape('tokens')[1]} channels, part {number} "
            f"of {tokens.shape[1]}: another encoder. Delete {parts} to start again."
        )


class _Merged(Mapping[str, Any]):
    """The tensors of the finished file; those of a part are mapped when they are asked for."""

    def __init__(self, small: Mapping[str, np.ndarray], parts: Mapping[str, Path]) -> None:
        self._small, self._parts = small, parts

    def __getitem__(self, name: str) -> np.ndarray:
        return self._small[name] if name in self._small else SafetensorsFile(self._parts[name])["tokens"]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._small, *self._parts])

    def __len__(self) -> int:
        return len(self._small) + len(self._parts)


def _finish(parts: Path, out: Path, texts: Sequence[str], plan: Mapping[str, str]) -> int:
    """Put the parts together, one at a time in memory, and remove them. Returns the width D."""
    files = [_part_file(parts, number) for number in range(-(-len(texts) // TEXTS_PER_PART))]
    try:
        counts = [SafetensorsFile(file)["counts"] for file in files]
        widths = {SafetensorsFile(file).shape("tokens")[1] for file in files}
    except (SafetensorsError, KeyError) as error:
        raise InvalidValue(
            f"{parts} holds a damaged part ({error}): delete that file and start again."
        ) from error
    if len(widths) != 1:
        raise InvalidValue(
            f"{parts} holds embeddings of {sorted(widths)} channels: delete it to start again."
        )
    small = {
        "texts": np.frombuffer(json.dumps(list(texts)).encode(), np.uint8),
        "counts": np.concatenate(counts),
    }
    named = {f"tokens.{number:05d}": file for number, file in enumerate(files)}
    write_safetensors(out, _Merged(small, named), plan)
    with contextlib.suppress(OSError):  # what is left over does no harm
        shutil.rmtree(parts)
    return widths.pop()
