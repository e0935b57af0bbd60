"""The estimate for this machine held against what a profile of the same request measures."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...runtime.bundle import Bundle
from ...runtime.levels import NAMED_RATIOS, Level
from ..latency.options import Options
from ..latency.profiler import profile
from ..latency.records import FailedRow, Row
from .estimate import Estimate, Request, estimate
from .model import model_of_bundle
from .rates import measured_rates

TURNS, REPEATS = 2, 5
BUSY = 1.0  # load average: one core taken
MIB = 2**20


@dataclass(frozen=True)
class Checked:
    """One quantity at one level; measured is a median, of memory the peak."""

    level: str
    quantity: str
    unit: str
    estimated: float
    measured: float

    @property
    def error(self) -> float:
        """Share of the measured value by which the estimate is above it."""
        return self.estimated / self.measured - 1


def check(
    path,
    levels: Sequence[str],
    audio_seconds: float,
    max_new_tokens: int,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Checked]:
    """Encoder, prefill, TPOT and peak memory of every level, estimated and measured.

    The machine's rates are taken before and after the profile and averaged,
    because what else runs on it changes.
    """
    bundle = Bundle.open(path)
    model = model_of_bundle(bundle)
    load = os.getloadavg()[0]
    if load >= BUSY:
        progress(f"load average {load:.1f} before anything is measured: what else runs here will disturb it")
    progress("rates of this machine")
    before = measured_rates(model, threads)
    rows = _measure(bundle, levels, audio_seconds, max_new_tokens, threads, progress)
    progress("the rates again")
    rates = (before, measured_rates(model, threads))
    lines = []
    for row in rows:
        request = Request(audio_seconds, row.prompt_tokens - row.tokens_out, max_new_tokens)
        level = Level(row.level, NAMED_RATIOS[row.level])
        estimates = [_quantities(estimate(model, one, request, level)) for one in rates]
        lines += _checked_lines(row, estimates)
    return lines


def _checked_lines(row: Row, estimates: Sequence[dict[str, float]]) -> list[Checked]:
    """One level's quantities; the estimate is the mean over the rates before and after."""
    measured = {name: row.figures[name].p50 for name in ("encoder", "prefill", "tpot")}
    measured["memory"] = row.memory.peak / MIB
    lines = []
    for name, value in measured.items():
        estimated = float(np.mean([one[name] for one in estimates]))
        lines.append(Checked(row.level, name, "MiB" if name == "memory" else "ms", estimated, value))
    return lines


def _quantities(estimated: Estimate) -> dict[str, float]:
    """What of an estimate can be measured."""
    return {
        "encoder": estimated.encoder,
        "prefill": estimated.prefill,
        "tpot": estimated.tpot,
        "memory": estimated.memory.total / MIB,
    }


def _measure(
    bundle: Bundle, levels: Sequence[str], seconds: float, max_new_tokens: int, threads: int | None, progress
) -> list[Row]:
    """The rows of a profile of one synthetic clip; RuntimeError where a level failed or gave no token to
    time."""
    with TemporaryDirectory(prefix="ltbm-plan-") as folder:
        clip = _write_clip(Path(folder) / "clip.wav", seconds, bundle.manifest.audio.sampling_rate)
        options = Options(
            clips=(str(clip),),
            levels=tuple(levels),
            methods=("ltbm",),
            threads=threads,
            max_new_tokens=max_new_tokens,
            long_audio="segments",
            turns=TURNS,
            repeats=REPEATS,
        )
        rows = profile(bundle.path, options, progress).rows
    return [_checked_row(row) for row in rows]


def _checked_row(row: Row | FailedRow) -> Row:
    if isinstance(row, FailedRow):
        raise RuntimeError(f"{row.level}: {row.error}")
    if "tpot" not in row.figures:
        raise RuntimeError(
            f"{row.level}: the model ends its answer at the first token, so no decode step can be timed; "
            "give another --audio-seconds"
        )
    return row


def _write_clip(path: Path, seconds: float, rate: int) -> Path:
    """Seeded noise under a slow envelope: its content does not matter to the times."""
    import soundfile

    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(
        path,
        0.1 * np.random.default_rng(0).standard_normal(len(time)) * (1 + np.sin(2 * np.pi * time / 3)) / 2,
        rate,
    )
    return path
