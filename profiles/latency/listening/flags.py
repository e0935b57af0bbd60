"""The flags of `ltbm bench listen`."""

import argparse
from pathlib import Path

from ....runtime.arguments import add_answer_length_flag, add_backend_flags, add_level_flags, finite, whole
from ....runtime.numbers import LARGEST_SEED
from .options import APPROACHES, Options

DESCRIPTION = """\
How long after the end of speech does the first token come? Sound is played to `session.listen`, ends at
random moments, and a question follows at once. The same ends are asked about as whole clips, and both
without merging, so that what listening gains and what merging gains are told apart. The tokens are compared.

  ltbm bench listen ./bundle                                  # the demo's clips, joined
  ltbm bench listen ./bundle --audio talk.wav --level keep12 --ends 200 --json listen.json

Approaches: listen (the open segment is read after the end), ahead (it was read in the pause before the
question), whole (the clip after its end), listen-full and whole-full (nothing merged).

A device that keeps up is idle most of the time. That time is skipped: the next 0.1 s of sound comes after
0.1 s, or as soon as all before it is read. --real-time waits instead, as a microphone does: ends / 10 times
--seconds, for each of the three that listen. While an answer is given no sound comes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Options(clips=("clip",))
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    parser.add_argument(
        "--audio",
        nargs="+",
        metavar="CLIP",
        help="sound files, joined, and repeated to fill --seconds (default: the demo's ten)",
    )
    parser.add_argument(
        "--approaches",
        nargs="+",
        choices=tuple(APPROACHES),
        default=default.approaches,
        metavar="A",
        help=f"of {', '.join(APPROACHES)} (default all)",
    )
    _add_ends(parser, default)
    parser.add_argument(
        "--prompt", default=default.prompt, help=f"what is asked (default {default.prompt!r})"
    )
    add_answer_length_flag(
        parser, default.max_new_tokens, "longest answer, and how many tokens are compared (default {})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every answer and the table's rows")
    add_level_flags(parser, default.level)
    add_backend_flags(parser)


def _add_ends(parser: argparse.ArgumentParser, default: Options) -> None:
    parser.add_argument(
        "--ends", type=whole(), default=default.ends, metavar="N", help=f"of speech (default {default.ends})"
    )
    parser.add_argument(
        "--seconds",
        type=finite(above=True),
        default=default.seconds,
        metavar="S",
        help=f"of sound in which the ends lie (default {default.seconds:g})",
    )
    parser.add_argument(
        "--seed",
        type=whole(0, LARGEST_SEED),
        default=default.seed,
        metavar="S",
        help=f"of the ends (default {default.seed})",
    )
    parser.add_argument("--real-time", action="store_true", help="sound comes as from a microphone")
