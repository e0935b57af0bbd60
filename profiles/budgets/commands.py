"""`ltbm plan`."""

import argparse
import json
import sys
from dataclasses import asdict

from ...runtime.arguments import (
    UsageError,
    add_answer_length_flag,
    add_command,
    add_threads_flag,
    finite,
    whole,
)
from ...runtime.levels import NAMED_RATIOS

CHECK_LEVELS = ("full", "keep25")
COLUMNS = (
    "level",
    "audio tokens",
    "TTFT ms",
    "encoder",
    "prefill",
    "TPOT ms",
    "KV MiB",
    "memory GiB",
    "fits",
    "longest audio s",
)

PLAN_DESCRIPTION = """\
Estimate, from counted bytes and operations, whether a model fits a device, and its times and
memory per level; and choose the level for a limit. MODEL is a bundle, a checkpoint folder or a
hub id (only its config is read). --check holds the estimate for this machine against a
measurement.

  ltbm plan Qwen/Qwen2-Audio-7B-Instruct --device orin-nano-8gb --ttft-ms 800
  ltbm plan ./bundle --device cpu --audio-seconds 10
  ltbm plan ./bundle --check"""


def add_commands(commands) -> None:
    parser = add_command(
        commands,
        "plan",
        run_plan,
        "estimate what a model costs on a device",
        PLAN_DESCRIPTION,
    )
    _add_what_to_plan(parser)
    _add_request(parser)
    _add_limits(parser)
    parser.add_argument("--json", action="store_true", help="print one object instead of the table")


def _add_what_to_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a bundle, or a folder with config.json, or a hub id")
    parser.add_argument("--device", metavar="NAME", help="see --devices; cpu is this machine, measured now")
    parser.add_argument(
        "--devices", action="store_true", help="print every device's figures and where they are from"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="measure the bundle on this machine's CPU and print the estimate's errors",
    )
    parser.add_argument(
        "--levels",
        type=_levels,
        metavar="A,B",
        help=f"default: {','.join(NAMED_RATIOS)} (with --check: {','.join(CHECK_LEVELS)})",
    )
    parser.add_argument(
        "--precision",
        metavar="P",
        help="of the LLM's weights, for a checkpoint: float32, float16, bfloat16, int8, int4 (default)",
    )


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audio-seconds",
        type=finite(above=True),
        default=30.0,
        metavar="S",
        help="length of the clip (default 30)",
    )
    parser.add_argument(
        "--text-tokens",
        type=whole(),
        default=30,
        metavar="N",
        help="the prompt's tokens beside the audio (default 30)",
    )
    add_answer_length_flag(parser, 64)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ttft-ms", type=finite(above=True), metavar="MS", help="choose the level whose TTFT is at most this"
    )
    parser.add_argument(
        "--memory-gib",
        type=finite(above=True),
        metavar="GIB",
        help="and whose memory is at most this (default: the device's)",
    )
    add_threads_flag(parser, "CPU threads of one stage, for cpu and --check (default: all cores)")


def run_plan(args) -> int:
    if args.devices:
        return _print_devices(args.json)
    if args.model is None:
        raise UsageError("name a bundle or a checkpoint, or give --devices to see the devices there are")
    return _check(args) if args.check else _plan(args)


def _plan(args) -> int:
    from .device import device_names
    from .estimate import Request
    from .plan import THIS_MACHINE, make_plan

    names = (*device_names(), THIS_MACHINE)
    if args.device not in names:
        raise UsageError(f"--device {args.device or 'is missing'}: devices are {', '.join(names)}")
    plan = make_plan(
        args.model,
        args.device,
        args.levels or tuple(NAMED_RATIOS),
        Request(args.audio_seconds, args.text_tokens, args.max_new_tokens),
        args.precision,
        args.ttft_ms,
        args.memory_gib,
        args.threads,
    )
    if args.json:
        print(json.dumps(asdict(plan) | {"estimate": True}))
        return 0
    request = plan.request
    print(
        f"estimate  {plan.model}\nprecision {plan.precision}\ndevice    {plan.device}\n"
        f"request   {request.audio_seconds:g} s of audio, {request.text_tokens} text tokens, up to "
        f"{request.max_new_tokens} new tokens\n"
    )
    print_table(COLUMNS, [_row(one) for one in plan.estimates])
    first = plan.estimates[0].memory
    print(
        f"\nmemory    {_gib(first.weights)} GiB of weights, {_gib(first.runtime)} of runtime, "
        f"{_gib(plan.rates.usable)} usable; "
        f"'low-memory' fits with --low-memory ({_gib(first.low_memory)} GiB at {plan.estimates[0].level})"
    )
    print(
        f"choose    {plan.chosen or 'none'}: {plan.reason}\nfrom      {plan.basis}\nnot in it {plan.missing}"
    )
    return 0


def _row(one) -> tuple[str, ...]:
    return (
        one.level,
        str(one.tokens_out),
        f"{one.ttft:.0f}",
        f"{one.encoder:.0f}",
        f"{one.prefill:.0f}",
        f"{one.tpot:.1f}",
        f"{one.memory.kv_cache / 2**20:.0f}",
        _gib(one.memory.total),
        one.fits,
        f"{one.longest_audio} ({one.limited_by})",
    )


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f}"


def _check(args) -> int:
    from .check import check

    lines = check(
        args.model,
        args.levels or CHECK_LEVELS,
        args.audio_seconds,
        args.max_new_tokens,
        args.threads,
        progress=lambda line: print(line, file=sys.stderr),
    )
    if args.json:
        print(json.dumps([asdict(line) | {"error": line.error} for line in lines]))
        return 0
    print_table(
        ("level", "quantity", "unit", "estimated", "measured", "error"),
        [
            (
                line.level,
                line.quantity,
                line.unit,
                f"{line.estimated:.1f}",
                f"{line.measured:.1f}",
                f"{line.error:+.0%}",
            )
            for line in lines
        ],
    )
    return 0


def _print_devices(as_json: bool) -> int:
    from .device import device_names, load_device

    devices = {name: asdict(load_device(name)) for name in device_names()}
    if as_json:
        print(json.dumps(devices))
        return 0
    for name, facts in devices.items():
        print(f"{name}: {facts.pop('title')}; CPU {facts.pop('cpu')}")
        for key, figure in facts.items():
            print(f"  {key:<22}{figure['value']:>8g}  {figure['source']} ({figure['checked']})")
    return 0


def print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    for row in (header, *rows):
        print(
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
            )
        )


def _levels(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in NAMED_RATIOS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"unknown {', '.join(unknown) or 'levels: none given'}; levels are {', '.join(NAMED_RATIOS)}"
        )
    return names
