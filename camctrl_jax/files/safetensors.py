"""The safetensors file format: reading (lazy, memory-mapped) and writing (atomic, in shards).

A file is a little-endian u64 header length, a JSON header and the raw bytes of the tensors, C-contiguous and
without gaps. Nothing in it is executed, so a file from a stranger is safe to open. Sharded weights are
laid out as on the Hugging Face hub: ``<stem>-00001-of-00003.safetensors`` and so on, beside
``<stem>.safetensors.index.json``.

Format: https://huggingface.co/docs/safetensors (the ``safetensors`` package is the oracle of the tests).
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from camctrl_jax.errors import InvalidValue, MissingFile, file_failures
from camctrl_jax.files.atomic import write_text, written_file
from camctrl_jax.files.foreign import what_instead
from camctrl_jax.files.weight_files import (
    FULL,
    SafetensorsError,
    is_index,
    listed,
    read_weight_map,
    unique,
    weight_variants,
)

MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation

_DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class SafetensorsFile(Mapping[str, np.ndarray]):
    """An opened safetensors file: a read-only mapping from tensor names to memory-mapped arrays.

    Opening reads the header only; ``file[name]`` is a read-only view whose pages are read when touched. The
    arrays stay valid after the mapping object is gone.

    Attributes:
        path: the file.
        metadata: the header's ``__metadata__``, strings to strings.

    Raises:
        FileNotFoundError: the file does not exist.
        FileFailure: the system refuses to read it.
        SafetensorsError: another kind of file (a Git LFS pointer, a web page, a pickle, ...), a truncated
            one, a header too large or not JSON, unknown dtype, offsets that overlap, leave gaps or disagree
            with the shape.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.exists():
            link = f" (a link to {self.path.readlink()})" if self.path.is_symlink() else ""
            raise MissingFile(f"{self.path}{link}: no such file.")
        with file_failures(self.path, "read"):
            size = self.path.stat().st_size
            header, data_start = _read_header(self.path, size)
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self._entries = _checked_entries(self.path, header, size - data_start)
            self._data_start = data_start
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._data = np.frombuffer(self._map, np.uint8)[data_start:]

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, begin, end = self._entries[name]
        return self._data[begin:end].view(np.ndarray).view(dtype).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without touching its data."""
        return self._entries[name][1]

    def dtype(self, name: str) -> np.dtype:
        """The dtype of a tensor, without touching its data."""
        return self._entries[name][0]

    def release(self, name: str) -> None:
        """Give the memory of a tensor's pages back; arrays of it stay valid and read them again."""
        _, _, begin, end = self._entries[name]
        first, last = self._data_start + begin, self._data_start + end
        first -= first % mmap.PAGESIZE
        if last > first and hasattr(self._map, "madvise"):  # not on every platform
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


class Shaped(NamedTuple):
    """What a tensor is, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype


class SequentialTensors(Mapping[str, np.ndarray]):
    """Tensors of one or several files that are read one after the other, as an import does.

    Asking for a tensor releases the pages of the one asked for before, so that reading all of them takes the
    memory of one. Arrays handed out earlier stay valid.
    """

    def __init__(self, files: Sequence[SafetensorsFile]) -> None:
        self._file_of = {name: file for file in files for name in file}
        self._last: str | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._file_of[name][name]
        if self._last is not None:
            self._file_of[self._last].release(self._last)
        self._last = name
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def dtype(self, name: str) -> np.dtype:
        """The dtype of a tensor, without touching its data."""
        return self._file_of[name].dtype(name)

    def shapes(self) -> dict[str, Shaped]:
        """Shapes and dtypes of all tensors, without touching their data."""
        return {name: Shaped(file.shape(name), file.dtype(name)) for name, file in self._file_of.items()}

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._file_of[name].path


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    broken = f"{path} is not a complete safetensors file"
    again = "Copy or download it again."
    with path.open("rb") as file:
        start = file.read(512)
        prefix = start[:8]
        # Where neither a length below 2**32 nor a JSON object begins: any first bytes may be a length.
        instead = None if start[4:9] == b"\0\0\0\0{" else what_instead(start, size)
        if instead is not None:
            raise SafetensorsError(f"{path} {instead}")
        if len(prefix) < 8:
            raise SafetensorsError(f"{broken}: {size} bytes, fewer than the 8 of the header length. {again}")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER_BYTES:
            raise SafetensorsError(
                f"{path}: the header length reads {length} bytes, more than the {MAX_HEADER_BYTES} allowed: "
                "this is another kind of file, or its first bytes are damaged."
            )
        if 8 + length > size:
            raise SafetensorsError(
                f"{broken}: the header needs {8 + length} bytes, the file has {size}. {again}"
            )
        file.seek(8)
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=lambda pairs: unique(path, pairs))
    except SafetensorsError:
        raise
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(
            f"{path}: the header is not JSON ({error}): not a safetensors file."
        ) from error
    if not isinstance(header, dict):
        raise SafetensorsError(f"{path}: the header is {type(header).__name__}, expected an object.")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise SafetensorsError(f"{path}: __metadata__ must map strings to strings, found {metadata!r}.")
    return header, 8 + length


def _checked_entries(path: Path, header: dict[str, Any], available: int) -> dict[str, tuple]:
    entries: dict[str, tuple[np.dtype, tuple[int, ...], int, int]] = {}
    for name, entry in header.items():
        try:
            dtype_name, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise SafetensorsError(
                f"{path}: tensor {name!r} is {entry!r}; expected dtype, shape and two data_offsets."
            ) from error
        if not isinstance(dtype_name, str) or dtype_name not in _DTYPES:
            raise SafetensorsError(
                f"{path}: tensor {name!r} has unknown dtype {dtype_name!r}; known are {', '.join(_DTYPES)}."
            )
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise SafetensorsError(f"{path}: tensor {name!r} has a shape or offsets that are not counts.")
        dtype = _DTYPES[dtype_name]
        expected = dtype.itemsize
        for length in shape:  # Python integers: no overflow
            expected *= length
        if end - begin != expected:
            raise SafetensorsError(
                f"{path}: tensor {name!r} {dtype_name}{list(shape)} needs {expected} bytes, "
                f"but its data_offsets {[begin, end]} give {end - begin}."
            )
        entries[name] = (dtype, shape, begin, end)
    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position:
            what = "overlaps" if begin < position else "leaves a gap after"
            raise SafetensorsError(
                f"{path}: tensor {name!r} begins at {begin}, which {what} the one before (end: {position})."
            )
        position = end
    if position > available:
        raise SafetensorsError(
            f"{path} is truncated: its tensors need {position} bytes of data, {available} are there. "
            "Copy or download it again."
        )
    if position < available:
        raise SafetensorsError(f"{path}: {available - position} bytes follow the last tensor; expected none.")
    return entries


def write_safetensors(
    path: str | os.PathLike,
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    dtype: Any = None,
) -> None:
    """Write one file. It appears under ``path`` only when it is complete.

    Args:
        path: the file; its folder is made if need be.
        tensors: names to arrays (numpy, JAX, or whatever ``np.asarray`` takes), written one at a time.
        metadata: strings to strings, stored as ``__metadata__``.
        dtype: what every tensor is rounded to as it is written; None keeps their own.

    Raises:
        InvalidValue: a dtype that the format does not have, a tensor named ``__metadata__``.
        FileFailure: the disk is full or the folder is not writable; a file that was there before stays.
    """
    path = Path(path)
    # Widest elements first, as the reference does: every tensor is then aligned to its own element size.
    names = sorted(tensors, key=lambda name: (-_dtype_of(name, tensors[name], dtype).itemsize, name))
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(metadata)
    position = 0
    for name in names:
        header[name] = _entry(name, tensors[name], position, dtype)
        position = header[name]["data_offsets"][1]
    raw = json.dumps(header, separators=(",", ":")).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    with written_file(path) as file:
        file.write(len(raw).to_bytes(8, "little"))
        file.write(raw)
        for name in names:
            array = np.asarray(tensors[name])
            array = np.ascontiguousarray(array.astype(_dtype_of(name, array, dtype), copy=False))
            file.write(array.reshape(-1).view(np.uint8).data)


def _dtype_of(name: str, tensor: Any, dtype: Any = None) -> np.dtype:
    if name == "__metadata__":
        raise InvalidValue("A tensor cannot be named '__metadata__': the format reserves that name.")
    if dtype is None:
        dtype = tensor.dtype if hasattr(tensor, "dtype") else np.asarray(tensor).dtype
    dtype = np.dtype(dtype).newbyteorder("<")
    if dtype not in _NAMES:
        raise InvalidValue(
            f"Tensor {name!r} has dtype {dtype}; safetensors holds {', '.join(_DTYPES)}: cast it."
        )
    return dtype


def _entry(name: str, tensor: Any, position: int, dtype: Any = None) -> dict[str, Any]:
    dtype = _dtype_of(name, tensor, dtype)
    shape = [int(length) for length in np.shape(tensor)]
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    return {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [position, position + size]}


def save_sharded(
    directory: str | os.PathLike,
    tensors: Mapping[str, Any],
    *,
    stem: str = "model",
    max_file_bytes: int = 5_000_000_000,
    metadata: Mapping[str, str] | None = None,
    dtype: Any = None,
) -> list[Path]:
    """Write tensors to as many files as needed, none larger than ``max_file_bytes``, header included.

    One file is called ``<stem>.safetensors``; several ``<stem>-00001-of-0000N.safetensors`` with an index,
    ``<stem>.safetensors.index.json``, written last.

    Returns:
        The files written, the index (if any) last.

    Raises:
        ValueError: one tensor alone does not fit into ``max_file_bytes``.
    """
    directory = Path(directory)
    shards: list[dict[str, Any]] = []
    room = 0
    fixed = 8 + 8 + len(json.dumps({"__metadata__": dict(metadata or {})}))  # length, padding, metadata
    total = 0
    for name, tensor in tensors.items():
        entry = _entry(name, tensor, 0, dtype)
        size = entry["data_offsets"][1]
        # In the header: the entry itself plus room for two offsets of up to 20 digits.
        needed = size + len(json.dumps({name: entry})) + 40
        if fixed + needed > max_file_bytes:
            raise InvalidValue(
                f"Tensor {name!r} of {size} bytes does not fit into a file of {max_file_bytes} bytes: raise "
                "max_file_bytes or store it in a smaller dtype."
            )
        if not shards or needed > room:
            shards.append({})
            room = max_file_bytes - fixed
        shards[-1][name] = tensor
        room -= needed
        total += size
    if len(shards) <= 1:
        path = directory / f"{stem}.safetensors"
        write_safetensors(path, shards[0] if shards else {}, metadata, dtype)
        return [path]
    paths = [directory / f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    weight_map: dict[str, str] = {}
    for path, shard in zip(paths, shards, strict=True):
        write_safetensors(path, shard, metadata, dtype)
        weight_map.update(dict.fromkeys(shard, path.name))
    index = directory / f"{stem}.safetensors.index.json"
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_text(index, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return [*paths, index]


def load_sharded(directory: str | os.PathLike, stem: str = "model") -> dict[str, np.ndarray]:
    """Tensors that ``save_sharded`` or the Hugging Face hub wrote, as memory-mapped read-only arrays.

    Arguments and errors as of :func:`open_sharded`.
    """
    return {name: file[name] for file in open_sharded(directory, stem) for name in file}


def open_sharded(
    directory: str | os.PathLike, stem: str = "model", variant: str = FULL
) -> list[SafetensorsFile]:
    """The one file, or the files of an index, that hold a model; their headers are read and checked.

    Args:
        directory: the folder.
        stem: ``model`` for ``model.safetensors`` or ``model.safetensors.index.json``.
        variant: one of ``weight_files.weight_variants``.

    Raises:
        FileNotFoundError: no index and no single file, or the index names a file that is absent.
        SafetensorsError: a damaged file, or a file and the index disagree about which tensors it holds.
    """
    directory = Path(directory)
    found = weight_variants(directory, stem).get(variant)
    if found is None:
        name = f"{stem}.safetensors" if variant == FULL else f"{stem}.{variant}.safetensors"
        index = f"{stem}.safetensors.index{'.' if variant else ''}{variant}.json"
        raise MissingFile(f"{directory} holds neither {name} nor {index}.")
    if not is_index(found):
        return [SafetensorsFile(found)]
    weight_map = read_weight_map(found)
    files = []
    for name in sorted(set(weight_map.values())):
        file = SafetensorsFile(directory / name)
        expected = {tensor for tensor, where in weight_map.items() if where == name}
        if set(file) != expected:
            raise SafetensorsError(
                f"{file.path}: the file and {found.name} disagree; {_differences(expected, set(file))}. "
                "The shards are of different sets: copy the whole folder again."
            )
        files.append(file)
    return files


def _differences(expected: set[str], found: set[str]) -> str:
    return "; ".join(
        f"{what} {listed(sorted(names))}"
        for what, names in (("missing", expected - found), ("unexpected", found - expected))
        if names
    )


def flatten(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """A nested dict of arrays as ``{"block_0.attention.kernel": array}``, in sorted order of names.

    Raises:
        ValueError: a key is empty, not a string, or contains the separator.
    """
    flat: dict[str, Any] = {}

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key in sorted(node):
            if not isinstance(key, str) or not key or separator in key:
                raise InvalidValue(f"Key {key!r} under {prefix!r}: expected a string without {separator!r}.")
            if isinstance(node[key], Mapping):
                walk(node[key], f"{prefix}{key}{separator}")
            else:
                flat[prefix + key] = node[key]

    walk(tree, "")
    return flat


def unflatten(flat: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """The nested dict that ``flatten`` took apart."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, leaf = name.split(separator)
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise InvalidValue(f"{name!r} lies under a name that is itself a tensor.")
        if isinstance(node.get(leaf), dict):
            raise InvalidValue(f"{name!r} is a tensor and a group of tensors at once.")
        node[leaf] = value
    return tree
