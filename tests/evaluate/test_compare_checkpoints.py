"""``evaluate compare`` of results of ``evaluate checkpoint``: pairs over means of seeds, and refusals."""

import copy

import numpy as np
import pytest
from scipy import stats

from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.__main__ import main
from camctrl_jax.evaluate.checkpoint.comparing import checkpoints_comparison_markdown, compare_checkpoints
from camctrl_jax.evaluate.checkpoint.report import page, summarised
from camctrl_jax.files.json_file import write_json
from camctrl_jax.metrics.intervals import shares_apart

ROW, OTHER, NAMES = "steps4_camera2_text1", "steps8_camera2_text1", ("one", "two")
PROTOCOL = {"pose_frames": 16, "longest_side": 640, "estimators": {}, "with_reference": True}


def seen(**values):
    """A clip as evaluate videos measured it."""
    return {
        "frames": 9,
        "fps": 12.0,
        "size": [32, 48],
        "lens": "asked",
        "asked": {"path_length": 2.0, "rotation_deg": 10.0},
        "registered": "rot_err_aligned_deg" in values,
        "doubts": [],
    } | values


def videos(clips):
    return {"settings": PROTOCOL, "clips": clips}


def result(psnr, rotations, row=ROW):
    """``psnr`` by clip, ``rotations`` by seed and clip; None did not register."""
    clips = list(psnr)
    errors = [
        {clip: seen(**({} if each is None else {"rot_err_aligned_deg": each})) for clip, each in seed.items()}
        for seed in rotations
    ]
    truth = {clip: seen(rot_err_aligned_deg=float(place)) for place, clip in enumerate(clips)}
    records = {
        clip: {"failed": "decodes to NaN"} if level is None else {"psnr_db": level, "energy": None}
        for clip, level in psnr.items()
    }
    return {
        "kind": "checkpoint",
        "request": {"seeds": len(rotations)},
        "weights": {"checkpoint": "weights", "fingerprints": ["vae", "mmdit"]},
        "versions": {"device": "cpu"},
        "clip": {"frames": 9, "height": 32, "width": 48, "fps": 12.0},
        "exploration": {"clips": 1, "frames": 9, "added": 4},
        "clips": {clip: {"source": clip, "caption": "", "digest": clip} for clip in clips},
        "samples": {row: {"i2v": records}},
        "reconstruction": {},
        "failed": {},
        "failed_by_reason": {},
        "remarks": [],
        "estimates": {
            "truth": videos(truth),
            **{f"{row}/i2v/seed_{number}": videos(seed) for number, seed in enumerate(errors)},
        },
    }


FIRST = result(
    {"a": 20.0, "b": 22.0, "c": 24.0, "d": None},
    [{"a": 1.0, "b": 2.0, "c": None}, {"a": 3.0, "b": None, "c": None}],
)
SECOND = result({"a": 21.0, "b": 24.0, "c": 24.5, "d": 30.0, "e": 1.0}, [{"a": 1.5, "b": 1.0, "c": 4.0}])


def test_clips_are_paired_over_the_means_of_their_seeds():
    found = compare_checkpoints(FIRST, SECOND, NAMES)
    assert (found["clips"], found["left_out"]) == (4, [0, 1])
    unit = found["units"][f"{ROW}/i2v"]
    levels = unit["differences"]["psnr_db"]
    gains = np.array([1.0, 2.0, 0.5])
    low, high = stats.t.interval(0.95, 2, gains.mean(), stats.sem(gains))
    assert (levels["mean"], levels["low"], levels["high"]) == pytest.approx((gains.mean(), low, high))
    assert (levels["clips"], levels["only_second"]) == (3, 1)
    assert unit["sampled"]["only_second"] == 1
    angles = unit["differences"][
        "rot_err_aligned_deg"
    ]  # a: 2 and 1.5; b: 2, of the seed that registers, and 1
    assert (angles["mean"], angles["clips"], angles["only_second"]) == (pytest.approx(-0.75), 2, 1)
    shares = unit["differences"]["registered"]
    assert shares["first"] == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    text = checkpoints_comparison_markdown(found)
    assert "| PSNR | 22 | 23.17 | +1.17" in text
    assert "Sampled in both: 3; 0 in the first alone, 1 in the second alone" in text
    assert "Seeds of each clip: 2 and 1" in text


def test_rows_are_paired_where_they_are_equal_alone_or_named():
    other = result({"a": 21.0}, [{"a": 1.0}], row=OTHER)
    assert list(compare_checkpoints(FIRST, other, NAMES)["units"]) == [f"{ROW}/i2v -> {OTHER}/i2v"]
    other["samples"][ROW] = other["samples"][OTHER]
    assert list(compare_checkpoints(FIRST, other, NAMES)["units"]) == [f"{ROW}/i2v"]
    named = compare_checkpoints(FIRST, other, NAMES, (ROW, OTHER))
    assert list(named["units"]) == [f"{ROW}/i2v -> {OTHER}/i2v"]
    with pytest.raises(InvalidValue, match="--rows: 'steps1' is not among"):
        compare_checkpoints(FIRST, other, NAMES, ("steps1", ROW))


def test_shares_of_one_seed_each_have_the_interval_of_shares():
    first = result(dict.fromkeys("abcd", 20.0), [{"a": 1.0, "b": None, "c": None, "d": 2.0}])
    second = result(dict.fromkeys("abcd", 20.0), [{"a": 1.0, "b": 1.0, "c": None, "d": 2.0}])
    shares = compare_checkpoints(first, second, NAMES)["units"][f"{ROW}/i2v"]["differences"]["registered"]
    assert shares["mean"] == 0.25
    assert (shares["low"], shares["high"]) == shares_apart(0, 1, 4)
    same = compare_checkpoints(first, first, NAMES)["units"][f"{ROW}/i2v"]["differences"]["registered"]
    assert same["low"] < 0.0 < same["high"]  # four clips that agree do not prove that all would


def test_the_command_line_takes_their_folders(tmp_path, capsys):
    for name, content in (("one", FIRST), ("two", SECOND)):
        write_json(tmp_path / name / "results.json", content)
    folders = [str(tmp_path / name) for name in ("one", "two")]
    assert main(["compare", *folders, "--rows", ROW, ROW]) == 0
    assert f"## {ROW}/i2v" in capsys.readouterr().out
    write_json(tmp_path / "two/results.json", {**SECOND, "kind": "videos"})
    assert main(["compare", *folders]) == 1
    assert "is of evaluate checkpoint and" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one["clips"]["a"].update(digest="other"), "clip a has another picture, path or caption"),
        (lambda one: one["clip"].update(width=64), "not of the same clips: clip: "),
        (lambda one: one["exploration"].update(clips=2), "not of the same clips: exploration: "),
        (
            lambda one: one["estimates"]["truth"]["settings"].update(longest_side=320),
            "longest side: 640 and 320",
        ),
        (lambda one: one["clips"].clear(), "no clip in common"),
        (lambda one: one["samples"].update({ROW: {"t2v": {}}}), "no task in common"),
    ],
)
def test_what_does_not_compare_is_refused(change, message):
    other = copy.deepcopy(SECOND)
    change(other)
    with pytest.raises(InvalidValue, match=message):
        compare_checkpoints(FIRST, other, NAMES)


def test_true_clips_beside_samples_are_those_that_both_have_a_value_of():
    results = FIRST | {"summary": summarised(FIRST)}
    row = results["summary"]["rows"][f"{ROW}/i2v"]
    assert row["estimates"]["rot_err_aligned_deg"]["clips"] == 2
    # The true clips' errors are 0, 1, 2 and 3, of which only a and b register when sampled.
    assert row["true_clips"]["rot_err_aligned_deg"]["mean"] == pytest.approx(0.5)
    assert results["summary"]["true_clips"]["rot_err_aligned_deg"]["mean"] == pytest.approx(1.5)
    assert "d: decodes to NaN" in page(results)
