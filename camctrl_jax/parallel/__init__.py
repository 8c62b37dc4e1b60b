"""The device mesh and the rules that place parameters and batches on it."""
