"""What an export will take, known before anything is written:
the graphs are built over weight files that only count."""

import errno
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..runtime.precision import Precision
from .checkpoint import Checkpoint
from .layouts import EMBEDDINGS
from .weights import WeightFile

PROCESS_BYTES = 150 * 10**6  # resident with onnx imported and nothing loaded
PARITY_PROCESS_BYTES = 650 * 10**6  # with torch and transformers beside it: 0.61 GiB seen
MANIFEST_BYTES = 90  # for each tensor of the checkpoint
ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Estimate:
    """Bytes that an export takes.

    stage_bytes: weights of the encoder, merge and decoder stages, and the embeddings
    disk, memory: of the whole bundle, and of the export at its peak
    parity_memory: of `ltbm parity`, which holds the PyTorch model in float32 beside the engines
    free: on the disk of the folder `where`
    """

    stage_bytes: dict[str, int]
    disk: int
    memory: int
    parity_memory: int
    free: int
    where: str

    def __str__(self) -> str:
        return (
            f"takes {gigabytes(self.disk)} of disk ({gigabytes(self.free)} free in {self.where}) and about "
            f"{gigabytes(self.memory)} of memory; parity takes about {gigabytes(self.parity_memory)} of "
            "memory"
        )

    def require_room(self) -> None:
        if self.disk > self.free:
            raise OSError(
                errno.ENOSPC,
                f"the bundle takes {gigabytes(self.disk)}, the disk has {gigabytes(self.free)} free: "
                "make room, choose another folder or a smaller --precision",
                self.where,
            )


def estimate(
    stages: dict[str, Callable], checkpoint: Checkpoint, precision: Precision, out: Path
) -> Estimate:
    """Build every stage's graphs without reading a tensor.
    KeyError or ValueError for a checkpoint that does not fit them."""
    stage_bytes = {}
    largest = 0
    graph_bytes = 0
    for name, build in stages.items():
        weights = WeightFile(f"{name}.weights", None)
        graph_bytes += sum(graph.model().ByteSize() for graph in build(weights).values())
        stage_bytes[name], largest = weights.size, max(largest, weights.largest)
    rows, width = checkpoint.take(EMBEDDINGS, checkpoint.uses.get(EMBEDDINGS, "embeddings")).shape
    stage_bytes["embeddings"] = rows * width * ITEMSIZE[precision.embeddings]
    tokenizer = sum(path.stat().st_size for path in checkpoint.path.glob("tokenizer.json"))
    where = next(folder for folder in out.absolute().parents if folder.is_dir())
    return Estimate(
        stage_bytes=stage_bytes,
        disk=sum(stage_bytes.values()) + graph_bytes + tokenizer + MANIFEST_BYTES * len(checkpoint),
        memory=PROCESS_BYTES + largest,
        parity_memory=PARITY_PROCESS_BYTES
        + checkpoint.values() * ITEMSIZE["float32"]
        + sum(stage_bytes.values()),
        free=shutil.disk_usage(where).free,
        where=str(where),
    )


def gigabytes(size: int) -> str:
    """A size in words."""
    return f"{size / 1e9:,.2f} GB" if size >= 10**8 else f"{size / 1e6:,.1f} MB"
