"""The demo model behind HTTP, with its shipped clips."""

from pathlib import Path

import pytest

pytest.importorskip("openai", reason="the official client is not installed (extra test)")
pytest.importorskip("starlette", reason="the server's libraries are not installed (extra serve)")

from ltbm.demo.bundle import demo_bundle
from ltbm.demo.commands import CLIPS
from tests.support.serving import serving


@pytest.fixture(scope="package")
def demo(tmp_path_factory):
    with demo_bundle() as bundle:
        yield bundle


@pytest.fixture(scope="package")
def live(demo):
    """A server with default settings."""
    with serving(demo) as running:
        yield running


@pytest.fixture
def client(live):
    with live.client() as opened:
        yield opened


@pytest.fixture(scope="package")
def library(demo):
    """The same bundle without HTTP."""
    from ltbm.runtime.session import Session

    with Session.open(demo) as session:
        yield session


@pytest.fixture(scope="session")
def clips() -> list[Path]:
    return sorted(CLIPS.glob("*.flac"))
