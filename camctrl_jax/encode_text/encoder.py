"""A text encoder of transformers: finding it in a folder, identifying it, running it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from camctrl_jax.errors import InvalidValue, file_failures
from camctrl_jax.extras import require
from camctrl_jax.files.json_file import read_json


def find_encoder(folder: Path, tokenizer: Path | None = None) -> tuple[Path, Path]:
    """The folders of an encoder's weights and of its tokenizer.

    Raises:
        InvalidValue: something is absent; names what was looked for.
    """
    encoder = next(
        (path for path in (folder / "text_encoder", folder) if (path / "config.json").is_file()), None
    )
    if encoder is None:
        raise InvalidValue(
            f"--encoder {folder}: expected a folder with config.json, or with text_encoder/config.json in it."
        )
    if not any(encoder.glob("*.safetensors")):
        raise InvalidValue(
            f"{encoder} holds no .safetensors: other formats can run code when they are read. Convert it: "
            "model.save_pretrained(folder) of transformers writes safetensors."
        )
    named = [Path(tokenizer)] if tokenizer is not None else [folder / "tokenizer", encoder, folder]
    for path in named:
        if any(
            (path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model")
        ):
            return encoder, path
    raise InvalidValue(
        f"No tokenizer (tokenizer.json, tokenizer_config.json) in {', '.join(map(str, named))}: name its "
        "folder with --tokenizer."
    )


def fingerprint(encoder: Path, tokenizer: Path) -> str:
    """Hash of what decides the embeddings: configurations, tokenizer, and weights (seconds for gigabytes)."""
    digest = hashlib.sha256()
    files = [encoder / "config.json", *sorted(encoder.glob("*.safetensors"))]
    files += [path for pattern in ("*.json", "*.model") for path in sorted(tokenizer.glob(pattern))]
    for path in files:
        with file_failures(path, "read"), open(path, "rb") as file:
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
        """Load what ``find_encoder`` found. Raises InvalidValue where weights or tokenizer do not do."""
        torch, transformers = require("torch", extra="torch"), require("transformers", extra="torch")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        options = {"local_files_only": True, "trust_remote_code": False}
        kind = _encoder_class(transformers, read_json(encoder / "config.json"))
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
            raise InvalidValue(f"{encoder} or {tokenizer} cannot be loaded: {error}") from error
        # The pictures of a multimodal encoder are not used; anything else would silently be random.
        absent = sorted(
            name for name in info["missing_keys"] if not name.startswith(("vision_tower", "multi_modal"))
        )
        if absent or info["mismatched_keys"]:
            raise InvalidValue(
                f"{encoder} lacks weights of a {kind.__name__}: {', '.join(absent[:5])}"
                f"{' and more' if len(absent) > 5 else ''}. Copy it again, or is it another kind of model?"
            )
        if words.pad_token_id is None:
            raise InvalidValue(
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
            raise InvalidValue(
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
        raise InvalidValue(f"transformers {transformers.__version__} has no {name}: install a newer one.")
    return getattr(transformers, name)


def _as_numpy(tensor: Any) -> np.ndarray:
    """A CPU tensor as an array; NumPy's own dtypes lack bfloat16."""
    torch = require("torch", extra="torch")
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.contiguous().numpy()
