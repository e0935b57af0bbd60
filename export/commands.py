"""`ltbm export` and `ltbm parity`."""

import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from ..runtime.arguments import UsageError, add_answer_length_flag, add_command, whole
from ..runtime.levels import NAMED_RATIOS, parse_level
from ..runtime.request import DEFAULT_PROMPT
from .precision import ACCURACY_LEVELS, BLOCK_SIZES, ENCODER_PRECISIONS, FLOATS, PRECISIONS, TARGETS
from .progress import to_stderr

MISSING = "this command writes ONNX graphs: pip install 'ltbm[export]' ({})"
PARITY_MISSING = "parity needs torch and transformers: pip install 'ltbm[parity]' ({})"
EXPORT_LEVELS = ("full", "keep25")  # of the parity lines that end an export

EXPORT_DESCRIPTION = """\
Write a bundle: the audio encoder, the merge stage and the LLM as ONNX, with tokenizer and
manifest. The family (docs/families.md) is read from config.json. What it takes of
disk and memory is said first; it ends with a parity line per stage where torch is installed and
the PyTorch model fits in memory.

  ltbm export ./my-qwen2-audio ./bundle --precision int4                           # for a CPU
  ltbm export ./my-qwen2-audio ./bundle --precision int4 --activations float16   # for ONNX Runtime on a GPU
  ltbm export ./my-qwen2-audio ./bundle --precision int4 --target tensorrt   # for a Jetson or a GPU
  ltbm export ./my-qwen2-audio ./bundle --precision float16 --dry-run"""

PARITY_DESCRIPTION = """\
Compare every stage with PyTorch on one clip: largest absolute difference, equal merge plans,
equal greedy tokens. Exit code 1 if a line fails. Holds the PyTorch model in float32: four bytes a
weight, 33 GB for 7B.

  ltbm parity ./my-qwen2-audio ./bundle --level full --level keep25"""

CALIBRATE_DESCRIPTION = """\
Run clips like those the model will get, take the range of every channel of the KV cache, and
add a decoder that keeps it in int8: a quarter of float32's memory, chosen with --kv-cache int8.
ONNX Runtime on the CPU, 1.27 or newer. Values beyond the ranges saturate; `ltbm parity` and `ltbm
eval` tell what it costs.

  ltbm calibrate ./bundle --audio street.wav speech.flac"""


def add_commands(commands) -> None:
    _add_export(commands)
    _add_parity(commands)
    _add_calibrate(commands)


def _add_export(commands) -> None:
    export = add_command(
        commands,
        "export",
        run_export,
        "split a checkpoint into three engines",
        EXPORT_DESCRIPTION,
    )
    export.add_argument(
        "checkpoint",
        help="folder with config.json and safetensors, or a hub id such as Qwen/Qwen2-Audio-7B-Instruct",
    )
    export.add_argument("bundle", help="folder to write; it appears only when it is whole")
    _add_precision_flags(export)
    export.add_argument(
        "--lm-head-chunks",
        type=whole(),
        default=1,
        metavar="N",
        help="split the LM head into N products (default 1)",
    )
    export.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    export.add_argument(
        "--dry-run",
        action="store_true",
        help="say what the export takes of disk and memory, and write nothing",
    )
    export.add_argument(
        "--no-parity",
        action="store_true",
        help="skip the comparison with PyTorch, which loads the whole model in float32",
    )
    export.add_argument(
        "--json", action="store_true", help="print the parity lines (or the estimate) as JSON"
    )


def _add_precision_flags(parser) -> None:
    _add_types(parser)
    _add_quantisation(parser)


def _add_types(parser) -> None:
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the LLM's matrices (default float32); int4 and int8 are quantised in blocks, weights only; "
        "ONNX Runtime has no bfloat16 on the CPU",
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default="onnxruntime",
        help="what int4 is packed for (default onnxruntime); bundles of float types run on both",
    )
    parser.add_argument(
        "--activations",
        choices=FLOATS,
        help="of the LLM and its KV cache (default: the precision; under int8 and int4 float32, for CPUs; "
        "give float16 for GPUs)",
    )
    parser.add_argument(
        "--encoder-precision",
        choices=ENCODER_PRECISIONS,
        help="of the encoder and merge stages (default: the activations'); int8, for CPUs: the encoder's "
        "linear layers",
    )
    parser.add_argument(
        "--lm-head-precision",
        choices=PRECISIONS,
        help="of the LM head (default: the precision; int8 under int4, but int4 at accuracy level 0 or 1)",
    )


def _add_quantisation(parser) -> None:
    parser.add_argument(
        "--block-size",
        type=int,
        choices=BLOCK_SIZES,
        default=32,
        help="quantised weights that share a scale (default 32); 128 is faster on a CPU and coarser",
    )
    parser.add_argument(
        "--asymmetric", action="store_true", help="give every quantised block a zero point of its own"
    )
    parser.add_argument(
        "--accuracy-level",
        type=int,
        choices=ACCURACY_LEVELS,
        default=4,
        help="of ONNX Runtime's quantised products: 4 (default) rounds activations to int8, 0 and 1 "
        "multiply in float32, which int8 blocks cannot",
    )


def _add_parity(commands) -> None:
    parity = add_command(
        commands,
        "parity",
        run_parity,
        "hold a bundle against its PyTorch model",
        PARITY_DESCRIPTION,
    )
    parity.add_argument("checkpoint", help="the checkpoint that the bundle was exported from")
    parity.add_argument("bundle", help="folder that `ltbm export` wrote")
    parity.add_argument(
        "--level",
        action="append",
        metavar="LEVEL",
        help=f"repeatable (default: every one of {', '.join(NAMED_RATIOS)})",
    )
    parity.add_argument("--audio", metavar="FILE", help="a clip (default: a seeded one of 5 s)")
    add_answer_length_flag(parity, 8, "decode steps compared (default {})")
    parity.add_argument("--json", action="store_true", help="print the lines as JSON")


def run_export(args) -> int:
    try:
        from .writer import Export
    except ImportError as error:
        raise ImportError(MISSING.format(error)) from None
    from ..runtime.bundle import Bundle

    export = Export(
        args.checkpoint,
        args.precision,
        target=args.target,
        activations=args.activations,
        encoder_precision=args.encoder_precision,
        lm_head_precision=args.lm_head_precision,
        block_size=args.block_size,
        symmetric=not args.asymmetric,
        accuracy_level=args.accuracy_level,
        lm_head_chunks=args.lm_head_chunks,
    )
    needs = export.estimate(Path(args.bundle))
    if args.dry_run:
        print(json.dumps(asdict(needs)) if args.json else f"the bundle {needs}")
        return 0
    path = export.run(args.bundle, args.overwrite)
    print(f"bundle {path}", file=sys.stderr)
    if args.no_parity or not _torch_is_there() or not _fits(needs.parity_memory):
        return 0
    return _parity(export.checkpoint, Bundle.open(path), EXPORT_LEVELS, args.json)


def _torch_is_there() -> bool:
    """Whether what parity needs is installed; says so if not."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        advice = "pip install 'ltbm[parity]', then `ltbm parity`"
        print(f"no parity lines: no {' and no '.join(missing)} installed; {advice}", file=sys.stderr)
    return not missing


def _fits(size: int) -> bool:
    """Whether `size` bytes are free in memory; says so if not."""
    from ..runtime.machine import Machine, find_memory

    memory = find_memory(Machine())
    if memory is None or size <= memory.available:
        return True
    print(
        f"no parity lines: they take about {size / 1e9:,.1f} GB of memory, {memory.available / 1e9:,.1f} GB "
        "are free; run `ltbm parity` on a larger machine",
        file=sys.stderr,
    )
    return False


def run_parity(args) -> int:
    try:
        from ..runtime.bundle import Bundle
        from . import reference  # noqa: F401  it imports torch
        from .checkpoint import Checkpoint
    except ImportError as error:
        raise ImportError(PARITY_MISSING.format(error)) from None
    bundle = Bundle.open(args.bundle, verify=True)
    return _parity(
        Checkpoint.open(args.checkpoint),
        bundle,
        args.level or tuple(NAMED_RATIOS),
        args.json,
        audio=args.audio,
        max_new_tokens=args.max_new_tokens,
    )


def _parity(checkpoint, bundle, level_names, as_json: bool, audio: str | None = None, **options) -> int:
    """Print the lines; 1 if one failed."""
    from ..runtime.stages.audio import load_audio
    from .parity import check_parity

    try:
        levels = [parse_level(name) for name in level_names]
    except ValueError as error:
        raise UsageError(str(error)) from None
    waveform = None if audio is None else load_audio(audio, bundle.manifest.audio.sampling_rate)
    lines = check_parity(checkpoint, bundle, levels, waveform, report=None if as_json else print, **options)
    if as_json:
        print(json.dumps([asdict(line) | {"passed": line.passed} for line in lines]))
    failed = [line for line in lines if not line.passed]
    if failed:
        print(
            f"ltbm: parity failed in {len(failed)} of {len(lines)} lines, first: {failed[0].stage} "
            f"{failed[0].level}",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _add_calibrate(commands) -> None:
    parser = add_command(
        commands,
        "calibrate",
        run_calibrate,
        "add a decoder with an int8 KV cache to a bundle",
        CALIBRATE_DESCRIPTION,
    )
    parser.add_argument("bundle", help="folder that `ltbm export` wrote; the decoder is added to it")
    parser.add_argument(
        "--audio",
        nargs="+",
        required=True,
        metavar="CLIP",
        help="WAV, FLAC, OGG or MP3; a dozen varied clips are enough",
    )
    parser.add_argument(
        "--prompt",
        default=DEFAULT_PROMPT,
        metavar="TEXT",
        help=f"what is asked about each (default {DEFAULT_PROMPT!r})",
    )


def run_calibrate(args) -> None:
    try:
        from .kv_cache import add_int8_kv_cache
    except ImportError as error:
        raise ImportError(f"calibration writes ONNX graphs: pip install 'ltbm[export]' ({error})") from None
    print(add_int8_kv_cache(args.bundle, args.audio, args.prompt, to_stderr))
