"""Where a camera can go in a place: a grid of free cells, shortest ways on it, and ways drawn tight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from camctrl_jax.worlds.places.solids import Footprints

CELL = 0.25  # metres
_COMFORT = 0.9  # metres; cells nearer to a solid cost more, so that ways keep to the middle
_STEPS = [(1, 0), (0, 1), (1, 1), (1, -1)]


@dataclass(frozen=True, eq=False)
class Map:
    """Free cells of the ground and their neighbours.

    Attributes:
        solids: outlines that are to be kept clear of.
        keep: least distance to them, metres.
        cells: f64 [C, 2] (x, z), middles of the free cells that can all be reached from each other.
        clearance: f64 [C], distance of each to the nearest outline.
    """

    solids: Footprints
    keep: float
    cells: np.ndarray
    clearance: np.ndarray
    _edges: tuple[np.ndarray, np.ndarray, np.ndarray]  # from, to, length
    _corner: np.ndarray  # [2], middle of the first cell of the whole grid, free or not
    _grid: np.ndarray  # [X, Z], clearance of all its cells

    @classmethod
    def of(
        cls, solids: Footprints, keep: float, west: float, east: float, south: float, north: float
    ) -> Map | None:
        """The map of a rectangle; None where hardly anything in it is free."""
        x, z = np.arange(west, east, CELL), np.arange(south, north, CELL)
        grid = np.stack(np.meshgrid(x, z, indexing="ij"), axis=-1)
        clearance = np.minimum(solids.nearest(grid), 5.0)
        free = clearance > keep
        number = np.full(free.shape, -1)
        number[free] = np.arange(free.sum())
        ends = []
        for dx, dz in _STEPS:
            here = number[: len(x) - dx, max(0, -dz) : len(z) - max(0, dz)]
            there = number[dx:, max(0, dz) : len(z) - max(0, -dz)]
            both = (here >= 0) & (there >= 0)
            ends.append((here[both], there[both], np.full(both.sum(), CELL * np.hypot(dx, dz))))
        start, stop, length = (np.concatenate(part) for part in zip(*ends, strict=True))
        count = int(free.sum())
        if count < 40:
            return None
        _, part = connected_components(csr_array((length, (start, stop)), (count, count)), directed=False)
        largest = part == np.bincount(part).argmax()
        renamed = np.cumsum(largest) - 1
        kept = largest[start]
        edges = renamed[start[kept]], renamed[stop[kept]], length[kept]
        corner = np.array([x[0], z[0]])
        return cls(solids, keep, grid[free][largest], clearance[free][largest], edges, corner, clearance)

    def ways(self, cell: int, dear: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Cost f64 [C] of the cheapest way from a cell to every cell, and the cell before each on it.

        ``dear`` f64 [C] multiplies the cost of cells.
        """
        cost = 1.0 + 2.0 * np.maximum(_COMFORT - self.clearance, 0.0) / _COMFORT
        if dear is not None:
            cost = cost * dear
        start, stop, length = self._edges
        weight = length * 0.5 * (cost[start] + cost[stop])
        count = len(self.cells)
        graph = csr_array((weight, (start, stop)), (count, count))
        return dijkstra(graph, directed=False, indices=cell, return_predecessors=True)

    def way(self, before: np.ndarray, goal: int, ahead: int = 25) -> np.ndarray:
        """Points f64 [N, 2] of the way to a cell, from what ``ways`` gave, drawn tight: straight lines
        replace up to ``ahead`` cells."""
        cells = [goal]
        while before[cells[-1]] >= 0:
            cells.append(before[cells[-1]])
        return self._tight(self.cells[cells[::-1]], ahead)

    def apart(self, points: np.ndarray) -> np.ndarray:
        """Whether points [..., 2] keep the distance.

        The clearance of the nearest cell settles it for most: the distance changes by no more than one goes.
        """
        cell = np.rint((points - self._corner) / CELL).astype(int)
        cell = np.clip(cell, 0, np.array(self._grid.shape) - 1)
        there = self._grid[cell[..., 0], cell[..., 1]]
        away = np.sqrt(np.square(points - (self._corner + CELL * cell)).sum(axis=-1))
        apart = there - away > self.keep + 1e-9
        unsure = ~apart & (there + away > self.keep - 1e-9)
        if unsure.any():
            apart[unsure] = self.solids.nearest(points[unsure], self.keep) > self.keep
        return apart

    def clear(self, first: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether straight lines from a point [2] to points [N, 2] keep the distance."""
        count = max(2, int(np.linalg.norm(others - first, axis=1).max(initial=0.0) / 0.15))
        share = np.linspace(0.0, 1.0, count)[:, None, None]
        return self.apart(first + share * (others - first)).all(axis=0)

    def _tight(self, points: np.ndarray, most: int) -> np.ndarray:
        """Corners that straight lines make needless are left out."""
        kept, at = [points[0]], 0
        while at < len(points) - 1:
            ahead = np.arange(at + 1, min(at + most, len(points)))
            seen = np.flatnonzero(self.clear(points[at], points[ahead]))
            at = int(ahead[seen[-1]]) if len(seen) else at + 1
            kept.append(points[at])
        return np.array(kept)

    def inside(self, points: np.ndarray) -> bool:
        """Whether all points [N, 2] keep the distance and lie within the part that the map is of."""
        low, high = self.cells.min(axis=0) - CELL, self.cells.max(axis=0) + CELL
        within = ((points > low) & (points < high)).all()
        return bool(within and self.apart(points).all())

    def nearest_cell(self, point: np.ndarray) -> int:
        return int(np.linalg.norm(self.cells - point, axis=1).argmin())
