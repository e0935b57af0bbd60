"""`ltbm profile` and `ltbm compare`."""

import argparse
import json
import sys
from pathlib import Path

from ...runtime.arguments import (
    Parser,
    UsageError,
    add_answer_length_flag,
    add_backend_flags,
    add_command,
    add_long_audio_flag,
    add_mode_flags,
    former_name_note,
    whole,
)
from ...runtime.backends.opening import check_device
from ...runtime.levels import NAMED_RATIOS
from ...runtime.request import DEFAULT_PROMPT
from ..quality.variants import METHODS

PROFILE_DESCRIPTION = """\
Measure time, memory and fidelity of every level on your clips, each level in processes of its own, and
write profile.json, table.md, table.csv and report.html (one page, to be opened in a browser).
Ctrl-C leaves a report of what was measured so far.

  ltbm profile ./bundle --audio street.wav dog.flac --levels full,keep50,keep25"""

COMPARE_DESCRIPTION = """\
Two profiles of `ltbm profile` side by side: levels that both have, or one level of each; ratios,
and whether a difference is beyond the spreads. What else differs (machine, versions, clips) comes
first.

  ltbm compare before/profile.json after/profile.json
  ltbm compare orin/profile.json orin/profile.json --levels full,keep25"""


def add_commands(commands) -> None:
    _add_profile(commands)
    _add_compare(commands)


def _add_profile(commands) -> None:
    parser = add_command(
        commands,
        "profile",
        run_profile,
        "measure what every level costs on your clips and device",
        PROFILE_DESCRIPTION,
    )
    parser.add_argument("bundle", nargs="?", help="folder that `ltbm export` wrote")
    _add_what_to_profile(parser)
    add_mode_flags(parser)
    add_backend_flags(parser)
    _add_requests(parser)
    _add_measuring(parser)
    _add_output(parser)
    parser.add_argument("--op", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)  # `ltbm bench op` now


def _add_what_to_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audio",
        nargs="+",
        default=[],
        metavar="CLIP",
        help="WAV, FLAC, OGG or MP3; each is a request of its own",
    )
    parser.add_argument("--levels", type=_names, metavar="A,B", help=f"default: {','.join(NAMED_RATIOS)}")
    parser.add_argument(
        "--methods",
        type=_names,
        metavar="A,B",
        help=f"default: {','.join(METHODS)}; times for ltbm and global, fidelity for all",
    )


def _add_requests(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prompt",
        default=DEFAULT_PROMPT,
        metavar="TEXT",
        help=f"what to ask about every clip (default {DEFAULT_PROMPT!r})",
    )
    add_answer_length_flag(parser, 32)
    add_long_audio_flag(parser)


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--turns",
        type=whole(),
        default=2,
        metavar="N",
        help="processes of each level, in turn with the others' (default 2)",
    )
    parser.add_argument(
        "--repeats",
        type=whole(),
        default=5,
        metavar="N",
        help="measured rounds over the clips in each process (default 5)",
    )
    parser.add_argument(
        "--warmup", type=whole(0), default=1, metavar="N", help="rounds before them (default 1)"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quality",
        type=Path,
        metavar="FILE",
        help="results.json of `ltbm eval`, to plot quality against time",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the report goes (default ./profile-BUNDLE-DATE)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the profile as one object instead of the table"
    )


def run_profile(args) -> int:
    if args.op is not None:
        return _run_former_op(args.op)
    from .profiler import profile
    from .records import FailedRow
    from .report import default_folder, markdown, read_quality, write_report

    options = _profile_options(args)
    quality = read_quality(args.quality) if args.quality else None
    out = args.out or default_folder(args.bundle)
    print(f"the report grows in {out}", file=sys.stderr)
    result = profile(
        args.bundle,
        options,
        lambda line: print(line, file=sys.stderr),
        lambda so_far: write_report(out, so_far, quality),
    )
    print((out / "profile.json").read_text() if args.json else markdown(result), end="")
    print(f"open {out / 'report.html'} in a browser", file=sys.stderr)
    return 1 if any(isinstance(row, FailedRow) for row in result.rows) else 0


def _run_former_op(flags: list[str]) -> int:
    """`ltbm profile --op FLAGS`, which is `ltbm bench op FLAGS` now."""
    from ..benchmarks.op import run
    from ..benchmarks.op_flags import add_arguments

    former_name_note("ltbm profile --op", "ltbm bench op")
    parser = Parser(prog="ltbm bench op")
    add_arguments(parser)
    run(parser.parse_args(flags))
    return 0


def _profile_options(args):
    from .options import LEVELS, Options

    if not args.bundle:
        raise UsageError("name a bundle: ltbm profile ./bundle --audio clip.wav")
    same = (
        "positions",
        "attention",
        "backend",
        "threads",
        "low_memory",
        "kv_cache",
        "packed",
        "native_products",
        "prompt",
        "max_new_tokens",
        "long_audio",
        "turns",
        "repeats",
        "warmup",
    )
    try:
        options = Options(
            tuple(args.audio),
            tuple(args.levels or LEVELS),
            tuple(args.methods or METHODS),
            device=check_device(args.backend, args.device),
            **{name: getattr(args, name) for name in same},
        )
        options.check()
    except ValueError as error:
        raise UsageError(str(error)) from None
    return options


def _add_compare(commands) -> None:
    parser = add_command(
        commands,
        "compare",
        run_compare,
        "set two profiles side by side",
        COMPARE_DESCRIPTION,
    )
    parser.add_argument("a", help="profile.json, or the folder it is in")
    parser.add_argument("b", help="the other one")
    parser.add_argument(
        "--levels", type=_names, metavar="A,B", help="compare level A of the first with level B of the second"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the output there too")
    parser.add_argument("--json", action="store_true", help="print one object instead of the table")


def run_compare(args) -> None:
    from ...runtime.files import as_utf8, write_whole
    from .compare import compare, markdown
    from .report import read_profile

    if args.levels and len(args.levels) != 2:
        raise UsageError(f"--levels takes two levels, one of each profile; got {','.join(args.levels)}")
    comparison = compare(read_profile(args.a), read_profile(args.b), args.levels)
    text = json.dumps(comparison.to_json()) + "\n" if args.json else markdown(comparison)
    if args.out:
        write_whole(args.out, as_utf8(text))
    print(text, end="")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("give at least one name")
    return names
