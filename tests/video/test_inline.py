"""What a notebook's cell stores of a clip or picture."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.video.decoding import read_video

pytest.importorskip("IPython", reason="needs the notebooks extra")
pytest.importorskip("av", reason="needs the data extra")

from camctrl_jax.video.inline import inline_picture, inline_video


def test_a_clip_is_stored_in_the_cell_and_decodes():
    frames = np.full((5, 32, 48, 3), 120, np.uint8)
    frames[:, :, :24] = 40
    html = inline_video(frames, 12.0)._repr_html_()
    start = html.index("base64,") + len("base64,")
    stored = base64.b64decode(html[start : html.index('"', start)])
    decoded = read_video(stored, name="the cell")
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 3
    assert 'width="96"' in html  # twice its own
    assert "loop" in html
    assert "muted" in html


def test_a_picture_keeps_its_pixels():
    av = pytest.importorskip("av")
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    shown = inline_picture(image, width=90)
    with av.open(io.BytesIO(shown.data)) as container:
        decoded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    np.testing.assert_array_equal(decoded, image)
    assert shown.width == 90


def test_what_is_no_video_is_refused():
    with pytest.raises(InvalidValue, match="a video is u8"):
        inline_video(np.zeros((4, 8, 8, 3), np.float32), 12.0)
