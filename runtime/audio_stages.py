"""The stages before the LLM with a cache: a segment is encoded once, and merged once for each level."""

from collections.abc import Hashable, Sequence

from .answer import Clock
from .audio_cache import AudioCache, level_key
from .levels import Level
from .pipeline import Pipeline
from .reading import SegmentInPrompt
from .stages.encoder import EncodedRows
from .stages.merge import MergedAudio
from .stages.segments import Segment


class AudioStages:
    """Features, encoder and merge of a pipeline over what `cache` does not hold."""

    def __init__(self, pipeline: Pipeline, cache: AudioCache):
        self._pipeline = pipeline
        self._cache = cache

    def hold(self, segments: Sequence[SegmentInPrompt], level: Level) -> bool:
        """Whether all of them are merged already."""
        return all(_merged_key(segment, level) in self._cache for segment in segments)

    def merge(self, segments: Sequence[SegmentInPrompt], level: Level, clock: Clock) -> list[MergedAudio]:
        """Each segment merged, in order; the stages that run are timed."""
        cached: list[MergedAudio | None] = [self._cache.get(_merged_key(part, level)) for part in segments]
        missing = [part for part, merged in zip(segments, cached) if merged is None]
        encoded = self._encode(missing, clock)
        merged = []
        for part, from_cache in zip(segments, cached):
            merged.append(from_cache or self._merge(part, encoded[part.content], level, clock))
        return merged

    def _merge(self, part: SegmentInPrompt, encoded: EncodedRows, level: Level, clock: Clock) -> MergedAudio:
        with clock.stage("merge"):
            merged = self._pipeline.merge([encoded], level, part.piece.position)
        self._cache.put(_merged_key(part, level), merged, merged.nbytes)
        return merged

    def _encode(self, segments: Sequence[SegmentInPrompt], clock: Clock) -> dict[Hashable, EncodedRows]:
        """By content; those that are not cached are encoded together."""
        encoded: dict[Hashable, EncodedRows] = {}
        missing: dict[Hashable, Segment] = {}
        for part in segments:
            rows = self._cache.get(part.content)
            if rows is None:
                missing[part.content] = part.segment
            else:
                encoded[part.content] = rows
        if not missing:
            return encoded
        audio = list(missing.values())
        with clock.stage("features"):
            self._pipeline.features(audio)
        with clock.stage("encoder"):
            groups = self._pipeline.encode(audio)
        for content, rows in zip(missing, _single_rows(groups)):
            encoded[content] = rows
            self._cache.put(content, rows, rows.audio_embeds.nbytes)
        return encoded


def _single_rows(groups: Sequence[EncodedRows]) -> list[EncodedRows]:
    """Each segment's embeddings on their own."""
    single = []
    for group in groups:
        for row in range(group.rows):
            single.append(EncodedRows(group.audio_embeds[row : row + 1], group.tokens))
    return single


def _merged_key(segment: SegmentInPrompt, level: Level) -> Hashable:
    return segment.content, level_key(level)
