"""Files: written whole or not at all, and hashed."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

BLOCK_BYTES = 2**20  # read at once
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MOST_POINTER_BYTES = 1024  # as git-lfs has it
BYTE_ORDER_MARK = "\ufeff"  # with which some editors begin a file


def file_sha256(path: Path) -> str:
    """Of a file of any size, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_whole(path: Path, data) -> None:
    """Write bytes to a file whole or not at all; processes that write the same file take turns."""
    scratch = path.with_name(f".{path.name}.part")  # what a killed process left under it is written anew
    with _open_locked(scratch) as file:
        try:
            file.truncate()
            file.write(data)
            file.flush()
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise


@contextmanager
def _open_locked(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, made where there is none, open and locked until the block ends."""
    file = _lock(path)
    while not _is_at(file, path):  # who held the lock before has renamed or removed it
        file.close()
        file = _lock(path)
    with file:
        yield file


def _lock(path: Path) -> BinaryIO:
    file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def read_text(path: Path) -> str:
    """A file of UTF-8 text; ValueError that names it if it is something else."""
    refuse_lfs_pointers([path])
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}): give a "
            "text file, or convert it with iconv -f latin1 -t utf-8"
        ) from None


def read_json_object(path: Path) -> dict:
    """A file that holds one JSON object; ValueError that names it if it does not."""
    try:
        value = json.loads(read_text(path).removeprefix(BYTE_ORDER_MARK))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}): copy or download it again") from None
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} is not a JSON object, but {type(value).__name__}: copy or download it again"
        )
    return value


def as_utf8(text: str) -> bytes:
    """Text to be written: half letters, which names of files may hold, are escaped, as JSON escapes them."""
    return text.encode("utf-8", "backslashreplace")


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what git leaves in its place until git-lfs brings it."""
    try:
        with open(path, "rb") as file:
            head = file.read(MOST_POINTER_BYTES)
    except OSError:
        return False
    return head.startswith(LFS_POINTER)


def refuse_lfs_pointers(paths: Iterable[Path]) -> None:
    """ValueError that names those that git-lfs has yet to bring."""
    pointers = [path for path in paths if is_lfs_pointer(path)]
    if pointers:
        names = ", ".join(path.name for path in pointers[:3]) + (" and more" if len(pointers) > 3 else "")
        folder = pointers[0].parent
        raise ValueError(
            f"{folder} holds git-lfs pointers in place of {names}: run `git lfs pull` in it, or download the "
            "files themselves"
        )


def require_utf8_name(path: Path) -> None:
    """ValueError for a folder whose name is no UTF-8: onnx, onnxruntime and tokenizers take paths as text."""
    if not is_unicode(str(path)):
        raise ValueError(f"the name of {path} is not UTF-8, which onnxruntime cannot open: rename the folder")


def is_unicode(text: str) -> bool:
    """Whether the text can be written: names and arguments in another encoding hold half letters, as JSON's
    escapes may."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
