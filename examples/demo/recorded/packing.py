"""A checkpoint of 10 MB: the ear's matrices in 8 bits, the rest in 16; unpacked, it is a stock one."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

PACKED = "packed.safetensors"
STOCK = "model.safetensors"
EAR = "audio_tower."  # what the names of the ear's weights hold
SCALE = ".scale"  # what the name of an 8 bit weight's scales ends with
POSITIONS = "embed_positions.weight"  # sinusoids: made anew
EAR_POSITIONS, EAR_WIDTH = 1500, 384  # of tiny and tiny.en
SINUSOID_BASE = 10_000.0  # longest wavelength, in positions over 2 pi
STEPS = 127  # of an 8 bit weight to either side


def pack(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The ear's matrices and convolutions as int8 with a float32 scale for each row, the rest as float16."""
    packed = {}
    for name, value in weights.items():
        if EAR not in name or value.ndim < 2:
            packed[name] = value.astype(np.float16)
        elif not name.endswith(POSITIONS):
            packed[name], packed[name + SCALE] = _rounded(value.astype(np.float32))
    return packed


def unpack(packed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The float32 weights that `pack` stands for, the ear's positions among them."""
    weights = {}
    for name, value in packed.items():
        if name.endswith(SCALE):
            continue
        weights[name] = value.astype(np.float32)
        if name + SCALE in packed:
            weights[name] *= packed[name + SCALE].reshape(-1, *[1] * (value.ndim - 1))
        if name.endswith("conv1.weight"):
            weights[name.replace("conv1.weight", POSITIONS)] = sinusoids(EAR_POSITIONS, EAR_WIDTH)
    return weights


def unpack_checkpoint(packed: Path, out: Path) -> Path:
    """Writes the stock checkpoint, which transformers and `ltbm export` read, of a packed one."""
    from safetensors.numpy import load_file, save_file

    out.mkdir(parents=True, exist_ok=True)
    for file in packed.iterdir():
        if file.name != PACKED:
            shutil.copy(file, out / file.name)
    save_file(unpack(load_file(packed / PACKED)), out / STOCK, metadata={"format": "pt"})
    return out


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Whisper's position table [positions, width]: sines, then cosines, their wavelengths geometric."""
    rates = SINUSOID_BASE ** (-np.arange(width // 2) / (width // 2 - 1))
    angles = np.arange(positions)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _rounded(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 steps of the value's shape and the step [rows] of each row."""
    scale = np.abs(value).reshape(len(value), -1).max(axis=1) / STEPS
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    steps = np.round(value / scale.reshape(-1, *[1] * (value.ndim - 1)))
    return steps.astype(np.int8), scale.astype(np.float32)
