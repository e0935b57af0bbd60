"""LTBM in numpy: the specification that every other implementation equals bit for bit.

Plan once, apply many: `plan_merge` decides on the tokens of one row which of them merge,
    `apply_plan` averages any
tensor of that row accordingly, and `merge_rows` is the whole op `ai.ltbm::LTBM` on a padded batch.

Similarity is computed on a grid of whole numbers, so every sum below is exact and no order of summation
matters.
Source: arXiv 2605.25179, of which only the abstract was at hand; what it leaves open is our own reading.
Shapes: B rows, T tokens in, L valid tokens of a row, K tokens kept, D encoder width.
"""

import operator
from dataclasses import dataclass

import numpy as np

GRID_MAX = np.float32(8191)  # grid steps of the row's largest value: 14 bits with the sign
AMAX_MIN = np.float32(1e-30)  # rows that stay below it are silent: their grid is zero
DEFAULT_STEP = (2, 5)  # share of the current tokens merged away in one pass, at most
SPILL_PENALTY = 4.0  # scores lie in [-1, 1], so no spill ever beats a pair inside the window
SPILL_BOUND = -SPILL_PENALTY / 2  # values below it are spills
BLOCK = 32  # A tokens scored in one product of matrices, at least; for speed only
EXACT_FLOAT64 = 2.0**53  # float64 holds every whole number below it
SAFE_INT64 = 2.0**62  # a power of two short of the limit, so that a rounded norm cannot hide an overflow


@dataclass(frozen=True)
class MergePlan:
    """Where the tokens of one row go; all arrays are int32."""

    source_map: np.ndarray  # [L] output that each token went to, -1 for a token that was dropped
    sizes: np.ndarray  # [K] tokens that each output holds
    anchors: np.ndarray  # [K] place of each output among the row's tokens, strictly increasing
    spill: int = 0  # merges taken outside the window

    def __post_init__(self):
        if len(self.sizes) != len(self.anchors):
            raise ValueError(f"a plan has one size per anchor, got {len(self.sizes)} and {len(self.anchors)}")
        if len(self.source_map) and not -1 <= self.source_map.min() <= self.source_map.max() < len(
            self.sizes
        ):
            raise ValueError(
                f"a source map holds -1..{len(self.sizes) - 1}, got {self.source_map.min()}.."
                f"{self.source_map.max()}"
            )


def plan_merge(x, keep, window=-1, step=DEFAULT_STEP, strict=False) -> MergePlan:
    """Plan the merge of the tokens x [L, D] (float16 or float32) down to `keep` tokens.

    window: largest distance between the anchors of a merge, in encoder tokens; -1 for Global Merge.
    step: at most this share (numerator, denominator) of the current tokens is merged away in one pass.
    strict: refuse a plan that has to merge outside the window.
    """
    check_tokens(x)
    length = len(x)
    keep = check_keep(keep, length)
    window = check_window(window)
    step = check_step(step)
    grid = similarity_grid(x).astype(np.float64)  # [n, D] whole numbers, summed as tokens merge
    anchors = np.arange(length)  # [n] place of each current token among the L
    place = np.arange(length)  # [L] current token that each input token is part of
    spill = 0
    while len(anchors) > keep:
        partner, value = best_partners(grid, anchors, window)
        merged = np.argsort(-value, kind="stable")[: merge_count(len(anchors), keep, step)]
        spill += int(np.count_nonzero(value[merged] < SPILL_BOUND))
        grid, anchors, moved = merge_pairs(grid, anchors, 2 * merged, 2 * partner[merged] + 1)
        place = moved[place]
    if strict and spill:
        raise ValueError(
            f"keeping {keep} of {length} tokens takes {spill} merges outside window {window}: "
            "widen the window, keep more tokens, or allow spills with strict=False"
        )
    return plan_of(place, anchors, spill)


def apply_plan(plan: MergePlan, x) -> np.ndarray:
    """Average the tokens x [L, D] that share an output: y [K, D] in x's type,
    summed in float32 in order of time."""
    check_tokens(x)
    if len(x) != len(plan.source_map):
        raise ValueError(
            f"this plan is for {len(plan.source_map)} tokens, x has {len(x)}: plan on the same row"
        )
    # -0.0 is the identity of addition (0.0 + -0.0 is 0.0), so a token alone comes out as it went in.
    total = np.full((len(plan.sizes), x.shape[1]), -0.0, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinities in x stay what they are
        for token, output in zip(x.astype(np.float32), plan.source_map):
            if output >= 0:
                total[output] += token
        return (total / plan.sizes[:, None].astype(np.float32)).astype(x.dtype)


def merge_rows(x, lengths, targets, keep, window=-1, step=DEFAULT_STEP) -> dict:
    """The op `ai.ltbm::LTBM`: x [B, T, D], lengths [B], targets [B], keep = K slots -> y, sizes, anchors,
    source_map.

    Padding: y 0, sizes 0, anchors -1, source_map -1. What stands in x after a row's length is never read.
    """
    check_rows(x, lengths, targets, keep)
    batch, tokens, width = x.shape
    out = {
        "y": np.zeros((batch, keep, width), x.dtype),
        "sizes": np.zeros((batch, keep), np.int32),
        "anchors": np.full((batch, keep), -1, np.int32),
        "source_map": np.full((batch, tokens), -1, np.int32),
    }
    for row, (length, target) in enumerate(zip(lengths, targets)):
        plan = plan_merge(x[row, :length], target, window, step)
        out["y"][row, :target] = apply_plan(plan, x[row, :length])
        out["sizes"][row, :target] = plan.sizes
        out["anchors"][row, :target] = plan.anchors
        out["source_map"][row, :length] = plan.source_map
    return out


def plan_of(source_map, anchors, spill=0) -> MergePlan:
    """The plan of a source map [L] (-1 for dropped tokens) with the places [K] its outputs stand at."""
    source_map = np.asarray(source_map)
    sizes = np.bincount(source_map[source_map >= 0], minlength=len(anchors))
    return MergePlan(
        source_map.astype(np.int32), sizes.astype(np.int32), np.asarray(anchors, np.int32), spill
    )


# --- one pass ---


def similarity_grid(x) -> np.ndarray:
    """x [L, D] as whole numbers [L, D] int32 with the row's largest value at 8191;
    NaN and infinities count as 0."""
    v = x.astype(np.float32)
    v[~np.isfinite(v)] = 0
    amax = np.abs(v).max(initial=np.float32(0))
    if not amax > AMAX_MIN:
        return np.zeros(v.shape, np.int32)
    v *= GRID_MAX / amax
    return np.rint(v).astype(np.int32)  # rint rounds half to even


def merge_count(n, target, step=DEFAULT_STEP) -> int:
    """How many of n current tokens the next pass merges away."""
    return max(1, min(n - target, n * step[0] // step[1], n // 2))


def best_partners(grid, anchors, window):
    """Each A token's best B token and the value of that pair: partner [n_a] indices into B,
    value [n_a] float64.

    A are the even places of the current order, B the odd ones.
    """
    even = grid[0::2]
    odd = grid[1::2]
    norms = squared_norms(grid)
    partner = np.empty(len(even), np.int64)
    value = np.empty(len(even))
    for a, b in blocks(len(even), len(odd), window):
        scores = signed_squared_cosines(even[a], odd[b], norms[0::2][a], norms[1::2][b])
        values = pair_values(scores, a, b, anchors, window)
        partner[a] = b.start + values.argmax(axis=1)  # the lowest index on ties
        value[a] = values.max(axis=1)
    return partner, value


def blocks(n_a, n_b, window):
    """Cut A into blocks and give each the slab of B that holds its windows: pairs of slices.

    Anchors increase strictly, so two tokens' anchors are at least as far apart as their places:
    an A token meets its whole window among the `before` B tokens before its own index and the `after` behind
    it. The work is linear in n.
    """
    if window < 0:
        return [(slice(0, n_a), slice(0, n_b))]
    before, after = max(1, (window + 1) // 2), max(0, (window - 1) // 2)  # 1 and 0 are the two neighbours
    rows = max(BLOCK, before + after)
    return [
        (slice(first, min(first + rows, n_a)), slice(max(first - before, 0), min(first + rows + after, n_b)))
        for first in range(0, n_a, rows)
    ]


def squared_norms(grid) -> np.ndarray:
    """<G, G> of each current token [n]: float64 if every product of the pass is exact in it, else int64.

    By Cauchy-Schwarz no partial sum of any <Ga, Gb> exceeds the largest <G, G>.
    """
    norms = np.einsum("nd,nd->n", grid, grid)
    if norms.max() < EXACT_FLOAT64:
        return norms
    if norms.max() >= SAFE_INT64:
        raise OverflowError(
            f"a merged token's <G, G> of {norms.max():.3g} leaves int64: cut the recording into rows "
            "of 30 s, or keep more tokens"
        )
    whole = grid.astype(np.int64)
    return np.einsum("nd,nd->n", whole, whole)


def signed_squared_cosines(a, b, norms_a, norms_b) -> np.ndarray:
    """Scores [n_a, n_b] of the tokens a [n_a, D] and b [n_b, D],
    from IEEE division and multiplication only."""
    dot = (a.astype(norms_a.dtype) @ b.astype(norms_b.dtype).T).astype(np.float64)
    norms_a, norms_b = (np.maximum(norms, 1).astype(np.float64) for norms in (norms_a, norms_b))
    return (dot / norms_a[:, None]) * (np.abs(dot) / norms_b[None, :])


def pair_values(scores, a, b, anchors, window) -> np.ndarray:
    """Scores [n_a, n_b] of the slices a, b inside the window; outside, neighbours spill,
    others are no candidates."""
    if window < 0:
        return scores
    places = np.arange(len(anchors))
    place_a = places[0::2][a, None]
    place_b = places[1::2][None, b]
    inside = np.abs(anchors[place_a] - anchors[place_b]) <= window
    neighbours = np.abs(place_a - place_b) == 1
    return np.where(inside, scores, np.where(neighbours, scores - SPILL_PENALTY, -np.inf))


def merge_pairs(grid, anchors, sources, destinations):
    """Merge the tokens at places `sources` into those at `destinations`, all at once; grid is changed.

    Returns the survivors' grid and anchors, and the new place of every token that there was.
    """
    for source, destination in zip(sources, destinations):
        grid[destination] += grid[source]  # sources are A, destinations B: no order matters
    alive = np.ones(len(anchors), bool)
    alive[sources] = False
    moved = np.cumsum(alive) - 1
    moved[sources] = moved[destinations]
    return grid[alive], anchors[alive], moved


# --- checks ---


def check_tokens(x):
    check_type(x)
    if x.ndim != 2 or x.shape[1] < 1:
        raise ValueError(
            f"x must be the tokens of one row [L, D], got shape {x.shape}: use merge_rows for a batch"
        )


def check_type(x):
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float16, np.float32):
        raise TypeError(
            f"x must be a numpy array of float16 or float32, got {getattr(x, 'dtype', type(x).__name__)}: "
            "convert with x.astype(np.float32)"
        )


def check_keep(keep, length, name="keep") -> int:
    keep = operator.index(keep)
    if not min(length, 1) <= keep <= length:
        expected = f"1..{length}" if length else "0"
        raise ValueError(
            f"{name} is {keep} for a row of {length} tokens, expected {expected}: "
            "targets are clamp(ceil(L * num / den), 1, L) of a level num/den"
        )
    return keep


def check_window(window) -> int:
    window = operator.index(window)
    if window < -1:
        raise ValueError(f"window is {window}, expected a distance in encoder tokens, or -1 for Global Merge")
    return window


def check_step(step):
    numerator, denominator = (operator.index(part) for part in step)
    if numerator < 1 or denominator < 1:
        raise ValueError(f"step is {step}, expected a positive fraction such as {DEFAULT_STEP} for 2/5")
    return numerator, denominator


def check_rows(x, lengths, targets, keep):
    check_type(x)
    if x.ndim != 3:
        raise ValueError(f"x must be [B, T, D], got shape {x.shape}: use plan_merge for one row")
    check_counts(len(x), x.shape[1], lengths, targets, keep)


def check_counts(rows: int, tokens: int, lengths, targets, keep):
    """ValueError unless x of that many rows and tokens can be cut to `lengths` and merged to `targets`."""
    if not len(lengths) == len(targets) == rows:
        raise ValueError(
            f"x has {rows} rows, got {len(lengths)} lengths and {len(targets)} targets: one a row"
        )
    for row, (length, target) in enumerate(zip(lengths, targets)):
        if not 0 <= length <= tokens:
            raise ValueError(f"lengths[{row}] is {length}, expected 0..{tokens}, the tokens of x")
        check_keep(target, length, f"targets[{row}]")
    if keep < max(targets, default=0):
        raise ValueError(f"keep is {keep} slots, expected at least {max(targets)}, the largest target")
