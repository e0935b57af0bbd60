"""Which files hold a checkpoint's weights, as transformers chooses them, and where in them each tensor is."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from ..runtime.files import refuse_lfs_pointers

WANTED_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
STORED_TYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
LENGTH_BYTES = 8  # a safetensors file begins with the length of its JSON header
MOST_HEADER_BYTES = 100_000_000  # as the safetensors library has it
MERGE = (
    "load the model with its adapter in peft, save model.merge_and_unload().save_pretrained(FOLDER) and the "
    "processor beside it, and export FOLDER"
)


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


@dataclass(frozen=True)
class OtherTensor:
    """A tensor of a type that no graph takes, such as a buffer of integers."""

    path: Path
    kind: str  # as safetensors names it


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold a checkpoint's weights.

    named: tensors that the index says are in them; empty without one
    note: what was passed over, in a line; else empty
    """

    paths: list[Path]
    named: frozenset[str] = frozenset()
    note: str = ""


def weight_files(folder: Path) -> WeightFiles:
    """model.safetensors, else the shards of the index; FileNotFoundError or ValueError says what to do."""
    refuse_lfs_pointers([path for pattern in WANTED_FILES for path in sorted(folder.glob(pattern))])
    refuse_adapters(folder)
    has_index = (folder / INDEX).is_file()
    if (folder / SINGLE).is_file():
        others = sorted(path.name for path in folder.glob("*.safetensors") if path.name != SINGLE)
        passed_over = [INDEX, *others] if has_index else others
        note = f"{folder}: took {SINGLE}, as transformers does, not {', '.join(passed_over)}"
        return WeightFiles([folder / SINGLE], note=note if others else "")
    if not has_index:
        raise FileNotFoundError(_nothing_to_read(folder))
    shards = _weight_map(folder / INDEX)
    names = sorted(set(shards.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}, which its index names: the download is incomplete"
        )
    return WeightFiles([folder / name for name in names], frozenset(shards))


def read_tensors(files: WeightFiles) -> dict[str, StoredTensor | OtherTensor]:
    """Every tensor of the files; ValueError for a file that is cut, garbled or of another kind."""
    tensors: dict[str, StoredTensor | OtherTensor] = {}
    for path in files.paths:
        tensors |= _read_header(path)
    lost = sorted(files.named - set(tensors))
    if lost:
        raise ValueError(
            f"{files.paths[0].parent} lacks the tensor {lost[0]}, which its index names: files of different "
            "checkpoints"
        )
    return tensors


def refuse_adapters(folder: Path) -> None:
    """An adapter changes the weights that it belongs to: neither is the model alone."""
    found = [name for name in ADAPTERS if (folder / name).is_file()]
    if not found:
        return
    if (folder / SINGLE).is_file() or (folder / INDEX).is_file():
        raise ValueError(
            f"{folder} has weights and an adapter beside them ({', '.join(found)}), which would be left out: "
            f"{MERGE}; if it is merged already, move the adapter's files away"
        )
    raise ValueError(f"{folder} is an adapter ({', '.join(found)}), not a whole model: {MERGE}")


def _nothing_to_read(folder: Path) -> str:
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    if shards:
        shown = ", ".join(shards[:3]) + (f" and {len(shards) - 3} more" if len(shards) > 3 else "")
        return f"{folder} has {shown}, but no {INDEX}, which says what is in them: download it too"
    text = f"{folder} has neither {SINGLE} nor its index"
    pickles = [found.name for pattern in PICKLES for found in sorted(folder.glob(pattern))]
    if pickles:
        text += f"; {pickles[0]} is a pickle, which is never loaded: convert it to safetensors"
    return text


def _weight_map(index: Path) -> dict[str, str]:
    """Which file of the folder holds each tensor; ValueError for an index that says no such thing."""
    shards = _json_object(index.read_bytes(), index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{index} has no weight_map from tensors to files: download it again")
    for name in shards.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{index} names {name!r}, which is no safetensors file of its folder")
    return shards


def _read_header(path: Path) -> dict[str, StoredTensor | OtherTensor]:
    size = path.stat().st_size
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if LENGTH_BYTES + length > size or length > MOST_HEADER_BYTES:
            raise ValueError(
                f"{path} is no safetensors file, or cut: its header takes {length} bytes, the file has {size}"
            )
        header = _json_object(stream.read(length), path)
    header.pop("__metadata__", None)
    start = LENGTH_BYTES + length
    _check_ranges(path, header, size - start)
    return {name: _stored_tensor(path, size, start, name, entry) for name, entry in header.items()}


def _check_ranges(path: Path, header: dict, stored: int) -> None:
    """ValueError unless the tensors lie one behind the other and fill the file, as the format has it."""
    ranges = sorted(_entry(path, name, entry)[2] for name, entry in header.items())
    starts = [begin for begin, _ in ranges]
    ends = [0, *(end for _, end in ranges)]
    if [*starts, stored] != ends:
        raise ValueError(
            f"{path} is cut or garbled: by its header tensors end at byte {ends[-1]} one behind the other, "
            f"the file has {stored} bytes for them"
        )


def _json_object(data: bytes, path: Path) -> dict:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is garbled, its JSON cannot be read ({error}): download it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is garbled, its JSON is no object: download it again")
    return value


def _stored_tensor(path: Path, size: int, start: int, name: str, entry) -> StoredTensor | OtherTensor:
    kind, shape, (begin, end) = _entry(path, name, entry)
    if end < begin or start + end > size:
        raise ValueError(
            f"{path} is cut or garbled: {name} should end at byte {start + end}, the file has {size}"
        )
    if kind not in STORED_TYPES:
        return OtherTensor(path, kind)
    tensor = StoredTensor(path, start + begin, STORED_TYPES[kind], shape)
    if end - begin != tensor.nbytes:
        raise ValueError(
            f"{path} is cut or garbled: {name} {list(shape)} in {kind} takes {tensor.nbytes} bytes, "
            f"its header gives it {end - begin}"
        )
    return tensor


def _entry(path: Path, name: str, entry) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """The type, shape and range of bytes that a header gives a tensor."""
    try:
        kind = entry["dtype"]
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{path} is garbled: its header says of {name} {str(entry)[:80]!r}") from None
    numbers = (*shape, begin, end)
    if not isinstance(kind, str) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{path} is garbled: its header says of {name} {str(entry)[:80]!r}")
    return kind, shape, (begin, end)
