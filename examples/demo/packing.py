"""A checkpoint of 9 MB: the encoder's matrices in 8 bits, the rest in 16; unpacked, it is a stock one.

`python -m ltbm.demo.packing DIR` writes the shipped model as transformers reads it.
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .tensors import read_tensors, write_tensors

MODEL = Path(__file__).parent / "model"  # what ships

PACKED = "packed.safetensors"
STOCK = "model.safetensors"
AUDIO_TOWER = "audio_tower."  # what the names of the encoder's weights hold
SCALE = ".scale"  # what the name of an 8 bit weight's scales ends with
POSITIONS = "embed_positions.weight"  # sinusoids: made anew
ENCODER_POSITIONS, ENCODER_WIDTH = 1500, 384  # of tiny and tiny.en
SINUSOID_BASE = 10_000.0  # longest wavelength, in positions over 2 pi
STEPS = 127  # of an 8 bit weight to either side


def pack(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The encoder's matrices and convolutions as int8, a float32 scale for each row; the rest as float16."""
    packed = {}
    for name, value in weights.items():
        if AUDIO_TOWER not in name or value.ndim < 2:
            packed[name] = value.astype(np.float16)
        elif not name.endswith(POSITIONS):
            packed[name], packed[name + SCALE] = _rounded(value.astype(np.float32))
    return packed


def unpack(packed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The float32 weights that `pack` stands for, the encoder's positions among them."""
    weights = {}
    for name, value in packed.items():
        if name.endswith(SCALE):
            continue
        weights[name] = value.astype(np.float32)
        if name + SCALE in packed:
            weights[name] *= packed[name + SCALE].reshape(-1, *[1] * (value.ndim - 1))
        if name.endswith("conv1.weight"):
            weights[name.replace("conv1.weight", POSITIONS)] = sinusoids(ENCODER_POSITIONS, ENCODER_WIDTH)
    return weights


def unpack_checkpoint(packed: Path, out: Path) -> Path:
    """Writes the stock checkpoint, which transformers and `ltbm export` read, of a packed one."""
    out.mkdir(parents=True, exist_ok=True)
    for file in packed.iterdir():
        if file.name != PACKED:
            shutil.copy(file, out / file.name)
    write_tensors(out / STOCK, unpack(read_tensors(packed / PACKED)))
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the shipped model as a stock checkpoint of 40 MB.")
    parser.add_argument("out", type=Path, help="folder of the checkpoint")
    print(unpack_checkpoint(MODEL, parser.parse_args().out))


if __name__ == "__main__":
    main()
