"""`ltbm build`."""

import argparse
import json
from dataclasses import asdict

from ..runtime.arguments import FormerName, UsageError, add_command

BUILD_DESCRIPTION = """\
Build the TensorRT engines of a bundle on the GPU that will run them, and keep them under
BUNDLE/engines. Engines are good for one GPU, TensorRT version, plugin and bundle; others are
named and never loaded. Minutes for each stage; --json prints what was built.

  ltbm build ./bundle --max-context 2048
  ltbm run ./bundle clip.wav --prompt 'What do you hear?' --backend tensorrt"""


def add_commands(commands) -> None:
    parser = add_command(
        commands,
        "build",
        run,
        "turn a bundle into TensorRT engines on this GPU",
        BUILD_DESCRIPTION,
    )
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    _add_limits(parser)
    _add_building(parser)
    parser.add_argument("--json", action="store_true", help="print one object instead of the table")


def _add_building(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stages",
        default="encoder,merge,decoder",
        metavar="LIST",
        help="which to build (default encoder,merge,decoder)",
    )
    parser.add_argument(
        "--workspace",
        type=float,
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
        type=int,
        metavar="N",
        help="segments of 30 s of one audio to make room for (default: what the model takes, at most 4)",
    )
    parser.add_argument(
        "--max-audio-windows",
        type=int,
        action=FormerName,
        dest="max_audio_segments",
        metavar="--max-audio-segments",
        help=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--max-context",
        type=int,
        metavar="N",
        help="most tokens of prompt and answer (default: the segments' tokens and 1024); fewer take less "
        "memory",
    )


def run(args) -> None:
    if args.workspace <= 0:
        raise UsageError(f"--workspace {args.workspace} is not above 0")
    from ..runtime.bundle import Bundle
    from .engine import build_engines

    stages = [stage.strip() for stage in args.stages.split(",") if stage.strip()]
    folder = build_engines(
        Bundle.open(args.bundle),
        stages,
        args.max_audio_segments,
        args.max_context,
        args.workspace,
        args.refresh,
    )
    if args.json:
        stages_built = {name: asdict(record) for name, record in folder.stages.items()}
        print(json.dumps({"path": str(folder.path), "key": asdict(folder.key), "stages": stages_built}))
        return
    print(f"engines  {folder.path}")
    for name, stage in folder.stages.items():
        print(f"{name:<9}{stage.size / 2**20:>10,.1f} MiB {stage.seconds:>8.1f} s")
