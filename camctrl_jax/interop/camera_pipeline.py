"""Run an exported camera-controlled video model in PyTorch, with the stock classes of diffusers.

  python camera_pipeline.py --folder MODEL --image first.png --poses poses.npy --intrinsics lens.npy --out clip.npy
  python camera_pipeline.py --folder MODEL --video clip.npy --poses longer.npy --intrinsics lens.npy --out longer.mp4

The first command makes a clip that starts at a picture (without --image: from the prompt alone); the second
goes on from a video, one clip more, seen from the same first camera. The path of a clip is kept beside it
(clip.npy.cameras.npz), and a longer path that does not begin with it is refused.

  --poses       npy [T, 4, 4], world_from_camera, OpenCV axes (x right, y down, z forward), metres; a pose per
                frame. With --video: of all frames, those so far and those to come.
  --intrinsics  npy [4] or [T, 4]: fx/W, fy/H, cx/W, cy/H of the frames of the clip.
  --text        embeddings by the text encoder of the training: safetensors with `embeds` [1, N, D] and `mask`
                [1, N], or a file of `python -m camctrl_jax.encode_text` together with --prompt.
Without --poses the model is told nothing about the camera, without --text the prompt is empty. Sizes and guidance
default to those of the training.

This file stands alone: it is copied into every exported folder and imports torch, diffusers, safetensors and
numpy (Pillow for pictures, PyAV for mp4). The folder holds a strict stock transformer/, scheduler/, vae/ (or name
the base model's with --vae), camera/ and text/null.safetensors. Arrays are channels-last, frames are uint8.
Axes: B clips, T = 4k+1 frames, L = k+1 latents, h, w latent grid, N text tokens, V video tokens, D channels.
"""  # noqa: E501

import argparse
import errno
import json
import math
import os
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, MotifVideoTransformer3DModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

CAMERAS_SUFFIX = ".cameras.npz"  # of the file beside a clip that holds its path
RIGID = 1e-3  # how far R^T R of a pose may be from the identity: rounded files are not far off
TOLERANCE = 1e-4  # of positions, in units or parts of the path's extent; of rotations in radians; of lenses
CONVENTIONS = {"order": "moment_first", "frame_stride": 4, "axes": "opencv"}


def plucker_map(world_from_camera, intrinsics, height, width):
    """Rays (o x d, d) through the pixel centres: [..., 4, 4] and [..., 4] -> f32 [..., height, width, 6]."""
    pose, lens = np.asarray(world_from_camera, np.float32), np.asarray(intrinsics, np.float32)
    fx, fy, cx, cy = (lens[..., i, None] for i in range(4))
    x = (((np.arange(width, dtype=np.float32) + 0.5) / width - cx) / fx)[..., None, :, None]
    y = (((np.arange(height, dtype=np.float32) + 0.5) / height - cy) / fy)[..., :, None, None]
    right, down, forward, origin = (pose[..., None, None, :3, i] for i in range(4))
    direction = right * x + down * y + forward
    direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    return np.concatenate([np.cross(np.broadcast_to(origin, direction.shape), direction), direction], axis=-1)


def guidance_branches(text, camera, camera_without_text=None, camera_input=True):
    """[(sees the text, sees the camera, weight)] of one step; branches of weight 0 are left out.

    v(0,0) + text [v(c,0) - v(0,0)] + camera [v(c,s) - v(c,0)]  (CameraCtrl II, Eq. 3); with the appendix's
    CFG' also + camera_without_text [v(0,s) - v(0,0)]. Weights of 1 leave the plain conditional call.
    """
    if not camera_input:
        weights = {(False, False): 1.0 - text, (True, False): text}
    else:
        first = camera_without_text or 0.0
        weights = {(False, False): 1.0 - text - first, (True, False): text - camera, (True, True): camera}
        weights[False, True] = first
    return [(*sees, weight) for sees, weight in weights.items() if weight != 0.0]


def time_grid(steps, shift):
    """f32 [steps + 1], 1 ... 0: what FlowMatchEulerDiscreteScheduler makes of linspace(1, 1 / steps)."""
    t = np.linspace(1.0, 0.0, steps + 1)
    return (shift * t / (1.0 + (shift - 1.0) * t)).astype(np.float32)


def valid_tokens(texts):
    """Texts [(embeds [B, N, D], mask bool [B, N])] as one batch: valid tokens first, cropped to the longest.

    The mask is None where all are equally long: FlashAttention takes none. Text tokens carry no position, so
    their order means nothing to the model.
    """
    longest, rows, masks = max(int(mask.sum(1).max()) for _, mask in texts), [], []
    for embeds, mask in texts:
        order = torch.argsort((~mask).int(), dim=1, stable=True)[:, :longest]
        missing = longest - order.shape[1]
        masks.append(torch.nn.functional.pad(mask.gather(1, order), (0, missing)))
        rows.append(embeds.gather(1, order[..., None].expand(-1, -1, embeds.shape[-1])))
        rows[-1] = torch.nn.functional.pad(rows[-1], (0, 0, 0, missing))
    mask = torch.cat(masks)
    return torch.cat(rows), None if mask.all() else mask


def check_student(
    distilled, steps, *, other_shift=False, text_guidance=None, camera_guidance=None, camera_without_text=None
):
    """Refuse what a student was not made for; ``distilled`` is that entry of sampling.json, None of others.

    Guidance is None where the model's own is meant; other_shift: the shift is not that of training.
    """
    if distilled is None:
        return
    folded = [
        f"{name} {value:g}" for name, value in distilled["guidance_folded"].items() if value is not None
    ]
    made = f"{distilled['method']} distillation, guidance folded in: {', '.join(folded) or 'none'}"
    valid = " or ".join(map(str, distilled["valid_steps"]))
    if steps not in distilled["valid_steps"]:
        raise ValueError(
            f"steps is {steps}: these weights are a student made for {valid} steps ({made}). Take {valid}, "
            "or leave steps out."
        )
    if other_shift and steps > 1:  # a single step has the same times under any
        raise ValueError(
            f"These weights are a student, which knows the times of its own steps alone ({made}): leave "
            "shift out."
        )
    weights = {"text_guidance": (text_guidance, (None, 1)), "camera_guidance": (camera_guidance, (None, 1))}
    weights["camera_without_text"] = camera_without_text, (None, 0)
    for name, (value, none) in weights.items():
        if value not in none:
            raise ValueError(
                f"{name} is {value:g}: these weights are a student, sampled without guidance ({made}). Leave "
                "it out; the teacher's weights take guidance."
            )


class CameraPipeline:
    """A stock transformer, its autoencoder and the camera layer; see ``generate`` and ``extend``."""

    def __init__(
        self, transformer, vae, *, camera=None, settings=None, sampling=None, null_text=None, shift=None
    ):
        """camera: tensors {weight, bias}; settings: of camera/config.json; null_text: (embeds, mask)."""
        self.transformer, self.vae, self.null_text = transformer.eval(), vae.eval(), null_text
        self.camera, self.settings, self._camera_tokens = camera, settings or {}, None
        defaults = {"shift": shift, "text_guidance": 1.0, "camera_guidance": 1.0}
        self.sampling = sampling or defaults
        # A hook, not a subclass: the weights stay those of the stock class, and as x_embedder lies outside
        # the repeated blocks that torch.compile takes, the hook breaks no compiled graph.
        self._hook = camera and transformer.x_embedder.register_forward_hook(self._add_camera)

    @classmethod
    def from_folder(
        cls, folder, dtype=torch.bfloat16, device=None, *, vae=None, attention=None, compile=False
    ):
        """Load an exported folder, or a base model's: no camera then.

        Args:
            folder: with transformer/, and what else the head of this file lists.
            dtype: of transformer and VAE. float32 reproduces the JAX sample; bfloat16 is for GPUs.
            device: default "cuda" where there is one.
            vae: folder of an AutoencoderKLWan, or of a model with vae/ in it; default ``folder``.
            attention: for ``set_attention_backend``: "_flash_3_hub" on an H100, with sequential=True below.
            compile: torch.compile the repeated blocks; every new clip size compiles once.
        """
        folder, home = Path(folder), Path(vae or folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        homes = [path for path in (home / "vae", home) if (path / "config.json").is_file()]
        if not (folder / "transformer/config.json").is_file():
            raise FileNotFoundError(f"{folder} has no transformer/config.json: not an exported model folder.")
        if not homes:
            raise FileNotFoundError(
                f"{home} holds no autoencoder (vae/config.json): name one with vae= (--vae), for "
                "example of the base model that this one was trained from."
            )
        parts = {}
        if (folder / "scheduler/scheduler_config.json").is_file():
            parts["shift"] = _read_shift(folder / "scheduler/scheduler_config.json")
        if (folder / "sampling.json").is_file():
            parts["sampling"] = _read_sampling(folder / "sampling.json")
        if (folder / "camera/config.json").is_file():
            settings = parts["settings"] = _read_json(folder / "camera/config.json")
            for name, known in CONVENTIONS.items():
                if settings.get(name, known) != known:
                    found = f"{folder / 'camera/config.json'}: {name} is {settings[name]!r}"
                    raise ValueError(f"{found}; this camera_pipeline.py knows {known!r} only.")
            scale, path = settings.get("translation_scale", 1.0), folder / "camera/config.json"
            _check_number(path, "translation_scale", scale)
            _refuse_pointer(folder / "camera/camera_embedder.safetensors")
            tensors = load_file(folder / "camera/camera_embedder.safetensors")
            parts["camera"] = {name: tensors[name].float().to(device) for name in ("weight", "bias")}
        if (folder / "text/null.safetensors").is_file():
            _refuse_pointer(folder / "text/null.safetensors")
            parts["null_text"] = read_text(folder / "text/null.safetensors")
        transformer = _loaded(MotifVideoTransformer3DModel, folder / "transformer", dtype, device)
        vae = _loaded(AutoencoderKLWan, homes[0], dtype, device)
        if attention is not None:
            transformer.set_attention_backend(attention)
        if compile:
            transformer.compile_repeated_blocks(fullgraph=True)
        return cls(transformer, vae, **parts)

    def close(self):
        """Take the camera away: the transformer is the stock one again."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = self.camera = None

    def generate(self, *, frames=None, height=None, width=None, **options):
        """A clip, u8 [B, T, H, W, 3], by default of the training's size. Options: those of ``sample``."""
        return self.decode(self.sample(*self.clip_size(frames, height, width), **options))

    def clip_size(self, frames=None, height=None, width=None):
        """(frames, height, width), those of the training where None is given."""
        given = {"frames": frames, "height": height, "width": width}
        size = [value or self.sampling.get(name) for name, value in given.items()]
        if None in size:
            raise ValueError(
                f"This model does not say its clip size: give {', '.join(given)} (e.g. 49, 384, 640)."
            )
        return tuple(size)

    def extend(
        self, video, *, new_latents=12, condition_latents=4, world_from_camera_so_far=None,
        intrinsics_so_far=None, retrieved=0, **options,
    ):  # fmt: skip
        """Go on from a video: 4 * new_latents more frames, u8 [B, T' + 4 * new_latents, H, W, 3].

        Its last 4 * (condition_latents - 1) + 1 frames are encoded again and condition the new ones. Earlier
        frames are not retrieved here, whatever the weights were trained with: the stock transformer has no
        rotary times for latents beside the window. A place that the camera left is invented anew.

        Args:
            video: u8 [B, T', H, W, 3], all frames so far.
            world_from_camera_so_far, intrinsics_so_far: poses [T', 4, 4] or [B, T', 4, 4] and lenses that the
                video was made along: the path must begin with them, in any world frame. None: it is not
                checked that it does.
            options: those of ``sample``, where poses and lenses are those of the whole exploration up to the
                last new frame, and the first pose is the reference of all clips. (Of clips that go on from
                one latent, as in image to video, and of weights whose sampling.json says ``"reference":
                "clip"``, it is the first of their own.) Give every clip another seed.
        """
        given, added = 4 * (condition_latents - 1) + 1, 4 * new_latents
        if min(condition_latents, new_latents) < 1:
            raise ValueError(
                f"{condition_latents=} and {new_latents=}: expected 1 or more (4 and 12 are usual)."
            )
        if video.dtype != np.uint8 or video.ndim != 5 or video.shape[1] < given:
            found = f"video is {video.dtype} {list(video.shape)}"
            raise ValueError(f"{found}: expected uint8 [B, T, H, W, 3] of at least {given} frames.")
        if retrieved:
            raise ValueError(
                f"{retrieved=}: the stock transformer numbers latents from 0 on and cannot be shown earlier "
                "frames beside the window; leave it out, or extend with camctrl_jax (Pipeline.extend)."
            )
        if self.sampling.get("retrieved"):
            warnings.warn(
                f"These weights were trained with {self.sampling['retrieved']} earlier frames beside the "
                "last ones, which this pipeline cannot show them: places that were left are invented anew.",
                stacklevel=2,
            )
        if intrinsics_so_far is not None and world_from_camera_so_far is None:
            raise ValueError(
                "intrinsics_so_far without world_from_camera_so_far says nothing: give the poses of the "
                "video, too, or neither."
            )
        if options.get("world_from_camera") is not None:
            poses, lenses = _paths(options["world_from_camera"], options.get("intrinsics"))
            if poses.shape[1] != video.shape[1] + added:  # of a longer path, which part is meant?
                raise ValueError(
                    f"{poses.shape[1]} poses: expected those of the {video.shape[1]} frames so far and "
                    f"of the {added} to come, {video.shape[1] + added} in all."
                )
            if world_from_camera_so_far is not None:
                check_beginning(
                    poses, world_from_camera_so_far, video.shape[1],
                    lenses if intrinsics_so_far is not None else None, intrinsics_so_far,
                )  # fmt: skip
            options["world_from_camera"] = poses[:, -given - added :]
            if condition_latents > 1 and self.sampling.get("reference", "take") == "take":
                options["reference"] = poses[:, :1]
            options["intrinsics"] = lenses[:, -given - added :]
        elif world_from_camera_so_far is not None:
            raise ValueError(
                "world_from_camera_so_far tells where the video's cameras were, and world_from_camera is not "
                "given: expected the poses of the whole path."
            )
        latents = self.sample(given + added, *video.shape[2:4], condition=video[:, -given:], **options)
        return np.concatenate([video, self.decode(latents)[:, given:]], axis=1)

    @torch.no_grad()
    def sample(
        self, frames, height, width, *, text=None, negative_text=None, condition=None,
        world_from_camera=None, intrinsics=None, reference=None, steps=None, shift=None,
        text_guidance=None, camera_guidance=None, camera_without_text=None, seeds=(0,), noise=None,
        sequential=False, progress=None,
    ):  # fmt: skip
        """Normalised latents f32 [B, L, h, w, C], by Euler steps from noise (t = 1) to data (t = 0).

        Args:
            text: (embeds [B or 1, N, D], mask [B or 1, N]) of the prompts; None is the empty prompt.
            negative_text: the same, in place of the empty prompt that guidance leads away from.
            condition: u8 [B, T', H, W, 3], the given T' = 4k + 1 < T first frames (one: image to video).
            world_from_camera, intrinsics: [T, 4, 4] or [B, T, 4, 4], and [4], [T, 4] or [B, T, 4]; None is no
                camera.
            reference: pose [B or 1, 1, 4, 4] that others are relative to; by default each path's first.
            steps, shift: of the time grid; by default those of sampling.json, or 32 steps.
            text_guidance, camera_guidance: w_text and w_cam (w_cam2 of CFG'); by default the model's. A
                student has guidance folded in: it takes none, and only the steps that it was made for.
            camera_without_text: w_cam1 of CFG'; None selects Eq. 3.
            seeds, noise: B seeds, or the noise itself, f32 [B, L, h, w, C].
            sequential: one branch of guidance at a time: less memory, and no padding mask at batch 1.
            progress: called with (steps done, steps).
        """
        shape = self._latent_shape(frames, height, width)
        steps = (self.sampling.get("steps") or 32) if steps is None else steps
        usual = self.sampling.get("shift")
        if usual is None:  # as in training: it grows with the square root of the number of video tokens
            config = self.transformer.config
            tokens = math.prod(shape[:3]) // (config.patch_size_t * config.patch_size**2)
            usual = 12.0 * math.sqrt(tokens / 46800)
        check_student(
            self.sampling.get("distilled"), steps=steps, other_shift=shift not in (None, usual),
            text_guidance=text_guidance, camera_guidance=camera_guidance,
            camera_without_text=camera_without_text,
        )  # fmt: skip
        self._check_camera_options(
            world_from_camera=world_from_camera, intrinsics=intrinsics, reference=reference,
            camera_guidance=camera_guidance, camera_without_text=camera_without_text,
        )  # fmt: skip
        if noise is None:  # by numpy: the same on every device
            noise = np.stack(
                [np.random.default_rng(seed).standard_normal(shape, np.float32) for seed in seeds]
            )
        elif np.ndim(noise) != 5 or np.shape(noise)[1:] != shape:
            raise ValueError(
                f"The noise is {list(np.shape(noise))}: expected [B, {', '.join(map(str, shape))}] for a "
                f"clip of {frames} frames of {height}x{width}."
            )
        noise = self._channels_first(noise).float()  # [B, C, L, h, w]
        if not torch.isfinite(noise).all():
            raise ValueError(
                "The noise holds NaN or infinity: expected finite numbers, of a standard normal."
            )
        batch, given, clean, mask = len(noise), 0, torch.zeros_like(noise), torch.zeros_like(noise[:, :1])
        if condition is not None:
            size, found = np.shape(condition), getattr(condition, "dtype", type(condition).__name__)
            if found != np.uint8 or len(size) != 5 or size[1] % 4 != 1 or size[2:] != (height, width, 3):
                raise ValueError(
                    f"The condition is {found} {list(size)}: expected uint8 [B, 4k+1, {height}, {width}, 3]."
                )
            latents = self.encode(condition)
            given = latents.shape[2]
            if given >= shape[0]:
                raise ValueError(
                    f"{condition.shape[1]} of {frames} frames are given: nothing is left to sample."
                )
            clean[:, :, :given], mask[:, :, :given] = latents, 1.0

        weights = {"text_guidance": text_guidance, "camera_guidance": camera_guidance}
        weights = [self.sampling[name] if value is None else value for name, value in weights.items()]
        branches = guidance_branches(*weights, camera_without_text, self.camera is not None)
        texts = {True: text, False: negative_text}
        texts = {sees: self.null_text if given is None else given for sees, given in texts.items()}
        if any(texts[sees_text] is None for sees_text, _, _ in branches):
            raise ValueError(
                "The embedding of the empty prompt is needed, but there is no text/null.safetensors."
            )
        texts = {sees: self._text(*pair, batch) for sees, pair in texts.items() if pair is not None}
        cameras = dict.fromkeys((True, False))
        if self.camera is not None:
            maps = self._plucker(
                (batch, *shape[:3]), (frames, height, width), world_from_camera, intrinsics, reference
            )
            cameras = {True: self._camera_features(maps), False: self._camera_features(np.zeros_like(maps))}
        calls = []  # (branches, text, mask, camera) of each forward pass of a step
        for group in [[branch] for branch in branches] if sequential else [branches]:
            tokens = None if self.camera is None else torch.cat([cameras[sees] for _, sees, _ in group])
            calls.append((len(group), *valid_tokens([texts[sees] for sees, _, _ in group]), tokens))
        shift = usual if shift is None else shift

        grid, state = time_grid(steps, shift), noise
        for index in range(steps):
            time = float(grid[index])
            # The noisy slot holds a given condition noised, as in training, the clean slot as it is.
            noisy = torch.where(mask > 0, (1.0 - time) * clean + time * noise, state)
            inputs = torch.cat([noisy, clean, mask], dim=1).to(self.vae.dtype)  # [B, 2 C + 1, L, h, w]
            velocities = []
            for count, embeds, text_mask, self._camera_tokens in calls:
                times = torch.full((count * batch,), 1000.0 * time, device=inputs.device)
                output = self.transformer(
                    torch.cat([inputs] * count), times, embeds.to(inputs), text_mask
                ).sample
                velocities += output.float().chunk(count)
            if len(branches) > 1:
                velocities = [weight * part for (_, _, weight), part in zip(branches, velocities)]
            state = state + (float(grid[index + 1]) - time) * sum(velocities)
            if progress is not None:
                progress(index + 1, steps)
        self._camera_tokens = None
        return torch.where(mask > 0, clean, state).movedim(1, -1).cpu().numpy()

    @torch.no_grad()
    def encode(self, video):
        """u8 [B, T, H, W, 3] -> normalised latent means, a tensor f32 [B, C, L, h, w]."""
        scaled = self._channels_first(video).float() / 127.5 - 1.0
        mean, std = self._statistics()
        return (self.vae.encode(scaled.to(self.vae.dtype)).latent_dist.mode().float() - mean) / std

    @torch.no_grad()
    def decode(self, latents):
        """Normalised latents f32 [B, L, h, w, C] -> u8 [B, T, H, W, 3]; the first latent is one frame."""
        mean, std = self._statistics()
        latents = self._channels_first(latents) * std + mean
        video = self.vae.decode(latents.to(self.vae.dtype)).sample.float()
        return ((video + 1.0) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu().numpy()

    def _check_camera_options(self, **given):
        """Refuse what would be ignored: without a camera layer, or without poses, it says nothing."""
        names = [name for name, value in given.items() if value is not None]
        if names and self.camera is None:
            raise ValueError(
                f"{' and '.join(names)} cannot be followed: this model has no camera layer (no camera/ "
                "in its folder, or it was closed). Leave them out, or take a model trained with cameras."
            )
        if given["world_from_camera"] is None and {"intrinsics", "reference"} & set(names):
            raise ValueError(
                f"{' and '.join(name for name in names if name in ('intrinsics', 'reference'))} without "
                "world_from_camera says nothing: give the poses, too, or neither for no camera."
            )

    def _statistics(self):
        values = (self.vae.config.latents_mean, self.vae.config.latents_std)
        return (torch.tensor(value, device=self.vae.device).view(1, -1, 1, 1, 1) for value in values)

    def _channels_first(self, array):
        return torch.as_tensor(np.array(array)).to(self.vae.device).movedim(-1, 1).contiguous()

    def _latent_shape(self, frames, height, width):
        stride = self.vae.config.scale_factor_spatial
        side = stride * self.transformer.config.patch_size
        if frames % 4 != 1 or height % side or width % side:
            clip = f"A clip of {frames} frames of {height}x{width}"
            raise ValueError(f"{clip}: expected 4k+1 frames and sides that are multiples of {side}.")
        return (frames - 1) // 4 + 1, height // stride, width // stride, self.vae.config.z_dim

    def _text(self, embeds, mask, batch):
        """Embeddings and mask, on the device, one per clip."""
        embeds, mask = (torch.as_tensor(array).to(self.vae.device) for array in (embeds, mask))
        width = self.transformer.config.text_embed_dim
        if embeds.ndim != 3 or embeds.shape[-1] != width or mask.shape != embeds.shape[:2]:
            found = f"Text embeddings {list(embeds.shape)} with mask {list(mask.shape)}"
            raise ValueError(
                f"{found}: expected [B, N, {width}] and [B, N], by the text encoder of the training."
            )
        return embeds.expand(batch, -1, -1), mask.bool().expand(batch, -1)

    def _plucker(self, shape, clip, world_from_camera, intrinsics, reference):
        """f32 [B, L, h, w, 6] (or H, W) of frames 0, 4, 8, ...; zeros without a camera."""
        size = clip[1:] if self.settings.get("plucker_res") == "pixel" else shape[2:]
        if world_from_camera is None:
            return np.zeros((*shape[:2], *size, 6), np.float32)
        poses, lenses = _paths(world_from_camera, intrinsics)
        if poses.shape[1] != clip[0]:
            raise ValueError(
                f"{poses.shape[1]} poses for a clip of {clip[0]} frames: give one pose per frame."
            )
        # Relative to the reference in float64: far from the origin float32 would lose digits.
        first = poses[:, :1] if reference is None else np.asarray(reference, np.float64)
        _check_poses(first, "The reference")
        poses = np.linalg.inv(first) @ poses
        poses[..., :3, 3] *= self.settings.get("translation_scale", 1.0)
        return np.broadcast_to(plucker_map(poses[:, ::4], lenses[:, ::4], *size), (*shape[:2], *size, 6))

    def _camera_features(self, maps):
        """Pluecker maps [B, L, h, w, 6] -> f32 [B, V, D].

        A product of patches with a matrix: cuDNN would round a float32 convolution to TF32, 0.2 degrees.
        """
        weight, bias = self.camera["weight"], self.camera["bias"]
        (b, t, h, w, c), (pt, ph, pw) = maps.shape, weight.shape[2:]
        x = (
            torch.tensor(maps)
            .view(b, t // pt, pt, h // ph, ph, w // pw, pw, c)
            .permute(0, 1, 3, 5, 7, 2, 4, 6)
        )
        x = x.reshape(b, -1, c * pt * ph * pw).to(weight.device)
        return torch.nn.functional.linear(x, weight.flatten(1), bias)

    def _add_camera(self, module, inputs, tokens):
        """Forward hook of x_embedder. JAX adds before its one rounding to bfloat16: equal in float32 only."""
        if self._camera_tokens is None:
            return tokens
        return (tokens.float() + self._camera_tokens).to(tokens.dtype)


def _paths(world_from_camera, intrinsics, names=("Poses", "Intrinsics")):
    """f64 [B, T, 4, 4] and [B, T, 4] from poses with or without a batch axis and lenses of [..., 4].

    Refuses what is no path of a camera, by name and frame; ``names`` is what poses and lenses are called.
    """
    poses = np.asarray(world_from_camera, np.float64)
    lenses = np.asarray(np.nan if intrinsics is None else intrinsics, np.float64)
    if poses.ndim not in (3, 4) or poses.shape[-2:] != (4, 4) or not poses.size:
        raise ValueError(f"{names[0]} are {list(poses.shape)}: expected [T, 4, 4] or [B, T, 4, 4].")
    if lenses.shape[-1:] != (4,) or not lenses.size or np.abs(lenses).max() > 20:
        found = f"{names[1]} are {list(lenses.shape)}"
        found += f" up to {np.abs(lenses).max():g}" if lenses.size else ""
        raise ValueError(f"{found}: expected [4] or [T, 4] of fx/W, fy/H, cx/W, cy/H (for pixels: --pixels).")
    if lenses.ndim > 1 and lenses.shape[-2] != poses.shape[-3]:
        raise ValueError(
            f"{names[1]}: {lenses.shape[-2]} intrinsics for {poses.shape[-3]} poses: give as many, "
            "or one [4]."
        )
    poses = poses if poses.ndim == 4 else poses[None]
    lenses = np.broadcast_to(lenses, (*poses.shape[:2], 4))
    _check_poses(poses, names[0])
    _refuse(~np.isfinite(lenses).all(-1), names[1], "holds NaN or infinity", "finite numbers")
    _refuse((lenses[..., :2] <= 0).any(-1), names[1], "has an fx or fy of 0 or less", "fx/W, fy/H above 0")
    return poses, lenses


def _check_poses(poses, name):
    """Refuse poses [B, T, 4, 4] that are no rigid motions: rays along them would be no camera's."""
    _refuse(~np.isfinite(poses).all((-2, -1)), name, "holds NaN or infinity", "finite numbers")
    _refuse(
        (np.abs(poses[..., 3, :] - [0.0, 0.0, 0.0, 1.0]) > RIGID).any(-1), name,
        "has another last row than 0, 0, 0, 1", "world_from_camera, with the position in the last column",
    )  # fmt: skip
    turn = poses[..., :3, :3]
    off = np.abs(np.swapaxes(turn, -2, -1) @ turn - np.eye(3)).max((-2, -1))
    what = "axes at right angles and of length 1, without scale"
    _refuse(off > RIGID, name, "holds no rotation (R^T R is not the identity)", what)
    _refuse(np.linalg.det(turn) < 0, name, "is mirrored (determinant -1)", "right-handed axes, OpenCV's")


def _refuse(wrong, name, found, expected):
    """Name the first place where ``wrong``, bool [B, T], is true."""
    if wrong.any():
        clip, frame = np.argwhere(wrong)[0]
        where = f"frame {frame}" if len(wrong) == 1 else f"frame {frame} of clip {clip}"
        raise ValueError(f"{name}: {where} {found}: expected {expected}.")


def check_beginning(poses, so_far, frames, lenses=None, lenses_so_far=None):
    """Refuse a path that does not begin with the one so far: the model would be told cameras the video never had.

    Args:
        poses: f64 [B, T, 4, 4] of the longer path; lenses: f64 [B, T, 4].
        so_far: poses of the video's ``frames`` frames, [T', 4, 4] or [B, T', 4, 4]; lenses_so_far likewise.

    Each path is taken relative to its first camera: its world frame means nothing.
    """  # noqa: E501
    lenses_so_far = np.full(4, 0.5) if lenses_so_far is None else lenses_so_far
    so_far, lenses_so_far = _paths(so_far, lenses_so_far, ("Poses so far", "Intrinsics so far"))
    _check_poses(poses, "Poses")
    if so_far.shape[1] != frames or so_far.shape[0] not in (1, poses.shape[0]):
        raise ValueError(
            f"The poses so far are {list(so_far.shape)} for a video of {frames} frames: they are "
            "another clip's."
        )
    so_far, own = (np.linalg.inv(path[:, :1]) @ path for path in (so_far, poses[:, :frames]))
    distance = np.linalg.norm(own[..., :3, 3] - so_far[..., :3, 3], axis=-1)
    chord = np.linalg.norm(own[..., :3, :3] - so_far[..., :3, :3], axis=(-2, -1)) / math.sqrt(8.0)
    degrees = np.degrees(2.0 * np.arcsin(np.minimum(chord, 1.0)))
    extent = max(1.0, float(np.abs(so_far[..., :3, 3]).max()))
    apart = np.maximum(distance / extent, np.radians(degrees))
    if not apart.max() <= TOLERANCE:  # so that a NaN is none, either
        clip, frame = np.unravel_index(int(apart.argmax()), apart.shape)
        where = f"frame {frame}" if len(apart) == 1 else f"frame {frame} of clip {clip}"
        raise ValueError(
            f"The path does not begin with that of the video: at {where} they are "
            f"{distance[clip, frame]:.3g} units and {degrees[clip, frame]:.3g} degrees apart. Make the "
            "longer path of the video's own and what follows it (camctrl_jax.camera.compose), not as one "
            "movement over more frames."
        )
    if lenses is not None:
        wide = np.abs(lenses[:, :frames] - lenses_so_far).max()
        if not wide <= TOLERANCE:
            raise ValueError(
                f"The lenses do not begin with those of the video: fx, fy, cx, cy differ by up to {wide:.3g} "
                "of the picture's size. Give the video's own, and after them what follows."
            )


def _read_json(path):
    """The JSON object of a file of the folder."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        pointer = path.read_bytes()[:40].startswith(b"version https://git-lfs")
        what = "is a Git LFS pointer: run `git lfs pull`" if pointer else f"is not JSON ({error})"
        raise ValueError(f"{path} {what}. Export or copy the folder again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a JSON object.")
    return content


def _read_sampling(path):
    """The defaults of sampling.json, every one a number above 0, or null where the file may leave it open."""
    content = _read_json(path)
    for name in ("text_guidance", "camera_guidance"):
        _check_number(path, name, content.get(name), least=-math.inf)
    if content.get("reference", "take") not in ("take", "clip"):
        found = f"{path}: reference is {content['reference']!r}"
        raise ValueError(f"{found}; expected 'take' or 'clip'. Export or copy the folder again.")
    _check_number(path, "retrieved", content.get("retrieved", 0), least=-1.0, whole=True)
    for name in ("shift", "fps", "frames", "height", "width", "steps"):
        if content.get(name) is not None:
            _check_number(path, name, content[name], whole=name not in ("shift", "fps"))
    if content.get("distilled") is not None:
        _check_distilled(path, content["distilled"])
    return content


def _check_distilled(path, distilled):
    """That the entry of sampling.json says what check_student asks of it, of a model that can run here."""
    fields = {"method": str, "valid_steps": list, "guidance_folded": dict}
    for name, kind in fields.items():
        if not isinstance(distilled, dict) or not isinstance(distilled.get(name), kind):
            found = f"{path}: distilled is {distilled!r}"
            raise ValueError(f"{found}; expected {', '.join(fields)}. Export or copy the folder again.")
    for value in distilled["valid_steps"]:
        _check_number(path, "valid_steps", value, whole=True)
    for name, value in distilled["guidance_folded"].items():
        if value is not None:
            _check_number(path, f"guidance_folded.{name}", value, least=-math.inf)
    if distilled["method"] == "flow_map":
        raise ValueError(
            f"{path}: a flow map is told the time that a step jumps to, and the stock transformer has no "
            "such input: sample it with camctrl_jax."
        )


def _check_number(path, name, value, least=0.0, whole=False):
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not least < value < math.inf:
        expected = "a whole number" if whole else "a number"
        above = "" if least == -math.inf else f" above {least:g}"
        raise ValueError(
            f"{path}: {name} is {value!r}; expected {expected}{above}. Export or copy the folder again."
        )


def _refuse_pointer(path):
    with open(path, "rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise ValueError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`.")


def _read_shift(path):
    """The timestep shift that a scheduler's settings fix, or None."""
    content = _read_json(path)
    shift = content.get("shift")
    if content.get("use_dynamic_shifting"):
        return None  # it grows with the number of tokens there
    if shift is not None and (type(shift) not in (int, float) or not 0 < shift < math.inf):
        raise ValueError(f"{path}: shift is {shift!r}; expected a number above 0.")
    return shift


def _read_array(option, path):
    """The array of an npy file that the command line names."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{option} {path} is no npy file of numbers ({error}).") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(
            f"{option} {path} is an archive of arrays ({', '.join(array)}): expected one array, npy."
        )
    return array


def cameras_beside(clip):
    """Where the path of a clip is kept: clip.npy has clip.npy.cameras.npz, clip.mp4 its own."""
    return Path(clip).with_name(Path(clip).name + CAMERAS_SUFFIX)


def read_cameras(path):
    """(world_from_camera [T, 4, 4], intrinsics [T, 4]) of a file that the command wrote beside a clip."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            poses, lenses = arrays["world_from_camera"], arrays["intrinsics"]
        _paths(poses, lenses)
    except (
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"{path} is not the path of a clip as this command writes it ({error}). Remove the file, or "
            "name the poses with --video-poses."
        ) from error
    return poses, lenses


def _loaded(kind, folder, dtype, device):
    """A stock model; refuses what diffusers only warns of: tensors that are missing, unknown or misshaped."""
    options = {"torch_dtype": dtype, "use_safetensors": True, "local_files_only": True}
    for path in (folder / "config.json", *sorted(folder.glob("*.safetensors"))):
        _refuse_pointer(path)
    try:
        model, info = kind.from_pretrained(folder, output_loading_info=True, **options)
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"{folder / 'config.json'} does not describe a {kind.__name__} ({error}): a field is missing or "
            "of another type. Export or copy it again."
        ) from error
    except RuntimeError as error:
        shapes = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder}: config.json and weights do not belong together: {shapes}") from error
    wrong = {what: names for what, names in info.items() if names}
    if wrong:
        raise ValueError(f"{folder} is not a complete {kind.__name__}: {wrong}. Export or copy it again.")
    return model.to(device).requires_grad_(False)


def read_text(path, prompt=None):
    """(embeds [1, N, D], mask [1, N]) from a safetensors file; of ``prompt``, if it is one of encode_text."""
    with safe_open(path, framework="pt") as file:
        if "embeds" in set(file.keys()):
            if prompt is not None:
                raise ValueError(
                    f"{path} holds one text, without its words: {prompt!r} cannot be looked up in it. "
                    "Leave the prompt out, or name a file of python -m camctrl_jax.encode_text."
                )
            return file.get_tensor("embeds")[:1], file.get_tensor("mask")[:1].bool()
        texts, counts = json.loads(bytes(file.get_tensor("texts").numpy())), file.get_tensor("counts")
        if prompt is None:
            raise ValueError(f"{path} holds {len(texts)} texts: say which with --prompt.")
        if prompt not in texts:
            raise ValueError(
                f"{path} holds no embedding of {prompt!r} ({len(texts)} texts are there, looked up exactly): "
                "encode it with python -m camctrl_jax.encode_text, or name another --prompt."
            )
        number, per_part = texts.index(prompt), int(file.metadata()["texts_per_part"])
        part = number // per_part
        start, length = int(counts[part * per_part : number].sum()), int(counts[number])
        embeds = file.get_slice(f"tokens.{part:05d}")[start : start + length][None]
    return embeds, torch.ones(embeds.shape[:2], dtype=torch.bool)


def read_frames(path, height=None, width=None):
    """u8 [1, T, H, W, 3] of an npy, or of a picture that is resized to cover the size and cropped."""
    if Path(path).suffix == ".npy":
        frames = _read_array("frames", path)
        if frames.ndim < 3:
            raise ValueError(f"{path} holds an array {list(frames.shape)}: expected frames [T, H, W, 3].")
        return frames.reshape((1, -1, *frames.shape[-3:]))
    from PIL import Image, ImageOps

    picture = ImageOps.fit(Image.open(path).convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture)[None, None]


def write_frames(path, video, fps, world_from_camera=None, intrinsics=None):
    """u8 [T, H, W, 3] as npy (exact: what --video goes on from) or mp4. It is there whole, or as it was.

    Its path, poses [T, 4, 4] and lenses [4] or [T, 4], is kept beside it. Without one, what an earlier
    clip of the name left there is removed.
    """
    path, beside = Path(path), cameras_beside(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    cameras = path.with_name(f".{path.stem}.{os.getpid()}.partial{CAMERAS_SUFFIX}")
    try:
        if path.suffix == ".npy":
            np.save(partial, video)
        else:
            _write_mp4(partial, video, fps)
        if world_from_camera is not None:
            lenses = np.broadcast_to(intrinsics, (len(world_from_camera), 4))
            np.savez(cameras, world_from_camera=world_from_camera, intrinsics=lenses)
        # Both are written. Wherever this is cut off, no clip has the path of another: at worst it has none.
        beside.unlink(missing_ok=True)
        os.replace(partial, path)
        if world_from_camera is not None:
            os.replace(cameras, beside)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and "requested and" not in str(error):
            raise
        raise OSError(
            f"cannot write {path}: the disk is full. Free some space, or choose another --out; what was "
            "there stays as it was."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
        cameras.unlink(missing_ok=True)
    return path


def _write_mp4(path, video, fps):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(fps), options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], "yuv420p"
        for frame in video:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
            )
        container.mux(stream.encode())


def parser():
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    result = argparse.ArgumentParser(description=__doc__, formatter_class=raw, allow_abbrev=False)
    add = result.add_argument
    add("--folder", required=True, metavar="DIR", help="the exported model")
    add("--out", required=True, metavar="FILE", help="the clip to write: .npy (exact) or .mp4")
    add("--vae", metavar="DIR", help="autoencoder, or base model with one (default: in --folder)")
    add("--image", metavar="FILE", help="first frame: a picture, cropped to the clip's shape, or an .npy")
    add("--video", metavar="FILE", help="go on from these frames (.npy)")
    add("--new-latents", type=int, help="with --video: of 4 frames each (default 12)")
    add("--condition-latents", type=int, help="with --video: of its end (default 4: 13 frames)")
    add("--video-poses", metavar="FILE", help="npy: where its cameras were (default: as kept beside it)")
    add("--text", metavar="FILE", help="text embeddings, see above")
    add("--prompt", help="which text of --text")
    add("--negative-prompt", metavar="TEXT", help="which text of --text guidance leads away from")
    add("--poses", metavar="FILE", help="camera path, see above")
    add("--intrinsics", metavar="FILE", help="lens, see above")
    add("--pixels", type=float, nargs=2, metavar=("H", "W"), help="--intrinsics are pixels of this size")
    for name in ("frames", "height", "width"):
        add(f"--{name}", type=int, help="of the clip (default: as trained)")
    add("--fps", type=float, help="of the mp4 (default: as trained)")
    add("--steps", type=int, help="Euler steps (default: the model's, or 32)")
    add("--shift", type=float, help="timestep shift (default: as in training)")
    add("--text-guidance", type=float, metavar="W", help="1 is none (default: the model's)")
    add("--camera-guidance", type=float, metavar="W", help="1 is none (default: the model's)")
    add("--camera-without-text", type=float, metavar="W", help="w_cam1 of CFG' (default: Eq. 3)")
    add("--seed", type=int, default=0, help="of the noise; take another one for every clip")
    add("--dtype", choices=("bfloat16", "float16", "float32"), help="default bfloat16, on a CPU float32")
    add("--device", help="default cuda where there is one")
    add("--attention", metavar="NAME", help="attention backend, e.g. _flash_3_hub together with --sequential")
    add("--compile", action="store_true", help="torch.compile the repeated blocks")
    add("--sequential", action="store_true", help="one branch of guidance at a time: less memory")
    return result


def run(options):
    """Make what the parsed command line asks for."""
    for name in ("poses", "intrinsics", "image", "video", "video_poses", "text"):
        if getattr(options, name) is not None and not Path(getattr(options, name)).is_file():
            raise FileNotFoundError(f"--{name.replace('_', '-')} {getattr(options, name)}: no such file.")
    if (options.poses is None) != (options.intrinsics is None):
        raise ValueError("--poses and --intrinsics belong together: give both, or neither for no camera.")
    if (options.prompt or options.negative_prompt is not None) and options.text is None:
        raise ValueError(
            "--prompt and --negative-prompt name texts in a file of embeddings: give that too, with --text."
        )
    _refuse_ignored(options)
    if Path(options.out).suffix not in (".npy", ".mp4"):
        raise ValueError(f"--out {options.out}: expected a name that ends with .npy or .mp4.")
    cameras = _cameras_given(options)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, options.dtype or ("float32" if device == "cpu" else "bfloat16"))
    choices = {"vae": options.vae, "attention": options.attention, "compile": options.compile}
    pipeline = CameraPipeline.from_folder(options.folder, dtype, device, **choices)
    weights = ("text_guidance", "camera_guidance", "camera_without_text")
    inputs = {name: getattr(options, name) for name in ("steps", "shift", "sequential", *weights)}
    inputs |= {
        "seeds": [options.seed],
        "progress": lambda *done: print("step {}/{}".format(*done), file=sys.stderr),
    }
    if options.text is not None:
        inputs["text"] = read_text(options.text, options.prompt)
    if options.negative_prompt is not None:
        inputs["negative_text"] = read_text(options.text, options.negative_prompt)
    inputs |= cameras
    if options.video is not None:
        latents = {name: getattr(options, name) for name in ("new_latents", "condition_latents")}
        inputs |= {name: value for name, value in latents.items() if value is not None}
        inputs |= _cameras_so_far(options)
        video = pipeline.extend(read_frames(options.video), **inputs)
    else:
        size = pipeline.clip_size(options.frames, options.height, options.width)
        if options.image is not None:
            inputs["condition"] = read_frames(options.image, *size[1:])
        video = pipeline.decode(pipeline.sample(*size, **inputs))
    cameras = (inputs.get("world_from_camera"), inputs.get("intrinsics"))
    write_frames(options.out, video[0], options.fps or pipeline.sampling.get("fps") or 12.0, *cameras)
    print(options.out)


def _refuse_ignored(options):
    """Refuse options that would have no effect beside the others, or in this folder."""
    needed = {
        "--video": ("new_latents", "condition_latents", "video_poses"),
        "--intrinsics": ("pixels",),
    }
    for other, names in needed.items():
        for name in names:
            if getattr(options, name) is not None and getattr(options, other[2:]) is None:
                raise ValueError(
                    f"--{name.replace('_', '-')} says nothing without {other}: give both, or neither."
                )
    for name in ("image", "frames", "height", "width"):
        if options.video is not None and getattr(options, name) is not None:
            raise ValueError(f"--{name} and --video exclude each other: a video goes on in its own size.")
    if options.video_poses is not None and options.poses is None:
        raise ValueError("--video-poses says nothing without --poses: give the poses of the whole path.")
    names = ("poses", "camera_guidance", "camera_without_text")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
    if given and not (Path(options.folder) / "camera/config.json").is_file():
        if not Path(options.folder).is_dir():
            return  # which is said of it where it is opened
        raise ValueError(
            f"{' and '.join(given)} cannot be followed: {options.folder} has no camera/, it is a model "
            "without a camera layer. Leave it out, or name a model that was trained with cameras."
        )


def _cameras_given(options):
    """Poses and lenses that the command line names, checked before a model is loaded for them."""
    if options.poses is None:
        return {}
    poses, lens = _read_array("--poses", options.poses), _read_array("--intrinsics", options.intrinsics)
    height, width = options.pixels or (1, 1)
    if not min(height, width) > 0:
        raise ValueError(f"--pixels {height:g} {width:g}: expected height and width above 0.")
    if lens.shape[-1:] == (4,):
        lens = lens / np.array([width, height, width, height])
    _paths(poses, lens, (f"--poses {options.poses}", f"--intrinsics {options.intrinsics}"))
    return {"world_from_camera": poses, "intrinsics": lens}


def _cameras_so_far(options):
    """What extend takes of the path that a video was made along, as far as it is known."""
    beside = cameras_beside(options.video)
    if options.video_poses is not None:
        poses = _read_array("--video-poses", options.video_poses)
        _paths(poses, np.full(4, 0.5), (f"--video-poses {options.video_poses}", ""))
        try:
            return {"world_from_camera_so_far": poses, "intrinsics_so_far": read_cameras(beside)[1]}
        except (FileNotFoundError, ValueError):  # poses are named where that file is absent or of no use
            print(f"note: {beside} tells no lenses of the video: they are not checked.", file=sys.stderr)
        return {"world_from_camera_so_far": poses}
    if options.poses is None:
        if beside.is_file():
            print("note: the video follows a path; without --poses what comes follows none.", file=sys.stderr)
        return {}
    if not beside.is_file():
        print(
            f"note: {beside} is not there: it is not checked that the path begins with that of the video.",
            file=sys.stderr,
        )
        return {}
    poses, lenses = read_cameras(beside)
    return {"world_from_camera_so_far": poses, "intrinsics_so_far": lenses}


def main(argv=None):
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    try:
        run(parser().parse_args(argv))
    except (ValueError, OSError, ImportError, RuntimeError, SafetensorError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
