"""The folder a bundle grows in: a hidden sibling that takes the bundle's name when it is whole,
and is gone otherwise."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .progress import Progress


@contextmanager
def scratch_folder(out: Path, progress: Progress) -> Iterator[Path]:
    """A sibling of `out` to write to; renamed to `out` at the end, removed on any error.

    The system holds a lock on it for as long as this process lives,
    so what a killed export left is known and removed.
    Raises FileExistsError if another process is exporting to `out`, or something took its name meanwhile.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(out.parent):
        _tidy_up(out, progress)
        replaces = out.exists()
        scratch = Path(tempfile.mkdtemp(prefix=_prefix(out), dir=out.parent))
        lock = _lock(scratch)
    try:
        yield scratch
        scratch.chmod(0o755)
        with _locked(out.parent):
            _put_in_place(scratch, out, replaces)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def tidy_up(out: Path, progress: Progress) -> None:
    """Give a former bundle its name back if an export was killed between the two renames;
    remove what others left.

    Raises FileExistsError if another process is exporting to `out`.
    """
    with _locked(out.parent):
        _tidy_up(out, progress)


def _tidy_up(out: Path, progress: Progress) -> None:
    """`tidy_up` while no other export looks at the folder."""
    left = [path for path in out.parent.iterdir() if path.name.startswith(_prefix(out)) and _is_ours(path)]
    for path in left:
        if _is_locked(path):
            raise FileExistsError(
                f"another export is writing {out} (in {path.name}): wait for it, or give another folder"
            )
    former = _former(out)
    if former in left and not out.exists():
        former.rename(out)
        left.remove(former)
    for path in left:
        progress(f"removing {path}, which an export left that was killed")
        shutil.rmtree(path)


def _put_in_place(scratch: Path, out: Path, replaces: bool) -> None:
    """Rename `scratch` to `out`; a former bundle goes only once the new one stands."""
    if not out.exists():
        scratch.rename(out)
        return
    if not replaces:
        raise FileExistsError(f"{out} appeared during the export and is kept: give another folder")
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


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time looks for scratch folders in `folder`, or makes one."""
    lock = _lock(folder)
    try:
        yield
    finally:
        os.close(lock)


def _lock(folder: Path) -> int:
    """An open descriptor that holds the folder's lock until it is closed or the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _is_ours(path: Path) -> bool:
    """Whether this user may look into the folder, as scratch folders of others do not let him."""
    return os.access(path, os.R_OK | os.W_OK | os.X_OK)


def _is_locked(path: Path) -> bool:
    """Whether a living process holds this folder's lock."""
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(folder)
    return False
