"""One clip from the command line: ``python -m camctrl_jax.generate``."""
