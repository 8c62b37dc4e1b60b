"""The pipeline: weights that fit together, samples that depend on their own inputs only."""

from __future__ import annotations

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nano_weights import save_nano

from camctrl_jax.camera import compose, plucker_map, resolve_path
from camctrl_jax.camera.retrieval import select_frames
from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.flow import shift_for_tokens
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue
from camctrl_jax.sampling.continuation import check_beginning
from camctrl_jax.sampling.pipeline import (
    ClipBatch,
    Denoiser,
    Extension,
    Pipeline,
    RetrievedFrames,
    retrieve,
    sampling_form,
    used_text,
)

SHAPE = ClipShape(9, 32, 48)
RUN = Sampling(Guidance(2.0, 3.0), steps=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "nano")


@pytest.fixture(scope="module")
def pipeline(folder):
    return load_pipeline(*open_model(folder))


def clips(**fields) -> ClipBatch:
    """One clip of a red ball, with fields replaced."""
    return replace(ClipBatch(["a red ball"], [5], SHAPE), **fields)


def make_image(seed: int = 0, frames: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, frames, 32, 48, 3)).astype(np.uint8)


def test_a_sampler_with_scanned_layers_gives_the_same_clip(pipeline, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("jax.default_backend", lambda: "gpu")
        config, params = sampling_form(pipeline.denoiser.config, pipeline.params, jnp.float32)
    assert config.scan_layers
    scanned = replace(pipeline, denoiser=Denoiser(config, jnp.float32), params=params)
    paths = [resolve_path("dolly in 1 m", 9)]
    one, other = (p.sample(clips(cameras=paths), RUN) for p in (pipeline, scanned))
    assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(one)


def test_padding_that_no_prompt_needs_is_not_computed_and_changes_nothing(pipeline, monkeypatch):
    padded = replace(pipeline, embedder=replace(pipeline.embedder, max_tokens=150))
    seen = []

    def observed(*texts):
        seen.append([x.shape[1] for x in used_text(*texts)])
        return texts if len(seen) == 2 else used_text(*texts)

    monkeypatch.setattr("camctrl_jax.sampling.pipeline.used_text", observed)
    inputs = clips(cameras=[resolve_path("dolly in 1 m", 9)])
    cut, whole = (padded.sample(inputs, RUN) for _ in range(2))
    assert seen == [[64] * 4] * 2
    assert np.linalg.norm(cut - whole) <= 1e-5 * np.linalg.norm(whole)


@pytest.mark.parametrize(
    ("longest", "tokens", "kept"), [(1, 150, 64), (64, 150, 64), (65, 150, 128), (140, 150, 150)]
)
def test_text_is_cut_after_the_longest_of_all_prompts(longest, tokens, kept):
    text = np.random.default_rng(0).standard_normal((2, tokens, 3)).astype(np.float32)
    mask = np.arange(tokens) < np.array([[1], [longest]])
    for first, second in (((text, mask), (text[:1], mask[:1])), ((text[:1], mask[:1]), (text[1:], mask[1:]))):
        given = (*first, *second)
        for cut, whole in zip(used_text(*given), given, strict=True):
            np.testing.assert_array_equal(cut, whole[:, :kept])


def test_clip_depends_on_its_own_inputs_and_not_on_the_batch(pipeline):
    paths = [resolve_path("dolly in 1 m", 9), resolve_path("pan left 40 deg", 9)]
    images = np.concatenate([make_image(0), make_image(1)])
    prompts = ["a red ball", "two blue boxes"]
    together = pipeline.sample(ClipBatch(prompts, [5, 6], SHAPE, paths, images), RUN)
    for i in range(2):
        alone = ClipBatch([prompts[i]], [5 + i], SHAPE, [paths[i]], images[i : i + 1])
        alone = pipeline.sample(alone, RUN)
        difference = np.linalg.norm(together[i] - alone[0]) / np.linalg.norm(alone[0])
        assert difference <= 1e-5


@pytest.mark.parametrize("what", ["prompt", "seed", "camera", "image"])
def test_every_input_reaches_the_result(pipeline, what):
    inputs = clips(cameras=[resolve_path("dolly in 1 m", 9)], condition=make_image(0))
    other = {
        "prompt": {"prompts": ["two blue boxes"]},
        "seed": {"seeds": [6]},
        "camera": {"cameras": [resolve_path("dolly out 1 m", 9)]},
        "image": {"condition": make_image(1)},
    }[what]
    first, second = (np.asarray(pipeline.sample(given, RUN)) for given in (inputs, replace(inputs, **other)))
    assert np.linalg.norm(first[:, 1:] - second[:, 1:]) > 1e-3 * np.linalg.norm(first[:, 1:])


def test_given_frames_are_the_condition_and_the_rest_is_sampled(pipeline):
    given = make_image(frames=5)  # an extension: two of three latents
    inputs = ClipBatch([""], [0], SHAPE, [resolve_path("static", 9)], given)
    latents = np.asarray(pipeline.sample(inputs, RUN))
    np.testing.assert_array_equal(latents[:, :2], pipeline.autoencoder.encode(given))
    assert latents.shape == (1, 3, 4, 6, 16)


def test_nothing_left_to_sample_is_refused(pipeline):
    with pytest.raises(ValueError, match="nothing to sample"):
        pipeline.sample(clips(condition=make_image(frames=9)), RUN)


def test_no_camera_is_the_null_camera(pipeline):
    inputs = clips(condition=make_image())
    zero, none = (pipeline.sample(inputs, Sampling(Guidance(2.0, weight), 2)) for weight in (0.0, 3.0))
    np.testing.assert_allclose(none, zero, rtol=1e-4, atol=1e-4)


EXTENSION = Extension(new_latents=2, condition_latents=2)


def test_extension_appends_frames_that_continue_the_given_ones(pipeline):
    video, path = make_image(frames=9), resolve_path("dolly in 1 m then pan left 20 deg", 17)
    longer = pipeline.extend(video, clips(seeds=[3], cameras=[path]), EXTENSION, RUN)
    assert longer.shape == (1, 17, 32, 48, 3)
    np.testing.assert_array_equal(longer[:, :9], video)
    # By hand: a window of 2 condition latents (5 frames) and 2 new ones, seen from the path's first camera.
    window = clips(
        seeds=[3],
        shape=ClipShape(13, 32, 48),
        cameras=[path[4:]],
        condition=video[:, 4:],
        references=[path.world_from_camera[0]],
    )
    latents = pipeline.sample(window, RUN)
    np.testing.assert_array_equal(longer[:, 9:], pipeline.autoencoder.decode(latents)[:, 5:])
    # The world frame of the path does not matter, and the seed decides the rest.
    moved = path.transformed(resolve_path("orbit left 90 deg", 2).world_from_camera[1])
    same = pipeline.extend(video, clips(seeds=[3], cameras=[moved]), EXTENSION, RUN)
    assert np.abs(same[:, 9:].astype(int) - longer[:, 9:]).max() <= 1
    other = pipeline.extend(video, clips(seeds=[4], cameras=[path]), EXTENSION, RUN)
    assert np.abs(other[:, 9:].astype(int) - longer[:, 9:]).max() > 1


def test_extension_sees_the_first_camera_of_the_first_clip(pipeline):
    """The same last nine poses after two different beginnings: another reference, another result."""
    video, end = make_image(frames=9), resolve_path("dolly in 1 m", 13)
    results = [
        pipeline.extend(
            video, clips(cameras=[compose(resolve_path(beginning, 5), end)]), EXTENSION, RUN
        )  # 17 poses
        for beginning in ("static", "truck right 2 m while panning left 30 deg")
    ]
    assert np.abs(results[0][:, 9:].astype(int) - results[1][:, 9:]).max() > 1


@pytest.mark.parametrize(
    ("frames", "poses", "message"),
    [
        (4, 17, "uint8 .1, 4, 32, 48, 3.: expected uint8 .* at least 5 frames"),
        (9, 16, "16 poses: expected those of the 9 frames so far and of the 8 to come, 17 in all"),
        (9, 41, "41 poses: expected those of the 9 frames so far and of the 8 to come, 17 in all"),
    ],
)
def test_extensions_that_lack_frames_or_poses_are_refused(pipeline, frames, poses, message):
    with pytest.raises(ValueError, match=message):
        pipeline.extend(
            make_image(frames=frames), clips(cameras=[resolve_path("static", poses)]), EXTENSION, RUN
        )
    with pytest.raises(ValueError, match="new_latents=0: expected 1 or"):
        Extension(new_latents=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("dolly in 1 m then pan left 20 deg, then truck right 1 m", "begin with that of the video: at frame"),
        ("dolly in 2.002 m", r"at frame \d they are .* m and .* degrees apart"),
        ("pan left 1 deg", "degrees apart"),
    ],
)
def test_an_extension_whose_path_does_not_begin_with_the_clips_is_refused(pipeline, changed, message):
    video, path = make_image(frames=9), resolve_path("dolly in 1 m then pan left 20 deg", 9)
    other = resolve_path(changed, 17)
    apart = np.linalg.norm(
        other.relative_to(0).world_from_camera[:9, :3, 3] - path.relative_to(0).world_from_camera[:, :3, 3],
        axis=-1,
    )
    with pytest.raises(InvalidValue, match=message) as told:
        pipeline.extend(video, clips(cameras=[other]), EXTENSION, RUN, cameras_so_far=[path])
    frame = int(re.search(r"at frame (\d+)", str(told.value))[1])
    assert f"{apart[frame]:.3g} m and" in str(told.value)
    # Made of the clip's own path it is taken, in any world frame, and gives what it gives unchecked.
    longer = compose(path, resolve_path("truck right 1 m", 9))
    moved = longer.transformed(resolve_path("orbit left 90 deg", 2).world_from_camera[1])
    checked = pipeline.extend(video, clips(cameras=[moved]), EXTENSION, RUN, cameras_so_far=[path])
    np.testing.assert_array_equal(checked, pipeline.extend(video, clips(cameras=[moved]), EXTENSION, RUN))


def test_paths_so_far_that_are_another_clips_are_refused(pipeline):
    video, path = make_image(frames=9), resolve_path("dolly in 1 m", 17)
    for so_far, message in (
        ([path[:8]], r"paths of \[8\] poses: expected 1 of the 9 frames so far"),
        ([path[:9]] * 2, "expected 1 of the 9"),
        ([replace(path[:9], intrinsics=path.intrinsics[:9] * 1.01)], "intrinsics of the video: .* differ by"),
    ):
        with pytest.raises(InvalidValue, match=message):
            pipeline.extend(video, clips(cameras=[path]), EXTENSION, RUN, cameras_so_far=so_far)
    with pytest.raises(InvalidValue, match="expected the paths of the whole"):
        pipeline.extend(video, clips(), EXTENSION, RUN, cameras_so_far=[path[:9]])


@pytest.mark.parametrize(
    ("metres", "degrees", "refused"), [(5e-5, 0, 0), (2e-4, 0, 1), (0, 0.003, 0), (0, 0.01, 1)]
)
def test_a_path_may_be_off_by_no_more_than_rounding(metres, degrees, refused):
    path = resolve_path("dolly in 1 m then pan left 20 deg", 9)
    off = path.world_from_camera.copy()
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    off[5, :3, :3] = off[5, :3, :3] @ turn
    off[5, 0, 3] += metres
    off = replace(path, world_from_camera=off)
    if refused:
        with pytest.raises(InvalidValue, match="at frame 5 they are"):
            check_beginning(off, path)
    else:
        check_beginning(off, path)
    far = replace(path, world_from_camera=path.world_from_camera.astype(np.float32).astype(np.float64))
    check_beginning(far, path)


def test_paths_that_hold_no_cameras_are_refused_by_frame():
    path = resolve_path("dolly in 1 m", 9)
    for place, value, message in (
        ((4, 0, 3), np.nan, "frame 4: the pose holds NaN"),
        ((4, 0, 0), 1.1, "frame 4: the rotation is not orthonormal"),
    ):
        poses = path.world_from_camera.copy()
        poses[place] = value
        broken = replace(path, world_from_camera=poses)
        with pytest.raises(ValueError, match=f"The path: {message}"):
            check_beginning(broken, path)
        with pytest.raises(ValueError, match=f"The path so far: {message}"):
            check_beginning(path, broken)
    lenses = path.intrinsics.copy()
    lenses[3, 0] = np.nan
    with pytest.raises(ValueError, match="The path: frame 3: "):
        check_beginning(replace(path, intrinsics=lenses), path)


def test_shift_follows_the_number_of_tokens_unless_the_weights_fix_it(pipeline):
    assert pipeline.shift(SHAPE) == shift_for_tokens(3 * 2 * 3)


def test_decoded_video_is_u8_of_the_asked_size(pipeline):
    video = pipeline.autoencoder.decode(np.zeros((2, 3, 4, 6, 16), np.float32))
    assert video.shape == (2, 9, 32, 48, 3)
    assert video.dtype == np.uint8


@pytest.fixture(scope="module")
def remembering(pipeline):
    """The same weights, said to have been trained with two retrieved frames."""
    return replace(pipeline, defaults=replace(pipeline.defaults, retrieved=2))


def turning(frames: int):
    """A path that turns away and comes back."""
    return resolve_path("pan right 60 deg, then pan left 60 deg", frames)


WITH_MEMORY = replace(EXTENSION, retrieved=2)


def test_extension_shows_the_network_earlier_frames_that_the_new_cameras_see(remembering):
    video, path = make_image(frames=17), turning(25)
    longer = remembering.extend(video, clips(seeds=[3], cameras=[path]), WITH_MEMORY, RUN)
    np.testing.assert_array_equal(longer[:, :17], video)
    # By hand.
    chosen = select_frames(path[:12], path[17:], 2, given=path[12:17])
    frames = RetrievedFrames(video[:, chosen], [path[chosen]])
    window = clips(
        seeds=[3],
        shape=ClipShape(13, 32, 48),
        cameras=[path[12:]],
        condition=video[:, 12:],
        references=[path.world_from_camera[0]],
        retrieved=frames,
    )
    latents = remembering.sample(window, RUN)
    assert latents.shape == (1, 4, 4, 6, 16)
    np.testing.assert_array_equal(latents[:, :2], remembering.autoencoder.encode(video[:, 12:]))
    np.testing.assert_array_equal(longer[:, 17:], remembering.autoencoder.decode(latents)[:, 5:])
    # Frames of one's own are shown as they are, and none are chosen.
    own = RetrievedFrames(make_image(5, frames=2), [path[:2]])
    inputs = clips(seeds=[3], cameras=[path], retrieved=own)
    shown = remembering.extend(video, inputs, WITH_MEMORY, RUN)
    np.testing.assert_array_equal(shown, remembering.extend(video, inputs, EXTENSION, RUN))
    assert np.abs(shown[:, 17:].astype(int) - longer[:, 17:]).max() > 1


def test_the_last_frames_are_not_retrieved_while_there_are_others():
    video = np.arange(9, dtype=np.uint8).reshape(1, 9, 1, 1, 1)
    still = turning(9)[np.zeros(13, int)]  # no frame shows more than another

    def numbers(count, given):
        frames = retrieve(video, [still], count, given)
        assert len(frames.cameras[0]) == count
        return frames.video[0, :, 0, 0, 0].tolist()

    assert sorted(numbers(4, given=5)) == [0, 1, 2, 3]
    assert set(numbers(6, given=5)) == {0, 1, 2, 3}  # rather shown twice
    assert len(set(numbers(4, given=9))) == 4  # there are no others


def test_each_retrieved_frame_is_encoded_alone_and_seen_from_the_clips_reference(remembering):
    path = turning(9)
    frames = RetrievedFrames(make_image(5, frames=2), [path[[3, 7]]])
    reference = path.world_from_camera[4]
    given = clips(cameras=[path], references=[reference], condition=make_image(), retrieved=frames)
    condition, _ = remembering.condition(given)
    assert condition.retrieved == 2
    for index in range(2):
        alone = remembering.autoencoder.encode(frames.video[:, index : index + 1])
        np.testing.assert_allclose(condition.clean[:, index], alone[:, 0], atol=1e-5)
    bare, _ = remembering.condition(replace(given, retrieved=None))
    np.testing.assert_array_equal(condition.clean[:, 2:], bare.clean)
    np.testing.assert_array_equal(condition.plucker[:, 2:], bare.plucker)
    np.testing.assert_array_equal(condition.mask[0], [True, True, True, False, False])
    seen = path[[3, 7]].transformed(np.linalg.inv(reference))
    maps = plucker_map(jnp.float32(seen.world_from_camera), jnp.float32(seen.intrinsics), 4, 6)
    np.testing.assert_allclose(condition.plucker[0, :2], maps, atol=1e-5)


def test_a_longer_video_compiles_nothing_new(remembering, caplog):
    """Three extensions in a row: all that is compiled is compiled for the first."""
    path, video = turning(41), make_image(frames=17)
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        jax.jit(lambda x: x + 3.25)(np.float32(1))  # compilations are seen here
        counts = [sum("Compiling" in record.message for record in caplog.records)]
        assert counts.pop() == 1
        for seed in range(3):
            caplog.clear()
            end = video.shape[1] + 8
            video = remembering.extend(video, clips(seeds=[seed], cameras=[path[:end]]), WITH_MEMORY, RUN)
            counts.append(sum("Compiling" in record.message for record in caplog.records))
    assert video.shape[1] == 41
    assert counts[1:] == [0, 0]


def test_the_same_seed_has_the_same_noise_with_and_without_memory(remembering):
    frames = RetrievedFrames(make_image(5, frames=2))
    plain = remembering._noise(clips())
    np.testing.assert_array_equal(remembering._noise(clips(retrieved=frames))[:, 2:], plain)
    beside = remembering._noise(clips(retrieved=frames))[:, :2]
    blur = remembering._noise(clips(retrieved=frames), 2)
    everything = np.concatenate([np.ravel(part) for part in (plain, beside, blur)])
    assert len(np.unique(everything)) > 0.999 * len(everything)  # no noise twice


def test_retrieval_that_cannot_work_is_refused(pipeline, remembering):
    video, path = make_image(frames=9), turning(17)
    with pytest.raises(InvalidValue, match=r"SamplingDefaults\.retrieved is 0"):
        pipeline.extend(video, clips(cameras=[path]), WITH_MEMORY, RUN)
    with pytest.raises(InvalidValue, match=r"Extension\.retrieved=2 .* clips\.cameras is None"):
        remembering.extend(video, clips(), WITH_MEMORY, RUN)
    with pytest.raises(InvalidValue, match="retrieved=-1"):
        Extension(retrieved=-1)
    for frames, message in (
        (RetrievedFrames(video[:, :2, :16], [path[:2]]), r"\[1, 2, 16, 48, 3\]: expected uint8 \[1, R, 32"),
        (RetrievedFrames(video[:, :0], [path[:0]]), "R of 1 or more"),
        (RetrievedFrames(video[:, :2], [path[:1]]), r"\[1\] poses: expected \[2\]"),
        (RetrievedFrames(video[:, :2]), r"no poses: expected \[2\]"),
    ):
        with pytest.raises(InvalidValue, match=message):
            remembering.sample(clips(cameras=[path[:9]], retrieved=frames), RUN)


def test_history_guidance_weighs_what_is_given_and_text_to_video_has_nothing_to_weigh(pipeline):
    weighed = replace(RUN, guidance=replace(RUN.guidance, history=1.5))
    for condition, differs in ((None, False), (make_image(), True)):
        inputs = clips(cameras=[resolve_path("dolly in 1 m", 9)], condition=condition)
        plain, found = (np.asarray(pipeline.sample(inputs, run)) for run in (RUN, weighed))
        assert (np.abs(found - plain).max() > 1e-3) == differs
        given = 0 if condition is None else 1
        np.testing.assert_array_equal(found[:, :given], plain[:, :given])


def test_clips_are_seen_from_the_camera_that_their_kind_was_seen_from_in_training(pipeline, monkeypatch):
    seen, path = [], turning(17)

    def recorded(self, window, *_):
        seen.append(window.references)
        return np.zeros((1, window.shape.latents, 4, 6, 16), np.float32)

    monkeypatch.setattr(Pipeline, "sample", recorded)
    per_clip = replace(pipeline, defaults=replace(pipeline.defaults, reference="clip"))
    for model, latents in ((pipeline, 2), (pipeline, 1), (per_clip, 2)):
        model.extend(make_image(frames=9), clips(cameras=[path]), Extension(2, latents), RUN)
    np.testing.assert_array_equal(seen[0], path.world_from_camera[:1])
    assert seen[1:] == [None, None]  # each window's own first


def test_the_call_without_history_has_the_cameras_of_text_to_video(pipeline, monkeypatch):
    """Its maps begin at the window's first frame, however far the exploration has come."""
    told, path = [], turning(17)

    def recorded(denoiser, params, noise, condition, *_):
        told.append(condition)
        return noise

    monkeypatch.setattr("camctrl_jax.sampling.pipeline.sample", recorded)
    for history in (1.5, 1.0):
        run = replace(RUN, guidance=replace(RUN.guidance, history=history))
        pipeline.extend(make_image(frames=9), clips(cameras=[path]), EXTENSION, run)
    window = replace(path[4:], times=None)
    alone, _ = pipeline.condition(clips(cameras=[window], shape=ClipShape(13, 32, 48)))
    guided, plain = told
    np.testing.assert_array_equal(guided.without_history().plucker, alone.plucker)
    assert np.abs(guided.plucker - alone.plucker).max() > 0.1  # the others see the exploration's
    np.testing.assert_array_equal(guided.plucker, plain.plucker)
    assert plain.begun is None


def test_noise_on_what_is_given_reaches_the_network_alone(pipeline):
    inputs = clips(cameras=[resolve_path("dolly in 1 m", 9)], condition=make_image())
    plain, noised = (
        np.asarray(pipeline.sample(inputs, replace(RUN, condition_noise=level))) for level in (0.0, 0.3)
    )
    np.testing.assert_array_equal(noised[:, 0], plain[:, 0])
    assert np.abs(noised[:, 1:] - plain[:, 1:]).max() > 1e-3
