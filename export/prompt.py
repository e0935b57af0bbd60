"""Tokenizer, chat template and special tokens: from the checkpoint's files into the bundle."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.bundle import PromptSpec
from ..runtime.numbers import check_whole
from .checkpoint import Checkpoint
from .configuration import read_json
from .specification import ModelSpec
from .tokenizer import read_tokenizer, special_token

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEMPLATE_NAME = "default"  # of several


def write_prompt_files(folder: Path, checkpoint: Checkpoint, spec: ModelSpec) -> PromptSpec:
    """Write tokenizer.json and chat_template.jinja into `folder`; what the manifest says of prompts."""
    tokenizer = read_tokenizer(checkpoint.path, checkpoint.source)
    _check_ids(tokenizer, spec.decoder.vocab_size, checkpoint.source)
    tokenizer.save(str(folder / "tokenizer.json"))
    template = chat_template(checkpoint.path) or spec.family.prompt.template
    if not template:
        raise ValueError(
            f"{checkpoint.source} has no chat template (chat_template.jinja, chat_template.json, or in "
            "tokenizer_config.json); copy the one of its instruct model into the folder"
        )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    audio_token = tokenizer.id_to_token(spec.audio_token_id)
    if audio_token is None:
        raise ValueError(
            f"the tokenizer has no token {spec.audio_token_id}, which the configuration names for audio"
        )
    eos_token = special_token(checkpoint.path, "eos_token")
    return PromptSpec(
        audio_token=audio_token,
        audio_token_id=spec.audio_token_id,
        eos_token_ids=_end_token_ids(
            checkpoint, spec, tokenizer.token_to_id(eos_token) if eos_token else None
        ),
        bos_token=special_token(checkpoint.path, "bos_token"),
        eos_token=eos_token,
        pad_token=special_token(checkpoint.path, "pad_token"),
        audio_prefix_ids=spec.audio_around[:1],
        audio_suffix_ids=spec.audio_around[1:],
        transcript=spec.family.prompt.transcript,
    )


def chat_template(folder: Path) -> str:
    """The checkpoint's own template, as transformers looks for it; empty where it has none.

    ValueError for several without a default.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = read_json(folder / name).get("chat_template")
        if found:
            return _default_of(found, folder / name)
    return ""


def _default_of(found: Any, file: Path) -> str:
    """The template of a file that holds one, or several by name."""
    if isinstance(found, str):
        return found
    if isinstance(found, list):
        found = {entry["name"]: entry["template"] for entry in found}
    if TEMPLATE_NAME in found:
        return found[TEMPLATE_NAME]
    if len(found) == 1:
        return next(iter(found.values()))
    raise ValueError(
        f"{file} has the chat templates {', '.join(found)} and none named {TEMPLATE_NAME!r}; "
        "save the one that is meant as chat_template.jinja beside it"
    )


def _check_ids(tokenizer: "Tokenizer", rows: int, source: str) -> None:
    """ValueError for tokens that the embedding table has no row for; rows without a token are padding."""
    beyond = {token: place for token, place in tokenizer.get_vocab().items() if place >= rows}
    if beyond:
        first = min(beyond, key=beyond.__getitem__)
        raise ValueError(
            f"{len(beyond)} tokens of {source}'s tokenizer lie beyond the {rows} rows of its embeddings, "
            f"first {first!r} ({beyond[first]}): call model.resize_token_embeddings(len(tokenizer)) and save "
            "it again, or take the tokenizer that belongs to it"
        )


def _end_token_ids(checkpoint: Checkpoint, spec: ModelSpec, of_tokenizer: int | None) -> tuple[int, ...]:
    """generation_config.json's end tokens, else the configuration's, else the tokenizer's."""
    generation: Mapping[str, Any] = read_json(checkpoint.path / "generation_config.json")
    given = generation.get("eos_token_id")
    if given is not None:
        given = given if isinstance(given, list) else [given]
        return tuple(check_whole("generation_config.json: eos_token_id", token, 0) for token in given)
    if spec.end_token_ids:
        return spec.end_token_ids
    if of_tokenizer is not None:
        return (of_tokenizer,)
    raise ValueError(f"{checkpoint.source} names no end token (eos_token_id), so no answer would end")
