"""`ltbm pack`: the weights of a bundle's CPU engines, packed once and kept to be mapped.

ONNX Runtime packs when it opens a graph, and can save what it packed beside the weights as they were.
The packed form alone is kept; the weights themselves stay in the bundle, where the graph finds them.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from ..runtime.backends.engine_folders import FOLDER
from ..runtime.backends.engine_store import weights_file
from ..runtime.backends.native_products import with_native_products
from ..runtime.backends.opening import find_backend
from ..runtime.backends.packed_store import (
    GRAPH_FILE,
    RECORD,
    STAGES,
    WEIGHTS_FILE,
    Host,
    PackedGraph,
    PackedKey,
    find_packed,
    folder_of,
    packed_differences,
    remove_stale_packed,
    stored_packed,
    this_host,
)
from ..runtime.bundle import Bundle, FileRecord
from ..runtime.files import file_sha256, write_whole
from ..runtime.machine import free_disk
from .external_data import Extent, ExternalTensor, PackedWeight, external_tensors, with_entries
from .progress import Progress, to_stderr
from .scratch import scratch_folder, tidy_up

PAGE = 4096
"""Buffers begin at multiples of it: kernels align what is in a buffer to its address."""
BLOCK_BYTES = 2**24  # copied at once
KEPT_TIMES_WEIGHTS = 1.15
"""Of a graph's packed form, as far as seen 0.84 (float32) to 1.10 (int4 and int8)."""
SAVED_GRAPH = "saved.onnx"
SAVED_WEIGHTS = "saved.weights"


def pack_bundle(
    bundle: Bundle,
    kv_cache: str | None = None,
    threads: int | None = None,
    refresh: bool = False,
    progress: Progress = to_stderr,
    native_products: bool = True,
) -> dict[str, PackedGraph]:
    """Stage -> its packed weights for this machine; what is there already stays, unless to `refresh`.

    kv_cache: as for a session; its decoder is another graph
    native_products: as for a session; a graph that has some is not packed: they read the weights in place
    Raises OSError where the disk has no room, before or while a stage is packed.
    """
    graphs = find_backend("onnxruntime").files(bundle, "cpu", kv_cache).stages
    host = this_host()
    if host is None:
        raise RuntimeError("onnxruntime is not installed as a package of its own: its version is not known")
    _tidy_up(bundle, progress)
    _explain_others(bundle, host, progress)
    packed = {} if refresh else find_packed(bundle, graphs, host)
    for stage, one in packed.items():
        progress(f"{stage}: is there ({one.path.name}); --refresh packs it again")
    missing = [stage for stage in STAGES if stage not in packed]
    if native_products:
        missing = [stage for stage in missing if not _reads_in_place(stage, graphs[stage], progress)]
    _check_disk(bundle, missing, progress)
    for stage in missing:
        packed[stage] = _pack_stage(bundle, stage, graphs[stage], host, threads, progress)
    for name in remove_stale_packed(bundle, host):
        progress(f"removed the stale packed weights {name}")
    return packed


def _tidy_up(bundle: Bundle, progress: Progress) -> None:
    """Remove what a killed run left."""
    for path in (bundle.path / FOLDER).glob(".*.export-*"):
        name = path.name[1:].split(".export-")[0]
        tidy_up(path.with_name(name), progress)


def _reads_in_place(stage: str, graph: Path, progress: Progress) -> bool:
    stored = graph.read_bytes()
    if with_native_products(stored) is stored:
        return False
    progress(f"{stage}: its products read the weights where they lie on this machine: nothing to pack")
    return True


def _explain_others(bundle: Bundle, host: Host, progress: Progress) -> None:
    for one in stored_packed(bundle):
        if why := packed_differences(one, bundle, host):
            progress(f"packed weights {one.path.name} are not for this machine and bundle: {', '.join(why)}")


def _check_disk(bundle: Bundle, stages: Sequence[str], progress: Progress) -> None:
    """OSError, before anything is packed, if it would not fit; else what it takes, in words."""
    if not stages:
        return
    weights = [bundle.manifest.files[weights_file(stage)].size for stage in stages]
    kept = KEPT_TIMES_WEIGHTS * sum(weights)
    needed = kept + max(weights)  # one stage at a time, its weights beside it until they are packed
    free = free_disk(bundle.path)
    words = f"about {kept / 2**20:,.0f} MiB of disk, {needed / 2**20:,.0f} MiB while packing"
    if needed > free:
        raise OSError(
            f"the packed weights take {words}, {free / 2**20:,.0f} MiB are free under {bundle.path}: free "
            "some, or run without them (more memory, a slower start)"
        )
    progress(f"{', '.join(stages)}: {words}, {free / 2**20:,.0f} MiB are free")


def _pack_stage(
    bundle: Bundle, stage: str, graph: Path, host: Host, threads: int | None, progress: Progress
) -> PackedGraph:
    key = PackedKey.of(bundle, stage, graph.name, host)
    folder = folder_of(bundle, key)
    begun = time.perf_counter()
    progress(f"{stage}: packing {bundle.manifest.files[weights_file(stage)].size / 2**20:,.0f} MiB")
    with scratch_folder(folder, progress) as scratch:
        _save(bundle, graph, scratch, threads)
        progress(f"{stage}: keeping the packed form")
        _keep_packed(graph, scratch, f"{FOLDER}/{folder.name}/{WEIGHTS_FILE}")
        files = {}
        for name in (GRAPH_FILE, WEIGHTS_FILE):
            file = scratch / name
            files[name] = FileRecord(file_sha256(file), file.stat().st_size)
        made = datetime.now(timezone.utc).isoformat(timespec="seconds")
        packed = PackedGraph(folder, key, made, time.perf_counter() - begun, files)
        write_whole(scratch / RECORD, packed.to_json().encode())
    progress(f"{stage}: {packed.size / 2**20:,.0f} MiB in {packed.seconds:.0f} s")
    return packed


def _save(bundle: Bundle, graph: Path, scratch: Path, threads: int | None) -> None:
    """Let ONNX Runtime write the graph and both forms of its weights."""
    from ..runtime.backends.ort import save_packed

    try:
        save_packed(graph, scratch / SAVED_GRAPH, SAVED_WEIGHTS, threads)
    except RuntimeError as error:
        raise OSError(
            f"{graph.name} was not packed ({error}); {free_disk(bundle.path) / 2**20:,.0f} MiB are free "
            f"under {bundle.path}"
        ) from None


def _keep_packed(graph: Path, scratch: Path, location: str) -> None:
    """What ONNX Runtime saved in `scratch` becomes GRAPH_FILE and WEIGHTS_FILE.

    location: of WEIGHTS_FILE, from the bundle's folder
    """
    model = graph.read_bytes()
    saved = external_tensors((scratch / SAVED_GRAPH).read_bytes())
    packed = {weight.key: weight for tensor in saved.values() for weight in tensor.packed}
    if not packed:
        raise RuntimeError(f"this onnxruntime packed no weight of {graph.name}: there is nothing to keep")
    bearer = _bearer(external_tensors(model), saved)
    with open(scratch / WEIGHTS_FILE, "wb") as target:
        _copy(graph.parent / bearer.entries["location"], bearer.extent, target)
        moved = _move(scratch / SAVED_WEIGHTS, packed.values(), target)
    entries = {"location": location, "offset": "0", "length": str(bearer.extent.length)}
    entries |= {f"prepacked_{index}": weight.entry() for index, weight in enumerate(moved)}
    (scratch / GRAPH_FILE).write_bytes(with_entries(model, bearer.name, entries))
    (scratch / SAVED_GRAPH).unlink()
    (scratch / SAVED_WEIGHTS).unlink()


def _bearer(tensors: Mapping[str, ExternalTensor], saved: Mapping[str, ExternalTensor]) -> ExternalTensor:
    """The smallest weight that ONNX Runtime leaves as it is, which can bear the places of the packed ones.

    Packed weights are found by their key, whichever weight names them, in the file of that weight.
    """
    left = [tensor for name, tensor in tensors.items() if name in saved and not saved[name].packed]
    if not left:
        raise RuntimeError("onnxruntime changed every weight of the graph: none can bear the packed ones")
    return min(left, key=lambda tensor: tensor.extent.length)


def _move(saved: Path, packed: Iterable[PackedWeight], target: BinaryIO) -> list[PackedWeight]:
    """Move the buffers to the end of `target`, the last first: the file that they leave is cut as they go, so
    that the disk never holds them twice."""
    buffers = {buffer for weight in packed for buffer in weight.buffers}
    places = {}
    for buffer in sorted(buffers, key=lambda one: one.offset, reverse=True):
        begin = -(-target.tell() // PAGE) * PAGE
        target.seek(begin)
        _copy(saved, buffer, target)
        places[buffer] = Extent(begin, buffer.length)
        with open(saved, "r+b") as file:
            file.truncate(buffer.offset)
    return [PackedWeight(weight.key, tuple(places[one] for one in weight.buffers)) for weight in packed]


def _copy(source: Path, extent: Extent, target: BinaryIO) -> None:
    with open(source, "rb") as file:
        file.seek(extent.offset)
        left = extent.length
        while left:
            block = file.read(min(left, BLOCK_BYTES))
            if not block:
                raise OSError(f"{source} ends {left} bytes before it should")
            target.write(block)
            left -= len(block)
