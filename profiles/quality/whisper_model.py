"""A pretrained Whisper as an encoder of audio tokens and a decoder that nobody trained for merged ones.

Shapes: B rows, T encoder tokens of a whole window of 30 s, K tokens that the decoder sees, D encoder width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.masking_utils import eager_mask
from transformers.models.whisper.modeling_whisper import eager_attention_forward

from ...export.reference_int8 import round_linear_layers
from .encoder_store import WindowTokens

CROSS_BIAS = "ltbm_cross_bias"  # the attention function's name in transformers' registry
POOLS = {"pairs": 2, "none": 1}  # encoder states averaged into one token
ENCODER_PRECISIONS = ("float32", "int8")
ENGLISH_VOCABULARY = 51864  # tokens of the .en checkpoints; the others have at least one more
NO_KEY = float("-inf")  # bias of a key that only fills up a batch
FEWEST_ALIVE = 0.75  # share of a batch at which ended rows are dropped, which copies the cache
HOP_SECONDS = 0.01  # one log-mel frame
FRAMES_PER_STATE = 2  # log-mel frames of one encoder state, by the second convolution's stride


def cross_bias_attention(module, query, key, value, attention_mask, key_bias=None, **kwargs):
    """transformers' own attention, with `key_bias` [B, K] added to the logits of cross-attention."""
    is_cross_attention = module.is_decoder and not module.is_causal
    if key_bias is not None and is_cross_attention:
        attention_mask = key_bias[:, None, None, :]
    return eager_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(CROSS_BIAS, cross_bias_attention)
AttentionMaskInterface.register(CROSS_BIAS, eager_mask)  # without it the prompt's tokens would see ahead


@dataclass(frozen=True)
class DecoderInput:
    """What the decoder attends to: tokens [K, D] and what is added to their logits [K]."""

    tokens: np.ndarray
    key_bias: np.ndarray


class Whisper:
    """A Whisper checkpoint (folder or hub id) on the CPU in float32.

    encoder_precision: int8 rounds the encoder's linear layers as `ltbm export --encoder-precision int8` does
    """

    def __init__(self, checkpoint: str, pool: str = "pairs", encoder_precision: str = "float32"):
        if pool not in POOLS:
            raise ValueError(f"pool {pool!r} is none of {', '.join(POOLS)}")
        if encoder_precision not in ENCODER_PRECISIONS:
            raise ValueError(
                f"encoder precision {encoder_precision!r} is none of {', '.join(ENCODER_PRECISIONS)}"
            )
        self.stride = POOLS[pool]
        kind = AutoConfig.from_pretrained(checkpoint).model_type
        if kind != "whisper":
            raise ValueError(f"{checkpoint} is a model of type {kind!r}; give a Whisper checkpoint")
        self.features = WhisperFeatureExtractor.from_pretrained(checkpoint)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
        self.generation = GenerationConfig.from_pretrained(checkpoint)
        self.model = WhisperForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
        self.end_ids = torch.as_tensor(self.model.config.eos_token_id)
        self.model.eval().set_attn_implementation(CROSS_BIAS)
        encoder = self.model.model.encoder
        if encoder_precision == "int8":
            round_linear_layers(encoder.layers)
        self.last_norm = encoder.layer_norm
        encoder.register_module("layer_norm", torch.nn.Identity())  # Qwen2-Audio pools before the norm

    @property
    def sampling_rate(self) -> int:
        return self.features.sampling_rate

    @torch.inference_mode()
    def encode(self, waveform: np.ndarray) -> WindowTokens:
        """The tokens of a clip of up to one window; ValueError for a longer one."""
        if len(waveform) > self.features.n_samples:
            raise ValueError(
                f"the clip has {len(waveform) / self.sampling_rate:.1f} s, a window of Whisper holds "
                f"{self.features.chunk_length} s: cut it"
            )
        features = self.features(waveform, sampling_rate=self.sampling_rate, return_tensors="pt")
        log_mel = features["input_features"]
        states = self.model.model.encoder(log_mel).last_hidden_state  # [1, 2 T, D]
        pooled = states.unflatten(1, (-1, self.stride)).mean(dim=2)
        tokens = self.last_norm(pooled)[0].numpy()
        frames_per_token = FRAMES_PER_STATE * self.stride
        mel_power = 10 ** (4 * log_mel[0] - 4)  # undoes Whisper's (log10 + 4) / 4
        power = mel_power.mean(dim=0).unflatten(0, (-1, frames_per_token)).mean(dim=1).log10().numpy()
        samples_per_token = frames_per_token * HOP_SECONDS * self.sampling_rate
        length = min(len(tokens), int(np.ceil(len(waveform) / samples_per_token)))
        return WindowTokens(tokens, power, length)

    @torch.inference_mode()
    def transcribe(self, inputs: Sequence[DecoderInput], max_new_tokens: int) -> list[list[int]]:
        """The greedy token ids of every input, all in one batch, without the end token."""
        keys, key_bias = _batched(inputs)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        answers: list[list[int]] = [[] for _ in inputs]
        running = torch.arange(len(inputs))
        ended = torch.zeros(len(inputs), dtype=torch.bool)
        step_ids = torch.tensor([self.prompt_ids()]).repeat(len(inputs), 1)
        for step in range(max_new_tokens):
            chosen = self._next_ids(step_ids, keys, key_bias, cache, first=step == 0)
            ended = ended | torch.isin(chosen, self.end_ids)
            alive = ~ended
            for row, token_id in zip(running[alive].tolist(), chosen[alive].tolist()):
                answers[row].append(token_id)
            if ended.all():
                break
            if alive.sum() <= FEWEST_ALIVE * len(alive):
                cache.batch_select_indices(alive.nonzero()[:, 0])
                keys, key_bias = keys[alive], key_bias[alive]
                running, chosen, ended = running[alive], chosen[alive], ended[alive]
            step_ids = chosen[:, None]
        return answers

    def prompt_ids(self) -> list[int]:
        """<|startoftranscript|>, language and task where the checkpoint has several, no timestamps."""
        wanted = ["<|en|>", "<|transcribe|>", "<|notimestamps|>"]
        known = self.tokenizer.get_vocab()
        if self.is_english_only:
            wanted = ["<|notimestamps|>"]
        return [self.model.config.decoder_start_token_id, *(known[name] for name in wanted if name in known)]

    @property
    def is_english_only(self) -> bool:
        return self.model.config.vocab_size == ENGLISH_VOCABULARY

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _next_ids(self, step_ids, keys, key_bias, cache, first: bool) -> torch.Tensor:
        decoder = self.model.model.decoder
        # By position: the cache's name differs between versions of transformers.
        outputs = decoder(step_ids, None, keys, cache, use_cache=True, key_bias=key_bias)
        hidden = outputs.last_hidden_state
        logits = self.model.proj_out(hidden[:, -1])
        suppressed = list(self.generation.suppress_tokens or [])
        if first:
            suppressed += self.generation.begin_suppress_tokens or []
        logits[:, suppressed] = NO_KEY
        return logits.argmax(dim=-1)


def _batched(inputs: Sequence[DecoderInput]) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [B, K, D] and their bias [B, K], shorter rows filled up with keys that get no attention."""
    longest = max(len(one.tokens) for one in inputs)
    width = inputs[0].tokens.shape[1]
    keys = np.zeros((len(inputs), longest, width), np.float32)
    key_bias = np.full((len(inputs), longest), NO_KEY, np.float32)
    for row, one in enumerate(inputs):
        keys[row, : len(one.tokens)] = one.tokens
        key_bias[row, : len(one.tokens)] = one.key_bias
    return torch.from_numpy(keys), torch.from_numpy(key_bias)
