"""`ltbm eval`."""

import argparse
import sys
import time
from pathlib import Path

from ltbm.runtime.cli import UsageError, add_command
from ltbm.runtime.levels import ATTENTION, NAMED_RATIOS, POSITIONS

UNSEEN = 1000


def add_commands(commands) -> None:
    parser = add_command(commands, "eval", run_eval, "measure the quality of every level", (
        "Measure what each compression level, method and mode does to answers, through the exported engines.\n"
        "`demo` uses the shipped model and held-out synthetic scenes: a benchmark of mechanism and regression.\n\n"
        "  ltbm eval demo --scenes 200 --levels full,keep25 --methods ltbm,pool --out ./quality"))
    parser.add_argument("benchmark", choices=("demo",))
    parser.add_argument("--scenes", type=int, default=1000, metavar="N", help="held-out scenes, half with recurring sounds (default 1000)")
    parser.add_argument("--seed", type=int, default=UNSEEN, metavar="S",
                        help=f"the first scene of the held-out split (default {UNSEEN}: earlier ones were looked at when the sounds were designed)")
    parser.add_argument("--levels", type=_names, metavar="A,B", help="default: full,keep50,keep25,keep12,keep6")
    parser.add_argument("--methods", type=_names, metavar="A,B", help="default: ltbm,global,pool,stride,prune,prune-segment")
    parser.add_argument("--positions", type=_names, default=list(POSITIONS), metavar="A,B", help="default: original,compact")
    parser.add_argument("--attention", type=_names, default=list(ATTENTION), metavar="A,B", help="default: proportional,plain")
    parser.add_argument("--precision", choices=("float32", "float16"), default="float32", help="of the exported engines")
    parser.add_argument("--processes", type=int, metavar="N", help="worker processes (default: all cores)")
    parser.add_argument("--out", type=Path, default=Path("quality"), metavar="DIR", help="results.json, table.md and quality.png (default ./quality)")


def run_eval(args) -> None:
    try:
        from ltbm.profiles.quality.demo import LEVELS, METHODS, variants
    except ImportError as error:
        raise ImportError(f"the benchmark makes its scenes with scipy: pip install 'ltbm[export,report]' ({error})") from None
    levels, methods = args.levels or list(LEVELS), args.methods or list(METHODS)
    for given, known in ((levels, NAMED_RATIOS), (methods, METHODS), (args.positions, POSITIONS), (args.attention, ATTENTION)):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise UsageError(f"unknown {', '.join(unknown)}; known are {', '.join(known)}")
    if args.scenes < 1:
        raise UsageError(f"--scenes {args.scenes} is below 1")
    chosen = variants(levels, methods, [(positions, attention) for positions in args.positions for attention in args.attention])
    _evaluate_demo(args, chosen)


def _evaluate_demo(args, chosen) -> None:
    from ltbm.demo.bundle import demo_bundle
    from ltbm.profiles.quality.demo import comparisons, evaluate, rows_of
    from ltbm.profiles.quality.report import markdown, write_results

    begun = time.perf_counter()

    def progress(done: int, total: int) -> None:
        seconds = time.perf_counter() - begun
        print(f"{done} of {total} scenes, {seconds:.0f} s, about {seconds * (total / done - 1):.0f} s left", file=sys.stderr)

    with demo_bundle(args.precision) as bundle:
        counts = evaluate(bundle, args.scenes, args.seed, chosen, args.processes, progress)
    results = {"benchmark": "demo", "scenes": args.scenes, "first_seed": args.seed, "precision": args.precision,
               "seconds": round(time.perf_counter() - begun, 1), "rows": rows_of(counts), "comparisons": comparisons(counts)}
    write_results(args.out, results)
    print(markdown(results), end="")
    print(f"written to {args.out}", file=sys.stderr)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("give at least one name")
    return names
