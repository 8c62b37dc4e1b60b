"""``evaluate``: its parts, what it refuses, and a whole small run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nano_weights import save_nano

from camctrl_jax.errors import UserError
from camctrl_jax.evaluate.__main__ import main
from camctrl_jax.evaluate.worlds import HeldOut, Settings, evaluate_worlds, in_batches
from camctrl_jax.worlds import WorldsConfig, sample_world
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED, check_held_out

pytest.importorskip("matplotlib", reason="strips are labelled by matplotlib")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "nano")


def test_batches_cover_every_row_once_and_have_one_size():
    sizes = []

    def double(rows):
        sizes.append(len(rows))
        return np.asarray(rows) * 2

    np.testing.assert_array_equal(in_batches(double, 7, 3), np.arange(7) * 2)
    assert sizes == [3, 3, 3]
    np.testing.assert_array_equal(in_batches(double, 2, 8), [0, 2])
    assert sizes[3:] == [2]


def test_decoy_is_the_path_of_another_world_from_the_own_first_frame():
    worlds = tuple(sample_world(HELD_OUT_FIRST_SEED + i, WorldsConfig(frames=9)) for i in range(3))
    decoys = HeldOut(worlds, np.zeros((3, 9, 2, 2, 3), np.uint8)).decoys()
    for i, decoy in enumerate(decoys):
        other = worlds[(i + 1) % 3].cameras.relative_to(0)
        np.testing.assert_array_equal(decoy.world_from_camera, other.world_from_camera)
        np.testing.assert_array_equal(decoy.intrinsics, worlds[i].cameras.intrinsics)
        np.testing.assert_allclose(decoy.world_from_camera[0], np.eye(4), atol=1e-12)


def test_weights_of_neither_network_are_refused(tmp_path):
    folder = save_nano(tmp_path / "weights")
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vae": None, "mmdit": None}))
    with pytest.raises(UserError, match="holds neither a transformer nor an autoencoder"):
        evaluate_worlds(Settings(tmp_path / "out", checkpoint=str(folder)), say=lambda line: None)


def test_training_seeds_are_not_held_out():
    assert check_held_out(range(HELD_OUT_FIRST_SEED, HELD_OUT_FIRST_SEED + 5))
    with pytest.raises(ValueError, match="partly training seeds"):
        check_held_out(range(HELD_OUT_FIRST_SEED - 1, HELD_OUT_FIRST_SEED + 5))


def test_whole_run_writes_its_results_and_does_not_depend_on_the_batch(folder, tmp_path):
    def once(batch_size: int):
        settings = Settings(
            tmp_path / str(batch_size),
            checkpoint=str(folder),
            count=3,
            steps=(2, 1),
            camera_guidance=(2.0,),
            samples=1,
            batch_size=batch_size,
            shown=2,
        )
        lines = []
        results = evaluate_worlds(settings, say=lines.append)
        assert len(lines) == 4  # rendering, reconstruction, and a line for each number of steps
        return results

    results = once(2)
    out = tmp_path / "2"
    assert {path.name for path in out.iterdir()} == {"results.json", "results.md", "strip.png"}
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    assert results["seeds"] == [1_000_000, 1_000_001, 1_000_002]
    assert [row["steps"] for row in results["camera"]] == [2, 1]
    row = results["camera"][0]
    assert row["camera_guidance"] == 2.0
    assert row["per_world"]["true_path"] != row["per_world"]["decoy_path"]
    table = (out / "results.md").read_text()
    for entry in results["camera"]:
        assert f"| {entry['steps']} | 2 | {entry['psnr_db']['true_path']:.2f} |" in table
    assert f"{results['reconstruction']['psnr_db']:.2f}" in table

    again = once(3)
    for name in ("true_path", "decoy_path", "first_frame_repeated"):
        np.testing.assert_allclose(again["camera"][0]["per_world"][name], row["per_world"][name], atol=0.01)
    np.testing.assert_allclose(
        again["reconstruction"]["per_world"], results["reconstruction"]["per_world"], atol=0.01
    )


def test_autoencoder_alone_is_measured_by_reconstruction(tmp_path):
    vae = save_nano(tmp_path / "vae", mmdit=False)
    settings = Settings(
        tmp_path / "out", checkpoint=str(vae), count=2, frames=9, height=32, width=48, samples=1, shown=0
    )
    results = evaluate_worlds(settings, say=lambda line: None)
    assert "camera" not in results
    assert 0 < results["reconstruction"]["psnr_db"] < 60
    assert "Image-to-video" not in (tmp_path / "out" / "results.md").read_text()


def test_a_second_autoencoder_beside_an_autoencoder_is_refused(tmp_path, capsys):
    vae = save_nano(tmp_path / "vae", mmdit=False)
    other = save_nano(tmp_path / "other", mmdit=False)
    out = tmp_path / "out"
    assert main(["worlds", "--checkpoint", str(vae), "--vae", str(other), "--out", str(out)]) == 1
    told = capsys.readouterr().err
    assert f"--checkpoint {vae}" in told
    assert f"--vae {other}" in told
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 1}, "at least 2 worlds"),
        ({"first_seed": 999_990}, "partly training seeds"),
        ({"steps": (32, 0)}, "steps is 0"),
        ({"steps": ()}, "expected a tuple of one or more"),
        ({"steps": 32}, "expected a tuple of one or more"),
        ({"camera_guidance": ()}, "expected a tuple of one or more"),
        ({"samples": 0}, "samples=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"frames": 0}, "frames=0"),
        ({"camera_guidance": (float("nan"),)}, "Guidance.camera"),
        ({"frames": 5}, "take 9 or more"),
        ({"width": 50}, "width=50"),
        ({"checkpoint": "nowhere"}, "No weights at"),
    ],
)
def test_requests_that_cannot_work_are_refused_before_any_work(folder, tmp_path, changes, message):
    settings = {"out": tmp_path / "out", "checkpoint": str(folder)}
    with pytest.raises(UserError, match=message):
        evaluate_worlds(Settings(**settings | changes), say=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_base_model_has_nothing_to_compare(tmp_path, capsys):
    base = save_nano(tmp_path / "base", camera=False)
    status = main(["worlds", "--checkpoint", str(base), "--out", str(tmp_path / "out")])
    assert status == 1
    assert capsys.readouterr().err.startswith(f"error: {base} has no camera input")


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["worlds", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in ("--camera-guidance", "decoy", "results.json", "held-out"):
        assert word in text
