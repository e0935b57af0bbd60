"""Stage 4, splice: text embeddings and merged audio become one prefix, with its positions and its weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..engine import Array
from ..levels import Level
from .layout import AudioPiece, Layout, TextPiece
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

    def __len__(self) -> int:
        return len(self.token_ids)


class EmbeddingTable(Protocol):
    """Rows [n, H] by token ids [n]: `Embeddings`, or an array [V, H]."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, token_ids, /) -> np.ndarray: ...


def splice(
    layout: Layout,
    audios: Sequence[MergedAudio],
    embeddings: EmbeddingTable,
    zeros: Callable[..., Array] = np.zeros,
    skip: int = 0,
) -> Prefix:
    """The prompt's tokens from `skip` on, each audio in the place of its placeholder.

    audios: what is read, in order, each one or more segments of an audio; segments among the first `skip`
        tokens are left out
    zeros: allocates on the decoder's device
    skip: first tokens to leave out, which the KV cache holds already; never a part of a segment
    """
    total = layout.length - skip
    prefix = Prefix(
        np.zeros(total, np.int64),
        zeros((total, embeddings.shape[1]), embeddings.dtype),
        zeros((total,), np.int64),
        zeros((total,), np.float32),
        layout.next_position,
    )
    for piece in layout.pieces:
        if isinstance(piece, TextPiece) and piece.end > skip:
            _write_text(prefix, piece, skip, embeddings)
    unread = [piece for piece in layout.audio_pieces() if piece.end > skip]
    for pieces, audio in zip(_shares(unread, audios), audios):
        _write_audio(prefix, pieces, skip, audio, layout)
    return prefix


def _shares(pieces: Sequence[AudioPiece], audios: Sequence[MergedAudio]) -> list[Sequence[AudioPiece]]:
    """The pieces of each merged audio: as many as it has segments."""
    given = sum(len(audio.rows) for audio in audios)
    if len(pieces) != given:
        raise ValueError(f"the prefix reads {len(pieces)} segments of audio, {given} were given")
    shares = []
    first = 0
    for audio in audios:
        shares.append(pieces[first : first + len(audio.rows)])
        first += len(audio.rows)
    return shares


def _write_text(prefix: Prefix, piece: TextPiece, skip: int, embeddings: EmbeddingTable) -> None:
    cut = max(0, skip - piece.start)  # tokens of the piece that are left out
    target = slice(piece.start + cut - skip, piece.end - skip)
    ids = np.array(piece.token_ids[cut:], np.int64)
    prefix.token_ids[target] = ids
    prefix.inputs_embeds[target] = embeddings[ids]
    prefix.position_ids[target] = np.arange(piece.position + cut, piece.position + piece.length)


def _write_audio(
    prefix: Prefix, pieces: Sequence[AudioPiece], skip: int, audio: MergedAudio, layout: Layout
) -> None:
    """Consecutive segments of one audio, merged together."""
    first = pieces[0]
    if skip > first.start:
        raise ValueError(
            f"{skip - first.start} of {first.length} tokens of a segment cannot be left out, only all or none"
        )
    target = slice(first.start - skip, pieces[-1].end - skip)
    prefix.token_ids[target] = layout.audio_token_id
    prefix.inputs_embeds[target] = audio.merged_embeds
    position_ids, key_bias = _decoder_inputs(audio, first.position, layout.level)
    prefix.position_ids[target] = position_ids
    prefix.key_bias[target] = key_bias


def _decoder_inputs(audio: MergedAudio, position: int, level: Level) -> tuple[Array, Array]:
    """position_ids and key_bias [K]: those that the merge wrote if it wrote them for this position, else made
    here."""
    written = audio.decoder_inputs
    if written and written.fit(position, level):
        return written.position_ids, written.key_bias
    offsets = audio.anchors.astype(np.int64) if level.positions == "original" else np.arange(audio.tokens_out)
    return position + offsets, _key_bias(audio, level)


def _key_bias(audio: MergedAudio, level: Level) -> np.ndarray:
    return np.float32(level.bias_strength) * np.log(audio.sizes.astype(np.float32))
