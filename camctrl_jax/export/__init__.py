"""Weights in and out: ``python -m camctrl_jax.export COMMAND``, one module a command."""
