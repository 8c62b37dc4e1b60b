"""Camera paths in words: what is understood, and how misunderstandings are reported."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_paths import properties

from camctrl_jax.camera import PRESETS, PathTextError, path_from_text, preset, resolve_path, save_cameras
from camctrl_jax.camera.moves import Circle, DollyZoom, Handheld, Orbit, Stage, Travel, Turn, Zoom
from camctrl_jax.camera.path_text import stages_from_text
from camctrl_jax.camera.verbs import VERBS

UNDERSTOOD = {
    "dolly in 1.5 m": [Stage((Travel(forward=1.5),))],
    "Dolly-In 150 cm.": [Stage((Travel(forward=1.5),))],
    "dolly_in": [Stage((Travel(forward=1.5),))],
    "push 2": [Stage((Travel(forward=2.0),))],
    "pull back 2 metres": [Stage((Travel(forward=-2.0),))],
    "pan to the left by 40°": [Stage((Turn(pan=-40.0),))],
    "tilt up .5 deg": [Stage((Turn(tilt=0.5),))],
    "roll counter-clockwise 30": [Stage((Turn(roll=-30.0),))],
    "roll right 30 degrees": [Stage((Turn(roll=30.0),))],
    "descend 0.3m": [Stage((Travel(up=-0.3),))],
    "orbit left 90 around 2.5": [Stage((Orbit(right=-90.0, distance=2.5),))],
    "orbit right 90 deg around a subject at 2.5 m": [Stage((Orbit(right=90.0, distance=2.5),))],
    "zoom in 2x": [Stage((Zoom(2.0),))],
    "zoom out 2 times": [Stage((Zoom(0.5),))],
    "dolly zoom out 1 m around 4 m": [Stage((DollyZoom(-1.0, 4.0),))],
    "circle ccw 2 turns radius 30 cm": [Stage((Circle(0.3, -2.0),))],
    "hand-held 2 cm 1 deg seed 7": [Stage((Handheld(0.02, 1.0, 7),))],
    "hold 2 s": [Stage((), seconds=2.0)],
    "stay for 2 seconds": [Stage((), seconds=2.0)],
    "dolly in 1 m over 2 s linearly": [Stage((Travel(forward=1.0),), 2.0, "linear")],
    "truck left 1 m easing in": [Stage((Travel(right=-1.0),), None, "ease_in")],
    "truck left 1 m facing the subject at 4 m": [
        Stage((Travel(right=-1.0),), facing_subject=True, subject=4.0)
    ],
    "dolly in 1.5 m, then pan left 40 deg while rising 0.3 m": [
        Stage((Travel(forward=1.5),)),
        Stage((Turn(pan=-40.0), Travel(up=0.3))),
    ],
    "pan left 10; tilt up 10 and then roll cw 10. hold": [
        Stage((Turn(pan=-10.0),)),
        Stage((Turn(tilt=10.0),)),
        Stage((Turn(roll=10.0),)),
        Stage(),
    ],
    "dolly in 2 m with handheld and tilt down 5 deg over 1 s,": [
        Stage((Travel(forward=2.0), Handheld(), Turn(tilt=-5.0)), 1.0)
    ],
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_sentence_means(text):
    assert list(stages_from_text(text)) == UNDERSTOOD[text]


MISUNDERSTOOD = {
    "": ("", "the camera path is empty"),
    "   ": ("", "the camera path is empty"),
    "dolly": ("", "dolly needs a direction: in, out"),
    "dolly sideways 1 m": ("sideways", "dolly needs a direction: in, out"),
    "doly in 1 m": ("doly", "'doly' is not a camera move; did you mean 'dolly'"),
    "fling the camera": ("fling", "'fling' is not a camera move"),
    "pan up 10 deg": ("up", "pan does not go up: expected left, right; to turn upwards use 'tilt up 15 deg'"),
    "dolly left 1 m": ("left", "to move sideways use 'truck left 1 m'"),
    "pan left right": ("right", "pan was given opposite directions"),
    "pan left 1 m": ("1", "pan does not take a length .*to move sideways use 'truck'"),
    "zoom in 1 m": ("1", "zoom does not take a length .*to move the camera use 'dolly in'"),
    "pan left 10 deg 20 deg": ("20", "the angle was already given as 10"),
    "arc left 3": ("3", "3 needs a unit here: arc takes a length .*, an angle"),
    "handheld around 3 m": ("around", "handheld does not take a distance to the subject"),
    "orbit left around left": ("left", r"expected a length"),
    "dolly in 1 m over 2 m": ("m", r"expected a time \('2 s'\)"),
    "hold 0 s": ("0", "a duration must be positive"),
    "pan left over 0 s": ("0", "a duration must be positive"),
    "dolly in 1 m while": ("", "a move is missing at the end"),
    "dolly in 1 m banana": ("banana", "'banana' is not understood here"),
    "dolly in -1 m": ("-1", "amounts are not negative; turn the direction round"),
    "dolly in 1 m & out": ("&", "the character '&' is not understood"),
    "dolly zoom in 4 m": ("dolly", "runs into its subject at 3 m"),
    "orbit left around 2 m while swing left around 4 m": ("orbit", "must share one subject"),
    "arc left 2 m 0 deg": ("arc", "an arc of 0 degrees has no centre"),
    "zoom in 0x": ("zoom", "a zoom factor must be positive"),
}


@pytest.mark.parametrize("text", MISUNDERSTOOD)
def test_misunderstanding_points_at_the_word_and_lists_what_is_understood(text):
    word, message = MISUNDERSTOOD[text]
    with pytest.raises(PathTextError, match=message) as raised:
        stages_from_text(text)
    shown, pointer = str(raised.value).split("\n")[1:3]
    assert shown == f"  {text}"
    start, end = pointer.index("^"), pointer.rindex("^") + 1
    assert shown[start:end] == (word or shown[start:end])
    if not word:
        assert start == len(shown)
    listing = str(raised.value)
    assert all(verb.name in listing.replace("\n ", "") for verb in VERBS)
    assert "example: dolly in 1.5 m, then pan left 40 deg while rising 0.3 m" in listing


def test_a_separator_at_the_end_is_harmless():
    assert len(stages_from_text("dolly in 1 m then")) == 1


def test_sentences_do_not_talk_about_the_camera_in_third_person():
    with pytest.raises(PathTextError, match="'pans' is not a camera move; did you mean 'pan'"):
        stages_from_text("the camera pans to the left by 40°")


amounts = st.decimals(min_value="0.01", max_value="3", places=3).map(float)
angles = st.decimals(min_value="0.1", max_value="170", places=2).map(float)


@st.composite
def sentences(draw) -> tuple[str, list[Stage]]:
    """A random sentence together with what it means, built side by side."""
    words, stages = [], []
    for _ in range(draw(st.integers(1, 4))):
        moves, said = [], []
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.sampled_from(["dolly", "truck", "pan", "tilt", "orbit", "zoom"]))
            positive, amount, angle = draw(st.booleans()), draw(amounts), draw(angles)
            sign = 1.0 if positive else -1.0
            side = "right" if positive else "left"
            if kind == "dolly":
                said.append(f"dolly {'in' if positive else 'out'} {amount} m")
                moves.append(Travel(right=0.0, up=0.0, forward=sign * amount))
            elif kind == "truck":
                said.append(f"trucking {side} {amount} metres")
                moves.append(Travel(right=sign * amount))
            elif kind == "pan":
                said.append(f"pan {side} {angle} deg")
                moves.append(Turn(pan=sign * angle))
            elif kind == "tilt":
                said.append(f"tilting {'up' if positive else 'down'} by {angle}°")
                moves.append(Turn(tilt=sign * angle))
            elif kind == "orbit":
                said.append(f"orbit {side} {angle} degrees around 3 m")
                moves.append(Orbit(right=sign * angle, distance=3.0))
            else:
                said.append(f"zoom {'in' if positive else 'out'} {amount}x")
                moves.append(Zoom(amount if positive else 1.0 / amount))
        text = draw(st.sampled_from([" while ", " and ", " with "])).join(said)
        seconds = draw(st.one_of(st.none(), st.decimals(min_value="0.1", max_value="1", places=1).map(float)))
        stages.append(Stage(tuple(moves), seconds))
        words.append(text + (f" over {seconds} s" if seconds else ""))
    return draw(st.sampled_from([", then ", "; ", " then ", ". ", ", "])).join(words), stages


@properties
@given(sentences())
def test_random_sentences_mean_what_they_were_built_from(sentence):
    text, stages = sentence
    assert list(stages_from_text(text)) == stages
    assert list(stages_from_text(text.upper())) == stages


@properties
@given(st.text(alphabet="dolyinpatrckef ut0123456789.,;m°x-_then", max_size=40))
def test_any_text_is_either_understood_or_explained(text):
    try:
        stages = stages_from_text(text)
    except PathTextError as error:
        assert "^" in str(error)  # noqa: PT017
    else:
        assert len(stages) >= 1


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_name_is_also_a_sentence(name):
    if name in ("static", "handheld_dolly_in"):
        return
    np.testing.assert_allclose(
        path_from_text(name, 9).world_from_camera, preset(name, 9).world_from_camera, atol=1e-12
    )


# --- resolve_path ----------------------------------------------------------------------------------------


def test_a_path_may_be_a_file_a_preset_or_a_sentence(tmp_path):
    original = preset("orbit_left", 25, fps=24.0)
    save_cameras(original, tmp_path / "orbit.txt")
    from_file = resolve_path(tmp_path / "orbit.txt", 49)
    assert len(from_file) == 49
    np.testing.assert_allclose(from_file.times, np.arange(49) / 12.0)
    np.testing.assert_allclose(from_file.world_from_camera[-1], original.world_from_camera[-1], atol=1e-9)
    assert from_file.metric
    named = resolve_path("orbit-left", 49)
    np.testing.assert_array_equal(named.world_from_camera, preset("orbit_left", 49).world_from_camera)
    said = resolve_path("orbit left 45 deg", 49)
    np.testing.assert_array_equal(said.world_from_camera, named.world_from_camera)


def test_given_intrinsics_replace_those_of_a_file_and_start_those_of_a_sentence(tmp_path):
    save_cameras(preset("static", 5), tmp_path / "path.txt")
    np.testing.assert_allclose(resolve_path(tmp_path / "path.txt", 5).intrinsics[0], (0.6, 1.0, 0.5, 0.5))
    given_row = (0.5, 0.5, 0.5, 0.5)
    np.testing.assert_allclose(
        resolve_path(tmp_path / "path.txt", 5, intrinsics=given_row).intrinsics[3], given_row
    )
    zoomed = resolve_path("zoom in 2x", 5, intrinsics=given_row)
    np.testing.assert_allclose(zoomed.intrinsics[[0, -1], 0], (0.5, 1.0))


@pytest.mark.parametrize("spec", ["nowhere.txt", "folder/clip", "clip.json#cam02"])
def test_what_looks_like_a_file_is_not_read_as_a_sentence(spec):
    with pytest.raises(
        FileNotFoundError, match=r"no such file or folder. A camera path is a pose file, a preset"
    ):
        resolve_path(spec, 9)


def test_what_is_neither_is_explained_as_all_three():
    with pytest.raises(
        PathTextError, match=r"not a camera move(.|\n)*nor is it an existing file or a preset .*orbit_left"
    ):
        resolve_path("orbti_left", 9)
