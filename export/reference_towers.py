"""The audio towers of transformers' classes: what each gives the projector, family by family."""

from collections.abc import Callable

import numpy as np
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


def _voxtral(model, features, frames, index):
    """Four tokens side by side, as the model's projector takes them."""
    hidden = model.audio_tower(features).last_hidden_state
    return hidden.reshape(len(hidden), -1, model.config.audio_config.intermediate_size)


TOWERS: dict[str, Tower] = {
    "qwen2_audio": _qwen2_audio,
    "audioflamingo3": _audioflamingo3,
    "musicflamingo": _musicflamingo,
    "voxtral": _voxtral,
}


def extracted(extractor, audios: list[list[np.ndarray]], whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """input_features [B, n_mels, F] of whole segments and frame lengths [B], by transformers' own extractor.

    audios: the segments of each; whole: it is given whole audios, and what it gives is cut
    """
    options = dict(sampling_rate=extractor.sampling_rate, return_attention_mask=True, return_tensors="np")
    if not whole:
        out = extractor([segment for audio in audios for segment in audio], **options)
        return out["input_features"], out["attention_mask"].sum(-1)
    rows = []
    frames = extractor.nb_max_frames
    options |= dict(padding=True, truncation=False, pad_to_multiple_of=extractor.n_samples)
    for audio in audios:
        (features,) = extractor(np.concatenate(audio), **options)["input_features"]
        rows += np.split(features, features.shape[1] // frames, axis=1)
    return np.stack(rows), np.full(len(rows), frames)
