"""Quick looks: a student beside the weights that are explored with, and whether it is one of theirs."""

from __future__ import annotations

import filecmp
from typing import Any

from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.errors import InvalidValue


def check_student(student: Weights, its_autoencoder: Weights, teacher: Weights, autoencoder: Weights) -> None:
    """That clips of a student and of a checkpoint can stand in one exploration, and share an autoencoder.

    Only configurations are compared, and the autoencoders' files byte for byte.

    Raises:
        InvalidValue: what should be a student is none, what it looks ahead for is one itself, or they differ;
            names both and what differs.
    """
    if student.distilled is None:
        raise InvalidValue(
            f"--student {student.spec}: these weights are no student, they say nothing of having been "
            f"distilled. Name a student of --checkpoint {teacher.spec}, or leave --student out."
        )
    if teacher.distilled is not None:
        raise InvalidValue(
            f"--student {student.spec} beside --checkpoint {teacher.spec}, which is a student itself "
            f"({teacher.distilled.said}) and could refine nothing: name its teacher with --checkpoint, or "
            "leave --student out."
        )
    for what, of_student, of_teacher in _compared(student, teacher):
        if of_student != of_teacher:
            raise InvalidValue(
                f"--student {student.spec} is none of --checkpoint {teacher.spec}: its {what} is "
                f"{of_student} and should be {of_teacher}. Name one that was distilled from these weights."
            )
    if not _same(its_autoencoder, autoencoder):
        raise InvalidValue(
            f"--student {student.spec} has the autoencoder of {its_autoencoder.spec}, and --checkpoint "
            f"{teacher.spec} that of {autoencoder.spec}, which is another one: name a student that was "
            "distilled with it, or the one autoencoder of both with --vae."
        )


def _compared(student: Weights, teacher: Weights) -> list[tuple[str, Any, Any]]:
    """What both must have in common, with the value of each."""
    ours, theirs = student.sampling, teacher.sampling
    names = {
        "frames": "clip length in frames",
        "height": "height",
        "width": "width",
        "fps": "frames per second",
        "retrieved": "number of retrieved frames",
        "reference": "reference of poses",
    }
    found = [(said, getattr(ours, name), getattr(theirs, name)) for name, said in names.items()]
    found.append(("patch", student.mmdit_config.patch, teacher.mmdit_config.patch))
    # Stored settings come from JSON or from Python: lists and tuples are the same.
    found.append(("text settings", _plain(student.text), _plain(teacher.text)))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inside) for key, inside in value.items()}
    return [_plain(inside) for inside in value] if isinstance(value, list | tuple) else value


def _same(one: Weights, other: Weights) -> bool:
    """Whether two specs name one autoencoder: the same place, or files of the same bytes."""
    if one.vae_config != other.vae_config:
        return False
    if one.path.resolve() == other.path.resolve():
        return True
    if (one.kind, other.kind) != ("folder", "folder"):
        return False
    files = [sorted(each.path.glob("vae*.safetensors")) for each in (one, other)]
    return [path.name for path in files[0]] == [path.name for path in files[1]] and all(
        filecmp.cmp(*pair, shallow=False) for pair in zip(*files, strict=True)
    )
