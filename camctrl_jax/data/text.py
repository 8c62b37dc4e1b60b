"""Text embeddings as the models take them: [B, N, D] vectors and a prefix mask of the tokens in use.

``WordEmbedder`` needs no weights and no download: every word has a fixed pseudo-random vector. It is what the
worlds models are trained with. ``PrecomputedText`` reads embeddings that a real text encoder wrote earlier
(``python -m camctrl_jax.encode_text``).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from camctrl_jax.errors import InvalidValue, MissingFile, UserError
from camctrl_jax.files.safetensors import SafetensorsFile

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")  # letters and digits of any script


class MissingText(UserError, KeyError):
    """A text that was not encoded ahead of time."""

    __str__ = UserError.__str__  # that of KeyError quotes the sentence


@runtime_checkable
class TextEmbedder(Protocol):
    """Turns prompts into the vectors that a model is conditioned on."""

    dim: int
    max_tokens: int

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings f32 [B, max_tokens, dim], zero where unused, and their prefix mask bool [B, max_tokens].

        ``""`` is the empty prompt, used for dropped text and as the null branch of guidance. It has at least
        one token in use: attention over text never meets a row with nothing to attend to.
        """
        ...

    def truncated(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than ``max_tokens`` and lose their end."""
        ...

    def settings(self) -> dict[str, Any]:
        """What must be stored beside a model to build the same embedder again (JSON-able)."""
        ...


@dataclass(frozen=True)
class WordEmbedder:
    """Deterministic word vectors from a hash: no weights, no vocabulary, the same on every machine.

    Text is lower-cased, punctuation is dropped, each word becomes a Gaussian vector drawn from its SHAKE-256
    digest and scaled to unit variance over its entries. A sinusoid of the word's place is added at half that
    amplitude ("red box behind blue ball" must differ from "blue box behind red ball") and the sum is scaled
    back to unit variance. Words beyond ``max_tokens`` are cut; ``truncated`` counts the texts this befalls.

    Attributes:
      dim: D, entries of a vector; even.
      max_tokens: N, words of a text.
    """

    dim: int = 64
    max_tokens: int = 32

    def __post_init__(self) -> None:
        if self.dim < 2 or self.dim % 2 or self.max_tokens < 1:
            raise InvalidValue(
                f"WordEmbedder(dim={self.dim}, max_tokens={self.max_tokens}); expected an even dim >= 2 and "
                "max_tokens >= 1."
            )

    def words(self, text: str) -> list[str]:
        """The words of a text as they are embedded, before truncation; the empty prompt is one empty word."""
        return _WORD.findall(text.lower().replace("\u2019", "'")) or [""]

    def truncated(self, texts: Sequence[str]) -> int:
        """How many of the texts have more than ``max_tokens`` words."""
        return sum(len(self.words(text)) > self.max_tokens for text in texts)

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See ``TextEmbedder.embed``; f32 [B, max_tokens, dim] and bool [B, max_tokens]."""
        sentences = [self.words(text)[: self.max_tokens] for text in texts]
        row_of = {"": 0}
        rows = np.zeros((len(sentences), self.max_tokens), np.int64)
        mask = np.zeros((len(sentences), self.max_tokens), bool)
        for i, sentence in enumerate(sentences):
            for j, word in enumerate(sentence):
                rows[i, j] = row_of.setdefault(word, len(row_of))
            mask[i, : len(sentence)] = True
        amplitude = 0.5
        scale = np.sqrt(1.0 + amplitude**2)
        table = np.stack([_word_vector(word, self.dim) for word in row_of]) / scale  # [words, D]
        position = _sinusoid(self.max_tokens, self.dim) * (amplitude * np.sqrt(2.0) / scale)  # [N, D]
        vectors = table.astype(np.float32)[rows] + position.astype(np.float32)
        return np.where(mask[..., None], vectors, np.float32(0.0)), mask

    def settings(self) -> dict[str, Any]:
        """JSON-able settings for ``embedder_from_settings``."""
        return {"kind": "words", "dim": self.dim, "max_tokens": self.max_tokens}


@functools.lru_cache(maxsize=1 << 16)
def _word_vector(word: str, dim: int) -> np.ndarray:
    """f64 [dim] of unit variance. From hash bits by Box-Muller, as a library's generator might change."""
    bits = np.frombuffer(hashlib.shake_256(word.encode()).digest(8 * dim), "<u4").astype(np.float64)
    uniform = (bits + 0.5) / 2.0**32
    radius, angle = np.sqrt(-2.0 * np.log(uniform[:dim])), 2.0 * np.pi * uniform[dim:]
    vector = radius * np.cos(angle)
    vector = vector / np.sqrt(np.mean(vector**2))
    vector.setflags(write=False)  # it is remembered
    return vector


@functools.lru_cache(maxsize=16)
def _sinusoid(count: int, dim: int) -> np.ndarray:
    """f64 [count, dim]: sines and cosines of the place, variance one half, wavelengths 2 pi to 2 pi count."""
    rates = (1.0 / max(count, 2)) ** (np.arange(dim // 2) / max(dim // 2 - 1, 1))
    angles = np.arange(count)[:, None] * rates
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    table.setflags(write=False)  # it is remembered
    return table


@dataclass(frozen=True)
class PrecomputedText:
    """Embeddings that a text encoder computed earlier, looked up by the exact text.

    Attributes:
      embeddings: text -> [n, D] array, n tokens in use. Must hold the empty prompt ``""``.
      max_tokens: N, to which all are padded; longer ones are cut.
      source: where they came from, for messages.
    """

    embeddings: Mapping[str, np.ndarray]
    max_tokens: int
    source: str = "precomputed text"

    def __post_init__(self) -> None:
        if "" not in self.embeddings:
            raise InvalidValue(
                f'{self.source}: the empty prompt "" is missing; text dropout and guidance need its '
                "embedding. Encode it with the same text encoder and add it."
            )
        shapes = {np.shape(value)[1:] for value in self.embeddings.values()}
        if (
            len(shapes) != 1
            or len(next(iter(shapes))) != 1
            or any(len(v) == 0 for v in self.embeddings.values())
        ):
            raise InvalidValue(
                f"{self.source}: expected arrays [tokens >= 1, D] of one width D, got {sorted(shapes)}."
            )

    @property
    def dim(self) -> int:
        """D, entries of a vector."""
        return int(np.shape(self.embeddings[""])[1])

    def truncated(self, texts: Sequence[str]) -> int:
        """How many of the texts have more than ``max_tokens`` stored tokens."""
        return sum(len(self._find(text)) > self.max_tokens for text in texts)

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See ``TextEmbedder.embed``. Raises MissingText for a text that was not precomputed."""
        vectors = np.zeros((len(texts), self.max_tokens, self.dim), np.float32)
        mask = np.zeros((len(texts), self.max_tokens), bool)
        for i, text in enumerate(texts):
            found = self._find(text)[: self.max_tokens]
            vectors[i, : len(found)] = found
            mask[i, : len(found)] = True
        return vectors, mask

    def _find(self, text: str) -> np.ndarray:
        try:
            return self.embeddings[text]
        except KeyError:
            raise MissingText(
                f"{self.source} holds no embedding of {text!r} ({len(self.embeddings)} texts are there). "
                "Texts are looked up exactly; encode this one and add it."
            ) from None

    def settings(self) -> dict[str, Any]:
        """JSON-able settings; the embeddings themselves stay in their file."""
        return {"kind": "precomputed", "source": self.source, "dim": self.dim, "max_tokens": self.max_tokens}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PrecomputedText:
        """Open what ``python -m camctrl_jax.encode_text`` wrote; embeddings stay in the file until looked up.

        Raises:
            MissingFile: there is no such file.
            InvalidValue: not a file of precomputed text, or a damaged one.
        """
        stored = StoredTokens(path)
        return cls(stored, stored.max_tokens, source=str(path))


TEXT_FORMAT, TEXT_FORMAT_VERSION = "camctrl_jax text", "1"


class StoredTokens(Mapping[str, np.ndarray]):
    """Text -> its embeddings [n, D] in the dtype of the file, memory-mapped: read where it is used.

    The safetensors file holds ``texts`` (a JSON list as u8), ``counts`` i32 [texts] of the tokens in use, and
    these tokens one after the other, ``texts_per_part`` texts in each of the tensors ``tokens.00000`` [sum n,
    D], ``tokens.00001``, ... Padding is not stored, so captions of 50 tokens take a tenth of a padded 512.
    Pickles as the path, so that worker processes map the file themselves.

    Attributes:
      path: the file.
      metadata: what else it says: encoder_fingerprint, dtype, max_tokens, negative_prompt.

    Raises:
      MissingFile: there is no such file.
      InvalidValue: another kind of file, or a damaged one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise MissingFile(f"{self.path}: no such file of precomputed text.")
        file = SafetensorsFile(self.path)
        self.metadata = dict(file.metadata)
        try:
            found = self.metadata["format"], self.metadata["format_version"]
            if found != (TEXT_FORMAT, TEXT_FORMAT_VERSION):
                raise InvalidValue(f"its format is {found}, expected {(TEXT_FORMAT, TEXT_FORMAT_VERSION)}")
            texts = json.loads(bytes(file["texts"]))
            counts, self._per_part = file["counts"].astype(np.int64), int(self.metadata["texts_per_part"])
            self._parts = [file[f"tokens.{i:05d}"] for i in range(-(-len(texts) // self._per_part))]
            starts = np.arange(0, len(texts), self._per_part)
            stored = [len(part) for part in self._parts]
            if len(counts) != len(texts) or stored != np.add.reduceat(counts, starts).tolist():
                raise InvalidValue("texts, counts and tokens do not belong together")
        except (KeyError, ValueError, IndexError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise InvalidValue(
                f"{self.path}: not a file of precomputed text ({reason}); expected what python -m "
                "camctrl_jax.encode_text writes."
            ) from error
        self._places = {}  # text -> (part, first token, end)
        for part, start in enumerate(starts):
            own = slice(start, start + self._per_part)
            for text, end, count in zip(texts[own], np.cumsum(counts[own]), counts[own]):
                self._places[text] = part, int(end - count), int(end)

    @property
    def max_tokens(self) -> int:
        """N, at which the encoder cut texts off."""
        return int(self.metadata["max_tokens"])

    def __getitem__(self, text: str) -> np.ndarray:
        part, start, end = self._places[text]
        return self._parts[part][start:end]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __reduce__(self) -> tuple:
        return StoredTokens, (str(self.path),)


def embedder_from_settings(settings: Mapping[str, Any]) -> TextEmbedder:
    """The embedder that ``settings`` (from ``TextEmbedder.settings``) describes."""
    kind = settings.get("kind")
    if kind == "words":
        return WordEmbedder(dim=int(settings["dim"]), max_tokens=int(settings["max_tokens"]))
    if kind == "precomputed":
        return PrecomputedText.load(settings["source"])
    raise InvalidValue(f"text settings have kind {kind!r}; expected 'words' or 'precomputed'.")
