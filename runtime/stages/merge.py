"""Stage 3, merge: similar neighbouring audio tokens become one (LTBM), then the projector takes them to the LLM's width."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..engine import Array, Engine
from ..levels import Level
from .encoder import EncodedRows


@dataclass(frozen=True)
class Row:
    """A window of an audio: its tokens before and after merging."""

    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Placed:
    """What the LLM needs of each kept token beside its embedding, if the audio's first token stands at `first_position`.

    position_ids: [K] int64, rotary positions
    key_bias: [K] float32, added to the attention logits of each token's key
    """

    first_position: int
    positions: str  # of the level, as `attention`
    attention: str
    position_ids: Array
    key_bias: Array


@dataclass(frozen=True)
class MergedAudio:
    """One audio as the LLM will see it; K kept tokens of all its windows in temporal order, on the merge stage's device.

    merged_embeds: [K, H] in the bundle's precision
    row_sizes, row_anchors: [K] int32, row_source_map: [tokens_in] int32: the plan of each row, as the op gives it
    placed: None for a plan made on the host, which `splice` places itself
    """

    merged_embeds: Array
    row_sizes: Array
    row_anchors: Array
    row_source_map: Array
    rows: tuple[Row, ...]
    placed: Placed | None = None

    @classmethod
    def of_plan(cls, merged_embeds: np.ndarray, plan) -> "MergedAudio":
        """One row merged on the host by a `ltbm.plugins.merge.MergePlan`."""
        row = Row(len(plan.source_map), len(plan.sizes))
        return cls(merged_embeds, plan.sizes, plan.anchors, plan.source_map, (row,))

    @property
    def tokens_in(self) -> int:
        return sum(row.tokens_in for row in self.rows)

    @property
    def tokens_out(self) -> int:
        return sum(row.tokens_out for row in self.rows)

    @property
    def nbytes(self) -> int:
        return sum(
            array.nbytes
            for array in (self.merged_embeds, self.row_sizes, self.row_anchors, self.row_source_map)
        )

    @cached_property
    def sizes(self) -> np.ndarray:
        """[K] int32 on the host: encoder tokens that each kept token holds."""
        return np.asarray(self.row_sizes)

    @cached_property
    def anchors(self) -> np.ndarray:
        """[K] int32 on the host: place of each kept token on the audio's own time axis, in encoder tokens."""
        starts = np.cumsum([0] + [row.tokens_in for row in self.rows[:-1]])
        return np.asarray(self.row_anchors) + np.repeat(starts, [row.tokens_out for row in self.rows]).astype(
            np.int32
        )

    @cached_property
    def source_map(self) -> np.ndarray:
        """[tokens_in] int32 on the host: the kept token that each encoder token went to, -1 if it was dropped."""
        starts = np.cumsum([0] + [row.tokens_out for row in self.rows[:-1]])
        placed = np.asarray(self.row_source_map) + np.repeat(
            starts, [row.tokens_in for row in self.rows]
        ).astype(np.int32)
        return np.where(
            np.asarray(self.row_source_map) < 0, np.int32(-1), placed
        )  # a comparator drops tokens


def merge(engine: Engine, groups: list[EncodedRows], level: Level, first_position: int = 0) -> MergedAudio:
    """Merge each window on its own (rows never mix) and put their kept tokens one after the other."""
    rows = tuple(Row(group.tokens, level.target(group.tokens)) for group in groups for _ in range(group.rows))
    audio = _allocate(engine, rows, level, first_position)
    position, tokens_in, tokens_out = first_position, 0, 0
    for group in groups:
        kept, original = level.target(group.tokens), level.positions == "original"
        width = group.tokens if original else kept
        firsts = position + width * np.arange(group.rows)
        _merge_rows(engine, group, level, firsts, _Span(audio, tokens_in, tokens_out, group.rows, kept))
        position += width * group.rows
        tokens_in, tokens_out = tokens_in + group.rows * group.tokens, tokens_out + group.rows * kept
    return audio


@dataclass(frozen=True)
class _Span:
    """Where a group's outputs go in an audio's arrays."""

    audio: MergedAudio
    tokens_in: int
    tokens_out: int
    rows: int
    kept: int

    def outputs(self) -> dict[str, Array]:
        audio, after = self.audio, self.tokens_out + self.rows * self.kept
        by_kept = {
            "merged_embeds": audio.merged_embeds,
            "position_ids": audio.placed.position_ids,
            "key_bias": audio.placed.key_bias,
            "sizes": audio.row_sizes,
            "anchors": audio.row_anchors,
        }
        return {
            name: array[self.tokens_out : after].reshape(self.rows, self.kept, *array.shape[1:])
            for name, array in by_kept.items()
        }


def _allocate(engine: Engine, rows: tuple[Row, ...], level: Level, first_position: int) -> MergedAudio:
    embeds = engine.outputs["merged_embeds"]
    tokens_in, tokens_out = sum(row.tokens_in for row in rows), sum(row.tokens_out for row in rows)
    placed = Placed(
        first_position,
        level.positions,
        level.attention,
        engine.zeros((tokens_out,), np.int64),
        engine.zeros((tokens_out,), np.float32),
    )
    sizes, anchors, source_map = (
        engine.zeros((count,), np.int32) for count in (tokens_out, tokens_out, tokens_in)
    )
    return MergedAudio(
        engine.zeros((tokens_out, embeds.shape[2]), embeds.dtype), sizes, anchors, source_map, rows, placed
    )


def _merge_rows(engine: Engine, group: EncodedRows, level: Level, firsts: np.ndarray, span: _Span) -> None:
    """Run the merge over one group; its outputs land in the audio's arrays."""
    rows, padded = group.rows, group.audio_embeds.shape[1]
    whole = padded == group.tokens  # then the source map needs no cutting
    after = span.tokens_in + rows * group.tokens
    source_map = (
        span.audio.row_source_map[span.tokens_in : after].reshape(rows, -1)
        if whole
        else engine.zeros((rows, padded), np.int32)
    )
    engine.bind(
        {
            "audio_embeds": group.audio_embeds,
            "lengths": np.full(rows, group.tokens, np.int32),
            "targets": np.full(rows, span.kept, np.int32),
            "keep": np.array([span.kept], np.int64),
            "window": np.array([level.merge_window], np.int32),
            "first_position": firsts.astype(np.int64),
            "original_positions": np.array([level.positions == "original"], np.int32),
            "proportional_attention": np.array([level.attention == "proportional"], np.int32),
            "source_map": source_map,
        }
        | span.outputs()
    ).run()
    if not whole:
        for row in range(rows):
            start = span.tokens_in + row * group.tokens
            span.audio.row_source_map[start : start + group.tokens] = source_map[row][: group.tokens]
