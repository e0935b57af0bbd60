"""`ltbm listen`: sound from a pipe or a microphone, questions from the terminal."""

import argparse
import json
import sys
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from queue import SimpleQueue

from ..arguments import (
    UsageError,
    add_answer_length_flag,
    add_backend_flags,
    add_command,
    add_language_flag,
    add_level_flags,
    add_sampling_flags,
    add_task_flag,
    finite,
    level_from,
    sampling_from,
    session_options,
    whole,
)
from ..request import DEFAULT_MAX_NEW_TOKENS
from ..sound.limits import HIGHEST_RATE, LOWEST_RATE
from .feed import Ask, Feed, SpeechEnds
from .silence import silero
from .sources import FORMATS, Microphone, read_pcm

DESCRIPTION = """\
Listen to sound while it comes and answer questions about all that has come. Whole segments of 30 s are
encoded, merged and read by the LLM as they arrive, so that a question waits for the last piece alone.
Questions are lines from the terminal (or of --questions FILE); Ctrl-D or an empty line ends.

  arecord -f S16_LE -r 16000 -t raw | ltbm listen ./bundle - --level keep25
  ffmpeg -i talk.mp3 -ac 1 -ar 16000 -f s16le - | ltbm listen ./bundle - --prompt 'What was said?'
  ltbm listen ./bundle --microphone --ask-on-silence 'What was said?'"""

MOST_CHANNELS = 256
END = None  # in the queue of what there is to do


def add_commands(commands) -> None:
    parser = add_command(commands, "listen", run, "listen to sound that streams in", DESCRIPTION)
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    _add_source(parser)
    _add_questions(parser)
    add_task_flag(parser)
    add_level_flags(parser)
    add_sampling_flags(parser)
    add_backend_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one object for each answer")


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", choices=("-",), help="- for raw PCM from stdin")
    parser.add_argument("--microphone", action="store_true", help="listen to a recording device instead")
    parser.add_argument(
        "--input-device", metavar="NAME", help="which: a name or number of `python -m sounddevice`"
    )
    parser.add_argument(
        "--rate",
        type=whole(LOWEST_RATE, HIGHEST_RATE),
        default=16_000,
        metavar="HZ",
        help="of the sound (default 16000)",
    )
    parser.add_argument(
        "--channels", type=whole(1, MOST_CHANNELS), default=1, metavar="N", help="of the sound (default 1)"
    )
    parser.add_argument(
        "--format", choices=tuple(FORMATS), default="s16le", help="of raw PCM (default s16le)"
    )
    parser.add_argument(
        "--max-seconds",
        type=finite(above=True),
        default=600.0,
        metavar="S",
        help="of sound kept; the oldest goes beyond it (default 600)",
    )
    parser.add_argument(
        "--skip-silence",
        action="store_true",
        help="of a digital silence (a muted microphone) read the first second alone",
    )


def _add_questions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", help="ask this once, when the sound has ended, and exit")
    parser.add_argument(
        "--questions", metavar="FILE", help="read questions from here, one a line, not from the terminal"
    )
    parser.add_argument(
        "--ask-on-silence", metavar="PROMPT", help="ask this whenever somebody has stopped speaking"
    )
    parser.add_argument(
        "--silence",
        type=finite(above=True),
        default=0.7,
        metavar="S",
        help="seconds of silence that end speech (default 0.7)",
    )
    parser.add_argument(
        "--conversation", action="store_true", help="keep questions and answers in the prompt"
    )
    add_language_flag(parser)
    add_answer_length_flag(parser, DEFAULT_MAX_NEW_TOKENS)


def run(args) -> None:
    from ..session import Session

    _check(args)
    level_from(args)  # raises where the flags make no sense together
    sampling = sampling_from(args)
    with ExitStack() as stack:
        questions = _open_questions(args, stack)
        session = stack.enter_context(Session.open(args.bundle, **session_options(args)))
        session.beginning(args.language)  # raises for one that the model does not take, before it listens
        listener = stack.enter_context(
            session.listen(
                level_from(args, session.manifest.default_level),
                max_seconds=args.max_seconds,
                sampling_rate=args.rate,
                conversation=args.conversation,
                on_behind=_tell_lost,
                skip_silence=args.skip_silence,
            )
        )
        todo: SimpleQueue[Ask | Exception | None] = SimpleQueue()
        feed = Feed(listener, todo.put, _speech_ends(args))
        _start_sound(args, feed, todo, stack)
        if questions is not None:
            threading.Thread(target=_read_questions, args=(questions, todo), daemon=True).start()
        for ask in iter(todo.get, END):
            if isinstance(ask, Exception):
                raise ask
            options = {
                "max_new_tokens": args.max_new_tokens,
                "sampling": sampling,
                "until": ask.until,
                "language": args.language,
            }
            try:
                _print_answer(listener.ask(ask.prompt, **options), args.json)
            except ValueError as error:
                if questions is None:
                    raise
                print(f"ltbm: {error}", file=sys.stderr)  # the next question may do better


def _speech_ends(args) -> SpeechEnds | None:
    """What asks when somebody has stopped speaking."""
    if args.ask_on_silence is None:
        return None
    return SpeechEnds(args.ask_on_silence, silero(), args.silence, args.rate)


def _start_sound(args, feed: Feed, todo: SimpleQueue, stack: ExitStack) -> None:
    if args.microphone:
        microphone = Microphone(feed.take, todo.put, args.rate, args.channels, args.input_device)
        stack.callback(microphone.close)
        return
    pieces = read_pcm(sys.stdin.buffer, args.rate, args.channels, args.format)
    last: list[Ask | None] = [] if args.prompt is None else [Ask(args.prompt)]
    if _asks_by_itself(args):
        last.append(END)  # the sound's end is the end
    threading.Thread(target=feed.take_all, args=(pieces, last), daemon=True).start()


def _asks_by_itself(args) -> bool:
    """Whether flags hold what is asked; an empty text asks a model that only transcribes."""
    return args.prompt is not None or args.ask_on_silence is not None


def _check(args) -> None:
    if args.microphone == (args.source is not None):
        raise UsageError("give - to read raw PCM from stdin, or --microphone")


def _open_questions(args, stack: ExitStack) -> Iterable[str] | None:
    """Lines of questions, or None where they come from elsewhere."""
    if args.questions:
        return stack.enter_context(open(args.questions, encoding="utf-8", errors="surrogateescape"))
    if _asks_by_itself(args):
        return None
    if args.microphone:
        return sys.stdin
    try:
        return stack.enter_context(open("/dev/tty", encoding="utf-8"))
    except OSError:
        raise UsageError(
            "stdin is the sound, and there is no terminal to ask from: give --prompt, --questions FILE or "
            "--ask-on-silence"
        ) from None


def _read_questions(lines: Iterable[str], todo: SimpleQueue) -> None:
    """Every line as a question; the end of them, or an empty line, ends listening."""
    try:
        for line in lines:
            if not line.strip():
                break
            todo.put(Ask(line.strip()))
        todo.put(END)
    except (OSError, ValueError) as error:  # what is read is no text
        todo.put(error)


def _tell_lost(event) -> None:
    print(
        f"ltbm: reading fell behind, {event.seconds:.2f} s of sound at {event.start:.1f} s are lost; "
        "a lower level reads faster",
        file=sys.stderr,
    )


def _print_answer(stream, as_json: bool) -> None:
    if as_json:
        answer = stream.finish()
        print(json.dumps(asdict(answer) | {"span": asdict(stream.span)}, ensure_ascii=False), flush=True)
        return
    for piece in stream:
        print(piece, end="", flush=True)
    print(flush=True)
    answer = stream.answer
    span = stream.span
    language = f"{answer.language}; " if answer.language else ""
    skipped = f" without {span.skipped:.1f} s of silence" if span.skipped else ""
    print(
        f"{language}{answer.level}: {span.start:.1f} to {span.end:.1f} s{skipped}, "
        f"{answer.tokens_in} audio tokens -> {answer.tokens_out}, "
        f"{answer.reused_tokens} prompt tokens read before; "
        f"first token after {answer.timings['ttft']:.0f} ms",
        file=sys.stderr,
    )
