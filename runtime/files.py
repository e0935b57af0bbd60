"""Files: written whole or not at all, and hashed."""

import hashlib
import os
import tempfile
from pathlib import Path

BLOCK_BYTES = 2**20  # read at once


def file_sha256(path: Path) -> str:
    """Of a file of any size, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_whole(path: Path, data) -> None:
    """Write bytes to a file whole or not at all."""
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
