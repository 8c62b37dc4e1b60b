"""What a request is refused for, in the one form that all errors of the API have."""

from __future__ import annotations

from typing import Any

from camctrl_jax.errors import FileFailure, FileInUse, MissingFile, UserError

STATUS = {
    "bad_request": 400,
    "forbidden": 403,
    "not_found": 404,
    "not_allowed": 405,
    "conflict": 409,
    "too_large": 413,
    "unsupported": 415,
    "queue_full": 429,
    "internal": 500,
    "storage_full": 507,
}
"""HTTP status of every type of error."""


class Refusal(UserError):
    """A request that is not carried out.

    Attributes:
        type: a key of :data:`STATUS`.
        param: the field that it is about, if it is about one.
    """

    def __init__(self, type: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.type, self.param = type, param

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.type]

    @property
    def body(self) -> dict[str, Any]:
        """The answer."""
        return {"error": described(self)}


def described(error: Exception) -> dict[str, Any]:
    """``{type, message, param}`` of anything that went wrong."""
    if isinstance(error, Refusal):
        return {"type": error.type, "message": str(error), "param": error.param}
    if isinstance(error, UserError):
        return {"type": _type_of(error), "message": str(error), "param": None}
    return {
        "type": "internal",
        "message": f"A fault of the program ({type(error).__name__}); the server's log says more.",
        "param": None,
    }


def refusal_of(error: UserError, param: str | None = None) -> Refusal:
    """A user's mistake, found further down, as a refusal."""
    if isinstance(error, Refusal):
        return error
    return Refusal(_type_of(error), str(error), param)


def _type_of(error: UserError) -> str:
    if isinstance(error, FileFailure):
        return "storage_full" if error.disk_full else "internal"
    if isinstance(error, FileInUse):
        return "conflict"
    return "not_found" if isinstance(error, MissingFile) else "bad_request"
