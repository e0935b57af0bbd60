"""What is told about a file: a warning where it was read all the same, an error where it is not."""

import shlex
import warnings

READ_FORMATS = "WAV, FLAC, OGG and MP3"


class AudioWarning(UserWarning):
    """The sound was read; something about it is not as it should be."""


def convert_line(name: str) -> str:
    """The command that makes a WAV of a file."""
    is_file = name != "stdin" and not name.startswith("the audio")  # those have no name in the shell
    return f"ffmpeg -i {shlex.quote(name) if is_file else 'FILE'} out.wav"


class UnreadError(ValueError):
    """A format that is known and not read."""

    def __init__(self, name: str, format_name: str):
        super().__init__(
            f"{name} is {format_name}, which is not read; {READ_FORMATS} are: {convert_line(name)}, "
            "or pip install 'ltbm[media]' to read it"
        )
        self.format_name = format_name


def warn_audio(text: str) -> None:
    warnings.warn(text, AudioWarning, stacklevel=2)


def unreadable(name: str, reason: str) -> ValueError:
    return ValueError(
        f"{name} is not readable audio ({reason}); {READ_FORMATS} are. Copy it again, or try "
        f"{convert_line(name)}"
    )


def truncated(name: str, promised: str, held: str) -> ValueError:
    return ValueError(
        f"{name} is truncated or damaged: its header promises {promised}, it holds {held}; copy it again, or "
        f"keep what is there with {convert_line(name)}"
    )
