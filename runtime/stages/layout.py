"""Where everything of a prompt stands, known before anything is encoded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..levels import Level


@dataclass(frozen=True)
class TokenCounts:
    """Audio tokens of a segment before and after merging."""

    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class _Run:
    """Consecutive tokens of a prompt.

    start: the first one's index among the prompt's tokens once audio is spliced in
    position: the first one's rotary position
    """

    start: int
    position: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class TextPiece(_Run):
    """A run of text tokens."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class AudioPiece(_Run):
    """The kept tokens of one segment of an audio.

    audio: which of the prompt's audios; segment: which of its segments
    tokens_in: encoder tokens of the segment, before merging
    """

    audio: int
    segment: int
    tokens_in: int


@dataclass(frozen=True)
class Layout:
    """A prompt laid out at a settled level.

    reason: why the level changes nothing; empty if it does
    next_position: the rotary position of the first answer token
    """

    pieces: tuple[TextPiece | AudioPiece, ...]
    audio_token_id: int
    level: Level
    reason: str
    next_position: int

    @property
    def length(self) -> int:
        """Tokens of the prompt, S."""
        return self.pieces[-1].end

    @property
    def token_ids(self) -> list[int]:
        """The prompt's token ids [S], the audio placeholder repeated once per kept token."""
        ids: list[int] = []
        for piece in self.pieces:
            if isinstance(piece, TextPiece):
                ids += piece.token_ids
            else:
                ids += [self.audio_token_id] * piece.length
        return ids

    @property
    def tokens_in(self) -> int:
        return sum(piece.tokens_in for piece in self.audio_pieces())

    @property
    def tokens_out(self) -> int:
        return sum(piece.length for piece in self.audio_pieces())

    def audio_pieces(self) -> list[AudioPiece]:
        """The audios' pieces, in order."""
        return [piece for piece in self.pieces if isinstance(piece, AudioPiece)]

    def without_question(self) -> "Layout":
        """The prompt up to the end of its last audio: what is known before the question is."""
        *before, question = self.pieces
        assert isinstance(question, TextPiece), "a prompt ends with text"
        return replace(self, pieces=tuple(before), next_position=question.position)


def lay_out(
    prompt_ids: Sequence[int],
    audios: Sequence[Sequence[TokenCounts]],
    audio_token_id: int,
    level: Level,
    reason: str = "",
) -> Layout:
    """The layout of a prompt with one placeholder per audio in `prompt_ids`.

    audios: tokens of each audio's segments; segments too short for a token take no place
    `original` positions leave a merged token at its anchor and let the text after it continue at the audio's
    full length; `compact` ones count on.
    """
    placeholders = [index for index, token in enumerate(prompt_ids) if token == audio_token_id]
    if len(placeholders) != len(audios):
        raise ValueError(f"the prompt has {len(placeholders)} audio placeholders for {len(audios)} audios")
    pieces: list[TextPiece | AudioPiece] = []
    start, position, text_begin = 0, 0, 0
    for index, audio in enumerate(audios):
        text = tuple(prompt_ids[text_begin : placeholders[index]])
        pieces.append(TextPiece(start, position, len(text), text))
        start += len(text)
        position += len(text)
        for segment, counts in enumerate(audio):
            if not counts.tokens_in:
                continue
            pieces.append(AudioPiece(start, position, counts.tokens_out, index, segment, counts.tokens_in))
            start += counts.tokens_out
            position += counts.tokens_in if level.positions == "original" else counts.tokens_out
        text_begin = placeholders[index] + 1
    text = tuple(prompt_ids[text_begin:])
    pieces.append(TextPiece(start, position, len(text), text))
    return Layout(tuple(pieces), audio_token_id, level, reason, position + len(text))
