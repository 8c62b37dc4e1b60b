"""Clips that are measured later are kept exactly."""

import numpy as np
import pytest

from camctrl_jax.video.decoding import count_frames, read_frames, read_video
from camctrl_jax.video.encoding import encode_mp4, write_mp4

pytest.importorskip("av", reason="videos are written by PyAV")


def test_lossless_frames_come_back_exactly_and_repeat_as_bytes(tmp_path):
    video = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    data = encode_mp4(video, 8.0, crf=None)
    np.testing.assert_array_equal(read_video(data), video)
    assert data == encode_mp4(video, 8.0, crf=None)
    write_mp4(tmp_path / "a.mp4", video, 8.0, crf=None)
    assert count_frames(tmp_path / "a.mp4") == 5
    assert [frame.time for frame in read_frames(tmp_path / "a.mp4")] == pytest.approx(np.arange(5) / 8.0)
    assert [frame.remarks for frame in read_frames(data)] == [()] * 5
    # Noise in colour is what 4:2:0 cannot keep: the test would notice a codec that is not lossless.
    assert np.abs(read_video(encode_mp4(video, 8.0, crf=0.0)).astype(int) - video).mean() > 5.0
