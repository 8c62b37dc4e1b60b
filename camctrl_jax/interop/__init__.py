"""Weights in and out: safetensors files, weights folders and run directories."""
