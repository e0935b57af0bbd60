"""Checkpoints by their folder or their hub id."""

import re
from collections.abc import Sequence
from pathlib import Path

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def checkpoint_folder(source: str, wanted: Sequence[str]) -> Path:
    """The folder `source`, or that of a hub id in the hub's cache, its files that match `wanted` downloaded.

    FileNotFoundError says why there is neither.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if not HUB_ID.fullmatch(source):
        raise FileNotFoundError(f"no checkpoint folder {source}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileNotFoundError(
            f"no folder {source}; to download a hub id: pip install huggingface_hub, or give its local folder"
        ) from None
    try:
        return Path(snapshot_download(source, allow_patterns=list(wanted)))
    except Exception as error:  # the hub's client raises a dozen unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"no folder {source}, and the hub gave no such checkpoint: {reason}"
        ) from None
