"""``build_dataset latents``: a dataset of videos, encoded once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from camctrl_jax.build_dataset.building import Building, BuildOptions, show_progress
from camctrl_jax.data.bad_clips import SkipTally
from camctrl_jax.data.clips.dataset import dataset_folders, is_dataset, open_clips
from camctrl_jax.data.clips.writing import check_target
from camctrl_jax.data.encode_clips import check_request, encoded_records, job_digest, shard_folder
from camctrl_jax.data.shards import Shard
from camctrl_jax.errors import InvalidValue, file_failures


@dataclass(frozen=True, kw_only=True)
class LatentsOptions(BuildOptions):
    """What the command line asks for.

    Attributes:
        source: datasets with videos.
        shard: ``K/N``, which part of their clips.
        batch: clips in one call of the autoencoder.
        workers: threads that decode.
        max_bad_share: fail beyond this share of clips that cannot be used.
    """

    source: tuple[Path, ...]
    shard: str = "0/1"
    batch: int = 4
    workers: int = 4
    max_bad_share: float = 0.05

    def __post_init__(self) -> None:
        for name in ("batch", "workers"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"--{name} {getattr(self, name)}: expected 1 or more.")


def build(options: LatentsOptions) -> None:
    """Build the dataset, or one shard of it, and print where it is; nothing where it is complete already."""
    shard = Shard.parse(options.shard)
    datasets = [open_clips(part) for folder in options.source for part in dataset_folders(folder)]
    check_request(datasets, options.out, shard, options.text_embeddings is not None)
    with file_failures(options.text_embeddings or options.out, "read"):
        job = job_digest(datasets, options.text_embeddings, shard)
    # The whole shard is judged at its end: decoding a bad clip costs little.
    tally = SkipTally(options.max_bad_share, minimum=len(shard.of(sum(map(len, datasets)))))
    out = shard_folder(options.out, shard)
    encoder = options.encoder()
    if is_dataset(out) and not options.overwrite:
        made = open_clips(out).report()
        if (made.get("job"), made.get("latents_of")) == (job, encoder.fingerprint()):
            print(f"{out} is complete: nothing to do")
            return
    check_target(out, options.overwrite)
    records = encoded_records(
        datasets,
        shard,
        encoder,
        tally,
        batch=options.batch,
        workers=options.workers,
        text=options.text(),
        progress=show_progress("clips"),
    )
    Building("latents", options, out, tally, encoder, job).write(records)
