"""Which shapes each stage is run with: the optimisation profiles of its TensorRT engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..bundle import DecoderSpec, Manifest
from ..levels import Level
from ..stages.encoder import MAX_BATCH
from ..stages.kv_cache import BUCKET, bucket
from .flavours import FIXED_CAPACITY, GROWING

DEFAULT_SEGMENTS = 4  # of audio, where the model takes so many: 120 s at level full
TEXT_TOKENS = 1024  # of prompt and answer beside the audio

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]  # smallest, most usual and largest
Counts = tuple[int, int, int]  # the same of one dimension
ONE_ROW: Range = ((1,), (1,), (1,))


@dataclass(frozen=True)
class Limits:
    """What engines are built for; a request beyond is refused.

    max_audio_segments: segments of 30 s that are encoded at once, counted into the default of max_context
    max_context: tokens of prompt and answer together, a multiple of the KV cache's bucket
    """

    max_audio_segments: int
    max_context: int

    @classmethod
    def of(
        cls, manifest: Manifest, max_audio_segments: int | None = None, max_context: int | None = None
    ) -> "Limits":
        """Those given, or the defaults; ValueError for what the model does not have."""
        audio = manifest.audio
        most = manifest.decoder.max_positions // BUCKET * BUCKET
        segments = _default_segments(manifest) if max_audio_segments is None else max_audio_segments
        if not 1 <= segments <= audio.max_segments:
            raise ValueError(
                f"max audio segments {segments} is not in 1 to {audio.max_segments}, "
                "the segments of one audio of this model"
            )
        tokens = segments * audio.segment_tokens + TEXT_TOKENS
        context = min(bucket(tokens), most) if max_context is None else bucket(max_context)
        if not BUCKET <= context <= most:
            raise ValueError(f"max context {max_context} is not in 1 to {most}, the positions of this model")
        return cls(segments, context)


def context_at(manifest: Manifest, level: Level, max_audio_segments: int | None = None) -> int:
    """Tokens of prompt and answer where no request asks for more than `level`."""
    segments = max_audio_segments or _default_segments(manifest)
    kept = level.target(manifest.audio.segment_tokens)
    return bucket(segments * kept + TEXT_TOKENS)


def _default_segments(manifest: Manifest) -> int:
    return min(DEFAULT_SEGMENTS, manifest.audio.max_segments)


@dataclass(frozen=True)
class OptimisationProfile:
    """Ranges of every input with dimensions that vary, and of the values of inputs that are shapes."""

    name: str
    shapes: Mapping[str, Range]
    values: Mapping[str, Range] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "OptimisationProfile":
        """The inverse of dataclasses.asdict and json; KeyError, TypeError or ValueError for anything else."""
        shapes = {name: _read_range(shapes) for name, shapes in raw["shapes"].items()}
        values = {name: _read_range(values) for name, values in raw["values"].items()}
        return cls(raw["name"], shapes, values)


def _read_range(raw: list[list[int]]) -> Range:
    least, usual, most = raw
    return tuple(least), tuple(usual), tuple(most)


def optimisation_profiles(
    manifest: Manifest, stage: str, flavour: str, limits: Limits
) -> list[OptimisationProfile]:
    """The profiles of an engine: one, or for the decoder prefill and decode."""
    if stage == "encoder":
        return [_encoder(manifest, limits)]
    if stage == "merge":
        return [_merge(manifest, limits)]
    if stage == "projector":
        return [_projector(manifest, limits)]
    return [_prefill(manifest, flavour, limits), _decode(manifest, flavour, limits)]


def _encoder(manifest: Manifest, limits: Limits) -> OptimisationProfile:
    audio = manifest.audio
    mels, frames = audio.n_mels, audio.segment_frames
    shortest = frames if audio.rule.whole else audio.rule.step
    rows = _max_rows(limits)
    shapes: dict[str, Range] = {
        "input_features": ((1, mels, shortest), (1, mels, frames), (rows, mels, frames))
    }
    if not audio.rule.whole:
        shapes["frame_lengths"] = _per_row(rows)
    if audio.numbered_segments:
        shapes["segment_index"] = _per_row(rows)
    return OptimisationProfile("encoder", shapes)


def _merge(manifest: Manifest, limits: Limits) -> OptimisationProfile:
    tokens = manifest.audio.segment_tokens
    width = manifest.audio.encoder_width
    rows = _max_rows(limits)
    shapes: dict[str, Range] = {
        "audio_embeds": ((1, 1, width), (1, tokens, width), (rows, tokens, width)),
        "lengths": _per_row(rows),
        "targets": _per_row(rows),
        "first_position": _per_row(rows),
    }
    keep: Range = ((1,), (max(1, tokens // 2),), (tokens,))
    return OptimisationProfile("merge", shapes, {"keep": keep})


def _projector(manifest: Manifest, limits: Limits) -> OptimisationProfile:
    tokens = manifest.audio.segment_tokens
    width = manifest.audio.encoder_width
    rows = _max_rows(limits)
    usual = max(1, tokens // 2)
    kept: Range = ((1, 1), (1, usual), (rows, tokens))
    shapes: dict[str, Range] = {
        "merged_tokens": ((1, 1, width), (1, usual, width), (rows, tokens, width)),
        "sizes": kept,
        "anchors": kept,
        "first_position": _per_row(rows),
    }
    return OptimisationProfile("projector", shapes)


def _prefill(manifest: Manifest, flavour: str, limits: Limits) -> OptimisationProfile:
    """Many tokens at once. A growing cache is empty before."""
    most = limits.max_context
    usual = _usual_context(manifest, limits)
    new = (1, usual, most)
    if flavour == GROWING:
        shapes = _decoder_shapes(manifest.decoder, new, cached=(0, 0, 0), keys=new)
    else:
        shapes = _in_place_shapes(manifest.decoder, flavour, new, usual, most)
    return OptimisationProfile("prefill", shapes)


def _decode(manifest: Manifest, flavour: str, limits: Limits) -> OptimisationProfile:
    """One token. A growing cache holds the tokens before it."""
    most = limits.max_context
    usual = _usual_context(manifest, limits)
    new = (1, 1, 1)
    if flavour == GROWING:
        cached = (1, usual - 1, most - 1)
        shapes = _decoder_shapes(manifest.decoder, new, cached, keys=(2, usual, most))
    else:
        shapes = _in_place_shapes(manifest.decoder, flavour, new, usual, most)
    return OptimisationProfile("decode", shapes)


def _in_place_shapes(spec: DecoderSpec, flavour: str, new: Counts, usual: int, most: int) -> dict[str, Range]:
    """A cache updated in place has its whole capacity; `past_len` says how much is written.

    Of a fixed capacity, attention reads the tokens that are there, in buckets; else all of it.
    """
    keys = (BUCKET, bucket(usual + 1) if usual < most else most, most)
    capacity = (most, most, most) if flavour == FIXED_CAPACITY else keys
    return _decoder_shapes(spec, new, cached=capacity, keys=keys) | {"past_len": ONE_ROW}


def _decoder_shapes(spec: DecoderSpec, new: Counts, cached: Counts, keys: Counts) -> dict[str, Range]:
    """Inputs of one sequence, by how many tokens are new, are in the cache, and may be attended to."""
    shapes = {
        "inputs_embeds": _range(new, lambda n: (1, n, spec.hidden_size)),
        "position_ids": _range(new, lambda n: (1, n)),
        "key_bias": _range(keys, lambda n: (1, n)),
        "last_index": ONE_ROW,
    }
    past = _range(cached, lambda n: (1, spec.kv_heads, n, spec.head_dim))
    for layer in range(spec.layers):
        shapes[f"past.{layer}.key"] = past
        shapes[f"past.{layer}.value"] = past
    return shapes


def _range(counts: Counts, shape: Callable[[int], Shape]) -> Range:
    """The shapes with the least, usual and most of one dimension."""
    least, usual, most = counts
    return shape(least), shape(usual), shape(most)


def _usual_context(manifest: Manifest, limits: Limits) -> int:
    """Tokens of a usual request: one segment at half its tokens, and a short prompt."""
    audio_tokens = manifest.audio.segment_tokens // 2
    return min(limits.max_context, bucket(audio_tokens + BUCKET))


def _max_rows(limits: Limits) -> int:
    """Segments that are encoded and merged at once."""
    return min(limits.max_audio_segments, MAX_BATCH)


def _per_row(rows: int) -> Range:
    """An input with one value for each segment."""
    return (1,), (1,), (rows,)
