"""Damage the files of a checkpoint and of a bundle at random, export and run: it works, or one clear line.

Outside the test suite, for as long as you like: python tests/fuzz_files.py --inputs 5000 --seed 1
Allowed is success, ValueError or OSError in one line; not another error, a crash, 10 s, or memory beyond use.
Each batch runs in a process of its own. What safetensors itself refuses must be refused.
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, for tests.support

import numpy as np

from tests.support.damaged_files import damage_bytes, damage_header, damage_json

BATCH = 100
HANG_SECONDS = 10
MOST_BYTES = 500 << 20  # beyond what the batch's process had when all was loaded
CLIP = (0.3 * np.sin(np.arange(16_000) / 9)).astype(np.float32)
CHECKPOINT_FILES = {
    "config.json": damage_json,
    "generation_config.json": damage_json,
    "preprocessor_config.json": damage_json,
    "processor_config.json": damage_json,
    "tokenizer_config.json": damage_json,
    "tokenizer.json": damage_json,
    "chat_template.jinja": damage_bytes,
    "model.safetensors": damage_header,
}
BUNDLE_FILES = {
    "manifest.json": damage_json,
    "tokenizer.json": damage_json,
    "chat_template.jinja": damage_bytes,
}


class Hang(BaseException):
    """An export or a run took longer than HANG_SECONDS."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1000, metavar="N", help="damaged folders to try")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--file", help="damage this file alone")
    parser.add_argument("--traceback", action="store_true", help="print that of every failure")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        make_whole(Path(folder))
        for batch in range(-(-args.inputs // BATCH)):
            counts.update(run_batch(Path(folder), args.seed * 1_000_000 + batch, args.file, args.traceback))
    failures = sum(count for outcome, count in counts.items() if "FAILED" in outcome)
    for outcome, count in sorted(counts.items()):
        print(f"{count:8} {outcome}")
    print(f"{sum(counts.values())} inputs, {failures} failures, {time.monotonic() - start:.0f} s")
    return 1 if failures else 0


def make_whole(folder: Path) -> None:
    """checkpoint and bundle, of a tiny model."""
    process = multiprocessing.Process(target=_make_whole, args=(folder,))
    process.start()
    process.join()


def _make_whole(folder: Path) -> None:
    from ltbm.export.writer import export_bundle
    from tests.support.tiny import make_checkpoint

    checkpoint = make_checkpoint(folder / "checkpoint", "qwen2_audio")
    export_bundle(checkpoint, folder / "bundle", progress=lambda line: None)


def run_batch(folder: Path, seed: int, only: str | None, shows: bool) -> Counter[str]:
    """The outcomes of one batch; a crash of its process is a failure."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=try_batch, args=(folder, seed, only, shows, sender))
    process.start()
    sender.close()
    try:
        outcomes = receiver.recv()
    except EOFError:
        outcomes = Counter({f"FAILED: the process ended, batch {seed}": 1})
    process.join()
    return outcomes


def try_batch(folder: Path, seed: int, only: str | None, shows: bool, sender) -> None:
    chance = random.Random(seed)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _hang)
    run_bundle(folder / "bundle")  # everything is loaded before memory is counted
    export_checkpoint(folder / "checkpoint", folder / f"out{seed}")
    outcomes: Counter[str] = Counter()
    for index in range(BATCH):
        kind, files = chance.choice((("checkpoint", CHECKPOINT_FILES), ("bundle", BUNDLE_FILES)))
        names = [name for name in files if only in (None, name) and (folder / kind / name).is_file()]
        if not names:
            continue
        name = chance.choice(names)
        outcome = try_one(folder, kind, name, files[name], chance, shows)
        if "FAILED" in outcome:
            outcome += f" (batch {seed}, input {index})"
        outcomes[f"{kind}/{name}: {outcome}"] += 1
    sender.send(outcomes)


def try_one(folder: Path, kind: str, name: str, damage, chance: random.Random, shows: bool) -> str:
    """What exporting or running the folder with one damaged file gives."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        damaged = shutil.copytree(folder / kind, Path(scratch) / kind)
        (damaged / name).write_bytes(damage((damaged / name).read_bytes(), chance))
        if kind == "bundle":
            _record(damaged, name)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.alarm(HANG_SECONDS)
        outcome = "works"
        try:
            run_bundle(damaged) if kind == "bundle" else export_checkpoint(damaged, Path(scratch) / "out")
        except (ValueError, OSError) as error:
            outcome = "refused" if str(error).strip() else "FAILED: no message"
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            outcome = f"FAILED: {type(error).__name__} {str(error)[:120]!r} at {place}"
            if shows:
                traceback.print_exc()
        finally:
            signal.alarm(0)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        if grown > MOST_BYTES:
            return f"FAILED: {grown >> 20} MiB"
        if outcome == "works" and name == "model.safetensors":
            return _as_safetensors(damaged / name)
        return outcome


def _hang(*_) -> None:
    raise Hang


def _record(bundle: Path, name: str) -> None:
    """Write the damaged file's size into the manifest, so that it is looked at."""
    if name == "manifest.json":
        return
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][name]["size"] = (bundle / name).stat().st_size
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def export_checkpoint(checkpoint: Path, out: Path) -> None:
    from ltbm.export.writer import export_bundle

    run_bundle(export_bundle(checkpoint, out, progress=lambda line: None))


def run_bundle(bundle: Path) -> None:
    from ltbm.runtime.session import Session

    with Session.open(bundle, threads=1) as session:
        session.generate(CLIP, "what ?", "keep25", max_new_tokens=2)


def _as_safetensors(path: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            return "works"
    except SafetensorError as error:
        return f"FAILED: exported what safetensors refuses: {error}"


if __name__ == "__main__":
    sys.exit(main())
