"""The one `ltbm` command; each package's commands.py adds its subcommands."""

import argparse
import importlib
import os
import signal
import sys

COMMAND_MODULES = ("ltbm.runtime.commands", "ltbm.export.commands", "ltbm.export.build_commands", "ltbm.profiles.commands",
                   "ltbm.profiles.quality.commands", "ltbm.profiles.budgets.commands", "ltbm.demo.commands")
EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
EXPECTED = (ValueError, KeyError, TypeError, OSError, RuntimeError, MemoryError, ImportError, NotImplementedError)


class UsageError(ValueError):
    """A flag whose value makes no sense: exit code 2."""


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; 0 on success, 1 on failure, 2 on wrong usage, with one line on stderr."""
    parser = build_parser()
    args = parser.parse_args(argv)
    former = signal.signal(signal.SIGTERM, _terminated)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        print("ltbm: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except EXPECTED as error:
        if args.debug:
            raise
        print(f"ltbm: {one_line(error)}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE
    finally:
        signal.signal(signal.SIGTERM, former)


def _terminated(number, frame) -> None:
    """A termination unwinds as Ctrl-C does, so that nothing half-written and no process stays behind."""
    sys.exit(128 + number)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ltbm", description=(
        "Audio-language models at the edge: split a checkpoint into three engines, merge audio tokens, answer about sound."),
        epilog="Start with `ltbm demo`. Every command teaches its flags with --help.")
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for name in COMMAND_MODULES:
        importlib.import_module(name).add_commands(commands)
    return parser


class VersionAction(argparse.Action):
    """Looks the version up only when asked."""

    def __init__(self, option_strings, dest, **_):
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser, *_):
        from importlib.metadata import version

        print(version("ltbm"))
        parser.exit()


def add_command(commands, name: str, run, help: str, description: str | None = None) -> argparse.ArgumentParser:
    """A subcommand `name` whose work is `run(args)`; `--debug` is taken after it too."""
    parser = commands.add_parser(name, help=help, description=description or help,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)
    return parser


def one_line(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(str(text).split()) or type(error).__name__
