"""A made-up profile of two levels, for what is read from profiles."""

import base64
import copy

import numpy as np
import pytest

from ltbm.profiles.latency.records import FORMAT, Profile
from ltbm.profiles.latency.rows import OTHER, STAGES
from ltbm.profiles.measure import summarise

STAGE_MS = {
    "load": 2,
    "features": 10,
    "prompt": 1,
    "encoder": 100,
    "merge": 4,
    "splice": 1,
    "prefill": 882,
    "decode": 500,
    OTHER: 0,
}
TOKENS = 12
OPTIONS = {
    "clips": ["a.wav"],
    "levels": ["full", "keep25"],
    "methods": ["ltbm", "pool"],
    "positions": "original",
    "attention": "proportional",
    "backend": "onnxruntime",
    "device": "cpu",
    "threads": None,
    "low_memory": False,
    "kv_cache": None,
    "packed": True,
    "native_products": True,
    "prompt": "<b>What?</b>",
    "max_new_tokens": 16,
    "long_audio": "error",
    "turns": 1,
    "repeats": 5,
    "warmup": 1,
    "command": ["ltbm", "profile"],
}
BUNDLE = {
    "path": "b",
    "name": "b",
    "sha256": "ab",
    "family": "qwen2_audio",
    "source": "tiny",
    "precision": "float32",
    "stage_bytes": {},
}
MEMORY = {
    "metric": "VmHWM",
    "peak": 1000 * 2**20,
    "peak_outside": 1000 * 2**20,
    "peak_while": "running",
    "libraries": 70 * 2**20,
    "weights": 800 * 2**20,
    "weights_mapped": 2**20,
    "kv_cache": 10 * 2**20,
    "rest": 120 * 2**20,
}
FLOOR = {"bytes": 100 * 2**20, "operations": 10**9, "ms": 10.0, "bound": "memory"}
MACHINE = {
    "cpu": "A CPU",
    "cores": 2,
    "memory_bytes": 2**34,
    "last_level_cache_bytes": 2**20,
    "board": None,
    "gpu": None,
    "gpu_clocks": None,
    "system": "Linux",
    "load_average": 0.1,
    "governor": None,
    "clock_mhz": 2000.0,
    "bandwidth": 1e10,
    "matrix_rate": 1e11,
    "threads": 2,
}


def _row(level: str, kept: int, **ms: float) -> dict:
    stages = STAGE_MS | ms
    whole = {
        "ttft": sum(stages[name] for name in STAGES[:-1]),
        "total": sum(stages.values()),
        "tpot": stages["decode"] / 10,
        "rtf": 0.1,
    }
    figures = {
        name: summarise([value * (1 + 0.01 * step) for step in (-2, -1, 0, 1, 2)])
        for name, value in (stages | whole).items()
    }
    return {
        "level": level,
        "method": "ltbm",
        "tokens_in": TOKENS,
        "tokens_out": kept,
        "prompt_tokens": kept + 5,
        "answer_tokens": 11,
        "applied": level != "full",
        "reason": "" if level != "full" else "level full keeps every token",
        "figures": figures,
        "memory": dict(MEMORY),
        "kv_bytes": kept * 2**20,
        "load_average": 0.5,
        "open_ms": 100.0,
        "floors": dict.fromkeys(("encoder", "merge", "prefill", "decode"), FLOOR),
        "runs": [],
    }


def _fidelity(level: str, method: str, kept: int, error: float) -> dict:
    span = {"p50": 80.0, "p95": 120.0, "max": 160.0}
    return {
        "level": level,
        "method": method,
        "error": error,
        "span_ms": span if error else None,
        "spill": 0,
        "tokens_in": TOKENS,
        "tokens_out": kept,
    }


def _merge_map() -> dict:
    """The clip's mel spectrogram, and where keep25 puts each of its tokens."""
    mel = np.arange(8 * 24, dtype=np.uint8)
    return {
        "mel": base64.b64encode(mel.tobytes()).decode(),
        "mel_shape": [8, 24],
        "source_maps": {"keep25": [0, 0, 0, 1, 0, 1, 1, 2, 2, 2, 2, 2]},
        "anchors": {"keep25": [1, 3, 9]},
    }


@pytest.fixture
def make_profile():
    """() -> a profile as profile.json has it: full with a TTFT of 1000 ms, and keep25 with one of 300 ms."""
    fidelity_rows = [
        _fidelity("full", "ltbm", TOKENS, 0.0),
        _fidelity("keep25", "ltbm", 3, 0.2),
        _fidelity("keep25", "pool", 3, 0.5),
    ]
    profile = {
        "format": FORMAT,
        "complete": True,
        "created": "2026-01-02T03:04:05+00:00",
        "clips": [{"name": "a.wav", "sha256": "11", "seconds": 0.5}],
        "options": OPTIONS,
        "versions": {"python": "3.11", "onnxruntime": "1.32", "tensorrt": None},
        "bundle": BUNDLE,
        "machine": MACHINE,
        "rows": [_row("full", TOKENS), _row("keep25", 3, prefill=182)],
        "fidelity": {"rows": fidelity_rows, "token_ms": 40.0, "map": _merge_map()},
    }
    return lambda: copy.deepcopy(profile)


@pytest.fixture
def made_profile(make_profile) -> Profile:
    """The made-up profile as a record."""
    return Profile.from_json(make_profile())
