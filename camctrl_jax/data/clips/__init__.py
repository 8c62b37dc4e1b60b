"""Annotated clips on disk: a TFDS dataset in ArrayRecord files, written and read without TensorFlow."""

from camctrl_jax.data.clips.dataset import ClipDataset, dataset_folders, open_clips
from camctrl_jax.data.clips.record import ClipRecord
from camctrl_jax.data.clips.writing import write_clips

__all__ = ["ClipDataset", "ClipRecord", "dataset_folders", "open_clips", "write_clips"]
