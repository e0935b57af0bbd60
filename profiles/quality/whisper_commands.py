"""`ltbm eval whisper` and `ltbm eval join`."""

import sys
from pathlib import Path

from ...runtime.arguments import UsageError, add_answer_length_flag, add_command, add_threads_flag, whole
from ...runtime.levels import parse_level
from .flags import check_attention
from .progress import progress_printer
from .variants import Variant, variants

LEVELS = "full,keep75,keep50,keep33,keep25,1/6,keep12"
METHODS = "ltbm,global,pool,stride,prune,prune-segment"
SOURCES = ("asterisk", "fsdd", "librivox")
JOIN_SEED = 15
WHISPER_DESCRIPTION = """\
Transcribe a manifest's clips with a pretrained Whisper whose encoder's tokens are merged before its own
decoder sees them: nobody trained that decoder for merging. Clips have up to 30 s; the silence that fills
a window keeps its tokens. Run the same command again and it goes on where it stopped.

  ltbm eval whisper ./whisper-tiny.en --manifest speech.jsonl --levels full,keep50,keep25 --out ./speech
  ltbm eval score ./speech --normalizer digits"""
JOIN_DESCRIPTION = """\
Join short public recordings to clips of 17 to 28 s, in two halves that share no recording: one to look at
while choosing, one to report. librivox: the sentences as they are.

  ltbm eval join asterisk ./sounds/en_US_f_Allison --transcripts core-sounds-en.txt --out ./speech"""


def add_whisper(evaluations) -> None:
    parser = add_command(
        evaluations,
        "whisper",
        run_whisper,
        "word error rate of a pretrained Whisper on merged tokens",
        WHISPER_DESCRIPTION,
    )
    parser.add_argument("checkpoint", help="a Whisper in transformers' layout: folder or hub id")
    parser.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="items for asr")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the answers go")
    parser.add_argument(
        "--levels", default=LEVELS, metavar="A,B", help=f"names or shares of the tokens (default {LEVELS})"
    )
    parser.add_argument(
        "--methods",
        default=METHODS,
        metavar="A,B",
        help=f"also ltbm-norm, global-norm, pool-norm, ltbm-anchor, ltbm-silence (default {METHODS})",
    )
    parser.add_argument(
        "--attention",
        default="proportional",
        metavar="A,B",
        help="proportional, plain, or what log(size) is multiplied with, such as 1.5 (default proportional)",
    )
    parser.add_argument(
        "--pool", choices=("pairs", "none"), default="pairs", help="pairs: 25 tokens a second, as Qwen2-Audio"
    )
    parser.add_argument(
        "--encoder-precision",
        choices=("float32", "int8"),
        default="float32",
        help="int8: the rounding of `ltbm export --encoder-precision int8`",
    )
    parser.add_argument("--limit", type=whole(), metavar="N", help="only the manifest's first N items")
    add_answer_length_flag(parser, 200)
    add_threads_flag(parser, "of PyTorch (default: its own choice)")


def add_join(evaluations) -> None:
    parser = add_command(
        evaluations,
        "join",
        run_join,
        "make clips for `whisper` from public recordings",
        JOIN_DESCRIPTION,
    )
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("folder", type=Path, help="where its recordings are")
    parser.add_argument("--transcripts", type=Path, metavar="FILE", help="asterisk: core-sounds-en.txt")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--seed", type=whole(0), default=JOIN_SEED, metavar="S", help=f"(default {JOIN_SEED})"
    )


def run_whisper(args) -> None:
    try:
        import torch

        from .whisper import transcribe_items
        from .whisper_model import Whisper
    except ImportError as error:
        raise ImportError(
            f"Whisper runs in PyTorch and transformers: pip install 'ltbm[parity]' ({error})"
        ) from None
    from .items import read_items
    from .predict import begin

    chosen = chosen_variants(args.levels, args.methods, args.attention)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    items = read_items(args.manifest, "whisper")
    with begin(args.out, _settings(args, items), items) as log:
        whisper = Whisper(args.checkpoint, args.pool, args.encoder_precision)
        progress = progress_printer("clips")
        transcribe_items(whisper, items[: args.limit], chosen, log, args.max_new_tokens, progress)
    print(f"score them with: ltbm eval score {args.out}", file=sys.stderr)


def _settings(args, items: list):
    from .predict import Settings, items_hash
    from .whisper import checkpoint_hash

    encoder = "" if args.encoder_precision == "float32" else f", encoder {args.encoder_precision}"
    try:
        return Settings(
            benchmark="whisper",
            prompt=f"pool {args.pool}{encoder}",
            max_new_tokens=args.max_new_tokens,
            long_audio="error",
            backend="transformers",
            device="cpu",
            items=items_hash(items),
            bundle=checkpoint_hash(args.checkpoint),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def chosen_variants(levels: str, methods: str, attention: str) -> list[Variant]:
    """The variants of comma-separated levels, methods and attentions; UsageError for an unknown one."""
    from .whisper_merge import WHISPER_METHODS

    names = [name.strip() for name in methods.split(",")]
    unknown = [name for name in names if name not in WHISPER_METHODS]
    if unknown:
        raise UsageError(f"--methods: unknown {', '.join(unknown)}; known are {', '.join(WHISPER_METHODS)}")
    attention_modes = [name.strip() for name in attention.split(",")]
    check_attention(attention_modes)
    modes = [("original", name) for name in attention_modes]
    shares = [name.strip() for name in levels.split(",")]
    try:
        for share in shares:
            parse_level(share)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return variants(shares, names, modes)


def run_join(args) -> None:
    from . import recordings

    spoken = recordings.SOURCES[args.source](args.folder, args.transcripts)
    if args.source == "librivox":
        print(f"{recordings.write_single(args.source, spoken, args.out)} clips", file=sys.stderr)
        return
    counts = recordings.write_halves(args.source, spoken, args.out, args.seed)
    for half, clips in counts.items():
        print(f"{args.out / args.source}-{half}.jsonl: {clips} clips", file=sys.stderr)
