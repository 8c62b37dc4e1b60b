"""Building a dataset of annotated clips: ``python -m camctrl_jax.build_dataset COMMAND --out DIR ...``."""
