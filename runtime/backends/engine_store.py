"""TensorRT engines of a bundle: folders `engines/<key>/`, each with an engines.json that describes it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle import Bundle
from ..files import file_sha256, write_whole
from .engine_folders import FOLDER, files_hash, is_whole, key_digest, read_folders
from .flavours import FIXED_CAPACITY, tensorrt_flavour
from .shape_ranges import Limits, OptimisationProfile
from .trt_library import PRODUCTS, TENSORRT, TENSORRT_RTX, TensorRTLibrary, build_command, load_library

if TYPE_CHECKING:
    from ..machine import Gpu

RECORD = "engines.json"
PROJECTOR_FILE = "merge.projector.onnx"  # of a bundle: the merge stage without its op
FORMAT = 2  # of the record; 1 counted audio in windows
ENGINES_OF = {TENSORRT: ("encoder", "merge", "decoder"), TENSORRT_RTX: ("encoder", "projector", "decoder")}
"""Backend -> its engines. TensorRT-RTX has no plugins: there the projector alone is an engine."""


@dataclass(frozen=True)
class Target:
    """Where engines run; one built elsewhere is foreign.

    tensorrt: version of the library
    compute_capability: such as 8.7; of TensorRT-RTX all that an engine is built for, such as 8.6, 8.9
    gpu: its name, because engines of one capability do not fit every GPU of it; empty for TensorRT-RTX
    plugin: sha256 of the op's plugin library; empty for TensorRT-RTX
    """

    tensorrt: str
    compute_capability: str
    gpu: str
    plugin: str
    backend: str = TENSORRT

    @property
    def flavour(self) -> str:
        """The decoder graph for this TensorRT."""
        return FIXED_CAPACITY if self.backend == TENSORRT_RTX else tensorrt_flavour(self.tensorrt)

    @property
    def stages(self) -> tuple[str, ...]:
        """The engines, by name."""
        return ENGINES_OF[self.backend]


@dataclass(frozen=True)
class Key:
    """All that an engine depends on."""

    target: Target
    graphs: Mapping[str, str]  # stage -> sha256 of its graph and its weights
    flavour: str
    precision: str
    limits: Limits

    @classmethod
    def of(cls, bundle: Bundle, target: Target, limits: Limits) -> "Key":
        graphs = {}
        for stage in target.stages:
            graphs[stage] = files_hash(bundle, (graph_file(stage, target.flavour), weights_file(stage)))
        return cls(target, graphs, target.flavour, str(bundle.manifest.precision), limits)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Key":
        target = Target(**raw["target"])
        limits = Limits(**raw["limits"])
        return cls(target, raw["graphs"], raw["flavour"], raw["precision"], limits)

    @property
    def digest(self) -> str:
        """The folder's name."""
        return key_digest(self)


@dataclass(frozen=True)
class StageRecord:
    """One engine file."""

    sha256: str
    size: int  # bytes
    seconds: float  # that its build took
    profiles: Sequence[OptimisationProfile] = ()

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "StageRecord":
        profiles = [OptimisationProfile.from_json(profile) for profile in raw["profiles"]]
        return cls(raw["sha256"], raw["size"], raw["seconds"], profiles)


@dataclass(frozen=True)
class EngineFolder:
    """One folder of engines as its record describes it."""

    path: Path
    key: Key
    built: str  # UTC
    stages: Mapping[str, StageRecord]

    def file(self, stage: str) -> Path:
        return self.path / f"{stage}.engine"

    def damage(self) -> list[str]:
        """What is missing or cut, in words."""
        stages = self.key.target.stages
        return [f"no {stage} engine" for stage in stages if stage not in self.stages] + self.lost_files()

    def lost_files(self) -> list[str]:
        """Engines that were built and are gone or cut, in words."""
        words = []
        for stage, record in self.stages.items():
            file = self.file(stage)
            if not is_whole(file, record.size):
                words.append(f"{file.name} is missing or has another size")
        return words

    def to_json(self) -> str:
        stages = {stage: asdict(record) for stage, record in self.stages.items()}
        facts = {"format": FORMAT, "key": asdict(self.key), "built": self.built, "stages": stages}
        return json.dumps(facts, indent=1)


def graph_file(stage: str, flavour: str) -> str:
    """The ONNX file that an engine is built from."""
    files = {
        "encoder": "encoder.onnx",
        "merge": "merge.trt.onnx",
        "projector": PROJECTOR_FILE,
        "decoder": f"decoder.{flavour}.onnx",
    }
    return files[stage]


def weights_file(stage: str) -> str:
    """The file with the weights of an engine's graph."""
    return "merge.weights" if stage == "projector" else f"{stage}.weights"


def this_target(backend: str = TENSORRT) -> Target:
    """Of this machine; ImportError, FileNotFoundError or RuntimeError say what it lacks."""
    from ...plugins import library
    from ..machine import Machine, find_gpu

    tensorrt = load_library(backend)
    gpu = find_gpu(Machine())
    if gpu is None:
        where = "TensorRT-RTX's are built anywhere, and run" if tensorrt.is_rtx else "are built and run"
        raise RuntimeError(
            f"no NVIDIA GPU or driver is found here; engines {where} on the GPU they are for. "
            "`ltbm doctor` says more"
        )
    if tensorrt.is_rtx:
        _check_known(tensorrt, gpu)
        return Target(tensorrt.version, gpu.compute_capability, "", "", backend)
    plugin = file_sha256(library.require_tensorrt_library())
    return Target(tensorrt.version, gpu.compute_capability, gpu.name, plugin)


def _check_known(tensorrt: TensorRTLibrary, gpu: "Gpu") -> None:
    """RuntimeError if this TensorRT-RTX does not run on the GPU."""
    known = tensorrt.capabilities
    if f"SM{gpu.architecture}" not in known:
        raise RuntimeError(
            f"{tensorrt.product} {tensorrt.version} does not know {gpu.name} (sm{gpu.architecture}); "
            f"it knows {', '.join(known).lower()}. Take --backend tensorrt"
        )


def find_engines(bundle: Bundle, target: Target) -> EngineFolder:
    """The newest engines of a bundle for `target`; FileNotFoundError says why those there are not loaded."""
    refused = []
    for folder in stored(bundle):
        reasons = unusable(folder, bundle, target)
        if not reasons:
            return folder
        refused.append(f"{folder.path.name}: {', '.join(reasons)}")
    refused += [f"{path.name}: {reason}" for path, reason in unreadable(bundle).items()]
    build = build_command(target.backend, bundle.path)
    message = f"no {PRODUCTS[target.backend]} engines of {bundle.path} for this machine: run `{build}"
    message += f" --refresh`. Not loaded are {'; '.join(refused)}" if refused else "`"
    raise FileNotFoundError(message)


def unusable(folder: EngineFolder, bundle: Bundle, target: Target) -> list[str]:
    """Why `folder` must not be loaded, in words; empty if it may."""
    return differences(folder, bundle, target) + folder.damage()


def differences(folder: EngineFolder, bundle: Bundle, target: Target) -> list[str]:
    """What `folder` was built for that is not so here, in words."""
    if folder.key.target.backend != target.backend:
        return [f"built for --backend {folder.key.target.backend}"]
    try:
        here = _flat(Key.of(bundle, target, folder.key.limits))
    except FileNotFoundError as error:
        return [str(error)]
    there = _flat(folder.key)
    words = []
    for name, value in here.items():
        if there.get(name) != value and not _is_one_of(name, value, there.get(name), target):
            words.append(f"built for {name} {_short(there.get(name))}, here it is {_short(value)}")
    return words


def _is_one_of(name: str, value: str, built: str | None, target: Target) -> bool:
    """Whether a TensorRT-RTX engine was built for this machine's compute capability among others."""
    if target.backend != TENSORRT_RTX or name != "compute capability":
        return False
    return set(value.split(", ")) <= set((built or "").split(", "))


def stored(bundle: Bundle) -> list[EngineFolder]:
    """Every folder of engines whose record can be read, newest first."""
    folders, _ = read_folders(bundle, RECORD, _read)
    return sorted(folders, key=lambda folder: folder.built, reverse=True)


def unreadable(bundle: Bundle) -> dict[Path, str]:
    """Folder -> why its record cannot be read, for those that no machine loads any more."""
    _, reasons = read_folders(bundle, RECORD, _read)
    return reasons


def store(
    bundle: Bundle, key: Key, stage: str, plan, seconds: float, profiles: Sequence[OptimisationProfile]
) -> EngineFolder:
    """Write one engine and then its record; a killed build leaves what was there before.

    plan: the engine's bytes
    """
    path = bundle.path / FOLDER / key.digest
    path.mkdir(parents=True, exist_ok=True)
    file = path / f"{stage}.engine"
    try:
        write_whole(file, plan)
    except OSError as error:
        needed = f"it takes {len(plan) / 2**20:,.0f} MiB"
        raise OSError(
            f"{file} was not written ({error}): {needed}; free them there and build again"
        ) from None
    former = _read(path / RECORD)
    stages = dict(former.stages) if isinstance(former, EngineFolder) else {}
    stages[stage] = StageRecord(file_sha256(file), file.stat().st_size, seconds, tuple(profiles))
    built = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    folder = EngineFolder(path, key, built, stages)
    write_whole(path / RECORD, folder.to_json().encode())
    return folder


def remove_stale(bundle: Bundle, target: Target) -> list[str]:
    """Delete the folders for the same GPU or capabilities that can no longer be loaded; their names."""
    removed = []
    for folder in stored(bundle):
        if not _same_device(folder.key.target, target):
            continue
        if differences(folder, bundle, target) or folder.lost_files():
            shutil.rmtree(folder.path)
            removed.append(folder.path.name)
    return removed


def _same_device(one: Target, other: Target) -> bool:
    """Engines of TensorRT-RTX are of no GPU, but of capabilities."""
    if one.backend == TENSORRT_RTX:
        return (one.backend, one.compute_capability) == (other.backend, other.compute_capability)
    return (one.backend, one.gpu) == (other.backend, other.gpu)


def _read(record: Path) -> EngineFolder | str:
    """The folder of a record, or why its engines cannot be loaded by any machine."""
    try:
        raw = json.loads(record.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            return f"{RECORD} has format {raw['format']}, this ltbm reads {FORMAT}: delete the folder"
        key = Key.from_json(raw["key"])
        stages = {stage: StageRecord.from_json(one) for stage, one in raw["stages"].items()}
        return EngineFolder(record.parent, key, raw["built"], stages)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{RECORD} cannot be read: delete the folder"


def _flat(key: Key) -> dict[str, str]:
    """Field -> value, as a user reads them."""
    facts = {part.name.replace("_", " "): getattr(key.target, part.name) for part in fields(key.target)}
    for stage, digest in key.graphs.items():
        facts[f"the {stage} graph"] = digest
    facts["flavour"] = key.flavour
    facts["precision"] = key.precision
    return facts


def _short(value: str | None) -> str:
    """Hashes by their first digits."""
    text = str(value)
    return text[:12] if len(text) == 64 else text
