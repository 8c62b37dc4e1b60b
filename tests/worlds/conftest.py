"""Worlds and renders that several test files look at, made once. Few sizes: each costs a compilation."""

import dataclasses

import pytest

from camctrl_jax.worlds import Places, WorldsConfig, render, sample_world

HEIGHT, WIDTH, FRAMES = 48, 80, 13


@pytest.fixture(scope="session")
def config():
    return WorldsConfig(frames=FRAMES, fps=6.0)


@pytest.fixture(scope="session")
def place_config(config):
    """Windows out of takes of 20 seconds."""
    return dataclasses.replace(config, places=Places(take_frames=121))


@pytest.fixture(scope="session")
def moving_worlds(config, place_config):
    return [sample_world(seed, config) for seed in range(4)] + [
        sample_world(seed, place_config) for seed in (11, 12)
    ]


@pytest.fixture(scope="session")
def static_worlds(config, place_config):
    configs = [config] * 4 + [place_config] * 2
    return [
        sample_world(seed, dataclasses.replace(each, static=True))
        for seed, each in zip((0, 1, 2, 3, 11, 12), configs)
    ]


@pytest.fixture(scope="session")
def moving_frames(moving_worlds):
    return [render(world, HEIGHT, WIDTH) for world in moving_worlds]


@pytest.fixture(scope="session")
def static_frames(static_worlds):
    return [render(world, HEIGHT, WIDTH) for world in static_worlds]
