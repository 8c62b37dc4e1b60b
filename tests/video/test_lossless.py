"""Clips that are measured later are kept exactly."""

import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.video.decoding import count_frames, read_frames, read_video
from camctrl_jax.video.encoding import encode_mp4, write_mp4, write_mp4_of_parts

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


def test_parts_are_one_video_and_are_taken_one_by_one(tmp_path):
    video = np.random.default_rng(0).integers(0, 256, (7, 33, 47, 3), dtype=np.uint8)
    taken = []

    def parts():
        for part in (video[:3], video[3:4], video[4:]):
            taken.append(len(part))
            yield part

    write_mp4(tmp_path / "whole.mp4", video, 12.0, crf=None)
    write_mp4_of_parts(tmp_path / "parts.mp4", parts(), 12.0, crf=None)
    assert taken == [3, 1, 3]
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    for wrong, message in (([], "no parts"), ([video, video[:, 1:]], "of one size")):
        with pytest.raises(InvalidValue, match=message):
            write_mp4_of_parts(tmp_path / "wrong.mp4", wrong, 12.0)
    assert not (tmp_path / "wrong.mp4").exists()
