"""The stages before the LLM with a cache: a segment is encoded once, and merged once for each level."""

from collections.abc import Hashable, Sequence
from weakref import WeakValueDictionary

from .answer import Clock
from .audio_cache import AudioCache, level_key
from .levels import Level
from .pipeline import Pipeline
from .reading import SegmentInPrompt
from .stages.encoder import EncodedRows
from .stages.merge import MergedAudio
from .stages.segments import Segment


class AudioStages:
    """Features, encoder and merge of a pipeline over what `cache` does not hold.

    A merged segment that somebody still holds is known too, whatever the cache has let go.
    """

    def __init__(self, pipeline: Pipeline, cache: AudioCache):
        self._pipeline = pipeline
        self._cache = cache
        self._held: WeakValueDictionary[Hashable, MergedAudio] = WeakValueDictionary()

    def hold(self, segments: Sequence[SegmentInPrompt], level: Level) -> bool:
        """Whether all of them are merged already."""
        return all(self._known(_merged_key(segment, level)) is not None for segment in segments)

    def merge(self, segments: Sequence[SegmentInPrompt], level: Level, clock: Clock) -> list[MergedAudio]:
        """Each segment merged, in order; the stages that run are timed."""
        known = [self._known(_merged_key(part, level)) for part in segments]
        missing = [part for part, merged in zip(segments, known) if merged is None]
        encoded = self._encode(missing, clock)
        merged = []
        for part, before in zip(segments, known):
            merged.append(before or self._merge(part, encoded[part.content], level, clock))
        return merged

    def _known(self, key: Hashable) -> MergedAudio | None:
        cached = self._cache.get(key)
        return self._held.get(key) if cached is None else cached

    def _merge(self, part: SegmentInPrompt, encoded: EncodedRows, level: Level, clock: Clock) -> MergedAudio:
        with clock.stage("merge"):
            merged = self._pipeline.merge([encoded], level, part.piece.position)
        key = _merged_key(part, level)
        self._held[key] = merged
        self._cache.put(key, merged, merged.nbytes)
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
        for segment in audio:
            segment.forget_features()
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
