"""The CUDA kernels on the CPU, through the emulator, against the reference: not one bit may differ."""

import numpy as np
import pytest

from ltbm.plugins.merge import merge_rows
from tests.support import cuda_harness as harness

pytestmark = [pytest.mark.slow, pytest.mark.compiler]

TYPES = (np.float32, np.float16)


@pytest.fixture(scope="session")
def kernels(emulated_op):
    return harness.Kernels(emulated_op)


@pytest.fixture(autouse=True)
def default_emulator(request):
    if "kernels" in request.fixturenames:
        request.getfixturevalue("kernels").configure()


def check(kernels, x, lengths, targets, keep, window, step=(2, 5)):
    with np.errstate(over="ignore", invalid="ignore"):
        want = merge_rows(x, lengths, targets, keep, window, step)
    harness.assert_same(harness.merge_on_host(kernels, x, lengths, targets, keep, window, step), want)


@pytest.mark.parametrize("window", [-1, 0, 1, 8, 100])
def test_hard_rows_at_every_target_in_one_batch(kernels, hard_row, window):
    length = len(hard_row)
    targets = [min(length, 1), (length + 1) // 2, length, max(length - 1, min(length, 1))]
    x = np.concatenate([np.stack([hard_row] * 4), np.zeros((4, 3, hard_row.shape[1]), np.float32)], axis=1)
    x = harness.with_garbage(x, [length] * 4)
    for dtype in TYPES:
        with np.errstate(over="ignore"):
            check(kernels, x.astype(dtype), [length] * 4, targets, length + 2, window)


@pytest.mark.parametrize("seed", range(100))
def test_random_ragged_batches_in_any_order_of_threads(kernels, seed):
    rng = np.random.default_rng(seed)
    kernels.configure(
        residents=int(rng.integers(1, 6)), seed=int(rng.integers(0, 50)), processors=int(rng.integers(1, 20))
    )
    with np.errstate(over="ignore", invalid="ignore"):
        batch = harness.random_batch(seed)
    check(kernels, *batch)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("window", [8, -1])
@pytest.mark.parametrize("width", [255, 256, 257, 1280, 5120])
def test_wide_tokens(kernels, dtype, window, width):
    x = harness.slow_tokens(np.random.default_rng(width), 2, 24, width).astype(dtype)
    check(kernels, x, [24, 19], [5, 9], 9, window)


@pytest.mark.parametrize("processors", [1, 132])
@pytest.mark.parametrize("window", [3, 5, 7, 9, 15, 47, 49])
def test_best_partners_at_the_very_edge_of_a_window(kernels, window, processors):
    """Tokens without any likeness to their neighbours,
    so that each place of a window is some token's best."""
    x = np.random.default_rng(window).standard_normal((1, 260, 4)).astype(np.float32)
    kernels.configure(processors=processors)
    check(kernels, x, [260], [120], 120, window, (1, 2))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("processors", [1, 132])
def test_a_row_of_thirty_seconds(kernels, dtype, processors):
    """With the tiles for few rows, and with those for many."""
    kernels.configure(processors=processors)
    x = harness.slow_tokens(np.random.default_rng(0), 1, 750, 1280).astype(dtype)
    check(kernels, x, [750], [188], 188, 8)


def test_many_rows_share_few_blocks(kernels):
    x = harness.slow_tokens(np.random.default_rng(4), 9, 60, 8)
    lengths = [60, 59, 0, 1, 2, 33, 60, 47, 12]
    kernels.configure(residents=5, processors=1)
    check(kernels, x, lengths, [6, 59, 0, 1, 1, 20, 30, 3, 12], 60, 8)


def test_many_blocks_share_one_row(kernels):
    x = harness.slow_tokens(np.random.default_rng(5), 1, 300, 8)
    kernels.configure(residents=16, seed=3, processors=100)
    check(kernels, x, [300], [20], 20, 8)
    check(kernels, x, [300], [20], 20, -1)


@pytest.mark.parametrize("tokens, step", [(40, (2, 5)), (1400, (1, 1))])
def test_large_groups_take_more_bytes_and_64_bit_products(kernels, tokens, step):
    """Equal tokens all merge into one: sizes beyond two and three bytes, and <G, G> beyond float64."""
    x = np.ones((1, tokens, 256), np.float32)
    x[0, ::7, 0] = 0.5
    check(kernels, x, [tokens], [3], 3, -1, step)


@pytest.mark.parametrize("window", [2, 60])
def test_long_rows_use_scratch_memory(kernels, window):
    x = harness.slow_tokens(np.random.default_rng(6), 1, 5000, 3)
    check(kernels, x, [5000], [4000], 4000, window)


def test_full_range_of_values(kernels):
    """float16 subnormals and its largest values, float32 across its exponents."""
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 0x7C00, (1, 30, 16)).astype(np.uint16) | (
        rng.integers(0, 2, (1, 30, 16)) << 15
    ).astype(np.uint16)
    check(kernels, bits.view(np.float16), [30], [11], 11, 8)
    x = rng.standard_normal((1, 30, 16)) * 10.0 ** rng.integers(-37, 38, (1, 30, 16))
    check(kernels, x.astype(np.float32), [30], [11], 11, 8)


@pytest.mark.parametrize(
    "lengths, targets, window",
    [
        ([-1, 6], [1, 3], 8),
        ([9, 6], [3, 3], 8),
        ([6, 6], [7, 3], 8),
        ([6, 6], [0, 3], 8),
        ([6, 6], [5, 3], 8),
        ([0, 6], [1, 3], 8),
        ([6, 6], [3, 3], -2),
    ],
)
def test_rows_out_of_range_come_out_empty(kernels, lengths, targets, window):
    """The device cannot raise: such a row is all padding,
    and its neighbour is right unless the window is to blame."""
    x, keep = harness.slow_tokens(np.random.default_rng(8), 2, 8, 5), 4
    got = harness.merge_on_host(kernels, x, lengths, targets, keep, window)
    empty = merge_rows(x[:1], [0], [0], keep)
    harness.assert_same({name: got[name][:1] for name in got}, empty)
    other = empty if window < -1 else merge_rows(x[1:], lengths[1:], targets[1:], keep, window)
    harness.assert_same({name: got[name][1:] for name in got}, other)


def test_no_rows_no_tokens_no_slots(kernels):
    for batch, tokens, keep in ((0, 5, 2), (2, 0, 0), (2, 0, 3), (2, 4, 0)):
        check(kernels, np.zeros((batch, tokens, 8), np.float32), [0] * batch, [0] * batch, keep, 8)


@pytest.mark.parametrize(
    "width, step, words",
    [
        (0, (2, 5), "D from 1 to 32767"),
        (32768, (2, 5), "D from 1 to 32767"),
        (4, (0, 5), "must be positive"),
        (4, (2, 0), "must be positive"),
    ],
)
def test_refusals_say_why(kernels, width, step, words):
    x = np.zeros((1, 2, width), np.float32)
    with pytest.raises(ValueError, match=words):
        harness.merge_on_host(kernels, x, [2], [1], 1, 8, step)


def test_rows_beyond_32_bit_indices_are_refused(kernels):
    with pytest.raises(ValueError, match="cut the recording into shorter rows"):
        kernels.enqueue(
            dict.fromkeys(("x", *harness.OUTPUTS, "workspace"), 1), (1, 2**20, 1280, 1), 1, (2, 5)
        )


ADDRESSES = ("x", "lengths", "targets", "window", *harness.OUTPUTS)


def one_row(memory, **changed):
    """Addresses of a valid call for one row of 2 x 4 float32 values in `memory`, some of them changed."""
    start = memory.ctypes.data + -memory.ctypes.data % harness.GUARD
    names = (*ADDRESSES, "workspace")
    return {name: start + harness.GUARD * place for place, name in enumerate(names)} | changed


@pytest.fixture
def memory(kernels):
    return np.zeros(harness.GUARD * 10 + kernels.workspace((1, 2, 4, 1), 0), np.uint8)


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_null_or_misaligned_buffer_is_named(kernels, memory, name):
    good = one_row(memory)
    for address, words in ((None, f"{name} is null"), (good[name] + 1, f"{name} is not aligned to its type")):
        with pytest.raises(ValueError, match=words):
            kernels.enqueue(good | {name: address}, (1, 2, 4, 1), 0, (2, 5))


def test_a_workspace_is_given_and_aligned(kernels, memory):
    good = one_row(memory)
    for address, words in ((None, "no workspace"), (good["workspace"] + 128, "aligned to 256 bytes")):
        with pytest.raises(ValueError, match=words):
            kernels.enqueue(good | {"workspace": address}, (1, 2, 4, 1), 0, (2, 5))


def test_a_call_that_is_null_is_refused(kernels):
    assert kernels.library.ltbm_cuda_enqueue(None, None) == b"LTBM: the call is null"


def test_rows_of_more_tokens_than_32_bit_sums_take_are_refused(kernels, memory):
    with pytest.raises(ValueError, match="more than 262143 tokens"):
        kernels.enqueue(one_row(memory), (1, 262144, 4, 1), 0, (2, 5))
    assert kernels.workspace((1, 262144), 0) == 0
    assert kernels.workspace((-1, 2), 0) == 0
