"""Stage 4, splice: text embeddings and merged audio become one prefix, with its positions and its weights."""

from dataclasses import dataclass

import numpy as np

from ltbm.runtime.levels import Level
from ltbm.runtime.stages.merge import MergedAudio


@dataclass(frozen=True)
class Prefix:
    """What the LLM reads before it answers; S tokens.

    token_ids: [S] int64, the audio placeholder repeated once per kept token
    inputs_embeds: [S, H] in the bundle's precision
    position_ids: [S] int64, rotary positions
    key_bias: [S] float32, added to the attention logits of each token's key
    next_position: the position of the first answer token
    """

    token_ids: np.ndarray
    inputs_embeds: np.ndarray
    position_ids: np.ndarray
    key_bias: np.ndarray
    next_position: int


def splice(prompt_ids: list[int], audios: list[MergedAudio], audio_token_id: int, embeddings: np.ndarray, level: Level) -> Prefix:
    """Put each audio in the place of its placeholder in `prompt_ids` (one placeholder per audio, in order).

    `original` positions leave a merged token at its anchor and let the text after it continue at the audio's full
    length; `compact` ones count on. `proportional` attention gives a merged token's key the bias log(size).
    """
    places = [place for place, token in enumerate(prompt_ids) if token == audio_token_id]
    if len(places) != len(audios):
        raise ValueError(f"the prompt has {len(places)} audio placeholders for {len(audios)} audios")
    pieces, position, start = [], 0, 0
    for place, audio in zip(places, audios):
        pieces.append(_text_piece(prompt_ids[start:place], embeddings, position))
        position += place - start
        pieces.append(_audio_piece(audio, audio_token_id, position, level))
        position += audio.tokens_in if level.positions == "original" else audio.tokens_out
        start = place + 1
    pieces.append(_text_piece(prompt_ids[start:], embeddings, position))
    return Prefix(*(np.concatenate(column) for column in zip(*pieces)), next_position=position + len(prompt_ids) - start)


def _text_piece(token_ids: list[int], embeddings: np.ndarray, position: int) -> tuple:
    ids = np.array(token_ids, np.int64)
    return ids, embeddings[ids], np.arange(position, position + len(ids)), np.zeros(len(ids), np.float32)


def _audio_piece(audio: MergedAudio, audio_token_id: int, position: int, level: Level) -> tuple:
    ids = np.full(audio.tokens_out, audio_token_id, np.int64)
    places = audio.anchors.astype(np.int64) if level.positions == "original" else np.arange(audio.tokens_out)
    bias = np.log(audio.sizes.astype(np.float32)) if level.attention == "proportional" else np.zeros(len(ids), np.float32)
    return ids, audio.merged_embeds, position + places, bias
