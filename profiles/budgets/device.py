"""Devices that a plan can be made for: figures from data sheets, each with its source,
and the share of them that is reached."""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "devices"


@dataclass(frozen=True)
class Figure:
    """One figure; `checked` is the day it was held against its source."""

    value: float
    source: str
    checked: str


@dataclass(frozen=True)
class Device:
    """A device as its data sheet has it. Tensor figures are dense:
    structured sparsity doubles what sheets print."""

    title: str
    cpu: str
    memory_gb: Figure
    usable_memory_gib: Figure
    bandwidth_gb_s: Figure
    fp16_tflops_dense: Figure  # tensor cores
    int8_tops_dense: Figure  # tensor cores; weight-only int8 and int4 multiply in FP16 and do not reach it
    fp32_tflops: Figure  # CUDA cores
    bandwidth_efficiency: Figure  # share that decoding reaches
    compute_efficiency: Figure  # share that prefill and the encoder reach
    runtime_gib: Figure  # memory that libraries and the process take


@cache
def device_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_device(name: str) -> Device:
    """The device `name`; ValueError names those there are."""
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib  # pyright: ignore[reportMissingImports]  # of Python 3.10

    if name not in device_names():
        raise ValueError(
            f"unknown device {name!r}; devices are {', '.join(device_names())}, and cpu for this machine"
        )
    raw = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    figures = {field.name: Figure(**raw[field.name]) for field in fields(Device) if field.type is Figure}
    return Device(title=raw["title"], cpu=raw["cpu"], **figures)
