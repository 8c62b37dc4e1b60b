"""What students are to answer: the teacher's own steps, merged; and who is asked how often on the way."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.diffusion.condition import Condition, NullText
from camctrl_jax.diffusion.distillation import guided, interval_times, merged_velocity, step_times
from camctrl_jax.diffusion.flow import interpolate, shift_time, velocity_target
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling, sample, time_grid
from camctrl_jax.errors import InvalidValue

B, L, H, W, C, N, D = 3, 4, 2, 3, 4, 5, 6
SHIFT = 4.0


def made(retrieved=2, given=1):
    """(condition, null, noise) of clips with retrieved frames and given latents."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    frames = retrieved + L
    condition = Condition(
        text=normal(B, N, D),
        text_mask=jnp.ones((B, N), bool),
        plucker=normal(B, frames, H, W, 6),
        clean=normal(B, frames, H, W, C),
        mask=jnp.broadcast_to(jnp.arange(frames) < retrieved + given, (B, frames)),
        retrieved=retrieved,
    )
    return condition, NullText(normal(1, N, D), (jnp.arange(N) < 1)[None]), normal(B, frames, H, W, C)


def curved(params, noisy, time, condition):
    """A smooth velocity that depends on every input, neighbouring latents included."""
    words = jnp.sum(jnp.where(condition.text_mask[..., None], condition.text, 0.0), (1, 2))
    pose = jnp.sum(condition.plucker, -1, keepdims=True)
    inputs = condition.inputs(noisy)
    mixed = jnp.roll(inputs[..., :C], 1, axis=1) + 0.5 * inputs[..., C : 2 * C] + inputs[..., -1:]
    mixed = mixed + 0.1 * words[:, None, None, None, None] + 0.1 * pose
    return params * jnp.tanh(mixed) + time[:, None, None, None, None]


def merging(guidance, inside, steps, noise, null):
    """A network that answers with the merged steps of a guided teacher, as a perfect student does."""
    grid = jnp.asarray(time_grid(inside * steps, SHIFT))

    def velocity(params, noisy, time, condition):
        index = jnp.argmin(jnp.abs(grid[None] - time[:, None]), axis=1)
        times = grid[index[:, None] + jnp.arange(inside + 1)]
        return merged_velocity(
            guided(partial(curved, params), guidance, condition, null, noise), noisy, times
        )

    return velocity


@pytest.mark.parametrize("inside", [2, 4])
@pytest.mark.parametrize("retrieved", [0, 2])
@pytest.mark.parametrize(
    "guidance", [Guidance(), Guidance(1.0, 2.0), Guidance(3.0, 2.0), Guidance(3.0, 2.0, 1.5)]
)
def test_merged_steps_are_the_samplers_own(guidance, retrieved, inside):
    condition, null, noise = made(retrieved)
    params = jnp.float32(0.7)
    steps = 4
    student = merging(guidance, inside, steps, noise, null)
    found = sample(student, params, noise, condition, null, Sampling(steps=steps, shift=SHIFT))
    expected = sample(
        curved, params, noise, condition, null, Sampling(guidance, steps=inside * steps, shift=SHIFT)
    )
    assert float(jnp.linalg.norm(found - expected)) < 1e-5 * float(jnp.linalg.norm(expected))
    unguided = sample(curved, params, noise, condition, null, Sampling(steps=inside * steps, shift=SHIFT))
    apart = float(jnp.linalg.norm(unguided - expected)) > 1e-2 * float(jnp.linalg.norm(expected))
    assert apart == (guidance != Guidance())


def test_a_plain_mean_would_be_wrong_on_a_shifted_grid():
    condition, null, noise = made()
    flow = guided(partial(curved, 0.7), Guidance(), condition, null, noise)
    t, m, r = (jnp.full(B, time) for time in time_grid(2, SHIFT))
    first = flow(noise, t, m)
    second = flow(noise + (m - t)[:, None, None, None, None] * first, m, r)
    share = float((t - m)[0])
    merged = merged_velocity(flow, noise, jnp.stack([t, m, r], axis=1))
    np.testing.assert_allclose(merged, share * first + (1 - share) * second, atol=1e-5)
    assert float(jnp.abs(merged - 0.5 * (first + second)).max()) > 0.05


def gaussian(spread):
    """The exact velocity of a data set with the distribution N(0, spread^2), for one clip in noise z."""

    def velocity(noisy, time, condition):
        t = time[:, None, None, None, None]
        return noisy * (t - (1 - t) * spread**2) / ((1 - t) ** 2 * spread**2 + t**2)

    return velocity


def test_every_halving_of_a_linear_student_arrives_where_32_steps_do():
    """A flow that is linear in z has students that are: each halving is fitted exactly, down to one step."""
    condition, null, noise = made(0, given=0)
    expected = sample(
        lambda params, *inputs: gaussian(0.3)(*inputs), None, noise, condition, null,
        Sampling(steps=32, shift=SHIFT),
    )  # fmt: skip
    teacher, steps = gaussian(0.3), 32
    while steps > 1:
        steps //= 2
        nodes, starts = time_grid(2 * steps, SHIFT), time_grid(steps, SHIFT)[:-1]
        # The student's slope at each node of its grid, from the target at z = 1.
        flow = guided(teacher, Guidance(), condition, null, noise)
        ones = jnp.ones_like(noise)
        slopes = jnp.stack(
            [
                merged_velocity(flow, ones, jnp.tile(nodes[2 * i : 2 * i + 3], (B, 1)))[0, 0, 0, 0, 0]
                for i in range(steps)
            ]
        )

        def student(noisy, time, condition, starts=starts, slopes=slopes):
            index = jnp.argmin(jnp.abs(jnp.asarray(starts)[None] - time[:, None]), axis=1)
            return slopes[index][:, None, None, None, None] * noisy

        found = sample(
            lambda params, *inputs, own=student: own(*inputs), None, noise, condition, null,
            Sampling(steps=steps, shift=SHIFT),
        )  # fmt: skip
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
        teacher = student


def test_the_first_loss_on_a_data_set_of_one_clip_is_zero():
    """Its flow is straight, so that the velocity of data is the target at once."""
    condition, null, noise = made()
    clean = condition.clean

    def straight(noisy, time, condition):
        return (noisy - clean) / time[:, None, None, None, None]

    times = step_times(jax.random.key(0), B, 4, 8, SHIFT)
    noisy = interpolate(clean, noise, times[:, 0])
    flow = guided(straight, Guidance(), condition, null, noise)
    merged = merged_velocity(flow, noisy, times)
    window = np.asarray(~condition.mask[0])
    target = velocity_target(clean, noise)
    np.testing.assert_allclose(merged[:, window], target[:, window], atol=2e-4)


def counting(calls):
    """A velocity that counts on how many batches of B samples it is evaluated when it runs."""

    def velocity(noisy, time, condition):
        jax.debug.callback(lambda times: calls.append(len(times) // B), time)
        return noisy

    return velocity


@pytest.mark.parametrize(
    ("guidance", "expected"),
    [(Guidance(1.0, 2.0), 64), (Guidance(1.5, 2.0), 96), (Guidance(1.5, 2.0, 1.2), 128), (Guidance(), 32)],
)
def test_a_teacher_of_32_steps_is_asked_as_often_as_the_sampler_asks(guidance, expected):
    condition, null, noise = made()
    calls = []
    flow = guided(counting(calls), guidance, condition, null, noise)
    times = jnp.tile(time_grid(32, SHIFT), (B, 1))
    jax.block_until_ready(jax.jit(lambda z: merged_velocity(flow, z, times))(noise))
    jax.effects_barrier()
    assert sum(calls) == 32 * guidance.evaluations() == expected
    # The sampler itself, and its student of 16 steps.
    for asked, steps, evaluations in ((guidance, 32, expected), (Guidance(), 16, 16)):
        calls.clear()
        velocity = counting(calls)
        sampled = sample(
            lambda params, *inputs, own=velocity: own(*inputs), None, noise, condition, null,
            Sampling(asked, steps, SHIFT),
        )  # fmt: skip
        jax.block_until_ready(sampled)
        jax.effects_barrier()
        assert sum(calls) == evaluations


def test_after_folding_nobody_needs_the_empty_prompt():
    condition, _, noise = made()
    flow = guided(partial(curved, 0.7), Guidance(), condition, None, noise)
    time = jnp.full(B, 0.5)
    assert bool(jnp.isfinite(flow(noise, time, time)).all())


def test_without_a_camera_its_weight_has_no_part():
    condition, null, noise = made()
    condition = dataclasses.replace(condition, plucker=condition.plucker.at[0].set(0.0))
    times = step_times(jax.random.key(1), B, 4, 8, SHIFT)

    def target(weight):
        flow = guided(partial(curved, 0.7), Guidance(3.0, weight), condition, null, noise)
        return merged_velocity(flow, noise, times)

    low, high = target(1.5), target(6.0)
    np.testing.assert_allclose(low[0], high[0], atol=2e-5)
    assert float(jnp.abs(low[1] - high[1]).max()) > 0.1


def test_history_cannot_be_distilled():
    condition, null, noise = made()
    with pytest.raises(InvalidValue, match=r"Guidance\.history is 1\.5"):
        guided(partial(curved, 0.7), Guidance(history=1.5), condition, null, noise)


def test_steps_are_those_of_the_students_grid_with_the_teachers_between():
    times = np.asarray(step_times(jax.random.key(0), 400, 4, 12, SHIFT))
    assert times.shape == (400, 4)
    grid = time_grid(12, SHIFT)
    expected = {tuple(grid[3 * i : 3 * i + 4]) for i in range(4)}
    assert set(map(tuple, times)) == expected
    np.testing.assert_allclose(np.sort(np.unique(times[:, 0]))[::-1], time_grid(4, SHIFT)[:-1], atol=1e-6)
    with pytest.raises(InvalidValue, match="32 steps of a teacher cannot be merged into 5 equal parts"):
        step_times(jax.random.key(0), 4, 5, 32, SHIFT)


def test_intervals_of_a_flow_map_are_aligned_to_their_length():
    levels = jnp.arange(6000) % 6
    times = np.asarray(interval_times(jax.random.key(0), levels, 32, 1.0))
    lengths = times[:, 0] - times[:, 2]
    np.testing.assert_allclose(lengths, 2.0 ** np.asarray(levels) / 32, atol=1e-6)
    places = times[:, 2] / lengths
    np.testing.assert_allclose(places, np.round(places), atol=1e-5)
    np.testing.assert_allclose(times[:, 1], times[:, ::2].mean(axis=1), atol=1e-6)
    assert times.min() == 0
    assert times.max() == 1
    for level in range(6):
        assert len(np.unique(places[np.asarray(levels) == level].round())) == 32 // 2**level
    shifted = interval_times(jax.random.key(0), levels, 32, SHIFT)
    np.testing.assert_allclose(shifted, shift_time(times, SHIFT), atol=1e-6)
