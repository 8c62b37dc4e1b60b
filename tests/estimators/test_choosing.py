"""Estimators by name."""

import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.choosing import KINDS, choose, names
from camctrl_jax.estimators.colmap import Colmap
from camctrl_jax.estimators.motion_masks import EpipolarMasks
from camctrl_jax.estimators.programs import ProgramMasks, ProgramPoints


def test_names_and_defaults():
    assert {kind: names(kind)[0] for kind in KINDS} == {
        "flow": "dis",
        "masks": "epipolar",
        "sfm": "colmap",
        "depth": "depth-pro",  # not a default: a program of the user's
        "embeddings": "histograms",
        "video_features": "i3d",  # not a default: a file of the user's
        "points": "vggt",  # likewise
    }
    assert all("import" in names(kind) for kind in KINDS)


def test_what_is_chosen_is_what_was_described(tmp_path):
    assert choose("sfm", "colmap") == Colmap()
    assert choose("sfm", {"name": "colmap", "options": {"mode": "global"}}) == Colmap(mode="global")
    assert choose("masks", "epipolar") == EpipolarMasks()
    np.save(tmp_path / "e.npy", np.ones((2, 3)))
    embedder = choose("embeddings", {"name": "import", "options": {"path": tmp_path / "e.npy"}})
    assert embedder.embed(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 3)
    tmo = choose(
        "masks", {"name": "tmo", "python": "/envs/tmo/bin/python", "weights": "a.pth", "repository": "TMO"}
    )
    assert isinstance(tmo, ProgramMasks)
    assert tmo.program.installation.python == "/envs/tmo/bin/python"
    assert [path.name for path in tmo.program.installation.weights] == ["a.pth"]
    features = choose("video_features", {"name": "i3d", "weights": "i.pt", "options": {"stride": 2}})
    assert (features.weights.name, features.least_frames) == ("i.pt", 31)
    assert isinstance(choose("points", {"name": "vggt", "weights": "w"}), ProgramPoints)
    followed = choose("masks", {"name": "sam2", "weights": "s.pt", "options": {"config": "c.yaml"}})
    assert followed.prompts == EpipolarMasks()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("sfm", "colmapp", "did you mean 'colmap'.*there are colmap, vggsfm"),
        ("depth", "dis", "there are depth-pro"),
        ("pose", "colmap", "no kind of estimator 'pose'"),
        ("sfm", {"name": "vggsfm", "pyhton": "x"}, "unknown setting 'pyhton'"),
        ("sfm", {"name": "colmap", "python": "x"}, "colmap runs here"),
        ("sfm", {"name": "colmap", "options": {"fast": True}}, "fast"),
        ("masks", {"name": "import", "options": {"folder": "m"}}, "moving_is"),
        ("sfm", {}, "no sfm estimator None"),
        ("video_features", "i3d", "needs a file: give it as weights"),
        (
            "video_features",
            {"name": "i3d", "weights": "a", "python": "p"},
            "takes weights and options, no 'p",
        ),
        ("video_features", {"name": "i3d", "weights": "a", "options": {"frames": 8}}, "frames is 8.*9 or"),
        ("video_features", {"name": "i3d", "weights": "a", "options": {"fit": "pad"}}, "fit is 'pad'"),
    ],
)
def test_what_cannot_be_chosen_says_what_can(kind, settings, message):
    with pytest.raises(InvalidValue, match=message):
        choose(kind, settings)
