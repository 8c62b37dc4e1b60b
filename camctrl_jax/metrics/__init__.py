"""How good a video is: measures over arrays, without a model, Flax or torch."""
