"""What a backend is: the devices it runs on, the files it takes of a bundle, and how it opens an engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import Bundle
from ..engine import Engine
from ..numbers import check_threads
from .shape_ranges import OptimisationProfile

if TYPE_CHECKING:
    from .cuda import Stream


@dataclass(frozen=True)
class DecoderFlavours:
    """The decoder graphs of a bundle that run on one device.

    float: of weights that are not quantised
    quantised: of int4 or int8 weights as ONNX Runtime's own product reads them; None for the same
    kv_caches: by the type of a KV cache, where it may differ from the activations'
    """

    float: str
    quantised: str | None = None
    kv_caches: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineFiles:
    """What a backend opens of a bundle: the decoder's flavour, and the file of each stage.

    cuda_op: libltbm_cuda.so, where the merge stage is its op and the file of the stage the projector's;
        None where the file holds both
    """

    flavour: str
    stages: Mapping[str, Path]
    cuda_op: Path | None = None


@dataclass(frozen=True)
class EngineOptions:
    """How one engine is opened.

    threads: on the CPU, all cores for None
    stream: orders the work on a GPU; None on the CPU
    profile: the shapes for ONNX Runtime's TensorRT provider; None for a graph that it does not run
    stepping: each run follows the one before at once, as the LLM's do; ONNX Runtime's CPU threads stay awake
    packed: the graph with the places of its packed weights (`ltbm pack`), None where there is none
    half_cache: the decoder keeps its KV cache in float16, whatever its activations are
    native_products: quantised weights are multiplied by our op on the CPU, where it takes them
    """

    device: str
    threads: int | None = None
    stream: "Stream | None" = None
    profile: OptimisationProfile | None = None
    stepping: bool = False
    packed: Path | None = None
    half_cache: bool = False
    native_products: bool = True

    def __post_init__(self):
        check_threads("threads", self.threads)


@dataclass(frozen=True)
class Backend:
    """One way to run a bundle's engines.

    devices: what it runs on, the default first, and the decoder flavours there
    require: raises where this installation lacks what a device needs, with the command that brings it
    files: of a bundle for a device and a KV cache type; FileNotFoundError says how to make what is missing
    open: an engine from its file
    """

    name: str
    devices: Mapping[str, DecoderFlavours]
    require: Callable[[str], None]
    files: Callable[[Bundle, str, str | None], EngineFiles]
    open: Callable[[Path, EngineOptions], Engine]
