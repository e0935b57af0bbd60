"""TensorRT engines of a bundle: `engines/<key>/`, each folder with an engines.json that says what they are
good for."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path

from ..bundle import Bundle
from ..files import file_sha256, write_whole
from .shape_ranges import GROWING, Limits

FOLDER, RECORD, FORMAT = "engines", "engines.json", 2
STAGES = ("encoder", "merge", "decoder")
IN_PLACE_SINCE = (10, 15)  # TensorRT's KVCacheUpdate, which `std24` needs


@dataclass(frozen=True)
class Target:
    """Where engines run; one built elsewhere is foreign."""

    tensorrt: str  # version
    compute_capability: str  # such as 8.7
    gpu: str  # its name: engines of one capability do not fit every GPU of it
    plugin: str  # sha256 of the op's plugin library

    @property
    def flavour(self) -> str:
        """The decoder graph for this TensorRT."""
        return "std24" if version_tuple(self.tensorrt) >= IN_PLACE_SINCE else GROWING


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
        graphs = {stage: _stage_hash(bundle, stage, target.flavour) for stage in STAGES}
        return cls(target, graphs, target.flavour, str(bundle.manifest.precision), limits)

    @property
    def digest(self) -> str:
        """The folder's name."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class StageRecord:
    """One engine file."""

    sha256: str
    size: int  # bytes
    seconds: float  # that its build took
    profiles: list[dict] = field(default_factory=list)  # name, shapes, values as `shape_ranges.Profile`


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
        """What is missing or cut."""
        lost = [f"no {stage} engine" for stage in STAGES if stage not in self.stages]
        return lost + [
            f"{self.file(stage).name} is missing or has another size"
            for stage, record in self.stages.items()
            if not self.file(stage).is_file() or self.file(stage).stat().st_size != record.size
        ]


def version_tuple(version: str) -> tuple[int, ...]:
    """10.15.1.29 -> (10, 15)."""
    return tuple(int(part) for part in version.split(".")[:2])


def graph_file(stage: str, flavour: str) -> str:
    """The ONNX file that a stage's engine is built from."""
    return {"encoder": "encoder.onnx", "merge": "merge.trt.onnx", "decoder": f"decoder.{flavour}.onnx"}[stage]


def _stage_hash(bundle: Bundle, stage: str, flavour: str) -> str:
    files = graph_file(stage, flavour), f"{stage}.weights"
    for name in files:
        bundle.file(name)  # says what the bundle lacks
    return hashlib.sha256("".join(bundle.manifest.files[name].sha256 for name in files).encode()).hexdigest()


def this_target() -> Target:
    """Of this machine; ImportError, FileNotFoundError or RuntimeError say what it lacks."""
    from ...plugins import library
    from ..machine import Machine, find_gpu
    from .trt import trt

    gpu = find_gpu(Machine())
    if gpu is None:
        raise RuntimeError(
            "no NVIDIA GPU or driver is found here; engines are built and run on the GPU they are for. "
            "`ltbm doctor` says more"
        )
    return Target(
        trt.__version__,
        "{}.{}".format(*gpu.capability),
        gpu.name,
        file_sha256(library.require_tensorrt_library()),
    )


def find_engines(bundle: Bundle, target: Target) -> EngineFolder:
    """The newest engines of this bundle for `target`; FileNotFoundError says why none of those there is
    loaded."""
    reasons = {}
    for folder in stored(bundle):
        reasons[folder.path.name] = unusable(folder, bundle, target)
        if not reasons[folder.path.name]:
            return folder
    found = "; ".join(f"{name}: {', '.join(why)}" for name, why in reasons.items())
    raise FileNotFoundError(
        f"no TensorRT engines of {bundle.path} for this machine: run `ltbm build {bundle.path}`"
        + (f" --refresh. Not loaded are {found}" if found else "")
    )


def unusable(folder: EngineFolder, bundle: Bundle, target: Target) -> list[str]:
    """Why `folder` must not be loaded; empty if it may."""
    return differences(folder, bundle, target) + folder.damage()


def differences(folder: EngineFolder, bundle: Bundle, target: Target) -> list[str]:
    """What `folder` was built for that is not so here."""
    here, there = (_flat(key) for key in (Key.of(bundle, target, folder.key.limits), folder.key))
    return [
        f"built for {name} {_short(there.get(name))}, here it is {_short(value)}"
        for name, value in here.items()
        if there.get(name) != value
    ]


def stored(bundle: Bundle) -> Iterator[EngineFolder]:
    """Every folder of engines whose record can be read, newest first."""
    records = []
    for where in (bundle.path / FOLDER).glob(f"*/{RECORD}"):
        folder = _read(where)
        if folder:
            records.append(folder)
    yield from sorted(records, key=lambda folder: folder.built, reverse=True)


def store(bundle: Bundle, key: Key, stage: str, plan, seconds: float, profiles: list[dict]) -> EngineFolder:
    """Write one engine and then its record; a killed build leaves what was there before."""
    path = bundle.path / FOLDER / key.digest
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / f"{stage}.engine", plan)
    record = StageRecord(
        file_sha256(path / f"{stage}.engine"), (path / f"{stage}.engine").stat().st_size, seconds, profiles
    )
    former = _read(path / RECORD)
    stages = (dict(former.stages) if former else {}) | {stage: record}
    folder = EngineFolder(path, key, datetime.now(timezone.utc).isoformat(timespec="microseconds"), stages)
    facts = {
        "format": FORMAT,
        "key": asdict(key),
        "built": folder.built,
        "stages": {name: asdict(one) for name, one in stages.items()},
    }
    write_whole(path / RECORD, json.dumps(facts, indent=1).encode())
    return folder


def remove_stale(bundle: Bundle, target: Target) -> list[str]:
    """Delete the folders that this machine built and can no longer load; their names.
    Those of other GPUs stay."""
    stale = [
        folder
        for folder in stored(bundle)
        if folder.key.target.gpu == target.gpu and unusable(folder, bundle, target)
    ]
    for folder in stale:
        shutil.rmtree(folder.path)
    return [folder.path.name for folder in stale]


def _read(where: Path) -> EngineFolder | None:
    """None for a record that is absent, broken or of another format:
    engines that nobody can judge are not there."""
    try:
        raw = json.loads(where.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            return None
        target = Target(**raw["key"]["target"])
        limits = Limits(**raw["key"]["limits"])
        key = Key(**raw["key"] | {"target": target, "limits": limits})
        stages = {name: StageRecord(**record) for name, record in raw["stages"].items()}
        return EngineFolder(where.parent, key, raw["built"], stages)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _flat(key: Key) -> dict[str, str]:
    """Field -> value, as a user reads them."""
    flat = {field.name.replace("_", " "): getattr(key.target, field.name) for field in fields(key.target)}
    flat |= {f"the {stage} graph": value for stage, value in key.graphs.items()}
    return flat | {"flavour": key.flavour, "precision": key.precision}


def _short(value) -> str:
    """Hashes by their first digits."""
    text = str(value)
    return text[:12] if len(text) == 64 else text
