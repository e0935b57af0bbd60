"""PyTorch models of checkpoints that transformers does not open itself: a model's own repository, whose
configuration is nested and whose tensors have other names."""

from typing import Any

import torch

from .checkpoint import Checkpoint
from .families import Family
from .layouts import TRANSFORMERS_5

LEFT_OUT = ("model_type", "rope_scaling")
"""Of the nested parts: names that transformers does not know, and positions, plain for sound alone."""


def is_nested(checkpoint: Checkpoint, family: Family) -> bool:
    """Whether only `nested_model` opens it."""
    return bool(family.own_extractor) and family.section in checkpoint.config


def nested_model(checkpoint: Checkpoint, family: Family, **options) -> Any:
    """The family's class in transformers with the checkpoint's tensors, under its own names."""
    import transformers

    kind = getattr(transformers, family.architecture)
    section = checkpoint.config[family.section]
    parts: dict[str, Any] = {}
    for name in ("audio_config", "text_config"):
        parts[name] = {key: value for key, value in section[name].items() if key not in LEFT_OUT}
    config = kind.config_class(**parts, audio_token_id=section["audio_token_id"])
    model = kind._from_config(config, **options)
    lacking, strange = model.load_state_dict(_state(checkpoint), strict=False)
    if strange or set(lacking) - {"lm_head.weight"}:
        raise ValueError(f"{checkpoint.source} lacks {lacking} or has {strange} beyond {family.architecture}")
    return model


def _state(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Every tensor, float32, under transformers 5's names."""
    state = {}
    for name in checkpoint.names.values():
        stored, here = next(pair for pair in TRANSFORMERS_5.prefixes.items() if name.startswith(pair[1]))
        values = checkpoint.take(name, "parity")[:].astype("float32")
        state[stored + name.removeprefix(here)] = torch.from_numpy(values)
    return state
