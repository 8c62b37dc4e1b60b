"""``build_dataset worlds``: procedural dynamic scenes, rendered."""

from __future__ import annotations

from dataclasses import dataclass

from camctrl_jax.build_dataset.building import Building, ClipOptions, show_progress
from camctrl_jax.data.bad_clips import SkipTally
from camctrl_jax.data.clips.writing import check_target
from camctrl_jax.data.worlds_records import world_records
from camctrl_jax.data.worlds_set import WorldsSet
from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds import Places, WorldsConfig


@dataclass(frozen=True, kw_only=True)
class WorldsOptions(ClipOptions):
    """What the command line asks for.

    Attributes:
        count, seed: the worlds of seeds ``seed`` to ``seed + count - 1``.
        static: every object at rest.
        samples: rays per pixel and axis.
        unlabelled_share: this share of clips loses its cameras.
        take_frames: places to explore in place of worlds that lie ahead: clips are windows of takes of so
            many frames; 0 for none.
        windows_per_take: clips that are cut out of each take, of which there are ``count``.
        layout, route: of places; None draws them.
        workers: processes that sample scenes; None is by the number of clips.
    """

    count: int = 100
    seed: int = 0
    static: bool = False
    samples: int = 2
    unlabelled_share: float = 0.0
    take_frames: int = 0
    windows_per_take: int = 1
    layout: str | None = None
    route: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1 or self.seed < 0:
            raise InvalidValue(
                f"--count {self.count} --seed {self.seed}: expected at least 1 world, no negative seed."
            )
        if not 0 <= self.unlabelled_share <= 1:
            raise InvalidValue(f"--unlabelled-share {self.unlabelled_share:g}: expected a share from 0 to 1.")
        if self.workers is not None and self.workers < 0:
            raise InvalidValue(f"--workers {self.workers}: expected 0 (no processes) or more.")
        if not self.take_frames:
            for option, given in (
                ("--layout", self.layout is not None),
                ("--route", self.route is not None),
                ("--windows-per-take", self.windows_per_take != 1),
            ):
                if given:
                    raise InvalidValue(
                        f"{option} is of places to explore, which --take-frames asks for: --take-frames 193"
                    )
        self.worlds()

    def worlds(self) -> WorldsSet:
        """The worlds, and how they are pictured. Raises InvalidValue for clips that worlds cannot have."""
        places = Places(self.layout, self.route, self.take_frames) if self.take_frames else None
        return WorldsSet(
            range(self.seed, self.seed + self.count),
            self.height,
            self.width,
            WorldsConfig(frames=self.frames, fps=self.fps, static=self.static, places=places),
            self.samples,
            windows_per_take=self.windows_per_take,
        )


def build(options: WorldsOptions) -> None:
    """Build the dataset and print where it is."""
    out = check_target(options.out, options.overwrite)  # before any work is done
    encoder = options.encoder()
    records = world_records(
        options.worlds(),
        encoder=encoder,
        crf=options.crf,
        unlabelled_share=options.unlabelled_share,
        text=options.text(),
        workers=options.workers,
        progress=show_progress("worlds"),
    )
    Building("worlds", options, out, SkipTally(0.0), encoder).write(records)
