"""A tour as a text file: where it starts, how it is sampled, and its clips one after the other.

YAML, read as plain values: tags that make objects are refused. Lines are kept, for errors.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from camctrl_jax.camera.formats import existing_path
from camctrl_jax.camera.playing import Playing
from camctrl_jax.errors import InvalidValue, MissingFile, file_failures
from camctrl_jax.pose_options import frame_range

MOST_CLIPS = 1000
_MOST_BYTES = 1 << 20
_INT, _FLOAT, _TEXT = "an integer", "a number", "a text"

SCENE = {
    **{"image": _TEXT, "worlds_seed": _INT, "prompt": _TEXT, "seed": _INT, "steps": _INT, "shift": _FLOAT},
    **{"guidance": _TEXT, "text_guidance": _FLOAT, "camera_guidance": _FLOAT, "history_guidance": _FLOAT},
    **{"camera_guidance_without_text": _FLOAT, "frames": _INT, "fps": _FLOAT, "height": _INT, "width": _INT},
}
"""What a tour may say besides its clips; as the options of ``generate`` of these names."""
CLIP = {
    **{"camera": _TEXT, "prompt": _TEXT, "seed": _INT, "branch": _INT, "range": _TEXT, "pace": _TEXT},
    **{"source_fps": _FLOAT, "camera_scale": _FLOAT},
}
"""What a clip may say."""


@dataclass(frozen=True)
class ScriptClip:
    """One clip of a tour.

    Attributes:
        where: its file and line, for messages.
        camera: a pose file (seen from the script's folder), preset or sentence; None of a world's first clip,
            which may take the world's own path.
        prompt, seed: None is the prompt of the clip before, and what follows from the tour's seed.
        branch: the number of the clip to go on from, from 1; None is the one before.
        playing: which part of a pose file is taken, and how fast.
        camera_scale: of the path's translations.
    """

    where: str
    camera: str | None
    prompt: str | None
    seed: int | None
    branch: int | None
    playing: Playing
    camera_scale: float


@dataclass(frozen=True)
class Script:
    """A tour.

    Attributes:
        path: of the file.
        text: all of it.
        scene: what it says besides its clips, some of ``SCENE``.
        clips: at least one.
    """

    path: Path
    text: str
    scene: Mapping[str, Any]
    clips: tuple[ScriptClip, ...]


def read_script(path: Path) -> Script:
    """Read a tour and check everything that can be known without weights and paths.

    Raises:
        UserError: names the file, the line, the key, and what is expected.
    """
    if not path.is_file():
        raise MissingFile(f"--script {path}: no such file.")
    with file_failures(path, "read"):
        raw = path.read_bytes()
    if len(raw) > _MOST_BYTES:
        raise InvalidValue(f"{path} has {len(raw)} bytes: a script is a text of at most {_MOST_BYTES}.")
    reader = _Reader(path)
    root = reader.root(raw)
    values = reader.mapping(root, {**SCENE, "clips": ""}, "the script")
    scene = {name: reader.value(name, node, SCENE[name]) for name, node in values.items() if name != "clips"}
    scene = {name: value for name, value in scene.items() if value is not None}
    nodes = values.get("clips")
    if not isinstance(nodes, yaml.SequenceNode) or not nodes.value:
        raise reader.error(
            nodes or root, 'clips: expected a list of one or more, each as "- camera: dolly in 1 m"'
        )
    if len(nodes.value) > MOST_CLIPS:
        raise reader.error(nodes, f"clips: {len(nodes.value)} of them, expected at most {MOST_CLIPS}")
    clips = tuple(reader.clip(number, node, scene) for number, node in enumerate(nodes.value, 1))
    if "image" in scene:
        scene["image"] = path.parent / scene["image"]
    return Script(path, raw.decode("utf-8"), scene, clips)


class _Reader:
    """Takes the nodes of a file apart."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def root(self, raw: bytes) -> yaml.Node:
        try:
            node = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
        except UnicodeDecodeError as error:
            raise InvalidValue(f"{self._path} is not UTF-8 text: {error}.") from error
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            line = "" if mark is None else f", line {mark.line + 1}"
            problem = getattr(error, "problem", None) or str(error)
            raise InvalidValue(
                f"{self._path}{line}: is not YAML: {problem}. A text with a colon or # in it needs quotes."
            ) from error
        if node is None:
            raise InvalidValue(f"{self._path} is empty: expected a tour with a list of clips.")
        return node

    def where(self, node: yaml.Node) -> str:
        return f"{self._path}, line {node.start_mark.line + 1}"

    def error(self, node: yaml.Node, message: str) -> InvalidValue:
        return InvalidValue(f"{self.where(node)}: {message}.")

    def mapping(self, node: yaml.Node, known: Mapping[str, str], what: str) -> dict[str, yaml.Node]:
        """The values of a mapping by key, none twice and none unknown."""
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, f'{what}: expected lines of "key: value"')
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise self.error(key, f"{what} has no key {name!r}{hint}; it has {', '.join(known)}")
            if name in found:
                raise self.error(key, f"{name} is said twice")
            found[name] = value
        return found

    def value(self, name: str, node: yaml.Node, kind: str) -> Any:
        """A value of a kind; None where it is left empty."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, f"{name}: expected {kind}")
        if node.tag == "tag:yaml.org,2002:null" and node.value in ("", "~", "null"):
            return None
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
            raise self.error(node, f"{name}: the tag {node.tag} is not read here; expected {kind}")
        if kind == _TEXT:  # as it stands there: YAML takes 10:49 for a number of minutes, and no for false
            return node.value
        types: tuple[Callable[[str], Any], ...] = (int,) if kind == _INT else (int, float)
        for read in types:
            try:
                value = read(node.value)
            except ValueError:
                continue
            if abs(value) < float("inf"):
                return value
        raise self.error(node, f"{name}: {node.value!r}; expected {kind}")

    def clip(self, number: int, node: yaml.Node, scene: Mapping[str, Any]) -> ScriptClip:
        """One clip of the list."""
        what = f"clip {number}"
        nodes = self.mapping(node, CLIP, what)
        values = {name: self.value(f"{what}: {name}", value, CLIP[name]) for name, value in nodes.items()}
        branch, scale, pace = values.get("branch"), values.get("camera_scale"), values.get("pace")
        if branch is not None and not 1 <= branch < number:
            expected = "leave it out of the first clip" if number == 1 else f"expected 1 to {number - 1}"
            raise self.error(
                nodes["branch"], f"{what}: branch: {branch} is no clip made before it; {expected}"
            )
        if scale is not None and not scale > 0:
            raise self.error(
                nodes["camera_scale"], f"{what}: camera_scale: {scale}; expected a positive factor"
            )
        if pace not in (None, "fit", "own"):
            raise self.error(nodes["pace"], f"{what}: pace: {pace!r}; expected fit or own")
        seed = values.get("seed")
        if seed is not None and not 0 <= seed < 2**32:
            raise self.error(nodes["seed"], f"{what}: seed: {seed}; expected 0 to {2**32 - 1}")
        if number == 1 and seed is not None:
            raise self.error(nodes["seed"], "clip 1 has the seed of the tour: say it outside of clips")
        if number == 1 and values.get("prompt") is not None and scene.get("prompt") is not None:
            raise self.error(nodes["prompt"], "clip 1 has the prompt of the tour: say one of the two")
        camera = values.get("camera")
        if camera == "none" or (camera is None and (number > 1 or "worlds_seed" not in scene)):
            raise self.error(node, f'{what}: expected a path, such as "camera: dolly in 1 m"')
        part = None
        if values.get("range") is not None:
            try:
                part = frame_range(values["range"])
            except argparse.ArgumentTypeError as error:
                raise self.error(nodes["range"], f"{what}: range: {error}") from error
        if camera is not None and existing_path(self._path.parent / camera) is not None:
            camera = str(self._path.parent / camera)
        return ScriptClip(
            *(self.where(node), camera, values.get("prompt"), seed, branch),
            Playing(part, values.get("source_fps"), pace == "own"),
            1.0 if scale is None else float(scale),
        )
