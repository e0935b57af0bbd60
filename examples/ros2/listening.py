"""What the node does, without ROS: messages in, answers out."""

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ltbm.runtime import Session


class Listening:
    """A listening session for a node: pushes audio messages, answers questions one after the other.

    answer: called with the answer's text, on a thread of its own
    warn: called with one line when sound was lost or a question failed
    """

    def __init__(
        self,
        bundle: str,
        level: str,
        rate: int,
        answer: Callable[[str], object],
        warn: Callable[[str], object],
    ):
        self._answer = answer
        self._warn = warn
        self._session = Session.open(bundle)
        self._listener = self._session.listen(level, sampling_rate=rate, on_behind=self._lost)
        self._threads: list[threading.Thread] = []

    def take_audio(self, pcm: ArrayLike) -> None:
        """Samples of one message, int16, one channel."""
        self._listener.push(np.asarray(pcm, np.int16))

    def take_question(self, prompt: str) -> None:
        """Returns at once; the answer comes through `answer`."""
        thread = threading.Thread(target=self._ask, args=(prompt,), daemon=True)
        thread.start()
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]

    def close(self) -> None:
        self._session.close()
        for thread in self._threads:
            thread.join()

    def _ask(self, prompt: str) -> None:
        try:
            self._answer(self._listener.ask(prompt).finish().text)
        except (ValueError, RuntimeError) as error:
            self._warn(f"no answer to {prompt!r}: {error}")

    def _lost(self, event) -> None:
        self._warn(f"{event.seconds:.2f} s of sound lost at {event.start:.1f} s: reading fell behind")
