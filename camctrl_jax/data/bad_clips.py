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
    """

    def __init__(self, max_share: float, minimum: int = 50) -> None:
        if not 0.0 <= max_share <= 1.0:
            raise InvalidValue(
                f"the allowed share of bad clips is {max_share}; expected a number from 0 to 1."
            )
        self.max_share, self.minimum = max_share, minimum
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
            last = self.skipped[-1]
            message = last.message.rstrip(".")
            named = message if last.clip in message else f"{last.clip}: {message}"
            raise TooManyBadClips(
                f"{len(self.skipped)} of {seen} clips are bad, more than the allowed share of "
                f"{self.max_share:g} ({self.describe_reasons()}). The last one: {named}. "
                "Repair the source, or allow a larger share if this is expected."
            )

    def by_reason(self) -> dict[str, int]:
        """Skipped clips per reason, most frequent first."""
        return dict(Counter(skipped.reason for skipped in self.skipped).most_common())

    def describe_reasons(self) -> str:
        """For people: ``3 truncated, 1 pose_count``."""
        return ", ".join(f"{count} {reason}" for reason, count in self.by_reason().items())
