"""The audio towers of transformers' classes: what each gives the projector, family by family."""

from collections.abc import Callable

import numpy as np
import torch

from ..runtime.bundle import AudioSpec

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


def _qwen2_5_omni(model, features, frames, index):
    """What the tower's own projector takes: the valid tokens of all rows, one row after the other."""
    tower = model.audio_tower
    taken: list[torch.Tensor] = []
    hook = tower.proj.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0]))
    lengths = frames.sum(-1)
    tower(features.permute(0, 2, 1)[frames].T, feature_lens=lengths)
    hook.remove()
    _, tokens = tower._get_feat_extract_output_lengths(lengths)
    rows = taken[0].split(tokens.tolist())
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _qwen3_asr(model, features, frames, index):
    """Row by row, for the tower gives the valid tokens of all rows in one piece."""
    rows = []
    for row, valid in zip(features, frames):
        tokens = model.audio_tower(row[None], input_features_mask=valid[None].long()).last_hidden_state
        rows.append(tokens)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


TOWERS: dict[str, Tower] = {
    "qwen2_audio": _qwen2_audio,
    "audioflamingo3": _audioflamingo3,
    "musicflamingo": _musicflamingo,
    "voxtral": _voxtral,
    "qwen2_5_omni": _qwen2_5_omni,
    "qwen3_asr": _qwen3_asr,
}


def projector(model) -> torch.nn.Module:
    """The model's projector, which Qwen2.5-Omni keeps in its tower."""
    return model.multi_modal_projector if hasattr(model, "multi_modal_projector") else model.audio_tower.proj


def extracted(extractor, audios: list[list[np.ndarray]], spec: AudioSpec) -> tuple[np.ndarray, np.ndarray]:
    """input_features [B, n_mels, F] of whole segments and frame lengths [B], by transformers' own extractor.

    audios: the segments of each; where log-mels are those of the whole audio, what it gives is cut
    """
    if not spec.whole_audio:
        return _extracted(extractor, [segment for audio in audios for segment in audio])
    frames = spec.segment_frames
    rows = []
    lengths = []
    for audio in audios:
        (features,), (valid,) = _whole(extractor, audio, spec)
        for start in range(0, len(audio) * frames, frames):
            row = features[:, start : start + frames]
            rows.append(np.pad(row, ((0, 0), (0, frames - row.shape[1]))))
            lengths.append(np.clip(valid - start, 0, frames))
    return np.stack(rows), np.array(lengths)


def _whole(extractor, audio: list[np.ndarray], spec: AudioSpec) -> tuple[np.ndarray, np.ndarray]:
    """input_features [1, n_mels, F] and frame length [1] of an audio, padded as its processor pads it."""
    multiple = extractor.n_samples if spec.audio_multiple else None
    options = dict(padding=True, truncation=False, pad_to_multiple_of=multiple)
    return _extracted(extractor, [np.concatenate(audio)], **options)


def _extracted(extractor, waveforms: list[np.ndarray], **options) -> tuple[np.ndarray, np.ndarray]:
    out = extractor(
        waveforms,
        sampling_rate=extractor.sampling_rate,
        return_attention_mask=True,
        return_tensors="np",
        **options,
    )
    return out["input_features"], out["attention_mask"].sum(-1)
