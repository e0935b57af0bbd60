"""From sound to merged tokens, each clip once: encoded and merged audio is kept by its content."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from .answer import Clock
from .backends.engines import Engines
from .levels import Level
from .stages.encoder import encode
from .stages.features import FeatureWindow
from .stages.merge import MergedAudio, merge

CACHE_BYTES = 64 * 2**20  # of encoded and merged audio kept: about 15 windows of 30 s in float32


class Hearing:
    """Encodes and merges audio; what was heard last is kept, up to `limit` bytes (0: nothing)."""

    def __init__(self, engines: Engines, limit: int = CACHE_BYTES):
        self._engines, self._limit = engines, limit
        self._kept: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()

    def hear(
        self,
        windows: Sequence[FeatureWindow],
        level: Level,
        first_position: int = 0,
        clock: Clock | None = None,
    ) -> MergedAudio:
        """One audio at a settled level; its first token stands at `first_position`."""
        clock, content = clock or Clock(), content_of(windows) if self._limit else None
        merged_key = (content, audio_level(level), first_position)
        if merged_key in self._kept:
            return self._recall(merged_key)
        groups = self._recall(content) if content in self._kept else self._encode(windows, content, clock)
        with clock.stage("merge"):
            merged = merge(self._engines.get("merge"), groups, level, first_position)
        self._keep(merged_key, merged, merged.nbytes)
        return merged

    def _encode(self, windows: Sequence[FeatureWindow], content, clock: Clock) -> list:
        with clock.stage("features"):
            for window in windows:
                window.input_features  # noqa: B018, computed here so that its time is told apart
        with clock.stage("encoder"):
            groups = encode(self._engines.get("encoder"), list(windows))
        self._keep(content, groups, sum(group.audio_embeds.nbytes for group in groups))
        return groups

    def _recall(self, key: Hashable):
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def _keep(self, key: Hashable, value, nbytes: int) -> None:
        """Keep what fits; what was used longest ago goes first."""
        if nbytes > self._limit:
            return
        self._kept[key] = value, nbytes
        while sum(size for _, size in self._kept.values()) > self._limit:
            self._kept.popitem(last=False)


def content_of(windows: Sequence[FeatureWindow]) -> bytes:
    """The digests of the windows: the same sound is the same audio."""
    return b"".join(window.digest for window in windows)


def audio_level(level: Level) -> Hashable:
    """All of a settled level that shows in merged audio."""
    return level.ratio, level.merge_window, level.positions, level.attention
