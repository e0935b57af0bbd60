"""The folder a bundle grows in: a hidden sibling that takes the bundle's name when it is whole,
and is gone otherwise."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(out: Path, progress: Callable[[str], None]) -> Iterator[Path]:
    """A sibling of `out` to write to; renamed to `out` at the end, removed on any error.

    The system holds a lock on it for as long as this process lives,
    so what a killed export left is known and removed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    tidy_up(out, progress)
    scratch = Path(tempfile.mkdtemp(prefix=_prefix(out), dir=out.parent))
    lock = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield scratch
        scratch.chmod(0o755)
        _put_in_place(scratch, out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _put_in_place(scratch: Path, out: Path) -> None:
    """Rename `scratch` to `out`; a former bundle goes only once the new one stands."""
    if not out.exists():
        scratch.rename(out)
        return
    former = _former(out)
    out.rename(former)
    try:
        scratch.rename(out)
    except BaseException:
        former.rename(out)
        raise
    shutil.rmtree(former)


def _prefix(out: Path) -> str:
    return f".{out.name}.export-"


def _former(out: Path) -> Path:
    """Where a bundle stands while another takes its name."""
    return out.with_name(_prefix(out) + "former")


def tidy_up(out: Path, progress: Callable[[str], None]) -> None:
    """Give a former bundle its name back if an export was killed between the two renames;
    remove what others left."""
    former = _former(out)
    if former.exists() and not out.exists():
        former.rename(out)
    for path in out.parent.iterdir():
        if path.name.startswith(_prefix(out)) and _abandoned(path):
            progress(f"removing {path}, which an export left that was killed")
            shutil.rmtree(path)


def _abandoned(path: Path) -> bool:
    """Whether no living process holds this folder's lock."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:  # gone meanwhile, or not ours to read
        return False
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(folder)
    return True
