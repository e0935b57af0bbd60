"""`ltbm serve`."""

import argparse
import os
from pathlib import Path

from ..arguments import (
    UsageError,
    add_answer_length_flag,
    add_backend_flags,
    add_command,
    add_level_flags,
    add_long_audio_flag,
    add_sampling_flags,
    add_task_flag,
    finite,
    level_from,
    sampling_from,
    session_options,
    whole,
)
from ..request import DEFAULT_MAX_NEW_TOKENS
from .level_fields import LEVEL_FIELDS
from .settings import MIB, TRANSCRIPTION_PROMPT, Limits, Media, Settings

KEY_VARIABLE = "LTBM_API_KEY"
DESCRIPTION = """\
Serve one bundle to OpenAI clients: POST /v1/chat/completions and /v1/audio/transcriptions,
GET /v1/models, /health, /health/ready, /metrics, /openapi.json, and a page at / to try it.
One request runs, others wait. A client chooses the level with the fields level, keep_ratio,
audio_tokens, window, positions, attention and task, or with the model's name: ltbm:keep25.
The flags below are what a request gets that names none. Ctrl-C or SIGTERM ends it.

  ltbm serve ./bundle --port 8000 --level keep50
  curl http://127.0.0.1:8000/v1/audio/transcriptions -F model=ltbm -F file=@clip.wav

Docs: docs/serve.md"""


def add_commands(commands) -> None:
    parser = add_command(commands, "serve", serve, "answer OpenAI clients over HTTP", DESCRIPTION)
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    _add_address(parser)
    _add_answering(parser)
    _add_limits(parser)
    _add_media(parser)
    add_level_flags(parser)
    add_task_flag(parser)
    add_long_audio_flag(parser)
    add_sampling_flags(parser)
    add_backend_flags(parser)


def _add_address(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who may ask")
    group.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="0.0.0.0 for all the network (default 127.0.0.1)",
    )
    group.add_argument(
        "--port", type=whole(0, 65535), default=8000, metavar="N", help="0 is any free one (default 8000)"
    )
    group.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"refuse requests without it; the variable {KEY_VARIABLE} keeps it out of the list of processes",
    )


def _add_answering(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it answers")
    group.add_argument(
        "--served-model-name", default="ltbm", metavar="NAME", help="how requests call it (default ltbm)"
    )
    help = "longest answer where the request names no max_tokens (default {})"
    add_answer_length_flag(group, DEFAULT_MAX_NEW_TOKENS, help)
    group.add_argument(
        "--transcription-prompt",
        metavar="TEXT",
        help=f"what /v1/audio/transcriptions asks (default: {TRANSCRIPTION_PROMPT} A model that only "
        "transcribes is asked nothing: to it this is context)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits of a request")
    defaults = Limits()
    positive = finite(above=True)
    options = (
        ("--max-request-mib", positive, defaults.body_bytes / MIB, "MiB as it is sent"),
        ("--max-audio-seconds", positive, defaults.audio_seconds, "seconds of all its audio, decoded"),
        ("--max-audios", whole(), defaults.audios, "audios"),
        ("--max-prompt-tokens", whole(), None, "tokens of the prompt (default: the model's positions)"),
        (
            "--max-queued-requests",
            whole(0),
            defaults.queued,
            "requests that wait, beside the one that runs; then 429",
        ),
        ("--queue-timeout", positive, defaults.queue_seconds, "seconds that one waits; then 429"),
        ("--request-timeout", positive, defaults.body_seconds, "seconds that one takes to be sent; then 408"),
        ("--media-timeout", positive, defaults.fetch_seconds, "seconds that a remote audio takes"),
        (
            "--shutdown-timeout",
            finite(),
            defaults.shutdown_seconds,
            "seconds that requests have left at the end",
        ),
    )
    for name, kind, default, help in options:
        shown = help if default is None else f"{help} (default {default:g})"
        group.add_argument(name, type=kind, default=default, metavar="N", help=shown)


def _add_media(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("audio by address (data: is always taken)")
    group.add_argument(
        "--allowed-media-host",
        action="append",
        default=[],
        metavar="HOST",
        help="take http and https audio of this host; of a private address only where it is written out",
    )
    group.add_argument(
        "--allowed-local-media-path", type=Path, metavar="FOLDER", help="take file: audio in it"
    )


def serve(args) -> None:
    settings = settings_from(args)
    try:
        from .running import run_server
    except ImportError as error:
        raise ImportError(f"{error}; `ltbm serve` needs the extra serve: pip install 'ltbm[serve]'") from None
    run_server(args.bundle, session_options(args), settings, args.host, args.port)


def settings_from(args: argparse.Namespace) -> Settings:
    """All flags, checked."""
    level_from(args)  # raises where they make no sense together
    if not args.served_model_name.strip() or ":" in args.served_model_name:
        raise UsageError(f"--served-model-name {args.served_model_name!r} is empty or has a colon")
    return Settings(
        model=args.served_model_name,
        level_flags={name: getattr(args, name) for name in LEVEL_FIELDS},
        sampling=sampling_from(args),
        max_new_tokens=args.max_new_tokens,
        long_audio=args.long_audio,
        transcription_prompt=args.transcription_prompt,
        api_key=args.api_key or os.environ.get(KEY_VARIABLE) or None,
        limits=_limits_from(args),
        media=_media_from(args),
    )


def _limits_from(args: argparse.Namespace) -> Limits:
    return Limits(
        body_bytes=int(args.max_request_mib * MIB),
        audio_seconds=args.max_audio_seconds,
        audios=args.max_audios,
        prompt_tokens=args.max_prompt_tokens,
        queued=args.max_queued_requests,
        queue_seconds=args.queue_timeout,
        body_seconds=args.request_timeout,
        fetch_seconds=args.media_timeout,
        shutdown_seconds=args.shutdown_timeout,
    )


def _media_from(args: argparse.Namespace) -> Media:
    folder = args.allowed_local_media_path
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--allowed-local-media-path {folder} is not a folder")
    return Media(frozenset(host.lower() for host in args.allowed_media_host), folder)
