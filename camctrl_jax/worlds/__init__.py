"""Procedural dynamic scenes with exact cameras, depth, motion masks, flow and captions.

``sample_world(seed)`` is a world; ``render(world, height, width)`` gives its frames with all their truth;
``render_rgb(worlds, height, width)`` renders many worlds on the default device.
``WorldsConfig(places=Places())`` are worlds to explore, with long takes; ``window`` cuts clips out of them.
"""

from camctrl_jax.worlds.captions import caption_phrasings, vocabulary
from camctrl_jax.worlds.corruptions import Corruption, cut, freeze, jump, shake, static_variant, zoom
from camctrl_jax.worlds.places.collisions import Collision, run_into
from camctrl_jax.worlds.rendering import (
    Frames,
    iterate_rgb,
    iterate_rgb_on_host,
    render,
    render_coarse_truth,
    render_rgb,
)
from camctrl_jax.worlds.sampling import sample_world
from camctrl_jax.worlds.scene import Fixture, Move, Places, Scene, World, WorldObject, WorldsConfig
from camctrl_jax.worlds.windows import at_frames, window

__all__ = [
    "Collision",
    "Corruption",
    "Fixture",
    "Frames",
    "Move",
    "Places",
    "Scene",
    "World",
    "WorldObject",
    "WorldsConfig",
    "at_frames",
    "caption_phrasings",
    "cut",
    "freeze",
    "iterate_rgb",
    "iterate_rgb_on_host",
    "jump",
    "render",
    "render_coarse_truth",
    "render_rgb",
    "run_into",
    "sample_world",
    "shake",
    "static_variant",
    "vocabulary",
    "window",
    "zoom",
]
