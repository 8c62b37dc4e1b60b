"""Where the runners lie."""

from pathlib import Path

_RUNNERS = Path(__file__).resolve().parents[1] / "runners"
READING = "This note on licences comes from public sources and needs a human reading."


def runner(name: str) -> str:
    """The path of a runner script, which a user's interpreter is started on."""
    return str(_RUNNERS / f"run_{name}.py")
