"""`ltbm bench listen`."""

import argparse
import json
import sys
from pathlib import Path

from ....runtime.arguments import UsageError, level_from
from ....runtime.backends.opening import check_device
from ....runtime.files import write_whole
from ....runtime.levels import Budget
from .bench import ListenResult, benchmark
from .options import Options
from .table import markdown


def run(args: argparse.Namespace) -> None:
    """Measure what the flags ask for and print the table; UsageError for what cannot be measured."""
    options = options_from(args)

    def write(so_far: ListenResult) -> None:
        if args.json:
            write_whole(args.json, json.dumps(so_far.to_json(), indent=1).encode())

    result = benchmark(args.bundle, options, lambda line: print(line, file=sys.stderr), write)
    print(markdown(result), end="")


def options_from(args: argparse.Namespace) -> Options:
    level = level_from(args)
    if isinstance(level, Budget):
        raise UsageError(
            "a budget of audio tokens needs the sound's length, which listening does not know: give --level"
        )
    if args.low_memory:
        raise UsageError("listening needs the encoder and the LLM side by side: leave out --low-memory")
    same = (
        "ends",
        "seconds",
        "seed",
        "real_time",
        "prompt",
        "max_new_tokens",
        "backend",
        "threads",
        "kv_cache",
        "packed",
        "native_products",
    )
    try:
        return Options(
            clips=tuple(args.audio or _demo_clips()),
            level=level.name.removeprefix("ratio"),
            window=level.window,
            positions=level.positions,
            attention=level.attention,
            approaches=tuple(args.approaches),
            device=check_device(args.backend, args.device),
            command=tuple(sys.argv),
            **{name: getattr(args, name) for name in same},
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _demo_clips() -> list[str]:
    from ltbm.demo.commands import CLIPS

    return sorted(map(str, Path(CLIPS).glob("*.flac")))
