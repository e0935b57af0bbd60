"""The flags that subcommands of `ltbm` share, and the error for a flag that makes no sense."""

import argparse
import math
import sys
from collections.abc import Callable

from .backends.opening import BACKENDS, KV_CACHES
from .levels import (
    DEFAULT_LEVEL,
    MOST_AUDIO_TOKENS,
    NAMED_RATIOS,
    POSITIONS,
    Budget,
    Level,
    bias_strength,
    level_of_parts,
)
from .numbers import LARGEST_SEED, MOST, check_finite, check_whole, finite_words, most_threads, whole_words
from .presets import TASKS, choose
from .sampling import HIGHEST_TEMPERATURE, REPETITION_PENALTIES, Sampling

OF_BUNDLE = f"the bundle's: {DEFAULT_LEVEL}, or full where the model only transcribes"
"""The default level, in words."""


class UsageError(ValueError):
    """A flag whose value makes no sense: exit code 2."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others of `ltbm`."""

    def error(self, message: str):
        raise UsageError(f"{message.removeprefix('argument ')}; see {self.prog} --help")


def whole(low: int = 1, high: int = MOST) -> Callable[[str], int]:
    """The `type` of a flag that takes a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            return check_whole(text, int(text), low, high)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text} is not {whole_words(low, high)}") from None

    return parse


def finite(low: float = 0.0, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """The `type` of a flag that takes a finite number from `low` to `high`; above: but not `low` itself."""

    def parse(text: str) -> float:
        try:
            return check_finite(text, float(text), low, high, above=above)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text} is not {finite_words(low, high, above)}") from None

    return parse


def add_threads_flag(parser, help: str, default: int | None = None) -> None:
    parser.add_argument("--threads", type=whole(1, most_threads()), default=default, metavar="N", help=help)


def add_answer_length_flag(parser, default: int, help: str = "longest answer (default {})") -> None:
    parser.add_argument(
        "--max-new-tokens", type=whole(), default=default, metavar="N", help=help.format(default)
    )


def add_language_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language",
        default="",
        metavar="CODE",
        help="of the speech, such as en, for models that only transcribe (default: they say it themselves)",
    )


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


def add_task_flag(parser: argparse.ArgumentParser) -> None:
    """--task, which `level_from` reads where no level is given."""
    levels = ", ".join(f"{name} {task.level}" for name, task in TASKS.items())
    parser.add_argument(
        "--task", choices=tuple(TASKS), help=f"choose the level by what was measured: {levels}"
    )


def add_level_flags(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """--level, --keep-ratio, --audio-tokens, and those of `add_mode_flags`; `level_from` reads them.

    default: the level where none is given, if it is not the bundle's own
    """
    parser.add_argument(
        "--level",
        default=default,
        metavar="LEVEL",
        help=f"audio tokens kept: {', '.join(NAMED_RATIOS)}, or a share like 0.3 "
        f"(default {default or OF_BUNDLE})",
    )
    parser.add_argument(
        "--keep-ratio", metavar="R", help="the same as a share in (0, 1], such as 0.3 or 3/10"
    )
    parser.add_argument(
        "--audio-tokens",
        type=whole(1, MOST_AUDIO_TOKENS),
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
        type=attention,
        metavar="{proportional,plain,S}",
        default="proportional",
        help="weigh a merged token as many as it holds (default), as one, or by S times log(size)",
    )


def attention(text: str) -> str:
    """The `type` of --attention."""
    try:
        bias_strength(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def level_from(args: argparse.Namespace, default: str = DEFAULT_LEVEL) -> Level | Budget:
    """What the flags of `add_level_flags` say, and --task where the command has it, else the default."""
    try:
        level = choose(args.level, getattr(args, "task", None), default)
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
    parser.add_argument(
        "--temperature",
        type=finite(0, HIGHEST_TEMPERATURE),
        default=0.0,
        metavar="T",
        help="0 is greedy (default)",
    )
    parser.add_argument(
        "--top-k", type=whole(0), default=0, metavar="K", help="draw among the K likeliest tokens (0: all)"
    )
    parser.add_argument(
        "--top-p",
        type=finite(0, 1, above=True),
        default=1.0,
        metavar="P",
        help="draw among the likeliest tokens that sum to P (default 1: all)",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=finite(*REPETITION_PENALTIES),
        default=1.0,
        metavar="X",
        help="above 1 repeats less (default 1)",
    )
    parser.add_argument("--seed", type=whole(0, LARGEST_SEED), metavar="S", help="make sampling repeatable")


def sampling_from(args: argparse.Namespace) -> Sampling:
    try:
        return Sampling(args.temperature, args.top_k, args.top_p, args.repetition_penalty, args.seed)
    except ValueError as error:
        raise UsageError(f"--{error}") from None


def add_backend_flags(parser: argparse.ArgumentParser) -> None:
    """Where the engines run and what they hold; `session_options` reads them."""
    parser.add_argument(
        "--backend",
        default="onnxruntime",
        choices=tuple(BACKENDS),
        help="what runs the engines (default onnxruntime)",
    )
    parser.add_argument(
        "--device",
        choices=sorted(_devices()),
        help="where they run: of onnxruntime cpu (default), cuda or tensorrt; of the others cuda",
    )
    add_threads_flag(parser, "CPU threads of one stage (default: all cores)")
    parser.add_argument(
        "--kv-cache",
        choices=KV_CACHES,
        help="of another type than the activations, which is the default (CPU): float16 takes half of "
        "float32's memory, int8 a quarter, for bundles that `ltbm calibrate` prepared",
    )
    parser.add_argument(
        "--low-memory",
        action="store_true",
        help="load the encoder and the LLM in turn, never both: slower, for small devices",
    )
    parser.add_argument(
        "--no-packed",
        dest="packed",
        action="store_false",
        help="leave the weights that `ltbm pack` packed: pack anew in memory",
    )
    parser.add_argument(
        "--no-native-products",
        dest="native_products",
        action="store_false",
        help="multiply int4 and int8 weights by ONNX Runtime's own op on the CPU: slower, more memory",
    )


def _devices() -> set[str]:
    return set().union(*(backend.devices for backend in BACKENDS.values()))


def session_options(args: argparse.Namespace) -> dict:
    """The flags of `add_backend_flags` as the keyword arguments of `Session.open`."""
    names = ("backend", "device", "threads", "low_memory", "kv_cache", "packed", "native_products")
    return {name: getattr(args, name) for name in names}
