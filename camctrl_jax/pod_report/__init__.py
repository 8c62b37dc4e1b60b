"""Training steps compiled for machines that are not there: ``python -m camctrl_jax.pod_report``."""
