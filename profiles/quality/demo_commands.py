"""`ltbm eval demo`."""

import json
import sys
from pathlib import Path

from ...export.precision import PRECISIONS
from ...runtime.arguments import add_command, whole
from ...runtime.levels import ATTENTION, POSITIONS
from ...runtime.numbers import most_threads
from .flags import add_variant_flags, chosen_variants
from .progress import progress_printer
from .variants import METHODS

UNSEEN = 1000
SCENES = 200
LEVELS = "full,keep50,keep25,keep12,keep6"
PLOT = "quality.png"
DESCRIPTION = """\
The shipped model on scenes mixed from recordings that it was not trained on. Run the same command again and
it goes on where it stopped; more scenes, levels or methods may be added.

  ltbm eval demo --scenes 100 --levels full,keep25 --methods ltbm,pool --out ./quality
  ltbm eval demo --recordings ./recordings --out ./quality"""


def add_demo(evaluations) -> None:
    parser = add_command(
        evaluations, "demo", run_demo, "the shipped model on scenes mixed from recordings", DESCRIPTION
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="DIR",
        help="folder with esc10/CLASS/*.ogg and fsdd/*.wav, of which the test split is taken "
        "(default: the recordings that ship)",
    )
    parser.add_argument(
        "--scenes", type=whole(), default=SCENES, metavar="N", help=f"how many (default {SCENES})"
    )
    parser.add_argument(
        "--seed",
        type=whole(0),
        default=UNSEEN,
        metavar="S",
        help=f"the first scene (default {UNSEEN}: earlier ones were looked at while the model was trained)",
    )
    add_variant_flags(parser, LEVELS, ",".join(METHODS), ",".join(POSITIONS), ",".join(ATTENTION))
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the exported engines")
    parser.add_argument(
        "--processes",
        type=whole(1, most_threads()),
        metavar="N",
        help="worker processes (default: all cores)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("quality"),
        metavar="DIR",
        help="answers, results.json, table.md and quality.png (default ./quality)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of the table")


def run_demo(args) -> None:
    chosen = chosen_variants(args)
    try:
        from ltbm.demo.bundle import demo_bundle
        from ltbm.demo.recordings import SHIPPED, read_pool
        from ltbm.demo.scenes import held_out_scene

        from .demo import evaluate, extend_items, scene_item
    except ImportError as error:
        raise ImportError(
            f"the benchmark mixes its scenes with scipy: pip install 'ltbm[export,report]' ({error})"
        ) from None
    from .predict import begin

    folder = args.recordings or SHIPPED
    pool = read_pool(folder, "test")
    numbers = range(args.seed, args.seed + args.scenes)
    items = [scene_item(number, held_out_scene(pool, number)) for number in numbers]
    with demo_bundle(args.precision) as bundle:
        with begin(args.out, _settings(bundle, pool, args.seed), items) as log:
            extend_items(args.out, items)
            evaluate(bundle, folder, numbers, chosen, log, args.processes, progress_printer("scenes"))
    _report(args.out, args.json)


def _settings(bundle: Path, pool, seed: int):
    from ltbm.demo.language import CAPTION_PROMPT

    from ...runtime.bundle import Bundle
    from .demo import CAPTION_TOKENS, recordings_hash
    from .predict import Settings, bundle_hash

    return Settings(
        benchmark="demo",
        prompt=CAPTION_PROMPT,
        max_new_tokens=CAPTION_TOKENS,
        long_audio="error",
        backend="onnxruntime",
        device="cpu",
        items=recordings_hash(pool, seed),
        bundle=bundle_hash(Bundle.open(bundle)),
    )


def _report(out: Path, as_json: bool) -> None:
    from .plot import plot
    from .score import score
    from .tables import markdown, write_results

    result = score(out)
    write_results(out, result)
    plot(result, out / PLOT)
    print(json.dumps(result.to_json()) + "\n" if as_json else markdown([result]), end="")
    print(f"written to {out}", file=sys.stderr)
