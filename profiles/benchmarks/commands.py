"""`ltbm bench`: the one entrance to the benchmarks; each adds its flags and imports the rest when it runs."""

import argparse

from ...runtime.arguments import add_command
from ..latency.listening import flags as listen_flags
from . import decoder_flags, op_flags

DESCRIPTION = """\
Time our parts beside others and beside the least that the machine allows.

  ltbm bench op --tokens 750 --keep-ratio 1/4       # the merge op in all its bodies
  ltbm bench decoder --layers 1 3 --runners gqa genai # the LLM beside transformers and genai
  ltbm bench listen ./bundle                        # time to first token after the end of speech"""


def add_commands(commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="time the merge op, the LLM or listening beside others",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    benchmarks = parser.add_subparsers(
        title="benchmarks", dest="benchmark", required=True, metavar="BENCHMARK"
    )
    op = add_command(benchmarks, "op", run_op, "the merge op in all its bodies", op_flags.DESCRIPTION)
    op_flags.add_arguments(op)
    decoder = add_command(
        benchmarks, "decoder", run_decoder, "the LLM at a real model's widths", decoder_flags.DESCRIPTION
    )
    decoder_flags.add_arguments(decoder)
    listen = add_command(
        benchmarks, "listen", run_listen, "listening beside the whole clip", listen_flags.DESCRIPTION
    )
    listen_flags.add_arguments(listen)


def run_op(args: argparse.Namespace) -> None:
    from .op import run

    run(args)


def run_decoder(args: argparse.Namespace) -> None:
    from .decoder import run

    run(args)


def run_listen(args: argparse.Namespace) -> None:
    from ..latency.listening.command import run

    run(args)
