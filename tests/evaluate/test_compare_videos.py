"""``evaluate compare`` of two results of ``evaluate videos``: pairs, successes, and what does not compare."""

import copy
import json

import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.__main__ import main
from camctrl_jax.evaluate.comparing import CompareSettings, compare_results
from camctrl_jax.files.json_file import write_json
from camctrl_jax.metrics.intervals import shares_apart

ESTIMATOR = {"name": "known", "version": "1", "parameters": [["scale", 1.0]], "weights": []}
IMPORTED = {
    "name": "imported poses",
    "version": "1",
    "parameters": [["metric", False]],
    "weights": [["a", "1"]],
}
SETTINGS = {
    "pose_frames": 16,
    "longest_side": 640,
    "known_lens": True,
    "clip_frames": None,
    "doubts": {"jump": 5.0},
    "with_reference": False,
    "estimators": {"sfm": ESTIMATOR, "flow": ESTIMATOR},
}
LOST = {"failed": "truncated", "message": "cut off"}


def row(trans=None, **values):
    found = {
        "frames": 49,
        "fps": 24.0,
        "size": [480, 720],
        "lens": "asked",
        "asked": {"path_length": 2.0, "rotation_deg": 10.0},
        "failures": {},
        "registered": trans is not None,
        "doubts": [],
    }
    if trans is not None:
        found["trans_err_aligned_share_of_path"] = trans
    return found | values


def result(clips, **settings):
    return {"kind": "videos", "settings": SETTINGS | settings, "clips": clips}


@pytest.fixture
def compared(tmp_path):
    def compare(first, second):
        for name, content in (("one", first), ("two", second)):
            write_json(tmp_path / name / "results.json", content)
        return compare_results(CompareSettings(tmp_path / "one", tmp_path / "two"))

    return compare


def test_differences_are_paired_and_clips_without_a_value_are_counted(compared):
    first = {"a": row(0.1), "b": row(0.5), "c": row(0.9), "d": row(0.2), "e": row(), "f": dict(LOST)}
    second = {
        "a": row(0.2),
        "b": row(0.6),
        "c": row(1.0),
        "d": row(),
        "e": row(0.1),
        "f": row(),
        "g": row(0.1),
    }
    found, page = compared(result(first), result(second))
    assert (found["clips"], found["left_out"]) == (6, [0, 1])
    trans = found["differences"]["trans_err_aligned_share_of_path"]
    # The clips differ by 0.4, every pair of them by 0.1: paired, the interval is a point.
    assert [trans["mean"], trans["low"], trans["high"]] == pytest.approx([0.1] * 3)
    assert [trans["first"], trans["second"]] == pytest.approx([0.5, 0.6])
    assert [trans[key] for key in ("clips", "only_first", "only_second", "neither")] == [3, 1, 1, 1]
    registered = found["successes"]["registered"]
    assert [registered[key] for key in ("both", "only_first", "only_second", "neither")] == [3, 1, 1, 1]
    assert registered["mean"] == 0.0
    assert registered["low"] < 0 < registered["high"]
    assert found["successes"]["measured"]["only_second"] == 1
    assert "3 of 6 clips lack an estimated path" in page
    assert "TransErr / path, aligned | 0.5 | 0.6 | +0.1" in page
    json.dumps(found, allow_nan=False)


def test_doubts_make_no_success(compared):
    found, _ = compared(result({"a": row(0.1)}), result({"a": row(0.1, doubts=["jump"])}))
    assert found["successes"]["undoubted"]["only_first"] == 1
    assert found["successes"]["registered"]["both"] == 1


def test_the_interval_of_paired_shares_is_that_of_the_paper():
    # Agresti and Min (2005) of b = 10, c = 2 of n = 50, worked by hand.
    low, high = shares_apart(10, 2, 50)
    middle, spread = -8 / 52, 1.96 * np.sqrt((12 + 1) / 52 - (8 / 52) ** 2) / np.sqrt(52)
    assert (low, high) == pytest.approx((middle - spread, middle + spread), rel=1e-4)
    low, high = shares_apart(0, 0, 15)  # equal on 15 clips is no proof
    assert low == pytest.approx(-high)
    assert 0.05 < high < 0.2
    assert shares_apart(0, 1, 1)[1] == 1.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pose_frames": 8}, "pose frames: 16 and 8"),
        ({"longest_side": 320}, "longest side: 640 and 320"),
        ({"known_lens": False}, "known lens"),
        ({"doubts": {"jump": 4.0}}, "doubts"),
        ({"estimators": {"sfm": ESTIMATOR | {"version": "2"}, "flow": ESTIMATOR}}, "sfm: "),
    ],
)
def test_other_protocols_are_refused_with_what_differs(compared, change, said):
    with pytest.raises(InvalidValue, match=said):
        compared(result({"a": row(0.1)}), result({"a": row(0.1)}, **change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fps": 12.0}, "a has 24 and 12 frames a second"),
        ({"lens": "estimated"}, "the lens of a is asked and estimated"),
        ({"frames": 25}, "a has 49 and 25 frames"),
        ({"asked": {"path_length": 1.0, "rotation_deg": 10.0}}, "asked path of a"),
    ],
)
def test_other_clips_of_one_name_are_refused(compared, change, said):
    with pytest.raises(InvalidValue, match=said):
        compared(result({"a": row(0.1)}), result({"a": row(0.1, **change)}))


def test_results_of_an_older_version_are_to_be_measured_again(compared):
    with pytest.raises(InvalidValue, match="one was written by an older version"):
        compared(result({"a": {}}, format=3), result({"a": row(0.1)}, format=4))


def test_other_picture_sizes_leave_motion_in_pixels_out(compared):
    moving = {"motion_px": 2.0, "motion_diagonals": 0.01}
    found, _ = compared(
        result({"a": row(0.1, **moving)}), result({"a": row(0.1, size=[720, 1280], **moving)})
    )
    assert "motion_diagonals" in found["differences"]
    assert "motion_px" not in found["differences"]
    assert "another size" in found["remarks"][0]


def test_imported_results_may_come_from_other_files(compared):
    of_other = copy.deepcopy(IMPORTED) | {"weights": [["b", "2"]]}
    estimators = [{"sfm": each, "flow": ESTIMATOR} for each in (IMPORTED, of_other)]
    found, _ = compared(*(result({"a": row(0.1)}, estimators=each) for each in estimators))
    assert found["clips"] == 1


def test_two_kinds_and_what_is_no_result_are_refused(compared):
    with pytest.raises(InvalidValue, match="and do not compare"):
        compared(result({"a": row(0.1)}), {"per_scene": [], "clip": {}})
    with pytest.raises(InvalidValue, match="no clip in common"):
        compared(result({"a": row(0.1)}), result({"b": row(0.1)}))
    with pytest.raises(InvalidValue, match="is of evaluate checkpoint and"):
        compared({"kind": "checkpoint"}, result({"a": row(0.1)}))
    with pytest.raises(InvalidValue, match="no results of evaluate"):
        compared({}, result({"a": row(0.1)}))


def test_the_command_prints_json(tmp_path, capsys):
    for name in ("one", "two"):
        write_json(tmp_path / name / "results.json", result({"a": row(0.1), "b": row(0.3)}))
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 2
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--rows", "a", "b"]) == 1
    assert "--rows" in capsys.readouterr().err
