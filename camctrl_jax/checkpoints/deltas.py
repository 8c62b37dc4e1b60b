"""A network as its difference from another one: small integers in place of the entries of matrices.

A student starts as its teacher and stays near it, so that what it learned fits into fewer bits than it has:

    weight = teacher's weight + step of the output channel * integer, integers from -127 to 127

A matrix ``a.kernel`` [..., N] is stored as ``a.kernel.step``, float32 [N], and ``a.kernel.delta``, bytes: its
int8 integers in C order, deflated (RFC 1950). Most integers are small, and Huffman codes of about four bits
hold them. Vectors, and parameters that the other network lacks, are stored whole under their own names. All
of this is made and read one tensor at a time.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from camctrl_jax.files.safetensors import SequentialTensors, Shaped, unflatten
from camctrl_jax.interop.described import WeightsError
from camctrl_jax.interop.finite import FILE_CAUSE, refuse_non_finite
from camctrl_jax.models.fingerprint import fingerprint_of_parameters

DELTA, STEP = ".delta", ".step"
_MOST = 127  # -128 is left out: an integer and its negative are both there
# Between a share of what was learned, which gives every matrix as many bits, and one of the weights, which
# gives each the same relative error: smaller than either at equal PSNR. Videos of the flow map in the package
# stay above 40 dB of those of its whole weights (docs/results/student_delta.py).
SHARE = 0.08
_BY_NAME = "default"  # found by name wherever the package is; every other folder by its path
_AGAIN = "The file is damaged or of another version: copy or download it again."


@dataclass(frozen=True)
class DeltaOf:
    """What a transformer is stored as a difference from.

    Attributes:
        of: weights of the other: 'default', or the path of their folder from the one that says so.
        fingerprint: of the other's transformer (``fingerprint_of_parameters``).
    """

    of: str
    fingerprint: str

    @classmethod
    def to(cls, spec: str, others: Mapping[str, np.ndarray], directory: Path) -> DeltaOf:
        """What a folder ``directory`` holds: differences from the parameters ``others`` of ``spec``."""
        of = spec if spec == _BY_NAME else os.path.relpath(spec, directory)
        return cls(of, fingerprint_of_parameters(unflatten(others)))

    def spec(self, directory: Path) -> str:
        """The weights spec of the other network, as the folder ``directory`` names it.

        Raises:
            WeightsError: nothing is there.
        """
        if self.of == _BY_NAME:
            return self.of
        path = os.path.normpath(directory / self.of)
        if not os.path.exists(path):
            raise WeightsError(
                f"{directory} holds differences from the weights {self.fingerprint} at {path}, where nothing "
                "is: copy that folder along, to the same place beside this one."
            )
        return path

    def check(self, others: Mapping[str, np.ndarray], directory: Path, found: Path) -> None:
        """Whether parameters are those that differences were taken from.

        Args:
            others: the parameters, by dotted name.
            directory, found: folders of the differences and of the parameters, for the message.

        Raises:
            WeightsError: they are not; names both fingerprints.
        """
        fingerprint = fingerprint_of_parameters(unflatten(others))
        if fingerprint != self.fingerprint:
            raise WeightsError(
                f"{directory} holds differences from the transformer {self.fingerprint}, and that of "
                f"{self.of!r} ({found}) is {fingerprint}: other weights have taken its place. Put those back "
                "that the differences were taken from, or use weights that are stored whole."
            )


def quantised(difference: np.ndarray, usual: float, share: float = SHARE) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as integers and steps.

    Args:
        difference: f32 [..., N], finite.
        usual: root mean square of the other network's matrix.
        share: a step, as a share of the geometric mean of ``usual`` and the root mean square of an output
            channel's differences. Larger where 127 steps would not reach the channel's largest entry.

    Returns:
        int8 [..., N] and f32 [N]: their product is off by at most half a step (and what float32 rounds).
    """
    columns = np.asarray(difference, np.float32).reshape(-1, difference.shape[-1])
    moved = np.sqrt(np.mean(columns**2, axis=0)) if len(columns) else np.zeros(difference.shape[-1])
    largest = np.abs(columns).max(axis=0, initial=0.0)
    step = np.maximum(share * np.sqrt(moved * usual), largest / _MOST).astype(np.float32)
    integers = np.rint(columns / np.where(step > 0, step, 1))
    return np.clip(integers, -_MOST, _MOST).astype(np.int8).reshape(difference.shape), step


def deflated(integers: np.ndarray) -> np.ndarray:
    """int8 of any shape as u8 [bytes]; the same integers give the same bytes with one version of zlib."""
    # Without a search for repetitions, of which learned differences have none.
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return np.frombuffer(packer.compress(integers.tobytes()) + packer.flush(), np.uint8)


def inflated(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The int8 of a shape that :func:`deflated` packed.

    Raises:
        WeightsError: the bytes are damaged, or hold more or fewer; never unpacks more than the shape has.
    """
    size, reader = math.prod(shape), zlib.decompressobj()
    try:
        raw = reader.decompress(packed.tobytes(), size + 1)
    except zlib.error as error:
        raise WeightsError(f"cannot be inflated ({error}). {_AGAIN}") from error
    if len(raw) != size or not reader.eof or reader.unused_data:
        raise WeightsError(f"does not hold the {size} integers of {list(shape)}. {_AGAIN}")
    return np.frombuffer(raw, np.int8).reshape(shape)


def delta_tensors(
    flat: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], share: float = SHARE
) -> dict[str, np.ndarray]:
    """The tensors to store for a network.

    Args:
        flat: its parameters by dotted name, as they would be stored whole.
        others: those of the network that it differs from, of the same shapes where both have one.
        share: as of :func:`quantised`.
    """
    stored = {}
    for name, array in flat.items():
        if array.ndim < 2 or name not in others:
            stored[name] = array
        else:
            other = np.asarray(others[name], np.float32)
            usual = float(np.sqrt(np.mean(other**2))) if other.size else 0.0
            integers, stored[name + STEP] = quantised(np.asarray(array, np.float32) - other, usual, share)
            stored[name + DELTA] = deflated(integers)
    return stored


class RestoredTensors(Mapping[str, np.ndarray]):
    """The parameters that stored differences stand for, by dotted name; each is computed when asked for.

    Matrices come in bfloat16, as they do where they are stored whole: everyone reads the same weights.

    Args:
        stored: tensors of the folder.
        others: parameters of the network that they differ from.

    Raises:
        WeightsError: tensors that no difference from this network has; names file and tensor.
    """

    def __init__(self, stored: SequentialTensors, others: Mapping[str, np.ndarray]) -> None:
        self._stored, self._others, self._found = stored, others, stored.shapes()
        self._differs = {}
        for name in stored:
            own = name.removesuffix(DELTA).removesuffix(STEP)
            self._differs[own] = self._differs.get(own, False) or own != name
        for name in self._differs:
            if self._differs[name]:
                self._check(name)

    def _check(self, name: str) -> None:
        parts = [name + end for end in (DELTA, STEP)]
        where = self._stored.path(next(part for part in parts if part in self._found))
        missing = [part for part in parts if part not in self._found]
        if missing:
            raise WeightsError(f"{where}: {missing[0]}, the other half of {name}, is missing. {_AGAIN}")
        if name in self._found:
            raise WeightsError(f"{where}: {name} is there both whole and as a difference. {_AGAIN}")
        if name not in self._others:
            raise WeightsError(f"{where}: {name} is a difference from what the other lacks. {_AGAIN}")
        outputs = self._others[name].shape[-1:]
        step, delta = self._found[parts[1]], self._found[parts[0]]
        if step != (outputs, np.dtype(np.float32)):
            raise WeightsError(
                f"{where}: {parts[1]} is {step.dtype} {list(step.shape)}; expected float32 {list(outputs)}, "
                f"one for each output channel of {name}. {_AGAIN}"
            )
        if delta.dtype != np.uint8:
            raise WeightsError(f"{where}: {parts[0]} is {delta.dtype}; expected uint8. {_AGAIN}")

    def __getitem__(self, name: str) -> np.ndarray:
        if not self._differs[name]:
            return self._stored[name]
        step, packed = self._stored[name + STEP], self._stored[name + DELTA]
        other = np.asarray(self._others[name])
        refuse_non_finite(step, f"{self.path(name)}: {name}{STEP}", FILE_CAUSE)
        try:
            integers = inflated(packed, other.shape)
        except WeightsError as error:
            raise WeightsError(f"{self.path(name)}: {name}{DELTA} {error}") from error
        return (other.astype(np.float32) + step * integers).astype(ml_dtypes.bfloat16)

    def __iter__(self) -> Iterator[str]:
        return iter(self._differs)

    def __len__(self) -> int:
        return len(self._differs)

    def path(self, name: str) -> Path:
        """The file that holds a parameter."""
        return self._stored.path(name + DELTA if self._differs[name] else name)

    def shapes(self) -> dict[str, Shaped]:
        """Shapes and dtypes of all parameters, without computing any."""
        matrix = np.dtype(ml_dtypes.bfloat16)
        return {
            name: Shaped(self._others[name].shape, matrix) if differs else self._found[name]
            for name, differs in self._differs.items()
        }
