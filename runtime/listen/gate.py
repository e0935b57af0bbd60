"""Digital silence, as of a muted microphone, left out of the sound that is read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SILENCE_PEAK = 2**-14  # two steps of 16-bit PCM: a muted device may dither
HELD_SECONDS = 1.0  # of every silence that are read all the same: the model hears a pause


@dataclass
class Stretch:
    """Samples left out, in one piece.

    start: samples let through before it
    """

    start: int
    length: int


class SilenceGate:
    """Leaves out what a digital silence goes on beyond `held` samples; None: lets everything through.

    Positions before the gate count every sample, those behind it what was let through.
    """

    def __init__(self, held: int | None = None):
        self._held = held
        self._silent = 0  # samples of silence in a row, up to now
        self._passed = 0
        self._skipping = False
        self._stretches: list[Stretch] = []  # the last one may still grow
        self._forgotten = 0  # length of the stretches that are no longer listed

    def push(self, samples: np.ndarray) -> tuple[np.ndarray, list[Stretch]]:
        """Of samples [n] float32 those let through, and the stretches left out that end within them."""
        if self._held is None or not len(samples):
            return samples, []
        skipped = self._silent_before(samples) > self._held
        ended = []
        if self._skipping and not skipped[0]:
            ended.append(self._stretches[-1])
        for begin, end in _regions(skipped):
            if begin or not self._skipping:
                start = self._passed + int(np.count_nonzero(~skipped[:begin]))
                self._stretches.append(Stretch(start, 0))
            self._stretches[-1].length += end - begin
            if end < len(samples):
                ended.append(self._stretches[-1])
        passed = samples[~skipped]
        self._passed += len(passed)
        self._skipping = bool(skipped[-1])
        return passed, ended

    def before(self, passed: int) -> int:
        """The position before the gate of one behind it, what was left out right there counted in."""
        return passed + self._forgotten + sum(one.length for one in self._stretches if one.start <= passed)

    def forget(self, passed: int) -> None:
        """Positions below `passed` will not be asked about again."""
        while len(self._stretches) > 1 and self._stretches[0].start < passed:
            self._forgotten += self._stretches.pop(0).length

    def _silent_before(self, samples: np.ndarray) -> np.ndarray:
        """[n] samples of silence in a row, up to each one."""
        index = np.arange(len(samples))
        loud = np.abs(samples) > SILENCE_PEAK
        last_loud = np.maximum.accumulate(np.where(loud, index, -1 - self._silent))
        silent = index - last_loud
        self._silent = int(silent[-1])
        return silent


def _regions(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    """(begin, end) of every run of True."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return zip(edges[::2].tolist(), edges[1::2].tolist())
