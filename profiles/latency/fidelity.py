"""What merging does to the user's own audio, without weights or answers: error of the tokens,
extent of the groups."""

import base64

import numpy as np

from ...plugins.baselines import plan
from ...plugins.merge import MergePlan, apply_plan
from ...runtime.levels import Level, parse_level
from ...runtime.pipeline import Pipeline
from ...runtime.stages.encoder import segment_tokens
from ...runtime.stages.segments import Segment
from .job_records import FidelityJob
from .records import Fidelity, FidelityRow, MergeMap, Spans

MAP_MELS = 64  # rows of a merge map's spectrogram
MAP_FRAMES = 2  # columns of it for each encoder token


def fidelity(job: FidelityJob) -> Fidelity:
    """A row for each level and method over all clips, and the merge map of the first clip's first segment."""
    levels = [parse_level(name, window=job.window) for name in job.levels]
    with Pipeline.open(
        job.bundle,
        backend=job.backend,
        device=job.device,
        threads=job.threads,
        in_turn=job.low_memory,
        kv_cache=job.kv_cache,
        packed=job.packed,
        native_products=job.native_products,
    ) as pipeline:
        spec = pipeline.manifest.audio
        token_ms = spec.segment_seconds / spec.segment_tokens * 1e3
        audios = [pipeline.segments(clip, job.long_audio) for clip in job.clips]
        tokens: list[np.ndarray] = []
        for clip in audios:
            for audio in clip:
                tokens += segment_tokens(pipeline.encode(audio))
    rows = tuple(
        _fidelity_row(tokens, level, method, token_ms)
        for level in levels
        for method in job.methods
        if level.ratio < 1 or method == "ltbm"
    )
    return Fidelity(rows, token_ms, merge_map(audios[0][0][0], tokens[0], levels))


def plan_row(x: np.ndarray, level: Level, method: str) -> MergePlan:
    return plan(method, x, level.target(len(x)), level.merge_window)


def _fidelity_row(tokens: list[np.ndarray], level: Level, method: str, token_ms: float) -> FidelityRow:
    plans = [plan_row(x, level, method) for x in tokens]
    lost = sum(squared_error(x, chosen) for x, chosen in zip(tokens, plans))
    spread = sum(float(np.square(x - x.mean(axis=0, dtype=np.float32)).sum(dtype=np.float64)) for x in tokens)
    spans = np.concatenate([group_spans(chosen) for chosen in plans]) * token_ms
    return FidelityRow(
        level=level.name,
        method=method,
        error=lost / spread if spread else 0.0,
        span_ms=Spans(*map(float, np.percentile(spans, (50, 95, 100)))) if len(spans) else None,
        spill=sum(chosen.spill for chosen in plans),
        tokens_in=sum(map(len, tokens)),
        tokens_out=sum(len(chosen.sizes) for chosen in plans),
    )


def squared_error(x: np.ndarray, chosen: MergePlan) -> float:
    """Sum of |x - x'|^2 where x' gives every token its group's mean, or, where it was dropped,
    the nearest kept token."""
    back = chosen.source_map.copy()
    dropped = np.flatnonzero(back < 0)
    back[dropped] = np.abs(dropped[:, None] - chosen.anchors[None, :]).argmin(axis=1)
    difference = x.astype(np.float32) - apply_plan(chosen, x).astype(np.float32)[back]
    return float(np.square(difference).sum(dtype=np.float64))


def group_spans(chosen: MergePlan) -> np.ndarray:
    """Tokens from the first to the last member of every group of several."""
    places = np.arange(len(chosen.source_map))
    members = [places[chosen.source_map == group] for group in np.flatnonzero(chosen.sizes > 1)]
    return np.array([place[-1] - place[0] for place in members], np.float64)


def merge_map(segment: Segment, x: np.ndarray, levels: list[Level]) -> MergeMap:
    """Spectrogram and source maps of one segment: `mel` is MAP_MELS x columns of bytes,
    low frequencies first, in base64."""
    plans = {level.name: plan_row(x, level, "ltbm") for level in levels if level.ratio < 1}
    frames = len(x) * segment.spec.segment_frames // segment.spec.segment_tokens
    mel = shrink(segment.input_features[:, :frames], MAP_MELS, len(x) * MAP_FRAMES)
    low, high = mel.min(), mel.max()
    shades = np.rint((mel - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    return MergeMap(
        mel=base64.b64encode(shades.tobytes()).decode(),
        mel_shape=shades.shape,
        source_maps={name: chosen.source_map.tolist() for name, chosen in plans.items()},
        anchors={name: chosen.anchors.tolist() for name, chosen in plans.items()},
    )


def shrink(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """`picture` averaged into at most rows x columns blocks; a last block may be smaller."""
    for axis, count in enumerate((rows, columns)):
        starts = np.unique(np.arange(count) * picture.shape[axis] // count)
        sizes = np.diff(np.append(starts, picture.shape[axis]))
        picture = np.add.reduceat(picture, starts, axis=axis) / sizes.reshape(
            (-1, 1) if axis == 0 else (1, -1)
        )
    return picture
