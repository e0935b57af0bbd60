"""The flags of `ltbm bench op`."""

import argparse

from ...runtime.arguments import add_threads_flag, whole

BODIES = ("numpy", "function", "native")
DESCRIPTION = """\
Time the bodies of the LTBM op on the CPU, beside the least that any body needs: reading x and writing
the outputs once at the measured bandwidth. Bodies take turns, each turn warmed by a run not measured.

  ltbm bench op --tokens 750 --keep-ratio 1/4 --dtype float32 float16"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokens", type=whole(), nargs="+", default=[750], metavar="T", help="of the row (default 750: 30 s)"
    )
    parser.add_argument(
        "--dim", type=whole(), nargs="+", default=[1280], metavar="D", help="encoder width (default 1280)"
    )
    parser.add_argument(
        "--keep-ratio",
        nargs="+",
        default=["3/4", "1/4", "1/16"],
        metavar="R",
        help="shares of the tokens kept (default 3/4 1/4 1/16)",
    )
    parser.add_argument(
        "--window",
        nargs="+",
        default=["auto"],
        metavar="W",
        help="auto, global or encoder tokens (default auto)",
    )
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=("float32", "float16"),
        default=["float32"],
        help="of the tokens (default float32)",
    )
    parser.add_argument("--bodies", nargs="+", choices=BODIES, help="default: all that are installed")
    parser.add_argument(
        "--rounds", type=whole(), default=10, metavar="N", help="turns of 3 runs each (default 10)"
    )
    add_threads_flag(parser, "of ONNX Runtime; numpy's are left as they are (default 1)", 1)
    parser.add_argument("--json", action="store_true", help="print the timings as one array")
