"""A Hugging Face checkpoint, read lazily: configuration now, one safetensors tensor at a time later."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np

from .configuration import read_json
from .families import FAMILIES
from .layouts import canonical_names, unused_reasons

WANTED_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
STORED_TYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
LENGTH_BYTES = 8  # a safetensors file begins with the length of its JSON header


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file, read when sliced: `tensor[a:b]` gives those rows in the stored type,
    `tensor[:]` all.

    Read, not mapped: mapped pages would count as the export's memory.
    """

    path: Path
    offset: int  # bytes from the start of the file
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        row_bytes = self.nbytes // self.shape[0]
        raw = np.fromfile(
            self.path, np.uint8, (stop - start) * row_bytes, offset=self.offset + start * row_bytes
        )
        return raw.view(self.dtype).reshape(-1, *self.shape[1:])


class TensorSource(Protocol):
    """Where the graphs take tensors from, each use recorded: a checkpoint, or a stand-in for one."""

    source: str

    def __contains__(self, name: str) -> bool: ...

    def take(self, name: str, use: str) -> StoredTensor: ...


class Checkpoint:
    """A local checkpoint folder whose tensors are taken by name, each use recorded.

    Tensors have the names of `layouts`, whatever the checkpoint calls them; `names` maps its names to those.
    `uses` maps every tensor taken so far to the stage that took it; `finish` demands that none is left over.
    """

    def __init__(self, path: Path, source: str):
        self.path = path
        self.source = source
        self.config = read_json(path / "config.json")
        self.uses: dict[str, str] = {}
        stored = _stored_tensors(path)
        family = FAMILIES.get(self.config.get("model_type", ""))
        layouts = family.layouts if family else ()
        self.unused = unused_reasons(stored, layouts)
        self.names = canonical_names(stored, layouts, source)
        self._tensors = {self.names[name]: tensor for name, tensor in stored.items()}

    @classmethod
    def open(cls, source) -> "Checkpoint":
        """A folder, or a hub id (downloaded once to the hub's cache: safetensors,
        configuration and tokenizer only)."""
        path = Path(source)
        if not path.is_dir():
            path = _download(str(source))
        _require_config(path)
        return cls(path, str(source))

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __len__(self) -> int:
        return len(self._tensors)

    def take(self, name: str, use: str) -> StoredTensor:
        """The tensor `name`, recorded as used by the stage `use`; KeyError names what is missing."""
        tensor = self._stored(name)
        self.uses[name] = use
        return tensor

    def stored_type(self, name: str) -> str:
        """The name of the type that the checkpoint stores `name` in; KeyError if it has no such tensor."""
        return self._stored(name).dtype.name

    def values(self) -> int:
        """How many numbers the checkpoint holds."""
        return sum(math.prod(tensor.shape) for tensor in self._tensors.values())

    def stored_uses(self) -> dict[str, str]:
        """How every tensor was used, by the checkpoint's own names."""
        return {stored: self.uses[name] for stored, name in sorted(self.names.items())}

    def finish(self) -> None:
        """Raise ValueError if any tensor of the checkpoint was neither used nor is knowingly unused."""
        for stored, reason in self.unused.items():
            self.uses.setdefault(self.names[stored], f"unused: {reason}")
        left = sorted(stored for stored, name in self.names.items() if name not in self.uses)
        if left:
            raise ValueError(
                f"{len(left)} tensors of {self.source} have no place in the exported graphs: "
                f"{', '.join(left[:5])}{' ...' if len(left) > 5 else ''}; this variant is not supported"
            )

    def _stored(self, name: str) -> StoredTensor:
        if name not in self._tensors:
            raise KeyError(
                f"{self.source} has no tensor {name}: incomplete, or a variant this export does not know"
            )
        return self._tensors[name]


def _require_config(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path} has no config.json, so it is no Hugging Face checkpoint")


def _stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of the checkpoint's safetensors files, as the index names them where there is one."""
    index = path / "model.safetensors.index.json"
    named = json.loads(index.read_text(encoding="utf-8"))["weight_map"] if index.is_file() else {}
    files = sorted(set(named.values())) or ["model.safetensors"]
    missing = [name for name in files if not (path / name).is_file()]
    if missing and named:
        raise FileNotFoundError(
            f"{path} lacks {', '.join(missing)}, which its index names: the download is incomplete"
        )
    if missing:
        pickles = [found.name for pattern in PICKLES for found in path.glob(pattern)]
        advice = (
            f"; {pickles[0]} is a pickle, which is never loaded: convert it to safetensors" if pickles else ""
        )
        raise FileNotFoundError(f"{path} has neither model.safetensors nor its index{advice}")
    tensors = {name: tensor for file in files for name, tensor in _read_header(path / file).items()}
    lost = sorted(set(named) - set(tensors))
    if lost:
        raise ValueError(
            f"{path} lacks the tensor {lost[0]}, which its index names: files of different checkpoints"
        )
    return tensors


def _read_header(path: Path) -> dict[str, StoredTensor]:
    """What a safetensors file holds and where; ValueError for a file that is cut or of another kind."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if LENGTH_BYTES + length > size:
            raise ValueError(
                f"{path} is no safetensors file, or cut: its header takes {length} bytes, the file has {size}"
            )
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return {
        name: _stored_tensor(path, size, LENGTH_BYTES + length, name, entry) for name, entry in header.items()
    }


def _stored_tensor(path: Path, size: int, start: int, name: str, entry: dict) -> StoredTensor:
    if entry["dtype"] not in STORED_TYPES:
        raise ValueError(
            f"{path} holds {name} as {entry['dtype']}, which is not supported; supported: "
            f"{', '.join(STORED_TYPES)}"
        )
    begin, end = entry["data_offsets"]
    tensor = StoredTensor(path, start + begin, STORED_TYPES[entry["dtype"]], tuple(entry["shape"]))
    if end - begin != tensor.nbytes or start + end > size:
        raise ValueError(
            f"{path} is cut or garbled: {name} should end at byte {start + end}, the file has {size}"
        )
    return tensor


def _download(source: str) -> Path:
    if not HUB_ID.fullmatch(source):
        raise FileNotFoundError(f"no checkpoint folder {source}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileNotFoundError(
            f"no folder {source}; to download a hub id: pip install huggingface_hub, or give its local folder"
        ) from None

    try:
        return Path(snapshot_download(source, allow_patterns=list(WANTED_FILES)))
    except Exception as error:  # the hub's client raises a dozen unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"no folder {source}, and the hub gave no such checkpoint: {reason}"
        ) from None
