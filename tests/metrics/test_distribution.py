"""The energy score on a toy whose true distribution is known: blur and collapse cost, truth wins."""

import numpy as np
import pytest
from scipy import stats

from camctrl_jax.errors import InvalidValue
from camctrl_jax.metrics.appearance import appearance_consistency, first_picture_consistency
from camctrl_jax.metrics.distribution import Spread, energy_score
from camctrl_jax.metrics.intervals import interval, paired, share_interval
from camctrl_jax.metrics.sharpness import gradient_energy


def outcomes(count, generator):
    """A black or a white square on grey, each half of the time: f64 [count, 1, 8, 8, 1]."""
    colour = generator.choice((0.0, 255.0), size=(count, 1, 1, 1, 1))
    return np.broadcast_to(colour, (count, 1, 8, 8, 1)) + generator.normal(size=(count, 1, 8, 8, 1))


def mean_score(draw, trials=400):
    generator = np.random.default_rng(0)
    truths = outcomes(trials, generator)
    return np.mean([energy_score(draw(generator), truth).mean() for truth in truths])


def test_the_true_distribution_beats_its_mean_and_a_collapse():
    true = mean_score(lambda generator: outcomes(4, generator))
    blurred = mean_score(lambda generator: np.full((4, 1, 8, 8, 1), 127.5))
    collapsed = mean_score(lambda generator: np.repeat(outcomes(1, np.random.default_rng(5)), 4, axis=0))
    assert true < 0.75 * blurred
    assert true < 0.75 * collapsed
    # Its value: E|x - y| is 127.5 and half of E|x - x'| 63.75.
    assert true == pytest.approx(63.75, rel=0.1)


def test_squared_error_prefers_the_mean():
    """What the score is there for: PSNR ranks the blur first."""
    generator = np.random.default_rng(0)
    truths, samples = outcomes(400, generator), outcomes(400, generator)
    assert ((127.5 - truths) ** 2).mean() < 0.6 * ((samples - truths) ** 2).mean()


def test_a_patch_is_scored_as_a_whole():
    """Halves that change together and halves that change alone: each pixel alike, only patches tell."""
    generator = np.random.default_rng(0)
    truths = np.repeat(generator.choice((0.0, 255.0), size=(400, 1, 1)), 2, axis=2)[..., None]  # [N, 1, 2, 1]
    together = np.repeat(generator.choice((0.0, 255.0), size=(400, 4, 1, 1)), 2, axis=3)[..., None]
    alone = generator.choice((0.0, 255.0), size=(400, 4, 1, 2))[..., None]

    def mean(samples, patch):
        pairs = zip(samples, truths, strict=True)
        # A patch of 2 pixels: the row is doubled so that it is square.
        return np.mean(
            [energy_score(s.repeat(2, axis=1), t.repeat(2, axis=0), patch=patch) for s, t in pairs]
        )

    assert mean(together, 1) == pytest.approx(mean(alone, 1), rel=0.1)
    assert mean(together, 2) < 0.9 * mean(alone, 2)


def test_spread_over_skill_is_one_for_the_truth_and_zero_for_a_collapse():
    generator = np.random.default_rng(0)
    world = generator.normal(size=(64, 64, 1)) * 50
    samples, truth = (
        world + generator.normal(size=(4, 64, 64, 1)) * 10,
        world + generator.normal(size=(64, 64, 1)) * 10,
    )
    assert Spread.of(samples, truth).spread_over_skill == pytest.approx(1.0, abs=0.03)
    assert Spread.of(np.repeat(samples[:1], 4, axis=0), truth).spread_over_skill == 0.0


def test_regions_add_up():
    generator = np.random.default_rng(0)
    samples, truth = generator.normal(size=(3, 2, 8, 8, 3)), generator.normal(size=(2, 8, 8, 3))
    region = generator.random((2, 8, 8)) < 0.4
    parts = Spread.of(samples, truth, region) + Spread.of(samples, truth, ~region)
    whole = Spread.of(samples, truth)
    assert parts.variance == pytest.approx(whole.variance)
    assert parts.values == whole.values
    assert Spread.of(samples, truth, np.zeros_like(region)).per_value is None


def test_gradient_energy_of_a_ramp_and_of_its_blur():
    ramp = np.broadcast_to(np.arange(8.0)[:, None] * 3, (2, 8, 8, 1))
    assert gradient_energy(ramp) == pytest.approx(9.0)
    noise = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    blurred = (noise + np.roll(noise, 1, axis=-2)) / 2
    assert gradient_energy(blurred) < 0.8 * gradient_energy(noise)


def test_appearance_of_equal_frames_is_one_and_of_orthogonal_ones_known():
    equal, two = np.tile([3.0, 4.0], (5, 1)), np.array([[1.0, 0.0], [0.0, 2.0]])
    assert appearance_consistency(equal) == pytest.approx(1.0)
    assert appearance_consistency(two) == pytest.approx(np.sqrt(0.5))
    assert first_picture_consistency(two) == pytest.approx(0.0)
    with pytest.raises(InvalidValue, match="zero"):
        appearance_consistency(np.zeros((2, 2)))


def test_intervals_hold_the_mean_and_count_the_failed():
    values = np.array([1.0, 2.0, np.nan, 3.0])
    found = interval(values)
    assert (found.mean, found.clips, found.failed) == (2.0, 3, 1)
    assert found.low < 2.0 < found.high
    assert interval(np.array([np.nan])) is None
    alone = interval(np.array([4.0, np.nan]))
    assert (alone.mean, alone.low, alone.clips, alone.failed) == (4.0, None, 1, 1)


@pytest.mark.parametrize("clips", [5, 10, 13, 30])
@pytest.mark.parametrize("kind", ["normal", "of skewness 1"])
def test_intervals_cover_about_19_times_in_20(clips, kind):
    generator = np.random.default_rng(0)
    draws = (
        generator.normal(4.0, size=(3000, clips))
        if kind == "normal"
        else generator.gamma(4.0, size=(3000, clips))
    )
    found = [interval(values) for values in draws]
    assert 0.925 < np.mean([one.low < 4.0 < one.high for one in found]) < 0.97


def test_an_interval_ends_where_means_end():
    cosines = np.array([0.99, 0.9, 1.0])
    free, cut = interval(cosines), interval(cosines, within=(0.0, 1.0))
    assert free.high > 1.0 == cut.high
    assert (free.low, free.mean) == (cut.low, cut.mean)
    rounded = interval(np.full(3, 1.0 + 1e-12), within=(0.0, 1.0))
    assert rounded.low <= rounded.mean <= rounded.high


def test_the_interval_of_a_mean_is_that_of_student():
    values = np.random.default_rng(0).normal(size=13)
    low, high = stats.t.interval(0.95, 12, values.mean(), stats.sem(values))
    found = interval(values)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize(("successes", "clips"), [(15, 15), (0, 15), (7, 13), (1, 1), (178, 180)])
def test_the_interval_of_a_share_is_that_of_wilson(successes, clips):
    values = np.arange(clips) < successes
    expected = stats.binomtest(successes, clips).proportion_ci(0.95, method="wilson")
    found = share_interval(values)
    assert found.mean == pytest.approx(successes / clips)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.low <= found.mean <= found.high


def test_shares_count_what_is_not_known_and_refuse_what_is_no_share():
    found = share_interval(np.array([1.0, 0.0, np.nan]))
    assert (found.mean, found.clips, found.failed) == (0.5, 2, 1)
    assert share_interval(np.array([np.nan])) is None
    with pytest.raises(InvalidValue, match="yes or no"):
        share_interval(np.array([0.5]))


def test_a_paired_comparison_sees_what_two_intervals_hide():
    generator = np.random.default_rng(0)
    first = generator.normal(size=50) * 10
    second = first + 1.0 + 0.1 * generator.normal(size=50)
    assert paired(first, second).low > 0.9
    one, other = interval(first), interval(second)
    assert one.high > other.low  # they overlap
    with pytest.raises(InvalidValue, match="same clips"):
        paired(first, second[:3])


def test_samples_that_do_not_fit_are_named():
    with pytest.raises(InvalidValue, match="2 samples or more"):
        energy_score(np.zeros((1, 8, 8, 3)), np.zeros((8, 8, 3)))
    with pytest.raises(InvalidValue, match="no patch of 8x8"):
        energy_score(np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3)))
