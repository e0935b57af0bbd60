"""Encoded and merged segments kept between requests, so that the same audio is encoded once."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from .levels import Level

CACHE_BYTES = 64 * 2**20  # of encoded and merged audio kept: about 15 segments of 30 s in float32


class AudioCache:
    """Values by key, up to `limit` bytes (0: nothing is kept); the least recently used goes first."""

    def __init__(self, limit: int = CACHE_BYTES):
        self._limit = limit
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def get(self, key: Hashable):
        """The value, or None."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value, nbytes: int) -> None:
        if nbytes > self._limit:
            return
        self._values[key] = value, nbytes
        while sum(size for _, size in self._values.values()) > self._limit:
            self._values.popitem(last=False)


def level_key(level: Level) -> Hashable:
    """All of a settled level that shows in merged audio."""
    return level.ratio, level.merge_window, level.positions, level.bias_strength
