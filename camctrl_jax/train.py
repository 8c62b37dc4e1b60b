"""Train the autoencoder or the diffusion model.

  python -m camctrl_jax.train --config=configs/stage1.py:worlds_cpu --workdir=runs/first

A config file is a recipe; what follows the colon is its variant:

  configs/vae.py      the causal video autoencoder
  configs/base.py     the diffusion model without a camera, on images and videos
  configs/stage1.py   camera control, on labelled and unlabelled videos together

  (none)        full size, on datasets that `python -m camctrl_jax.build_dataset` made
  :worlds       one GPU, on procedural worlds: no data to download
  :worlds_cpu   a laptop, about two minutes
  :nano         seconds, to see every part run once

Any value can be changed on the command line, and --print_config shows them all:

  python -m camctrl_jax.train --config=configs/stage1.py:worlds --config.steps=2000 --print_config

Where a run starts, in this order:
  1. the newest checkpoint in --workdir: the same command, started again, continues where it was;
  2. --config.init_from: 'default' (the weights in the package), a run directory, a weights
     folder, or a diffusers folder of an open base model;
  3. from scratch.

The same command on every host makes one run of them; camctrl_jax/parallel/hosts.py lists the environment
variables by which they find each other, launch/ has scripts for Slurm, TPU pods and Kubernetes.

--workdir then holds config.json, metrics.jsonl, tensorboard/, samples/ and checkpoints/. Ctrl-C and SIGTERM
save a checkpoint and end the run with exit code 0. Set JAX_COMPILATION_CACHE_DIR to compile only once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from camctrl_jax.models import VAE, VAEConfig
    from camctrl_jax.training.config import RunParts
    from camctrl_jax.training.state import Params, TrainState
    from camctrl_jax.training.writers import ProgressLine, TensorBoard

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe and variant, e.g. configs/stage1.py:worlds."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the run; created, or continued if it holds a checkpoint."
)
_PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the effective config and stop.")


def main(argv: list[str]) -> int | None:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    import jax

    from camctrl_jax.data.bad_clips import TooManyBadClips
    from camctrl_jax.data.safetensors import SafetensorsError
    from camctrl_jax.interop.pretrained import WeightsError
    from camctrl_jax.parallel.hosts import is_peer_lost, join_hosts, leave_at_once
    from camctrl_jax.training.checkpoint import CheckpointError
    from camctrl_jax.training.config import ConfigError, check_config
    from camctrl_jax.training.loop import NonFiniteLoss

    try:
        if len(argv) > 1:
            raise ConfigError(f"unexpected argument {argv[1]!r}; every option is written --name=value")
        if _CONFIG.value is None:
            raise ConfigError("--config is missing, e.g. --config=configs/stage1.py:worlds_cpu; see --help")
        take_sizes(_CONFIG.value, _WORKDIR.value)
        check_config(_CONFIG.value)
        if _PRINT_CONFIG.value:
            print(_CONFIG.value)
            return None
        if not _WORKDIR.value:
            raise ConfigError(
                "--workdir is missing; choose a directory for this run, e.g. --workdir=runs/first"
            )
        try:
            join_hosts()
        except ValueError as error:
            raise ConfigError(str(error)) from error
        path = train(_CONFIG.value, Path(_WORKDIR.value).absolute())
        if jax.process_index() == 0:
            print(f"checkpoint: {path}")
    except (
        CheckpointError,
        ConfigError,
        NonFiniteLoss,
        SafetensorsError,
        TooManyBadClips,
        WeightsError,
    ) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if jax.distributed.is_initialized():
            leave_at_once(1)
        return 1
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not is_peer_lost(error):
            raise
        reason = str(error).splitlines()[0][:200]
        print(
            f"error: another process of this job has ended ({reason}). Start the same command again, with "
            "any number of hosts, to continue from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        leave_at_once(1)
    return None


def train(config: ConfigDict, workdir: Path) -> Path:
    """Run a recipe from its current position to its end; returns the path of the last checkpoint."""
    import jax

    from camctrl_jax.interop.pretrained import load_vae
    from camctrl_jax.parallel.mesh import make_mesh
    from camctrl_jax.parallel.sharding import ShardingRules, place, place_batch
    from camctrl_jax.training import loop
    from camctrl_jax.training.architecture import autoencoder_architecture, denoiser_architecture
    from camctrl_jax.training.autoencode import LatentStatistics
    from camctrl_jax.training.checkpoint import (
        CHECKPOINTS,
        CONFIG_FILE,
        Checkpoints,
        load_run_config,
        write_json,
    )
    from camctrl_jax.training.config import ConfigError, as_json, differences, run_parts
    from camctrl_jax.training.inputs import open_inputs
    from camctrl_jax.training.program import build_program
    from camctrl_jax.training.starting_weights import take_over
    from camctrl_jax.training.writers import ProgressLine

    # 1. Settings and devices.
    denoising = config.objective == "denoise"
    take_sizes(config, workdir)
    settings = run_parts(config)
    try:
        mesh = make_mesh(settings.mesh)
    except ValueError as error:
        raise ConfigError(f"config.mesh: {error}") from error

    # 2. The model, and the step that trains it.
    vae_config, vae_params = _frozen_vae(config) if denoising else (None, None)
    program = build_program(config, mesh, vae_config)
    parts, vae, model = program.parts, program.vae, program.model
    frozen = None
    if denoising:
        frozen = place(vae_params, jax.tree.map(lambda _: program.everywhere, vae_params))
        # What one process computes alone, it computes from arrays of its own.
        vae_params = frozen if jax.process_count() == 1 else jax.device_get(vae_params)

    # 3. Its state: where every array lives, then the newest own checkpoint, config.init_from, or scratch.
    # The generator of the initialisation is the one that compiles fast: threefry takes a minute on a laptop.
    init_key = jax.random.key(config.seed, impl="unsafe_rbg")
    run_key = jax.jit(
        lambda: jax.random.fold_in(jax.random.key(config.seed), 1), out_shardings=program.everywhere
    )
    abstract = program.abstract_params
    checkpoints = Checkpoints(workdir, keep=config.keep_checkpoints)
    position = None
    latest = checkpoints.latest_step()
    start = latest or 0
    # Step 0 is imported weights, which restoring refuses: training here would in time delete them.
    if latest is not None:
        state, position = checkpoints.restore(program.stored_state, program.stored_shardings)
        state = program.from_stored(state)
        origin = f"{workdir / CHECKPOINTS / str(start)}"
    else:
        given, new, origin = {}, set(abstract), "scratch"
        if config.init_from:
            origin = f"config.init_from={config.init_from!r}"
            loaded = _initial_weights(config, parts.model, vae.config, mesh)
            given, new = take_over(abstract, loaded, origin)
            del loaded
            origin += f" (new: {', '.join(sorted(new))})" if new else ""
        # What is not given is drawn from the seed; a jit that returns only that compiles only that.
        homes = ShardingRules().shardings(abstract, mesh)
        draw = jax.jit(
            lambda key: {name: part for name, part in program.fresh_params(key).items() if name in new},
            out_shardings={name: homes[name] for name in new},
        )
        drawn = draw(init_key) if new else {}
        given = place(given, {name: homes[name] for name in given})
        # Donated, so that a large model is not held a second time. Not where layers get stacked: nothing can
        # take over their buffers, and JAX warns of each.
        donated = () if program.scanned else (0,)
        create = jax.jit(program.create, donate_argnums=donated, out_shardings=program.shardings)
        state = create(given | drawn, init_key)
        del given, drawn
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract))
    if jax.process_index() == 0:
        print(f"{config.objective} {config.model.preset}: {count / 1e6:.1f}M parameters from {origin}")
        processes = "" if jax.process_count() == 1 else f" in {jax.process_count()} processes"
        print(f"on {mesh.size} x {jax.devices()[0].device_kind}{processes}, mesh {dict(mesh.shape)}")
    if start >= config.steps:
        print(f"nothing to do: {workdir} is at step {start} of {config.steps}; raise --config.steps to go on")
        checkpoints.close()
        return workdir / CHECKPOINTS / str(start)

    # 4. The data, at the position that belongs to the state.
    progress = ProgressLine(config.steps, start)
    inputs = open_inputs(
        config, mesh, (vae.config, vae_params) if denoising else None, partial(_show_rendered, progress)
    )
    if position is not None:
        try:
            inputs.stream.restore(position)
        except ValueError as error:
            raise ConfigError(f"{origin} was written by a run on other data: {error}") from error

    # 5. What is stored with every checkpoint, and what is shown now and then.
    statistics = LatentStatistics(vae)

    def describe(state: TrainState) -> dict:
        if denoising:
            clip = {name: config.data[name] for name in ("frames", "height", "width")}
            clip |= {"fps": inputs.fps, "shift": config.flow.shift}
            spec = config.vae.weights  # a path has to be found from any working directory
            spec = str(Path(spec).absolute()) if Path(spec).exists() else spec
            architecture = denoiser_architecture(parts.model, inputs.text, clip, spec)
        else:
            if config.vae_loss.train_encoder:
                videos = inputs.probe(config.vae_loss.measure_clips)
                if jax.process_count() > 1:  # each has a part of every batch
                    videos = (place_batch({"video": video}, mesh)["video"] for video in videos)
                measured = statistics.measure(state.ema, videos)
            else:  # latents are as they were, and so is what normalises them
                known = load_vae(config.init_from)[0]
                measured = known.latents_mean, known.latents_std
            architecture = autoencoder_architecture(parts.model, *measured)
        return as_json(config) | {"architecture": architecture}

    sample = None
    if config.sample_every and jax.process_count() > 1:
        if jax.process_index() == 0:
            print("no samples are drawn: that takes a run of one process; see python -m camctrl_jax.evaluate")
    elif config.sample_every:
        sample = _sampler(config, parts, model, vae, vae_params, workdir)
    if jax.process_index() == 0:
        for change in differences(load_run_config(workdir), as_json(config)) if start else ():
            print(f"changed since the checkpoint: {change}")
        write_json(workdir / CONFIG_FILE, as_json(config))

    # 6. Train.
    try:
        outcome = loop.train(
            state,
            inputs.stream,
            lambda state, batch, rng: program.jitted_step(state, batch, rng, frozen),
            run_key(),
            loop.LoopConfig(config.steps, config.log_every, config.checkpoint_every, config.sample_every),
            start=start,
            run_dir=workdir,
            checkpoints=checkpoints,
            describe=describe,
            place=partial(place_batch, mesh=mesh),
            progress=progress,
            stored=program.to_stored,
            sample=sample,
        )
    finally:
        checkpoints.close()
    inputs.stream.close()  # not in finally: a step that is still running may read a batch in shared memory
    path = workdir / CHECKPOINTS / str(outcome.step)
    if outcome.stopped_by:
        print(f"stopped by {outcome.stopped_by} at step {outcome.step}; the same command continues it")
    return path


def take_sizes(config: ConfigDict, workdir: str | Path | None) -> None:
    """Fill in what ``config.model.preset='init_from'`` stands for; other presets have sizes of their own.

    A run that has a checkpoint is what it was, whatever has become of the weights that it started from.

    Raises:
        ConfigError: ``config.init_from`` names no transformer, or one that does not fit the rest.
    """
    from camctrl_jax.interop.described import config_from_json
    from camctrl_jax.interop.pretrained import open_weights
    from camctrl_jax.models import MMDiTConfig
    from camctrl_jax.training.checkpoint import latest_step, load_run_config
    from camctrl_jax.training.config import FROM_WEIGHTS, ConfigError, fill_in_sizes

    if config.model.preset != FROM_WEIGHTS:
        return
    if workdir and latest_step(workdir) is not None:
        built, source = load_run_config(workdir)["architecture"]["mmdit"], f"the checkpoint in {workdir}"
        sizes = None if built is None else config_from_json(MMDiTConfig, built)
    else:
        source = f"config.init_from={config.init_from!r}"
        sizes = open_weights(config.init_from).mmdit_config if config.init_from else None
    if sizes is None:
        raise ConfigError(
            f"config.model.preset='{FROM_WEIGHTS}' takes the sizes of {source}, which names no transformer; "
            "name a diffusers folder, a checkpoint or a weights folder"
        )
    fill_in_sizes(config, sizes, source)


def _frozen_vae(config: ConfigDict) -> tuple[VAEConfig, Params]:
    """Config and parameters of the autoencoder that ``config.vae.weights`` names."""
    import jax

    from camctrl_jax.interop.pretrained import load_vae
    from camctrl_jax.models import VAE, vae_preset

    if config.vae.weights != "random":
        return load_vae(config.vae.weights)
    vae_config = vae_preset(config.model.preset)
    return vae_config, VAE(vae_config).init_params(jax.random.key(0, impl="unsafe_rbg"))


# What a transformer computes depends on these, but the shapes of its parameters do not tell them.
_SIZES_WITHOUT_SHAPE = ("heads", "rope_axes", "rope_theta", "num_decoder")


def _initial_weights(config: ConfigDict, model: Any, vae_config: VAEConfig, mesh: Any) -> Params:
    """Parameters that ``config.init_from`` names, if they belong with the rest of the run.

    Args:
        config: of the run.
        model: sizes of what is trained.
        vae_config: sizes of the autoencoder.
        mesh: where the parameters of a transformer are put as they are read.
    """
    from camctrl_jax.interop.pretrained import load_vae, open_weights
    from camctrl_jax.training.config import ConfigError
    from camctrl_jax.training.inputs import embedder_of

    spec = config.init_from
    if config.objective == "vae":
        return load_vae(spec)[1]
    # All that configurations tell is compared before gigabytes are read.
    weights = open_weights(spec)
    for name in _SIZES_WITHOUT_SHAPE if weights.mmdit_config is not None else ():
        theirs, ours = getattr(weights.mmdit_config, name), getattr(model, name)
        if theirs != ours:
            raise ConfigError(
                f"config.model.preset={config.model.preset!r} has {name}={ours}, the weights of "
                f"config.init_from={spec!r} were made with {theirs}; --config.model.preset=init_from takes "
                "the sizes from the weights"
            )
    # Of weights from elsewhere nothing is known about their text.
    if weights.text and dict(weights.text) != embedder_of(config).settings():
        raise ConfigError(
            f"config.init_from={spec!r} was trained with the text embedder {dict(weights.text)}, this run "
            f"has {embedder_of(config).settings()}; set --config.data.text.* alike"
        )
    vae_spec = weights.vae_spec
    if vae_spec not in (None, "random", config.vae.weights) and load_vae(vae_spec)[0] != vae_config:
        raise ConfigError(
            f"config.init_from={spec!r} was trained on latents of the autoencoder {vae_spec!r}, this run has "
            f"config.vae.weights={config.vae.weights!r}; use --config.vae.weights={vae_spec}"
        )
    return weights.mmdit_params(mesh=mesh)


def _show_rendered(progress: ProgressLine, done: int, count: int) -> None:
    """Tell how far the rendering of the training worlds is, in tenths."""
    if done == count or done * 10 // count > (done - 1) * 10 // count:
        progress.say(f"rendered {done}/{count} worlds")


def _sampler(
    config: ConfigDict, parts: RunParts, model: Any, vae: VAE, vae_params: Params | None, workdir: Path
) -> Callable[[int, TrainState, TensorBoard], Mapping[str, float]]:
    """A callback that draws held-out samples, writes them as a picture (and a video), and returns what to
    log.
    """
    import importlib.util

    from camctrl_jax.data.video import write_mp4
    from camctrl_jax.diffusion.guidance import Guidance
    from camctrl_jax.training.checkpoint import write_errors
    from camctrl_jax.training.inputs import embedder_of, held_out_clips, tokens_of
    from camctrl_jax.training.samples import ReconstructionSampler, VideoSampler
    from camctrl_jax.viz.video import frame_strip, video_grid, write_png

    clips = held_out_clips(config)
    if config.objective == "vae":
        sampler = ReconstructionSampler(vae, clips)
    else:
        sampler = VideoSampler(
            model,
            vae,
            vae_params,
            clips,
            embedder_of(config),
            guidance=Guidance(config.sample.text_guidance, config.sample.camera_guidance),
            steps=config.sample.steps,
            shift=parts.flow.shift_of(tokens_of(config)),
        )
    folder = workdir / "samples"
    folder.mkdir(parents=True, exist_ok=True)

    def sample(step: int, state: TrainState, tensorboard: TensorBoard) -> Mapping[str, float]:
        made = sampler(state.ema)
        columns = sorted({round(i * (made.video.shape[1] - 1) / 5) for i in range(6)})
        rows = [clip for pair in zip(made.truth, made.video) for clip in pair]  # truth above, model below
        strip = frame_strip(rows, columns)
        with write_errors(folder):
            write_png(folder / f"{step:07d}.png", strip)
            if importlib.util.find_spec("av") is not None:
                grid = video_grid(np.stack([*made.truth, *made.video]), columns=len(made.truth))
                write_mp4(folder / f"{step:07d}.mp4", grid, config.data.fps)
        tensorboard.write_image(step, "samples", strip)
        return made.metrics

    return sample


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the command line; an unknown config key ends in one sentence that names the nearest key."""
    from camctrl_jax.training.config import ConfigError, check_overrides, load_recipe

    # A first look at the recipe by itself: absl applies overrides while it loads, and fails with a traceback.
    try:
        for argument, following in zip(argv[1:], [*argv[2:], ""]):  # --config=FILE or --config FILE
            name, _, value = argument.partition("=")
            if name in ("--config", "-config") and (value or following):
                check_overrides(argv[1:], load_recipe(value or following))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    remaining = app.parse_flags_with_usage(argv)
    if flags.FLAGS["verbosity"].using_default_value:  # absl would show what libraries note for themselves
        logging.set_verbosity(logging.WARNING)
    return remaining


def run() -> None:
    """Run :func:`main` under absl."""
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
