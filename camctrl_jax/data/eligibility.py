"""Which clips a run draws: what of every dataset fits each bucket, why the rest does not, and what to do.

All of it follows from the indices of the datasets and the number of processes, so every process of a run
decides alike: one that raised while others train would leave them waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from camctrl_jax.clip_shape import longest_clip
from camctrl_jax.data.clip_sets import ClipSets, Given
from camctrl_jax.data.stream import Bucket
from camctrl_jax.errors import InvalidValue

KINDS = ("labelled", "unlabelled")
Ratio = tuple[int, int] | None


@dataclass(frozen=True)
class Limits:
    """What a clip must satisfy to be drawn.

    Attributes:
      ratio: labelled to unlabelled clips; None draws from all alike.
      fps: rate of the clips, within 5 %; None takes all.
      max_upscale: largest enlargement to fill a bucket.
      processes: how many share the clips; each needs one of every kind that is drawn.
    """

    ratio: Ratio
    fps: float | None
    max_upscale: float
    processes: int


@dataclass(frozen=True, eq=False)
class Selection:
    """The clips of one bucket, over all processes.

    Attributes:
      bucket: whose.
      size: (height, width) of its batches in pixels.
      pools: numbers of the labelled and of the unlabelled clips that fit.
      weights: how often each kind is drawn; 0 is never.
    """

    bucket: Bucket
    size: tuple[int, int]
    pools: tuple[np.ndarray, np.ndarray]
    weights: tuple[int, int]


@dataclass(frozen=True)
class Reason:
    """Why clips of a dataset are not drawn: how many, in words, and what to do about it."""

    count: int
    words: str
    remedy: str


@dataclass(frozen=True)
class Use:
    """What one bucket draws of one dataset; a clip may have several reasons not to be drawn."""

    bucket: Bucket
    drawn: int
    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        why = "; ".join(f"{reason.count} {reason.words}" for reason in self.reasons)
        return f"{self.drawn} in {self.bucket.name}" + (f" ({why})" if why else "")


@dataclass(frozen=True)
class DatasetReport:
    """What a run draws of one dataset.

    Attributes:
      folder: as the user named it.
      hidden: it was named under ``unlabelled``.
      clips: how many it holds.
      labelled: how many of these have cameras.
      uses: per bucket what is drawn.
    """

    folder: str
    hidden: bool
    clips: int
    labelled: int
    uses: tuple[Use, ...]

    @property
    def option(self) -> str:
        """The option that named it."""
        return "unlabelled" if self.hidden else "datasets"

    def __str__(self) -> str:
        ignored = f", cameras ignored (named under {self.option})" if self.hidden and self.labelled else ""
        uses = ", ".join(map(str, self.uses))
        return f"{self.folder}: {self.clips} clips, {self.labelled} labelled{ignored}; drawn: {uses}"

    def remarks(self) -> list[str]:
        """Sentences where a bucket leaves out most of it."""
        return [
            f"{self.folder}: {'none' if not use.drawn else f'only {use.drawn}'} of its {self.clips} clips "
            f"{'is' if use.drawn < 2 else 'are'} drawn in {use.bucket.name}: "
            + "; ".join(f"{reason.count} {reason.words}" for reason in use.reasons)
            + ". "
            + _remedies(use.reasons)
            for use in self.uses
            if 2 * use.drawn < self.clips
        ]


@dataclass(frozen=True)
class Plan:
    """What a run draws.

    Attributes:
      selections: per bucket.
      reports: per dataset that was named.
      remarks: what a user should know, whole sentences.
    """

    selections: tuple[Selection, ...]
    reports: tuple[DatasetReport, ...]
    remarks: tuple[str, ...]


def plan_of(sets: ClipSets, buckets: Sequence[Bucket], limits: Limits, every_dataset: bool = True) -> Plan:
    """Sort out which clips are drawn in which bucket.

    Every process needs at least one clip of each kind that is drawn. A ratio that cannot be kept is refused.
    Where every clip is alike, a kind with fewer clips than processes is left out, with a remark.

    Args:
      sets: the clips.
      buckets: the batch shapes.
      limits: what clips must satisfy.
      every_dataset: refuse a dataset of which no clip is drawn in any bucket.

    Raises:
      ValueError: there is nothing to draw of a dataset, of a kind, or for a process; says why, and the
        remedy.
    """
    labelled = sets.labelled()
    _check_kinds(sets, labelled, limits)
    selections, tables, remarks = [], [], list(sets.remarks)
    for bucket in buckets:
        checks = _checks(sets, bucket, limits)
        fits = np.logical_and.reduce([check.passed for check in checks])
        pools = (np.flatnonzero(fits & labelled), np.flatnonzero(fits & ~labelled))
        weights, left_out = _weights(sets, bucket, pools, limits)
        remarks += left_out
        selections.append(Selection(bucket, _size_of(sets, bucket, fits), pools, weights))
        tables.append([*checks, *_kind_checks(labelled, fits, weights, limits)])
    reports = tuple(
        _report(sets, given, [_use(given, bucket, table) for bucket, table in zip(buckets, tables)])
        for given in sets.given
    )
    if every_dataset:
        _check_every_dataset(reports)
    for selection, table in zip(selections, tables):
        _check_pools(selection, labelled, table, limits)
    remarks += [remark for report in reports for remark in report.remarks()]
    return Plan(tuple(selections), reports, tuple(remarks))


@dataclass(frozen=True, eq=False)
class _Check:
    """What a clip must satisfy: which clips pass, what the others have, and the remedy.

    Attributes:
      passed: bool over all clips.
      found: over all clips the values [clips] or [clips, n] that were looked at.
      named: such a value in words.
      words: of the clips that fail, with ``{found}`` for what they have.
      remedy: a sentence with ``{found}`` for what most that fail have.
      value: what stands there.
    """

    passed: np.ndarray
    found: np.ndarray
    named: Callable[[Any], str]
    words: str
    remedy: str
    value: Callable[[Any], str]

    def reason(self, where: slice | np.ndarray) -> Reason | None:
        """Why some of the clips in ``where`` fail, if any do."""
        failed = self.found[where][~self.passed[where]]
        if not len(failed):
            return None
        values, counts = np.unique(failed, axis=0, return_counts=True)
        values = values[np.argsort(-counts, kind="stable")]
        shown = " or ".join(map(self.named, values[:3])) + (" or others" if len(values) > 3 else "")
        remedy = self.remedy.format(found=self.value(values[0]))
        return Reason(len(failed), self.words.format(found=shown), remedy)


def _checks(sets: ClipSets, bucket: Bucket, limits: Limits) -> list[_Check]:
    frames = sets.column("num_frames")
    checks = [
        _Check(
            frames >= bucket.frames,
            frames,
            lambda count: f"{count} frame{'s' if count > 1 else ''}",
            f"have {{found}}, expected {bucket.frames} or more",
            f"Build it again with --frames {bucket.frames}, or train on shorter clips: "
            "--config.data.frames={found}",
            lambda count: str(longest_clip(int(count))),
        )
    ]
    if limits.fps is not None:
        rates = sets.column("fps")
        checks.append(
            _Check(
                np.abs(rates / limits.fps - 1.0) < 0.05,
                rates,
                lambda rate: f"{rate:g} fps",
                f"have {{found}}, expected {limits.fps:g} (within 5 %)",
                f"Build it again with --fps {limits.fps:g}, or take clips of that rate alone: "
                "--config.data.fps={found}",
                lambda rate: f"{rate:g}",
            )
        )
    return checks if bucket.size is None else [*checks, _size_check(sets, bucket.size, limits)]


def _size_check(sets: ClipSets, wanted: tuple[int, int], limits: Limits) -> _Check:
    sizes = np.stack([sets.column("height"), sets.column("width")], axis=1)
    name, (height, width) = "x".join(map(str, wanted)), wanted
    again = f"Build it again with --height {height} --width {width}, or train at its size: "
    if sets.latents:
        passed = (sizes == wanted).all(axis=1)
        words = f"have latents of {{found}} pixels, expected {name}"
    else:
        passed = (np.asarray(wanted) / sizes).max(axis=1) <= limits.max_upscale + 1e-6
        words = f"have {{found}} pixels and would be enlarged to fill {name}"
        again = again.replace("at its size", "at its size or less")

    def smaller(size: np.ndarray) -> str:
        # What a bucket may have: multiples of 16.
        return " ".join(
            f"--config.data.{side}={max(int(pixels) // 16 * 16, 16)}"
            for side, pixels in zip(("height", "width"), size)
        )

    return _Check(passed, sizes, lambda size: "x".join(map(str, size)), words, again + "{found}", smaller)


def _kind_checks(
    labelled: np.ndarray, fits: np.ndarray, weights: tuple[int, int], limits: Limits
) -> list[_Check]:
    """Clips that fit, but whose kind is not drawn."""
    checks = []
    for kind, of_kind, weight in zip(KINDS, (labelled, ~labelled), weights):
        if weight:
            continue
        if limits.ratio is None:
            words = f"are {kind}, fewer in all than the {limits.processes} processes"
            remedy = "Train in fewer processes, or add such clips"
        else:
            words = f"are {kind}, and labelled_to_unlabelled={_ratio(limits.ratio)} draws none of these"
            remedy = f"Give {kind} clips a share, such as --config.data.labelled_to_unlabelled=4,1"
        checks.append(_Check(~(of_kind & fits), of_kind, str, words, remedy, str))
    return checks


def _weights(
    sets: ClipSets, bucket: Bucket, pools: tuple[np.ndarray, np.ndarray], limits: Limits
) -> tuple[tuple[int, int], list[str]]:
    """How often each kind is drawn, and remarks on what is left out."""
    if limits.ratio is not None:
        return limits.ratio, []
    counts = [len(pool) for pool in pools]
    enough = [count >= limits.processes for count in counts]
    if not any(enough):
        return (counts[0], counts[1]), []
    remarks = [
        f"{counts[kind]} {KINDS[kind]} clips are not used in {bucket.name} "
        f"({', '.join(map(sets.name, pools[kind].tolist()))}): they are fewer than the {limits.processes} "
        "processes"
        for kind in (0, 1)
        if counts[kind] and not enough[kind]
    ]
    weights = [count if fine else 0 for count, fine in zip(counts, enough)]
    return (weights[0], weights[1]), remarks


def _size_of(sets: ClipSets, bucket: Bucket, fits: np.ndarray) -> tuple[int, int]:
    if bucket.size is not None:
        return bucket.size
    sizes = np.unique(np.stack([sets.column("height"), sets.column("width")], axis=1)[fits], axis=0)
    if len(sizes) > 1:
        listing = ", ".join(f"{height}x{width}" for height, width in sizes)
        raise InvalidValue(f"the clips have several sizes ({listing}); give the bucket a height and a width.")
    return (int(sizes[0][0]), int(sizes[0][1])) if len(sizes) else (16, 16)


def _use(given: Given, bucket: Bucket, checks: Sequence[_Check]) -> Use:
    drawn = np.logical_and.reduce([check.passed[given.clips] for check in checks])
    reasons = [check.reason(given.clips) for check in checks]
    return Use(bucket, int(drawn.sum()), tuple(reason for reason in reasons if reason is not None))


def _report(sets: ClipSets, given: Given, uses: Sequence[Use]) -> DatasetReport:
    cameras = sets.column("labelled")[given.clips]
    return DatasetReport(given.folder, given.hidden, len(cameras), int(cameras.sum()), tuple(uses))


def _check_kinds(sets: ClipSets, labelled: np.ndarray, limits: Limits) -> None:
    """Raises: ValueError where a kind that the ratio asks for is not there at all."""
    if limits.ratio is None:
        return
    names = ", ".join(given.folder for given in sets.given)
    says = f"labelled_to_unlabelled={_ratio(limits.ratio)}, but"
    if limits.ratio[0] and not labelled.any():
        hidden = int(sets.column("labelled").sum())
        if hidden:
            folders = ", ".join(given.folder for given in sets.given if given.hidden)
            raise InvalidValue(
                f"{says} no clip is labelled: {hidden} clips have cameras, which are ignored since their "
                f"folders ({folders}) are named under unlabelled; name them under datasets "
                "(--config.data.datasets), or draw unlabelled clips alone: "
                "--config.data.labelled_to_unlabelled=0,1."
            )
        raise InvalidValue(
            f"{says} none of the {len(sets)} clips is labelled ({names}). Add a dataset with cameras "
            "(build_dataset videos --poses, or build_dataset worlds); train without a camera "
            "(--config.model.camera.injection=none); or draw unlabelled clips alone: "
            "--config.data.labelled_to_unlabelled=0,1."
        )
    if limits.ratio[1] and labelled.all():
        raise InvalidValue(
            f"{says} each of the {len(sets)} clips is labelled ({names}). Add videos without cameras "
            "(--config.data.unlabelled), or draw labelled clips alone: "
            "--config.data.labelled_to_unlabelled=1,0."
        )


def _check_every_dataset(reports: Sequence[DatasetReport]) -> None:
    """Raises: ValueError for datasets of which nothing is drawn."""
    unused = [report for report in reports if not any(use.drawn for use in report.uses)]
    if not unused:
        return
    sentences = []
    for report in unused:
        reasons = {(use.bucket.name, reason): None for use in report.uses for reason in use.reasons}
        why = "; ".join(f"{reason.count} {reason.words} (in {name})" for name, reason in reasons)
        remedies = _remedies([reason for _, reason in reasons])
        sentences.append(
            f"{report.folder} (named under {report.option}): none of its {report.clips} clips is drawn: "
            f"{why}. {remedies}; or leave it out."
        )
    raise InvalidValue(" ".join(sentences))


def _check_pools(
    selection: Selection, labelled: np.ndarray, checks: Sequence[_Check], limits: Limits
) -> None:
    """Raises: ValueError where a process would have no clip of a kind that is drawn."""
    if not any(selection.weights):
        raise InvalidValue(_too_few("", selection, np.arange(len(labelled)), 0, checks, limits))
    for kind, (pool, weight) in enumerate(zip(selection.pools, selection.weights)):
        if weight and len(pool) < limits.processes:
            of_kind = np.flatnonzero(labelled == (kind == 0))
            message = _too_few(f"{KINDS[kind]} ", selection, of_kind, len(pool), checks, limits)
            if limits.ratio is not None and limits.ratio[1 - kind]:
                message += (
                    f" Or draw others alone: --config.data.labelled_to_unlabelled={('0,1', '1,0')[kind]}."
                )
            raise InvalidValue(message)


def _too_few(
    kind: str,
    selection: Selection,
    candidates: np.ndarray,
    fitting: int,
    checks: Sequence[_Check],
    limits: Limits,
) -> str:
    reasons = [reason for check in checks if (reason := check.reason(candidates)) is not None]
    found = {0: f"no {kind}clip fits", 1: f"only 1 {kind}clip fits"}.get(
        fitting, f"only {fitting} {kind}clips fit"
    )
    why = "; ".join(f"{reason.count} {reason.words}" for reason in reasons) or "there are no others"
    remedy = _remedies(reasons) if reasons else f"Add {kind}clips"
    needs = "one is needed"
    if limits.processes > 1:
        needs, remedy = (
            f"each of {limits.processes} processes needs one",
            f"{remedy}; or train in fewer processes",
        )
    return f"{found} {selection.bucket.name}, and {needs}. Of {len(candidates)} such clips: {why}. {remedy}."


def _remedies(reasons: Sequence[Reason]) -> str:
    return "; ".join(dict.fromkeys(reason.remedy for reason in reasons))


def _ratio(ratio: tuple[int, int]) -> str:
    return ",".join(map(str, ratio))
