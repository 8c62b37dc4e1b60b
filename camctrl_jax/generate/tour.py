"""Tours: ``generate --script``, many clips from a text file, into an exploration and one video."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.playing import played_path
from camctrl_jax.checkpoints.pipelines import load_pipeline
from camctrl_jax.data.text import embedder_from_settings
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue, UserError, file_failures
from camctrl_jax.files.atomic import write_text
from camctrl_jax.generate.command import Progress
from camctrl_jax.generate.plan import Plan, prepare, sampling_of_request
from camctrl_jax.generate.request import Request
from camctrl_jax.generate.script import Script, ScriptClip, read_script
from camctrl_jax.parallel.mesh import MeshConfig
from camctrl_jax.sampling.exploration import Exploration
from camctrl_jax.sampling.exploration_folder import Clip, ExplorationFolder, clip_seed
from camctrl_jax.sampling.exploration_model import settings_of, usual_extension
from camctrl_jax.sampling.exploration_path import path_of_clip
from camctrl_jax.sampling.on_mesh import SamplingWork, mesh_of_words
from camctrl_jax.sampling.pipeline import Extension, Pipeline
from camctrl_jax.video.encoding import write_mp4_of_parts
from camctrl_jax.video.pictures import frame_strip, write_png
from camctrl_jax.worlds import render_rgb
from camctrl_jax.worlds.windows import at_frames

FOLDER, VIDEO, STRIP, COPY = "exploration", "tour.mp4", "frames.png", "tour.yaml"
_MOST_SHOWN = 12
_LONG = 10_000  # frames in which every timed sentence has room
_SAME = 1e-6  # of poses in metres and of intrinsics in pictures: more is another path


@dataclass(frozen=True)
class TourPlan:
    """What will be done; nothing expensive has been done yet.

    Attributes:
        script: as read.
        first: of the first clip.
        sampling, extension: of all clips.
        paths: of every clip but the first, N + 1 poses from the last camera before it.
        parents: of every clip but the first, the place in the script of the clip it goes on from, from 0.
        prompts: of all clips.
        notes: what the user should know, one line each.
        mesh: the devices that share the work; None is one device.
    """

    script: Script
    first: Plan
    sampling: Sampling
    extension: Extension
    paths: tuple[Cameras, ...]
    parents: tuple[int, ...]
    prompts: tuple[str, ...]
    notes: tuple[str, ...]
    mesh: MeshConfig | None = None


def run_script(
    script: Path,
    out: Path,
    *,
    checkpoint: str = "default",
    vae: str | None = None,
    float32: bool = False,
    mesh: str | None = None,
) -> dict[str, Path]:
    """Carry out a script, or what is left of it; returns the files by name."""
    plan = prepare_tour(read_script(script), out, checkpoint=checkpoint, vae=vae, float32=float32, mesh=mesh)
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    return carry_out(plan, Progress())


def prepare_tour(
    script: Script,
    out: Path,
    *,
    checkpoint: str = "default",
    vae: str | None = None,
    float32: bool = False,
    mesh: str | None = None,
) -> TourPlan:
    """Look up weights, picture and all paths, and check that they fit together.

    Raises:
        UserError: names the file and line, the value, or what it is about.
    """
    ExplorationFolder(out / FOLDER).begun()  # something else may be there
    scene, clips = dict(script.scene), script.clips
    for clip in clips:
        if clip.camera is not None:
            _played(clip, _LONG, 12.0, None)  # words and files, before weights are looked up
    asked = Request(
        **{"out": out, "checkpoint": checkpoint, "vae": vae, "float32": float32} | scene,
        camera=clips[0].camera,
        playing=clips[0].playing,
        camera_scale=clips[0].camera_scale,
    )
    if asked.prompt is None:
        asked = replace(asked, prompt=clips[0].prompt)
    if asked.guidance not in ("eq3", "cfgp"):
        raise InvalidValue(f"{script.path}: guidance: {asked.guidance!r}; expected eq3 or cfgp.")
    given = asked.image is not None or asked.worlds_seed is not None
    try:
        # What history guidance weighs is there from the second clip on, whatever the first starts from.
        first = prepare(asked if given else replace(asked, history_guidance=1.0))
        sampling = sampling_of_request(asked, first.model)
    except UserError as error:
        raise InvalidValue(f"{script.path}: {error}") from error
    if first.cameras is None:
        raise InvalidValue(f"{script.path}: a tour needs weights with a camera input, unlike {checkpoint}.")
    with _at(clips[0]):
        lens = first.cameras.intrinsics[0]
        path = path_of_clip(first.cameras, first.shape.frames, first.fps, lens, goes_on=False)
    first = replace(first, cameras=path)
    extension = usual_extension(first.model.sampling, first.shape)
    poses = first.shape.temporal_stride * extension.new_latents + 1
    ends, paths, parents, prompts = [first.cameras.intrinsics[-1]], [], [], [first.prompt]
    notes = list(first.notes)
    for place, clip in enumerate(clips[1:], 1):
        parent = place - 1 if clip.branch is None else clip.branch - 1
        path, remarks = _played(clip, poses, first.fps, ends[parent])
        paths.append(path)
        parents.append(parent)
        ends.append(path.intrinsics[-1])
        prompts.append(prompts[parent] if clip.prompt is None else clip.prompt)
        notes += [f"{clip.where}: {remark}" for remark in remarks]
    embedder = embedder_from_settings(first.model.text)
    for clip, prompt in zip(clips[1:], prompts[1:]):
        with _at(clip):
            if clip.prompt is not None and embedder.truncated([prompt]):
                longest = embedder.max_tokens
                notes.append(
                    f"{clip.where}: the prompt is longer than {longest} tokens; its end is left out."
                )
    laid_out = None
    if mesh is not None:
        work = (first.model.mmdit_config, first.shape, sampling.guidance, extension)
        laid_out, remarks = mesh_of_words(mesh, SamplingWork.of_clips(*work))
        notes += remarks
    return TourPlan(
        *(script, first, sampling, extension, tuple(paths), tuple(parents), tuple(prompts)),
        tuple(dict.fromkeys(notes)),
        laid_out,
    )


@contextlib.contextmanager
def _at(clip: ScriptClip) -> Iterator[None]:
    """Inside, errors name the place in the script."""
    try:
        yield
    except UserError as error:
        raise InvalidValue(f"{clip.where}: {error}") from error


def _played(
    clip: ScriptClip, poses: int, fps: float, lens: np.ndarray | None
) -> tuple[Cameras, tuple[str, ...]]:
    """The path of a clip that begins with a lens (None: any), and what there is to say about it."""
    with _at(clip):
        played = played_path(clip.camera, poses, fps, intrinsics=lens, playing=clip.playing)
        cameras = played.cameras.scaled(clip.camera_scale, metric=True)
        if lens is None:
            return cameras, ()
        if played.source is not None:
            cameras = cameras.with_intrinsics(lens)
        return path_of_clip(cameras, poses, fps, lens, goes_on=True), played.remarks


def carry_out(plan: TourPlan, say: Progress) -> dict[str, Path]:
    """Sample what is not there yet, and write the files; returns them by name."""
    out, script = plan.first.request.out, plan.script
    say(f"{plan.first.request.checkpoint}: reading the weights")
    first = plan.first
    pipeline = load_pipeline(first.model, first.autoencoder, float32=first.request.float32, mesh=plan.mesh)
    with file_failures(out):
        out.mkdir(parents=True, exist_ok=True)
    count = len(script.clips)
    with _opened(plan, pipeline, out / FOLDER, say) as exploration:
        files = {name: out / file for name, file in (("video", VIDEO), ("frames", STRIP), ("script", COPY))}
        done = _done(plan, exploration)
        write_text(files["script"], script.text)
        if done == count:
            say(f"all {count} clips are there already")
        for place in range(done, count):
            clip, parent = script.clips[place], exploration.clips[plan.parents[place - 1]]
            say(f"clip {place + 1} of {count}: {clip.camera}")
            exploration.extend(
                *(plan.paths[place - 1], plan.prompts[place], clip.seed),
                of=parent,
                said=clip.camera,
                progress=say.step,
            )
        _write_pictures(exploration, exploration.clips[:count], files["video"], files["frames"])
    return {"exploration": out / FOLDER} | files


def _write_pictures(exploration: Exploration, clips: Sequence[Clip], video: Path, strip: Path) -> None:
    """All clips as one video, and the last frames of them, or of some of many, in a row."""
    shown = np.unique(np.linspace(0, len(clips) - 1, min(len(clips), _MOST_SHOWN)).round().astype(int))
    ends: list[np.ndarray] = []

    def parts() -> Iterator[np.ndarray]:
        for place, clip in enumerate(clips):
            frames = exploration.frames(clip)
            if place in shown:
                ends.append(frames[-1].copy())  # a view would keep the whole clip in memory
            yield frames

    write_mp4_of_parts(video, parts(), exploration.settings.fps)
    labels = [f"clip {place + 1}" for place in shown]
    write_png(strip, frame_strip([np.stack(ends)], list(range(len(ends))), None, labels))


def _opened(plan: TourPlan, pipeline: Pipeline, folder: Path, say: Progress) -> Exploration:
    """The exploration of a tour: as it was left, or with its first clip."""
    first = plan.first
    if ExplorationFolder(folder).begun():
        return Exploration.load(pipeline, folder)
    say(f"clip 1 of {len(plan.script.clips)}: {first.request.camera or 'the path of the world'}")
    return Exploration.start(
        *(pipeline, folder, first.cameras),
        image=_picture(first),
        prompt=first.prompt,
        seed=first.request.seed,
        shape=first.shape,
        fps=first.fps,
        sampling=plan.sampling,
        extension=plan.extension,
        said=first.request.camera,
        progress=say.step,
    )


def _picture(first: Plan) -> np.ndarray | None:
    """The first frame, u8 [H, W, 3]."""
    world = first.start.world
    if world is None:
        return first.start.first_frame
    return np.asarray(render_rgb([at_frames(world, [0])], first.shape.height, first.shape.width))[0, 0]


def _done(plan: TourPlan, exploration: Exploration) -> int:
    """How many clips of the script are there.

    Raises:
        InvalidValue: one that is there was made from something else.
    """
    first, script = plan.first, plan.script
    settings = settings_of(
        exploration.pipeline, first.request.seed, first.shape, first.fps, plan.sampling, plan.extension
    )
    for name in ("seed", "fps", "frames", "height", "width", "sampling", "extension"):
        if getattr(settings, name) != getattr(exploration.settings, name):
            raise _another(exploration, f"its {name} is another one", str(script.path))
    made = exploration.clips[: len(script.clips)]
    if not np.array_equal(exploration.picture(), _picture(first)):
        raise _another(exploration, "it starts from another picture", str(script.path))
    for place, (clip, wanted) in enumerate(zip(made, script.clips)):
        parent = None if place == 0 else made[plan.parents[place - 1]].name
        differs = _difference(plan, exploration, place, clip, parent)
        if differs:
            raise _another(exploration, f"its clip {clip.name} has another {differs}", wanted.where)
    return len(made)


def _difference(
    plan: TourPlan, exploration: Exploration, place: int, clip: Clip, parent: str | None
) -> str | None:
    """What a clip that is there has other than the script wants; None if nothing."""
    if clip.parent != parent:
        return "place: it goes on from another one"
    if clip.prompt != plan.prompts[place]:
        return "prompt"
    turns = [each.turn for each in exploration.line(clip)[1:]]
    seed = plan.script.clips[place].seed
    if clip.seed != (clip_seed(exploration.settings.seed, turns) if seed is None else seed):
        return "seed"
    if replace(clip.sampling, shift=plan.sampling.shift) != plan.sampling:
        return "sampling"
    cameras = exploration.cameras_of(clip)
    wanted = plan.first.cameras if place == 0 else exploration.coming(plan.paths[place - 1], parent)
    apart = max(
        np.abs(cameras.world_from_camera - wanted.world_from_camera).max(),
        np.abs(cameras.intrinsics - wanted.intrinsics).max(),
    )
    return "path" if apart > _SAME else None


def _another(exploration: Exploration, what: str, where: str) -> InvalidValue:
    return InvalidValue(
        f"{exploration.folder} was not made from this script: {what} ({where}). Choose another --out, or put "
        f"the script back as it was ({COPY} beside it)."
    )
