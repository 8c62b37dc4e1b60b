"""Weights in and out: weights by name, weights folders, run directories, diffusers folders."""
