"""Figures: trajectories, grids and strips of video frames."""
