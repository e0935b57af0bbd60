"""A prompt as a session reads it: its segments of audio, and a key for each of its tokens."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from .audio_cache import level_key
from .stages.layout import AudioPiece, Layout, TextPiece
from .stages.segments import Audio, Segment


@dataclass(frozen=True)
class SegmentInPrompt:
    """A segment and its place in the prompt.

    content: what tells it from others
    """

    piece: AudioPiece
    segment: Segment
    content: Hashable


@dataclass(frozen=True)
class Reading:
    """A layout with the audio in it.

    segments: in the order of the layout's audio pieces
    """

    layout: Layout
    segments: tuple[SegmentInPrompt, ...]

    def unread(self, reused: int) -> list[SegmentInPrompt]:
        """The segments after the first `reused` tokens."""
        return [segment for segment in self.segments if segment.piece.start >= reused]

    def segment_boundary(self, tokens: int) -> int:
        """`tokens`, or the start of the segment that they end in."""
        for segment in self.segments:
            piece = segment.piece
            if piece.start < tokens < piece.end:
                return piece.start
        return tokens

    def token_keys(self) -> list[Hashable]:
        """What each token is: an id, or a segment's content, level and the token's index in it.

        Equal first keys are equal first tokens at equal positions: what stands before gives the position.
        """
        contents = iter([segment.content for segment in self.segments])
        level = level_key(self.layout.level)
        keys: list[Hashable] = []
        for piece in self.layout.pieces:
            if isinstance(piece, TextPiece):
                keys += piece.token_ids
            else:
                merged = (next(contents), level)
                keys += [(merged, index) for index in range(piece.length)]
        return keys


def reading_of(layout: Layout, audios: Sequence[Audio], by_content: bool) -> Reading:
    """The layout with the segments of `audios` in it.

    by_content: segments of the same samples are the same; else each is known by its place alone
    """
    segments = []
    for piece in layout.audio_pieces():
        segment = audios[piece.audio][piece.segment]
        content = segment.digest if by_content else (piece.audio, piece.segment)
        segments.append(SegmentInPrompt(piece, segment, content))
    return Reading(layout, tuple(segments))
