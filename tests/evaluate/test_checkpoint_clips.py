"""The true clips of ``evaluate checkpoint``: what is left out is told, and what fails leaves nothing."""

import os
from dataclasses import replace

import numpy as np
import pytest
from pattern_videos import pattern_video

from camctrl_jax.camera import preset, save_cameras
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.text import PrecomputedText, WordEmbedder
from camctrl_jax.errors import ClipError, FileFailure, InvalidValue
from camctrl_jax.evaluate.checkpoint import CheckpointSettings, clips, running
from camctrl_jax.evaluate.checkpoint.measuring import task_record
from camctrl_jax.evaluate.checkpoint.sampling import Plan, decoy_paths
from camctrl_jax.evaluate.checkpoint.settings import row_folder
from camctrl_jax.interop.described import SamplingDefaults
from camctrl_jax.metrics.distribution import energy_score
from camctrl_jax.metrics.psnr import frame_psnr, psnr
from camctrl_jax.metrics.sharpness import gradient_energy
from camctrl_jax.metrics.ssim import ssim
from camctrl_jax.video.encoding import write_mp4

pytest.importorskip("av", reason="videos are read and written by PyAV")

SHAPE = ClipShape(5, 32, 48)
WORDS = WordEmbedder(dim=8, max_tokens=4)


def add(settings, name, frames=5, path="dolly_in"):
    write_mp4(settings.videos / f"{name}.mp4", pattern_video(frames, 32, 48, len(name)), 12.0)
    save_cameras(preset(path, frames), settings.cameras / f"{name}.txt")


@pytest.fixture
def settings(tmp_path):
    for name in ("videos", "cameras"):
        (tmp_path / name).mkdir()
    found = CheckpointSettings(
        tmp_path / "out", videos=tmp_path / "videos", cameras=tmp_path / "cameras", fps=12.0
    )
    add(found, "a")
    return found


def prepared(settings, embedder=WORDS):
    return clips.prepare_clips(settings, SHAPE, embedder, lambda line: None)


def names_in(settings):
    return sorted(path.stem for path in (settings.out / "reference").iterdir())


def test_two_clips_never_share_a_name(settings):
    settings = replace(settings, per_video=2)
    add(settings, "a", frames=10)
    assert [clip.name for clip in prepared(settings).clips] == ["a", "a_1"]
    add(settings, "a_1")
    with pytest.raises(InvalidValue, match="two clips would share the name a_1: rename"):
        prepared(settings)


def test_a_video_that_breaks_after_its_first_clip_leaves_nothing_behind(settings, monkeypatch):
    add(settings, "bad", frames=10)
    whole = clips.cut_source

    def cut(source, *rest, **options):
        for number, record in enumerate(whole(source, *rest, **options)):
            if source.stem == "bad" and number:
                raise ClipError("truncated", "damaged behind its first clip")
            yield record

    monkeypatch.setattr(clips, "cut_source", cut)
    found = prepared(replace(settings, per_video=2))
    assert [clip.name for clip in found.clips] == names_in(settings) == ["a"]
    assert found.failed == {"bad": ("truncated", "damaged behind its first clip")}


def test_a_caption_without_an_embedding_costs_its_clip_alone(settings, tmp_path):
    add(settings, "b")
    (tmp_path / "captions.json").write_text('{"a": "told", "b": "unknown"}')
    text = PrecomputedText({"": np.ones((1, 8)), "told": np.ones((2, 8))}, 4)
    found = prepared(replace(settings, captions=tmp_path / "captions.json"), text)
    assert [clip.name for clip in found.clips] == names_in(settings) == ["a"]
    assert found.failed["b"][0] == "no_text_embedding"


def test_a_clip_that_was_there_and_cannot_be_used_any_more_is_named(settings):
    add(settings, "b")
    prepared(settings)
    (settings.out / "reference/.DS_Store").write_bytes(b"")  # such are no clips
    prepared(settings)
    (settings.cameras / "b.txt").unlink()
    with pytest.raises(InvalidValue, match=r"such as b\).* b was there and cannot be used now: "):
        prepared(settings)


def test_a_place_that_cannot_be_written_is_no_fault_of_a_clip(settings, monkeypatch):
    def full(*arguments):
        raise FileFailure("cannot write: the disk is full")

    monkeypatch.setattr(clips, "save_cameras", full)
    with pytest.raises(FileFailure):
        prepared(settings)


def test_what_is_left_out_is_told_on_the_first_run_and_on_the_next(settings):
    (settings.videos / "raw.heic").write_bytes(b"x")
    for folder in ("one", "two"):
        (settings.videos / folder).mkdir()
        os.symlink("nowhere", settings.videos / folder / "gone.mp4")
    (settings.videos / "copy.mp4").write_bytes((settings.videos / "a.mp4").read_bytes())
    save_cameras(preset("dolly_in", 5), settings.cameras / "copy.txt")
    save_cameras(preset("dolly_in", 5), settings.cameras / "stray.txt")
    for _ in range(2):
        found = prepared(settings)
        assert [clip.name for clip in found.clips] == ["a", "copy"]
        assert len(found.failed) == 2  # of one name in two folders
        said = "\n".join(found.remarks)
        assert "raw.heic: not taken, .heic is not supported" in said
        assert "copy.mp4: has the same bytes as" in said
        assert f"{settings.cameras / 'stray.txt'}: belongs to no video" in said
        assert f"{settings.cameras / 'a.txt'}" not in said


@pytest.mark.parametrize("kind", ["colmap", "lingbot"])
def test_a_folder_that_is_one_pose_file_serves_the_only_video_on_every_run(settings, tmp_path, kind):
    save_cameras(preset("dolly_in", 5), tmp_path / "model", kind, image_size=(32, 48))
    for _ in range(2):
        found = prepared(replace(settings, cameras=tmp_path / "model"))
        assert [clip.name for clip in found.clips] == ["a"]
        assert not any("belongs to no video" in remark for remark in found.remarks)


def test_decoys_part_from_the_path_of_their_clip():
    lens = (0.7, 1.2, 0.5, 0.5)
    in_, slower, pan = preset("dolly_in", 9), preset("dolly_in", 9).scaled(1.05), preset("pan_left", 9)
    decoys = decoy_paths([in_.with_intrinsics(lens), slower, pan])
    for decoy in decoys[:2]:  # the next one is alike, and passed over
        np.testing.assert_allclose(decoy.world_from_camera, pan.world_from_camera, atol=1e-9)
    np.testing.assert_array_equal(decoys[0].intrinsics[0], lens)
    np.testing.assert_allclose(decoys[2].world_from_camera, in_.world_from_camera, atol=1e-9)
    assert decoy_paths([in_, slower]) == [None, None]


def test_decoys_are_refused_where_all_paths_are_alike(settings):
    add(settings, "b")
    found = prepared(settings).clips
    with pytest.raises(InvalidValue, match="all others are like that of a"):
        running.decoys_of(found, settings.out)
    add(settings, "c", path="pan_left")
    assert len(running.decoys_of(prepared(settings).clips, settings.out)) == 3


def test_a_row_that_is_asked_for_twice_is_one(settings):
    asked = replace(settings, steps=(4, 8, 4), camera_guidance=(2.0, 2.0))
    resolved = asked.resolved(SamplingDefaults(5, 32, 48), on_accelerator=False)
    assert [row_folder(each) for each in resolved.samplings()] == [
        "steps4_camera2_text1",
        "steps8_camera2_text1",
    ]


def test_rows_and_explorations_hold_on_to_what_was_seen_as_asked(settings):
    trained = SamplingDefaults(17, 32, 48, retrieved=3)
    asked = replace(settings, history_guidance=1.5).resolved(trained, on_accelerator=False)
    assert [row_folder(each) for each in asked.samplings()] == ["steps8_camera2_text1_history1.5"]
    assert asked.retrieved == 3  # as the weights say
    assert replace(settings, retrieved=0).resolved(trained, on_accelerator=False).retrieved == 0
    assert Plan(ClipShape(17, 32, 48), 2, 3).extension.retrieved == 3
    with pytest.raises(InvalidValue, match="--retrieved -1"):
        replace(settings, retrieved=-1)


def test_text_that_was_embedded_anew_is_another_text():
    one, other = (PrecomputedText({"": np.ones((1, 8)), "a": np.full((1, 8), x)}, 4) for x in (1.0, 2.0))
    assert running.text_digest(one, "a") != running.text_digest(other, "a")
    assert running.text_digest(one, "") == running.text_digest(other, "")


@pytest.mark.parametrize("task", ["i2v", "extension"])
def test_measures_frame_by_frame_are_those_of_whole_clips(task):
    plan = Plan(ClipShape(17, 32, 48), clips=2)
    videos = np.random.default_rng(0).integers(0, 256, (4, plan.frames, 32, 48, 3), dtype=np.uint8)
    truth, decoy, samples = videos[0], videos[1], videos[2:]
    found = task_record(list(samples), decoy, truth, plan, task)
    scored = {"i2v": slice(5, None), "extension": slice(5, None)}[task]
    one, true = samples[:, scored], truth[scored]
    assert found["psnr_db"] == pytest.approx(np.mean([psnr(each, true) for each in one]))
    assert found["ssim"] == pytest.approx(np.mean([ssim(each[::4], true[::4]).mean() for each in one]))
    ratios = gradient_energy(one) / gradient_energy(true)
    assert found["gradient_energy"] == pytest.approx(ratios.mean())
    assert found["energy"] == pytest.approx(energy_score(one[:, ::2], true[::2]).mean())
    assert found["gain_decoy"] == pytest.approx(float(psnr(one[0], true) - psnr(decoy[scored], true)))
    expected = np.mean([frame_psnr(each, truth) for each in samples], axis=0)
    assert found["frame_psnr"] == pytest.approx(expected.tolist())
    # What is given is no frame that the baseline had to make.
    given = plan.given(task)
    assert found["repeated_frame_psnr"][:given] == [100.0] * given
    last = np.broadcast_to(truth[given - 1 : given], truth.shape)
    assert found["repeated_frame_psnr"][given:] == pytest.approx(frame_psnr(last, truth)[given:].tolist())
    assert found["repeated_psnr_db"] == pytest.approx(float(psnr(last[scored], true)))
    windows = [slice(5, 17), slice(17, None)]
    shares = [gradient_energy(samples[:, each]) / gradient_energy(truth[each]) for each in windows]
    assert found["clip_gradient_energy"] == pytest.approx(np.mean(shares, axis=1).tolist())
    assert found["clip_psnr_db"] == pytest.approx(
        [np.mean([psnr(each[window], truth[window]) for each in samples]) for window in windows]
    )
