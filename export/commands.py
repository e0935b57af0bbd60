"""`ltbm export` and `ltbm parity`."""

import json
import sys
from dataclasses import asdict

from ltbm.runtime.cli import UsageError, add_command
from ltbm.runtime.levels import NAMED_RATIOS, parse_level

MISSING = "this command needs torch and transformers: pip install 'ltbm[export]' ({})"
EXPORT_LEVELS = ("full", "keep25")  # of the parity lines that end an export


def add_commands(commands) -> None:
    export = add_command(commands, "export", run_export, "split a checkpoint into three engines", (
        "Write a bundle: the audio encoder, the merge stage and the LLM as ONNX, with tokenizer and manifest.\n"
        "The family (Qwen2-Audio, Audio Flamingo 3) is read from config.json. Ends with a parity line per stage.\n\n"
        "  ltbm export ./my-qwen2-audio ./bundle --precision float16"))
    export.add_argument("checkpoint", help="folder with config.json and safetensors, or a hub id such as Qwen/Qwen2-Audio-7B-Instruct")
    export.add_argument("bundle", help="folder to write; it appears only when it is whole")
    export.add_argument("--precision", choices=("float32", "float16"), default="float32",
                        help="of weights, matrix products and KV cache (default float32)")
    export.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    export.add_argument("--no-parity", action="store_true", help="skip the comparison with PyTorch, which loads the whole model in float32")
    export.add_argument("--json", action="store_true", help="print the parity lines as JSON")
    parity = add_command(commands, "parity", run_parity, "hold a bundle against its PyTorch model", (
        "Compare every stage with PyTorch on one clip: largest absolute difference, equal merge plans, equal greedy tokens.\n"
        "Exit code 1 if a line fails.\n\n"
        "  ltbm parity ./my-qwen2-audio ./bundle --level full --level keep25"))
    parity.add_argument("checkpoint", help="the checkpoint that the bundle was exported from")
    parity.add_argument("bundle")
    parity.add_argument("--level", action="append", metavar="LEVEL", help=f"repeatable (default: every one of {', '.join(NAMED_RATIOS)})")
    parity.add_argument("--audio", metavar="FILE", help="a clip (default: a seeded one of 5 s)")
    parity.add_argument("--max-new-tokens", type=int, default=8, metavar="N", help="decode steps compared (default 8)")
    parity.add_argument("--json", action="store_true", help="print the lines as JSON")


def run_export(args) -> int:
    try:
        from ltbm.export.checkpoint import Checkpoint
        from ltbm.export.writer import export_bundle
        from ltbm.runtime.bundle import Bundle
    except ImportError as error:
        raise ImportError(MISSING.format(error)) from None
    path = export_bundle(args.checkpoint, args.bundle, args.precision, args.overwrite)
    print(f"bundle {path}", file=sys.stderr)
    if args.no_parity:
        return 0
    return _parity(Checkpoint.open(args.checkpoint), Bundle.open(path), EXPORT_LEVELS, args.json)


def run_parity(args) -> int:
    try:
        from ltbm.export.checkpoint import Checkpoint
        from ltbm.runtime.bundle import Bundle
    except ImportError as error:
        raise ImportError(MISSING.format(error)) from None
    if args.max_new_tokens < 1:
        raise UsageError(f"--max-new-tokens {args.max_new_tokens} is below 1")
    bundle = Bundle.open(args.bundle, verify=True)
    return _parity(Checkpoint.open(args.checkpoint), bundle, args.level or tuple(NAMED_RATIOS), args.json,
                   audio=args.audio, max_new_tokens=args.max_new_tokens)


def _parity(checkpoint, bundle, level_names, as_json: bool, audio: str | None = None, **options) -> int:
    """Print the lines; 1 if one failed."""
    from ltbm.export.parity import check_parity
    from ltbm.runtime.audio import load_audio

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
        print(f"ltbm: parity failed in {len(failed)} of {len(lines)} lines, first: {failed[0].stage} {failed[0].level}", file=sys.stderr)
    return 1 if failed else 0
