"""What is told about a file: a warning where it was read all the same, an error where it is not."""

import shlex
import warnings

READ_FORMATS = "WAV, FLAC, OGG and MP3"


class AudioWarning(UserWarning):
    """The sound was read; something about it is not as it should be."""


class UnreadError(ValueError):
    """A format that is known and not read."""

    def __init__(self, name: str, format_name: str):
        super().__init__(
            f"{name} is {format_name}, which is not read; {READ_FORMATS} are: "
            f"ffmpeg -i {shlex.quote(name)} out.wav"
        )
        self.format_name = format_name


def warn_audio(text: str) -> None:
    warnings.warn(text, AudioWarning, stacklevel=2)


def unreadable(name: str, reason: str) -> ValueError:
    return ValueError(
        f"{name} is not readable audio ({reason}); {READ_FORMATS} are. Copy it again, or try "
        f"ffmpeg -i {shlex.quote(name)} out.wav"
    )


def truncated(name: str, promised: str, held: str) -> ValueError:
    return ValueError(
        f"{name} is truncated or damaged: its header promises {promised}, it holds {held}; copy it again, or keep "
        f"what is there with ffmpeg -i {shlex.quote(name)} out.wav"
    )
