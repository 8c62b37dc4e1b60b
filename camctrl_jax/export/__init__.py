"""Weights and scenes: ``python -m camctrl_jax.export COMMAND``, one module a command."""
