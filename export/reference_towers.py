"""The audio towers of transformers' classes: what each gives the projector, family by family."""

from collections.abc import Callable

import torch

Tower = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(model, features [B, n_mels, F], valid frames [B, F] bool, segment index [B]) -> [B, T, D]."""


def _qwen2_audio(model, features, frames, index):
    """The tower takes a mask of attention logits."""
    tower = model.audio_tower
    convolved, _ = tower._get_feat_extract_output_lengths(frames.sum(-1))
    keys = torch.arange((features.shape[-1] - 2) // 2 + 1) < convolved[:, None]
    mask = torch.zeros(keys.shape).masked_fill(~keys, torch.finfo(torch.float32).min)[:, None, None, :]
    return tower(features, attention_mask=mask).last_hidden_state


def _audioflamingo3(model, features, frames, index):
    return model.audio_tower(features, input_features_mask=frames.long()).last_hidden_state


def _musicflamingo(model, features, frames, index):
    """Turned by time, as the model does before its projector."""
    from transformers.models.musicflamingo.modeling_musicflamingo import apply_rotary_time_emb

    hidden = _audioflamingo3(model, features, frames, index)
    tokens = hidden.shape[-2]
    step = model.config.audio_frame_step * 4
    seconds = index[:, None] * tokens * step + torch.arange(tokens, dtype=torch.float32) * step
    return apply_rotary_time_emb(hidden, *model.pos_emb(seconds, seq_len=tokens))


TOWERS: dict[str, Tower] = {
    "qwen2_audio": _qwen2_audio,
    "audioflamingo3": _audioflamingo3,
    "musicflamingo": _musicflamingo,
}
