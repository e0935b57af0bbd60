"""Arrays on the device against numpy, on the fake device whose stream does nothing before someone waits."""

import gc

import numpy as np
import pytest

VALUES = np.arange(5 * 6 * 4, dtype=np.float32).reshape(5, 6, 4)
VIEWS = [
    lambda a: a[2],
    lambda a: a[-1],
    lambda a: a[1:4],
    lambda a: a[:],
    lambda a: a[4:],
    lambda a: a[:, :3],
    lambda a: a[:, 2:5],
    lambda a: a[1:3, 1:2],
    lambda a: a[1:3][:, 4:],
    lambda a: a[:, :3][2],
    lambda a: a[:1, 2:4],
    lambda a: a.reshape(10, -1)[3:5],
    lambda a: a.reshape(-1)[7:9],
    lambda a: a[5:],
    lambda a: a.reshape(2, 15, 4)[:, :0],
    lambda a: a[2][1:3],
]


@pytest.fixture
def stream(device):
    from ltbm.runtime.backends.cuda import Stream

    return Stream()


@pytest.mark.parametrize("view", VIEWS)
def test_views_read_and_write_what_numpys_do(stream, view):
    array = stream.upload(VALUES)
    copy = VALUES.copy()
    part = view(array)
    wanted = view(copy)
    assert len(part) == len(wanted)
    assert part.shape == wanted.shape and part.nbytes == wanted.nbytes
    np.testing.assert_array_equal(np.asarray(part), wanted)
    new = -np.random.default_rng(0).random(wanted.shape).astype(np.float32)
    part[:] = new
    wanted[:] = new
    np.testing.assert_array_equal(np.asarray(array), copy)


@pytest.mark.parametrize("view", VIEWS)
def test_copies_on_the_device_keep_pitch(stream, view, device):
    """From a view into a view, and between a view and a tight array."""
    source = stream.upload(VALUES)
    target = stream.zeros(VALUES.shape, np.float32)
    copy = np.zeros_like(VALUES)
    tight = stream.zeros(view(copy).shape, np.float32)
    tight[:] = view(source)
    view(target)[:] = tight
    view(copy)[:] = view(VALUES)
    np.testing.assert_array_equal(np.asarray(target), copy)
    view(target)[:] = view(source)
    np.testing.assert_array_equal(np.asarray(target), copy)


def test_a_source_may_change_at_once(stream):
    """The device has copied nothing yet when the source changes."""
    array = stream.zeros((4,), np.int64)
    source = np.arange(4)
    array[:] = source
    source += 10
    array[1:2] = source[:1]
    np.testing.assert_array_equal(np.asarray(array), [0, 10, 2, 3])


def test_uploads_larger_than_the_staging_memory(stream, device, monkeypatch):
    from ltbm.runtime.backends import cuda

    large = np.random.default_rng(0).integers(0, 255, 3 * cuda.STAGING_BYTES + 17, np.uint8)
    small = np.arange(7, dtype=np.int16)
    first = stream.upload(large)
    second = stream.upload(small)
    np.testing.assert_array_equal(np.asarray(first), large)
    np.testing.assert_array_equal(np.asarray(second), small)


def test_values_are_cast_as_numpy_casts_and_not_further(stream):
    array = stream.zeros((3,), np.float16)
    array[:] = np.array([1.5, 2.5, 3.5], np.float32)
    array[:1] = stream.upload(np.array([7], np.float32))  # the device does not cast: by way of the host
    array[1:2] = 4
    np.testing.assert_array_equal(np.asarray(array), np.array([7, 4, 3.5], np.float16))
    counts = stream.zeros((1,), np.int32)
    with pytest.raises(TypeError, match="same_kind"):
        counts[:] = np.array([1.5])


def test_what_does_not_fit_is_refused(stream):
    array = stream.zeros((4, 6), np.float32)
    whole = slice(None)
    wrong_keys = (slice(0, 5), slice(3, 2), slice(0, 4, 2), 4, (whole, 1), (whole, slice(0, 7)), (whole,) * 3)
    for key in wrong_keys:
        with pytest.raises(IndexError):
            array[key]
    with pytest.raises(ValueError, match="does not fit into one"):
        array[:2] = stream.zeros((3, 6), np.float32)
    with pytest.raises(ValueError, match="pitch"):
        array[:, :3].reshape(12)
    with pytest.raises(ValueError, match="not as many values"):
        array.reshape(5, 5)


def test_memory_lives_as_long_as_a_view(stream, device):
    array = stream.upload(VALUES)
    view = array[1:2]
    del array
    np.testing.assert_array_equal(np.asarray(view), VALUES[1:2])
    del view
    gc.collect()
    assert device.driver.allocated == VALUES.nbytes  # retired, not freed: that would wait
    stream.synchronize()
    assert device.driver.allocated == 0


def test_retired_memory_is_used_again_in_order(stream, device):
    """The old values are read by a copy that has not happened yet when the new ones are written."""
    first = stream.upload(np.arange(8))
    copy = stream.empty((8,), np.int64)
    copy[:] = first
    address = first.pointer
    del first
    again = stream.upload(-np.arange(8))
    assert again.pointer == address and not device.driver.named("cudaFree")
    np.testing.assert_array_equal(np.asarray(copy), np.arange(8))
    np.testing.assert_array_equal(np.asarray(again), -np.arange(8))


def test_retired_memory_is_freed_when_it_is_much_or_needed(stream, device, monkeypatch):
    from ltbm.runtime.backends import cuda

    monkeypatch.setattr(cuda, "RETIRED_BYTES", 1000)
    stream.zeros((600,), np.uint8)
    assert device.driver.allocated == 600
    stream.zeros((601,), np.uint8)
    assert device.driver.allocated == 0
    stream.zeros((900,), np.uint8)
    device.driver.capacity = 1000
    assert stream.zeros((500,), np.uint8).nbytes == 500


def test_no_memory_is_a_memory_error(stream, device):
    with pytest.raises(MemoryError, match="no memory left.*low_memory"):
        stream.zeros((device.driver.capacity,), np.float32)
