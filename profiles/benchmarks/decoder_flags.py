"""The flags of `ltbm bench decoder`."""

import argparse
import os
from pathlib import Path

from ...runtime.arguments import add_threads_flag, whole
from .models import LLMS
from .runners import RUNNERS

AUDIO_TOKENS = (750, 375, 188, 94)  # 30 s at full, keep50, keep25 and keep12
DEFAULT_RUNNERS = ("gqa", "ort24", "transformers", "genai")
DESCRIPTION = """\
Our decoder beside transformers and onnxruntime-genai, on the same random weights at a real model's
widths. Of the LLM only a few layers are made; two counts of layers give the whole model's times on the
line through them. genai's builder holds its model several times: 16 GB for 2 layers of qwen2_audio.

  ltbm bench decoder --llm audioflamingo3 --layers 2 4 --runners gqa genai"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_models(parser)
    _add_requests(parser)
    _add_measuring(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--llm", choices=LLMS, default="qwen2_audio", help="whose widths (default qwen2_audio)"
    )
    parser.add_argument(
        "--layers",
        type=whole(),
        nargs="+",
        default=[2],
        metavar="N",
        help="how many are made; two counts give the whole model's times (default 2)",
    )
    parser.add_argument(
        "--runners",
        nargs="+",
        choices=RUNNERS,
        default=DEFAULT_RUNNERS,
        metavar="R",
        help=f"of {', '.join(RUNNERS)}; the first is ours",
    )


def _add_requests(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audio-tokens",
        type=whole(),
        nargs="+",
        default=AUDIO_TOKENS,
        metavar="K",
        help="of the prompts (default 750 375 188 94)",
    )
    parser.add_argument(
        "--text-tokens", type=whole(0), default=30, metavar="N", help="beside them (default 30)"
    )
    parser.add_argument(
        "--new-tokens", type=whole(2), default=17, metavar="N", help="of every answer (default 17)"
    )


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=whole(), default=3, metavar="N", help="measured in each process (default 3)"
    )
    parser.add_argument(
        "--processes",
        type=whole(),
        default=2,
        metavar="N",
        help="of each runner, one after the other (default 2)",
    )
    add_threads_flag(parser, "of each runner (default: all cores)", len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="keep the models here for the next run (default: made anew and removed)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn and the table's rows")
