"""Worlds to explore: places with objects all round the first camera, and long takes through them."""
