"""``generate --script``: many clips from a text file, errors before any work, and going on after a stop."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from nano_weights import STUDENT, save_nano

from camctrl_jax.camera import load_cameras, resolve_path, save_cameras
from camctrl_jax.camera.framing import null_intrinsics
from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.errors import UserError
from camctrl_jax.generate.__main__ import main
from camctrl_jax.generate.script import CLIP, SCENE, read_script
from camctrl_jax.generate.tour import _write_pictures, prepare_tour
from camctrl_jax.sampling.exploration_folder import ExplorationFolder
from camctrl_jax.sampling.pipeline import Pipeline
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.video.pictures import write_png

pytest.importorskip("av", reason="videos are written by PyAV")
pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")

TOUR = """
    image: room.png
    prompt: a red ball
    seed: 3
    steps: 1
    camera_guidance: 3
    clips:
      - camera: dolly in 1 m
      - camera: pan right 40 deg
        prompt: "two boxes: yes"
      - camera: walk.txt
        range: 10:14
        branch: 1
        seed: 5
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "nano")


@pytest.fixture(scope="module")
def pipeline(weights):
    return load_pipeline(*open_model(weights))


@pytest.fixture
def loaded(pipeline, monkeypatch):
    """The command without the time to load weights again; the fixture ``tour`` loads its own."""
    monkeypatch.setattr("camctrl_jax.generate.tour.load_pipeline", lambda *_, **__: pipeline)


def scripts(folder):
    """A folder with a picture and a pose file, away from where the command runs."""
    picture = np.random.default_rng(0).integers(0, 256, (40, 100, 3)).astype(np.uint8)
    write_png(folder / "room.png", picture)
    save_cameras(resolve_path("dolly in 2 m", 30), folder / "walk.txt", "realestate10k")
    return folder


@pytest.fixture
def place(tmp_path):
    return scripts(tmp_path / "scripts")


@pytest.fixture(scope="module")
def tour(weights, tmp_path_factory):
    """What the whole tour wrote, and its script."""
    root = tmp_path_factory.mktemp("tour")
    script = written(scripts(root / "scripts"), TOUR)
    assert run(weights, script, root / "out") == 0
    return root / "out", script


def written(folder, text):
    (folder / "tour.yaml").write_text(textwrap.dedent(text))
    return folder / "tour.yaml"


def run(weights, script, out, *more):
    arguments = ["--script", script, "--out", out, "--checkpoint", weights, *more]
    return main([str(argument) for argument in arguments])


def frames_of(folder):
    _, clips, _ = ExplorationFolder(folder).read()
    return [
        np.stack([f.rgb() for f in read_frames(folder / "clips" / name / "frames.mp4")]) for name in clips
    ]


def test_a_tour_makes_an_exploration_and_one_video(tour):
    out, script = tour
    settings, clips, current = ExplorationFolder(out / "exploration").read()
    _, second, third = clips.values()
    assert (settings.seed, settings.sampling.steps, settings.sampling.guidance.camera) == (3, 1, 3.0)
    assert [clip.parent for clip in clips.values()] == [None, "0001", "0001"]
    assert (second.prompt, third.prompt, third.seed, current) == ("two boxes: yes", "a red ball", 5, "0003")
    assert second.said == "pan right 40 deg"
    made = frames_of(out / "exploration")
    assert sum(1 for _ in read_frames(out / "tour.mp4")) == 17 == sum(map(len, made))
    assert (out / "frames.png").stat().st_size > 0
    assert (out / "tour.yaml").read_text() == script.read_text()
    # Frames 10 to 13 of the file, spread over the clip, from where the first clip ended, with its lens.
    cameras = load_cameras(out / "exploration/clips/0003/cameras.json")
    walked = resolve_path("dolly in 2 m", 30).positions[:, 2]
    np.testing.assert_allclose(cameras.positions[-1], [0, 0, 1 + walked[13] - walked[10]], atol=1e-6)
    np.testing.assert_allclose(cameras.intrinsics, np.tile(null_intrinsics(32, 48), (4, 1)), atol=1e-6)


def test_a_tour_that_was_stopped_goes_on_to_the_same_pixels(
    weights, loaded, tour, place, tmp_path, monkeypatch, capsys
):
    script, out, whole = written(place, TOUR), tmp_path / "out", tour[0]
    sampled = Pipeline.continue_from
    left = [1]

    def stopped(self, *args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return sampled(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "continue_from", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(weights, script, out)
    assert len(ExplorationFolder(out / "exploration").read()[1]) == 2
    assert run(weights, script, out) == 0
    for one, other in zip(frames_of(out / "exploration"), frames_of(whole / "exploration"), strict=True):
        np.testing.assert_array_equal(one, other)
    # Complete, it samples nothing; of another script, it is left alone.
    monkeypatch.setattr(Pipeline, "sample", lambda *_: pytest.fail("it was sampled"))
    assert run(weights, script, out) == 0
    assert "all 3 clips are there" in capsys.readouterr().err
    for old, new, message in (
        ("pan right 40", "pan right 41", "clip 0002 has another path"),
        ("two boxes: yes", "three boxes", "clip 0002 has another prompt"),
        ("seed: 5", "seed: 6", "clip 0003 has another seed"),
        ("        seed: 5\n", "", "clip 0003 has another seed"),
        ("branch: 1", "branch: 2", "clip 0003 has another place"),
        ("seed: 3", "seed: 4", "its seed is another one"),
        ("steps: 1", "steps: 2", "its sampling is another one"),
        ("    image: room.png\n", "", "from another picture"),
    ):
        assert run(weights, written(place, TOUR.replace(old, new)), out) == 1
        assert message in capsys.readouterr().err


def test_the_video_of_a_tour_needs_the_memory_of_a_clip(tmp_path):
    """A view of a clip's last frame, kept for the strip, would keep all of the clip."""
    made, alive = [], []

    class Frames:
        settings = SimpleNamespace(fps=12.0)

        def frames(self, clip):
            alive.append(sum(one() is not None for one in made))
            frames = np.full((4, 32, 48, 3), clip, np.uint8)
            made.append(weakref.ref(frames))
            return frames

    _write_pictures(Frames(), range(20), tmp_path / "tour.mp4", tmp_path / "frames.png")
    assert max(alive) <= 2
    assert sum(1 for _ in read_frames(tmp_path / "tour.mp4")) == 80


def test_a_tour_through_a_world_takes_its_picture_and_words(weights, loaded, place, tmp_path, monkeypatch):
    picture = np.full((1, 1, 32, 48, 3), 90, np.uint8)
    monkeypatch.setattr("camctrl_jax.generate.tour.render_rgb", lambda worlds, *_: picture)
    script = written(place, "worlds_seed: 1000001\nsteps: 1\nclips: [{}, {camera: static}]\n")
    assert run(weights, script, tmp_path / "out") == 0
    clips = ExplorationFolder(tmp_path / "out/exploration").read()[1]
    assert clips["0001"].prompt == clips["0002"].prompt != ""
    given = next(read_frames(tmp_path / "out/exploration/clips/0001/picture.png")).rgb()
    np.testing.assert_array_equal(given, picture[0, 0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "prompt: a red",
            "promt: a red",
            r"tour\.yaml, line 3: the script has no key 'promt' \(did you mean pr",
        ),
        ("range: 10:14", "camra: x", r"line 12: clip 3 has no key 'camra' \(did you mean camera\?\)"),
        ("pan right 40 deg", "fly to the moon", r"line 9: .*needs a direction"),
        ("pan right 40 deg", "pan right 40 deg over 2 s", r"line 9: the timed stages take 2 s, but 5 frames"),
        ("walk.txt", "wlk.txt", r"line 11: .*wlk\.txt: no such file"),
        ("range: 10:14", "range: 10:99", r"line 11: --range 10:99: reaches beyond"),
        ("range: 10:14", "range: ten", r"line 12: clip 3: range: 'ten' is not A:B"),
        ("branch: 1", "branch: 3", r"line 13: clip 3: branch: 3 is no clip made before it; expected 1 to 2"),
        ("branch: 1", "branch: one", r"line 13: clip 3: branch: 'one'; expected an integer"),
        ("branch: 1", "branch: [1]", r"line 13: clip 3: branch: expected an integer"),
        ("seed: 5", "seed: -5", r"line 14: clip 3: seed: -5"),
        ("steps: 1", "steps: 0", r"tour\.yaml: steps is 0"),
        ("steps: 1", "steps: .nan", r"line 5: steps: '\.nan'; expected an integer"),
        ("camera_guidance: 3", "camera_guidance: nan", r"line 6: camera_guidance: 'nan'"),
        ("steps: 1", "steps: 1\n    steps: 2", r"line 6: steps is said twice"),
        (
            "prompt: a red ball",
            "prompt: !!python/object/apply:os.getcwd []",
            r"line 3: prompt: expected a text",
        ),
        (
            "prompt: a red ball",
            "prompt: !!python/name:os.getcwd x",
            r"line 3: prompt: the tag .* is not read",
        ),
        ("prompt: a red ball", "prompt: a: b", r"line 3: is not YAML: .*needs quotes"),
        ("camera: dolly in 1 m", "pace: fit", r"line 8: clip 1: expected a path"),
        ("camera: dolly in 1 m", "camera: none", r"line 8: clip 1: expected a path"),
        ("camera: pan right 40 deg", "camera_scale: 0", r"clip 2: camera_scale: 0; expected a positive"),
        ("camera: pan right 40 deg", "pace: fast", r"clip 2: pace: 'fast'; expected fit or own"),
        ("image: room.png", "image: rom.png", r"tour\.yaml: .*rom\.png"),
        ("image: room.png", "image: room.png\n    worlds_seed: 1000001", "choose one"),
        ("dolly in 1 m", "dolly in 1 m\n        prompt: x", r"clip 1 has the prompt of the tour"),
        ("dolly in 1 m", "dolly in 1 m\n        seed: 2", r"clip 1 has the seed of the tour"),
        ("pan right 40 deg", "dolly in 900 m", r"line 9: .*moves by"),
        ("dolly in 1 m", "dolly in 900 m", r"line 8: .*moves by"),
    ],
)
def test_errors_name_the_line_and_what_is_expected(weights, place, tmp_path, old, new, message):
    assert old in TOUR
    script = written(place, TOUR.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        prepare_tour(read_script(script), tmp_path / "out", checkpoint=str(weights))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("clips: []", "expected a list of one or more"),
        ("steps: 3", "expected a list of one or more"),
        ("- camera: static", 'expected lines of "key: value"'),
        ("clips: [static]", 'clip 1: expected lines of "key: value"'),
        ("clips: [" + "{camera: static}," * 1001 + "]", "1001 of them"),
        ("a: &a [x]\nclips: *a", "no key 'a'"),
        ("{" * 800, "is not YAML"),
    ],
)
def test_what_is_no_tour_is_told_of(place, text, message):
    with pytest.raises(UserError, match=message):
        read_script(written(place, text))


def test_a_plan_keeps_the_lens_along_a_branch_and_weighs_history_from_the_second_clip_on(
    weights, place, tmp_path
):
    script = """
        prompt: a red ball
        history_guidance: 1.5
        clips: [{camera: static}, {camera: zoom in 2x}, {camera: static}, {camera: static, branch: 1}]
    """
    plan = prepare_tour(read_script(written(place, script)), tmp_path / "out", checkpoint=str(weights))
    wide = plan.first.cameras.intrinsics[0, 0]
    lenses = [path.intrinsics[[0, -1], 0] / wide for path in plan.paths]
    np.testing.assert_allclose(lenses, [[1, 2], [2, 2], [1, 1]], rtol=1e-9)
    assert plan.sampling.guidance.history == 1.5
    assert not any("history" in note for note in plan.notes)


def test_a_folder_that_holds_something_else_is_told_of_before_any_work(weights, place, tmp_path):
    (tmp_path / "out/exploration").mkdir(parents=True)
    (tmp_path / "out/exploration/diary.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds diary\.txt"):
        prepare_tour(read_script(written(place, TOUR)), tmp_path / "out", checkpoint=str(weights))


def test_bytes_that_are_no_text_and_a_missing_file_are_told_of(place, capsys):
    (place / "tour.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_script(place / "tour.yaml")
    assert main(["--script", "missing.yaml", "--out", str(place / "out")]) == 1
    assert "--script missing.yaml: no such file" in capsys.readouterr().err


def test_options_that_a_script_says_itself_are_refused(place, capsys):
    script = str(written(place, TOUR))
    for option, value in (("--steps", "4"), ("--camera", "static"), ("--from", "tum")):
        assert main(["--script", script, "--out", str(place / "out"), option, value]) == 1
        assert f"{option} beside --script" in capsys.readouterr().err


def test_a_later_version_of_an_exploration_is_told_of(weights, loaded, tour, tmp_path, capsys):
    out = Path(shutil.copytree(tour[0], tmp_path / "out"))
    path = out / "exploration/exploration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    assert run(weights, tour[1], out) == 1
    assert "version 2" in capsys.readouterr().err


def test_the_tour_of_the_guide_is_one(weights, place, tmp_path):
    guide = (Path(__file__).parents[1] / "docs/generating.md").read_text("utf-8")
    text = re.search(r"^```yaml\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)[1]
    plan = prepare_tour(read_script(written(place, text)), tmp_path / "out", checkpoint=str(weights))
    assert plan.parents == (0, 1, 1)
    for names in (SCENE, CLIP):
        assert all(f"`{name}`" in guide for name in names)


def test_a_tour_of_a_student_takes_its_steps_and_refuses_others_by_the_script(place, tmp_path):
    student = save_nano(tmp_path / "student", distilled=STUDENT)
    plain = re.sub(r" *(steps|camera_guidance): .*\n", "", TOUR)
    script = written(place, plain)
    plan = prepare_tour(read_script(script), tmp_path / "out", checkpoint=str(student))
    assert (plan.sampling.steps, plan.sampling.guidance.evaluations()) == (4, 1)
    for line, message in (
        ("steps: 32", "steps is 32: these weights are a student made for 4 steps"),
        ("camera_guidance: 2", "guidance to the camera is 2"),
        ("history_guidance: 1.5", "guidance to past frames is 1.5"),
    ):
        script = written(place, plain.replace("    seed: 3\n", f"    seed: 3\n    {line}\n"))
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            prepare_tour(read_script(script), tmp_path / "out", checkpoint=str(student))
        assert str(script) in str(caught.value)
        assert "folded in: camera guidance 2" in str(caught.value)
