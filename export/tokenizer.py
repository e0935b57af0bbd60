"""A checkpoint's tokenizer as one tokenizer.json: its own, or made of the files that stand for it."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.prompt import load_tokenizer
from . import tekken
from .configuration import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""Where Qwen2's tokenizer cuts text before its merges."""


def read_tokenizer(folder: Path, source: str) -> "Tokenizer":
    """The tokenizer with every token that the configuration adds; ValueError where the folder has none."""
    if (folder / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(folder / "tokenizer.json", "copy or download it again")
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer = _of_merges(folder)
    elif (folder / tekken.FILE).is_file():
        tokenizer = tekken.of_tekken(folder / tekken.FILE)
    else:
        raise ValueError(
            f"{source} has no tokenizer.json (nor vocab.json and merges.txt, nor tekken.json), "
            "which the runtime needs"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _add_tokens(tokenizer, folder)
    return tokenizer


def special_token(folder: Path, name: str) -> str | None:
    """The token that the tokenizer's configuration calls `name`, such as eos_token; None without one."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        value = read_json(folder / file).get(name)
        if value is not None:
            return value.get("content") if isinstance(value, dict) else value
    return tekken.SPECIAL.get(name) if (folder / tekken.FILE).is_file() else None


def _of_merges(folder: Path) -> "Tokenizer":
    """Qwen2's: byte-level BPE over text in NFC."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_tokens(tokenizer: "Tokenizer", folder: Path) -> None:
    """Tokens that tokenizer_config.json lists and tokenizer.json may lack; the special ones are made so."""
    from tokenizers import AddedToken

    config = read_json(folder / "tokenizer_config.json")
    for token_id, entry in sorted(
        config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0])
    ):
        token = AddedToken(**{key: value for key, value in entry.items() if key != "__type"})
        add = tokenizer.add_special_tokens if entry.get("special") else tokenizer.add_tokens
        if tokenizer.id_to_token(int(token_id)) is None:
            add([token])
        if tokenizer.token_to_id(entry["content"]) != int(token_id):
            raise ValueError(
                f"{folder / 'tokenizer_config.json'} puts {entry['content']!r} at {token_id}, the tokenizer "
                f"at {tokenizer.token_to_id(entry['content'])}: files of different checkpoints"
            )
    names = _special_names(config)
    if strange := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"{folder / 'tokenizer_config.json'} calls {strange[0]!r} a special token: not text")
    known = [name for name in names if tokenizer.token_to_id(name) is not None]
    tokenizer.add_special_tokens(known)


def _special_names(config: dict) -> list:
    """What the tokenizer's configuration calls special: tokens, where it is sound."""
    names = [config.get(key) for key in ("bos_token", "eos_token", "pad_token", "unk_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        given = config.get(key) or []
        given = list(given.values()) if isinstance(given, dict) else given
        names += given if isinstance(given, list) else [given]
    return [name.get("content") if isinstance(name, dict) else name for name in names if name]
