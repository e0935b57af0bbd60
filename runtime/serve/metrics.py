"""Figures for Prometheus."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..answer import Answer

if TYPE_CHECKING:
    from .engine_thread import EngineThread

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
MS = 1e-3  # seconds
STAGES = ("queue", "load", "features", "encoder", "merge", "splice", "prefill", "decode", "total")


class Metrics:
    """A registry of its own for each server."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ltbm_requests",
            "Requests by endpoint and status; 499: the client went",
            ("endpoint", "status"),
            registry=self.registry,
        )
        self._ttft = self._seconds("ltbm_time_to_first_token_seconds", "From the request to the first token")
        self._per_token = self._seconds(
            "ltbm_time_per_output_token_seconds", "Mean of an answer's tokens after the first"
        )
        self._stages = Histogram(
            "ltbm_stage_seconds",
            "Time of each stage of an answered request",
            ("stage",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._audio_tokens = Counter(
            "ltbm_audio_tokens",
            "Audio tokens before (in) and after (out) merging",
            ("direction",),
            registry=self.registry,
        )
        self._prompt_tokens = self._counter("ltbm_prompt_tokens", "Prompt tokens")
        self._answer_tokens = self._counter("ltbm_output_tokens", "Tokens of answers")
        self._reused = self._counter("ltbm_reused_tokens", "Prompt tokens that the KV cache held")
        self._kv_bytes = Gauge(
            "ltbm_kv_cache_bytes", "Allocated for the KV cache at the last answer", registry=self.registry
        )

    def watch(self, engine: "EngineThread") -> None:
        """Show how many requests run and wait, as it is when asked."""
        running = Gauge("ltbm_requests_running", "Requests that run", registry=self.registry)
        running.set_function(lambda: engine.running)
        queued = Gauge("ltbm_requests_queued", "Requests that are in and do not run", registry=self.registry)
        queued.set_function(lambda: engine.queued)

    def observe_answer(self, answer: Answer) -> None:
        timings = answer.timings
        self._ttft.observe(timings["ttft"] * MS)
        if answer.step_ms:
            self._per_token.observe(timings["decode"] / len(answer.step_ms) * MS)
        for stage in STAGES:
            if stage in timings:
                self._stages.labels(stage).observe(timings[stage] * MS)
        self._audio_tokens.labels("in").inc(answer.tokens_in)
        self._audio_tokens.labels("out").inc(answer.tokens_out)
        self._prompt_tokens.inc(len(answer.prompt_token_ids))
        self._answer_tokens.inc(len(answer.token_ids))
        self._reused.inc(answer.reused_tokens)
        self._kv_bytes.set(answer.kv_allocated_bytes)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _seconds(self, name: str, help: str) -> Histogram:
        return Histogram(name, help, buckets=SECONDS, registry=self.registry)

    def _counter(self, name: str, help: str) -> Counter:
        return Counter(name, help, registry=self.registry)
