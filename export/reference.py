"""The PyTorch model, stage by stage: what every engine is held against."""

import numpy as np
import torch

from ..runtime.precision import Precision
from ..runtime.stages.splice import Prefix
from .checkpoint import Checkpoint
from .decoder import weight_kind
from .layouts import EMBEDDINGS, LM_HEAD
from .quantize import Quantization, rounded
from .reference_int8 import round_linear_layers
from .reference_layouts import is_nested, nested_model
from .reference_towers import TOWERS, extracted, projector
from .specification import model_spec
from .weights import row_chunks


class TorchReference:
    """A checkpoint in PyTorch, float32, on the CPU; arrays in and out are numpy."""

    def __init__(self, checkpoint: Checkpoint):
        import transformers

        self.path = checkpoint.path
        self.spec = model_spec(checkpoint.config, checkpoint.path)
        self.family = self.spec.family
        options = dict(dtype=torch.float32, attn_implementation="eager")
        if is_nested(checkpoint, self.family):
            self.extractor = getattr(transformers, self.family.own_extractor)()
            self.model = nested_model(checkpoint, self.family, **options).eval()
        else:
            self.extractor = transformers.AutoFeatureExtractor.from_pretrained(self.path)
            architecture = getattr(transformers, self.family.architecture)
            self.model = architecture.from_pretrained(checkpoint.path, **options).eval()
        tied = LM_HEAD not in checkpoint and EMBEDDINGS in checkpoint
        if tied:  # transformers leaves this head random
            self.model.lm_head.weight = self.model.model.language_model.embed_tokens.weight
        self.core = self.model.model

    @torch.no_grad()
    def round_weights(self, precision: Precision) -> None:
        """Give the LLM the weights that a quantised bundle holds, from here on."""
        layers = weight_kind(precision, precision.weights)
        head = weight_kind(precision, precision.lm_head)
        if isinstance(layers, Quantization):
            for name, parameter in self.core.language_model.layers.named_parameters():
                if name.endswith("_proj.weight"):
                    parameter.copy_(_rounded(parameter, layers, precision.activations))
        if isinstance(head, Quantization):  # a new one: the embeddings, which it may be tied to, stay
            self.model.lm_head.weight = torch.nn.Parameter(
                _rounded(self.model.lm_head.weight, head, precision.activations)
            )

    def round_encoder(self) -> None:
        """Give the encoder's layers the rounding of an int8 encoder, from here on."""
        round_linear_layers(self.core.audio_tower.layers)

    def features(self, audios: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """input_features [B, n_mels, frames of a whole segment] and frame lengths [B] of each audio's
        segments."""
        return extracted(self.extractor, audios, self.spec.audio)

    @torch.no_grad()
    def audio_embeds(
        self, input_features: np.ndarray, frame_lengths: np.ndarray, segment_index: np.ndarray
    ) -> np.ndarray:
        """What the merge takes of the padded tower [B, T, D], padded frames masked as the model's own forward
        does.

        segment_index: [B], which segment of its audio each row is
        """
        tower = TOWERS[self.family.model_type]
        features = torch.from_numpy(input_features).float()
        frames = torch.arange(features.shape[-1]) < torch.from_numpy(np.asarray(frame_lengths))[:, None]
        return tower(self.core, features, frames, torch.from_numpy(segment_index)).numpy()

    @torch.no_grad()
    def project(self, merged: np.ndarray) -> np.ndarray:
        """The projector over merged tokens [..., D] -> [..., H]."""
        return projector(self.core)(torch.from_numpy(merged).float()).numpy()

    @property
    def table(self) -> np.ndarray:
        """The token embeddings [V, H], not copied."""
        return self.core.get_input_embeddings().weight.detach().numpy()

    @torch.no_grad()
    def logits(self, inputs_embeds: np.ndarray, position_ids: np.ndarray, key_bias: np.ndarray) -> np.ndarray:
        """Logits [S, V] of one sequence [S, H] at the given positions [S],
        log-weights [S] added to every key.

        A 4-D additive mask: without one, transformers reads positions with gaps as packed sequences.
        """
        length = len(position_ids)
        mask = (
            torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
            + torch.from_numpy(key_bias).float()
        )
        hidden = self.core.language_model(
            inputs_embeds=torch.from_numpy(inputs_embeds).float()[None],
            attention_mask=mask[None, None],
            position_ids=torch.from_numpy(position_ids)[None],
            use_cache=False,
        ).last_hidden_state
        return self.model.lm_head(hidden)[0].numpy()

    def greedy(
        self, prefix: Prefix, max_new_tokens: int, eos_token_ids: tuple[int, ...]
    ) -> tuple[list[int], np.ndarray]:
        """Greedy tokens and the logits [steps, V] of every step,
        each step run from the start without a cache."""
        token_ids = []
        steps = []
        while len(token_ids) < max_new_tokens and not (token_ids and token_ids[-1] in eos_token_ids):
            steps.append(self.logits(*self._continued(prefix, token_ids))[-1])
            token_ids.append(int(steps[-1].argmax()))
        return token_ids, np.stack(steps)

    def forced(self, prefix: Prefix, token_ids: list[int]) -> np.ndarray:
        """The logits [steps, V] from which each of the `token_ids` would be chosen, whatever they choose."""
        return self.logits(*self._continued(prefix, token_ids[:-1]))[-len(token_ids) :]

    def _continued(self, prefix: Prefix, token_ids: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """inputs_embeds, position_ids and key_bias of the prefix with `token_ids` after it."""
        positions = prefix.next_position + np.arange(len(token_ids))
        return (
            np.concatenate([prefix.inputs_embeds, self.table[token_ids]]),
            np.concatenate([prefix.position_ids, positions]),
            np.concatenate([prefix.key_bias, np.zeros(len(token_ids), np.float32)]),
        )

    @torch.no_grad()
    def generate(
        self, prompt_token_ids: list[int], audios: list[list[np.ndarray]], max_new_tokens: int, eos_token_ids
    ) -> list[int]:
        """transformers' own `generate`, greedy, from an expanded prompt and its audio segments."""
        input_features, frame_lengths = self.features(audios)
        frames = np.arange(input_features.shape[-1]) < frame_lengths[:, None]
        features = {"input_features": input_features}
        if self.family.frame_mask:
            features[self.family.frame_mask] = frames.astype(np.int64)
        return self.generated(prompt_token_ids, features, max_new_tokens, eos_token_ids)

    @torch.no_grad()
    def generated(
        self, prompt_token_ids: list[int], features: dict[str, np.ndarray], max_new_tokens: int, eos_token_ids
    ) -> list[int]:
        """The same from the model's own inputs for the audio."""
        ids = torch.tensor([prompt_token_ids])
        out = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **{name: torch.from_numpy(np.asarray(values)) for name, values in features.items()},
            do_sample=False,
            max_new_tokens=max_new_tokens,
            repetition_penalty=1.0,
            eos_token_id=list(eos_token_ids),
            pad_token_id=eos_token_ids[0],
        )
        return out[0, ids.shape[1] :].tolist()


def _rounded(weight: torch.Tensor, q: Quantization, scale_type: str) -> torch.Tensor:
    return torch.from_numpy(
        np.concatenate([rounded(rows, q, scale_type) for rows in row_chunks(weight.numpy())])
    )
