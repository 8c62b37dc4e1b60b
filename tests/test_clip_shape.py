"""The size of clips against the formulas that stood in a dozen places before there was one."""

from __future__ import annotations

import pytest

from camctrl_jax.clip_shape import PATCH, ClipShape, frames_of, latents_of, longest_clip
from camctrl_jax.errors import InvalidValue

FRAMES = range(1, 130)
SIZES = [(16, 16), (96, 160), (32, 48), (480, 832), (720, 1280), (8, 24)]


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_lengths(stride):
    for frames in FRAMES:
        assert latents_of(frames, stride) == (frames - 1) // stride + 1
        kept = (frames - 1) // stride * stride + 1
        assert longest_clip(frames, stride) == kept
        assert frames_of(latents_of(kept, stride), stride) == kept
    assert longest_clip(0, stride) == 1


def test_the_stride_of_the_package_is_four():
    assert [latents_of(frames) for frames in (1, 5, 9, 49, 81)] == [1, 2, 3, 13, 21]
    assert [frames_of(latents) for latents in (1, 2, 13)] == [1, 5, 49]
    assert [longest_clip(frames) for frames in (1, 4, 5, 8, 50)] == [1, 1, 5, 5, 49]


@pytest.mark.parametrize("size", SIZES)
def test_latents_and_tokens(size):
    for frames in range(1, 130, 4):
        shape = ClipShape(frames, *size)
        grid = ((frames - 1) // 4 + 1, size[0] // 8, size[1] // 8)
        assert shape.latents == grid[0]
        assert shape.latent_size == grid[1:]
        assert shape.latent_shape == grid
        for patch in (PATCH, (1, 1, 1), (2, 2, 2)):
            assert shape.tokens(patch) == grid[0] * grid[1] * grid[2] // (patch[0] * patch[1] * patch[2])
    assert ClipShape(49, 96, 160).tokens() == 13 * 6 * 10


def test_other_autoencoders():
    shape = ClipShape(9, 64, 96, temporal_stride=8, spatial_stride=16)
    assert shape.latent_shape == (2, 4, 6)
    assert range(9)[shape.pose_frames] == range(0, 9, 8)
    assert shape.check() is shape


def test_poses_of_latents_are_those_of_the_newest_frames():
    for frames in range(1, 130, 4):
        found = list(range(frames)[ClipShape(frames, 16, 16).pose_frames])
        assert found == [4 * latent for latent in range(ClipShape(frames, 16, 16).latents)]
        assert found[-1] == frames - 1


def test_what_works_is_what_the_old_checks_let_through():
    for frames in FRAMES:
        for height in (0, 8, 16, 24, 32, 40, 48):
            works = frames % 4 == 1 and height >= 16 and height % 16 == 0
            for shape in (ClipShape(frames, height, 32), ClipShape(frames, 32, height)):
                if works:
                    assert shape.check() is shape
                else:
                    with pytest.raises(InvalidValue):
                        shape.check()
            alone = ClipShape(frames, height, 32)  # the autoencoder without a transformer
            if frames % 4 == 1 and height >= 8:
                assert alone.check((1, 1, 1)) is alone
            else:
                with pytest.raises(InvalidValue):
                    alone.check((1, 1, 1))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (ClipShape(6, 32, 32), {}, "frames=6: expected 4k+1 frames, for example 5 or 9."),
        (ClipShape(0, 32, 32), {}, "frames=0: expected 4k+1 frames, for example 1 or 5."),
        (ClipShape(1, 32, 32), {"least_latents": 2}, "frames=1: expected 4k+1 frames, for example 5 or 9."),
        (ClipShape(5, 30, 32), {}, "height=30: expected a multiple of 16 pixels, for example 32."),
        (ClipShape(5, 4, 32), {}, "height=4: expected a multiple of 16 pixels, for example 16."),
        (
            ClipShape(5, 32, 41),
            {"patch": (1, 1, 1), "prefix": "config.data."},
            "config.data.width=41: expected a multiple of 8 pixels, for example 40.",
        ),
    ],
)
def test_messages_name_the_value_and_what_works(shape, options, message):
    with pytest.raises(InvalidValue) as caught:
        shape.check(**options)
    assert str(caught.value) == message
