"""Explore: a page and an API that steer a video clip after clip."""
