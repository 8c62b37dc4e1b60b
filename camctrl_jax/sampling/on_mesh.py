"""Sampling on several devices: how a mesh is asked for, what it has to divide, and the transformer on it.

A step evaluates the network once for each guidance branch of each clip, as one batch. That batch lies over
``data`` and ``fsdp``, filled up with copies where they do not divide it; tokens lie over ``context``, heads
and hidden units over ``tensor``, as in training. With three branches of one clip, ``context=N`` keeps N
devices busy for any N that divides the tokens, ``data=3`` three of them, and without any exchange between
them; ``data=2`` would compute four evaluations for three. Parameters lie over ``fsdp`` and ``tensor``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.condition import Condition
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models import MMDiTConfig, mmdit_in_dtype, stack_layers
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.models.roles import role_of
from camctrl_jax.parallel.activations import placement_of
from camctrl_jax.parallel.mesh import AXES, CONTEXT_ATTENTIONS, MeshConfig, make_mesh
from camctrl_jax.parallel.sharding import distribute, shardings_of
from camctrl_jax.sampling.pipeline import Denoiser, Extension, Params


@dataclass(frozen=True)
class MeshDenoiser(Denoiser):
    """The transformer on a mesh. The velocity is whole on every device, as the sampler's state is.

    Attributes:
        shares: parts of a batch, the devices along ``data`` times those along ``fsdp``.
    """

    shares: int = 1

    def __call__(self, params: Params, noisy: Array, time: Array, condition: Condition) -> Array:
        """The velocity; shapes as of ``Denoiser``."""
        count = noisy.shape[0]
        # A single evaluation is the same work on one device or on all of them.
        missing = -count % self.shares if count > 1 else 0
        inputs = noisy, time, condition
        if missing:
            inputs = jax.tree.map(lambda x: jnp.concatenate([x, *[x[-1:]] * missing]), inputs)
        velocity = super().__call__(params, *inputs)
        return self.placement.constrain(velocity[:count], *[None] * velocity.ndim)


@dataclass(frozen=True)
class SamplingWork:
    """What a mesh has to divide.

    Attributes:
        model: the transformer.
        tokens: video tokens of every kind of window that will be sampled.
        batches: evaluations of one clip in each call of the network that a step makes, one call after
            the other: that without history is alone.
    """

    model: MMDiTConfig
    tokens: tuple[int, ...]
    batches: tuple[int, ...]

    @classmethod
    def of_clips(
        cls, model: MMDiTConfig, shape: ClipShape, guidance: Guidance, extension: Extension | None = None
    ) -> SamplingWork:
        """Of clips of a size, and of those that go on from them where ``extension`` says how."""
        latents = {shape.latents}
        if extension is not None:
            window = extension.condition_latents + extension.new_latents
            latents |= {window, window + extension.retrieved}  # history guidance sees the window alone
        each = math.prod(shape.latent_size) // math.prod(model.patch[1:])
        branches = guidance.branches(camera_input=model.camera is not None)
        alone = sum(not branch.history for branch in branches)
        batches = (len(branches) - alone, *[1] * alone)
        return cls(model, tuple(sorted(n // model.patch[0] * each for n in latents)), batches)


def mesh_of_words(text: str, work: SamplingWork) -> tuple[MeshConfig, tuple[str, ...]]:
    """The mesh that ``--mesh`` asks for, checked before weights are read.

    Args:
        text: sizes by axis, ``context=4`` or ``data=3,context=2``, axes that are not named being 1, and
            perhaps ``attention=ulysses``; or a number of devices, which are then laid out for the least work
            on each.
        work: what will be sampled.

    Returns:
        (the mesh, all sizes given; what the user should know, one line each).

    Raises:
        InvalidValue: words that say no mesh; more devices than there are; tokens, heads or channels that it
            does not divide. Names the values and the nearest mesh that works.
    """
    available = len(jax.devices())
    asked = _read(text)
    if isinstance(asked, int):
        if asked > available:
            raise InvalidValue(f"--mesh {asked}: there are {available} devices; give at most that.")
        mesh = _arranged(asked, work)
        return mesh, (f"--mesh {asked} is laid out as {said(mesh)}.",)
    problem = _problem(asked, work, available)
    if problem:
        nearest = _nearest(asked, work, available)
        raise InvalidValue(f"--mesh {text}: {problem}; the nearest that works is --mesh {said(nearest)}.")
    least = _arranged(_devices(asked), work)
    if asked.fsdp == asked.tensor == 1 and _cost(least, work) < _cost(asked, work):
        return asked, (
            f"--mesh {text}: a device computes {_cost(asked, work):.3g} of the {sum(work.batches)} "
            f"evaluations of a step; with --mesh {said(least)} it would be {_cost(least, work):.3g}.",
        )
    return asked, ()


def said(mesh: MeshConfig) -> str:
    """A mesh in the words of ``--mesh``."""
    words = [f"{axis}={getattr(mesh, axis)}" for axis in AXES if getattr(mesh, axis) != 1]
    if mesh.context_attention != MeshConfig.context_attention:
        words.append(f"attention={mesh.context_attention}")
    return ",".join(words) or "1"


def make_sampling_mesh(config: MeshConfig, model: MMDiTConfig) -> Mesh:
    """The mesh, over as many devices as it names; -1 along an axis takes all that there are.

    Raises:
        InvalidValue: there are fewer devices, or heads or channels of the model that it does not divide.
    """
    available = len(jax.devices())
    sizes = {axis: getattr(config, axis) for axis in AXES}
    rest = math.prod(size for size in sizes.values() if size != -1)
    config = replace(config, **{axis: max(available // rest, 1) for axis, n in sizes.items() if n == -1})
    work = SamplingWork(model, (), (1,))  # tokens are known, and looked at, when clips are sampled
    problem = _problem(config, work, available)
    if problem:
        nearest = said(_nearest(config, work, available))
        raise InvalidValue(f"The mesh {said(config)}: {problem}; the nearest that works is {nearest}.")
    return make_mesh(config, jax.devices()[: _devices(config)])


def dtype_in_sampling(path: str, dtype: Any) -> Any:
    """The dtype that a parameter of the transformer is kept in where the network computes in ``dtype``."""
    return jnp.float32 if role_of(path).float32 else dtype


def mesh_denoiser(
    config: MMDiTConfig, params: Params, dtype: Any, mesh: Mesh, context_attention: str = "allgather"
) -> tuple[Denoiser, Params]:
    """A transformer on a mesh in the form it samples fastest in; see ``pipeline.sampling_form``.

    Args:
        config, params: with one entry per layer, anywhere; what lies on the mesh already stays there.
        dtype: of the network; parameters are rounded to it.
        mesh: of more than one device.
        context_attention: as of ``MeshConfig``.
    """
    # Cut over ``tensor``, a fused product would have to be put together and cut again.
    config = replace(config, fuse_projections=config.fuse_projections and mesh.shape["tensor"] == 1)
    params = mmdit_in_dtype(params, dtype)
    params = distribute(params, shardings_of(params, mesh))
    if jax.default_backend() != "cpu" and not config.scan_layers:
        config = replace(config, scan_layers=True)
        stack = partial(stack_layers, config=config)
        homes = shardings_of(jax.eval_shape(stack, params), mesh)
        params = jax.jit(stack, out_shardings=homes)(params)
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    return MeshDenoiser(config, dtype, placement_of(mesh, context_attention), shares), params


def autoencoder_on_mesh(autoencoder: Autoencoder, mesh: Mesh) -> Autoencoder:
    """The same, whole on every device, which share the clips and the rows of each."""
    params = jax.device_put(autoencoder.params, NamedSharding(mesh, PartitionSpec()))
    return replace(
        autoencoder, params=params, memory=autoencoder.memory * mesh.size, placement=placement_of(mesh)
    )


def _read(text: str) -> MeshConfig | int:
    """A number of devices, or sizes by axis."""
    if text.strip().isdecimal() and int(text) > 0:
        return int(text)
    sizes: dict[str, Any] = dict.fromkeys(AXES, 1)
    seen: set[str] = set()
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name in seen:
            raise InvalidValue(f"--mesh {text}: {name} stands there twice; name each once.")
        seen.add(name)
        if name == "attention" and value in CONTEXT_ATTENTIONS:
            sizes["context_attention"] = value
        elif name in AXES and value.isdecimal() and int(value) > 0:
            sizes[name] = int(value)
        else:
            raise InvalidValue(
                f"--mesh {text}: {part.strip()!r} is no part of a mesh; expected a number of devices, or "
                f"sizes of {', '.join(AXES)}, such as context=4 or data=3,context=2, and perhaps "
                f"attention={' or '.join(CONTEXT_ATTENTIONS)}."
            )
    return MeshConfig(**sizes)


def _devices(mesh: MeshConfig) -> int:
    return math.prod(getattr(mesh, axis) for axis in AXES)


def _problem(mesh: MeshConfig, work: SamplingWork, available: int) -> str | None:
    """Why a mesh cannot work."""
    model, needed = work.model, _devices(mesh)
    if needed > available:
        return f"it needs {needed} devices and there are {available}"
    for tokens in work.tokens:
        if tokens % mesh.context:
            return f"context={mesh.context} does not divide the {tokens} video tokens of a clip"
    if model.heads % mesh.tensor or model.mlp_dim % mesh.tensor:
        return (
            f"tensor={mesh.tensor} does not divide the {model.heads} heads and {model.mlp_dim} hidden units "
            "of these weights"
        )
    if model.width % mesh.fsdp:
        return f"fsdp={mesh.fsdp} does not divide the {model.width} channels of these weights"
    here = model.heads // mesh.tensor
    if mesh.context_attention == "ulysses" and here % mesh.context:
        return f"attention=ulysses exchanges {here} heads, which context={mesh.context} does not divide"
    return None


def _cost(mesh: MeshConfig, work: SamplingWork) -> float:
    """Evaluations of whole windows that a device computes in a step."""
    shares = mesh.data * mesh.fsdp
    return sum(math.ceil(batch / shares) for batch in work.batches) / (mesh.context * mesh.tensor)


def _sizes(devices: int, axes: int) -> Iterator[tuple[int, ...]]:
    """All sizes of so many axes whose product is at most ``devices``."""
    if axes == 0:
        yield ()
        return
    for size in range(1, devices + 1):
        yield from ((size, *others) for others in _sizes(devices // size, axes - 1))


def _arranged(devices: int, work: SamplingWork) -> MeshConfig:
    """The mesh with least work on each device; of equals that of fewest devices, then of least exchange.

    Tokens are exchanged for heads where heads can be shared out: on four GPUs and 12,480 tokens the faster.
    """
    meshes = (MeshConfig(data=data, context=context) for data, context in _sizes(devices, 2))
    fitting = [mesh for mesh in meshes if not _problem(mesh, work, devices)]
    best = min(fitting, key=lambda mesh: (_cost(mesh, work), _devices(mesh), mesh.context))
    exchanging = replace(best, context_attention="ulysses")
    return best if best.context == 1 or _problem(exchanging, work, devices) else exchanging


def _nearest(mesh: MeshConfig, work: SamplingWork, available: int) -> MeshConfig:
    """The mesh of no more devices that works and whose sizes are least far off, by their ratios."""

    def apart(other: MeshConfig) -> tuple[float, int]:
        ratios = [getattr(other, axis) / getattr(mesh, axis) for axis in AXES]
        return round(sum(abs(math.log2(ratio)) for ratio in ratios), 6), -_devices(other)

    most = min(available, _devices(mesh))
    meshes = (replace(mesh, **dict(zip(AXES, sizes))) for sizes in _sizes(most, len(AXES)))
    fitting = [other for other in meshes if not _problem(other, work, available)]
    return min(fitting, key=apart)
