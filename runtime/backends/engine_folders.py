"""Folders `engines/<digest>/` of a bundle: what TensorRT engines and packed weights have in common."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from ..bundle import Bundle

FOLDER = "engines"  # of a bundle

Folder = TypeVar("Folder")


def files_hash(bundle: Bundle, names: Sequence[str]) -> str:
    """sha256 over the manifest's hashes of these files; FileNotFoundError if the bundle lacks one."""
    digest = hashlib.sha256()
    for name in names:
        if name not in bundle.manifest.files:
            raise FileNotFoundError(
                f"bundle {bundle.path} has no {name}, which its engines need: run `ltbm export` again "
                "with this ltbm"
            )
        digest.update(bundle.manifest.files[name].sha256.encode())
    return digest.hexdigest()


def key_digest(key) -> str:
    """A folder's name: the first twelve digits of the sha256 of its key, a dataclass."""
    return hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()[:12]


def read_folders(
    bundle: Bundle, record: str, read: Callable[[Path], Folder | str]
) -> tuple[list[Folder], dict[Path, str]]:
    """The folders with a file `record` as `read` takes them, and by path why it cannot read the others."""
    folders: list[Folder] = []
    reasons: dict[Path, str] = {}
    for path in sorted((bundle.path / FOLDER).glob(f"*/{record}")):
        outcome = read(path)
        if isinstance(outcome, str):
            reasons[path.parent] = outcome
        else:
            folders.append(outcome)
    return folders, reasons


def is_whole(file: Path, size: int) -> bool:
    """Whether a file is there with its recorded size in bytes."""
    return file.is_file() and file.stat().st_size == size
