"""Mesh sizes and sharding rules, without devices to spread over."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from camctrl_jax.models import MMDiT, mmdit_preset
from camctrl_jax.parallel.mesh import AXES, MeshConfig, make_mesh
from camctrl_jax.parallel.sharding import batch_shards, distribute_batch, shardings_of, spec_of
from camctrl_jax.training.optimizer import OptimizerConfig, make_optimizer
from camctrl_jax.training.state import create_state


def mesh_of(*sizes):
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 4)


def test_minus_one_takes_what_is_left():
    assert MeshConfig().sizes(8) == (8, 1, 1, 1)
    assert MeshConfig(data=-1, fsdp=2, tensor=2).sizes(8) == (2, 2, 1, 2)
    assert MeshConfig(data=2, fsdp=-1).sizes(8) == (2, 4, 1, 1)


@pytest.mark.parametrize("config", [MeshConfig(fsdp=3), MeshConfig(data=16), MeshConfig(data=2, fsdp=2)])
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(config):
    with pytest.raises(ValueError, match=r"needs \d+ devices, but there are 8"):
        config.sizes(8)


@pytest.mark.parametrize("config", [MeshConfig(fsdp=-1), MeshConfig(tensor=0)])
def test_sizes_that_mean_nothing_are_refused(config):
    with pytest.raises(ValueError, match="must be positive"):
        config.sizes(8)


def test_a_mesh_has_auto_axes():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    assert mesh.axis_names == AXES
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert batch_shards(mesh) == 1


@pytest.fixture(scope="module")
def worlds_state():
    model = MMDiT(mmdit_preset("worlds"))
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=1), 10)
    return jax.eval_shape(lambda: create_state(model.init_params(jax.random.key(0)), optimizer))


def test_every_large_array_of_the_model_is_shared_out(worlds_state):
    mesh = mesh_of(1, 4, 1, 2)
    shardings = shardings_of(worlds_state, mesh)
    whole = split = 0
    for leaf, sharding in zip(jax.tree.leaves(worlds_state), jax.tree.leaves(shardings)):
        if any(axis is not None for axis in sharding.spec):
            split += leaf.size
        else:
            whole += leaf.size
    assert split > 100 * whole


def test_moments_and_average_lie_where_their_parameter_lies(worlds_state):
    mesh = mesh_of(2, 2, 1, 2)
    table = {}
    for path, sharding in jax.tree_util.tree_leaves_with_path(shardings_of(worlds_state, mesh)):
        name = jax.tree_util.keystr(path)
        table[name] = sharding.spec
    parameters = {name[len(".params") :]: spec for name, spec in table.items() if name.startswith(".params")}
    assert len(parameters) > 50
    for name, spec in parameters.items():
        where = re.compile(r"\.(params|ema|opt_state\S*\.(mu|nu))" + re.escape(name))
        same = [other for path, other in table.items() if where.fullmatch(path)]
        assert len(same) == 4  # parameter, average, two moments
        assert all(other == spec for other in same)


def test_products_into_the_residual_stream_split_their_rows():
    mesh, block = mesh_of(1, 2, 1, 2), "params.transformer_blocks_0"
    assert spec_of(f"{block}.attn.to_q.kernel", (8, 8), mesh) == PartitionSpec("fsdp", "tensor")
    assert spec_of(f"{block}.attn.to_out_0.kernel", (8, 8), mesh) == PartitionSpec("tensor", "fsdp")
    assert spec_of(f"{block}.ff.net_2.kernel", (8, 8), mesh) == PartitionSpec("tensor", "fsdp")
    stacked = "ema.single_transformer_blocks_0_to_2.proj_out.kernel"
    assert spec_of(stacked, (3, 8, 8), mesh) == PartitionSpec(None, None, "fsdp")
    assert spec_of("decoder.mid_block.resnets_0.conv1.kernel", (3, 3, 3, 8, 8), mesh) == PartitionSpec(
        None, None, None, "fsdp", "tensor"
    )
    assert spec_of(f"{block}.attn.to_q.bias", (8,), mesh) == PartitionSpec()


@pytest.mark.parametrize("path", ["step", "opt_state.1.count", "rng"])
def test_what_is_no_parameter_stays_whole(path):
    assert spec_of(path, (8,), mesh_of(1, 2, 1, 2)) == PartitionSpec()


def test_a_dimension_that_does_not_divide_stays_whole():
    spec = spec_of("x_embedder.kernel", (1, 2, 2, 33, 8), mesh_of(1, 2, 1, 2))
    assert spec == PartitionSpec(None, None, None, None, "tensor")


def test_a_batch_is_distributed_as_it_is():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    batch = {"latents": np.ones((4, 2, 4, 6, 16), np.float32), "camera_valid": jnp.ones(4, bool)}
    distributed = distribute_batch(batch, mesh)
    assert all(isinstance(array, jax.Array) for array in distributed.values())
    jax.tree.map(np.testing.assert_array_equal, distributed, batch)
