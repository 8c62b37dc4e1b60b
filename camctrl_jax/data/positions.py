"""What a saved position means for a stream that is not as it was: which clips it passes over or repeats.

A position counts batches. What a stream had drawn by then is stored beside it, bucket by bucket
(``Drawn.to_json``); the same of the stream that goes on from there tells the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from camctrl_jax.data.clip_sets import fingerprint
from camctrl_jax.errors import InvalidValue


@dataclass(frozen=True)
class Drawn:
    """What one bucket has drawn up to a position, by all processes.

    Attributes:
      bucket: its name.
      batch_size: clips in one of its batches.
      batches: how many it had.
      clips: per kind of clip how many were drawn, repetitions included; kinds that are never drawn are left
        out.
      pools: per kind how many clips there are to draw from, and a fingerprint of which.
    """

    bucket: str
    batch_size: int
    batches: int
    clips: Mapping[str, int]
    pools: Mapping[str, Sequence[int]]

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "bucket": self.bucket,
            "batch_size": self.batch_size,
            "batches": self.batches,
            "clips": dict(self.clips),
            "pools": {kind: list(pool) for kind, pool in self.pools.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Drawn:
        """What :meth:`to_json` returned."""
        return cls(**content)


def pool_of(clips: np.ndarray) -> list[int]:
    """How many clips a pool has, and a fingerprint of which."""
    return [len(clips), fingerprint(np.asarray(clips, "<i8").tobytes())]


def differences_of(saved: Sequence[Drawn], now: Sequence[Drawn], batches: int) -> tuple[str, ...]:
    """Sentences on how the clips that follow are not those that would have followed; none where they are.

    Args:
      saved: what the buckets of the stream that was saved had drawn.
      now: what those of the stream that goes on would have drawn by the same position.
      batches: the position.
    """
    if not batches:
        return ()
    sentences = []
    for number in range(max(len(saved), len(now))):
        if number >= len(now):
            sentences.append(f"{saved[number].bucket}: not drawn any more")
            continue
        before, after = saved[number] if number < len(saved) else None, now[number]
        sentences += [f"{after.bucket}: {words}" for words in _of_bucket(before, after, batches)]
    return tuple(sentences)


def _of_bucket(before: Drawn | None, after: Drawn, batches: int) -> list[str]:
    if before is None:
        cause = "new since the checkpoint"
    elif before.batch_size != after.batch_size:
        cause = f"batches of {after.batch_size} clips where they were {before.batch_size}"
    elif before.batches != after.batches:
        cause = f"{after.batches} of the {batches} batches so far would be its own, {before.batches} were"
    else:
        cause = "another share of each kind of clip"
    sentences, moved = [], []
    for kind, count in after.clips.items():
        had = 0 if before is None else before.clips.get(kind, 0)
        known = None if before is None else before.pools.get(kind)
        own = list(after.pools[kind])
        if known is not None and list(known) != own:
            other = " others" if known[0] == own[0] else ""
            sentences.append(
                f"the checkpoint drew from {known[0]} {_clips(kind)}, this run draws from {own[0]}{other}, "
                "in another order: which of them come again before others have come once is not known"
            )
        elif count != had:
            fate = "passed over" if count > had else "drawn again"
            moved.append(f"{abs(count - had)} {_clips(kind)} are {fate}")
    if moved:
        sentences.append(f"{cause}. Positions count batches: in the order of drawing {' and '.join(moved)}")
    gone = [kind for kind in (before.clips if before else ()) if kind not in after.clips]
    if gone:
        sentences.append(f"{' and '.join(map(_clips, gone))} are not drawn any more")
    return sentences


def _clips(kind: str) -> str:
    return f"{kind} clips".strip()


def check_same_clips(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Check that a position is one in the clips of a stream, drawn by its seed.

    Args:
      saved: the position.
      own: ``kind``, ``seed``, ``clips`` (how many) and ``ids`` (a fingerprint) of the stream. Positions of
        earlier versions say nothing of ``ids``.

    Raises:
      ValueError: says what differs.
    """
    sources = {"clips": "datasets", "resident": "worlds in memory", "sets": "several sets of worlds"}
    if saved.get("kind") != own["kind"]:
        there = sources.get(saved.get("kind"), repr(saved.get("kind")))
        differs = f"it counts in {there}, this run draws from {sources[own['kind']]}"
    elif saved.get("clips") != own["clips"]:
        differs = f"it counts in {_counts(saved.get('clips'))} clips, this run has {_counts(own['clips'])}"
    elif "ids" in saved and saved["ids"] != own["ids"]:
        differs = f"it counts in as many clips ({_counts(own['clips'])}), but in others, or in another order"
    elif saved.get("seed") != own["seed"]:
        differs = f"it was drawn with seed {saved.get('seed')}, this run has {own['seed']}"
    else:
        return
    raise InvalidValue(
        f"this data position does not belong to this stream: {differs}. Resume with the data settings and "
        "the seed of the run that saved it."
    )


def _counts(clips: Any) -> str:
    """Numbers of clips per dataset, or of all."""
    return " + ".join(map(str, clips)) if isinstance(clips, (list, tuple)) else str(clips)
