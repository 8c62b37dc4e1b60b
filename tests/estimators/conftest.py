"""Worlds that are rendered once, and a place for fake programs."""

import sys
import textwrap

import numpy as np
import pytest

from camctrl_jax.estimators.process import Installation, Program
from camctrl_jax.estimators.worlds_truth import WorldsTruth
from camctrl_jax.worlds import WorldsConfig, sample_world

FRAMES = 16


@pytest.fixture(scope="session")
def truth_of():
    """A function from a seed and a size to the truth of a world of 16 frames at 4 a second, rendered once."""
    made = {}

    def make(seed, size):
        if (seed, size) not in made:
            world = sample_world(seed, WorldsConfig(frames=FRAMES, fps=4.0, aspect=size[1] / size[0]))
            made[seed, size] = WorldsTruth(world, size)
        return made[seed, size]

    return make


@pytest.fixture
def clip():
    """Three frames of noise, u8 [3, 40, 64, 3]."""
    return np.random.default_rng(0).integers(0, 256, (3, 40, 64, 3), np.uint8)


@pytest.fixture
def program(tmp_path):
    """A function from the text of a Python program to a Program that runs it on ``arguments``."""

    def make(text, *arguments, needs=(), **settings):
        script = tmp_path / "fake.py"
        script.write_text(textwrap.dedent(text))
        settings = {"time_limit": 60.0, "work_in": tmp_path / "work"} | settings
        command = ("{python}", str(script), *arguments)
        return Program("fake", (command,), Installation(sys.executable, **settings), needs=needs)

    return make
