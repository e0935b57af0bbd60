"""An int8 KV cache for ONNX Runtime: the gqa decoder once more,
with a scale per channel measured on clips."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..runtime.backends.flavours import GQA_HEAD_MULTIPLE
from ..runtime.backends.opening import decoder_flavour
from ..runtime.bundle import MANIFEST_NAME, Bundle, FileRecord, Manifest
from ..runtime.files import file_sha256, write_whole
from ..runtime.levels import parse_level
from ..runtime.pipeline import Pipeline
from ..runtime.prompt import Turn
from ..runtime.stages.kv_cache import bucket
from ..runtime.stages.splice import Prefix
from .progress import Progress

SOURCE_FLAVOUR = decoder_flavour("onnxruntime", "cpu")
FLAVOUR = decoder_flavour("onnxruntime", "cpu", kv_cache="int8")
LEVELS = ("full", "keep25")  # run for the ranges: merged tokens are averages, single ones are not
STEPS = 16  # answer tokens run after each prompt
LARGEST = 127  # int8 codes are symmetric
TINY = 1e-6  # a channel that never moves still needs a scale
SCALE_INPUTS = {"key": 12, "value": 13}  # GroupQueryAttention's k_scale and v_scale


def add_int8_kv_cache(path, clips: Sequence, prompt: str, progress: Progress) -> Path:
    """Add the decoder with an int8 KV cache to the bundle at `path`; its file.

    clips: paths or arrays at the model's rate, like those the model will get:
        values beyond their range saturate
    Raises ValueError for a bundle without the gqa decoder, or one whose cache is not float.
    """
    bundle = Bundle.open(path)
    if SOURCE_FLAVOUR not in bundle.manifest.flavours:
        raise ValueError(
            f"{path} has no {SOURCE_FLAVOUR} decoder, the only one that takes an int8 cache: for weights not "
            f"packed for TensorRT, and heads of a multiple of {GQA_HEAD_MULTIPLE} values, this model's have "
            f"{bundle.manifest.decoder.head_dim}; it has {', '.join(bundle.manifest.flavours)}"
        )
    ranges = measure_ranges(path, clips, prompt, progress)
    out = bundle.path / f"decoder.{FLAVOUR}.onnx"
    model = with_int8_cache(
        onnx.load(bundle.file(f"decoder.{SOURCE_FLAVOUR}.onnx"), load_external_data=False), ranges
    )
    former = _without_int8_cache(bundle.manifest)
    _write_manifest(bundle, former)  # so that a kill from here on leaves a bundle without such a decoder
    write_whole(out, model.SerializeToString())
    _write_manifest(bundle, _with_int8_cache(former, out))
    return out


def measure_ranges(path, clips: Sequence, prompt: str, progress: Progress) -> dict[str, np.ndarray]:
    """The largest magnitude [KV, head_dim] of each cache, "{layer}.key" and "{layer}.value",
    over clips and levels."""
    ranges: dict[str, np.ndarray] = {}
    with Pipeline.open(path) as pipeline:
        for number, clip in enumerate(clips, 1):
            audios = pipeline.segments(clip)
            encoded = [pipeline.encode(audio) for audio in audios]
            turns = [Turn("user", prompt, len(audios))]
            for level in LEVELS:
                layout = pipeline.lay_out(turns, audios, parse_level(level), STEPS)
                merged = [pipeline.merge(rows, layout.level) for rows in encoded]
                for name, largest in _ranges_of(pipeline, pipeline.prefix(layout, merged)).items():
                    ranges[name] = np.maximum(ranges.get(name, 0.0), largest)
            progress(f"  clip {number} of {len(clips)} measured")
    return ranges


def _ranges_of(pipeline: Pipeline, prefix: Prefix) -> dict[str, np.ndarray]:
    """Of the prefix and STEPS tokens after it, whether or not the answer has ended."""
    decoder = pipeline.decoder(bucket(len(prefix) + STEPS))
    pipeline.decode(decoder, [prefix], STEPS + 1, end_token_ids=())
    used = int(decoder.cache.lengths[0])
    ranges = {}
    for name, array in decoder.cache.arrays(1).items():
        if name.startswith("past."):
            values = np.asarray(array)[0, :, :used].astype(np.float32)
            ranges[name.removeprefix("past.")] = largest_magnitudes(values, rotated=name.endswith("key"))
    return ranges


def largest_magnitudes(values: np.ndarray, rotated: bool) -> np.ndarray:
    """[KV, head_dim] of values [KV, tokens, head_dim]; of rotated keys whatever angle a token stands at.

    Rotary positions turn channel i against channel i + head_dim / 2:
    the length of the pair is what does not depend on the position.
    """
    if not rotated:
        return np.abs(values).max(axis=1)
    first, second = np.split(values, 2, axis=-1)
    pairs = np.hypot(first, second).max(axis=1)
    return np.concatenate([pairs, pairs], axis=-1)


def with_int8_cache(model: onnx.ModelProto, ranges: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The gqa decoder with past and present in int8, scales [1, KV, 1, head_dim] inside."""
    for value in (*model.graph.input, *model.graph.output):
        if value.name.startswith(("past.", "present.")):
            value.type.tensor_type.elem_type = TensorProto.INT8
    nodes = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    for layer, node in enumerate(nodes):
        for part, place in SCALE_INPUTS.items():
            scale = np.maximum(ranges[f"{layer}.{part}"], TINY).astype(np.float32)[
                None, :, None
            ] / np.float32(LARGEST)
            name = f"kv_scale.{layer}.{part}"
            model.graph.initializer.append(numpy_helper.from_array(scale, name))
            node.input.extend([""] * (place + 1 - len(node.input)))
            node.input[place] = name
        node.attribute.extend(
            [
                helper.make_attribute("k_quant_type", "PER_CHANNEL"),
                helper.make_attribute("v_quant_type", "PER_CHANNEL"),
                helper.make_attribute("kv_cache_bit_width", 8),
            ]
        )
    return model


def _without_int8_cache(manifest: Manifest) -> Manifest:
    """The manifest as it was before `ltbm calibrate`."""
    name = f"decoder.{FLAVOUR}"
    files = {file: record for file, record in manifest.files.items() if file != f"{name}.onnx"}
    opsets = {graph: opset for graph, opset in manifest.opsets.items() if graph != name}
    flavours = tuple(flavour for flavour in manifest.flavours if flavour != FLAVOUR)
    return replace(manifest, files=files, flavours=flavours, opsets=opsets)


def _with_int8_cache(manifest: Manifest, out: Path) -> Manifest:
    """The manifest that names the new file."""
    files = manifest.files | {out.name: FileRecord(file_sha256(out), out.stat().st_size)}
    opsets = manifest.opsets | {out.stem: manifest.opsets[f"decoder.{SOURCE_FLAVOUR}"]}
    flavours = (*manifest.flavours, FLAVOUR)
    return replace(manifest, files=dict(sorted(files.items())), flavours=flavours, opsets=opsets)


def _write_manifest(bundle: Bundle, manifest: Manifest) -> None:
    write_whole(bundle.path / MANIFEST_NAME, manifest.to_json().encode())
