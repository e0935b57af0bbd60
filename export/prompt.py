"""Tokenizer, chat template and special tokens: from the checkpoint's processor into the bundle."""

from pathlib import Path

from ..runtime.bundle import PromptSpec
from ..runtime.files import read_json_object
from .checkpoint import Checkpoint
from .families import ModelSpec


def write_prompt_files(folder: Path, checkpoint: Checkpoint, spec: ModelSpec) -> PromptSpec:
    """Write tokenizer.json and chat_template.jinja into `folder`;
    which tokens stand for audio and end an answer."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint.path, trust_remote_code=False)
    tokenizer = processor.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{checkpoint.source} has no fast tokenizer (tokenizer.json), which the runtime needs"
        )
    _check_ids(tokenizer, spec.decoder.vocab_size, checkpoint.source)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    template = processor.chat_template
    if isinstance(template, dict):
        template = template["default"]
    if not template:
        raise ValueError(
            f"{checkpoint.source} has no chat template (chat_template.jinja or chat_template.json)"
        )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    audio_token = tokenizer.convert_ids_to_tokens(spec.audio_token_id)
    if audio_token is None:
        raise ValueError(
            f"the tokenizer has no token {spec.audio_token_id}, which the configuration names for audio"
        )
    return PromptSpec(
        audio_token=audio_token,
        audio_token_id=spec.audio_token_id,
        eos_token_ids=_eos_token_ids(checkpoint, tokenizer),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
    )


def _check_ids(tokenizer, rows: int, source: str) -> None:
    """ValueError for tokens that the embedding table has no row for; rows without a token are padding."""
    beyond = {token: place for token, place in tokenizer.get_vocab().items() if place >= rows}
    if beyond:
        first = min(beyond, key=beyond.__getitem__)
        raise ValueError(
            f"{len(beyond)} tokens of {source}'s tokenizer lie beyond the {rows} rows of its embeddings, "
            f"first {first!r} ({beyond[first]}): call model.resize_token_embeddings(len(tokenizer)) and save "
            "it again, or take the tokenizer that belongs to it"
        )


def _eos_token_ids(checkpoint: Checkpoint, tokenizer) -> tuple[int, ...]:
    """generation_config.json's end tokens, else the configuration's, else the tokenizer's."""
    path = checkpoint.path / "generation_config.json"
    generation = read_json_object(path) if path.is_file() else {}
    for found in (
        generation.get("eos_token_id"),
        checkpoint.config.text_config.eos_token_id,
        tokenizer.eos_token_id,
    ):
        if found is not None:
            return tuple(found) if isinstance(found, (list, tuple)) else (int(found),)
    raise ValueError(f"{checkpoint.source} names no end token (eos_token_id), so no answer would end")
