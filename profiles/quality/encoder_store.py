"""Encoder tokens of clips on disk, so that an evaluation which goes on does not encode them again."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime.files import as_utf8


@dataclass(frozen=True)
class WindowTokens:
    """The encoder tokens of one clip in a window of 30 s.

    tokens: [T, D] float32, after the encoder's last layer norm; silence fills the window behind the clip
    power: [T] mean mel power of each token's frames, in bel (log10)
    length: tokens that hold the clip, of T
    """

    tokens: np.ndarray
    power: np.ndarray
    length: int


def read_window(item: str, folder: Path) -> WindowTokens | None:
    """The clip's tokens in `folder`; None if they are not there."""
    path = _path(item, folder)
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return WindowTokens(arrays["tokens"], arrays["power"], int(arrays["length"]))


def write_window(item: str, folder: Path, window: WindowTokens) -> None:
    path = _path(item, folder)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part.npz")
    np.savez(scratch, tokens=window.tokens, power=window.power, length=window.length)
    scratch.rename(path)


def _path(item: str, folder: Path) -> Path:
    return folder / f"{hashlib.sha256(as_utf8(item)).hexdigest()[:16]}.npz"
