"""Clips that cannot be used: why, how many, and when it is too many to go on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from camctrl_jax.errors import ClipError, InvalidValue, UserError


class TooManyBadClips(UserError):
    """More than the allowed share of the clips is bad: something is wrong with the data as a whole."""


@dataclass(frozen=True)
class Skipped:
    """One clip that was left out."""

    clip: str
    reason: str
    message: str


class SkipTally:
    """Counts used and skipped clips, remembers why, and stops a run that loses too many.

    Args:
      max_share: largest allowed share of skipped clips.
      minimum: do not judge before this many clips were seen; ``finish`` judges whatever was seen.
      what: what is counted, for messages: clips, sources.
    """

    def __init__(self, max_share: float, minimum: int = 50, what: str = "clips") -> None:
        if not 0.0 <= max_share <= 1.0:
            raise InvalidValue(
                f"the allowed share of bad {what} is {max_share}; expected a number from 0 to 1."
            )
        self.max_share, self.minimum, self.what = max_share, minimum, what
        self.used = 0
        self.skipped: list[Skipped] = []
        self.unmatched: list[str] = []  # annotations whose clip is missing; listed, not judged
        self.remarks: list[str] = []  # annotations that were used but look odd; listed, not judged

    def use(self, count: int = 1) -> None:
        """Count good clips."""
        self.used += count

    def skip(self, clip: str, error: ClipError) -> None:
        """Count a bad clip. Raises TooManyBadClips when the share is exceeded."""
        self.skipped.append(Skipped(clip, error.reason, str(error)))
        if self.used + len(self.skipped) >= self.minimum:
            self.finish()

    def finish(self) -> None:
        """Judge the whole run. Raises TooManyBadClips when the share is exceeded."""
        seen = self.used + len(self.skipped)
        if seen and len(self.skipped) > self.max_share * seen:
            raise TooManyBadClips(
                f"{len(self.skipped)} of {seen} {self.what} are bad, more than the allowed share of "
                f"{self.max_share:g} ({self.describe_reasons()}). The last one: {_named(self.skipped[-1])}. "
                "Repair the source, or allow a larger share if this is expected."
            )

    def describe_first(self) -> str:
        """The first clip of each reason, a sentence each, most frequent reason first; at most three."""
        firsts = {skipped.reason: skipped for skipped in reversed(self.skipped)}
        return " ".join(f"{_named(firsts[reason])}." for reason in list(self.by_reason())[:3])

    def by_reason(self) -> dict[str, int]:
        """Skipped clips per reason, most frequent first."""
        return dict(Counter(skipped.reason for skipped in self.skipped).most_common())

    def describe_reasons(self) -> str:
        """For people: ``3 truncated, 1 pose_count``."""
        return ", ".join(f"{count} {reason}" for reason, count in self.by_reason().items())


def _named(skipped: Skipped) -> str:
    """What happened to which clip, without the full stop."""
    message = skipped.message.rstrip(".")
    return message if skipped.clip in message else f"{skipped.clip}: {message}"
