"""Stage 4, splice: text embeddings and merged audio become one prefix, with its positions and its weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..engine import Array
from ..levels import Level
from .merge import MergedAudio


@dataclass(frozen=True)
class Prefix:
    """What the LLM reads before it answers; S tokens, on the decoder's device but for the ids.

    token_ids: [S] int64, the audio placeholder repeated once per kept token
    inputs_embeds: [S, H] in the bundle's precision
    position_ids: [S] int64, rotary positions
    key_bias: [S] float32, added to the attention logits of each token's key
    next_position: the position of the first answer token
    """

    token_ids: np.ndarray
    inputs_embeds: Array
    position_ids: Array
    key_bias: Array
    next_position: int


@dataclass(frozen=True)
class Piece:
    """A run of the prompt: text, or one audio.

    start: its first token's place among the prompt's tokens once audio is spliced in
    position: its first token's rotary position
    token_ids: of the text; None for an audio
    audio: which of the prompt's audios
    """

    start: int
    position: int
    length: int
    token_ids: Sequence[int] | None = None
    audio: int | None = None


def lay_out(
    prompt_ids: Sequence[int], audios: Sequence, audio_token_id: int, level: Level
) -> tuple[list[Piece], int]:
    """The pieces of a prompt, one placeholder per audio, and the position after it.

    audios: anything with tokens_in and tokens_out, which are known before anything is encoded
    `original` positions leave a merged token at its anchor and let the text after it continue at the audio's full
    length; `compact` ones count on.
    """
    places = [place for place, token in enumerate(prompt_ids) if token == audio_token_id]
    if len(places) != len(audios):
        raise ValueError(f"the prompt has {len(places)} audio placeholders for {len(audios)} audios")
    pieces, start, position, begin = [], 0, 0, 0
    for index, (place, audio) in enumerate(zip(places, audios)):
        text = prompt_ids[begin:place]
        pieces.append(Piece(start, position, len(text), token_ids=text))
        start, position = start + len(text), position + len(text)
        pieces.append(Piece(start, position, audio.tokens_out, audio=index))
        start, position = (
            start + audio.tokens_out,
            position + (audio.tokens_in if level.positions == "original" else audio.tokens_out),
        )
        begin = place + 1
    text = prompt_ids[begin:]
    pieces.append(Piece(start, position, len(text), token_ids=text))
    return pieces, position + len(text)


def splice(
    prompt_ids: Sequence[int],
    audios: Sequence[MergedAudio],
    audio_token_id: int,
    embeddings,
    level: Level,
    zeros: Callable = np.zeros,
    skip: int = 0,
) -> Prefix:
    """Put each audio in the place of its placeholder in `prompt_ids` (one placeholder per audio, in order).

    embeddings: indexed by token ids, gives their rows [n, H], in the type of the decoder's inputs_embeds
    zeros: allocates on the decoder's device
    skip: leaves out so many first tokens, which the KV cache holds already; not in the middle of an audio
    """
    pieces, next_position = lay_out(prompt_ids, audios, audio_token_id, level)
    total = pieces[-1].start + pieces[-1].length - skip
    prefix = Prefix(
        np.zeros(total, np.int64),
        zeros((total, embeddings.shape[1]), embeddings.dtype),
        zeros((total,), np.int64),
        zeros((total,), np.float32),
        next_position,
    )
    for piece in pieces:
        if piece.start + piece.length > skip:
            _fill(prefix, piece, skip, audios, audio_token_id, embeddings, level)
    return prefix


def _fill(
    prefix: Prefix, piece: Piece, skip: int, audios, audio_token_id: int, embeddings, level: Level
) -> None:
    cut = max(0, skip - piece.start)  # tokens of the piece that are left out
    here = slice(piece.start + cut - skip, piece.start + piece.length - skip)
    if piece.audio is None:
        ids = np.array(piece.token_ids[cut:], np.int64)
        prefix.token_ids[here] = ids
        prefix.inputs_embeds[here] = embeddings[ids]
        prefix.position_ids[here] = np.arange(piece.position + cut, piece.position + piece.length)
        return
    if cut:
        raise ValueError(f"{cut} of {piece.length} tokens of an audio cannot be left out, only all or none")
    audio = audios[piece.audio]
    prefix.token_ids[here] = audio_token_id
    prefix.inputs_embeds[here] = audio.merged_embeds
    prefix.position_ids[here], prefix.key_bias[here] = _placed(audio, piece.position, level)


def _placed(audio: MergedAudio, position: int, level: Level) -> tuple[Array, Array]:
    """position_ids and key_bias [K]: those that the merge wrote if it wrote them for this place, else made on the host."""
    placed = audio.placed
    if placed and (placed.first_position, placed.positions, placed.attention) == (
        position,
        level.positions,
        level.attention,
    ):
        return placed.position_ids, placed.key_bias
    places = audio.anchors.astype(np.int64) if level.positions == "original" else np.arange(audio.tokens_out)
    bias = (
        np.log(audio.sizes.astype(np.float32))
        if level.attention == "proportional"
        else np.zeros(audio.tokens_out, np.float32)
    )
    return position + places, bias
