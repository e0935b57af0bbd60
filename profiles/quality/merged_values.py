"""Another value of a merged token than the mean of its members: for evaluation, the op has the mean."""

import numpy as np

from ...plugins.merge import MergePlan, apply_plan

NORMED = {"ltbm-norm": "ltbm", "global-norm": "global", "pool-norm": "pool"}
"""Methods whose merged token is the mean at its members' mean norm, and by which method they merge."""


def merged_values(method: str, merge_plan: MergePlan, tokens: np.ndarray) -> np.ndarray:
    """tokens [T, D] merged by the plan [K, D]: means, for methods in NORMED at their members' mean norm."""
    mean = apply_plan(merge_plan, tokens)
    if method not in NORMED:
        return mean
    member_norms = apply_plan(merge_plan, np.linalg.norm(tokens, axis=1, keepdims=True))
    return mean * member_norms / np.linalg.norm(mean, axis=1, keepdims=True)
