"""`ltbm eval`: demo, caption, mcq, asr, whisper, score, import and join."""

import argparse
import json
import sys

from ...runtime.arguments import UsageError
from .demo_commands import add_demo
from .flags import BENCHMARKS, add_benchmark, add_import, add_score, check_names, chosen_variants
from .progress import progress_printer
from .whisper_commands import add_join, add_whisper


def add_commands(commands) -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "eval",
        help="measure the quality of every level",
        formatter_class=formatter,
        description=(
            "Measure what each compression level, method and mode does to answers, through the exported "
            "engines.\n"
            "`demo` uses the shipped model and recordings. Your own model and a published benchmark "
            "take three steps:\n\n"
            "  ltbm eval import audiocaps test.csv --audio-dir ./clips > audiocaps.jsonl\n"
            "  ltbm eval caption ./bundle --manifest audiocaps.jsonl --out ./audiocaps\n"
            "  ltbm eval score ./audiocaps"
        ),
    )
    evaluations = parser.add_subparsers(
        title="evaluations", dest="evaluation", required=True, metavar="EVALUATION"
    )
    add_demo(evaluations)
    for benchmark in BENCHMARKS:
        add_benchmark(evaluations, benchmark, run_benchmark)
    add_whisper(evaluations)
    add_score(evaluations, run_score)
    add_import(evaluations, run_import)
    add_join(evaluations)


def run_benchmark(args) -> None:
    from ...runtime.pipeline import Pipeline
    from .items import read_items
    from .predict import begin, predict

    chosen = chosen_variants(args)
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
            packed=args.packed,
            native_products=args.native_products,
        ) as pipeline:
            predict(pipeline, items[: args.limit], chosen, settings, log, progress_printer("answers"))
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
            prompt=_prompt(args, bundle),
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


def _prompt(args, bundle) -> str:
    """What is asked where --prompt does not say."""
    if args.prompt is not None:
        return args.prompt
    _, prompt, _ = BENCHMARKS[args.benchmark]
    return "" if bundle.manifest.prompt.transcript and args.benchmark == "asr" else prompt


def run_score(args) -> None:
    from .deciding import deciding_table
    from .score import Options, score
    from .tables import markdown, write_results

    check_names("extra", args.extra)
    options = Options(tuple(args.extra), args.normalizer, args.partial)
    results = [score(folder, options) for folder in args.folders]
    for folder, result in zip(args.folders, results):
        write_results(folder, result)
    if args.json:
        print(json.dumps([result.to_json() for result in results]))
        return
    print(markdown(results), end="")
    if args.deciding:
        for folder in args.folders:
            print(deciding_table(folder, options, args.deciding), end="")


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
