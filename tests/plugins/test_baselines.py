"""What LTBM is compared with: the plans that each method's definition gives by hand."""

import numpy as np
import pytest

from ltbm.plugins.baselines import METHODS, plan
from ltbm.plugins.merge import apply_plan, plan_merge

DROPPING = ("stride", "prune", "prune-segment", "random")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("length, keep", [(0, 0), (1, 1), (2, 1), (7, 5), (40, 40), (40, 13), (101, 26)])
def test_every_method_gives_a_plan_that_applies(make_clip, method, length, keep):
    x = make_clip(length, 6)
    result = plan(method, x, keep, window=8)
    kept = result.source_map[result.source_map >= 0]
    assert len(result.anchors) == keep and (np.diff(result.anchors) > 0).all()
    assert np.array_equal(np.bincount(kept, minlength=keep), result.sizes)
    assert np.array_equal(result.source_map[result.anchors], np.arange(keep))
    y = apply_plan(result, x)
    assert y.shape == (keep, 6)
    if method in DROPPING:
        assert (result.sizes == 1).all() and y.tobytes() == x[result.anchors].tobytes()
    else:
        assert result.sizes.sum() == length
    if keep == length:
        assert y.tobytes() == x.tobytes()


def test_pool_averages_equal_segments_and_stride_keeps_their_middles(make_clip):
    x = make_clip(10, 3)
    pool, stride = plan("pool", x, 4), plan("stride", x, 4)
    assert pool.source_map.tolist() == [i * 4 // 10 for i in range(10)] == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert pool.anchors.tolist() == stride.anchors.tolist() == [1, 3, 6, 8]
    assert stride.source_map.tolist() == [-1, 0, -1, 1, -1, -1, 2, -1, 3, -1]
    assert np.allclose(apply_plan(pool, x)[0], x[:3].mean(axis=0))


def test_prune_keeps_what_differs_most_from_the_mean():
    x = np.array([[0, 1], [0, 0], [9, 0], [0, 0], [-9, -1], [np.nan, 3]], np.float32)
    assert plan("prune", x, 3).anchors.tolist() == [2, 4, 5]
    ties = (
        np.arange(501, dtype=np.float32)[:, None] % 3
    )  # 0 and 2 differ equally from the mean: the lowest index wins
    assert plan("prune", ties, 4).anchors.tolist() == [0, 2, 3, 5]


def test_prune_segment_keeps_as_many_from_every_tenth_of_the_time():
    x = np.zeros((100, 2), np.float32)
    x[:15] = np.random.default_rng(0).standard_normal((15, 2)) * 50
    x[15:30] = -x[:15]  # the mean is near 0, and prune alone would keep only these
    x[35, 0] = x[99, 1] = 1
    anchors = plan("prune-segment", x, 20).anchors
    assert np.bincount(anchors // 10).tolist() == [2] * 10 and {35, 99} <= set(anchors)
    assert plan("prune", x, 20).anchors.max() < 30
    for length in (6, 11, 99):  # shares never exceed what a segment holds
        assert len(plan("prune-segment", x[:length], length - 1).anchors) == length - 1


def test_random_follows_its_seed(make_clip):
    x = make_clip(60, 2)
    again = [plan("random", x, 20, seed=seed).anchors.tolist() for seed in (3, 3, 4)]
    assert again[0] == again[1] != again[2]


def test_ltbm_and_global_are_the_merge_itself(make_clip):
    x = make_clip(60, 4)
    for method, window in (("ltbm", 3), ("global", -1)):
        expected = plan_merge(x, 20, window).source_map
        assert np.array_equal(plan(method, x, 20, window=3).source_map, expected)


def test_unknown_methods_and_targets_are_refused(make_clip):
    with pytest.raises(ValueError, match="unknown method 'tome', expected one of ltbm, global"):
        plan("tome", make_clip(4, 2), 2)
    with pytest.raises(ValueError, match="keep is 5 for a row of 4 tokens"):
        plan("pool", make_clip(4, 2), 5)
