"""``evaluate captions``: named colours, the detector on true renders and on faults, tables, a whole run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from nano_weights import save_nano

from camctrl_jax.errors import UserError
from camctrl_jax.evaluate.__main__ import main
from camctrl_jax.evaluate.captions import Settings, captions_page, evaluate_captions
from camctrl_jax.evaluate.captions.detector import Detector, calibrated, looked_at, named_colors
from camctrl_jax.evaluate.captions.summary import caption_values, summarised, with_own
from camctrl_jax.evaluate.comparing import CompareSettings, compare_results
from camctrl_jax.worlds import WorldsConfig, render_rgb, sample_world
from camctrl_jax.worlds.surfaces import COLOR_NAMES

pytest.importorskip("matplotlib", reason="strips have labels")


def test_named_colors_are_those_of_objects_alone():
    caption = "a red and white striped ball, a wooden orange crate and a red cube in front of a brick wall"
    assert named_colors(caption) == ("red", "orange", "red")
    assert named_colors("a scene on grass in front of a checkered wall at dusk") == ()
    world = sample_world(1_000_000, WorldsConfig(frames=2))
    for caption in world.captions:
        named = named_colors(caption)
        assert named
        assert set(named) <= {item.color for item in world.objects if item.visible}
    assert len(named_colors(world.captions[-1])) == min(4, sum(item.visible for item in world.objects))


@pytest.fixture(scope="module")
def worlds():
    return [sample_world(700_000 + number, WorldsConfig(frames=2)) for number in range(40)]


@pytest.fixture(scope="module")
def detector(worlds) -> Detector:
    return calibrated(worlds, 48, 80, 1)


def test_the_detector_tells_renders_with_a_color_from_renders_without(detector):
    others = [sample_world(1_000_000 + number, WorldsConfig(frames=2)) for number in range(40)]
    videos = np.asarray(render_rgb(others, 48, 80, 1))
    shown = np.stack([detector.shown(detector.scores(video)) for video in videos])
    has = np.array(
        [[any(o.color == color and o.visible for o in w.objects) for color in COLOR_NAMES] for w in others]
    )
    assert shown[has].mean() > shown[~has].mean() + 0.2
    # Nothing is shown in a grey clip, and all colours surprise in their own colour's.
    grey = detector.scores(np.full_like(videos[0], 128))
    assert not detector.shown(grey)[[COLOR_NAMES.index(name) for name in ("red", "green", "yellow")]].any()
    painted = np.full_like(videos[0], (190, 40, 35))
    scores = detector.scores(painted)
    assert detector.shown(scores)[COLOR_NAMES.index("red")]
    assert np.argmax(scores) == COLOR_NAMES.index("red")
    assert detector.surprise(scores)[COLOR_NAMES.index("red")] > 0.9


def test_a_thing_counts_for_more_than_as_many_scattered_pixels(detector):
    thing = np.full((2, 48, 80, 3), 128, np.uint8)
    scattered = thing.copy()
    thing[:, 20:28, 30:38] = (190, 40, 35)
    scattered.reshape(2, -1, 3)[:, ::60] = (190, 40, 35)
    red = COLOR_NAMES.index("red")
    assert detector.scores(thing)[red] > 2 * detector.scores(scattered)[red]


def fake(shown):
    """A detector whose scores are what they are compared with."""
    absent = tuple(np.array([0.1, 0.2, 0.3]) for _ in COLOR_NAMES)
    return Detector(np.zeros((12, 1), np.float32), np.full(12, shown), absent)


def scores_of(**colors):
    return [colors.get(color, 0.0) for color in COLOR_NAMES]


def test_values_of_a_caption_and_tables_of_several():
    record = {"right": ["red", "blue"], "wrong": ["green"], "scores": [scores_of(red=0.9, green=0.4)]}
    record |= {"own": ["red", "blue"], "index": 0, "seed": 1, "caption": "a red ball"}
    values = caption_values(record, fake(0.5))
    assert values == {"right": 0.5, "wrong": 0.0, "gap": 0.5, "choice": 0.0}  # green is as much a surprise
    both = record | {"scores": [scores_of(red=0.9, blue=0.9), None]}
    assert caption_values(both, fake(0.5)) == {"right": 1.0, "wrong": 0.0, "gap": 1.0, "choice": 1.0}
    assert caption_values(record | {"scores": [None]}, fake(0.5))["right"] is None
    assert caption_values(record | {"wrong": []}, fake(0.5))["choice"] is None
    rows = {"true render": [both] * 3, "reconstruction": [both] * 3, "a row": [record] * 3}
    found = summarised(rows, fake(0.5), ["a row"])
    assert found["hits"]["true render"]["right"]["mean"] == 1.0
    assert found["hits"]["true render"]["right"]["low"] < 0.7  # of six objects, Wilson
    assert found["hits"]["a row"]["right"]["mean"] == 0.5
    assert found["measures"]["a row"]["choice"]["mean"] == 0.0
    assert found["by_color"]["a row"]["red"]["right"]["mean"] == 1.0
    assert found["by_color"]["a row"]["pink"] == {"right": None, "wrong": None}
    assert found["failed"] == {"true render": 3, "reconstruction": 3, "a row": 0}
    assert found["per_scene"][0]["values"]["a row/gap"] == 0.5


def test_what_both_captions_name_decides_nothing_and_chance_is_a_half():
    pairs = [
        "a red ball and a blue cube",
        "a red cube and a green ball",
        "a pink ball, a red ball and a teal cube",
    ]
    names = [named_colors(caption) for caption in pairs]
    records = [
        {"right": names[i], "wrong": [c for c in names[j] if c not in names[i]], "caption": pairs[i],
         "scores": [scores_of(red=0.9)]}
        for i, j in ((0, 1), (1, 2))
    ]  # fmt: skip
    found = with_own({"a row": records}, pairs)["a row"]
    assert [record["own"] for record in found] == [["blue"], ["green"]]
    values = [caption_values(record, fake(0.5)) for record in found]
    # Red alone is shown, which both name.
    assert [one["right"] for one in values] == [0.5, 0.5]
    assert [one["gap"] for one in values] == [0.0, 0.0]
    assert [one["choice"] for one in values] == [0.5, 0.5]
    # A clip that knows no caption: what it gains of one pair it loses of the pair turned round.
    rng = np.random.default_rng(0)
    for _ in range(50):
        one, other = (tuple(rng.choice(COLOR_NAMES, rng.integers(1, 5))) for _ in range(2))
        scores = dict(zip(COLOR_NAMES, rng.random(len(COLOR_NAMES))))
        turned = []
        for right, wrong in ((one, other), (other, one)):
            record = {
                "right": right,
                "wrong": [c for c in wrong if c not in right],
                "scores": [scores_of(**scores)],
            }
            (record,) = with_own(
                {"": [record]}, [" and ".join(f"a {c} ball" for c in names) for names in (right, wrong)]
            )[""]
            turned.append(caption_values(record, fake(0.5)))
        if turned[0]["gap"] is None:
            assert turned[1]["gap"] is None
            continue
        assert turned[0]["gap"] == pytest.approx(-turned[1]["gap"])
        assert turned[0]["choice"] == 1.0 - turned[1]["choice"]


def test_captions_judged_by_another_detector_do_not_compare(tmp_path):
    scene = {"index": 0, "seed": 1, "caption": "a red ball", "values": {"a row/gap": 0.5}}
    result = {
        "kind": "captions",
        "format": [2, 1, 2],
        "clip": {},
        "per_scene": [scene],
        "request": {"samples": 2},
    }
    for name, worlds in (("first", 192), ("second", 64)):
        result["request"]["calibration"] = worlds
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert compare_results(CompareSettings(first, first))[0]["differences"]
    with pytest.raises(UserError, match=r"calibration worlds: 192 in .* 64 in"):
        compare_results(CompareSettings(first, second))


def test_frames_that_are_looked_at_are_spread():
    np.testing.assert_array_equal(looked_at(49), [0, 16, 32, 48])
    np.testing.assert_array_equal(looked_at(2), [0, 1])


def test_what_cannot_work_is_refused(tmp_path, capsys):
    for values, words in (
        ({"worlds": "moon"}, "front, places"),
        ({"cameras": ("some",)}, "given, none"),
        ({"text_guidance": ()}, "one or more"),
        ({"first_seed": 3}, "training seeds"),
        ({"calibration": 1}, "at least 8"),
    ):
        with pytest.raises(UserError, match=words):
            Settings(tmp_path, **values)
    base = save_nano(tmp_path / "base", camera=False)
    assert main(["captions", "--checkpoint", str(base), "--out", str(tmp_path / "out")]) == 1
    assert "--cameras none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_whole_run_goes_on_where_it_stopped_and_compares(tmp_path):
    folder = save_nano(tmp_path / "nano")
    settings = Settings(
        tmp_path / "out",
        checkpoint=str(folder),
        count=3,
        steps=1,
        text_guidance=(1.0, 3.0),
        cameras=("given", "none"),
        calibration=8,
        samples=1,
        batch_size=2,
        shown=1,
        motion=2 if importlib.util.find_spec("cv2") else 0,
    )
    lines = []
    found = evaluate_captions(settings, say=lines.append)
    assert list(found["hits"])[2:] == [
        f"text {text}, camera {camera}" for camera in ("given", "none") for text in (1, 3)
    ]
    assert "true render" in captions_page(found)
    assert {(tmp_path / "out" / name).exists() for name in found["files"]} == {True}
    (tmp_path / "out" / "text_1_camera_none" / "clips" / "scene_001.json").unlink()
    again = evaluate_captions(dataclasses.replace(settings, batch_size=1), say=lines.append)
    assert "1 to be sampled" in lines[-2]
    for name in ("right", "wrong", "choice"):  # motion differs by what batches round
        assert [row[name] for row in again["measures"].values()] == [
            row[name] for row in found["measures"].values()
        ]
    compared, _ = compare_results(
        CompareSettings(settings.out, settings.out, rows=("text 1, camera none", "text 3, camera none"))
    )
    assert "text 1, camera none -> text 3, camera none/right" in compared["differences"]
    if settings.motion:
        assert found["measures"]["true render"]["moving_share"]["clips"] == 2
        assert "Motion strength" in captions_page(found)
