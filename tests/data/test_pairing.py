"""Which picture a pose belongs to: names as other tools write them against files as people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from camctrl_jax.data import pairing
from camctrl_jax.data.pairing import pair_by_name


def paired(names, pictures):
    """By picture, the name of its pose; and what is unclear."""
    found = pair_by_name(names, [Path(picture) for picture in pictures])
    return {str(picture): names[pose] for picture, pose in found.pose_of.items()}, found.unclear


@pytest.mark.parametrize(
    ("names", "pictures"),
    [
        pytest.param(["b.png", "a.png"], ["/c/b.png", "/c/a.png"], id="another order"),
        pytest.param(
            ["./train/r_0", "./train/r_1"], ["/c/train/r_0.png", "/c/train/r_1.png"], id="no suffix"
        ),
        pytest.param(["1.png", "2.png"], ["/c/1.jpg", "/c/2.jpeg"], id="another suffix"),
        pytest.param(["IMG_1.JPG", "IMG_2.JPG"], ["/c/IMG_1.jpg", "/c/img_2.jpg"], id="capitals"),
        pytest.param(["A.png", "a.png"], ["/c/A.png", "/c/a.png"], id="two that differ in capitals"),
        pytest.param(["1.dng", "2.heic"], ["/c/1.png", "/c/2.png"], id="suffixes that are not read"),
        pytest.param(["a.0001", "a.0002"], ["/c/a.0001.png", "/c/a.0002.png"], id="numbers behind a point"),
        pytest.param(["images\\1.png", "images\\2.png"], ["/c/1.png", "/c/2.png"], id="backslashes"),
        pytest.param(["/home/x/in/1.png", "../in/2.png"], ["/c/1.png", "/c/2.png"], id="paths of elsewhere"),
        pytest.param(
            ["Stra\u00dfe.png", "cafe\u0301.png"], ["/c/Stra\u00dfe.png", "/c/caf\u00e9.png"], id="unicode"
        ),
        pytest.param(["1.jpg", "2.jpg"], ["/c/1.jpg.png", "/c/2.jpg.png"], id="a suffix behind the suffix"),
        pytest.param(["x y#1.png", "x y#2.png"], ["/c/x y#1.png", "/c/x y#2.png"], id="spaces and numbers"),
        pytest.param(["left/1.png", "right/1.png"], ["/c/left/1.png", "/c/right/1.png"], id="folders"),
        pytest.param(
            ["a/left/1.png", "b/left/1.png"],
            ["/c/a/left/1.png", "/c/b/left/1.png"],
            id="folders above folders",
        ),
        pytest.param(
            ["left/1.jpg", "right/1.png"], ["/c/left/1.png", "/c/right/1.png"], id="folder over suffix"
        ),
    ],
)
def test_each_picture_meets_its_own_pose(names, pictures):
    assert paired(names, pictures) == (dict(zip(pictures, names)), {})


def test_a_picture_of_one_folder_does_not_take_the_pose_of_another():
    names = ["left/1.png", "right/1.png", "right/2.png"]
    assert paired(names, ["/c/left/1.png", "/c/left/2.png"]) == ({"/c/left/1.png": "left/1.png"}, {})
    # Nothing of the left camera was registered: what is there belongs to the right one.
    pictures = ["/c/left/1.png", "/c/left/2.png", "/c/right/1.png", "/c/right/2.png"]
    expected = {"/c/right/1.png": "right/1.png", "/c/right/2.png": "right/2.png"}
    assert paired(["right/1.png", "right/2.png"], pictures) == (expected, {})


def test_the_name_letter_by_letter_goes_first():
    assert paired(["0.png"], ["/c/0.jpg", "/c/0.png"]) == ({"/c/0.png": "0.png"}, {})
    assert paired(["0.PNG", "0.png"], ["/c/0.png"]) == ({"/c/0.png": "0.png"}, {})


@pytest.mark.parametrize(
    ("names", "pictures", "told"),
    [
        (["left/1.png", "right/1.png"], ["/c/1.png"], ("left/1.png", "right/1.png")),
        (["1"], ["/c/1.png", "/c/1.jpg"], ("/c/1.png", "/c/1.jpg")),
        (["A.png", "a.png"], ["/c/A.jpg"], ("A.png", "a.png")),
        (["1.png"], ["/a/x/1.png", "/a/y/1.png"], ("/a/x/1.png", "/a/y/1.png")),
    ],
)
def test_what_is_unclear_names_both(names, pictures, told):
    pairs, unclear = paired(names, pictures)
    assert pairs == {}
    assert set(unclear) == {Path(picture) for picture in pictures}
    assert all(word in sentence for word in told for sentence in unclear.values())


def test_behind_a_link_the_folder_has_its_own_name(tmp_path):
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "1.png").touch()
    (tmp_path / "shots").symlink_to(tmp_path / "left")
    picture = str(tmp_path / "shots" / "1.png")
    assert paired(["right/1.png", "left/1.png"], [picture]) == ({picture: "left/1.png"}, {})


def test_names_without_a_picture_and_pictures_without_a_name_stay_alone():
    assert paired(["1.png", "3.png"], ["/c/1.png", "/c/2.png"]) == ({"/c/1.png": "1.png"}, {})
    assert paired(["10.png"], ["/c/1.png", "/c/010.png", "/c/0.png"]) == ({}, {})


def spread(pattern, count):
    return [pattern.format(i) for i in range(count)]


def test_a_thousand_folders_that_share_one_file_name_are_not_compared_with_each_other(monkeypatch):
    """What is compared grows with the number of folders, not with its square."""
    compared = 0
    allows = pairing._Shared.allows

    def counted(*arguments):
        nonlocal compared
        compared += 1
        return allows(*arguments)

    monkeypatch.setattr(pairing._Shared, "allows", counted)
    names, pictures = spread("s{:04}/rgb.png", 1000), spread("/c/s{:04}/rgb.png", 1000)
    assert paired(names, pictures) == (dict(zip(pictures, names)), {})
    assert compared < 10_000


def test_folders_in_folders_that_share_file_names_meet_their_own():
    names = [f"{day}/cam{cam}/{i}.png" for day in "ab" for cam in range(20) for i in range(5)]
    pictures = [f"/c/x/{name}" for name in names]
    assert paired(names[::-1], pictures) == (dict(zip(pictures, names)), {})
    # Other folders above them: no name is nearer than another.
    clear, unclear = paired(["p/rgb.png", "q/rgb.png"], ["/c/1/rgb.png", "/c/2/rgb.png"])
    assert clear == {}
    assert len(unclear) == 2
