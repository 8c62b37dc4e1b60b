"""Worlds and renders that several test files look at, made once. Few sizes: each costs a compilation."""

import dataclasses

import pytest

from camctrl_jax.worlds import WorldsConfig, render, sample_world

HEIGHT, WIDTH, FRAMES = 48, 80, 13


@pytest.fixture(scope="session")
def config():
    return WorldsConfig(frames=FRAMES, fps=6.0)


@pytest.fixture(scope="session")
def moving_worlds(config):
    return [sample_world(seed, config) for seed in range(4)]


@pytest.fixture(scope="session")
def static_worlds(config):
    return [sample_world(seed, dataclasses.replace(config, static=True)) for seed in range(4)]


@pytest.fixture(scope="session")
def moving_frames(moving_worlds):
    return [render(world, HEIGHT, WIDTH) for world in moving_worlds]


@pytest.fixture(scope="session")
def static_frames(static_worlds):
    return [render(world, HEIGHT, WIDTH) for world in static_worlds]
