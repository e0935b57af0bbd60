"""Sessions that listen, and those that every answer must equal."""

import pytest

from ltbm.runtime.session import Session
from tests.support.listening import SEGMENT_SECONDS

POSITIONS_PER_SECOND = 50  # of the encoder


@pytest.fixture(scope="module")
def listen_bundle(make_bundle):
    """(family, seconds of a segment) -> a bundle folder."""

    def bundle(family, seconds=SEGMENT_SECONDS):
        options = {} if seconds == 30 else {"positions": seconds * POSITIONS_PER_SECOND}
        return make_bundle(family, **options)[1]

    return bundle


@pytest.fixture(scope="module")
def alone(listen_bundle):
    """(family, seconds of a segment) -> a session that keeps nothing: what every answer must equal."""
    opened = {}

    def of(family="qwen2_audio", seconds=SEGMENT_SECONDS):
        if (family, seconds) not in opened:
            opened[family, seconds] = Session.open(listen_bundle(family, seconds), reuse=False)
        return opened[family, seconds]

    yield of
    for session in opened.values():
        session.close()


@pytest.fixture
def listening(listen_bundle):
    """(family, level, seconds of a segment, options) -> a session and its listener."""
    sessions = []

    def open_one(family="qwen2_audio", level="keep25", seconds=SEGMENT_SECONDS, **options):
        sessions.append(Session.open(listen_bundle(family, seconds)))
        return sessions[-1], sessions[-1].listen(level, **options)

    yield open_one
    for session in sessions:
        session.close()
