"""Mistral's tekken.json as a tokenizer.json: byte-level BPE whose merges follow from its tokens' order."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .configuration import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tekken.json"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def of_tekken(file: Path) -> "Tokenizer":
    """The tokenizer; ValueError for a file that lists no special tokens (before Mistral's version 7)."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    raw = read_json(file)
    config = raw["config"]
    special = _special_tokens(raw, file)
    words = [base64.b64decode(entry["token_bytes"]) for entry in raw["vocab"]]
    words = words[: config["default_vocab_size"] - len(special)]
    vocabulary = {name: index for index, name in enumerate(special)}
    vocabulary |= {_written(word): len(special) + rank for rank, word in enumerate(words)}
    bpe = models.BPE(vocab=vocabulary, merges=_merges(words), fuse_unk=False, ignore_merges=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(config["pattern"]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return tokenizer


def _special_tokens(raw: dict[str, Any], file: Path) -> list[str]:
    """Names by rank; those that the file only reserves have a name too."""
    listed = raw.get("special_tokens")
    if not listed:
        raise ValueError(f"{file} lists no special_tokens: a tokenizer older than version 7 has no audio")
    names = [entry["token_str"] for entry in sorted(listed, key=lambda entry: entry["rank"])]
    reserved = range(len(names), raw["config"]["default_num_special_tokens"])
    return names + [f"<SPECIAL_{rank}>" for rank in reserved]


def _merges(words: list[bytes]) -> list[tuple[str, str]]:
    """For each token, every way to make it of two others, by the rank of the token and then of its parts."""
    ranks = {word: rank for rank, word in enumerate(words)}
    merges: list[tuple[str, str]] = []
    for word in words:
        pairs = []
        for cut in range(1, len(word)):
            left, right = word[:cut], word[cut:]
            if left in ranks and right in ranks:
                pairs.append((ranks[left], ranks[right]))
        merges += [(_written(words[left]), _written(words[right])) for left, right in sorted(pairs)]
    return merges


def _written(word: bytes) -> str:
    """Bytes as byte-level tokenizers write them: printable characters, a letter a byte."""
    return "".join(map(_LETTERS.__getitem__, word))


def _letters() -> list[str]:
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_LETTERS = _letters()
