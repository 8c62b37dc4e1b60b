"""What is encoded, and how. Imports nothing heavy: the command line is read before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from camctrl_jax.data.shards import WHOLE, Shard
from camctrl_jax.errors import InvalidValue

NEGATIVE_PROMPT = "worst quality, inconsistent motion, blurry, jittery, distorted"
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Settings:
    """One call.

    Attributes:
        encoder: folder of the text encoder, see the help text.
        out: the safetensors file; appears under its name when it is complete.
        datasets: folders of ``build_dataset``.
        prompts: text or JSON files.
        negative_prompt: encoded too, and named in the file.
        tokenizer: folder of the tokenizer, where it is not with the encoder.
        max_tokens: N; longer texts lose their end.
        batch_size: texts in one call. Texts of similar length share a batch and are padded to its longest.
        dtype: of the computation and of the file, one of ``DTYPES``.
        device: of torch; default cuda where there is one.
        overwrite: replace a file that is already there.
        shard: which parts to encode. Only a call for all of them puts them together.
    """

    encoder: Path
    out: Path
    datasets: tuple[Path, ...] = ()
    prompts: tuple[Path, ...] = ()
    negative_prompt: str = NEGATIVE_PROMPT
    tokenizer: Path | None = None
    max_tokens: int = 512
    batch_size: int = 16
    dtype: str = "bfloat16"
    device: str | None = None
    overwrite: bool = False
    shard: Shard = WHOLE

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.batch_size < 1:
            raise InvalidValue(
                f"--max-tokens {self.max_tokens} --batch-size {self.batch_size}: expected 1 or more."
            )
