"""The one `ltbm` command; each package's commands.py adds its subcommands."""

import argparse
import io
import os
import signal
import sys
import warnings

from .arguments import Parser, UsageError
from .sound.messages import AudioWarning

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXTRAS = {  # of pyproject.toml: what brings a package, as it is imported
    "export": ("onnx", "ml_dtypes"),
    "parity": ("torch", "transformers", "optimum", "safetensors", "huggingface_hub"),
    "report": ("matplotlib", "scipy"),
    "serve": ("starlette", "uvicorn", "multipart", "prometheus_client"),
}
EXPECTED_ERRORS = (  # printed as one line; others are errors of ours and keep their traceback
    ValueError,
    KeyError,
    TypeError,
    OSError,
    RuntimeError,
    MemoryError,
    ImportError,
    NotImplementedError,
)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; 0 on success, 1 on failure, 2 on wrong usage, with one line on stderr."""
    parser = build_parser()
    _escape_what_cannot_be_shown()
    try:
        args = parser.parse_args(argv)
    except UsageError as error:
        print(f"ltbm: {one_line(error)}", file=sys.stderr)
        return EXIT_USAGE
    former = signal.signal(signal.SIGTERM, _terminated)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning(warnings.showwarning)
            return args.run(args) or 0
    except KeyboardInterrupt:
        print("ltbm: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except EXPECTED_ERRORS as error:
        if args.debug:
            raise
        print(f"ltbm: {_what_is_wrong(error)}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE
    finally:
        signal.signal(signal.SIGTERM, former)


def _escape_what_cannot_be_shown() -> None:
    """Names of files are any bytes, and a terminal's encoding may lack letters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _show_warning(others):
    """Warnings about sound in one line, as errors are; `others` shows all other warnings."""

    def show(message, category, *details, **options):
        if issubclass(category, AudioWarning):
            print(f"ltbm: {message}", file=sys.stderr)
        else:
            others(message, category, *details, **options)

    return show


def _terminated(number, frame) -> None:
    """End as Ctrl-C does, so that no half-written file and no process stays behind."""
    sys.exit(128 + number)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ltbm",
        description=(
            "Audio-language models at the edge: split a checkpoint into three engines, merge audio tokens, "
            "answer about sound."
        ),
        epilog="Start with `ltbm demo`. Every command teaches its flags with --help.",
    )
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for module in _command_modules():
        module.add_commands(commands)
    return parser


def _command_modules() -> tuple:
    """Each adds its subcommands and imports what they need only when they run."""
    from ltbm.demo import commands as demo

    from ..export import build_commands, pack_commands
    from ..export import commands as export
    from ..profiles.benchmarks import commands as benchmarks
    from ..profiles.budgets import commands as budgets
    from ..profiles.latency import commands as latency
    from ..profiles.quality import commands as quality
    from . import commands as runtime
    from .listen import commands as listen
    from .serve import commands as serve

    return (
        runtime,
        listen,
        serve,
        export,
        build_commands,
        pack_commands,
        latency,
        quality,
        budgets,
        benchmarks,
        demo,
    )


class VersionAction(argparse.Action):
    """Looks the version up only when asked."""

    def __init__(self, option_strings, dest, **_):
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser, *_):
        from importlib.metadata import version

        print(version("ltbm"))
        parser.exit()


def _what_is_wrong(error: BaseException) -> str:
    """The error's message; of a package that is missing also the command that brings it."""
    text = one_line(error)
    if isinstance(error, ModuleNotFoundError) and "pip install" not in text:
        package = str(error.name).split(".")[0]
        for extra, packages in EXTRAS.items():
            if package in packages:
                return f"{text}: pip install 'ltbm[{extra}]'"
    return text


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(str(text).split()) or type(error).__name__
