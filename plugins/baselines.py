"""What LTBM is compared with, for evaluation only: every method gives a `MergePlan`,
which `apply_plan` takes.

Methods that drop tokens give a dropped token source -1 and a kept one size 1 (it weighs as itself)
and its own place as anchor. `pool` averages equal segments, each anchored at its middle token;
`stride` keeps just those middle tokens.
"""

import numpy as np

from .merge import MergePlan, check_keep, check_tokens, plan_merge, plan_of

METHODS = ("ltbm", "global", "pool", "stride", "prune", "prune-segment", "random")
TIME_SEGMENTS = 10  # of prune-segment


def plan(method, x, keep, window=-1, seed=0) -> MergePlan:
    """Plan how `method` brings the tokens x [L, D] of one row down to `keep`.

    window: for ltbm only, in encoder tokens; seed: for random only.
    """
    check_tokens(x)
    keep = check_keep(keep, len(x))
    if method == "ltbm":
        return plan_merge(x, keep, window)
    if method == "global":
        return plan_merge(x, keep, window=-1)
    if method == "pool":
        return plan_of(np.arange(len(x)) * keep // max(len(x), 1), middles(len(x), keep))
    if method == "stride":
        return keep_only(middles(len(x), keep), len(x))
    if method == "prune":
        return keep_only(top_of(deviations(x), keep), len(x))
    if method == "prune-segment":
        return keep_only(top_of_segments(deviations(x), keep), len(x))
    if method == "random":
        return keep_only(np.random.default_rng(seed).choice(len(x), keep, replace=False), len(x))
    raise ValueError(f"unknown method {method!r}, expected one of {', '.join(METHODS)}")


def keep_only(places, length) -> MergePlan:
    """The plan that keeps the tokens at `places` as they are and drops the others."""
    places = np.sort(places)
    source_map = np.full(length, -1)
    source_map[places] = np.arange(len(places))
    return plan_of(source_map, places)


def middles(length, keep) -> np.ndarray:
    """The middle token [K] of each segment of `pool`, the earlier one of two."""
    bounds = -(
        -np.arange(keep + 1) * length // max(keep, 1)
    )  # i * keep // length first equals k at ceil(k L / K)
    return (bounds[:-1] + bounds[1:] - 1) // 2


def deviations(x) -> np.ndarray:
    """Distance [L] of each token from the mean token; NaN and infinities count as 0."""
    v = np.where(np.isfinite(x), x, 0).astype(np.float64)
    return np.linalg.norm(v - v.mean(axis=0, keepdims=True), axis=1) if len(v) else np.zeros(0)


def top_of(scores, count) -> np.ndarray:
    """Places of the highest scores, the lowest place on ties."""
    return np.argsort(-scores, kind="stable")[:count]


def top_of_segments(scores, keep) -> np.ndarray:
    """The highest scores of each of ten equal stretches of time,
    as many from each as `stride` keeps there."""
    edges = np.arange(TIME_SEGMENTS + 1) * len(scores) // TIME_SEGMENTS
    quotas = np.diff(np.searchsorted(middles(len(scores), keep), edges))
    chosen = [
        start + top_of(scores[start:stop], quota) for start, stop, quota in zip(edges, edges[1:], quotas)
    ]
    return np.concatenate(chosen)
