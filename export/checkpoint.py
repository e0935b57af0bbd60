"""A Hugging Face checkpoint, read lazily: configuration now, one safetensors tensor at a time later."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

WANTED_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class Checkpoint:
    """A local checkpoint folder whose tensors are taken by name, each use recorded.

    `uses` maps every tensor taken so far to the stage that took it; `finish` demands that none is left over.
    """

    def __init__(self, path: Path, source: str):
        from transformers import AutoConfig

        self.path, self.source = path, source
        self.config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        self.uses: dict[str, str] = {}
        self._shards = _tensor_files(path)
        self._open_name, self._open_file = None, None

    @classmethod
    def open(cls, source) -> "Checkpoint":
        """A folder, or a hub id (downloaded once to the hub's cache: safetensors, configuration and tokenizer only)."""
        path = Path(source)
        if not path.is_dir():
            path = _download(str(source))
        _require_config(path)
        return cls(path, str(source))

    def __contains__(self, name: str) -> bool:
        return name in self._shards

    def tensor_names(self) -> list[str]:
        return list(self._shards)

    def __len__(self) -> int:
        return len(self._shards)

    def take(self, name: str, stage: str) -> np.ndarray:
        """The tensor `name` as float32, recorded as used by `stage`; KeyError names what is missing."""
        array = self._read(name).to(torch.float32).numpy()
        self.uses[name] = stage
        return array

    def mark(self, name: str, use: str) -> None:
        """Record a tensor as accounted for without reading it (tied, or knowingly unused)."""
        self.uses[name] = use

    def finish(self) -> None:
        """Raise ValueError if any tensor of the checkpoint was neither used nor marked."""
        left = sorted(set(self._shards) - set(self.uses))
        if left:
            raise ValueError(f"{len(left)} tensors of {self.source} have no place in the exported graphs: "
                             f"{', '.join(left[:5])}{' ...' if len(left) > 5 else ''}; this variant is not supported")

    def _read(self, name: str) -> torch.Tensor:
        if name not in self._shards:
            raise KeyError(f"{self.source} has no tensor {name}: incomplete, or a variant this export does not know")
        shard = self._shards[name]
        if shard != self._open_name:
            self._open_name, self._open_file = shard, safe_open(self.path / shard, framework="pt")
        return self._open_file.get_tensor(name)


def _require_config(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path} has no config.json, so it is no Hugging Face checkpoint")


def _tensor_files(path: Path) -> dict[str, str]:
    """Tensor name -> safetensors file, from the index where there is one."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        missing = sorted({name for name in files.values() if not (path / name).is_file()})
        if missing:
            raise FileNotFoundError(f"{path} lacks {', '.join(missing)}, which its index names: the download is incomplete")
        return files
    if (path / "model.safetensors").is_file():
        with safe_open(path / "model.safetensors", framework="pt") as stream:
            return {name: "model.safetensors" for name in stream.keys()}
    pickles = [found.name for pattern in PICKLES for found in path.glob(pattern)]
    advice = f"; {pickles[0]} is a pickle, which is never loaded: convert it to safetensors" if pickles else ""
    raise FileNotFoundError(f"{path} has neither model.safetensors nor its index{advice}")


def _download(source: str) -> Path:
    if not HUB_ID.fullmatch(source):
        raise FileNotFoundError(f"no checkpoint folder {source}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=WANTED_FILES))
    except Exception as error:  # the hub's client raises a dozen unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(f"no folder {source}, and the hub gave no such checkpoint: {reason}") from None
