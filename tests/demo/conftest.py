import pytest

from ltbm.demo.recordings import read_pool
from tests.support.recordings import write_recordings


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    return write_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="session")
def pool(recordings):
    """The recordings that are kept for testing."""
    return read_pool(recordings, "test")
