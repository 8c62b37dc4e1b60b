"""Clips sampled on a mesh are those of one device, for a share of the work; and meshes that cannot work."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nano_weights import SAMPLING, TEXT, save_nano, save_run

from camctrl_jax.checkpoints.architecture import Architecture, clip_of
from camctrl_jax.checkpoints.weights import open_weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.errors import InvalidValue
from camctrl_jax.files.safetensors import flatten
from camctrl_jax.models import MMDiT, mmdit_in_dtype, mmdit_preset
from camctrl_jax.models.roles import dotted
from camctrl_jax.parallel.activations import MeshPlacement
from camctrl_jax.parallel.mesh import AXES, MeshConfig, make_mesh
from camctrl_jax.parallel.sharding import spec_of
from camctrl_jax.sampling import on_mesh
from camctrl_jax.sampling.on_mesh import (
    SamplingWork,
    dtype_in_sampling,
    make_sampling_mesh,
    mesh_of_words,
    said,
)
from camctrl_jax.sampling.pipeline import Extension

MOTIF = mmdit_preset("motif_2b")
GUIDED = Guidance(2.0, 3.0)  # three evaluations
FULL = SamplingWork.of_clips(MOTIF, ClipShape(49, 384, 640), GUIDED)


def lines_of(folder: Path, *names: str) -> dict[str, dict]:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    script = Path(__file__).with_name("mesh_sampling.py")
    command = [sys.executable, script, folder / "nano", *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {line["mesh"]: line for line in map(json.loads, done.stdout.splitlines())}


def check_equal(line: dict) -> None:
    assert set(line["apart"]) == {"t2v", "i2v", "two", "extension", "decoded"}
    assert max(line["apart"].values()) < 1e-5, line
    assert line["bytes"] <= 1  # of 255, where rounding falls to the other side
    assert line["same_weights"]
    assert line["compiled"] == 0


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    return lines_of(tmp_path_factory.mktemp("weights"))


# Parts of the work of one device that each of a mesh has: of a step, of decoding a clip, of decoding two.
# Three branches on two devices are two on each; rows are cut by what divides the eight of a latent.
SHARES = {
    "data": (1 / 3, 1, 1),
    "data, filled up": (2 / 3, 1 / 2, 1 / 2),
    "context": (1 / 4, 1 / 4, 1 / 4),
    "context, ulysses": (1 / 2, 1 / 2, 1 / 2),
    "data and context": (1 / 6, 1 / 2, 1 / 2),
    "all axes": (1 / 6, 1 / 8, 1 / 8),
    "scanned": (2 / 3 / 4, 1 / 8, 1 / 8),
}


@pytest.mark.slow  # compiles for seven meshes
@pytest.mark.parametrize("mesh", SHARES)
def test_a_mesh_gives_the_clips_of_one_device_for_its_share_of_the_work(lines, mesh):
    check_equal(lines[mesh])
    # A few per cent for what all devices compute: the timestep, the modulation, rows at a cut.
    found = [lines[mesh]["flops"][what] for what in ("step", "decoding", "decoding two")]
    assert found == pytest.approx(SHARES[mesh], rel=0.08)


@pytest.mark.slow
def test_parameters_are_shared_out_over_fsdp_and_tensor(lines):
    assert lines["all axes"]["held"] < 0.3
    assert lines["context"]["held"] == 1.0


@pytest.mark.parametrize(
    ("sizes", "gigabytes"),
    [((1, 1, 4, 1), 17.0), ((1, 4, 1, 1), 4.3), ((1, 2, 1, 2), 4.3)],
)
def test_of_the_8b_preset_a_device_holds_its_part(sizes, gigabytes):
    mesh = SimpleNamespace(shape=dict(zip(AXES, sizes)))
    shapes = MMDiT(mmdit_preset("paper_8b", scan_layers=True)).abstract_params()

    def size(path, leaf):
        spec, name = spec_of(dotted(path), leaf.shape, mesh), dotted(path)
        parts = math.prod(mesh.shape[axis] for axis in spec if axis is not None)
        return leaf.size // parts * jnp.dtype(dtype_in_sampling(name, jnp.bfloat16)).itemsize

    held = sum(jax.tree.leaves(jax.tree_util.tree_map_with_path(size, shapes))) / 1e9
    assert 0.9 * gigabytes < held < gigabytes


@pytest.mark.parametrize("kind", ["folder", "run"])
def test_weights_are_read_onto_a_mesh_in_the_dtype_they_are_used_in(tmp_path, kind):
    spec = save_nano(tmp_path / "nano")
    if kind == "run":
        folder = open_weights(spec)
        described = Architecture(None, folder.mmdit_config, TEXT, clip_of(SAMPLING), str(spec))
        spec = save_run(tmp_path / "run", folder.mmdit_params(), described.to_json())
    weights = open_weights(spec)
    dtype = partial(dtype_in_sampling, dtype=jnp.bfloat16)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    placed = flatten(weights.mmdit_params(mesh=mesh, dtype=dtype))
    expected = flatten(mmdit_in_dtype(weights.mmdit_params(), jnp.bfloat16))
    assert {leaf.dtype.name for leaf in placed.values()} == {"float32", "bfloat16"}
    for name, leaf in expected.items():
        assert placed[name].dtype == leaf.dtype, name
        np.testing.assert_array_equal(np.asarray(placed[name]), leaf, err_msg=name)


@pytest.mark.slow
def test_tokens_and_rows_over_four_devices_give_the_clips_of_one(tmp_path):
    line = lines_of(tmp_path, "context")["context"]
    check_equal(line)
    assert line["flops"]["step"] < 0.27
    assert line["flops"]["decoding"] < 0.27


@pytest.fixture
def devices(monkeypatch):
    """Says how many devices there are; those beyond the first are not used."""

    def there_are(count: int) -> None:
        fake = SimpleNamespace(devices=lambda: [None] * count)
        monkeypatch.setattr(on_mesh, "jax", fake)

    return there_are


@pytest.mark.parametrize(
    ("asked", "laid_out"),
    [
        ("1", "1"),
        ("2", "context=2,attention=ulysses"),  # with data=2 a device would compute two of three branches
        ("3", "data=3"),  # no exchange between devices
        ("4", "context=4,attention=ulysses"),
        ("6", "data=3,context=2,attention=ulysses"),
        ("7", "data=3,context=2,attention=ulysses"),  # 12,480 tokens have no seventh part
        ("8", "context=8"),  # which does not divide 12 heads
        ("data=2,context=2", "data=2,context=2"),
        (" context = 4 , attention = ulysses", "context=4,attention=ulysses"),
        ("fsdp=2,context=2,tensor=2", "fsdp=2,context=2,tensor=2"),
    ],
)
def test_a_mesh_is_sizes_or_a_number_of_devices_laid_out_for_the_least_work(devices, asked, laid_out):
    devices(8)
    mesh, _ = mesh_of_words(asked, FULL)
    assert said(mesh) == laid_out
    assert mesh_of_words(said(mesh), FULL)[0] == mesh or laid_out == "1"


def test_a_mesh_that_wastes_devices_is_told_of_a_better_one(devices):
    devices(8)
    _, notes = mesh_of_words("data=2,context=2", FULL)
    assert notes == (
        "--mesh data=2,context=2: a device computes 1 of the 3 evaluations of a step; with --mesh "
        "context=4,attention=ulysses it would be 0.75.",
    )
    assert mesh_of_words("context=4", FULL)[1] == ()
    assert mesh_of_words("data=3,context=2", FULL)[1] == ()


# Of 49 frames of 96x160, 13 x 6 x 10 tokens; four retrieved frames make 17 x 6 x 10 of them.
SMALL = SamplingWork.of_clips(
    mmdit_preset("worlds"), ClipShape(49, 96, 160), GUIDED, Extension(11, 2, retrieved=4)
)


@pytest.mark.parametrize(
    ("asked", "work", "message"),
    [
        ("context=16", FULL, "it needs 16 devices and there are 8; the nearest .* is --mesh context=8"),
        ("9", FULL, "there are 8 devices; give at most that"),
        ("context=8", SMALL, "context=8 does not divide the 780 video tokens .* --mesh context=6"),
        ("data=2,context=3,tensor=5", SMALL, "needs 30 devices"),
        ("tensor=5", FULL, "tensor=5 does not divide the 12 heads .* --mesh tensor=4"),
        ("fsdp=7", FULL, "fsdp=7 does not divide the 1536 channels .* --mesh fsdp=6"),
        ("context=8,attention=ulysses", FULL, "exchanges 12 heads.* --mesh context=6,attention=ulysses"),
        ("context", FULL, "'context' is no part of a mesh; expected a number .* such as context=4"),
        ("context=0", FULL, "'context=0' is no part"),
        ("0", FULL, "'0' is no part"),
        ("rows=2", FULL, "'rows=2' is no part"),
        ("context=2,attention=ring", FULL, "allgather or ulysses"),
    ],
)
def test_a_mesh_that_cannot_work_is_refused_with_the_nearest_that_does(devices, asked, work, message):
    devices(8)
    with pytest.raises(InvalidValue, match=message):
        mesh_of_words(asked, work)


def test_every_kind_of_window_has_to_be_cut():
    assert SMALL.tokens == (780, 1020)
    assert FULL.tokens == (12480,)
    work = SamplingWork.of_clips(MOTIF, ClipShape(49, 96, 160), GUIDED, Extension(8, 4, retrieved=1))
    assert work.tokens == (720, 780)
    assert FULL.batches == (3,)
    weighed = SamplingWork.of_clips(MOTIF, ClipShape(49, 96, 160), Guidance(2.0, 3.0, 1.5, history=1.5))
    assert weighed.batches == (4, 1)  # the call without history is one of its own


def test_a_mesh_for_python_is_checked_too(devices):
    devices(2)
    with pytest.raises(InvalidValue, match=r"context=4: it needs 4 devices .* there are 2; .* context=2"):
        make_sampling_mesh(MeshConfig(data=1, context=4), MOTIF)


@pytest.mark.parametrize(
    ("sizes", "clips", "rows", "spec"),
    [
        ((1, 1, 4, 1), 1, 12, (None, "context")),
        ((3, 1, 2, 1), 1, 48, (None, ("data", "context"))),
        ((3, 1, 2, 1), 3, 48, (("data", "fsdp"), "context")),
        ((2, 1, 4, 1), 1, 12, (None, "context")),  # twelve rows have four parts, not eight
        ((1, 1, 8, 1), 1, 12, (None, None)),
        ((2, 2, 1, 2), 1, 8, (None, ("data", "fsdp", "tensor"))),
    ],
)
def test_rows_are_cut_over_every_axis_that_divides_them_and_is_not_taken(sizes, clips, rows, spec):
    mesh = SimpleNamespace(shape=dict(zip(AXES, sizes)), size=8)
    found = MeshPlacement(mesh).spec((clips, 13, rows, 20, 16), "batch", None, "rows", None, None)
    assert tuple(found) == (spec[0], None, spec[1], None, None)
