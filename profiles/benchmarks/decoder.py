"""Our decoder beside transformers and onnxruntime-genai's runtime,
on the same random weights at a real model's widths.

Runners take turns within one run, each in a process of its own, in an order that turns round every round,
so that what else the machine does falls on all of them alike; ratios are medians over the rounds.
Timed is from token ids to the chosen token, greedy; loading, and the allocation of the KV cache, are not. Of
the LLM only a few layers are made: with two counts of layers the whole model's times are put on the line
    through them, and labelled so.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ...runtime.arguments import UsageError
from ...runtime.files import write_whole
from .decoder_flags import AUDIO_TOKENS, DEFAULT_RUNNERS
from .models import FLAVOURS, LLMS, make_models, operations, same_weights, weight_bytes
from .report import markdown, summary
from .runners import RUNNERS, Remote

PACKAGES = {"transformers": "transformers", "transformers-bf16": "transformers", "genai": "onnxruntime_genai"}
HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""For every runner: with pages of 4 KiB a step takes up to a tenth longer in some processes than in others,
by where memory was free."""
BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Setup:
    """What is run: prompts of audio and text tokens, each answered with `new_tokens`,
    by every runner in every round."""

    llm: str  # a key of LLMS
    layers: tuple[int, ...] = (2,)
    runners: tuple[str, ...] = DEFAULT_RUNNERS
    audio_tokens: tuple[int, ...] = AUDIO_TOKENS
    text_tokens: int = 30
    new_tokens: int = 17  # the first ends the prefill, the others are a step each
    rounds: int = 3
    # one after the other for each runner: where its memory lands alone changes its times by some percent
    processes: int = 2
    threads: int = 1

    def __post_init__(self):
        known = {"llm": LLMS, "runners": RUNNERS}
        for name, chosen in (("llm", [self.llm]), ("runners", self.runners)):
            if unknown := [value for value in chosen if value not in known[name]]:
                raise ValueError(f"{name} {unknown[0]!r} is none of {', '.join(known[name])}")
        if self.runners[0] not in FLAVOURS:
            raise ValueError(
                f"the first runner is what the others are compared with: one of {', '.join(FLAVOURS)}, not "
                f"{self.runners[0]}"
            )
        if (
            min(*self.layers, *self.audio_tokens, self.rounds, self.processes, self.threads) < 1
            or self.new_tokens < 2
            or self.text_tokens < 0
        ):
            raise ValueError(
                "layers, audio tokens, rounds, processes and threads start at 1, new tokens at 2, text "
                f"tokens at 0: {self}"
            )

    @property
    def prompts(self) -> list[int]:
        """Tokens of each prompt."""
        return [tokens + self.text_tokens for tokens in self.audio_tokens]


@dataclass(frozen=True)
class Turn:
    """One request answered by one runner."""

    runner: str
    layers: int
    tokens: int  # of the prompt
    round: int
    prefill_ms: float
    step_ms: list[float]
    host_ms: list[float] | None  # of the steps, outside the engine; None where a runner does not tell
    token_ids: list[int]
    kv_bytes: int  # allocated


def benchmark(setup: Setup, folder: Path, progress=lambda line: None) -> dict:
    """Every turn, what each count of layers needs and how runners agree, and the machine's rates;
    makes its models in `folder`.

    Runners whose package is not installed are left out and named under `missing`.
    """
    missing = [
        name
        for name in setup.runners
        if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None
    ]
    runners = [name for name in setup.runners if name not in missing]
    make_models(folder, LLMS[setup.llm], setup.layers, "genai" in runners, progress)
    turns = []
    by_layers = {}
    for layers in setup.layers:
        turns += take_turns(setup, runners, layers, folder, progress)
        by_layers[layers] = look_alone(setup, runners, layers, folder, progress)
    with Remote("machine", folder, 0, 0, setup.threads) as machine:
        rates = machine.call("rates", setup.threads)
    return {
        "setup": asdict(setup),
        "whole_layers": LLMS[setup.llm]["num_hidden_layers"],
        "missing": missing,
        "machine": rates,
        "by_layers": by_layers,
        "turns": [asdict(turn) for turn in turns],
    }


def take_turns(setup: Setup, runners: list[str], layers: int, folder: Path, progress) -> list[Turn]:
    """All rounds at one count of layers. Round 0 of each process warms it up and is not among them."""
    turns = []
    for process in range(setup.processes):
        with ExitStack() as stack:
            started = runners[:: -1 if process % 2 else 1]  # who starts first may find other memory
            remotes = [
                stack.enter_context(Remote(name, folder, layers, setup.new_tokens, setup.threads))
                for name in started
            ]
            for number in range(setup.rounds + 1):
                progress(
                    f"{layers} layers, process {process + 1} of {setup.processes}, round {number} of "
                    f"{setup.rounds}"
                )
                answers = take_round(setup, layers, number, remotes)
                turns += [replace(turn, round=process * setup.rounds + number) for turn in answers if number]
    return turns


def take_round(setup: Setup, layers: int, number: int, remotes: list[Remote]) -> list[Turn]:
    """Every prompt answered by every runner, in an order that turns round every round."""
    return [
        Turn(
            remote.name,
            layers,
            tokens,
            number,
            **remote.call("request", prompt_ids(setup, tokens), setup.new_tokens),
        )
        for tokens in setup.prompts
        for remote in remotes[:: -1 if number % 2 else 1]
    ]


def look_alone(setup: Setup, runners: list[str], layers: int, folder: Path, progress) -> dict:
    """Memory of each runner's fresh process after the longest prompt, how near its logits are to its peers',
    and the least work."""
    memory = {}
    logits = {}
    for name in runners:
        progress(f"{layers} layers, {name} alone")
        with Remote(name, folder, layers, setup.new_tokens, setup.threads) as remote:
            remote.call("request", prompt_ids(setup, max(setup.prompts)), setup.new_tokens)
            memory[name] = remote.call("memory")
            logits[name] = remote.call("logits", prompt_ids(setup, min(setup.prompts)))
    ours = folder / f"ours.{layers}" / "decoder.gqa.onnx"
    return {
        "memory": memory,
        "cosine": {
            peer: {name: _cosine(logits[name], logits[peer]) for name in runners}
            for peer in ("transformers", "genai")
            if peer in runners
        },
        "equal_matrices": same_weights(ours, folder / f"genai.{layers}" / "model.onnx")
        if "genai" in runners
        else None,
        "weight_bytes": weight_bytes(ours),
        "operations": {tokens: operations(LLMS[setup.llm], layers, tokens) for tokens in setup.prompts},
    }


def prompt_ids(setup: Setup, tokens: int) -> list[int]:
    """Seeded ids: audio has the ids of any tokens here, since not every runner can be given embeddings."""
    return np.random.default_rng(tokens).integers(1, LLMS[setup.llm]["vocab_size"], tokens).tolist()


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a = a.astype(np.float64)
    b = b.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def run(args: argparse.Namespace) -> None:
    """Measure what the flags of `decoder_flags` ask for and print the tables."""
    try:
        setup = _setup(args)
    except ValueError as error:
        raise UsageError(str(error)) from None
    environment = {name: str(args.threads) for name in BLAS_THREADS} | {"GLIBC_TUNABLES": HUGE_PAGES}
    os.environ.update(environment)  # read by the processes to come
    with tempfile.TemporaryDirectory() as scratch:
        results = benchmark(setup, args.folder or Path(scratch), lambda line: print(line, file=sys.stderr))
    results["rows"] = summary(results)
    if args.json:
        write_whole(args.json, json.dumps(results).encode())
    print(markdown(results), end="")


def _setup(args: argparse.Namespace) -> Setup:
    return Setup(
        args.llm,
        tuple(args.layers),
        tuple(args.runners),
        tuple(args.audio_tokens),
        args.text_tokens,
        args.new_tokens,
        args.rounds,
        args.processes,
        args.threads,
    )
