"""`ltbm build`."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..runtime.arguments import FormerName, UsageError, add_command, finite, whole
from ..runtime.backends.trt_library import TENSORRT, TENSORRT_RTX

if TYPE_CHECKING:
    from ..runtime.bundle import Bundle

BUILD_DESCRIPTION = """\
Build the TensorRT engines of a bundle and keep them under BUNDLE/engines. With the backend tensorrt
on the GPU that will run them: they are good for one GPU, TensorRT version, plugin and bundle. With
tensorrt-rtx on any machine, for RTX GPUs of the compute capabilities given; their kernels are
compiled on the GPU when an engine is first loaded. Others are named and never loaded. Minutes for
each stage; --json prints what was built.

  ltbm build ./bundle --max-context 2048
  ltbm run ./bundle clip.wav --prompt 'What do you hear?' --backend tensorrt
  ltbm build ./bundle --backend tensorrt-rtx --gpu sm89,sm120 --level keep25"""


def add_commands(commands) -> None:
    parser = add_command(
        commands,
        "build",
        run,
        "turn a bundle into TensorRT engines",
        BUILD_DESCRIPTION,
    )
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    _add_limits(parser)
    _add_building(parser)
    parser.add_argument("--json", action="store_true", help="print one object instead of the table")


def _add_building(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=(TENSORRT, TENSORRT_RTX),
        default=TENSORRT,
        help="what will run the engines (default tensorrt)",
    )
    parser.add_argument(
        "--gpu",
        type=_names,
        metavar="LIST",
        help="compute capabilities for tensorrt-rtx, such as sm86,sm89,sm120 (default: all it knows)",
    )
    parser.add_argument(
        "--stages",
        type=_names,
        metavar="LIST",
        help="which to build, of encoder,merge,decoder; for tensorrt-rtx of encoder,projector,decoder "
        "(default: all)",
    )
    parser.add_argument(
        "--workspace",
        type=finite(above=True),
        default=1.0,
        metavar="GIB",
        help="scratch memory for choosing kernels (default 1)",
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="build again what is there, and delete engines this machine can no longer load",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """What the engines are built for."""
    parser.add_argument(
        "--max-audio-segments",
        type=whole(),
        metavar="N",
        help="segments of 30 s of one audio to make room for (default: what the model takes, at most 4)",
    )
    parser.add_argument(
        "--max-audio-windows",
        type=whole(),
        action=FormerName,
        dest="max_audio_segments",
        metavar="--max-audio-segments",
        help=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--max-context",
        type=whole(),
        metavar="N",
        help="most tokens of prompt and answer (default: the segments' tokens and 1024), for which the KV "
        "cache takes memory in every request",
    )
    parser.add_argument(
        "--level",
        metavar="LEVEL",
        help="the highest level that will be asked for, such as keep25: the default of --max-context "
        "follows it (default full)",
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _context_of(args, bundle: "Bundle") -> int | None:
    """Tokens of prompt and answer, as given or at --level; None where neither was given."""
    if args.max_context is not None or args.level is None:
        return args.max_context
    from ..runtime.backends.shape_ranges import context_at
    from ..runtime.levels import parse_level

    try:
        level = parse_level(args.level)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return context_at(bundle.manifest, level, args.max_audio_segments)


def run(args) -> None:
    from ..runtime.bundle import Bundle
    from .engine import build_engines

    bundle = Bundle.open(args.bundle)
    folder = build_engines(
        bundle,
        args.stages,
        args.max_audio_segments,
        _context_of(args, bundle),
        args.workspace,
        args.refresh,
        backend=args.backend,
        capabilities=args.gpu,
    )
    if args.json:
        stages_built = {name: asdict(record) for name, record in folder.stages.items()}
        print(json.dumps({"path": str(folder.path), "key": asdict(folder.key), "stages": stages_built}))
        return
    print(f"engines  {folder.path}")
    for name, stage in folder.stages.items():
        print(f"{name:<9}{stage.size / 2**20:>10,.1f} MiB {stage.seconds:>8.1f} s")
