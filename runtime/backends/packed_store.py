"""Packed weights of a bundle's graphs: folders `engines/<key>/`, each with a packed.json that describes it.

ONNX Runtime packs weights for its kernels whenever it opens a graph, into memory of its own. `ltbm pack`
keeps that form in a file, which opening maps: ONNX Runtime packs once more, compares, and keeps the file's.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..bundle import Bundle, FileRecord
from ..files import file_sha256
from ..machine import Machine, cpu_extensions, onnxruntime_version
from .engine_folders import FOLDER, files_hash, is_whole, key_digest, read_folders
from .engine_store import weights_file

RECORD = "packed.json"
GRAPH_FILE = "graph.onnx"  # the bundle's graph, with the places of the packed weights
WEIGHTS_FILE = "packed.weights"
FORMAT = 1  # of the record
STAGES = ("encoder", "decoder")  # whose weights are worth it


@dataclass(frozen=True)
class Host:
    """What decides how ONNX Runtime packs.

    cpu: the extensions of the instruction set by which its kernels are chosen
    """

    onnxruntime: str
    cpu: str


@dataclass(frozen=True)
class PackedKey:
    """All that the packed weights of a graph depend on."""

    graph: str  # file of the bundle
    sha256: str  # of the graph and its weights
    host: Host

    @classmethod
    def of(cls, bundle: Bundle, stage: str, graph: str, host: Host) -> "PackedKey":
        return cls(graph, files_hash(bundle, (graph, weights_file(stage))), host)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "PackedKey":
        return cls(raw["graph"], raw["sha256"], Host(**raw["host"]))

    @property
    def stage(self) -> str:
        return self.graph.split(".")[0]

    @property
    def digest(self) -> str:
        """The folder's name."""
        return key_digest(self)


@dataclass(frozen=True)
class PackedGraph:
    """One folder of packed weights as its record describes it."""

    path: Path
    key: PackedKey
    made: str  # UTC
    seconds: float  # that packing took
    files: Mapping[str, FileRecord]

    @property
    def graph(self) -> Path:
        return self.path / GRAPH_FILE

    @property
    def size(self) -> int:
        """Bytes on disk, without the record."""
        return sum(record.size for record in self.files.values())

    def damage(self, verify: bool = False) -> list[str]:
        """Files that are gone, cut or, if they are hashed to `verify`, changed, in words."""
        words = []
        for name, record in self.files.items():
            file = self.path / name
            if not is_whole(file, record.size):
                words.append(f"{name} is missing or has another size")
            elif verify and file_sha256(file) != record.sha256:
                words.append(f"{name} was changed")
        return words

    def to_json(self) -> str:
        files = {name: asdict(record) for name, record in self.files.items()}
        facts = {"format": FORMAT, "key": asdict(self.key), "made": self.made, "seconds": self.seconds}
        return json.dumps(facts | {"files": files}, indent=1)


def this_host(machine: Machine | None = None) -> Host | None:
    """None where no onnxruntime is installed."""
    machine = machine or Machine()
    version = onnxruntime_version(machine)
    return Host(version, cpu_extensions(machine)) if version else None


def find_packed(bundle: Bundle, graphs: Mapping[str, Path], host: Host | None) -> dict[str, PackedGraph]:
    """Stage -> its packed weights, of those stages whose weights were packed here and are whole.

    graphs: stage -> its file of the bundle
    """
    if host is None:
        return {}
    found = {}
    for stage in STAGES:
        key = PackedKey.of(bundle, stage, graphs[stage].name, host)
        packed = _read(folder_of(bundle, key) / RECORD)
        if isinstance(packed, PackedGraph) and packed.key == key and not packed.damage():
            found[stage] = packed
    return found


def folder_of(bundle: Bundle, key: PackedKey) -> Path:
    return bundle.path / FOLDER / key.digest


def stored_packed(bundle: Bundle) -> list[PackedGraph]:
    """Every folder of packed weights whose record can be read."""
    packed, _ = read_folders(bundle, RECORD, _read)
    return packed


def unreadable_packed(bundle: Bundle) -> dict[Path, str]:
    """Folder -> why its record cannot be read."""
    _, reasons = read_folders(bundle, RECORD, _read)
    return reasons


def packed_differences(packed: PackedGraph, bundle: Bundle, host: Host | None) -> list[str]:
    """What the weights were packed for that is not so here, in words; empty if they are mapped here."""
    words = []
    here = host or Host("none", packed.key.host.cpu)
    for name in ("onnxruntime", "cpu"):
        there = getattr(packed.key.host, name)
        if there != getattr(here, name):
            words.append(f"packed for {name} {there}, here it is {getattr(here, name)}")
    try:
        key = PackedKey.of(bundle, packed.key.stage, packed.key.graph, here)
    except FileNotFoundError as error:
        return [*words, str(error)]
    if key.sha256 != packed.key.sha256:
        words.append(f"packed for another {packed.key.graph} or its weights")
    return words


def remove_stale_packed(bundle: Bundle, host: Host) -> list[str]:
    """Delete the folders for this kind of CPU that can no longer be mapped; their names."""
    removed = []
    for packed in stored_packed(bundle):
        if packed.key.host.cpu == host.cpu and packed_differences(packed, bundle, host):
            shutil.rmtree(packed.path)
            removed.append(packed.path.name)
    return removed


def _read(record: Path) -> PackedGraph | str:
    """The folder of a record, or why nobody can read it."""
    try:
        raw = json.loads(record.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            return f"{RECORD} has format {raw['format']}, this ltbm reads {FORMAT}"
        files = {name: FileRecord(**one) for name, one in raw["files"].items()}
        key = PackedKey.from_json(raw["key"])
        return PackedGraph(record.parent, key, raw["made"], raw["seconds"], files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{RECORD} cannot be read"
