"""The real sizes, by hand: a random checkpoint as large as the real one, exported, opened and asked.

    python tests/full_size.py --family qwen2_audio --precision int4 --out /data/proof

Writes a bfloat16 checkpoint of the published configuration (17 GB), exports it in a process of its own,
answers one clip, prints seconds, peak memory and sizes, and removes what it wrote. Random weights:
sizes and speed are real, the words are not.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.support, when run as a script

from tests.support import full_size_qwen3_asr as qwen3_asr
from tests.support.full_size_models import LLMS, SPECIAL_IDS
from tests.support.full_size_tensors import tensor_shapes

SHARD_BYTES = 4 * 10**9
BLOCK = 1 << 24  # random values made once and repeated in every tensor
LTBM = "import sys; from ltbm.runtime.cli import main; sys.exit(main())"
LEVELS, CLIP_SECONDS = ("full", "keep25"), 30.0
SAMPLE_SECONDS = 0.02  # between two looks at a process's memory
ENCODER = dict(layers=32, width=1280, heads=20, ffn=5120)
LONGEST = 300  # seconds that Qwen2.5-Omni's extractor takes


def main() -> int:
    args = _parser().parse_args()
    folder = Path(args.out)
    folder.mkdir(parents=True)  # a folder of our own: it is removed
    try:
        figures = prove(
            folder,
            args.family,
            args.precision,
            full_size(args.family, args.layers),
            args.options,
            () if args.export_only else args.level or LEVELS,
            args.threads,
        )
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(f"{name:<28}{value}" for name, value in figures.items()))
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


def prove(
    folder: Path,
    family: str,
    precision: str,
    sizes: dict,
    options=(),
    levels=LEVELS,
    threads: int | None = None,
) -> dict:
    """The figures of one export and of an answer at each level, in `folder`."""
    begun = time.perf_counter()
    write_checkpoint(folder / "checkpoint", family, sizes)
    figures = {
        "family": family,
        "precision": precision,
        "layers": sizes["llm"]["num_hidden_layers"],
        "checkpoint_gb": _gigabytes(folder / "checkpoint"),
        "checkpoint_seconds": time.perf_counter() - begun,
    }
    command = [
        "export",
        folder / "checkpoint",
        folder / "bundle",
        "--precision",
        precision,
        "--no-parity",
        *options,
    ]
    _, figures["export"] = measured(command)
    shutil.rmtree(folder / "checkpoint")
    figures["bundle_gb"] = _gigabytes(folder / "bundle")
    write_clip(folder / "clip.wav", CLIP_SECONDS)
    for level in levels:
        figures[f"run_{level}"] = ask(folder, level, threads)
    return figures


def ask(folder: Path, level: str, threads: int | None) -> dict:
    """The figures of one answer about the clip; threads: of the CPU, None for all of them."""
    command = [
        "run",
        folder / "bundle",
        folder / "clip.wav",
        "--prompt",
        "What do you hear?",
        "--level",
        level,
        "--max-new-tokens",
        "16",
        "--json",
    ]
    if threads:
        command += ["--threads", threads]
    answer, figures = measured(command)
    return figures | _speed(json.loads(answer))


def _speed(answer: dict) -> dict:
    return {
        "tokens_in": answer["tokens_in"],
        "tokens_out": answer["tokens_out"],
        "kv_bytes": answer["kv_bytes"],
        "ttft_ms": answer["timings"]["ttft"],
        "encoder_ms": answer["timings"]["encoder"],
        "prefill_ms": answer["timings"]["prefill"],
        "decode_tokens_per_s": (len(answer["token_ids"]) - 1) / (answer["timings"]["decode"] / 1e3),
    }


def measured(arguments: list) -> tuple[str, dict]:
    """Run `ltbm` in a process of its own: its standard output, and its seconds and peak memory in GiB."""
    begun, peaks = time.perf_counter(), {"VmHWM": 0, "RssAnon": 0}
    child = subprocess.Popen(
        [sys.executable, "-c", LTBM, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    watcher = threading.Thread(target=_watch, args=(child.pid, peaks))
    watcher.start()
    out = child.stdout.read()
    child.wait()
    watcher.join()
    if child.returncode:
        raise RuntimeError(f"ltbm {' '.join(map(str, arguments))} ended with {child.returncode}")
    return out, {
        "seconds": time.perf_counter() - begun,
        "peak_rss_gib": peaks["VmHWM"] / 2**20,
        "peak_anonymous_gib": peaks["RssAnon"] / 2**20,
    }


def _watch(pid: int, peaks: dict[str, int]) -> None:
    """Follow the process's own peaks (KiB) until it ends; getrusage would count what it was forked from."""
    while True:
        try:
            lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
            for name, value in (line.split(":", 1) for line in lines):
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]))
        except (FileNotFoundError, ProcessLookupError):
            return
        if any(line.startswith("State:\tZ") for line in lines):
            return
        time.sleep(SAMPLE_SECONDS)


def full_size(family: str, layers: int | None = None) -> dict:
    """The published sizes of `family`; `layers` of the LLM where fewer are wanted."""
    llm = LLMS[family] | ({"num_hidden_layers": layers} if layers else {})
    encoder = qwen3_asr.ENCODERS.get(family, ENCODER)
    return {"encoder": encoder, "llm": llm, "special_ids": SPECIAL_IDS[family]}


def model_type(family: str) -> str:
    return "qwen3_asr" if family in qwen3_asr.LLMS else family


def write_configuration(folder: Path, family: str, sizes: dict) -> None:
    """config.json and the processor, with a tokenizer whose special tokens stand at the real ids."""
    from tests.support import tiny  # imports torch

    folder.mkdir()
    kind = model_type(family)
    tok = tiny.tokenizer_of(kind, sizes["special_ids"])
    tiny.make_config(kind, sizes["llm"], tok, **sizes["encoder"]).save_pretrained(folder)
    tiny.save_processor(folder, kind, tok, longest=LONGEST)


def write_checkpoint(folder: Path, family: str, sizes: dict) -> None:
    """A checkpoint as the hub holds it, bfloat16 in shards, written tensor by tensor."""
    write_configuration(folder, family, sizes)
    random = np.random.default_rng(0).standard_normal(BLOCK, dtype=np.float32)
    shards, size = [[]], 0
    for name, shape in tensor_shapes(family, sizes["encoder"], sizes["llm"]):
        if size > SHARD_BYTES:
            shards, size = shards + [[]], 0
        shards[-1].append((name, shape))
        size += 2 * math.prod(shape)
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    written = 0
    for name, tensors in zip(names, shards):
        _write_shard(folder / name, tensors, random, written)
        written += len(tensors)
    weight_map = {tensor: name for name, tensors in zip(names, shards) for tensor, _ in tensors}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8"
    )


def _write_shard(path: Path, tensors: list[tuple[str, tuple]], random: np.ndarray, written: int) -> None:
    """written: tensors in the shards before; a builder of engines would keep equal tensors once."""
    header, end = {}, 0
    for name, shape in tensors:
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    with open(path, "wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for place, (name, shape) in enumerate(tensors, written):
            stream.writelines(_values(name, shape, random, place))


def _values(name: str, shape: tuple, random: np.ndarray, place: int) -> Iterator[bytes]:
    """A tensor's bytes: norms around one, matrices of unit gain;
    tensors differ in where the random block begins."""
    norm = len(shape) == 1 and name.endswith("weight")
    scale = 0.1 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
    left, start = math.prod(shape), 7919 * place % BLOCK
    while left:
        piece = random[start : start + left]
        yield (piece * np.float32(scale) + np.float32(norm)).astype(ml_dtypes.bfloat16).tobytes()
        left, start = left - len(piece), 0


def write_clip(path: Path, seconds: float, rate: int = 16_000) -> None:
    """A tone that comes and goes over noise, 16 bit mono."""
    clock = np.arange(int(seconds * rate)) / rate
    sound = 0.3 * np.sin(2 * np.pi * 440 * clock) * (clock % 1.3 < 0.7) + 0.02 * np.random.default_rng(
        1
    ).standard_normal(len(clock))
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(rate)
        stream.writeframes((sound * 32767).astype("<i2").tobytes())


def _gigabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e9


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=tuple(LLMS), required=True)
    parser.add_argument("--precision", default="int4", help="of the export (default int4)")
    parser.add_argument("--out", required=True, help="a new folder, which is removed at the end")
    parser.add_argument("--layers", type=int, help="of the LLM, where fewer than the real number are wanted")
    parser.add_argument(
        "--level", action="append", help="of an answer, repeatable (default: full and keep25)"
    )
    parser.add_argument("--threads", type=int, help="of an answer (default: all cores)")
    parser.add_argument("--export-only", action="store_true", help="do not open and ask the bundle")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("options", nargs="*", help="further flags of `ltbm export`, after --")
    return parser


if __name__ == "__main__":
    sys.exit(main())
