"""Stop strings: an answer ends before the first of them, and no piece of one is given out."""

from collections.abc import Sequence


class StopStrings:
    """Passes text on piece by piece, holding back what may be the beginning of a stop string."""

    def __init__(self, strings: Sequence[str]):
        self.met = False  # whether one of them has come
        self.text = ""  # all that was passed on
        self._strings = tuple(strings)
        self._held = ""

    def push(self, piece: str) -> str:
        """What of the text so far can be passed on now."""
        if self.met:
            return ""
        held = self._held + piece
        starts = [held.find(string) for string in self._strings if string in held]
        if starts:
            self.met = True
            return self._pass(held[: min(starts)], "")
        kept = max((_overlap(held, string) for string in self._strings), default=0)
        return self._pass(held[: len(held) - kept], held[len(held) - kept :])

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        return self._pass(self._held, "")

    def _pass(self, text: str, held: str) -> str:
        self._held = held
        self.text += text
        return text


def _overlap(text: str, string: str) -> int:
    """Characters at the end of `text` with which `string` begins."""
    for length in range(min(len(text), len(string) - 1), 0, -1):
        if text.endswith(string[:length]):
            return length
    return 0
