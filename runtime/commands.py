"""`ltbm run`, `ltbm inspect` and `ltbm doctor`."""

import json
import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from .answer import AnswerStream
from .arguments import (
    UsageError,
    add_answer_length_flag,
    add_backend_flags,
    add_command,
    add_language_flag,
    add_level_flags,
    add_long_audio_flag,
    add_sampling_flags,
    add_task_flag,
    level_from,
    sampling_from,
    session_options,
)
from .backends.flavours import FIXED_CAPACITY
from .chat import lines_of, questions, try_to_answer
from .levels import NAMED_RATIOS, Level
from .request import DEFAULT_MAX_NEW_TOKENS

if TYPE_CHECKING:
    from .backends.engine_store import EngineFolder
    from .backends.packed_store import PackedGraph
    from .bundle import Bundle, Manifest

RUN_DESCRIPTION = """\
Answer a prompt about one or more clips through the bundle's three engines.
The text goes to stdout as it comes, the figures to stderr. With --chat further questions are read
from stdin, one a line; '/audio FILE' brings a further clip, an empty line or Ctrl-D ends. What was
encoded is not paid for again.

  ltbm run ./bundle clip.wav --prompt 'What do you hear?' --level keep25
  ltbm run ./bundle clip.wav --chat"""

DOCTOR_DESCRIPTION = """\
Check memory, GPU, driver, CUDA, TensorRT, the merge op's plugin, onnxruntime's providers, on a
Jetson its JetPack and power mode; with a bundle, also its files, engines, and whether it fits.
Every line is ok, warning or problem, with what to do. Exit code 1 if one is a problem.

  ltbm doctor ./bundle"""


def add_commands(commands) -> None:
    _add_run(commands)
    _add_inspect(commands)
    _add_doctor(commands)


def _add_run(commands) -> None:
    parser = add_command(commands, "run", run, "answer a prompt about a clip", RUN_DESCRIPTION)
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    parser.add_argument(
        "audio", nargs="+", help="WAV, FLAC, OGG or MP3, any rate, - for stdin; several follow one another"
    )
    parser.add_argument(
        "--prompt",
        help="what to ask (with --chat: the first question, else the first line of stdin); to a model that "
        "only transcribes it is context, and may be left out",
    )
    add_language_flag(parser)
    parser.add_argument("--chat", action="store_true", help="keep asking about the clips")
    add_task_flag(parser)
    add_level_flags(parser)
    add_answer_length_flag(parser, DEFAULT_MAX_NEW_TOKENS)
    add_long_audio_flag(parser)
    add_sampling_flags(parser)
    add_backend_flags(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one object with the answer, tokens and timings"
    )


def run(args) -> None:
    from .session import Session

    level_from(args)  # raises where the flags make no sense together
    sampling = sampling_from(args)
    if not args.prompt and not args.chat and not _transcribes(args.bundle):
        raise UsageError("give --prompt with a question, or --chat to ask from stdin")
    if args.chat and "-" in args.audio:
        raise UsageError("- reads the sound from stdin, --chat the questions: give the sound as a file")
    options = {
        "max_new_tokens": args.max_new_tokens,
        "sampling": sampling,
        "long_audio": args.long_audio,
        "language": args.language,
    }
    with Session.open(args.bundle, **session_options(args)) as session:
        conversation = session.converse(level_from(args, session.manifest.default_level))
        show = _print_json if args.json else _print_text
        lines = lines_of(sys.stdin) if args.chat else ()
        first = args.prompt or (None if args.chat else "")
        for prompt, audio in questions(first, args.audio, lines):
            stream = conversation.stream(prompt, audio or None, **options)
            if not conversation.turns:  # the clips of the command line: without them there is no chat
                show(stream)
            else:
                try_to_answer(partial(show, stream), audio)


def _transcribes(bundle: str) -> bool:
    """Whether the bundle's model is asked nothing, for it only transcribes."""
    from .bundle import Bundle

    return Bundle.open(bundle).manifest.prompt.transcript is not None


def _print_json(stream: AnswerStream) -> None:
    print(json.dumps(asdict(stream.finish()), ensure_ascii=False), flush=True)


def _print_text(stream: AnswerStream) -> None:
    """The text on stdout as it comes, then one line of figures on stderr."""
    for piece in stream:
        print(piece, end="", flush=True)
    print()
    answer = stream.answer
    note = "" if answer.applied else f" ({answer.reason})"
    language = f"{answer.language}; " if answer.language else ""
    times = ", ".join(f"{name} {value:.1f}" for name, value in answer.timings.items())
    print(
        f"{language}{answer.level}{note}: {answer.tokens_in} audio tokens -> {answer.tokens_out}, "
        f"{answer.reused_tokens} prompt tokens reused; ms: {times}",
        file=sys.stderr,
    )


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
    engines = facts.pop("engines")
    packed = facts.pop("packed")
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {part}" for name, part in value.items())
        print(f"{key:<24}{value}")
    for name, engine in engines.items():
        print(f"{'engines ' + name:<24}{_engine_words(engine)}")
    for name, weights in packed.items():
        print(f"{'packed ' + name:<24}{_packed_words(weights)}")


def _engine_words(facts: dict) -> str:
    """One folder of engines as a line of the table."""
    gpus = facts["gpu"] if facts["gpu"] else f"compute capability {facts['compute_capability']}"
    words = f"{facts['backend']} {facts['tensorrt']} for {gpus}, {', '.join(facts['stages'])}, "
    words += f"{_mib(facts['bytes'])}"
    words += f"; {facts['max_context']} tokens"
    if "kv_cache_bytes" in facts:
        words += f", KV cache {_mib(facts['kv_cache_bytes'])}"
    return words


def _packed_words(facts: dict) -> str:
    """One folder of packed weights as a line of the table."""
    words = f"{facts['graph']} for onnxruntime {facts['onnxruntime']}, {_mib(facts['bytes'])}"
    return f"{words}; not mapped here: {', '.join(facts['not_mapped'])}" if facts["not_mapped"] else words


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.1f} MiB"


def describe(bundle) -> dict:
    """A bundle's facts for users, ready for a table or JSON."""
    from .backends.engine_store import stored
    from .backends.packed_store import stored_packed

    manifest = bundle.manifest
    audio = manifest.audio
    llm = manifest.decoder
    tokens = audio.segment_tokens
    kv_bytes = {}
    for name, ratio in NAMED_RATIOS.items():
        kept = Level(name, ratio).target(tokens)
        kv_bytes[name] = llm.kv_bytes(kept, manifest.precision.kv_itemsize)
    return {
        "family": manifest.family,
        "source": manifest.source,
        "precision": str(manifest.precision),
        "runs_on": manifest.precision.runs_on,
        "flavours": ", ".join(manifest.flavours),
        "encoder_width": audio.encoder_width,
        "llm": f"{llm.layers} layers, width {llm.hidden_size}, {llm.heads} heads, {llm.kv_heads} KV heads, "
        f"vocabulary {llm.vocab_size}",
        "max_positions": llm.max_positions,
        "default_level": manifest.default_level,
        "longest_audio_seconds": audio.segment_seconds * audio.max_segments,
        "audio_tokens_per_segment": tokens,
        "stage_bytes": bundle.stage_bytes(),
        "kv_bytes_per_segment": kv_bytes,
        "tensors": len(manifest.tensors),
        "tools": manifest.tools,
        "engines": {folder.path.name: _engine_facts(folder, manifest) for folder in stored(bundle)},
        "packed": {one.path.name: _packed_facts(one, bundle) for one in stored_packed(bundle)},
    }


def _engine_facts(folder: "EngineFolder", manifest: "Manifest") -> dict:
    """What one folder of TensorRT engines is for, and what it takes."""
    target = folder.key.target
    tokens = folder.key.limits.max_context
    facts = {
        "backend": target.backend,
        "tensorrt": target.tensorrt,
        "compute_capability": target.compute_capability,
        "gpu": target.gpu,
        "stages": list(folder.stages),
        "max_context": tokens,
        "bytes": sum(stage.size for stage in folder.stages.values()),
    }
    if folder.key.flavour == FIXED_CAPACITY:
        facts["kv_cache_bytes"] = manifest.decoder.kv_bytes(tokens, manifest.precision.kv_itemsize)
    return facts


def _packed_facts(packed: "PackedGraph", bundle: "Bundle") -> dict:
    """What one folder of packed weights is for, what it takes, and why this machine does not map it."""
    from .backends.packed_store import packed_differences, this_host

    return {
        "graph": packed.key.graph,
        "onnxruntime": packed.key.host.onnxruntime,
        "cpu": packed.key.host.cpu,
        "bytes": packed.size,
        "not_mapped": packed_differences(packed, bundle, this_host()) + packed.damage(),
    }


def _add_doctor(commands) -> None:
    parser = add_command(
        commands,
        "doctor",
        doctor,
        "say what this machine has and lacks",
        DOCTOR_DESCRIPTION,
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
