"""From prompts and cameras to video: one pipeline for training previews, generate and evaluate."""
