"""What comes of a checkpoint or a bundle one of whose files is damaged: it works, or one clear line says why.

Allowed is success, ValueError, OSError or KeyError in one line; not another error, a crash, a hang, or
memory beyond use. What safetensors itself refuses must be refused.
"""

import json
import os
import resource
import shutil
import signal
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.support.damaged_files import damage_header, damage_json, damage_template

HANG_SECONDS = 10  # of the process, however busy the machine is; or
STUCK_SECONDS = 120  # of the clock
MOST_BYTES = 100 << 20  # beyond what the process had before; the whole checkpoint has half a megabyte
CLIP = (0.3 * np.sin(np.arange(16_000) / 9)).astype(np.float32)
FILES = {  # of each kind of folder, with what damages them
    "checkpoint": {
        "config.json": damage_json,
        "generation_config.json": damage_json,
        "preprocessor_config.json": damage_json,
        "processor_config.json": damage_json,
        "tokenizer_config.json": damage_json,
        "tokenizer.json": damage_json,
        "chat_template.jinja": damage_template,
        "model.safetensors": damage_header,
    },
    "bundle": {
        "manifest.json": damage_json,
        "tokenizer.json": damage_json,
        "chat_template.jinja": damage_template,
    },
}
FAILED = "FAILED"  # how an outcome begins that is not allowed


class Hang(BaseException):
    """An export or a run took longer than HANG_SECONDS or STUCK_SECONDS."""


def make_whole(folder: Path) -> None:
    """checkpoint and bundle, of a tiny model, in `folder`."""
    from ltbm.export.writer import export_bundle
    from tests.support.tiny import make_checkpoint

    checkpoint = make_checkpoint(folder / "checkpoint", "qwen2_audio")
    export_bundle(checkpoint, folder / "bundle", progress=lambda line: None)


def damageable(whole: Path) -> list[tuple[str, str]]:
    """(kind, name) of every file that is there to be damaged."""
    pairs = [(kind, name) for kind, files in FILES.items() for name in files]
    return [(kind, name) for kind, name in pairs if (whole / kind / name).is_file()]


def outcome_of(whole: Path, kind: str, name: str, data: bytes, shows: bool = False) -> str:
    """What the folder `kind` of `whole` gives with `data` as its file `name`: works, refused, FAILED and why.

    shows: print the traceback of a failure
    """
    with tempfile.TemporaryDirectory(dir=whole) as scratch:
        damaged = shutil.copytree(whole / kind, Path(scratch) / kind, copy_function=os.link)
        _replace(damaged / name, data)
        if kind == "bundle" and name != "manifest.json":
            _record(damaged, name)
        before = _peak_bytes()
        outcome = _attempt(damaged, kind, Path(scratch) / "out", shows)
        grown = _peak_bytes() - before
        if grown > MOST_BYTES:
            return f"{FAILED}: {grown >> 20} MiB"
        if outcome == "works" and name == "model.safetensors":
            return _as_safetensors(damaged / name)
        return outcome


def _attempt(damaged: Path, kind: str, out: Path, shows: bool) -> str:
    try:
        with _alarm():
            run_bundle(damaged if kind == "bundle" else export_checkpoint(damaged, out))
    except (ValueError, OSError, KeyError) as error:
        text = str(error).strip()
        is_line = " " in text and "\n" not in text  # a bare key says nothing
        return "refused" if is_line else f"{FAILED}: not one line: {text!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of tokenizers is no Exception
        where = traceback.extract_tb(error.__traceback__)[-1]
        if shows:
            traceback.print_exc()
        place = f"{Path(where.filename).name}:{where.lineno}"
        return f"{FAILED}: {type(error).__name__} {str(error)[:120]!r} at {place}"
    return "works"


def export_checkpoint(checkpoint: Path, out: Path) -> Path:
    from ltbm.export.writer import export_bundle

    return export_bundle(checkpoint, out, progress=lambda line: None)


def run_bundle(bundle: Path) -> None:
    from ltbm.runtime.session import Session

    with Session.open(bundle, threads=1) as session:
        session.generate(CLIP, "what ?", "keep25", max_new_tokens=2)


@contextmanager
def _alarm():
    """Hang is raised in a block that takes too long."""
    former = [signal.signal(number, _hang) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
    signal.alarm(STUCK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), former):
            signal.signal(number, handler)


def _hang(*_) -> None:
    raise Hang


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _replace(path: Path, data: bytes) -> None:
    """A file of its own in place of the link to the whole one."""
    path.unlink()
    path.write_bytes(data)


def _record(bundle: Path, name: str) -> None:
    """Write the damaged file's size into the manifest, so that it is looked at."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][name]["size"] = (bundle / name).stat().st_size
    _replace(bundle / "manifest.json", json.dumps(manifest).encode())


def _as_safetensors(path: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            return "works"
    except SafetensorError as error:
        return f"{FAILED}: exported what safetensors refuses: {error}"
