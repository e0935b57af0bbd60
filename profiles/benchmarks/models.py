"""A random LLM with a real model's widths and few layers,
in the form that each runner of the decoder benchmark reads.

One checkpoint, quantised twice: by our export and by onnxruntime-genai's builder.
`same_weights` tells whether the
two came out equal.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle import DecoderSpec
from ...runtime.precision import Precision

# Of the published config.json files; fewer positions, which only shortens the rotary tables.
LLMS: dict[str, dict[str, Any]] = {
    "qwen2_audio": dict(
        num_hidden_layers=32,
        hidden_size=4096,
        num_attention_heads=32,
        num_key_value_heads=32,
        intermediate_size=11008,
        vocab_size=156032,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        rms_norm_eps=1e-5,
    ),
    "audioflamingo3": dict(
        num_hidden_layers=28,
        hidden_size=3584,
        num_attention_heads=28,
        num_key_value_heads=4,
        intermediate_size=18944,
        vocab_size=152064,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        rms_norm_eps=1e-6,
    ),
}
POSITIONS = 8192
PRECISION = Precision(
    encoder="float32",
    activations="float32",
    weights="int4",
    lm_head="int8",
    embeddings="float32",
    block_size=32,
    symmetric=True,
    accuracy_level=4,
)
"""What `ltbm export --precision int4` chooses, and what the builder is asked for."""
GENAI_OPTIONS = (
    "accuracy_level=4",
    "block_size=32",
    "is_symmetric=true",
    "matmul_mixed_precision=last_matmul:int8",
    "prune_lm_head=true",
)
"""Its lm_head reads only the last token, as ours does;
without prune_lm_head its prefill pays for all of them."""
SPEC_NAME = "spec.json"  # a DecoderSpec
FLAVOURS = ("gqa", "ort24", "std24")
EMBEDDING_ROWS = 4096  # copied at a time
RANDOM_VALUES = 1 << 22  # drawn once and repeated: drawing billions would take minutes


def make_models(folder: Path, text: dict, layers: tuple[int, ...], genai: bool, progress) -> None:
    """What `folder` lacks of: one checkpoint, and for each count of layers our graphs (ours.N)
    and genai's (genai.N)."""
    checkpoint = folder / "checkpoint"
    _refuse_others(checkpoint, text, max(layers))
    jobs = [(checkpoint, partial(write_checkpoint, text, max(layers)))]
    for count in layers:
        jobs.append((folder / f"ours.{count}", partial(write_ours, checkpoint, text, count)))
        if genai:
            jobs.append((folder / f"genai.{count}", partial(write_genai, checkpoint, count)))
    for out, write in jobs:
        if not out.is_dir():
            progress(f"writing {out.name}")
            _whole(out, write)


def _refuse_others(checkpoint: Path, text: dict, layers: int) -> None:
    """ValueError if an earlier run left the checkpoint of another LLM, or of fewer layers."""
    if not checkpoint.is_dir():
        return
    config = json.loads((checkpoint / "config.json").read_text())
    if config["num_hidden_layers"] < layers or any(
        config[name] != text[name] for name in ("hidden_size", "intermediate_size", "vocab_size")
    ):
        raise ValueError(
            f"{checkpoint} holds {config['num_hidden_layers']} layers of width {config['hidden_size']}, "
            f"wanted {layers} of width {text['hidden_size']}; give another folder"
        )


def _whole(out: Path, write) -> None:
    """Write a folder under another name first: what is there is whole."""
    scratch = out.with_name(f"{out.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    write(scratch)
    scratch.rename(out)


def decoder_spec(text: dict, layers: int) -> DecoderSpec:
    heads = text["num_attention_heads"]
    return DecoderSpec(
        layers=layers,
        hidden_size=text["hidden_size"],
        heads=heads,
        kv_heads=text["num_key_value_heads"],
        head_dim=text["hidden_size"] // heads,
        ffn=text["intermediate_size"],
        vocab_size=text["vocab_size"],
        max_positions=POSITIONS,
    )


def write_checkpoint(text: dict, layers: int, folder: Path) -> None:
    """A Qwen2ForCausalLM of random bfloat16 weights, a file a tensor, so that only one is in memory."""
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        **text
        | {
            "num_hidden_layers": layers,
            "architectures": ["Qwen2ForCausalLM"],
            "dtype": "bfloat16",
            "max_position_embeddings": POSITIONS,
            "tie_word_embeddings": False,
            "eos_token_id": 0,
        }
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Qwen2ForCausalLM(config).state_dict().items()}
    values = torch.randn(RANDOM_VALUES, generator=torch.Generator().manual_seed(0))
    files = {}
    for index, (name, shape) in enumerate(shapes.items()):
        files[name] = f"{name}.safetensors"
        save_file(
            {name: _random(values.roll(index * 7919), name, shape)},
            folder / files[name],
            metadata={"format": "pt"},
        )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def _random(values, name: str, shape):
    """Activations keep their size from layer to layer: matrices are scaled by the root of their width;
    norms stand near 1."""
    import torch

    size = shape.numel()
    tensor = values.repeat(-(-size // len(values)))[:size].reshape(shape)
    if name.endswith("norm.weight"):
        tensor = 1 + 0.1 * tensor
    elif "embed_tokens" not in name:
        tensor = tensor * shape[-1] ** -0.5
    return tensor.to(torch.bfloat16)


class _TextCheckpoint:
    """The text model's checkpoint under the names it has inside an audio-language model's."""

    def __init__(self, folder: Path):
        from ...export.checkpoint import Checkpoint

        self._inner = Checkpoint.open(folder)
        self.source = self._inner.source

    def __contains__(self, name: str) -> bool:
        return name.removeprefix("language_model.") in self._inner

    def take(self, name: str, use: str):
        return self._inner.take(name.removeprefix("language_model."), use)


def write_ours(checkpoint: Path, text: dict, layers: int, folder: Path) -> None:
    """The decoder's flavours over one weight file, as `ltbm export` writes them, embeddings.npy,
    and spec.json."""
    import onnx

    from ...export.decoder import decoder_graph
    from ...export.flavours import FLAVOURS as KNOWN
    from ...export.layouts import EMBEDDINGS
    from ...export.specification import LLMSpec
    from ...export.weights import HashedFile, WeightFile

    source = _TextCheckpoint(checkpoint)
    decoder = decoder_spec(text, layers)
    (folder / SPEC_NAME).write_text(json.dumps(asdict(decoder)))
    spec = LLMSpec(decoder, text["rope_parameters"]["rope_theta"], text["rms_norm_eps"], tied=False)
    with HashedFile(folder / "decoder.weights", lambda count, what: None) as file:
        weights = WeightFile(file.path.name, file)
        for flavour in FLAVOURS:
            onnx.save(
                decoder_graph(spec, source, PRECISION, weights, KNOWN[flavour]).model(),
                folder / f"decoder.{flavour}.onnx",
            )
    table = source.take(EMBEDDINGS, "embeddings")
    out = np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.uint16, table.shape)
    for start in range(0, table.shape[0], EMBEDDING_ROWS):
        rows = slice(start, start + EMBEDDING_ROWS)
        out[rows] = table[rows].view(np.uint16)
    out.flush()


def write_genai(checkpoint: Path, layers: int, folder: Path) -> None:
    """onnxruntime-genai's model folder, by its own builder;
    RuntimeError with the end of its log if it fails."""
    command = [
        sys.executable,
        "-m",
        "onnxruntime_genai.models.builder",
        "-i",
        str(checkpoint),
        "-o",
        str(folder),
        "-p",
        "int4",
        "-e",
        "cpu",
        "-c",
        str(folder.parent / "cache"),
        "--extra_options",
        *GENAI_OPTIONS,
        f"num_hidden_layers={layers}",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"onnxruntime-genai's builder ended with {done.returncode}: {done.stdout[-500:]}")


def same_weights(ours: Path, genai: Path) -> tuple[int, int]:
    """(how many of our quantised matrices' codes and scales the other graph has byte for byte,
    how many there are)."""
    mine, theirs = (_quantised_digests(path) for path in (ours, genai))
    return sum(digest in theirs for digest in mine), len(mine)


def _quantised_digests(path: Path) -> list[str]:
    """One of every MatMulNBits node: of its codes and scales, as they lie in the external data."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        hashlib.sha256(
            b"".join(_external_bytes(path.parent, tensors[name]) for name in node.input[1:3])
        ).hexdigest()
        for node in model.graph.node
        if node.op_type == "MatMulNBits"
    ]


def _external_bytes(folder: Path, tensor) -> bytes:
    at = {entry.key: entry.value for entry in tensor.external_data}
    if not at:
        return tensor.raw_data
    return np.fromfile(
        folder / at["location"], np.uint8, int(at["length"]), offset=int(at["offset"])
    ).tobytes()


def weight_bytes(path: Path) -> int:
    """Bytes of the graph's external weights, less the rotary tables, of which a token reads one row."""
    import onnx

    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return sum(
        int(entry.value)
        for tensor in tensors
        if not tensor.name.startswith("rope.")
        for entry in tensor.external_data
        if entry.key == "length"
    )


def operations(text: dict, layers: int, tokens: int) -> float:
    """Of a prefill's matrix products, a multiplication and its addition being two.

    What follows the last layer's attention is counted for one token: no other is needed.
    """
    width = text["hidden_size"]
    kv_width = text["hidden_size"] // text["num_attention_heads"] * text["num_key_value_heads"]
    qkv = width * (width + 2 * kv_width)
    rest = width * width + 3 * width * text["intermediate_size"]
    attention = layers * width * tokens  # of one token: scores and sums, causal, so half of each
    return 2.0 * (
        tokens * (layers * qkv + (layers - 1) * rest + attention) + rest + width * text["vocab_size"]
    )
