"""Which worlds are trained on, and sampling their scenes by a pool of processes.

Clips of worlds that lie ahead are one a seed. Of places, a seed is a take, of which a set has one window or
several: a take of 500 frames costs the host five times what a window of it costs, so several are cheap.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.camera.retrieval import select_frames
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.randomness import generator_at
from camctrl_jax.errors import InvalidValue, UserError
from camctrl_jax.worlds import (
    World,
    WorldsConfig,
    at_frames,
    render_coarse_truth,
    render_rgb,
    sample_world,
    window,
)

_WINDOWS, _MEMORY = 4, 6  # what a generator is for, as part of its position
_GIVEN = 5  # frames at the start of a window that are thought to be given when others are retrieved for it
# Clips from which on processes sample: starting them takes seconds, a place twenty times as long as a world.
_MANY_WORLDS, _MANY_PLACES = 256, 64
_MOST_PROCESSES = 32


class Sampled(NamedTuple):
    """A clip: what it shows, and the frames of its take that may be retrieved for it, as a world of these
    frames; those that were selected come first. None where nothing is retrieved.
    """

    world: World
    memory: World | None = None


class SamplersDied(UserError):
    """The processes that sample worlds ended without a result."""


@dataclass(frozen=True)
class WorldsSet:
    """Which worlds, and how they are pictured.

    Attributes:
      seeds: of the worlds, or of the takes of places; the same seed is the same world everywhere.
      height, width: pixels, multiples of 16.
      config: of the worlds. Its aspect follows height and width, so that pixels are square.
      samples: rays per pixel and axis.
      labels: clips bring their coarse truth as well; see :meth:`truth`.
      windows_per_take: clips that are cut out of one take of a place, from anywhere in it. One is the window
        that ``sample_world`` gives.
      retrieved: R, frames of the rest of its take that a sample is shown beside the window. Clips bring
        ``candidates``, twice as many to draw from.

    Raises:
      InvalidValue: no seeds, a size that clips cannot have, takes that hold no such windows, or that have
        nothing beside them to retrieve.
    """

    seeds: range
    height: int
    width: int
    config: WorldsConfig = field(default_factory=WorldsConfig)
    samples: int = 2
    labels: bool = False
    windows_per_take: int = 1
    retrieved: int = 0

    def __post_init__(self) -> None:
        ClipShape(self.config.frames, self.height, self.width).check()
        if len(self.seeds) == 0:
            raise InvalidValue(f"no world seeds in {self.seeds}; give a range such as range(0, 1000).")
        object.__setattr__(self, "config", replace(self.config, aspect=self.width / self.height))
        self.config.validate()
        room = self.take_frames - self.config.frames + 1
        if not 1 <= self.windows_per_take <= room:
            raise InvalidValue(
                f"windows_per_take is {self.windows_per_take}; takes of {self.take_frames} frames hold 1 to "
                f"{room} windows of {self.config.frames} frames. Only takes of places may be longer than "
                "clips: see take_frames."
            )

        if self.retrieved < 0 or (self.retrieved and room < 2):
            raise InvalidValue(
                f"retrieved is {self.retrieved}; expected 0, or some frames out of takes of places that are "
                f"longer than the clips of {self.config.frames} frames: see take_frames."
            )

    def __len__(self) -> int:
        return len(self.seeds) * self.windows_per_take

    @property
    def candidates(self) -> int:
        """M = 2 R frames from which a batch draws those that are retrieved."""
        return 2 * self.retrieved

    @property
    def take_frames(self) -> int:
        """Frames of what a seed gives, of which a clip shows ``config.frames``."""
        places = self.config.places
        return self.config.frames if places is None else places.take_frames or self.config.frames

    @property
    def ids(self) -> tuple[str, ...]:
        """A name for each clip: the world, or the take and the frame of it that a window begins with."""
        if self.config.places is None:
            return tuple(f"world-{seed}" for seed in self.seeds)
        if not self._cuts:
            return tuple(f"place-{seed}" for seed in self.seeds)
        return tuple(f"place-{seed}-from-{start}" for seed in self.seeds for start in self._starts(seed))

    @property
    def shared_reference(self) -> bool:
        """Whether clips are takes, or windows out of them, with poses from the takes' first cameras."""
        return self.config.places is not None

    @property
    def _cuts(self) -> bool:
        """Whether windows are cut here, and not by ``sample_world``."""
        return self.windows_per_take > 1 or self.retrieved > 0

    def _starts(self, seed: int) -> list[int]:
        """First frames of a take's windows: one anywhere in each of so many equal parts of where there is
        room.
        """
        count, room = self.windows_per_take, self.take_frames - self.config.frames + 1
        draws = generator_at(seed, _WINDOWS).random(count)
        return np.floor((np.arange(count) + draws) * room / count).astype(int).tolist()

    def _memory(self, take: World, start: int) -> World | None:
        """The candidates for the window from ``start`` on: half of them chosen for what it will look at, from
        before it (where there is nothing, from anywhere outside), half drawn from anywhere outside.
        """
        if not self.retrieved:
            return None
        stop = start + self.config.frames
        outside = np.concatenate([np.arange(start), np.arange(stop, take.frames)])
        history = outside[outside < start] if start else outside
        given = min(start + _GIVEN, stop - 1)
        selected = select_frames(
            take.cameras[history],
            take.cameras[given:stop],
            self.retrieved,
            given=take.cameras[start:given],
            seed=take.seed,
        )
        rng = generator_at(take.seed, _MEMORY, start)
        drawn = rng.choice(outside, self.retrieved, replace=len(outside) < self.retrieved)
        return at_frames(take, np.concatenate([history[selected], drawn]))

    def sample(self, numbers: Sequence[int]) -> list[Sampled]:
        """The clips of some numbers, below ``len``; a take is sampled once for neighbours of it."""
        if not self._cuts:
            return [Sampled(sample_world(self.seeds[number], self.config)) for number in numbers]
        whole = replace(
            self.config, frames=self.take_frames, places=replace(self.config.places, take_frames=None)
        )
        clips = []
        for place, members in itertools.groupby(numbers, lambda number: number // self.windows_per_take):
            take = sample_world(self.seeds[place], whole)
            starts = self._starts(self.seeds[place])
            for start in (starts[number % self.windows_per_take] for number in members):
                clips.append(Sampled(window(take, start, self.config.frames), self._memory(take, start)))
        return clips

    def workers_of(self, workers: int | None) -> int:
        """Processes that sample: as asked, or by the number of clips and cores; 0 is none."""
        if workers is not None:
            return workers
        many = _MANY_WORLDS if self.config.places is None else _MANY_PLACES
        return 0 if len(self) < many else min(_MOST_PROCESSES, os.cpu_count() or 1)

    def render(self, worlds: Sequence[World]) -> Array:
        """Videos u8 [n, T, H, W, 3] of some of them, on the default device."""
        return render_rgb(worlds, self.height, self.width, self.samples)

    def truth(self, worlds: Sequence[World]) -> dict[str, Array]:
        """``log_depth`` and ``moving_share`` f16 [n, T, H / 16, W / 16] of some of them, if ``labels``; see
        ``camctrl_jax.worlds.render_coarse_truth``.
        """
        if not self.labels:
            return {}
        log_depth, moving_share = render_coarse_truth(worlds, self.height, self.width)
        return {"log_depth": log_depth.astype(jnp.float16), "moving_share": moving_share.astype(jnp.float16)}


def _leave_devices_alone() -> None:
    """Run in every sampling process: it shares the machine with the one that owns the accelerator."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")


class Samplers:
    """Processes that sample worlds, of one set after the other; starting them takes seconds.

    A context manager: they are there from its beginning to its end.
    """

    def __init__(self, count: int) -> None:
        """
        Args:
            count: processes, at least one.
        """
        self.count = count
        self._pool = ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=_leave_devices_alone
        )

    def submit(self, worlds: WorldsSet, numbers: Sequence[int]) -> Future[list[Sampled]]:
        """Sample the clips of some numbers."""
        return self._pool.submit(worlds.sample, numbers)

    def __enter__(self) -> Samplers:
        self._pool.submit(os.getpid)  # they all start with the first thing to do
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def sampled_worlds(
    worlds: WorldsSet,
    numbers: Sequence[int],
    *,
    chunk: int,
    workers: int,
    samplers: Samplers | None = None,
) -> Iterator[list[Sampled]]:
    """Clips of ``numbers`` in their order, ``chunk`` at a time.

    With workers, spawned processes sample ahead by at most two chunks each, so host memory stays bounded.
    With 0 workers the calling process samples, which is as good for small numbers and needs no importable
    main module. ``samplers`` that are there are taken in place of others.
    """
    chunks = [numbers[start : start + chunk] for start in range(0, len(numbers), chunk)]
    if samplers is None and workers == 0:
        for each in chunks:
            yield worlds.sample(each)
        return
    try:
        with contextlib.ExitStack() as own:
            pool = own.enter_context(Samplers(workers)) if samplers is None else samplers
            waiting: deque = deque()
            ahead = iter(chunks)
            for each in itertools.islice(ahead, 2 * pool.count):
                waiting.append(pool.submit(worlds, each))
            while waiting:
                done = waiting.popleft().result()
                with contextlib.suppress(StopIteration):
                    waiting.append(pool.submit(worlds, next(ahead)))
                yield done
    except BrokenProcessPool as error:
        raise SamplersDied(
            "the processes that sample worlds died. If this comes from a script, start its work under "
            "`if __name__ == '__main__':` (the processes import the script again); or pass workers=0."
        ) from error
