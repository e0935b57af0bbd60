"""The numpy reference against docs/algorithm.md spelt out in Python's own whole numbers,
and the invariants docs/algorithm.md lists."""

import numpy as np
import pytest

from ltbm.plugins import merge
from ltbm.plugins.merge import MergePlan, apply_plan, merge_count, merge_rows, plan_merge

WINDOWS = (-1, 0, 1, 2, 5, 8, 40)
STEPS = ((2, 5), (1, 2), (1, 4), (1, 100), (7, 3))


# --- docs/algorithm.md, as plainly as it can be written ---


def plain_grid(x):
    """Lists of Python ints."""
    rows = [[np.float32(v) if np.isfinite(v) else np.float32(0) for v in token] for token in x]
    amax = max((abs(v) for token in rows for v in token), default=np.float32(0))
    if not amax > np.float32(1e-30):
        return [[0 for _ in token] for token in rows]
    scale = np.float32(8191) / amax
    return [[round(float(v * scale)) for v in token] for token in rows]  # Python rounds half to even


def plain_dot(p, q, copies):
    return copies * sum(v * w for v, w in zip(p, q))


def plain_value(a, b, tokens, norms, window, copies):
    """The value of merging current token a into b, None if they are no candidates."""
    inside = window < 0 or abs(tokens[a][1] - tokens[b][1]) <= window
    if not inside and abs(a - b) != 1:
        return None
    d = plain_dot(tokens[a][0], tokens[b][0], copies)
    score = (float(d) / float(max(norms[a], 1))) * (float(abs(d)) / float(max(norms[b], 1)))
    return score if inside else score - 4


def plain_pass(tokens, target, window, step, copies):
    """The (value, source, destination) of each merge of a pass over tokens, a list of (grid, anchor)."""
    n = len(tokens)
    r = max(1, min(n - target, n * step[0] // step[1], n // 2))
    norms = [plain_dot(grid, grid, copies) for grid, _ in tokens]
    found = []
    for a in range(0, n, 2):
        values = [(plain_value(a, b, tokens, norms, window, copies), -b) for b in range(1, n, 2)]
        value, b = max(pair for pair in values if pair[0] is not None)
        found.append((value, a, -b))
    return sorted(found, key=lambda item: (-item[0], item[1]))[:r]


def plain_plan(x, target, window, step=(2, 5), copies=1):
    """Source map, anchors and spills as lists. `copies`: how often each channel of x stands for."""
    tokens = [(grid, i) for i, grid in enumerate(plain_grid(x))]
    parent = list(range(len(tokens)))
    spill = 0
    while len(tokens) > target:
        merged = plain_pass(tokens, target, window, step, copies)
        for value, a, b in merged:
            tokens[b] = ([p + q for p, q in zip(tokens[b][0], tokens[a][0])], tokens[b][1])
            parent[tokens[a][1]] = tokens[b][1]
            spill += value < -2
        gone = {a for _, a, _ in merged}
        tokens = [token for place, token in enumerate(tokens) if place not in gone]
    anchors = [anchor for _, anchor in tokens]

    def final(i):
        return i if parent[i] == i else final(parent[i])

    return [anchors.index(final(i)) for i in range(len(parent))], anchors, spill


def plain_means(x, source_map, count):
    """y: float32 sums in order of time, divided, in x's type."""
    sums = [None] * count
    sizes = [0] * count
    with np.errstate(all="ignore"):
        for token, k in zip(x.astype(np.float32), source_map):
            sums[k] = token if sums[k] is None else sums[k] + token
            sizes[k] += 1
        means = [(s / np.float32(n)).astype(x.dtype) for s, n in zip(sums, sizes)]
    return np.array(means, x.dtype).reshape(count, x.shape[1]), sizes


def check_against_plain(x, keep, window, step=(2, 5)):
    plan = plan_merge(x, keep, window, step)
    source_map, anchors, spill = plain_plan(x, keep, window, step)
    y, sizes = plain_means(x, source_map, keep)
    assert plan.source_map.tolist() == source_map
    assert plan.anchors.tolist() == anchors
    assert plan.sizes.tolist() == sizes
    assert plan.spill == spill
    result = apply_plan(plan, x)
    assert result.dtype == x.dtype and result.tobytes() == y.tobytes()


# --- equality with it ---


@pytest.mark.parametrize("seed", range(40))
def test_random_rows_equal_the_plain_algorithm(make_clip, seed):
    rng = np.random.default_rng(seed)
    for window in WINDOWS:
        length, dim = int(rng.integers(1, 30)), int(rng.integers(1, 6))
        x = make_clip(length, dim, seed) if rng.random() < 0.5 else rng.integers(-2, 3, (length, dim))
        x = x.astype(rng.choice([np.float16, np.float32]))
        check_against_plain(x, int(rng.integers(1, length + 1)), window, STEPS[rng.integers(len(STEPS))])


@pytest.mark.parametrize("window", WINDOWS)
def test_hard_rows_equal_the_plain_algorithm(hard_row, window):
    for keep in {min(len(hard_row), 1), (len(hard_row) + 1) // 2, len(hard_row)}:
        check_against_plain(hard_row, keep, window)
        with np.errstate(over="ignore"):
            check_against_plain(hard_row.astype(np.float16), keep, window)


@pytest.mark.parametrize("window", [8, 70])
def test_long_rows_of_many_blocks_equal_the_plain_algorithm(make_clip, window):
    check_against_plain(make_clip(300, 2), 20, window)


@pytest.mark.parametrize("kind, keep, window", [("nearly constant", 2, 32), ("one direction", 3, -1)])
def test_group_products_beyond_float64_are_exact(kind, keep, window):
    """At D = 1280 sums of float64 round from group products of about 100 000 on;
    here that would change the plan."""
    length, dim = 1500, 1280
    channel = {
        "nearly constant": np.where(np.arange(length) % 7 == 6, 0.9997, 1),
        "one direction": np.random.default_rng(7).uniform(0.5, 1, length),
    }[kind].astype(np.float32)[:, None]
    plan = plan_merge(np.repeat(channel, dim, axis=1), keep, window)
    expected = plain_plan(channel, keep, window, copies=dim)
    assert (plan.source_map.tolist(), plan.anchors.tolist(), plan.spill) == expected
    assert int(plan.sizes.max()) ** 2 > 100_000


# --- the numbers docs/algorithm.md gives ---


@pytest.mark.parametrize(
    "target, counts",
    [
        (563, [187]),
        (375, [300, 75]),
        (188, [300, 180, 82]),
        (94, [300, 180, 108, 64, 4]),
        (47, [300, 180, 108, 64, 39, 12]),
    ],
)
def test_tokens_merged_per_pass_at_750(target, counts):
    n, merged = 750, []
    while n > target:
        merged.append(merge_count(n, target))
        n -= merged[-1]
    assert merged == counts and n == target


def test_blocks_hold_every_window_in_linear_work():
    for n_a, n_b, window in [
        (50, 49, 0),
        (50, 50, 1),
        (70, 70, 3),
        (333, 332, 8),
        (700, 700, 151),
        (3, 3, 2**31 - 1),
        (4, 3, -1),
    ]:
        met = np.zeros((n_a, n_b), bool)
        for a, b in merge.blocks(n_a, n_b, window):
            assert not met[a].any()
            met[a, b] = True
        distance = np.abs(2 * np.arange(n_a)[:, None] - 2 * np.arange(n_b) - 1)
        assert met[distance <= max(window, 1)].all() and (window >= 0 or met.all())
    work = [
        sum((a.stop - a.start) * (b.stop - b.start) for a, b in merge.blocks(n, n, 8)) for n in (5000, 10000)
    ]
    assert 1.9 < work[1] / work[0] < 2.1


# --- invariants ---


@pytest.fixture(params=[(8, 40), (3, 90), (-1, 25), (500, 25), (8, 1)], ids=str)
def planned(request, make_clip):
    window, keep = request.param
    x = make_clip(200, 16, seed=keep)
    return x, keep, window, plan_merge(x, keep, window)


def same(plan, other):
    return all(
        np.array_equal(getattr(plan, name), getattr(other, name))
        for name in ("source_map", "sizes", "anchors", "spill")
    )


def test_every_token_goes_to_one_of_exactly_keep_outputs(planned):
    x, keep, _, plan = planned
    assert plan.sizes.sum() == len(x) and len(plan.sizes) == len(plan.anchors) == keep
    assert np.array_equal(np.bincount(plan.source_map, minlength=keep), plan.sizes) and plan.sizes.min() >= 1
    assert (np.diff(plan.anchors) > 0).all()
    assert np.array_equal(plan.source_map[plan.anchors], np.arange(keep))
    assert {a.dtype for a in (plan.source_map, plan.sizes, plan.anchors)} == {np.dtype(np.int32)}


def test_sums_are_kept(planned):
    x, _, _, plan = planned
    total = (plan.sizes[:, None] * apply_plan(plan, x).astype(np.float64)).sum(axis=0)
    assert np.allclose(total, x.astype(np.float64).sum(axis=0), atol=1e-3)


def test_groups_stay_local_when_nothing_spilled(planned):
    x, keep, window, plan = planned
    n, passes = len(x), 0
    while n > keep:
        n, passes = n - merge_count(n, keep), passes + 1
    spans = [np.ptp(np.flatnonzero(plan.source_map == k)) for k in range(keep)]
    assert window < 0 or plan.spill or max(spans) <= 2 * window * passes


def test_groups_nest_as_the_target_falls(planned):
    x, keep, window, plan = planned
    finer = plan_merge(x, min(len(x), keep + 37), window)
    for k in range(len(finer.sizes)):
        assert len(set(plan.source_map[finer.source_map == k])) == 1


def test_plans_ignore_channel_order_sign_and_powers_of_two(planned):
    x, keep, window, plan = planned
    shuffled = np.random.default_rng(0).permutation(x.shape[1])
    for other in (x[:, shuffled], -x, x * 64, x / 1024):
        assert same(plan_merge(np.ascontiguousarray(other), keep, window), plan)


def test_a_window_of_the_whole_row_is_global_merge(make_clip):
    x = make_clip(60, 8)
    for keep in (1, 13, 30):
        assert same(plan_merge(x, keep, len(x)), plan_merge(x, keep, -1))


def test_keeping_all_is_the_identity_bit_for_bit(hard_row):
    for x in (
        (hard_row, hard_row.astype(np.float16)) if np.abs(hard_row).max(initial=0) < 6e4 else (hard_row,)
    ):
        plan = plan_merge(x, len(x), 8)
        assert apply_plan(plan, x).tobytes() == x.tobytes()
        assert np.array_equal(plan.anchors, np.arange(len(x)))


def test_spills_are_counted_and_strict_refuses_them(make_clip):
    x = make_clip(40, 8)
    assert plan_merge(x, 10, 0).spill == 30  # no two tokens are 0 apart: neighbours only
    assert plan_merge(x, 10, -1, strict=True).spill == 0
    assert plan_merge(x, 20, 8, strict=True).spill == 0
    with pytest.raises(ValueError, match="keeping 10 of 40 tokens takes 30 merges outside window 0: widen"):
        plan_merge(x, 10, 0, strict=True)


# --- batches ---


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_of_a_batch_are_rows_alone(make_clip, dtype):
    lengths, targets, keep = [20, 0, 1, 13], [7, 0, 1, 13], 15
    x = np.full((4, 20, 6), np.nan, dtype)
    for row, length in enumerate(lengths):
        x[row, :length] = make_clip(length, 6, row)
    out = merge_rows(x, lengths, targets, keep, window=4)
    assert {name: (a.shape, a.dtype) for name, a in out.items()} == {
        "y": ((4, keep, 6), np.dtype(dtype)),
        "sizes": ((4, keep), np.dtype(np.int32)),
        "anchors": ((4, keep), np.dtype(np.int32)),
        "source_map": ((4, 20), np.dtype(np.int32)),
    }
    for row, (length, target) in enumerate(zip(lengths, targets)):
        plan = plan_merge(x[row, :length], target, 4)
        assert out["y"][row, :target].tobytes() == apply_plan(plan, x[row, :length]).tobytes()
        assert not out["y"][row, target:].any() and not out["sizes"][row, target:].any()
        assert (out["anchors"][row, target:] == -1).all() and (out["source_map"][row, length:] == -1).all()
        assert np.array_equal(out["source_map"][row, :length], plan.source_map)
        assert np.array_equal(out["anchors"][row, :target], plan.anchors)
        assert np.array_equal(out["sizes"][row, :target], plan.sizes)
    turned = merge_rows(x[::-1], lengths[::-1], targets[::-1], keep, window=4)
    assert all(out[name].tobytes() == turned[name][::-1].tobytes() for name in out)


# --- refusals ---


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (dict(x=np.zeros((4, 2))), TypeError, "float16 or float32, got float64: convert"),
        (dict(x=[[1.0]]), TypeError, "got list"),
        (dict(x=np.zeros((1, 4, 2), np.float32)), ValueError, "one row .* use merge_rows"),
        (dict(x=np.zeros((4, 0), np.float32)), ValueError, "got shape"),
        (dict(keep=0), ValueError, "keep is 0 for a row of 4 tokens, expected 1..4"),
        (dict(keep=5), ValueError, "keep is 5"),
        (dict(x=np.zeros((0, 2), np.float32), keep=1), ValueError, "row of 0 tokens, expected 0"),
        (dict(keep=2.0), TypeError, "float"),
        (dict(window=-2), ValueError, "window is -2, expected"),
        (dict(step=(0, 5)), ValueError, "positive fraction"),
        (dict(step=(2, 0)), ValueError, "positive fraction"),
    ],
)
def test_bad_rows_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        plan_merge(**{"x": np.zeros((4, 2), np.float32), "keep": 2, **arguments})


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(x=np.zeros((4, 2), np.float32)), "B, T, D"),
        (dict(lengths=[4]), "x has 2 rows, got 1 lengths and 2 targets"),
        (dict(lengths=[4, 5]), r"lengths\[1\] is 5, expected 0..4"),
        (dict(targets=[2, 3]), r"targets\[1\] is 3 for a row of 2 tokens, expected 1..2"),
        (dict(keep=1), "keep is 1 slots, expected at least 2"),
    ],
)
def test_bad_batches_are_refused(arguments, words):
    good = {"x": np.zeros((2, 4, 2), np.float32), "lengths": [4, 2], "targets": [2, 2], "keep": 2}
    with pytest.raises(ValueError, match=words):
        merge_rows(**{**good, **arguments})


def test_plans_are_checked_against_themselves_and_their_row():
    with pytest.raises(ValueError, match="holds -1..1, got 0..2"):
        MergePlan(np.array([0, 2]), np.array([1, 1]), np.array([0, 1]))
    with pytest.raises(ValueError, match="one size per anchor"):
        MergePlan(np.array([0, 0]), np.array([2]), np.array([0, 1]))
    with pytest.raises(ValueError, match="plan is for 3 tokens, x has 4"):
        apply_plan(plan_merge(np.zeros((3, 2), np.float32), 2), np.zeros((4, 2), np.float32))


def test_similarity_beyond_int64_is_refused():
    with pytest.raises(OverflowError, match="cut the recording"):
        merge.squared_norms(np.full((2, 4), 2.0**31))
