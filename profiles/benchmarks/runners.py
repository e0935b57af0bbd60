"""Who reads a prompt and decodes in the decoder benchmark, each in a process of its own,
one request after the other.

Every runner takes token ids and gives token ids: a prefill ends with the first token chosen,
    a step with the next one.
"""

import json
import multiprocessing
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .models import FLAVOURS, SPEC_NAME

RUNNERS = (*FLAVOURS, "transformers", "transformers-bf16", "genai")


class Remote:
    """A runner in a fresh process; `call` waits for its answer."""

    def __init__(self, name: str, folder: Path, layers: int, new_tokens: int, threads: int):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, name, folder, layers, new_tokens, threads), daemon=True
        )
        self._process.start()
        theirs.close()
        self._answer()

    def call(self, method: str, *arguments):
        self._pipe.send((method, arguments))
        return self._answer()

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_) -> None:
        self._pipe.close()  # at which the process ends
        self._process.join()

    def _answer(self):
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self.name} died; was there memory for it?") from None
        if isinstance(answer, Exception):
            raise RuntimeError(f"{self.name}: {answer}")
        return answer


def _serve(pipe, name: str, folder: Path, layers: int, new_tokens: int, threads: int) -> None:
    """Open the runner, then answer (method, arguments) until the other end closes."""
    with suppress(EOFError, BrokenPipeError):
        try:
            runner = open_runner(name, folder, layers, new_tokens, threads)
            pipe.send(None)
            while True:
                method, arguments = pipe.recv()
                pipe.send(METHODS[method](runner, *arguments))
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:  # whatever a package raises is the other end's news
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def request(runner, token_ids: list[int], new_tokens: int) -> dict:
    """Milliseconds of the prefill and of each step, those outside the engine where the runner tells,
    and the tokens chosen."""
    answers = [runner.prefill(token_ids)]
    while len(answers) < new_tokens:
        answers.append(runner.step(answers[-1]["token"]))
    host = [answer["host_ms"] for answer in answers[1:] if "host_ms" in answer]
    return {
        "prefill_ms": answers[0]["ms"],
        "step_ms": [answer["ms"] for answer in answers[1:]],
        "host_ms": host or None,
        "token_ids": [answer["token"] for answer in answers],
        "kv_bytes": runner.kv_bytes(),
    }


def _memory(_) -> dict:
    from ..measure import process_memory

    return process_memory()


def _rates(_, threads: int) -> dict:
    from ..measure import machine_facts, matrix_rate, memory_bandwidth

    return machine_facts() | {"bandwidth": memory_bandwidth(threads), "matrix_rate": matrix_rate()}


METHODS = {
    "request": request,
    "logits": lambda runner, token_ids: runner.logits(token_ids),
    "memory": _memory,
    "rates": _rates,
}


def open_runner(name: str, folder: Path, layers: int, new_tokens: int, threads: int):
    """The runner `name` over the models in `folder`; each request leaves room for `new_tokens` in the KV
    cache."""
    if name == "machine":  # a bare process, to measure what the machine can do
        return None
    if name == "genai":
        return GenAI(folder / f"genai.{layers}", new_tokens, threads)
    if name.startswith("transformers"):
        return Transformers(
            folder / "checkpoint", layers, "bfloat16" if name.endswith("bf16") else "float32", threads
        )
    return Ours(folder / f"ours.{layers}", name, new_tokens, threads)


class Ours:
    """Our decoder as a session drives it: embeddings gathered from the table on disk,
    a Context over an engine, a Sampler."""

    def __init__(self, folder: Path, flavour: str, new_tokens: int, threads: int):
        from ...runtime.backends.opening import open_engine
        from ...runtime.bundle import DecoderSpec
        from ...runtime.sampling import GREEDY, Sampler
        from ...runtime.stages.embeddings import Embeddings

        self._engine: Any = StopwatchEngine(
            open_engine(folder / f"decoder.{flavour}.onnx", "onnxruntime", "cpu", threads, stepping=True)
        )
        self._spec = DecoderSpec(**json.loads((folder / SPEC_NAME).read_text()))
        self._new_tokens = new_tokens
        self._embeddings = Embeddings(folder / "embeddings.npy", self._engine.inputs["inputs_embeds"].dtype)
        self._sampler = Sampler(GREEDY, np.empty(0, np.int64))
        self._contexts: dict[int, Any] = {}
        self._context: Any = None

    def prefill(self, token_ids: list[int]) -> dict:
        begun = time.perf_counter()
        token = self._sampler.next_token(self._read(token_ids))
        return {"ms": (time.perf_counter() - begun) * 1e3, "token": token}

    def step(self, token: int) -> dict:
        begun = time.perf_counter()
        ran = self._engine.seconds
        token = self._sampler.next_token(self._context.step(token))
        seconds = time.perf_counter() - begun
        return {"ms": seconds * 1e3, "token": token, "host_ms": (seconds - self._engine.seconds + ran) * 1e3}

    def logits(self, token_ids: list[int]) -> np.ndarray:
        return self._read(token_ids).copy()

    def kv_bytes(self) -> int:
        return self._context.nbytes

    def _read(self, token_ids: list[int]) -> np.ndarray:
        """Positions in order and no key bias, as the other runners have it;
        other values would take the same time."""
        from ...runtime.context import Context
        from ...runtime.stages.splice import Prefix

        tokens = len(token_ids)
        if (
            tokens not in self._contexts
        ):  # one each, as in sessions that stay at a level: no request allocates
            self._contexts[tokens] = Context(self._engine, self._spec, self._embeddings)
        self._context = self._contexts[tokens]
        prefix = Prefix(
            np.array(token_ids),
            self._embeddings[token_ids],
            np.arange(tokens),
            np.zeros(tokens, np.float32),
            tokens,
        )
        return self._context.prefill(prefix, token_ids, 0, self._new_tokens)


class StopwatchEngine:
    """An engine that adds up the seconds its bindings ran."""

    def __init__(self, engine):
        self._engine = engine
        self.inputs = engine.inputs
        self.outputs = engine.outputs
        self.seconds = 0.0
        self.zeros = engine.zeros

    def bind(self, arrays, once: bool = False) -> "StopwatchEngine._Binding":
        return self._Binding(self, self._engine.bind(arrays, once))

    class _Binding:
        def __init__(self, watch: "StopwatchEngine", binding):
            self._watch = watch
            self._binding = binding

        def run(self) -> None:
            begun = time.perf_counter()
            self._binding.run()
            self._watch.seconds += time.perf_counter() - begun


class Transformers:
    """transformers' eager model with its growing KV cache."""

    def __init__(self, folder: Path, layers: int, dtype: str, threads: int):
        import torch
        from transformers import Qwen2ForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()  # it would list the layers left out
        logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self._model = Qwen2ForCausalLM.from_pretrained(
            folder, num_hidden_layers=layers, dtype=getattr(torch, dtype), attn_implementation="eager"
        ).eval()
        self._cache: Any = None

    def prefill(self, token_ids: list[int]) -> dict:
        from transformers import DynamicCache

        self._cache = DynamicCache()
        return self._timed(token_ids)

    def step(self, token: int) -> dict:
        return self._timed([token])

    def logits(self, token_ids: list[int]) -> np.ndarray:
        self._cache = None
        return self._forward(token_ids).float().numpy()

    def kv_bytes(self) -> int:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self._cache.layers)

    def _timed(self, token_ids: list[int]) -> dict:
        begun = time.perf_counter()
        token = int(self._forward(token_ids).argmax())
        return {"ms": (time.perf_counter() - begun) * 1e3, "token": token}

    def _forward(self, token_ids: list[int]):
        import torch

        with torch.inference_mode():
            answer = self._model(
                torch.tensor([token_ids]),
                past_key_values=self._cache,
                use_cache=self._cache is not None,
                logits_to_keep=1,
            )
        return answer.logits[0, -1]


class GenAI:
    """onnxruntime-genai's Generator, greedy; it looks embeddings up in its own graph."""

    def __init__(self, folder: Path, new_tokens: int, threads: int):
        import onnxruntime_genai  # pyright: ignore[reportMissingImports]  # compared with where installed

        config = onnxruntime_genai.Config(str(folder))
        config.overlay(
            json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}})
        )
        self._genai = onnxruntime_genai
        self._new_tokens = new_tokens
        self._model = onnxruntime_genai.Model(config)
        llm = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
        values = 2 * llm["num_hidden_layers"] * llm["num_key_value_heads"] * llm["head_size"]
        self._token_bytes = values * np.dtype(np.float32).itemsize
        self._generator: Any = None

    def prefill(self, token_ids: list[int]) -> dict:
        self._begin(len(token_ids))  # not timed: it allocates the KV cache
        begun = time.perf_counter()
        self._generator.append_tokens(token_ids)
        return self._next(begun)

    def step(self, token: int) -> dict:
        """The generator knows the last token by itself."""
        return self._next(time.perf_counter())

    def logits(self, token_ids: list[int]) -> np.ndarray:
        self._begin(len(token_ids))
        self._generator.append_tokens(token_ids)
        return np.array(self._generator.get_logits(), np.float32).reshape(-1)

    def kv_bytes(self) -> int:
        return self._token_bytes * self._capacity

    def _begin(self, tokens: int) -> None:
        self._generator = None  # its cache goes before the next is allocated
        self._capacity = tokens + self._new_tokens
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(max_length=self._capacity, do_sample=False)
        self._generator = self._genai.Generator(self._model, params)

    def _next(self, begun: float) -> dict:
        self._generator.generate_next_token()
        token = int(self._generator.get_next_tokens()[0])
        return {"ms": (time.perf_counter() - begun) * 1e3, "token": token}
