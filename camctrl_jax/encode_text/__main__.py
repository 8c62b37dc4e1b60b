"""Encode captions and prompts with a text encoder, once, for training and sampling from embeddings.

  python -m camctrl_jax.encode_text --encoder weights/base --dataset data/mine --out data/text.safetensors
  python -m camctrl_jax.encode_text --encoder weights/umt5 --prompts captions.json --out data/text.safetensors

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
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camctrl_jax.data.shards import Shard
from camctrl_jax.encode_text.settings import DTYPES, NEGATIVE_PROMPT, Settings
from camctrl_jax.errors import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    values = vars(_parser().parse_args(argv))
    try:
        return exit_status(lambda: _encode(**values))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here.", file=sys.stderr)
        return 130


def _encode(dataset: list[Path], prompts: list[Path], shard: str, **values: Any) -> None:
    settings = Settings(datasets=tuple(dataset), prompts=tuple(prompts), shard=Shard.parse(shard), **values)
    # Only now, so that --help answers at once.
    from camctrl_jax.encode_text import encoding

    print(encoding.encode(settings, say=lambda message: print(message, file=sys.stderr, flush=True)))


def _parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m camctrl_jax.encode_text",
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
        choices=DTYPES,
        default="bfloat16",
        help="of the computation and of the file (default bfloat16)",
    )
    add("--device", help="of torch (default: cuda where there is one)")
    add("--shard", default="0/1", metavar="K/N", help="encode the K-th of N shares only, from 0")
    add("--overwrite", action="store_true", help="replace the file that is at --out")
    return result


if __name__ == "__main__":
    sys.exit(main())
