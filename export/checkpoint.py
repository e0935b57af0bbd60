"""A Hugging Face checkpoint, read lazily: configuration now, one safetensors tensor at a time later."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..runtime.files import require_utf8_name
from .configuration import read_json
from .families import family_of
from .hub import checkpoint_folder
from .layouts import canonical_names, unused_reasons
from .weight_files import (
    STORED_TYPES,
    WANTED_FILES,
    OtherTensor,
    StoredTensor,
    read_tensors,
    refuse_adapters,
    weight_files,
)


class TensorSource(Protocol):
    """Where the graphs take tensors from, each use recorded: a checkpoint, or a stand-in for one."""

    source: str

    def __contains__(self, name: str) -> bool: ...

    def take(self, name: str, use: str) -> StoredTensor: ...


class Checkpoint:
    """A local checkpoint folder whose tensors are taken by name, each use recorded.

    Tensors have the names of `layouts`, whatever the checkpoint calls them; `names` maps its names to those.
    `uses` maps every tensor taken so far to the stage that took it; `require_all_used` demands that none is
    left over.
    `check_shape` is asked about every tensor that is taken.
    """

    def __init__(self, path: Path, source: str):
        self.path = path
        self.source = source
        files = weight_files(path)
        self.note = files.note  # what of the folder was passed over, or empty
        self.config = read_json(path / "config.json")
        self.uses: dict[str, str] = {}
        self.check_shape: Callable[[str, tuple[int, ...]], None] = lambda name, shape: None
        stored = read_tensors(files)
        family = family_of(self.config.get("model_type"))
        layouts = family.layouts if family else ()
        self.unused = unused_reasons(stored, layouts)
        self.names = canonical_names(stored, layouts, source)
        self._tensors = {self.names[name]: tensor for name, tensor in stored.items()}

    @classmethod
    def open(cls, source) -> "Checkpoint":
        """A folder, or a hub id, of which safetensors, configuration and tokenizer are downloaded once."""
        path = checkpoint_folder(str(source), WANTED_FILES)
        _require_config(path)
        return cls(path, str(source))

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __len__(self) -> int:
        return len(self._tensors)

    def take(self, name: str, use: str) -> StoredTensor:
        """The tensor `name`, recorded as used by the stage `use`; KeyError names what is missing."""
        tensor = self._stored(name)
        self.check_shape(name, tensor.shape)
        self.uses[name] = use
        return tensor

    def stored_type(self, name: str) -> str:
        """The name of the type that the checkpoint stores `name` in; KeyError if it has no such tensor."""
        return self._stored(name).dtype.name

    def values(self) -> int:
        """How many numbers the checkpoint holds."""
        stored = [tensor for tensor in self._tensors.values() if isinstance(tensor, StoredTensor)]
        return sum(math.prod(tensor.shape) for tensor in stored)

    def stored_uses(self) -> dict[str, str]:
        """How every tensor was used, by the checkpoint's own names."""
        return {stored: self.uses[name] for stored, name in sorted(self.names.items())}

    def require_all_used(self) -> None:
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
        tensor = self._tensors[name]
        if isinstance(tensor, OtherTensor):
            raise ValueError(
                f"{tensor.path} holds {name} as {tensor.kind}, which is not supported; supported: "
                f"{', '.join(STORED_TYPES)}"
            )
        return tensor


def _require_config(path: Path) -> None:
    require_utf8_name(path)
    if not (path / "config.json").is_file():
        refuse_adapters(path)
        raise FileNotFoundError(f"{path} has no config.json, so it is no Hugging Face checkpoint")
