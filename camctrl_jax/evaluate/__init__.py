"""What a trained model can do, measured: ``python -m camctrl_jax.evaluate COMMAND``."""
