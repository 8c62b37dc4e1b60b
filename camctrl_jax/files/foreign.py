"""What a file is that should be another: pointers, web pages and archives in place of weights or settings."""

from __future__ import annotations

from pathlib import Path

_LFS = b"version https://git-lfs.github.com/spec/"
_AGAIN = "Copy or download it again."
_ONLY_SAFETENSORS = (
    "Only safetensors is read here: load it where you trust it, and save it with "
    "save_pretrained(..., safe_serialization=True)."
)
_PICKLE = f"is a pickle, which can run code when it is opened. {_ONLY_SAFETENSORS}"
_BY_FIRST_BYTES = {
    b"PK\x03\x04": f"is a zip archive, as torch.save writes: {_PICKLE.removeprefix('is ')}",
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), _PICKLE),
    b"GGUF": "is a GGUF file: quantised weights are not read. Use the original weights.",
    b"\x1f\x8b": "is a gzip archive: unpack it first.",
    b"\x89HDF": f"is an HDF5 file. {_ONLY_SAFETENSORS}",
}


def what_instead(start: bytes, size: int, *, text_expected: bool = False) -> str | None:
    """What a file is in place of what was expected, and what to do, as the end of a sentence about it.

    Args:
        start: its first bytes, some hundred.
        size: of the whole file, bytes.
        text_expected: whether text as such would be right, of some other content.

    Returns:
        None where nothing is recognised.
    """
    if size == 0:
        return f"is empty (0 bytes). {_AGAIN}"
    if start.startswith(_LFS):
        return (
            f"is a Git LFS pointer{_size_behind(start)}, not the file itself: the repository was cloned "
            "without its large files. Run `git lfs pull` there, or download the file."
        )
    for magic, what in _BY_FIRST_BYTES.items():
        if start.startswith(magic):
            return what
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"<":
        return (
            f"is a web page (it begins {_shown(text)}), as servers send in place of a file: log in, or check "
            "the address, and download it again."
        )
    if text.startswith((b"/annex/objects/", b"../.git/annex/", b".git/annex/")):
        return "is a git-annex pointer, not the file itself. Run `git annex get` there, or download the file."
    if not text_expected and _is_text(start):
        return f"is text (it begins {_shown(text)}). {_AGAIN}"
    return None


def what_file_instead(path: Path, *, text_expected: bool = False) -> str | None:
    """:func:`what_instead` of a file that can be read."""
    with path.open("rb") as file:
        return what_instead(file.read(512), path.stat().st_size, text_expected=text_expected)


def _size_behind(pointer: bytes) -> str:
    sizes = [line[5:] for line in pointer.splitlines() if line.startswith(b"size ")]
    return f" to {int(sizes[0])} bytes" if sizes and sizes[0].isdigit() else ""


def _is_text(start: bytes) -> bool:
    """Whether bytes are printable. The first eight of safetensors are a small number: zeros among them."""
    decoded = start.decode("utf-8", "replace")
    return bool(decoded) and all(letter.isprintable() or letter in "\r\n\t" for letter in decoded)


def _shown(text: bytes, limit: int = 40) -> str:
    first = text.decode("utf-8", "replace").split("\n", 1)[0].strip()
    return repr(first if len(first) <= limit else f"{first[:limit]}...")
