"""The flags that subcommands of `ltbm` share, and the error for a flag that makes no sense."""

import argparse
import sys

from .backends.opening import BACKENDS
from .levels import ATTENTION, DEFAULT_LEVEL, NAMED_RATIOS, POSITIONS, Budget, Level, level_of_parts
from .presets import choose
from .sampling import Sampling


class UsageError(ValueError):
    """A flag whose value makes no sense: exit code 2."""


def add_command(
    commands, name: str, run, help: str, description: str | None = None
) -> argparse.ArgumentParser:
    """A subcommand `name` whose work is `run(args)`; `--debug` is taken after it too."""
    parser = commands.add_parser(
        name, help=help, description=description or help, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)
    return parser


class FormerName(argparse.Action):
    """A flag under the name it had in the version before: it works, and says what it is called now."""

    def __call__(self, parser, namespace, values, option_string=None):
        former_name_note(str(option_string), self.metavar if isinstance(self.metavar, str) else self.dest)
        setattr(namespace, self.dest, values)


def former_name_note(old: str, new: str) -> None:
    """One line on stderr: `old` still works and is `new` now."""
    print(f"ltbm: {old} is now {new}; the former goes with the next version", file=sys.stderr)


def add_level_flags(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """--level, --keep-ratio, --audio-tokens, and those of `add_mode_flags`; `level_from` reads them.

    default: the level where none is given, if it is not DEFAULT_LEVEL
    """
    parser.add_argument(
        "--level",
        default=default,
        metavar="LEVEL",
        help=f"audio tokens kept: {', '.join(NAMED_RATIOS)}, or a share like 0.3 "
        f"(default {default or DEFAULT_LEVEL})",
    )
    parser.add_argument(
        "--keep-ratio", metavar="R", help="the same as a share in (0, 1], such as 0.3 or 3/10"
    )
    parser.add_argument(
        "--audio-tokens",
        type=int,
        metavar="N",
        help="a budget of audio tokens instead of a level (rounded up per segment of 30 s)",
    )
    parser.add_argument(
        "--window",
        default="auto",
        metavar="W",
        help="how far apart merged tokens may stand: auto, global or a number of encoder tokens (40 ms each)",
    )
    add_mode_flags(parser)


def add_mode_flags(parser: argparse.ArgumentParser) -> None:
    """How the LLM sees merged tokens: --positions and --attention."""
    parser.add_argument(
        "--positions",
        choices=POSITIONS,
        default="original",
        help="leave merged tokens at their position on the time axis (default), or close the gaps",
    )
    parser.add_argument(
        "--attention",
        choices=ATTENTION,
        default="proportional",
        help="weigh a merged token as many as it holds (default), or as one",
    )


def level_from(args: argparse.Namespace) -> Level | Budget:
    """What the flags of `add_level_flags` say, and --task where the command has it."""
    try:
        level = choose(args.level, getattr(args, "task", None))
        return level_of_parts(
            level, args.keep_ratio, args.audio_tokens, args.window, args.positions, args.attention
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def add_long_audio_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--long-audio",
        type=_long_audio,
        default="error",
        metavar="{error,segments}",
        help="audio longer than the model takes: refuse it (default), or take it as several audios",
    )


def _long_audio(choice: str) -> str:
    if choice == "windows":
        former_name_note("--long-audio windows", "--long-audio segments")
        return "segments"
    if choice not in ("error", "segments"):
        raise argparse.ArgumentTypeError(f"invalid choice: {choice!r} (choose from 'error', 'segments')")
    return choice


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """How a token is drawn; `sampling_from` reads them."""
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest tokens (0: all)"
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw among the likeliest tokens that sum to P"
    )
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1 repeats less"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="make sampling repeatable")


def sampling_from(args: argparse.Namespace) -> Sampling:
    try:
        return Sampling(args.temperature, args.top_k, args.top_p, args.repetition_penalty, args.seed)
    except ValueError as error:
        raise UsageError(str(error)) from None


def add_backend_flags(parser: argparse.ArgumentParser) -> None:
    """Where the engines run and what they hold; `session_options` reads them."""
    parser.add_argument(
        "--backend", default="onnxruntime", choices=tuple(BACKENDS), help="what runs the engines"
    )
    parser.add_argument(
        "--device",
        choices=sorted(_devices()),
        help="where they run: of onnxruntime cpu (default), cuda or tensorrt; of tensorrt cuda",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of one stage (default: all cores)"
    )
    parser.add_argument(
        "--kv-cache",
        choices=("int8",),
        help="a quarter of the memory, for bundles that `ltbm calibrate` prepared (CPU)",
    )
    parser.add_argument(
        "--low-memory",
        action="store_true",
        help="load the encoder and the LLM in turn, never both: slower, for small devices",
    )


def _devices() -> set[str]:
    return set().union(*(backend.devices for backend in BACKENDS.values()))


def session_options(args: argparse.Namespace) -> dict:
    """The flags of `add_backend_flags` as the keyword arguments of `Session.open`."""
    names = ("backend", "device", "threads", "low_memory", "kv_cache")
    return {name: getattr(args, name) for name in names}
