from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo_clip() -> Path:
    """A clip of 98,560 samples at 16 kHz."""
    return Path(__file__).parents[3] / "examples/demo/clips/clip02.flac"
