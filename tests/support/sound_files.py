"""Sound files made for tests by ffmpeg and sox, which are not ours, and what ffmpeg reads of them."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("sox")),
    reason="ffmpeg and sox are not installed (Debian: apt-get install ffmpeg sox)",
)


def sweep(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    """[samples, channels] float64 between -0.6 and 0.6: a slow sweep, other in each channel."""
    time = np.arange(round(rate * seconds)) / rate
    tracks = []
    for channel in range(channels):
        frequency = 200 + 50 * channel
        phase = 2 * np.pi * (frequency * time + 60 * time**2)
        tracks.append(0.4 * np.sin(phase) + 0.2 * np.sin(2 * np.pi * 3.1 * frequency * time))
    return np.stack(tracks, axis=1)


def write_wav(path: Path, rate: int, seconds: float, channels: int = 1) -> Path:
    soundfile.write(path, sweep(rate, seconds, channels), rate, subtype="PCM_16")
    return path


def shell(command: str, folder: Path) -> None:
    subprocess.run(command, shell=True, cwd=folder, check=True, executable="/bin/bash", capture_output=True)


def ffmpeg_samples(path: Path, channels: int, rate: int | None = None) -> np.ndarray:
    """[samples, channels] float32 as ffmpeg decodes them, at the file's rate or another."""
    resample = [] if rate is None else ["-ar", str(rate)]
    command = ["ffmpeg", "-v", "error", "-i", str(path), *resample, "-f", "f32le", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.float32).reshape(-1, channels)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    length = min(len(first), len(second))
    return float(np.corrcoef(first[:length], second[:length])[0, 1])
