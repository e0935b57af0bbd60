"""The merge in plain PyTorch, as one would write it without a kernel:
what the CUDA kernels are timed against.

Decides on the same grid of whole numbers, with products in float64 where they are exact,
so its plan is that of merge.py; targets and window are Python numbers, rows are merged one after another.
"""

import torch


def merge_rows(x, lengths, targets, keep, window, step=(2, 5)):
    """x [B, T, D] -> y [B, K, D], sizes [B, K], anchors [B, K], source_map [B, T];
    lists of lengths and targets."""
    batch, tokens, width = x.shape
    y = x.new_zeros(batch, keep, width)
    sizes, anchors = (torch.full((batch, keep), fill, dtype=torch.int32, device=x.device) for fill in (0, -1))
    source_map = torch.full((batch, tokens), -1, dtype=torch.int32, device=x.device)
    for row, (length, target) in enumerate(zip(lengths, targets)):
        if length == 0:
            continue
        place, kept = plan_row(x[row, :length], target, window, step)
        counts = torch.zeros(target, dtype=torch.int64, device=x.device).index_add_(
            0, place, torch.ones_like(place)
        )
        sums = torch.zeros(target, width, device=x.device).index_add_(0, place, x[row, :length].float())
        y[row, :target] = (sums / counts[:, None].float()).to(x.dtype)
        sizes[row, :target], anchors[row, :target], source_map[row, :length] = (
            counts.int(),
            kept.int(),
            place.int(),
        )
    return y, sizes, anchors, source_map


def plan_row(x, target, window, step):
    """Output of each token [L], anchors of the outputs [K]."""
    grid = similarity_grid(x)
    anchors = torch.arange(len(x), device=x.device)
    place = anchors
    while len(anchors) > target:
        n = len(anchors)
        r = max(1, min(n - target, n * step[0] // step[1], n // 2))
        value, partner = pair_values(grid, anchors, window).max(dim=1)
        merged = torch.sort(value, descending=True, stable=True).indices[:r]
        sources, destinations = 2 * merged, 2 * partner[merged] + 1
        grid.index_add_(0, destinations, grid[sources])
        alive = torch.ones(n, dtype=torch.bool, device=x.device)
        alive[sources] = False
        moved = torch.cumsum(alive, 0) - 1
        moved[sources] = moved[destinations]
        grid, anchors, place = grid[alive], anchors[alive], moved[place]
    return place, anchors


def similarity_grid(x):
    v = torch.where(torch.isfinite(x), x, 0).float()
    amax = v.abs().max()
    scale = torch.where(amax > 1e-30, torch.div(torch.full_like(amax, 8191), amax), 0)
    return torch.round(v * scale).double()


def pair_values(grid, anchors, window):
    """Values [n_a, n_b] of all pairs of even and odd places."""
    a, b = grid[0::2], grid[1::2]
    norm_a, norm_b = ((tokens * tokens).sum(1).clamp(min=1) for tokens in (a, b))
    dot = a @ b.T
    score = (dot / norm_a[:, None]) * (dot.abs() / norm_b[None, :])
    if window < 0:
        return score
    places = torch.arange(len(grid), device=grid.device)
    inside = (anchors[0::2, None] - anchors[None, 1::2]).abs() <= window
    neighbours = (places[0::2, None] - places[None, 1::2]).abs() == 1
    return torch.where(inside, score, torch.where(neighbours, score - 4, -torch.inf))
