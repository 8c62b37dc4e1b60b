"""Training state, step functions, optimizer, checkpoints, the loop, and where its numbers are written."""
