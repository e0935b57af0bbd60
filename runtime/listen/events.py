"""What happened while a session listened, in records."""

from dataclasses import dataclass

READ = "read"  # a whole segment was encoded, merged and prefilled
PREPARED = "prepared"  # the same with the open segment, ahead of a question
DROPPED = "dropped"  # the oldest segments left the prompt
SKIPPED = "skipped"  # digital silence was left out, once sound came again
LOST = "lost"  # samples were refused, because reading had fallen behind


@dataclass(frozen=True)
class Event:
    """One thing that happened to a stretch of the sound.

    kind: read, prepared, dropped, skipped or lost
    start, seconds: where the stretch begins, counted from the first sample that was taken, and how long it is
    tokens_in, tokens_out: its audio tokens before and after merging; 0 where nothing was read
    milliseconds: what reading it took
    """

    kind: str
    start: float
    seconds: float
    tokens_in: int = 0
    tokens_out: int = 0
    milliseconds: float = 0.0


@dataclass(frozen=True)
class AudioSpan:
    """The part of the sound that an answer is about, in seconds from the first sample that was taken.

    lost: seconds that were refused within it because reading had fallen behind, not counted in it
    skipped: seconds of digital silence within it that were left out
    """

    start: float
    end: float
    lost: float
    skipped: float = 0.0
