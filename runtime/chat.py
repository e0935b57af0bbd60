"""The lines of `ltbm run --chat`: questions, and clips that come between them."""

import io
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

AUDIO = "/audio"


def questions(prompt: str | None, audio: list[str], lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each question with the clips that come with it: `prompt` first if there is one, then the lines up to
    an empty one. A clip that is not there is said and left out."""
    if prompt is not None:
        yield prompt, audio
        audio = []
    for line in lines:
        text = line.strip()
        if not text:
            return
        if text.split()[0] == AUDIO:
            audio = audio + _clips(text.removeprefix(AUDIO).strip())
            continue
        yield text, audio
        audio = []


def lines_of(stream: TextIO) -> Iterable[str]:
    """The lines of stdin; names of files in them may be any bytes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="surrogateescape")
    return stream


def _clips(written: str) -> list[str]:
    """The clip that was named, as it is or as a shell would read it: quoted, or with backslashes."""
    for name in (written, *_as_in_a_shell(written)):
        if name and os.path.exists(name):
            return [name]
    say(f"no audio file {written}; the chat goes on" if written else f"{AUDIO} FILE brings a clip: name one")
    return []


def _as_in_a_shell(written: str) -> list[str]:
    try:
        words = shlex.split(written)
    except ValueError:  # an apostrophe
        return []
    return words if len(words) == 1 else []


def try_to_answer(answer: Callable[[], None], audio: list[str]) -> None:
    """Run `answer`; what is wrong with the question or its clips is said, for the next may do better."""
    try:
        answer()
    except BrokenPipeError:  # nobody reads the answers any more
        raise
    except (ValueError, OSError) as error:
        without = f"; {', '.join(audio)} is left out" if audio else ""
        say(f"{error}{without}; the chat goes on")


def say(text: str) -> None:
    print(f"ltbm: {' '.join(text.split())}", file=sys.stderr)
