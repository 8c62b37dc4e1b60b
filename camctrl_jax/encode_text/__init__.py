"""Captions and prompts to embeddings, once: ``python -m camctrl_jax.encode_text``."""
