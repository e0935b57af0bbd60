"""`ltbm run`, `ltbm inspect` and `ltbm doctor`."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from .arguments import UsageError, add_command
from .backends.opening import BACKENDS
from .levels import ATTENTION, DEFAULT_LEVEL, NAMED_RATIOS, POSITIONS, Level, parse_level
from .presets import TASKS, choose
from .sampling import Sampling


def add_commands(commands) -> None:
    _add_run(commands)
    _add_inspect(commands)
    _add_doctor(commands)


def _add_run(commands) -> None:
    parser = add_command(
        commands,
        "run",
        run,
        "answer a prompt about a clip",
        (
            "Answer a prompt about one or more clips through the bundle's three engines.\n"
            "The text goes to stdout as it comes, the figures to stderr. With --chat further questions are read from stdin, one a\n"
            "line; '/audio FILE' brings a further clip, an empty line or Ctrl-D ends. What was heard is not paid for again.\n\n"
            "  ltbm run ./bundle clip.wav --prompt 'What do you hear?' --level keep25\n"
            "  ltbm run ./bundle clip.wav --chat"
        ),
    )
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    parser.add_argument(
        "audio", nargs="+", help="WAV, FLAC, OGG or MP3, any rate; several are heard in order"
    )
    parser.add_argument(
        "--prompt", help="what to ask (with --chat: the first question, else the first line of stdin)"
    )
    parser.add_argument("--chat", action="store_true", help="keep asking about the clips")
    parser.add_argument(
        "--task",
        choices=tuple(TASKS),
        help="choose the level by what was measured: "
        + ", ".join(f"{name} {task.level}" for name, task in TASKS.items()),
    )
    add_level_flags(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N", help="longest answer (default 128)"
    )
    parser.add_argument(
        "--long-audio",
        choices=("error", "windows"),
        default="error",
        help="audio longer than the model takes: refuse it, or hear it as several audios",
    )
    add_sampling_flags(parser)
    add_backend_flags(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one object with the answer, tokens and timings"
    )


def add_level_flags(parser) -> None:
    parser.add_argument(
        "--level",
        metavar="LEVEL",
        help=f"share of audio tokens kept: {', '.join(NAMED_RATIOS)} (default {DEFAULT_LEVEL})",
    )
    parser.add_argument(
        "--keep-ratio", metavar="R", help="any share in (0, 1] instead of a level, such as 0.3 or 3/10"
    )
    parser.add_argument(
        "--audio-tokens",
        type=int,
        metavar="N",
        help="a budget of audio tokens instead of a level (rounded up per window)",
    )
    parser.add_argument(
        "--window",
        default="auto",
        metavar="W",
        help="how far apart merged tokens may stand: auto, global or a number of encoder tokens (40 ms each)",
    )
    parser.add_argument(
        "--positions",
        choices=POSITIONS,
        default="original",
        help="leave merged tokens at their place on the time axis (default), or close the gaps",
    )
    parser.add_argument(
        "--attention",
        choices=ATTENTION,
        default="proportional",
        help="weigh a merged token as many as it holds (default), or as one",
    )


def add_sampling_flags(parser) -> None:
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest tokens (0: all)"
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw among the likeliest tokens that sum to P"
    )
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1 repeats less"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="make sampling repeatable")


def add_backend_flags(parser) -> None:
    parser.add_argument(
        "--backend", default="onnxruntime", choices=tuple(BACKENDS), help="what runs the engines"
    )
    parser.add_argument(
        "--device",
        choices=sorted({device for devices in BACKENDS.values() for device in devices}),
        help="where they run: of onnxruntime cpu (default), cuda or tensorrt; of tensorrt cuda",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of one stage (default: all cores)"
    )
    parser.add_argument(
        "--kv-cache",
        choices=("int8",),
        help="a quarter of the memory, for bundles that `ltbm calibrate` prepared (CPU)",
    )
    parser.add_argument(
        "--low-memory",
        action="store_true",
        help="load the encoder and the LLM in turn, never both: slower, for small devices",
    )


def level_from(args) -> Level:
    try:
        return parse_level(
            choose(args.level, getattr(args, "task", None)),
            args.keep_ratio,
            args.audio_tokens,
            args.window,
            args.positions,
            args.attention,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def sampling_from(args) -> Sampling:
    try:
        return Sampling(args.temperature, args.top_k, args.top_p, args.repetition_penalty, args.seed)
    except ValueError as error:
        raise UsageError(str(error)) from None


def run(args) -> None:
    from .session import Session

    level, sampling = level_from(args), sampling_from(args)
    if args.max_new_tokens < 1:
        raise UsageError(f"--max-new-tokens {args.max_new_tokens} is below 1")
    if not args.prompt and not args.chat:
        raise UsageError("give --prompt with a question, or --chat to ask from stdin")
    with Session.open(
        args.bundle,
        args.backend,
        args.device,
        args.threads,
        low_memory=args.low_memory,
        kv_cache=args.kv_cache,
    ) as session:
        conversation = session.converse(level)
        for prompt, audio in questions(args.prompt, args.audio, sys.stdin if args.chat else ()):
            _show(
                conversation.ask(
                    prompt,
                    audio or None,
                    max_new_tokens=args.max_new_tokens,
                    sampling=sampling,
                    long_audio=args.long_audio,
                    on_text=None if args.json else _print_piece,
                ),
                args.json,
            )


def questions(prompt: str | None, audio: list[str], lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each question with the clips that come with it: `prompt` first if there is one, then the lines up to an empty one."""
    if prompt:
        yield prompt, audio
        audio = []
    for line in lines:
        text = line.strip()
        if not text:
            return
        if text.startswith("/audio "):
            audio = audio + [text.removeprefix("/audio ").strip()]
            continue
        yield text, audio
        audio = []


def _show(answer, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(answer), ensure_ascii=False), flush=True)
        return
    print()
    note = "" if answer.applied else f" ({answer.reason})"
    times = ", ".join(f"{name} {value:.1f}" for name, value in answer.timings.items())
    print(
        f"{answer.level}{note}: {answer.tokens_in} audio tokens -> {answer.tokens_out}, {answer.reused_tokens} prompt tokens reused; ms: {times}",
        file=sys.stderr,
    )


def _print_piece(piece: str) -> None:
    print(piece, end="", flush=True)


def _add_inspect(commands) -> None:
    parser = add_command(
        commands,
        "inspect",
        inspect,
        "say what a bundle holds",
        "Print a bundle's model, stages, sizes and KV cache per level.",
    )
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    parser.add_argument("--verify", action="store_true", help="hash every file and compare with the manifest")
    parser.add_argument("--json", action="store_true", help="print one object instead of the table")


def inspect(args) -> None:
    from .bundle import Bundle

    bundle = Bundle.open(args.bundle, verify=args.verify)
    facts = describe(bundle)
    if args.json:
        print(json.dumps(facts))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {part}" for name, part in value.items())
        print(f"{key:<24}{value}")


def describe(bundle) -> dict:
    """What a user wants to know of a bundle, ready for a table or JSON."""
    manifest, audio = bundle.manifest, bundle.manifest.audio
    from .stages.features import token_length

    tokens, itemsize = token_length(audio.window_frames), manifest.precision.kv_itemsize
    return {
        "family": manifest.family,
        "source": manifest.source,
        "precision": str(manifest.precision),
        "runs_on": manifest.precision.runs_on,
        "flavours": ", ".join(manifest.flavours),
        "encoder_width": audio.encoder_width,
        "llm": f"{manifest.decoder.layers} layers, width {manifest.decoder.hidden_size}, {manifest.decoder.heads} heads, "
        f"{manifest.decoder.kv_heads} KV heads, vocabulary {manifest.decoder.vocab_size}",
        "max_positions": manifest.decoder.max_positions,
        "longest_audio_seconds": audio.window_seconds * audio.max_windows,
        "audio_tokens_per_window": tokens,
        "stage_bytes": bundle.stage_bytes(),
        "kv_bytes_per_window": {
            name: manifest.decoder.kv_bytes(Level(name, ratio).target(tokens), itemsize)
            for name, ratio in NAMED_RATIOS.items()
        },
        "tensors": len(manifest.tensors),
        "tools": manifest.tools,
    }


def _add_doctor(commands) -> None:
    parser = add_command(
        commands,
        "doctor",
        doctor,
        "say what this machine has and lacks",
        (
            "Check memory, GPU, driver, CUDA, TensorRT, the merge op's plugin, onnxruntime's providers, on a Jetson its\n"
            "JetPack and power mode; with a bundle, also its files, engines, and whether it fits. Every line is ok,\n"
            "warning or problem, with what to do. Exit code 1 if one is a problem.\n\n"
            "  ltbm doctor ./bundle"
        ),
    )
    parser.add_argument("bundle", nargs="?", help="a bundle to check too (hashes every file)")
    parser.add_argument("--json", action="store_true", help="print a list instead of the table")


def doctor(args) -> int:
    from .doctor import examine

    findings = examine(args.bundle)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        width = max(len(finding.subject) for finding in findings) + 2
        for finding in findings:
            print(f"{finding.status:<9}{finding.subject:<{width}}{finding.text}")
    return 1 if any(finding.status == "problem" for finding in findings) else 0
