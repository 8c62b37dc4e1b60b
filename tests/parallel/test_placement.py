"""Joined token streams, constraints, kernels and meshes over hosts: what one device can show."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from camctrl_jax.models.attention import attention
from camctrl_jax.models.placement import ONE_DEVICE, check_streams, join, join_tables, split
from camctrl_jax.parallel.activations import MeshPlacement, placement_of
from camctrl_jax.parallel.mesh import AXES, MeshConfig, device_grid, hosts_along, make_mesh


def mesh_of(*sizes):
    """Stands in for a mesh whose devices are not there."""
    return SimpleNamespace(shape=dict(zip(AXES, sizes)), size=int(np.prod(sizes)))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_streams_are_joined_part_by_part(parts):
    rng = np.random.default_rng(0)
    streams = [jnp.asarray(rng.normal(size=(2, length, 3))) for length in (8, 4, 12)]
    joined = join(streams, parts)
    first = joined[:, : 24 // parts]  # what the first device holds: its part of every stream
    expected = [stream[:, : stream.shape[1] // parts] for stream in streams]
    np.testing.assert_array_equal(first, np.concatenate(expected, axis=1))
    for stream, back in zip(streams, split(joined, (8, 4, 12), parts)):
        np.testing.assert_array_equal(stream, back)
    tables = [np.asarray(stream[0]) for stream in streams]
    np.testing.assert_array_equal(join_tables(tables, parts), joined[0])


def test_streams_that_cannot_be_cut_name_a_context_that_can():
    check_streams({"video": 12, "text": 4}, 4)
    with pytest.raises(ValueError, match=r"18 video tokens .* 4 equal parts; set mesh.context to 2"):
        check_streams({"video": 18, "text": 4}, 4)


def test_constraints_name_what_divides():
    place = MeshPlacement(mesh_of(2, 2, 2, 2))
    assert place.parts == 2
    assert place.spec((8, 6, 4, 3), "batch", "tokens", "heads", None) == P(
        ("data", "fsdp"), "context", "tensor", None
    )
    assert place.spec((2, 5, 3), "batch", "tokens", "hidden") == P(None, None, None)
    assert MeshPlacement(mesh_of(1, 4, 1, 1)).spec((8, 6, 4), "batch", "tokens", "hidden") == P(
        ("data", "fsdp"), None, None
    )


def test_one_device_needs_no_placement():
    assert placement_of(make_mesh(MeshConfig(), [jnp.zeros(1).device])) is ONE_DEVICE


def test_heads_that_cannot_be_exchanged_are_refused_with_a_remedy():
    place = MeshPlacement(mesh_of(1, 1, 4, 2), "ulysses")
    heads = jnp.zeros((1, 8, 12, 4))
    with pytest.raises(ValueError, match=r"6 heads on a device .*context=4; choose a context of 1, 2, 3, 6"):
        place.attend(heads, heads, heads, None, (8,), "xla")
    with pytest.raises(ValueError, match="'ring' is unknown"):
        MeshConfig(context_attention="ring")


@pytest.mark.parametrize("keys", [70, 640])
@pytest.mark.parametrize("masked", [True, False])
def test_the_tpu_kernel_equals_xla(keys, masked):
    rng = np.random.default_rng(0)
    query, key, value = (
        jnp.asarray(rng.normal(size=(2, length, 2, 64)), jnp.float32) for length in (33, keys, keys)
    )
    lengths = jnp.asarray([keys, 5]) if masked else None
    expected = attention(query, key, value, lengths, implementation="xla")
    found = attention(query, key, value, lengths, implementation="splash")  # on a CPU, its interpreter
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_gradients_of_the_tpu_kernel_equal_those_of_xla():
    import jax

    rng = np.random.default_rng(1)
    operands = [jnp.asarray(rng.normal(size=(1, 130, 1, 64)), jnp.float32) for _ in range(3)]

    def gradient(implementation):
        def loss(*operands):
            out = attention(*operands, jnp.asarray([100]), implementation=implementation)
            return jnp.sum(jnp.sin(out))

        return jax.grad(loss, argnums=(0, 1, 2))(*operands)

    for one, other in zip(gradient("splash"), gradient("xla")):
        np.testing.assert_allclose(one, other, atol=5e-5)


def device(number, *, platform, process, slice_index=0):
    """Stands in for a device; TPUs have places in a grid of 4 x 2 per slice."""
    return SimpleNamespace(
        id=number,
        platform=platform,
        device_kind="none",
        process_index=process,
        slice_index=slice_index,
        coords=(number % 8 // 2, number % 2, 0),
        core_on_chip=0,
    )


def test_data_lies_across_slices():
    slices = [device(i, platform="tpu", process=i // 4, slice_index=i // 8) for i in range(16)]
    grid = device_grid((4, 2, 1, 2), slices)
    assert {d.slice_index for d in grid[:2].flat} == {0}
    assert {d.slice_index for d in grid[2:].flat} == {1}
    with pytest.raises(ValueError, match=r"2 slices .* mesh.data must be a multiple of 2, but it is 1"):
        device_grid((1, 16, 1, 1), slices)


def test_data_then_fsdp_lie_across_hosts():
    assert hosts_along((2, 8, 1, 4), 8) == (2, 4, 1, 1)
    assert hosts_along((1, 2, 4, 8), 8) is None  # a clip's tokens have to span hosts
    gpus = [device(i, platform="gpu", process=i // 4) for i in range(16)]
    grid = device_grid((2, 4, 1, 2), gpus)
    for group in grid.reshape(4, 4):  # what shares a host: two of fsdp, and tensor
        assert len({d.process_index for d in group.flat}) == 1
