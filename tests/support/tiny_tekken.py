"""A small tekken.json as Mistral's audio models have it, with some words beyond the bytes."""

import base64
import json
from pathlib import Path

NAMES = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    10: "[IMG]",
    11: "<pad>",
    12: "[IMG_BREAK]",
    13: "[IMG_END]",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    32: "[ARGS]",
    33: "[CALL_ID]",
    34: "[TRANSCRIBE]",
}
SPECIAL_COUNT = 36
WORDS = (
    " y",
    " yo",
    " you",
    "he",
    "hea",
    "hear",
    "at",
    "What",
    " d",
    " do",
    "en",
    "la",
    "lan",
    "lang",
    "\n\n",
)
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VOCABULARY = SPECIAL_COUNT + 256 + len(WORDS)


def write_tekken(folder: Path) -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [word.encode() for word in WORDS]
    names = [NAMES.get(rank, f"<SPECIAL_{rank}>") for rank in range(SPECIAL_COUNT)]
    encoding = dict(num_mel_bins=128, hop_length=160, window_size=400)
    raw = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(tokens),
            "default_vocab_size": VOCABULARY,
            "default_num_special_tokens": SPECIAL_COUNT,
            "version": "v13",
        },
        "vocab": [
            dict(rank=rank, token_bytes=base64.b64encode(token).decode(), token_str=None)
            for rank, token in enumerate(tokens)
        ],
        "special_tokens": [
            dict(rank=rank, token_str=name, is_control=True) for rank, name in enumerate(names)
        ],
        "audio": {
            "sampling_rate": 16000,
            "frame_rate": 12.5,
            "chunk_length_s": 30.0,
            "audio_encoding_config": encoding,
        },
    }
    (folder / "tekken.json").write_text(json.dumps(raw))
