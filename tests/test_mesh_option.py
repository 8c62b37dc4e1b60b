"""``--mesh`` of generate, of its tours and of explore: the same clips as without, and refusals in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nano_weights import save_nano

from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.errors import InvalidValue
from camctrl_jax.explore.model import Model
from camctrl_jax.generate.__main__ import main

pytest.importorskip("av", reason="videos are written by PyAV")
pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")
pytest.importorskip("starlette", reason="explore is served by Starlette")


@pytest.mark.slow  # a process of its own, which compiles everything twice
def test_commands_on_a_mesh_make_the_clips_of_one_device(tmp_path):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    root = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    script = Path(__file__).with_name("commands_on_mesh.py")
    done = subprocess.run([sys.executable, script, tmp_path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    # Bytes: a few of them round to the other side.
    assert max(found["generate"], *found["tour"], *found["explore"], *found["quick"]) < 1e-3
    sizes = {"data": 2, "fsdp": 1, "context": 2, "tensor": 1, "context_attention": "allgather"}
    assert found["records"] == [None, sizes]
    assert found["made_on"] == ["cpu, float32", "4 x cpu (data=2, context=2), float32"] * 3


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder of weights whose parameters nothing may read."""
    folder = save_nano(tmp_path / "nano")

    def read(*_, **__):
        raise AssertionError("parameters are read")

    for name in ("mmdit_params", "vae_params"):
        monkeypatch.setattr(Weights, name, read)
    return folder


@pytest.mark.parametrize("words", ["context=100000", "rows=2"])
def test_a_mesh_that_cannot_work_is_refused_before_weights_are_read(weights, tmp_path, capsys, words):
    script = tmp_path / "tour.yaml"
    script.write_text("clips:\n  - {camera: dolly in 1 m, prompt: a red ball}\n")
    common = ["--checkpoint", str(weights), "--out", str(tmp_path / "out"), "--mesh", words]
    for arguments in (["--prompt", "a ball", "--camera", "orbit_left"], ["--script", str(script)]):
        assert main([*common, *arguments]) == 1
        said = capsys.readouterr().err
        assert f"--mesh {words}" in said
        assert "the nearest that works is --mesh 1" in said or "expected a number of devices" in said
    with pytest.raises(InvalidValue, match=f"--mesh {words}"):
        Model(str(weights), mesh=words)
    assert not (tmp_path / "out").exists()
