"""Motion strength of known flow."""

import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.metrics.motion import MotionStrength


def test_known_flow_reads_its_known_mean():
    flow = np.zeros((2, 6, 8, 2))
    flow[0, :3] = (3.0, 4.0)  # 5 px
    flow[1, 3:, :4] = (0.0, 10.0)
    moving = np.hypot(*np.moveaxis(flow, -1, 0)) > 0
    strength = MotionStrength.of(flow, moving)
    assert strength.px == pytest.approx((24 * 5.0 + 12 * 10.0) / 36)
    assert strength.diagonals == pytest.approx(strength.px / 10.0)  # 6 by 8: the diagonal is 10
    assert strength.moving_share == pytest.approx(36 / 96)


def test_the_papers_unit_is_57_times_the_pixels():
    flow = np.broadcast_to((5.36, 0.0), (1, 4, 4, 2))
    assert MotionStrength.of(flow, np.ones((1, 4, 4), bool)).paper_units == pytest.approx(307.1, abs=0.1)


def test_parts_add_up_to_the_whole():
    generator = np.random.default_rng(0)
    flow, moving = generator.normal(size=(7, 5, 6, 2)), generator.random((7, 5, 6)) < 0.3
    parts = MotionStrength.of(flow[:2], moving[:2]) + MotionStrength.of(flow[2:], moving[2:])
    whole = MotionStrength.of(flow, moving)
    assert parts.px == pytest.approx(whole.px, rel=1e-12)
    assert parts.moving == whole.moving
    assert parts.pixels == whole.pixels


def test_a_still_clip_has_no_mean_and_outside_the_masks_nothing_counts():
    flow = np.full((1, 4, 4, 2), np.nan)
    strength = MotionStrength.of(flow, np.zeros((1, 4, 4), bool))
    assert strength.px is None
    assert strength.paper_units is None
    assert strength.moving_share == 0.0
    with pytest.raises(InvalidValue, match="NaN"):
        MotionStrength.of(flow, np.ones((1, 4, 4), bool))
    with pytest.raises(InvalidValue, match="does not fit"):
        MotionStrength.of(flow, np.ones((4, 4), bool))
