"""The safetensors reader and writer against the reference package, and against damaged files."""

from __future__ import annotations

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from camctrl_jax.errors import FileFailure
from camctrl_jax.files import safetensors as st


def example_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "blocks.0.kernel": rng.normal(size=(3, 5)).astype(np.float32),
        "blocks.0.bias": rng.normal(size=5).astype(np.float16),
        "half": rng.normal(size=(2, 3, 4)).astype(ml_dtypes.bfloat16),
        "count": np.array(7, np.int64),
        "bytes": np.arange(7, dtype=np.uint8),
        "flags": np.array([True, False, True]),
        "empty": np.zeros((0, 4), np.float32),
        "double": rng.normal(size=3),
    }


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        np.testing.assert_array_equal(np.asarray(found[name]), array, err_msg=name)


def raw_file(path, header: dict | bytes, data: bytes = b"") -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def test_written_file_reads_back_with_metadata(tmp_path):
    st.write_safetensors(tmp_path / "a.safetensors", example_tensors(), {"format": "jax"})
    file = st.SafetensorsFile(tmp_path / "a.safetensors")
    assert_same(file, example_tensors())
    assert file.metadata == {"format": "jax"}
    assert file.shape("half") == (2, 3, 4)
    assert file.dtype("half") == ml_dtypes.bfloat16


def test_arrays_are_read_only_maps_of_the_file(tmp_path):
    st.write_safetensors(tmp_path / "a.safetensors", example_tensors())
    array = st.SafetensorsFile(tmp_path / "a.safetensors")["blocks.0.kernel"]
    assert not array.flags.owndata
    with pytest.raises(ValueError):
        array[0, 0] = 1.0


def test_reference_package_reads_what_we_write(tmp_path):
    oracle = pytest.importorskip("safetensors.numpy", reason="the safetensors package is the oracle")
    tensors = {name: array for name, array in example_tensors().items() if name != "half"}
    st.write_safetensors(tmp_path / "a.safetensors", tensors, {"who": "test"})
    assert_same(oracle.load_file(tmp_path / "a.safetensors"), tensors)


def test_reference_package_reads_our_bfloat16(tmp_path):
    torch = pytest.importorskip("torch", reason="torch holds the oracle's bfloat16")
    oracle = pytest.importorskip("safetensors.torch", reason="the safetensors package is the oracle")
    array = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4).astype(ml_dtypes.bfloat16)
    st.write_safetensors(tmp_path / "a.safetensors", {"x": jnp.asarray(array)})
    found = oracle.load_file(tmp_path / "a.safetensors")["x"]
    assert found.dtype == torch.bfloat16
    np.testing.assert_array_equal(found.float().numpy(), array.astype(np.float32))


def test_we_read_what_the_reference_package_writes(tmp_path):
    oracle = pytest.importorskip("safetensors.numpy", reason="the safetensors package is the oracle")
    tensors = {name: array for name, array in example_tensors().items() if name != "half"}
    oracle.save_file(tensors, tmp_path / "a.safetensors", metadata={"a": "b"})
    file = st.SafetensorsFile(tmp_path / "a.safetensors")
    assert_same(file, tensors)
    assert file.metadata == {"a": "b"}


def test_jax_and_non_contiguous_arrays_are_written_in_row_major_order(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    st.write_safetensors(tmp_path / "a.safetensors", {"t": array.T, "j": jnp.asarray(array)})
    assert_same(st.SafetensorsFile(tmp_path / "a.safetensors"), {"t": array.T, "j": array})


@pytest.mark.parametrize("kept", [0, 5, 8, 60, -1])
def test_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    st.write_safetensors(path, example_tensors())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(st.SafetensorsError, match=r"a\.safetensors.*(not a complete|truncated|is empty)"):
        st.SafetensorsFile(path)


def test_header_length_of_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(st.SafetensorsError, match="header length"):
        st.SafetensorsFile(path)


F32_2 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"not json", b"", "not JSON"),
        (b"[]", b"", "expected an object"),
        ({"x": {**F32_2, "dtype": "F3"}}, bytes(8), "unknown dtype 'F3'"),
        ({"x": {"dtype": "F32", "shape": [2]}}, bytes(8), "expected dtype, shape and two data_offsets"),
        ({"x": {**F32_2, "shape": [-2]}}, bytes(8), "not counts"),
        ({"x": {**F32_2, "shape": [3]}}, bytes(8), "needs 12 bytes"),
        ({"x": F32_2, "y": {**F32_2, "data_offsets": [4, 12]}}, bytes(12), "overlaps"),
        ({"x": F32_2, "y": F32_2}, bytes(8), "overlaps"),
        ({"x": F32_2, "y": {**F32_2, "data_offsets": [12, 20]}}, bytes(20), "gap"),
        ({"x": F32_2}, bytes(9), "1 bytes follow"),
        ({"x": {**F32_2, "shape": [2**40, 2**40]}}, bytes(8), "needs"),
        (b'{"x": {}, "x": {}}', b"", "more than once"),
        ({"__metadata__": {"a": 1}, "x": F32_2}, bytes(8), "strings to strings"),
    ],
)
def test_damaged_header_is_refused_by_name(tmp_path, header, data, message):
    path = tmp_path / "bad.safetensors"
    raw_file(path, header, data)
    with pytest.raises(st.SafetensorsError, match=message) as caught:
        st.SafetensorsFile(path)
    assert "bad.safetensors" in str(caught.value)


def test_dtype_that_the_format_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="complex64"):
        st.write_safetensors(tmp_path / "a.safetensors", {"x": np.zeros(2, np.complex64)})
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    class FullDisk:
        shape, dtype = (2,), np.dtype(np.float32)

        def __array__(self, dtype=None, copy=None):
            raise OSError(28, "No space left on device")

    path = tmp_path / "a.safetensors"
    st.write_safetensors(path, {"x": np.ones(2, np.float32)})
    before = path.read_bytes()
    with pytest.raises(FileFailure, match="the disk is full"):
        st.write_safetensors(path, {"x": FullDisk()})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_shards_respect_the_size_limit_and_read_back(tmp_path):
    tensors = {f"block_{i}.kernel": np.full((32, 8), i, np.float32) for i in range(10)}
    paths = st.save_sharded(tmp_path, tensors, stem="mmdit", max_file_bytes=4096)
    assert len(paths) > 2
    assert paths[-1].name == "mmdit.safetensors.index.json"
    assert all(path.stat().st_size <= 4096 for path in paths[:-1])
    index = json.loads(paths[-1].read_text())
    assert index["metadata"]["total_size"] == 10 * 32 * 8 * 4
    assert_same(st.load_sharded(tmp_path, "mmdit"), tensors)


def test_weights_that_fit_into_one_file_have_no_index(tmp_path):
    assert [path.name for path in st.save_sharded(tmp_path, example_tensors())] == ["model.safetensors"]
    assert_same(st.load_sharded(tmp_path), example_tensors())


def test_tensor_larger_than_a_shard_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'big'.*does not fit"):
        st.save_sharded(tmp_path, {"big": np.zeros(4096, np.float32)}, max_file_bytes=4096)


def test_missing_and_foreign_shards_are_named(tmp_path):
    tensors = {f"x{i}": np.full(256, i, np.float32) for i in range(6)}
    first, second, *_ = st.save_sharded(tmp_path, tensors, max_file_bytes=4096)
    content = second.read_bytes()
    second.unlink()
    with pytest.raises(FileNotFoundError, match=second.name):
        st.load_sharded(tmp_path)
    st.write_safetensors(second, {"stranger": np.zeros(2, np.float32)})
    with pytest.raises(st.SafetensorsError, match=r"missing x\d.*unexpected stranger"):
        st.load_sharded(tmp_path)
    second.write_bytes(content)
    assert_same(st.load_sharded(tmp_path), tensors)
    assert first.exists()


def test_folder_without_weights_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vae\.safetensors"):
        st.load_sharded(tmp_path, "vae")


def test_nested_dicts_flatten_and_unflatten():
    tree = {"b": {"kernel": 1, "bias": 2}, "a": {"c": {"d": 3}}}
    assert st.flatten(tree) == {"a.c.d": 3, "b.bias": 2, "b.kernel": 1}
    assert st.unflatten(st.flatten(tree)) == tree
    with pytest.raises(ValueError, match="without"):
        st.flatten({"a.b": 1})
    with pytest.raises(ValueError, match=r"at once|itself a tensor"):
        st.unflatten({"a.b": 1, "a": 2})
