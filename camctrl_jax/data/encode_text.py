"""Encode captions and prompts with a text encoder, once, for training and sampling from embeddings.

  python -m camctrl_jax.data.encode_text --encoder weights/base --dataset data/mine --out data/text.safetensors
  python -m camctrl_jax.data.encode_text --encoder weights/umt5 --prompts captions.json --out data/text.safetensors

The encoder is a local folder: a model as diffusers lays it out (text_encoder/ and tokenizer/), or one encoder with
its tokenizer beside it. T5, UMT5, T5Gemma2 and others that transformers knows; of an encoder-decoder, the encoder.
Weights are safetensors; nothing is downloaded and no code of the folder is run.

What is encoded: every caption of the datasets (build_dataset), every text of the files (.txt, one a line; .json, a
list, or an object of texts or lists of texts), the empty prompt, and one fixed negative prompt.

What comes out is a file for --config.data.text.source=FILE (set --config.data.text.dim to the width that is printed)
and for build_dataset --text-embeddings FILE: only tokens in use, in the dtype of --dtype, looked up by the exact text.

An interrupted run goes on where it was: finished parts wait in FILE.parts, and the same command writes the same file.
Several processes share the work with --shard 0/8 to --shard 7/8; the command without it then puts the parts together.
"""  # noqa: E501

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.data.safetensors import SafetensorsError, SafetensorsFile, write_safetensors
from camctrl_jax.data.shards import WHOLE, Shard
from camctrl_jax.data.text import TEXT_FORMAT, TEXT_FORMAT_VERSION
from camctrl_jax.extras import require

TEXTS_PER_PART = 256
NEGATIVE_PROMPT = "worst quality, inconsistent motion, blurry, jittery, distorted"
PLAN_FILE = "plan.json"


class EncodeError(ValueError):
    """A request that cannot be carried out; the message says why and what to do instead."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    options = parser().parse_args(argv)
    try:
        written = encode(
            options.encoder,
            options.out,
            datasets=options.dataset,
            prompts=options.prompts,
            negative_prompt=options.negative_prompt,
            tokenizer=options.tokenizer,
            max_tokens=options.max_tokens,
            batch_size=options.batch_size,
            dtype=options.dtype,
            device=options.device,
            overwrite=options.overwrite,
            shard=Shard.parse(options.shard),
            say=lambda message: print(message, file=sys.stderr, flush=True),
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    print(written)
    return 0


def encode(
    encoder: Path,
    out: Path,
    *,
    datasets: Sequence[Path] = (),
    prompts: Sequence[Path] = (),
    negative_prompt: str = NEGATIVE_PROMPT,
    tokenizer: Path | None = None,
    max_tokens: int = 512,
    batch_size: int = 16,
    dtype: str = "bfloat16",
    device: str | None = None,
    overwrite: bool = False,
    shard: Shard = WHOLE,
    say: Any = lambda message: None,
) -> Path:
    """Encode texts into a file that ``PrecomputedText.load`` reads.

    Args:
        encoder: folder of the text encoder, see the module's docstring.
        out: the safetensors file; appears under its name when it is complete.
        datasets: folders of ``build_dataset``.
        prompts: text or JSON files.
        negative_prompt: encoded too, and named in the file.
        tokenizer: folder of the tokenizer, where it is not with the encoder.
        max_tokens: N; longer texts lose their end.
        batch_size: texts in one call. Texts of similar length share a batch and are padded to its longest.
        dtype: of the computation and of the file: bfloat16, float16 or float32.
        device: of torch; default cuda where there is one.
        overwrite: replace a file that is already there.
        shard: which parts to encode. Only a call for all of them puts them together.
        say: called with lines about the progress.

    Returns:
        ``out``, or the folder of the parts after a shard.

    Raises:
        EncodeError: nothing to encode, an encoder that cannot be used, a file or parts of another request.
        ImportError: the extra 'torch' is not installed.
    """
    if max_tokens < 1 or batch_size < 1:
        raise EncodeError(f"--max-tokens {max_tokens} --batch-size {batch_size}: expected 1 or more.")
    folder, tokenizer_folder = find_encoder(Path(encoder), tokenizer)
    texts = gather_texts(datasets, prompts, negative_prompt)
    plan = {
        "format": TEXT_FORMAT,
        "format_version": TEXT_FORMAT_VERSION,
        "encoder_fingerprint": fingerprint(folder, tokenizer_folder),
        "texts_sha256": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
        "texts_per_part": str(TEXTS_PER_PART),
        "max_tokens": str(max_tokens),
        "dtype": dtype,
        "negative_prompt": negative_prompt,
    }
    if out.exists() and not overwrite:
        if _holds(out, plan):
            say(f"{out} is complete: {len(texts)} texts, nothing to do")
            return out
        raise EncodeError(
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
        network = TextEncoder.load(folder, tokenizer_folder, max_tokens, dtype, device)
        started = time.monotonic()
        for done, number in enumerate(missing, 1):
            tokens, counts = network.encode(groups[number], batch_size)
            _check_width(parts, number, tokens)
            write_safetensors(_part_file(parts, number), {"tokens": tokens, "counts": counts})
            left = (time.monotonic() - started) / done * (len(missing) - done)
            say(f"part {number + 1} of {len(groups)}, {left:.0f} s left")
        if network.cut:
            say(f"{network.cut} texts have more than {max_tokens} tokens and lost their end")
    if shard.count > 1:
        say(f"the parts of shard {shard.index}/{shard.count} are in {parts}")
        return parts
    width = _finish(parts, out, texts, plan)
    say(f"{len(texts)} texts of width {width}: --config.data.text.dim={width}")
    return out


def gather_texts(
    datasets: Sequence[Path], prompts: Sequence[Path], negative_prompt: str = NEGATIVE_PROMPT
) -> list[str]:
    """The distinct texts, the empty and the negative prompt first, then in order of appearance.

    Raises:
        EncodeError: no source, a source without any text, or a file that is not understood.
    """
    if not datasets and not prompts:
        raise EncodeError("Nothing to encode: name a dataset (--dataset) or a file of texts (--prompts).")
    texts = dict.fromkeys(["", negative_prompt])
    for source, read in [(path, _captions) for path in datasets] + [(path, _prompts) for path in prompts]:
        found = list(read(Path(source)))
        if not any(text.strip() for text in found):
            raise EncodeError(
                f"{source}: all {len(found)} texts are empty. Give captions (build_dataset --captions), or "
                "train without text: leave --config.data.text.source out."
            )
        texts |= dict.fromkeys(found)
    return list(texts)


def _captions(folder: Path) -> Iterator[str]:
    from camctrl_jax.data.clips.dataset import dataset_folders, open_clips

    return (
        caption
        for part in dataset_folders(folder)
        for record in open_clips(part)
        for caption in record.captions
    )


def _prompts(path: Path) -> Iterator[str]:
    try:
        content = path.read_text("utf-8-sig")
        if path.suffix.lower() != ".json":
            return iter([line.strip() for line in content.splitlines() if line.strip()])
        found = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EncodeError(f"{path}: not UTF-8 text, or not JSON: {error}.") from error
    values = found.values() if isinstance(found, Mapping) else found if isinstance(found, list) else [found]
    # Stripped as build_dataset strips captions, which are looked up exactly.
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    if not all(isinstance(text, str) for text in texts):
        wrong = next(text for text in texts if not isinstance(text, str))
        raise EncodeError(
            f"{path}: {wrong!r} is no text; expected a list, or an object of texts or lists of texts."
        )
    return iter([text.strip() for text in texts])


def find_encoder(folder: Path, tokenizer: Path | None = None) -> tuple[Path, Path]:
    """The folders of an encoder's weights and of its tokenizer.

    Raises:
        EncodeError: something is absent; names what was looked for.
    """
    encoder = next(
        (path for path in (folder / "text_encoder", folder) if (path / "config.json").is_file()), None
    )
    if encoder is None:
        raise EncodeError(
            f"--encoder {folder}: expected a folder with config.json, or with text_encoder/config.json in it."
        )
    if not any(encoder.glob("*.safetensors")):
        raise EncodeError(
            f"{encoder} holds no .safetensors: other formats can run code when they are read. Convert it: "
            "model.save_pretrained(folder) of transformers writes safetensors."
        )
    named = [Path(tokenizer)] if tokenizer is not None else [folder / "tokenizer", encoder, folder]
    for path in named:
        if any(
            (path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model")
        ):
            return encoder, path
    raise EncodeError(
        f"No tokenizer (tokenizer.json, tokenizer_config.json) in {', '.join(map(str, named))}: name its "
        "folder with --tokenizer."
    )


def fingerprint(encoder: Path, tokenizer: Path) -> str:
    """Hash of what decides the embeddings: configurations, tokenizer, and weights (seconds for gigabytes)."""
    digest = hashlib.sha256()
    files = [encoder / "config.json", *sorted(encoder.glob("*.safetensors"))]
    files += [path for pattern in ("*.json", "*.model") for path in sorted(tokenizer.glob(pattern))]
    for path in files:
        with open(path, "rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


class TextEncoder:
    """A text encoder of transformers with its tokenizer.

    Attributes:
        cut: texts so far that had more than ``max_tokens`` tokens.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int) -> None:
        self.model, self.tokenizer, self.max_tokens, self.cut = model, tokenizer, max_tokens, 0

    @classmethod
    def load(
        cls, encoder: Path, tokenizer: Path, max_tokens: int, dtype: str, device: str | None = None
    ) -> TextEncoder:
        """Load what ``find_encoder`` found. Raises EncodeError where weights or tokenizer do not do."""
        torch, transformers = require("torch", extra="torch"), require("transformers", extra="torch")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        options = {"local_files_only": True, "trust_remote_code": False}
        kind = _encoder_class(transformers, json.loads((encoder / "config.json").read_text("utf-8")))
        try:
            model, info = kind.from_pretrained(
                encoder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
            words = transformers.AutoTokenizer.from_pretrained(tokenizer, **options)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EncodeError(f"{encoder} or {tokenizer} cannot be loaded: {error}") from error
        # The pictures of a multimodal encoder are not used; anything else would silently be random.
        absent = sorted(
            name for name in info["missing_keys"] if not name.startswith(("vision_tower", "multi_modal"))
        )
        if absent or info["mismatched_keys"]:
            raise EncodeError(
                f"{encoder} lacks weights of a {kind.__name__}: {', '.join(absent[:5])}"
                f"{' and more' if len(absent) > 5 else ''}. Copy it again, or is it another kind of model?"
            )
        if words.pad_token_id is None:
            raise EncodeError(
                f"{tokenizer}: the tokenizer has no padding token; set one (pad_token) and save it."
            )
        if kind.__name__.startswith("Auto") and model.config.is_encoder_decoder:
            model = model.get_encoder()
        return cls(model.eval().to(device), words, max_tokens)

    def encode(self, texts: Sequence[str], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens in use of some texts, one text after the other [sum n, D], and how many each has, i32.

        A text without any token, as some tokenizers make of "", gets one: attention never meets an empty row.
        """
        torch = require("torch", extra="torch")
        lengths = [len(ids) for ids in self.tokenizer(list(texts))["input_ids"]]
        self.cut += sum(length > self.max_tokens for length in lengths)
        order = np.argsort(lengths, kind="stable")
        found: list[np.ndarray] = [np.zeros(0)] * len(texts)
        for first in range(0, len(texts), batch_size):
            numbers = order[first : first + batch_size]
            inputs = self.tokenizer(
                [texts[i] for i in numbers],
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_attention_mask=True,
                return_tensors="pt",
            )
            ids, mask = inputs["input_ids"].long(), inputs["attention_mask"].long()
            if ids.shape[1] == 0:
                ids, mask = (torch.full((len(ids), 1), value) for value in (self.tokenizer.pad_token_id, 0))
            mask[mask.sum(1) == 0, 0] = 1
            device = self.model.device
            with torch.no_grad():
                hidden = self.model(input_ids=ids.to(device), attention_mask=mask.to(device))[0].cpu()
            for number, vectors, used in zip(numbers, hidden, mask.bool()):
                found[number] = _as_numpy(vectors[used])
        tokens = np.concatenate(found)
        if not np.isfinite(tokens.astype(np.float32)).all():
            raise EncodeError(
                f"The encoder gave NaN or infinity in {tokens.dtype}: take --dtype float32 or bfloat16."
            )
        return tokens, np.asarray([len(vectors) for vectors in found], np.int32)


def _encoder_class(transformers: Any, config: Mapping[str, Any]) -> Any:
    """The class of transformers to load an encoder with: the encoder alone where there is one."""
    named = next(iter(config.get("architectures") or []), "")
    alone = {"t5": "T5EncoderModel", "umt5": "UMT5EncoderModel", "mt5": "MT5EncoderModel"}
    name = (
        named
        if named.endswith(("Encoder", "EncoderModel"))
        else alone.get(config.get("model_type"), "AutoModel")
    )
    if not hasattr(transformers, name):
        raise EncodeError(f"transformers {transformers.__version__} has no {name}: install a newer one.")
    return getattr(transformers, name)


def _as_numpy(tensor: Any) -> np.ndarray:
    """A CPU tensor as an array; NumPy's own dtypes lack bfloat16."""
    import ml_dtypes
    import torch

    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.contiguous().numpy()


def _part_file(parts: Path, number: int) -> Path:
    return parts / f"{number:05d}.safetensors"


def _holds(file: Path, plan: Mapping[str, str]) -> bool:
    """Whether a finished file was made of this plan."""
    try:
        return {name: SafetensorsFile(file).metadata.get(name) for name in plan} == dict(plan)
    except SafetensorsError:
        return False


def _begin(parts: Path, plan: Mapping[str, str]) -> None:
    """Make the folder of parts, or check that it belongs to the same request."""
    file = parts / PLAN_FILE
    if file.exists():
        begun = json.loads(file.read_text("utf-8"))
        differing = sorted(name for name in plan if begun.get(name) != plan[name])
        if differing:
            raise EncodeError(
                f"{parts} holds parts of another request ({', '.join(differing)} differ): repeat the command "
                "that it was begun with, or delete the folder to start again."
            )
        return
    parts.mkdir(parents=True, exist_ok=True)
    from camctrl_jax.camera.formats.atomic import write_text

    write_text(file, json.dumps(plan, indent=1) + "\n")


def _check_width(parts: Path, number: int, tokens: np.ndarray) -> None:
    """Every part must have the width of the first one that is there."""
    first = next((path for path in sorted(parts.glob("*.safetensors"))), None)
    if first is not None and SafetensorsFile(first).shape("tokens")[1] != tokens.shape[1]:
        raise EncodeError(
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
        raise EncodeError(
            f"{parts} holds a damaged part ({error}): delete that file and start again."
        ) from error
    if len(widths) != 1:
        raise EncodeError(f"{parts} holds embeddings of {sorted(widths)} channels: delete it to start again.")
    small = {
        "texts": np.frombuffer(json.dumps(list(texts)).encode(), np.uint8),
        "counts": np.concatenate(counts),
    }
    named = {f"tokens.{number:05d}": file for number, file in enumerate(files)}
    write_safetensors(out, _Merged(small, named), plan)
    with contextlib.suppress(OSError):  # what is left over does no harm
        shutil.rmtree(parts)
    return widths.pop()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m camctrl_jax.data.encode_text",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = result.add_argument
    add("--encoder", type=Path, required=True, metavar="DIR", help="the text encoder, see above")
    add("--out", type=Path, required=True, metavar="FILE", help="the file to write, .safetensors")
    add(
        "--dataset", type=Path, nargs="+", default=[], metavar="DIR", help="datasets whose captions to encode"
    )
    add("--prompts", type=Path, nargs="+", default=[], metavar="FILE", help=".txt or .json files of texts")
    add("--negative-prompt", default=NEGATIVE_PROMPT, metavar="TEXT", help=f'default: "{NEGATIVE_PROMPT}"')
    add("--tokenizer", type=Path, metavar="DIR", help="the tokenizer, where it is not with the encoder")
    add("--max-tokens", type=int, default=512, metavar="N", help="longer texts lose their end (default 512)")
    add("--batch-size", type=int, default=16, metavar="B", help="texts in one call (default 16)")
    add(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        default="bfloat16",
        help="of the computation and of the file (default bfloat16)",
    )
    add("--device", help="of torch (default: cuda where there is one)")
    add("--shard", default="0/1", metavar="K/N", help="encode the K-th of N shares only, from 0")
    add("--overwrite", action="store_true", help="replace the file that is at --out")
    return result


if __name__ == "__main__":
    sys.exit(main())
