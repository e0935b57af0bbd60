"""Stage 3, merge: similar neighbouring tokens become one (LTBM) and are projected to the LLM's width."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..bundle import FORMAT_VERSION
from ..engine import Array, Engine
from ..levels import ATTENTION, Level
from .encoder import EncodedRows
from .layout import TokenCounts

if TYPE_CHECKING:
    from ...plugins.merge import MergePlan

FORMER_SWITCH = "proportional_attention"  # input of bundles up to format 3: 1 for log(size), 0 for nothing


@dataclass(frozen=True)
class DecoderInputs:
    """What the LLM takes of each kept token of an audio beside its embedding.

    first_position: of the audio's first token
    positions, bias_strength: of the level that they were written for
    position_ids: [K] int64, rotary positions
    key_bias: [K] float32, added to the attention logits of each token's key
    """

    first_position: int
    positions: str
    bias_strength: float
    position_ids: Array
    key_bias: Array

    def fit(self, first_position: int, level: Level) -> bool:
        """Whether they are those of an audio at `first_position` and `level`."""
        written_for = (self.first_position, self.positions, self.bias_strength)
        return written_for == (first_position, level.positions, level.bias_strength)


@dataclass(frozen=True)
class MergedAudio:
    """One audio as the LLM takes it: K kept tokens in temporal order, on the merge stage's device.

    merged_embeds: [K, H] in the bundle's precision
    row_sizes, row_anchors: [K] int32, and row_source_map: [tokens_in] int32, the plan of each row
    rows: the tokens of each segment
    decoder_inputs: None for a plan made on the host; `splice` makes them then
    """

    merged_embeds: Array
    row_sizes: Array
    row_anchors: Array
    row_source_map: Array
    rows: tuple[TokenCounts, ...]
    decoder_inputs: DecoderInputs | None = None

    @classmethod
    def of_plans(cls, merged_embeds: Array, plans: "Sequence[MergePlan]") -> "MergedAudio":
        """Rows merged on the host, a plan each; their kept tokens one after the other."""
        return cls(
            merged_embeds,
            np.concatenate([plan.sizes for plan in plans]),
            np.concatenate([plan.anchors for plan in plans]),
            np.concatenate([plan.source_map for plan in plans]),
            tuple(TokenCounts(len(plan.source_map), len(plan.sizes)) for plan in plans),
        )

    @property
    def tokens_in(self) -> int:
        return sum(row.tokens_in for row in self.rows)

    @property
    def tokens_out(self) -> int:
        return sum(row.tokens_out for row in self.rows)

    @property
    def nbytes(self) -> int:
        arrays = (self.merged_embeds, self.row_sizes, self.row_anchors, self.row_source_map)
        return sum(array.nbytes for array in arrays)

    @cached_property
    def sizes(self) -> np.ndarray:
        """[K] int32 on the host: encoder tokens that each kept token holds."""
        return np.asarray(self.row_sizes)

    @cached_property
    def anchors(self) -> np.ndarray:
        """[K] int32 on the host: index of each kept token on the audio's own time axis, in encoder tokens."""
        starts = _starts([row.tokens_in for row in self.rows])
        per_token = np.repeat(starts, [row.tokens_out for row in self.rows])
        return np.asarray(self.row_anchors) + per_token.astype(np.int32)

    @cached_property
    def source_map(self) -> np.ndarray:
        """[tokens_in] int32 on the host: the kept token that each encoder token went to, -1 if it was
        dropped."""
        starts = _starts([row.tokens_out for row in self.rows])
        per_token = np.repeat(starts, [row.tokens_in for row in self.rows]).astype(np.int32)
        by_row = np.asarray(self.row_source_map)
        return np.where(by_row < 0, np.int32(-1), by_row + per_token)  # a comparator drops tokens


def _starts(lengths: list[int]) -> np.ndarray:
    """Where each of several runs begins when they follow one another."""
    return np.cumsum([0, *lengths[:-1]])


def merge(engine: Engine, groups: list[EncodedRows], level: Level, first_position: int = 0) -> MergedAudio:
    """Merge each segment on its own (rows never mix) and put their kept tokens one after the other."""
    rows = tuple(_row_counts(groups, level))
    audio = _allocate(engine, rows, level, first_position)
    position = first_position
    tokens_in = 0
    tokens_out = 0
    for group in groups:
        kept = level.target(group.tokens)
        width = group.tokens if level.positions == "original" else kept
        firsts = position + width * np.arange(group.rows)
        _merge_rows(engine, group, level, firsts, _Span(audio, tokens_in, tokens_out, group.rows, kept))
        position += width * group.rows
        tokens_in += group.tokens * group.rows
        tokens_out += kept * group.rows
    return audio


def _row_counts(groups: list[EncodedRows], level: Level) -> Iterator[TokenCounts]:
    for group in groups:
        yield from [TokenCounts(group.tokens, level.target(group.tokens))] * group.rows


@dataclass(frozen=True)
class _Span:
    """Where a group's outputs go in an audio's arrays."""

    audio: MergedAudio
    tokens_in: int
    tokens_out: int
    rows: int
    kept: int

    def outputs(self) -> dict[str, Array]:
        audio = self.audio
        assert audio.decoder_inputs is not None, "allocated with the arrays of the decoder's inputs"
        arrays = {
            "merged_embeds": audio.merged_embeds,
            "position_ids": audio.decoder_inputs.position_ids,
            "key_bias": audio.decoder_inputs.key_bias,
            "sizes": audio.row_sizes,
            "anchors": audio.row_anchors,
        }
        return {name: self._rows_of(array) for name, array in arrays.items()}

    def _rows_of(self, array: Array) -> Array:
        end = self.tokens_out + self.rows * self.kept
        return array[self.tokens_out : end].reshape(self.rows, self.kept, *array.shape[1:])


def _allocate(
    engine: Engine, rows: tuple[TokenCounts, ...], level: Level, first_position: int
) -> MergedAudio:
    embeds = engine.outputs["merged_embeds"]
    tokens_in = sum(row.tokens_in for row in rows)
    tokens_out = sum(row.tokens_out for row in rows)
    decoder_inputs = DecoderInputs(
        first_position,
        level.positions,
        level.bias_strength,
        position_ids=engine.zeros((tokens_out,), np.int64),
        key_bias=engine.zeros((tokens_out,), np.float32),
    )
    return MergedAudio(
        merged_embeds=engine.zeros((tokens_out, embeds.width), embeds.dtype),
        row_sizes=engine.zeros((tokens_out,), np.int32),
        row_anchors=engine.zeros((tokens_out,), np.int32),
        row_source_map=engine.zeros((tokens_in,), np.int32),
        rows=rows,
        decoder_inputs=decoder_inputs,
    )


def _merge_rows(engine: Engine, group: EncodedRows, level: Level, firsts: np.ndarray, span: _Span) -> None:
    """Run the merge over one group; its outputs land in the audio's arrays."""
    rows = group.rows
    padded = group.audio_embeds.shape[1]
    unpadded = padded == group.tokens  # then the source map is written where it belongs
    end = span.tokens_in + rows * group.tokens
    if unpadded:
        source_map = span.audio.row_source_map[span.tokens_in : end].reshape(rows, -1)
    else:
        source_map = engine.zeros((rows, padded), np.int32)
    inputs = {
        "audio_embeds": group.audio_embeds,
        "lengths": np.full(rows, group.tokens, np.int32),
        "targets": np.full(rows, span.kept, np.int32),
        "keep": np.array([span.kept], np.int64),
        "window": np.array([level.merge_window], np.int32),
        "first_position": firsts.astype(np.int64),
        "original_positions": np.array([level.positions == "original"], np.int32),
        **_bias_input(engine, level),
    }
    engine.bind(inputs | {"source_map": source_map} | span.outputs()).run()
    if not unpadded:
        _copy_source_map(source_map, group.tokens, span)


def _bias_input(engine: Engine, level: Level) -> dict[str, np.ndarray]:
    """The strength of the bias; bundles up to format 3 have a switch in its place."""
    if FORMER_SWITCH not in engine.inputs:
        return {"bias_strength": np.array([level.bias_strength], np.float32)}
    if level.bias_strength not in ATTENTION.values():
        raise ValueError(
            f"attention {level.attention} needs a bundle of format {FORMAT_VERSION}, this one knows "
            f"{' and '.join(ATTENTION)} alone: run `ltbm export` again"
        )
    return {FORMER_SWITCH: np.array([level.bias_strength], np.int32)}


def _copy_source_map(source_map: Array, tokens: int, span: _Span) -> None:
    """The valid entries of each padded row, one row after the other."""
    for row in range(span.rows):
        start = span.tokens_in + row * tokens
        span.audio.row_source_map[start : start + tokens] = source_map[row][:tokens]
