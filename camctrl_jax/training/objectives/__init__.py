"""What runs optimise, a file each: denoising, autoencoding. See ``camctrl_jax.training.objective``."""
