"""What this machine sustains, measured on the spot: products of matrices through ONNX Runtime,
in a model's widths and precision."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from ...plugins.library import OP_DOMAIN
from ...runtime.backends.native_products import BLOCKS, COLUMNS, takes_columns
from ..latency.jobs import last_words
from ..measure import process_memory
from .onnx_bytes import CONTRIB, FLOAT, FLOAT16, INT8, UINT8, Product, Stored, chain_model

PROBE_BYTES = 384 * 2**20  # of weights: beyond the caches that one process gets on most machines
MOST_PAIRS = 64  # of matrices: small models fit into caches anyway
PROBE_TOKENS = 128  # rows of a product that is bound by arithmetic
REPEATS = {1: 9, PROBE_TOKENS: 5}
WARMUP = 1
PROCESSES = 3  # where a process's memory lands alone takes up to half of its bandwidth
BITS = {"int4": 4, "int8": 8}
WEIGHT_TOP = 63  # largest code of int8 with a scale a column, as `ltbm export` writes it
DATA_TYPES = {
    np.dtype(np.float32): FLOAT,
    np.dtype(np.float16): FLOAT16,
    np.dtype(np.uint8): UINT8,
    np.dtype(np.int8): INT8,
}
FLOAT_TYPES = {"float32": (FLOAT, np.float32), "float16": (FLOAT16, np.float16)}


@dataclass(frozen=True)
class Measured:
    """Products of one precision.

    bandwidth: bytes a second of weights as stored, one token at a time; rate: operations a second,
        many tokens at once
    resident: bytes of memory that a stored byte of weights takes once it was used, mapped or not
    """

    bandwidth: float
    rate: float
    resident: float


@dataclass(frozen=True)
class Storage:
    """How weights are stored: a float type, int8 or int4 in blocks, or int8 with a scale a column (no block
    size); `activations` is what they are multiplied with."""

    weights: str
    activations: str
    block_size: int = 0
    accuracy_level: int = 0

    @property
    def in_columns(self) -> bool:
        return self.weights == "int8" and not self.block_size


def measure_products(width: int, ffn: int, storage: Storage, threads: int | None = None) -> Measured:
    """Time a chain of products width -> ffn -> width: medians of processes of its own,
    whose memory can be told."""
    job = json.dumps({"width": width, "ffn": ffn, "storage": asdict(storage), "threads": threads})
    runs = [_run_alone(job, storage) for _ in range(PROCESSES)]
    return Measured(
        *(float(np.median([getattr(run, field.name) for run in runs])) for field in fields(Measured))
    )


def _run_alone(job: str, storage: Storage) -> Measured:
    done = subprocess.run(
        [sys.executable, "-m", "ltbm.profiles.budgets.probe"], input=job, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(
            f"measuring products of {storage.weights} failed: {last_words(done.returncode, done.stderr)}"
        )
    return Measured(**json.loads(done.stdout))


def main() -> None:
    job = json.load(sys.stdin)
    print(json.dumps(asdict(_measure(job["width"], job["ffn"], Storage(**job["storage"]), job["threads"]))))


def _measure(width: int, ffn: int, storage: Storage, threads: int | None) -> Measured:
    shapes = ((width, ffn), (ffn, width))
    with tempfile.TemporaryDirectory(prefix="ltbm-plan-") as folder:
        matrices = [_matrix(k, n, storage) for k, n in shapes]
        pairs = min(
            MOST_PAIRS, -(-PROBE_BYTES // sum(array.nbytes for matrix in matrices for array in matrix))
        )
        with open(Path(folder) / "weights", "wb") as stream:
            chain = [
                _product(stream, matrix, shape, storage)
                for _ in range(pairs)
                for matrix, shape in zip(matrices, shapes)
            ]
            stored = stream.tell()
        path = Path(folder) / "chain.onnx"
        path.write_bytes(chain_model(chain, FLOAT_TYPES[storage.activations][0], width))
        x = (
            np.random.default_rng(1)
            .standard_normal((PROBE_TOKENS, width))
            .astype(FLOAT_TYPES[storage.activations][1])
        )
        return _measure_chain(path, x, stored, pairs * 4 * width * ffn, threads)


def _measure_chain(path: Path, x: np.ndarray, stored: int, operations: int, threads: int | None) -> Measured:
    """`operations` are those of one token."""
    from ...runtime.backends.opening import open_engine

    before = process_memory()
    engine = open_engine(path, device="cpu", threads=threads)

    def seconds(tokens: int) -> float:
        times = [time.perf_counter()]
        for _ in range(WARMUP + REPEATS[tokens]):
            engine.run({"x": x[:tokens]})
            times.append(time.perf_counter())
        return float(np.median(np.diff(times)[WARMUP:]))

    one = seconds(1)
    grown = process_memory()["resident"] - before["resident"]
    many = seconds(PROBE_TOKENS)
    engine.close()
    return Measured(bandwidth=stored / one, rate=operations * PROBE_TOKENS / many, resident=grown / stored)


def _matrix(k: int, n: int, storage: Storage) -> list[np.ndarray]:
    """A random matrix [K, N] as the export stores it: its values, or its codes and scales."""
    rng = np.random.default_rng(0)
    if storage.weights in FLOAT_TYPES:
        return [
            (rng.standard_normal((k, n), np.float32) / np.sqrt(k)).astype(FLOAT_TYPES[storage.weights][1])
        ]
    if storage.in_columns:
        codes = rng.integers(-WEIGHT_TOP, WEIGHT_TOP + 1, (k, n), np.int8)
        return [codes, np.full(n, 1 / (WEIGHT_TOP * np.sqrt(k)), np.float32)]
    bits = BITS[storage.weights]
    blocks = k // storage.block_size
    codes = rng.integers(0, 256, (n, blocks, storage.block_size * bits // 8), np.uint8)
    scales = np.full((n, blocks), 1 / (2 ** (bits - 1) * np.sqrt(k)), FLOAT_TYPES[storage.activations][1])
    return [codes, scales]


def _product(stream, matrix: list[np.ndarray], shape: tuple[int, int], storage: Storage) -> Product:
    """One more copy of a matrix in the file; different in one value,
    since ONNX Runtime keeps equal weights once."""
    matrix[0].reshape(-1)[0] += 1
    stored = []
    for array in matrix:
        stored.append(
            Stored(
                f"w{stream.tell()}",
                _data_type(array),
                array.shape,
                Path(stream.name).name,
                stream.tell(),
                array.nbytes,
            )
        )
        stream.write(array.data)
    if storage.weights in FLOAT_TYPES:
        return Product("MatMul", tuple(stored), {})
    if storage.in_columns:
        return Product(COLUMNS, tuple(stored), {}, OP_DOMAIN if takes_columns() else CONTRIB)
    attributes = {
        "K": shape[0],
        "N": shape[1],
        "bits": BITS[storage.weights],
        "block_size": storage.block_size,
        "accuracy_level": storage.accuracy_level,
    }
    return Product(BLOCKS, tuple(stored), attributes, CONTRIB)


def _data_type(array: np.ndarray) -> int:
    return DATA_TYPES[array.dtype]


if __name__ == "__main__":
    main()
