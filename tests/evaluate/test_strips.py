"""Strips of two results side by side, and ratios of what two results measure."""

from __future__ import annotations

import json

import numpy as np
import pytest

from camctrl_jax.errors import UserError
from camctrl_jax.evaluate import strips
from camctrl_jax.evaluate.__main__ import main
from camctrl_jax.evaluate.comparing import CompareSettings, compare_results
from camctrl_jax.metrics.intervals import ratio_of_means

pytest.importorskip("matplotlib", reason="strips have labels")


def result_of(folder, grey, *, kind=None, seeds=range(3), motion=2.0):
    """A folder as an evaluation leaves it, with frames of one grey."""
    scenes = [
        {"index": i, "seed": seed, "path_class": "pan", "difficulty": "easy"}
        | {"values": {"a row/i2v/motion_px": motion * (1 + i), "a row/i2v/psnr": 20.0 + grey}}
        for i, seed in enumerate(seeds)
    ]
    results = {"per_scene": scenes, "clip": {"frames": 9}, "format": 2, "request": {"samples": 2}}
    for scene in scenes:
        archive = f"clips/scene_{scene['index']:03d}.npz"
        frame = np.full((2, 32, 48, 3), grey, np.uint8)
        if kind is None:
            kept = {folder / archive: {"strip/true render": frame * 0, "strip/i2v": frame}}
        else:
            kept = {folder / "truth" / archive: {"strip": frame * 0}}
            kept[folder / "a_row" / archive] = {"strip": frame}
        for path, arrays in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **arrays)
    (folder / "results.json").write_text(json.dumps(results | ({} if kind is None else {"kind": kind})))
    return folder


@pytest.mark.parametrize("kind", [None, "captions", "explorations"])
def test_the_first_scenes_that_both_have_are_drawn_with_their_truth(kind, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(strips, "write_png", lambda path, picture: drawn.append((path, picture)))
    first = result_of(tmp_path / "before", 60, kind=kind)
    second = result_of(tmp_path / "after", 200, kind=kind, seeds=[0, 9, 2])
    path = tmp_path / "side_by_side.png"
    main(["compare", str(first), str(second), "--strips", str(path)])
    assert "2 scenes that both have" in capsys.readouterr().out
    ((where, picture),) = drawn
    assert where == path
    # Rows of a scene, at the right: truth, first, second; and the same of the other one.
    column = picture[:, -10, 0]
    runs = [int(column[0]), *(int(b) for a, b in zip(column[:-1], column[1:], strict=True) if a != b)]
    assert [value for value in runs if value != 255] == [0, 60, 200] * 2


def test_takes_of_equal_seeds_and_other_routes_are_no_scenes_in_common(tmp_path):
    folders = [result_of(tmp_path / name, 60, kind="explorations") for name in ("before", "after")]
    for folder, route in zip(folders, ("loop", "detour"), strict=True):
        results = json.loads((folder / "results.json").read_text())
        for scene in results["per_scene"]:
            scene["route"] = route
        (folder / "results.json").write_text(json.dumps(results))
    results["request"]["steps"] = 8
    (tmp_path / "fewer.json").write_text(json.dumps(results))
    _, page = compare_results(CompareSettings(folders[1], tmp_path / "fewer.json"))
    assert "steps None in the first, 8 in the second" in page
    with pytest.raises(UserError, match="no scene in common"):
        compare_results(CompareSettings(*folders))


def test_strips_that_cannot_be_drawn_are_refused(tmp_path):
    first, second = result_of(tmp_path / "before", 60), result_of(tmp_path / "after", 200)
    path = tmp_path / "strips.png"
    (second / "clips" / "scene_001.npz").write_bytes(b"cut short")
    with pytest.raises(UserError, match="damaged"):
        compare_results(CompareSettings(first, second, strips=path))
    (second / "clips" / "scene_001.npz").unlink()
    with pytest.raises(UserError, match="scene_001"):
        compare_results(CompareSettings(first, second, strips=path))
    for folder in (first, second):
        (folder / "results.json").write_text(json.dumps({"kind": "checkpoint"}))
    with pytest.raises(UserError, match="keep videos"):
        compare_results(CompareSettings(first, second, strips=path))
    assert not path.exists()


def test_motion_is_compared_as_a_share_of_the_first_models(tmp_path):
    first = result_of(tmp_path / "base", 60, motion=2.0)
    second = result_of(tmp_path / "new", 200, motion=1.8)
    found, page = compare_results(CompareSettings(first, second))
    ratio = found["differences"]["a row/i2v/motion_px"]["ratio"]
    assert ratio["mean"] == pytest.approx(0.9)
    assert ratio["low"] == pytest.approx(0.9)  # every clip moves less by a tenth
    assert "second / first 0.900" in page
    assert "ratio" not in found["differences"]["a row/i2v/psnr"]


def test_a_ratio_of_means_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        level = rng.gamma(4.0, 1.0, 30)
        one, other = level * rng.normal(1.0, 0.2, 30), 0.8 * level * rng.normal(1.0, 0.2, 30)
        found = ratio_of_means(one, other)
        hits += found.low <= 0.8 <= found.high
    assert 0.92 <= hits / 400 <= 0.98
    assert ratio_of_means(np.array([1.0, np.nan]), np.array([2.0, 3.0])).failed == 1
    assert ratio_of_means(np.array([0.0]), np.array([1.0])) is None
    assert ratio_of_means(np.array([np.nan]), np.array([1.0])) is None


def test_samples_of_the_same_noise_are_compared_with_each_other_and_with_the_truth(tmp_path, capsys):
    first, second = result_of(tmp_path / "teacher", 60), result_of(tmp_path / "student", 90, seeds=[0, 9, 2])
    for folder in (first, second):  # five columns, as evaluate worlds keeps; the first of them is given
        for path in (folder / "clips").iterdir():
            arrays = {name: np.repeat(frames[:1], 5, axis=0) for name, frames in np.load(path).items()}
            arrays["strip/i2v"][0] = 7 if folder == first else 200
            np.savez(path, **arrays)
        results = json.loads((folder / "results.json").read_text())
        results["clip"] |= {"height": 32, "width": 48}
        (folder / "results.json").write_text(json.dumps(results))
    found, page = compare_results(CompareSettings(first, second, same_noise=True))
    assert found["same_noise"]["rows"] == ("a row", "a row")
    ((task, values),) = found["same_noise"]["tasks"].items()
    assert task == "i2v"
    assert values["between"]["clips"] == 2
    for name, apart in (("between", 30), ("first", 60), ("second", 90)):
        assert values[name]["mean"] == pytest.approx(20 * np.log10(255 / apart))
    assert "| i2v | 18.59 (18.59 to 18.59)" in page
    results["per_scene"][0]["values"]["a last row/i2v/psnr"] = 20.0
    (second / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="keeps frames of its last row, 'a last row', and not of 'a row'"):
        compare_results(CompareSettings(first, second, ("a row", "a row"), same_noise=True))
    main(["compare", str(first), str(first), "--same-noise"])
    assert "from the same noise" in capsys.readouterr().out


def test_the_same_noise_is_asked_of_worlds_alone(tmp_path):
    one = result_of(tmp_path / "one", 60, kind="captions")
    with pytest.raises(UserError, match="--same-noise is for results of evaluate worlds"):
        compare_results(CompareSettings(one, one, same_noise=True))
    first, second = result_of(tmp_path / "first", 60), result_of(tmp_path / "second", 60, seeds=[7, 8, 9])
    with pytest.raises(UserError, match="no scene in common"):
        compare_results(CompareSettings(first, second, same_noise=True))
