"""What devices send each other in a compiled program, read from its text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8, "c64": 8, "f8e4m3fn": 1, "f8e5m2": 1}

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_OPERATION = re.compile(rf" ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}")
_MESH_AXIS = re.compile(r"'(\w+)'(?:=(\d+))?")
_CONSTANT = re.compile(r"%?([\w.\-]+) = [su]\d+\[\]\S* constant\((\d+)\)")
_LESS = re.compile(r" compare\(%?([\w.\-]+), %?([\w.\-]+)\), direction=LT")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_PAIRS = re.compile(r"source_target_pairs=\{\{(\d+),(\d+)\}")


@dataclass(frozen=True)
class Collective:
    """All collectives of one kind over groups of one size.

    Attributes:
        kind: one of ``KINDS``.
        group: devices that exchange with each other.
        across: whether a group spans hosts.
        count: how often one runs in a step; the body of a loop counts once a turn.
        bytes: that one device sends in a step, by a ring.
    """

    kind: str
    group: int
    across: bool
    count: int
    bytes: float


def collectives_of(text: str, hosts: Sequence[int]) -> list[Collective]:
    """Read them from the text of an optimised program.

    Args:
        text: ``compiled.as_text()``.
        hosts: the host of every device, in the order of the mesh.

    Returns:
        By kind, the most bytes first.
    """
    bodies, entry = _computations(text)
    times = _times(bodies, entry)
    totals: dict[tuple[str, int, bool], list[float]] = defaultdict(lambda: [0, 0.0])
    for name, lines in bodies.items():
        for line in lines:
            found = _OPERATION.search(line)
            if not found or not times[name]:
                continue
            kind, asynchronous = found[1], bool(found[2])
            size = _result_bytes(line[: found.start()], kind, asynchronous)
            group = _group(line, len(hosts))
            if len(group) < 2:
                continue
            across = len({hosts[device] for device in group}) > 1
            total = totals[kind, len(group), across]
            total[0] += times[name]
            total[1] += times[name] * _sent(kind, size, len(group))
    found = [Collective(*key, int(count), size) for key, (count, size) in totals.items()]
    return sorted(found, key=lambda collective: -collective.bytes)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """(the lines of every computation, the name of the first to run)."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line.endswith("{") and (line.startswith(("ENTRY", "%")) or line[:1].isalpha()):
            match = _COMPUTATION.match(line)
            if match and not line.startswith("HloModule"):
                current = bodies.setdefault(match[1], [])
                entry = match[1] if line.startswith("ENTRY") else entry
        elif current is not None:
            if line.rstrip() == "}":  # a kernel's description spans lines, some of which begin alike
                current = None
            else:
                current.append(line)
    return bodies, entry


def _times(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
    """How often every computation runs in one run of ``entry``."""
    called: dict[str, list[tuple[str, int]]] = {name: [] for name in bodies}
    for name, lines in bodies.items():
        for line in lines:
            turns = _turns(line, bodies) if " while(" in line else 1
            names = _CALLED.findall(line)
            for branches in _BRANCHES.findall(line):
                names += [branch.strip().lstrip("%") for branch in branches.split(",")]
            called[name] += [(other, turns) for other in names if other in bodies]
    times: dict[str, int] = defaultdict(int)

    def walk(name: str, factor: int) -> None:
        times[name] += factor
        for other, turns in called[name]:
            walk(other, factor * turns)

    walk(entry, 1)
    return times


def _turns(line: str, bodies: dict[str, list[str]]) -> int:
    """How often the body of a loop runs: as written down, or the number that its counter stays below."""
    known = _TRIPS.search(line)
    if known:
        return int(known[1])
    condition = _CONDITION.search(line)
    lines = bodies.get(condition[1], []) if condition else []
    constants = dict(found for line in lines for found in _CONSTANT.findall(line))
    for line in lines:
        less = _LESS.search(line)
        if less and less[2] in constants:
            return int(constants[less[2]])
    return 1


def _result_bytes(head: str, kind: str, asynchronous: bool) -> float:
    """Bytes of what one device holds of the result; ``head`` is the line up to the operation."""
    shapes = [
        _BYTES.get(dtype, 4) * float(np.prod([int(n) for n in sizes.split(",") if n] or [1]))
        for dtype, sizes in _SHAPE.findall(head.split("=", 1)[-1])
        if sizes or not asynchronous  # what started later ends carries counters along
    ]
    if not asynchronous or len(shapes) < 2:
        return sum(shapes)
    # (operands ..., results ...): of each as many.
    half = len(shapes) // 2
    return sum(shapes[half : 2 * half]) if kind in ("all-gather", "reduce-scatter") else sum(shapes[:half])


def _group(line: str, devices: int) -> list[int]:
    """The devices of the first group."""
    iota = _IOTA.search(line)
    if iota:
        shape, dims = ([int(n) for n in iota[i].split(",")] for i in (1, 2))
        order = np.arange(np.prod(dims)).reshape(dims)
        if iota[3]:
            order = order.transpose([int(n) for n in iota[3].split(",")])
        return order.reshape(shape).reshape(-1, shape[-1])[0].tolist()
    mesh = _MESH.search(line)
    if mesh:
        axes = {name: int(size) for name, size in _MESH_AXIS.findall(mesh[1])}
        order = np.arange(np.prod(list(axes.values()))).reshape(tuple(axes.values()))
        over = [name for name, _ in _MESH_AXIS.findall(mesh[2])]
        return order[tuple(slice(None) if name in over else 0 for name in axes)].ravel().tolist()
    listed = _LISTED.search(line)
    if listed:
        return [int(n) for n in listed[1].split(",")]
    pair = _PAIRS.search(line)
    return [int(pair[1]), int(pair[2])] if pair else list(range(devices))


def _sent(kind: str, size: float, group: int) -> float:
    """Bytes that one device sends, by a ring, for a result of ``size`` bytes on each."""
    if group < 2:
        return 0.0
    if kind in ("collective-permute", "collective-broadcast"):
        return size
    share = (group - 1) / group
    if kind == "all-reduce":
        return 2 * share * size
    return size * (group - 1) if kind == "reduce-scatter" else share * size
