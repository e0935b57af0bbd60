"""`ltbm eval`: demo, caption, mcq, asr, score and import."""

import argparse
import json
import sys
import time
from itertools import product
from pathlib import Path

from ...export.precision import PRECISIONS
from ...runtime.arguments import UsageError, add_backend_flags, add_command, add_long_audio_flag
from ...runtime.levels import ATTENTION, NAMED_RATIOS, POSITIONS
from .items import LAYOUTS
from .transcripts import NORMALIZERS
from .variants import METHODS, variants

UNSEEN = 1000
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
    "methods": METHODS,
    "positions": POSITIONS,
    "attention": ATTENTION,
    "extra": ("spider", "fense"),
}
PROGRESS_SECONDS = 5.0  # between two lines

DEMO_DESCRIPTION = """\
The shipped model on held-out synthetic scenes: a benchmark of mechanism and regression.

  ltbm eval demo --scenes 200 --levels full,keep25 --methods ltbm,pool --out ./quality"""

SCORE_DESCRIPTION = """\
Score the answers in one or more folders, with bootstrap intervals: results.json and table.md go
beside them, the table of all of them together to stdout.

  ltbm eval score ./audiocaps ./mmau ./librispeech > table.md"""


def add_commands(commands) -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "eval",
        help="measure the quality of every level",
        formatter_class=formatter,
        description=(
            "Measure what each compression level, method and mode does to answers, through the exported "
            "engines.\n"
            "`demo` uses the shipped model and synthetic scenes. Your own model and a published benchmark "
            "take three steps:\n\n"
            "  ltbm eval import audiocaps test.csv --audio-dir ./clips > audiocaps.jsonl\n"
            "  ltbm eval caption ./bundle --manifest audiocaps.jsonl --out ./audiocaps\n"
            "  ltbm eval score ./audiocaps"
        ),
    )
    evaluations = parser.add_subparsers(
        title="evaluations", dest="evaluation", required=True, metavar="EVALUATION"
    )
    _add_demo(evaluations)
    for benchmark in BENCHMARKS:
        _add_benchmark(evaluations, benchmark)
    _add_score(evaluations)
    _add_import(evaluations)


def _add_demo(evaluations) -> None:
    parser = add_command(
        evaluations,
        "demo",
        run_demo,
        "the shipped model on held-out synthetic scenes",
        DEMO_DESCRIPTION,
    )
    parser.add_argument(
        "--scenes",
        type=int,
        default=1000,
        metavar="N",
        help="held-out scenes, half with recurring sounds (default 1000)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=UNSEEN,
        metavar="S",
        help=f"the first scene of the held-out split (default {UNSEEN}: earlier ones were looked at when "
        "the sounds were designed)",
    )
    _add_variant_flags(
        parser, "full,keep50,keep25,keep12,keep6", ",".join(METHODS), ",".join(POSITIONS), ",".join(ATTENTION)
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the exported engines")
    parser.add_argument("--processes", type=int, metavar="N", help="worker processes (default: all cores)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("quality"),
        metavar="DIR",
        help="results.json, table.md and quality.png (default ./quality)",
    )


def _add_benchmark(evaluations, benchmark: str) -> None:
    about, prompt, max_new_tokens = BENCHMARKS[benchmark]
    parser = add_command(
        evaluations,
        benchmark,
        run_benchmark,
        about,
        (
            f"Answer every item of a manifest at every level and method, for {about}.\n"
            "Answers are appended to DIR as they come: run the same command again and it goes on where it "
            "stopped.\n\n"
            f"  ltbm eval {benchmark} ./bundle --manifest items.jsonl --levels full,keep25 --methods "
            "ltbm,global --out ./answers\n"
            "  ltbm eval score ./answers"
        ),
    )
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
    _add_variant_flags(
        parser, "full,keep50,keep25", "ltbm,global,pool,stride,prune", "original", "proportional"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the manifest's first N items; a later run may take more"
    )
    parser.add_argument("--prompt", default=prompt, metavar="TEXT", help=f"what to ask (default {prompt!r})")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=max_new_tokens,
        metavar="N",
        help=f"longest answer (default {max_new_tokens})",
    )
    add_long_audio_flag(parser)
    add_backend_flags(parser)


def _add_variant_flags(parser, levels: str, methods: str, positions: str, attention: str) -> None:
    for name, default in (
        ("levels", levels),
        ("methods", methods),
        ("positions", positions),
        ("attention", attention),
    ):
        parser.add_argument(
            f"--{name}",
            type=_names,
            default=default,
            metavar="A,B",
            help=f"of {', '.join(KNOWN[name])} (default {default})",
        )


def _add_score(evaluations) -> None:
    parser = add_command(
        evaluations,
        "score",
        run_score,
        "score the answers of caption, mcq and asr",
        SCORE_DESCRIPTION,
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="what `ltbm eval caption`, `mcq` or `asr` wrote"
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
        help="of transcripts (whisper: package whisper-normalizer)",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="score the items that every level and method has answered, where some lack others",
    )
    parser.add_argument("--json", action="store_true", help="print a list of results instead of the table")


def _add_import(evaluations) -> None:
    layouts = "\n".join(
        f"  {name:<12} for {layout.benchmark}: {layout.files}" for name, layout in LAYOUTS.items()
    )
    parser = add_command(
        evaluations,
        "import",
        run_import,
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


def run_demo(args) -> None:
    chosen = _chosen(args)
    if args.scenes < 1:
        raise UsageError(f"--scenes {args.scenes} is below 1")
    try:
        from ltbm.demo.bundle import demo_bundle

        from .demo import comparisons, evaluate, rows_of
    except ImportError as error:
        raise ImportError(
            f"the benchmark makes its scenes with scipy: pip install 'ltbm[export,report]' ({error})"
        ) from None
    from .report import markdown, write_results

    begun = time.perf_counter()
    with demo_bundle(args.precision) as bundle:
        counts = evaluate(bundle, args.scenes, args.seed, chosen, args.processes, _progress("scenes"))
    results = {
        "benchmark": "demo",
        "scenes": args.scenes,
        "first_seed": args.seed,
        "precision": args.precision,
        "seconds": round(time.perf_counter() - begun, 1),
        "rows": rows_of(counts),
        "comparisons": comparisons(counts),
    }
    write_results(args.out, results)
    print(markdown(results), end="")
    print(f"written to {args.out}", file=sys.stderr)


def run_benchmark(args) -> None:
    from ...runtime.pipeline import Pipeline
    from .items import read_items
    from .predict import begin, predict

    chosen = _chosen(args)
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit {args.limit} is below 1")
    items = read_items(args.manifest, args.benchmark)
    settings = _settings(args, items)
    with begin(args.out, settings, items) as log:
        if log.torn:
            print(
                f"{log.torn} bytes of a line that was cut off are removed; its answer is given again",
                file=sys.stderr,
            )
        with Pipeline.open(
            args.bundle,
            backend=settings.backend,
            device=settings.device,
            threads=args.threads,
            in_turn=args.low_memory,
            kv_cache=settings.kv_cache,
        ) as pipeline:
            predict(pipeline, items[: args.limit], chosen, settings, log, _progress("answers"))
    print(
        f"{len(log.answers)} answers in {args.out}; score them with: ltbm eval score {args.out}",
        file=sys.stderr,
    )


def _settings(args, items: list):
    from ...runtime.backends.opening import check_device
    from ...runtime.bundle import Bundle
    from .predict import Settings, bundle_hash, items_hash

    bundle = Bundle.open(args.bundle)
    try:
        return Settings(
            benchmark=args.benchmark,
            prompt=args.prompt,
            max_new_tokens=args.max_new_tokens,
            long_audio=args.long_audio,
            backend=args.backend,
            device=check_device(args.backend, args.device),
            items=items_hash(items),
            bundle=bundle_hash(bundle),
            kv_cache=args.kv_cache,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def run_score(args) -> None:
    from .score import Options, score
    from .tables import markdown, write_results

    _check_names("extra", args.extra)
    results = [
        score(folder, Options(tuple(args.extra), args.normalizer, args.partial)) for folder in args.folders
    ]
    for folder, result in zip(args.folders, results):
        write_results(folder, result)
    print(json.dumps(results) if args.json else markdown(results), end="\n" if args.json else "")


def run_import(args) -> None:
    from .items import import_items, item_line

    items, missing = import_items(args.layout, args.source, args.audio_dir)
    for name in missing:
        print(f"no audio: {name}", file=sys.stderr)
    count = f"{len(missing)} of {len(items) + len(missing)} audio files are missing"
    if missing and not args.allow_missing or not items:
        raise FileNotFoundError(
            f"{count}; get them, give --audio-dir, or leave their items out with --allow-missing"
        )
    print(
        f"{len(items)} items" + (f"; {count}, their items are left out" if missing else ""), file=sys.stderr
    )
    for item in items:
        print(item_line(item))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _check_names(flag: str, names: list[str]) -> None:
    unknown = [name for name in names if name not in KNOWN[flag]]
    if unknown:
        raise UsageError(
            f"--{flag}: unknown {', '.join(map(repr, unknown))}; known are {', '.join(KNOWN[flag])}"
        )


def _chosen(args) -> list:
    """The variants that --levels, --methods, --positions and --attention ask for."""
    for flag in ("levels", "methods", "positions", "attention"):
        _check_names(flag, getattr(args, flag))
    return variants(
        args.levels,
        args.methods,
        list(product(args.positions, args.attention)),
    )


def _progress(what: str):
    """Prints what is done and how long the rest takes, not oftener than every PROGRESS_SECONDS."""
    begun = printed = time.perf_counter()

    def progress(done: int, total: int) -> None:
        nonlocal printed
        now = time.perf_counter()
        if done == total or now - printed >= PROGRESS_SECONDS:
            printed = now
            print(
                f"{done} of {total} {what}, {now - begun:.0f} s, about "
                f"{(now - begun) * (total / done - 1):.0f} s left",
                file=sys.stderr,
            )

    return progress
