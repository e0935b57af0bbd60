"""Where everything of a prompt stands, known before anything is encoded."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..levels import Level


@dataclass(frozen=True)
class TokenCounts:
    """Audio tokens before and after merging, of a segment or of a whole audio."""

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
    """The kept tokens of one audio; `index` says which of the prompt's audios."""

    index: int


@dataclass(frozen=True)
class Layout:
    """A prompt laid out at a settled level.

    audios: tokens of each audio, in order
    reason: why the level changes nothing; empty if it does
    next_position: the rotary position of the first answer token
    """

    pieces: tuple[TextPiece | AudioPiece, ...]
    audios: tuple[TokenCounts, ...]
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
        return sum(audio.tokens_in for audio in self.audios)

    @property
    def tokens_out(self) -> int:
        return sum(audio.tokens_out for audio in self.audios)

    def audio_pieces(self) -> list[AudioPiece]:
        """The audios' pieces, in order."""
        return [piece for piece in self.pieces if isinstance(piece, AudioPiece)]


def lay_out(
    prompt_ids: Sequence[int],
    audios: Sequence[TokenCounts],
    audio_token_id: int,
    level: Level,
    reason: str = "",
) -> Layout:
    """The layout of a prompt with one placeholder per audio in `prompt_ids`.

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
        pieces.append(AudioPiece(start, position, audio.tokens_out, index))
        start += audio.tokens_out
        position += audio.tokens_in if level.positions == "original" else audio.tokens_out
        text_begin = placeholders[index] + 1
    text = tuple(prompt_ids[text_begin:])
    pieces.append(TextPiece(start, position, len(text), text))
    return Layout(tuple(pieces), tuple(audios), audio_token_id, level, reason, position + len(text))
