"""The five commands that write much, the folder that they work in, and what of their files is whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import soundfile

from ltbm.profiles.latency.report import read_profile
from ltbm.profiles.quality.predict import ANSWERS, SETTINGS, read_answers, read_settings
from ltbm.runtime.backends.engine_store import stored
from ltbm.runtime.bundle import Bundle
from tests.support.kills import Killed

REPORT_ENDS = {"profile.json": "}", "table.md": "\n", "table.csv": "\n", "report.html": "</html>\n"}
ITEMS = 3
VARIANTS = 3  # full, and two methods at keep25


def prepare(folder: Path, checkpoint: Path, bundle: Path) -> Path:
    """`folder` with all that the commands need."""
    shutil.copytree(checkpoint, folder / "checkpoint")
    shutil.copytree(bundle, folder / "bundle")
    write_clip(folder, 9)
    items = [{"id": str(number), "audio": "clip.wav", "references": ["a dog"]} for number in range(ITEMS)]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)) + "\n")
    return folder


def write_clip(folder: Path, period: float) -> None:
    """A clip of 2 s, other than that of another period (samples a radian)."""
    soundfile.write(folder / "clip.wav", 0.3 * np.sin(np.arange(32_000) / period), 16_000)


def _check_export(folder: Path) -> None:
    if (folder / "out").exists():
        Bundle.open(folder / "out", verify=True)


def _whole_bundle(folder: Path) -> Bundle:
    return Bundle.open(folder / "bundle", verify=True)


def _are_engines_built(folder: Path) -> bool:
    (engines,) = stored(_whole_bundle(folder))
    return sorted(engines.stages) == ["decoder", "encoder", "merge"] and not engines.damage()


def _is_calibrated(folder: Path) -> bool:
    return "decoder.gqa8.onnx" in _whole_bundle(folder).manifest.files


def _check_report(folder: Path) -> list[str]:
    """The names of the files that are there."""
    names = [name for name in REPORT_ENDS if (folder / "report" / name).exists()]
    for name in names:
        assert (folder / "report" / name).read_text().endswith(REPORT_ENDS[name]), f"{name} is cut"
    if "profile.json" in names:
        read_profile(folder / "report")
    return names


def _count_answers(folder: Path) -> int:
    answers = folder / "answers"
    if (answers / SETTINGS).exists():
        read_settings(answers)
    return len(read_answers(answers / ANSWERS)[0]) if (answers / ANSWERS).exists() else 0


COMMANDS = {
    "export": Killed(
        ("export", "{0}/checkpoint", "{0}/out", "--overwrite", "--no-parity"),
        _check_export,
        lambda folder: (folder / "out").is_dir(),
    ),
    "build": Killed(("build", "{0}/bundle", "--refresh"), _whole_bundle, _are_engines_built),
    "calibrate": Killed(
        ("calibrate", "{0}/bundle", "--audio", "{0}/clip.wav"),
        _whole_bundle,
        _is_calibrated,
    ),
    "profile": Killed(
        ("profile", "{0}/bundle", "--audio", "{0}/clip.wav", "--levels", "keep25", "--methods", "ltbm")
        + ("--turns", "1", "--repeats", "1", "--warmup", "0", "--max-new-tokens", "2", "--threads", "1")
        + ("--out", "{0}/report"),
        _check_report,
        lambda folder: _check_report(folder) == list(REPORT_ENDS),
    ),
    "eval": Killed(
        ("eval", "caption", "{0}/bundle", "--manifest", "{0}/items.jsonl", "--out", "{0}/answers")
        + ("--levels", "full,keep25", "--methods", "ltbm,pool", "--max-new-tokens", "2", "--threads", "1"),
        _count_answers,
        lambda folder: _count_answers(folder) == ITEMS * VARIANTS,
    ),
}
