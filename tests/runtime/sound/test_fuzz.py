"""Damaged files are read or refused with a ValueError: no other error, no hang, no memory beyond use."""

import tracemalloc
import warnings

import numpy as np
import pytest

from ltbm.runtime.stages.audio import load_audio
from tests.support.damaged_sound import KINDS, RATE, Damage, whole_files

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed: pip install '.[test]'")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

MOST_SECONDS = 30
MOST_BYTES = 2 * 4 * MOST_SECONDS * RATE + (4 << 20)  # twice what may be decoded, and the bytes of a block
FILES = whole_files()

damages = st.builds(
    Damage, st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.integers(0, 1 << 16)
)


@pytest.mark.filterwarnings("ignore::ltbm.runtime.sound.messages.AudioWarning")
@settings(max_examples=25, deadline=10_000, derandomize=True)
@given(changes=st.lists(damages, min_size=1, max_size=4))
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused(name, changes):
    data = FILES[name]
    for change in changes:
        data = change.apply(data)
    tracemalloc.start()
    try:
        waveform = load_audio(data, RATE, max_seconds=MOST_SECONDS)
    except ValueError:
        return
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_BYTES
    assert waveform.dtype == np.float32 and np.isfinite(waveform).all()


@settings(max_examples=100, deadline=10_000, derandomize=True)
@given(data=st.binary(max_size=3000))
def test_any_bytes_are_refused(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError):
            load_audio(data, RATE)


@pytest.mark.parametrize("name", FILES)
def test_the_whole_files_are_read(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        waveform = load_audio(FILES[name], RATE)
    parts = 2 if "joined" in name else 1
    assert abs(len(waveform) - parts * 1.5 * RATE) < parts * 2000
