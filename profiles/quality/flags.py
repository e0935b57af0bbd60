"""The flags of `ltbm eval` and what they choose."""

from itertools import product
from pathlib import Path

from ...runtime.arguments import (
    UsageError,
    add_answer_length_flag,
    add_backend_flags,
    add_command,
    add_long_audio_flag,
    whole,
)
from ...runtime.levels import ATTENTION, NAMED_RATIOS, POSITIONS, bias_strength
from .items import LAYOUTS
from .merged_values import NORMED
from .transcripts import NORMALIZERS
from .variants import METHODS, variants

BENCHMARKS = {  # what is asked -> (help, default prompt, default longest answer)
    "caption": (
        "captions: CIDEr-D, CIDEr, and SPIDEr and FENSE where aac-metrics is installed",
        "Describe what you hear in one sentence.",
        64,
    ),
    "mcq": (
        "multiple choice: accuracy by MMAU's published matching rule, by sound, music and speech",
        "{question}\nAnswer with one of these, word for word:\n{choices}",
        32,
    ),
    "asr": ("transcripts: word error rate", "Transcribe the speech word for word.", 256),
}
KNOWN = {
    "levels": tuple(NAMED_RATIOS),
    "methods": (*METHODS, *NORMED),
    "positions": POSITIONS,
    "extra": ("spider", "fense"),
}
BENCHMARK_DESCRIPTION = """\
Answer every item of a manifest at every level and method, for {about}.
Answers are appended to DIR as they come: run the same command again and it goes on where it stopped.

  ltbm eval {benchmark} ./bundle --manifest items.jsonl --levels full,keep25 --out ./answers
  ltbm eval score ./answers"""
SCORE_DESCRIPTION = """\
Score the answers in one or more folders, with bootstrap intervals: results.json and table.md go
beside them, the table of all of them together to stdout.

  ltbm eval score ./audiocaps ./mmau ./librispeech > table.md"""


def add_benchmark(evaluations, benchmark: str, run) -> None:
    about, prompt, max_new_tokens = BENCHMARKS[benchmark]
    description = BENCHMARK_DESCRIPTION.format(about=about, benchmark=benchmark)
    parser = add_command(evaluations, benchmark, run, about, description)
    parser.set_defaults(benchmark=benchmark)
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    parser.add_argument(
        "--manifest",
        type=Path,
        required=True,
        metavar="FILE",
        help="items, one JSON line each: `ltbm eval import` writes them",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the answers go")
    add_variant_flags(
        parser, "full,keep50,keep25", "ltbm,global,pool,stride,prune", "original", "proportional"
    )
    parser.add_argument(
        "--limit",
        type=whole(),
        metavar="N",
        help="only the manifest's first N items; a later run may take more",
    )
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help=f"what to ask (default {prompt!r}; nothing where the model only transcribes)",
    )
    add_answer_length_flag(parser, max_new_tokens)
    add_long_audio_flag(parser)
    add_backend_flags(parser)


def add_variant_flags(parser, levels: str, methods: str, positions: str, attention: str) -> None:
    for name, default in (
        ("levels", levels),
        ("methods", methods),
        ("positions", positions),
    ):
        parser.add_argument(
            f"--{name}",
            type=_names,
            default=default,
            metavar="A,B",
            help=f"of {', '.join(KNOWN[name])} (default {default})",
        )
    parser.add_argument(
        "--attention",
        type=_names,
        default=attention,
        metavar="A,B",
        help=f"of {', '.join(ATTENTION)}, or what log(size) is multiplied with, such as 1.5 "
        f"(default {attention})",
    )


def add_score(evaluations, run) -> None:
    parser = add_command(
        evaluations,
        "score",
        run,
        "score the answers of caption, mcq, asr, whisper and demo",
        SCORE_DESCRIPTION,
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="what `ltbm eval caption`, `mcq`, `asr`, `whisper` or `demo` wrote",
    )
    parser.add_argument(
        "--extra",
        type=_names,
        default=[],
        metavar="A,B",
        help=f"further metrics of captions, from the package aac-metrics: {', '.join(KNOWN['extra'])}",
    )
    parser.add_argument(
        "--normalizer",
        choices=NORMALIZERS,
        default="plain",
        help="of transcripts (digits: every digit a word; whisper: package whisper-normalizer)",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="score the items that every level and method has answered, where some lack others",
    )
    parser.add_argument(
        "--deciding",
        type=whole(),
        default=0,
        metavar="N",
        help="also list, for each level, the N items that decide between LTBM and Global Merge or pooling",
    )
    parser.add_argument("--json", action="store_true", help="print a list of results instead of the table")


def add_import(evaluations, run) -> None:
    layouts = "\n".join(
        f"  {name:<12} for {layout.benchmark}: {layout.files}" for name, layout in LAYOUTS.items()
    )
    parser = add_command(
        evaluations,
        "import",
        run,
        "make a manifest from a published benchmark's files",
        (
            f"Print the items of a published benchmark, one JSON line each. Layouts:\n\n{layouts}\n\n"
            "  ltbm eval import clotho clotho_captions_evaluation.csv --audio-dir ./evaluation > clotho.jsonl"
        ),
    )
    parser.add_argument("layout", choices=tuple(LAYOUTS))
    parser.add_argument("source", type=Path, help="the benchmark's file (librispeech: its folder)")
    parser.add_argument(
        "--audio-dir", type=Path, metavar="DIR", help="where the clips are (default: beside the file)"
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="leave out items whose audio is missing, instead of refusing",
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def check_names(flag: str, names: list[str]) -> None:
    unknown = [name for name in names if name not in KNOWN[flag]]
    if unknown:
        raise UsageError(
            f"--{flag}: unknown {', '.join(map(repr, unknown))}; known are {', '.join(KNOWN[flag])}"
        )


def check_attention(names: list[str]) -> None:
    """Each a mode or a strength of the bias."""
    try:
        for name in names:
            bias_strength(name)
    except ValueError as error:
        raise UsageError(f"--attention: {error}") from None


def chosen_variants(args) -> list:
    """The variants that --levels, --methods, --positions and --attention ask for."""
    for flag in ("levels", "methods", "positions"):
        check_names(flag, getattr(args, flag))
    check_attention(args.attention)
    return variants(
        args.levels,
        args.methods,
        list(product(args.positions, args.attention)),
    )
