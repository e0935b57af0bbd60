"""How a method brings the tokens of one Whisper window down, and how much each weighs in cross-attention.

Only the clip's own tokens are merged. Those of the silence that fills the window stand behind them, unmerged:
Whisper's decoder was never trained without them, and loops where they are cut off.
"""

from dataclasses import dataclass

import numpy as np

from ...plugins.baselines import plan
from ...plugins.merge import MergePlan, plan_of
from ...runtime.levels import Level, bias_strength, parse_level
from .encoder_store import WindowTokens
from .merged_values import NORMED, merged_values
from .variants import METHODS, Variant
from .whisper_model import DecoderInput

ANCHOR = "ltbm-anchor"
SILENCE_FIRST = "ltbm-silence"
WHISPER_METHODS = (*METHODS, *NORMED, ANCHOR, SILENCE_FIRST)
"""METHODS, with another value of a merged token, or with silence merged first."""
SILENCE_BEL = 3.5  # mel power below the clip's loud tokens (95th percentile) from which a token is silent
SILENT_SHARE = 16  # silent tokens merged into one


@dataclass(frozen=True)
class Compressed:
    """What the decoder gets of a clip.

    tokens_in, tokens_out: the clip's tokens before and after merging; the window's rest is not counted
    """

    decoder_input: DecoderInput
    tokens_in: int
    tokens_out: int


def compress_window(window: WindowTokens, variant: Variant) -> Compressed:
    """The window's tokens at the variant's level by its method, weighed by its attention."""
    clip = window.tokens[: window.length]
    rest = window.tokens[window.length :]
    level = parse_level(variant.level)
    merge_plan = _plan(variant.method, window, level)
    merged = np.concatenate([_values(variant.method, merge_plan, clip), rest])
    strength = bias_strength(variant.attention)
    key_bias = np.zeros(len(merged), np.float32)
    key_bias[: len(merge_plan.sizes)] = strength * np.log(merge_plan.sizes)
    return Compressed(DecoderInput(merged, key_bias), len(clip), len(merge_plan.sizes))


def _plan(method: str, window: WindowTokens, level: Level) -> MergePlan:
    clip = window.tokens[: window.length]
    target = level.target(len(clip))
    if method == SILENCE_FIRST:
        return silence_first(clip, window.power[: window.length], target, level.merge_window)
    plain_method = "ltbm" if method == ANCHOR else NORMED.get(method, method)
    return plan(plain_method, clip, target, level.merge_window)


def silence_first(clip: np.ndarray, power: np.ndarray, target: int, window: int) -> MergePlan:
    """LTBM with silent tokens merged sixteen to one, so that sound gets the rest of the target.

    Both kinds are merged among themselves; the window counts tokens of that kind.
    """
    silent = power < np.quantile(power, 0.95) - SILENCE_BEL
    silent_tokens = np.flatnonzero(silent)
    sound_tokens = np.flatnonzero(~silent)
    for_silence = -(-len(silent_tokens) // SILENT_SHARE)
    for_sound = min(target - for_silence, len(sound_tokens))
    for_silence = target - for_sound
    if for_sound < 1 or not len(silent_tokens):
        return plan("ltbm", clip, target, window)
    parts = [
        (sound_tokens, plan("ltbm", clip[sound_tokens], for_sound, window)),
        (silent_tokens, plan("ltbm", clip[silent_tokens], for_silence, window)),
    ]
    return _joined(parts, len(clip))


def _joined(parts: list[tuple[np.ndarray, MergePlan]], length: int) -> MergePlan:
    """One plan of plans for disjoint tokens of a row, its outputs in order of time."""
    anchors = np.concatenate([tokens[one.anchors] for tokens, one in parts])
    rank = np.argsort(np.argsort(anchors))
    source_map = np.empty(length, np.int64)
    first = 0
    for tokens, one in parts:
        source_map[tokens] = rank[first + one.source_map]
        first += len(one.sizes)
    return plan_of(source_map, np.sort(anchors))


def _values(method: str, merge_plan: MergePlan, clip: np.ndarray) -> np.ndarray:
    """The merged tokens [K, D]: the mean, the mean at its members' mean norm, or the anchor's own token."""
    if method == ANCHOR:
        return clip[merge_plan.anchors]
    return merged_values(method, merge_plan, clip)
