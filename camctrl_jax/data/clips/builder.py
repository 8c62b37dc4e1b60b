"""The TFDS builder of annotated clips. Imported only where a dataset is written."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from camctrl_jax.data.clips.record import ClipRecord


class _LocalInfo(tfds.core.DatasetInfo):
    """Facts about a dataset that no bucket knows."""

    def initialize_from_bucket(self) -> None:
        """Look nothing up; the stock method would also leave an empty temporary folder behind."""


class Clips(tfds.core.GeneratorBasedBuilder):
    """Writes ``ClipRecord``s as ArrayRecord files, in the order in which they come.

    Args:
      records: what to write; all with the same kind of content.
      latent_shape: (h, w, C) if the records hold latents, None if they hold videos.
      text_shape: (N, D) if the records hold text embeddings, None otherwise.
      **builder_options: those of ``tfds.core.GeneratorBasedBuilder``, e.g. ``data_dir``.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (tfds reads it from the class)

    def __init__(
        self,
        records: Iterator[ClipRecord],
        *,
        latent_shape: tuple[int, int, int] | None,
        text_shape: tuple[int, int] | None,
        **builder_options,
    ) -> None:
        self._records, self._latent_shape, self._text_shape = records, latent_shape, text_shape
        super().__init__(file_format="array_record", **builder_options)

    def _info(self) -> tfds.core.DatasetInfo:
        # Encoded as bytes: the default stores every float in 32 bits, which silently rounds float64 poses and
        # doubles the size of float16 latents.
        tensor, text = functools.partial(tfds.features.Tensor, encoding="bytes"), tfds.features.Text
        features = {
            "id": text(),
            "world_from_camera": tensor(shape=(None, 4, 4), dtype=np.float64),
            "intrinsics": tensor(shape=(None, 4), dtype=np.float64),
            "captions": tfds.features.Sequence(text()),
            "fps": np.float64,
            "num_frames": np.int32,
            "height": np.int32,
            "width": np.int32,
            "metric": np.bool_,
            "labelled": np.bool_,
            "source": text(),
            "reference": tensor(shape=(None, 4, 4), dtype=np.float64),
        }
        if self._latent_shape is None:
            features["video"] = tfds.features.Scalar(np.object_)
        else:
            features["latents"] = tensor(shape=(None, *self._latent_shape), dtype=np.float16)
        if self._text_shape is not None:
            features["text"] = tensor(shape=(None, *self._text_shape), dtype=np.float16)
            features["text_mask"] = tensor(shape=(None, self._text_shape[0]), dtype=np.bool_)
        return _LocalInfo(
            builder=self,
            description="Clips with camera poses, intrinsics and captions.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # the order of the source; training shuffles
        )

    def _split_generators(self, download_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del download_manager  # everything is already here
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        for number, record in enumerate(self._records):
            yield number, record.to_features()
