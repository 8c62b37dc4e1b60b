"""The texts of datasets and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from camctrl_jax.data.clips.dataset import dataset_folders, open_clips
from camctrl_jax.encode_text.settings import NEGATIVE_PROMPT
from camctrl_jax.errors import InvalidValue, file_failures


def gather_texts(
    datasets: Sequence[Path], prompts: Sequence[Path], negative_prompt: str = NEGATIVE_PROMPT
) -> list[str]:
    """The distinct texts, the empty and the negative prompt first, then in order of appearance.

    Raises:
        InvalidValue: no source, a source without any text, or a file that is not understood.
        FileFailure: a file that cannot be read.
    """
    if not datasets and not prompts:
        raise InvalidValue("Nothing to encode: name a dataset (--dataset) or a file of texts (--prompts).")
    texts = dict.fromkeys(["", negative_prompt])
    for source, read in [(path, _captions) for path in datasets] + [(path, _prompts) for path in prompts]:
        found = list(read(Path(source)))
        if not any(text.strip() for text in found):
            raise InvalidValue(
                f"{source}: all {len(found)} texts are empty. Give captions (build_dataset --captions), or "
                "train without text: leave --config.data.text.source out."
            )
        texts |= dict.fromkeys(found)
    return list(texts)


def _captions(folder: Path) -> Iterator[str]:
    return (
        caption
        for part in dataset_folders(folder)
        for record in open_clips(part)
        for caption in record.captions
    )


def _prompts(path: Path) -> Iterator[str]:
    try:
        with file_failures(path, "read"):
            content = path.read_text("utf-8-sig")
        if path.suffix.lower() != ".json":
            return iter([line.strip() for line in content.splitlines() if line.strip()])
        found = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidValue(f"{path}: not UTF-8 text, or not JSON: {error}.") from error
    values = found.values() if isinstance(found, Mapping) else found if isinstance(found, list) else [found]
    # Stripped as build_dataset strips captions, which are looked up exactly.
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    if not all(isinstance(text, str) for text in texts):
        wrong = next(text for text in texts if not isinstance(text, str))
        raise InvalidValue(
            f"{path}: {wrong!r} is no text; expected a list, or an object of texts or lists of texts."
        )
    return iter([text.strip() for text in texts])
