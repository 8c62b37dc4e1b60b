"""What runs optimise, a file each: denoising, autoencoding, labelling.

See ``camctrl_jax.training.objective``.
"""
