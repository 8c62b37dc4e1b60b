"""What is true of an exploration: the place, its take, and which pixels memory could know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.explorations.settings import Plan, Settings
from camctrl_jax.evaluate.explorations.visibility import ever_moving, seen_before
from camctrl_jax.worlds import Places, World, WorldsConfig, render_rgb, sample_world, window
from camctrl_jax.worlds.rendering import render_truth
from camctrl_jax.worlds.scene import LAYOUTS

REGIONS = ("seen", "remembered", "unseen", "moving")
"""Of the pixels of a clip: static and seen in any frame before it; of these, those that the last frames
before it (13, of clips of 49) do not show; static and not seen before; things that move at some time of the
take."""

EVERY = 3
"""Of every how many new frames the regions are measured: no multiple of the four frames of a latent."""

_NEXT_TRY = 1_000  # added to a seed whose place has no room for the route
_TRIES = 20
_MOST_RETURNS = 12


@dataclass(frozen=True, eq=False)
class Take:
    """A place and the way through it.

    Attributes:
        index: its number in this evaluation.
        route, layout: as they were asked for.
        world: the take, ``Plan.frames`` long.
        prompts: one for each clip.
    """

    index: int
    route: str
    layout: str
    world: World
    prompts: tuple[str, ...]


def take_of(settings: Settings, plan: Plan, index: int) -> Take:
    """The take of a number: routes and layouts take turns."""
    routes = plan.routes(settings)
    route = routes[index % len(routes)]
    layout = LAYOUTS[index // len(routes) % len(LAYOUTS)]
    shape = plan.shape
    config = WorldsConfig(
        frames=plan.frames, aspect=shape.width / shape.height, places=Places(layout=layout, route=route)
    )
    for attempt in range(_TRIES):
        seed = settings.first_seed + index + _NEXT_TRY * attempt
        try:
            world = sample_world(seed, config)
        except InvalidValue:
            if attempt == _TRIES - 1:
                raise
            continue
        break
    return Take(index, route, layout, world, _prompts(world, plan, settings.prompts))


def _prompts(world: World, plan: Plan, which: str) -> tuple[str, ...]:
    if which == "none":
        return ("",) * plan.clips
    length = plan.shape.frames
    clips = range(plan.clips if which == "clips" else 1)
    found = [window(world, plan.new(clip).stop - length, length).captions[0] for clip in clips]
    return tuple(found if which == "clips" else found * plan.clips)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of a take, on the host. T frames in all.

    Attributes:
        take: which.
        video: u8 [T, H, W, 3], the true render.
        measured: of each clip the frames, i64 [F], in which regions are measured.
        regions: of each clip bool [F, H, W] by name, see ``REGIONS``.
        flow: f32 [T-1, H, W, 2], the true flow to the next frame, pixels.
        flowing: bool [T-1, H, W], where the next frame shows the same point.
        returns: (earlier, later) frames of equal pose with a clip's length or more between them.
        same: bool [P, H, W], the pixels of each of these pairs that show the same static thing in both.
    """

    take: Take
    video: np.ndarray
    measured: tuple[np.ndarray, ...]
    regions: tuple[dict[str, np.ndarray], ...]
    flow: np.ndarray
    flowing: np.ndarray
    returns: tuple[tuple[int, int], ...]
    same: np.ndarray


def truth_of(take: Take, plan: Plan, video: np.ndarray) -> Truth:
    """All that is true of a take whose render is ``video`` u8 [T, H, W, 3]."""
    world, (height, width) = take.world, video.shape[1:3]
    depth, instances, _, flow, occluded = render_truth(world, height, width)
    measured, regions = [], []
    for clip in range(plan.clips):
        frames, found = _regions(world, plan, clip, depth, instances)
        measured.append(frames)
        regions.append(found)
    pairs = _pairs(world, plan)
    still = ~ever_moving(world, instances)
    same = [still[a] & still[b] & (instances[a] == instances[b]) for a, b in pairs]
    empty = np.zeros((0, height, width), bool)
    return Truth(
        take,
        video,
        tuple(measured),
        tuple(regions),
        flow,
        ~occluded,
        pairs,
        np.stack(same) if same else empty,
    )


def rendered(takes: Sequence[Take], plan: Plan, samples: int) -> list[Truth]:
    """Render takes, ``samples`` squared rays a pixel, and find out what is true of them."""
    worlds = [take.world for take in takes]
    videos = np.asarray(render_rgb(worlds, plan.shape.height, plan.shape.width, samples))
    return [truth_of(take, plan, video) for take, video in zip(takes, videos, strict=True)]


def _regions(
    world: World, plan: Plan, clip: int, depth: np.ndarray, instances: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    new = plan.new(clip)
    # One size for all clips, so that nothing compiles anew: the first clip, which is longer, is thinned.
    frames = np.linspace(new.start + (clip == 0), new.stop - 1, len(range(0, plan.added, EVERY)))
    frames = np.unique(frames.round().astype(int))
    given = new.start or 1  # the first clip is given the first frame
    lately = range(max(0, given - (plan.shape.frames - plan.added)), given)
    shown = depth[frames], instances[frames]
    recent = seen_before(world, frames, *shown, lately)
    seen = seen_before(world, frames, *shown, range(lately.start), recent)
    moving = ever_moving(world, shown[1])
    return frames, {"seen": seen, "remembered": seen & ~recent, "unseen": ~seen & ~moving, "moving": moving}


def _pairs(world: World, plan: Plan) -> tuple[tuple[int, int], ...]:
    far = [(a, b) for a, b in world.returns if b - a >= plan.shape.frames]
    if len(far) <= _MOST_RETURNS:
        return tuple(far)
    chosen = np.linspace(0, len(far) - 1, _MOST_RETURNS).round().astype(int)
    return tuple(far[place] for place in chosen)
