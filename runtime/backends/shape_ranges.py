"""Which shapes each stage is run with: the optimisation profiles of its TensorRT engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..bundle import Manifest
from ..stages.encoder import MAX_BATCH
from ..stages.features import ENCODER_STRIDE, token_length
from ..stages.kv_cache import BUCKET, bucket

DEFAULT_SEGMENTS = 4  # of audio, where the model takes so many: 120 s at level full
TEXT_TOKENS = 1024  # of prompt and answer beside the audio
GROWING = "concat20"  # the decoder flavour without a cache in place

Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # smallest, most usual and largest
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
        segments = max_audio_segments
        if segments is None:
            segments = min(DEFAULT_SEGMENTS, audio.max_segments)
        if not 1 <= segments <= audio.max_segments:
            raise ValueError(
                f"max audio segments {segments} is not in 1 to {audio.max_segments}, "
                "the segments of one audio of this model"
            )
        tokens = segments * token_length(audio.segment_frames) + TEXT_TOKENS
        context = min(bucket(tokens), most) if max_context is None else bucket(max_context)
        if not BUCKET <= context <= most:
            raise ValueError(f"max context {max_context} is not in 1 to {most}, the positions of this model")
        return cls(segments, context)


@dataclass(frozen=True)
class OptimisationProfile:
    """Ranges of every input with dimensions that vary, and of the values of inputs that are shapes."""

    name: str
    shapes: Mapping[str, Range]
    values: Mapping[str, Range] = field(default_factory=dict)


def optimisation_profiles(
    manifest: Manifest, stage: str, flavour: str, limits: Limits
) -> list[OptimisationProfile]:
    """The profiles of `encoder`, `merge` or `decoder` (its flavour given): one,
    or for the decoder prefill and decode."""
    if stage == "decoder":
        return [_decoder(manifest, flavour, limits, prefill) for prefill in (True, False)]
    frames = manifest.audio.segment_frames
    rows = min(limits.max_audio_segments, MAX_BATCH)
    tokens = frames // ENCODER_STRIDE
    by_row: Range = ((1,), (1,), (rows,))
    if stage == "encoder":
        mels = manifest.audio.n_mels
        features = ((1, mels, ENCODER_STRIDE), (1, mels, frames), (rows, mels, frames))
        return [OptimisationProfile(stage, {"input_features": features, "frame_lengths": by_row})]
    width = manifest.audio.encoder_width
    embeds = ((1, 1, width), (1, tokens, width), (rows, tokens, width))
    return [
        OptimisationProfile(
            stage,
            {"audio_embeds": embeds, "lengths": by_row, "targets": by_row, "first_position": by_row},
            {"keep": ((1,), (max(1, tokens // 2),), (tokens,))},
        )
    ]


def _decoder(manifest: Manifest, flavour: str, limits: Limits, prefill: bool) -> OptimisationProfile:
    """One sequence. A growing cache holds the tokens before (none at prefill),
    one in place all its capacity."""
    d = manifest.decoder
    most = limits.max_context
    usual = min(most, bucket(token_length(manifest.audio.segment_frames) // 2 + BUCKET))
    new = (1, usual, most) if prefill else (1, 1, 1)
    if flavour == GROWING:
        cached = (0, 0, most - 1) if prefill else (1, usual - 1, most - 1)
        keys = (1, usual, most) if prefill else (2, usual, most)
    else:
        cached = keys = (BUCKET, bucket(usual + 1) if usual < most else most, most)
    shapes: dict[str, Range] = {
        "inputs_embeds": _range(new, lambda n: (1, n, d.hidden_size)),
        "position_ids": _range(new, lambda n: (1, n)),
        "key_bias": _range(keys, lambda n: (1, n)),
        "last_index": ONE_ROW,
    }
    if flavour != GROWING:
        shapes["past_len"] = ONE_ROW
    past = _range(cached, lambda n: (1, d.kv_heads, n, d.head_dim))
    for layer in range(d.layers):
        shapes |= {f"past.{layer}.key": past, f"past.{layer}.value": past}
    return OptimisationProfile("prefill" if prefill else "decode", shapes)


def _range(lengths: tuple[int, int, int], shape: Callable[[int], tuple[int, ...]]) -> Range:
    """The shapes for the smallest, the most usual and the largest length."""
    least, usual, most = lengths
    return shape(least), shape(usual), shape(most)
