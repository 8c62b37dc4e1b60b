"""Clips and batches: video files, annotated-clip datasets, tasks, text embeddings and batch streams."""
