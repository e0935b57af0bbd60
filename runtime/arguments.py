"""What the subcommands of `ltbm` have in common: how one is added, and the error for a flag that makes no sense."""

import argparse


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
