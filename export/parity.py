"""Parity: every engine of a bundle against the PyTorch model, as figures."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.reference import TorchReference, sample_windows
from ltbm.plugins.merge import apply_plan, plan_merge
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.engine import open_engine
from ltbm.runtime.levels import Level
from ltbm.runtime.prompt import Prompter
from ltbm.runtime.session import settle_level, split_long
from ltbm.runtime.stages.decoder import Decoder
from ltbm.runtime.stages.encoder import EncodedRows, encode
from ltbm.runtime.stages.features import cut_windows
from ltbm.runtime.stages.merge import MergedAudio, Row, merge
from ltbm.runtime.stages.splice import Prefix, splice

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1, "int8": 1e-1, "int4": 1.0}
"""Largest absolute difference allowed, as a share of the reference's largest value, or absolute where that is below 1."""
FEATURES_TOLERANCE = 1e-4  # transformers' torch path is float32: up to 7e-5 from its own numpy path
DEFAULT_PROMPT = "What do you hear?"


@dataclass(frozen=True)
class ParityLine:
    """One stage held against its reference."""

    stage: str
    level: str
    flavour: str
    difference: float  # largest absolute difference; for plans and tokens the number that differ
    tolerance: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        return bool(self.difference <= self.tolerance)  # NaN fails

    def __str__(self) -> str:
        where = f"{self.stage:<14}{self.level:<9}{self.flavour:<7}"
        verdict = "ok" if self.passed else "FAILED"
        return f"{verdict:<7}{where} difference {self.difference:<10.3g} tolerance {self.tolerance:<9.3g} {self.detail}"


def test_clip(sampling_rate: int, seconds: float = 5.0) -> np.ndarray:
    """A seeded clip [samples] float32: a rising tone, bursts and noise, so that neighbouring tokens are not all alike."""
    generator = np.random.default_rng(0)
    time = np.arange(int(seconds * sampling_rate)) / sampling_rate
    tone = np.sin(2 * np.pi * (200 + 150 * time) * time) * (np.sin(2 * np.pi * 0.7 * time) > 0)
    return (0.3 * tone + 0.05 * generator.standard_normal(len(time))).astype(np.float32)


def check_parity(checkpoint: Checkpoint, bundle: Bundle, levels: list[Level], waveform: np.ndarray | None = None,
                 prompt: str = DEFAULT_PROMPT, max_new_tokens: int = 8,
                 report: Callable[[ParityLine], None] | None = None) -> list[ParityLine]:
    """Hold every stage of `bundle` against PyTorch on one clip, at each level; `report` sees each line as it comes.

    waveform: [samples] at the model's rate, a seeded clip of 5 s when left out
    """
    lines: list[ParityLine] = []

    def add(*fields) -> None:
        lines.append(ParityLine(*fields))
        if report:
            report(lines[-1])

    if waveform is None:
        waveform = test_clip(bundle.manifest.audio.sampling_rate)
    with _Chain(checkpoint, bundle, waveform, prompt, max_new_tokens, add) as chain:
        chain.features()
        chain.encoder()
        for level in levels:
            chain.level(settle_level(level, chain.audios)[0])
    return lines


class _Chain:
    """The engines and the reference side by side on one clip."""

    def __init__(self, checkpoint: Checkpoint, bundle: Bundle, waveform: np.ndarray, prompt: str, max_new_tokens: int, add):
        self.bundle, self.manifest, self.add = bundle, bundle.manifest, add
        self.reference, self.max_new_tokens = TorchReference(checkpoint), max_new_tokens
        self.share = TOLERANCE[self.manifest.precision.weights]
        names = ["encoder", "merge"] + [f"decoder.{flavour}" for flavour in self.manifest.flavours]
        self.engines = {name: open_engine(bundle.file(f"{name}.onnx"), "onnxruntime", "cpu") for name in names}
        audio = self.manifest.audio
        windows = cut_windows(waveform, audio)
        self.audios = split_long(windows, audio.max_windows, "windows", "the clip", audio.window_seconds)
        self.windows = [window for part in self.audios for window in part]
        self.samples = sample_windows(waveform, audio)[:len(self.windows)]
        self.prompt_ids = Prompter(bundle).prompt_ids(prompt, len(self.audios))
        self.encoded = [encode(self.engines["encoder"], part) for part in self.audios]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for engine in self.engines.values():
            engine.close()

    def compare(self, stage: str, level: str, flavour: str, got: np.ndarray, want: np.ndarray, tolerance: float | None = None) -> None:
        got, want = got.astype(np.float64), want.astype(np.float64)
        scale = max(1.0, float(np.abs(want).max(initial=0.0)))
        norms = np.linalg.norm(got) * np.linalg.norm(want)
        cosine = float((got * want).sum() / norms) if norms else 1.0
        difference = float(np.abs(got - want).max(initial=0.0))
        self.add(stage, level, flavour, difference, tolerance or self.share * scale, f"cosine {cosine:.8f}")

    def features(self) -> None:
        self.torch_features, self.frame_lengths = self.reference.features(self.samples)
        for window, want in zip(self.windows, self.torch_features):
            got = window.input_features
            self.compare("features", "", "", got, want[:, :got.shape[1]], FEATURES_TOLERANCE)

    def encoder(self) -> None:
        """Valid tokens only, against the tower run on clips padded to the whole window."""
        want = self.reference.audio_embeds(self.torch_features, self.frame_lengths)
        got = [row[:group.tokens] for groups in self.encoded for group in groups for row in np.asarray(group.audio_embeds)]
        self.compare("encoder", "", "", np.concatenate(got), np.concatenate([w[:len(g)] for g, w in zip(got, want)]))

    def level(self, level: Level) -> None:
        merged = [merge(self.engines["merge"], groups, level) for groups in self.encoded]
        reference = [reference_merge(groups, level, self.manifest.merge_step) for groups in self.encoded]
        different = sum(int((getattr(a, name) != getattr(b, name)).sum())
                        for a, b in zip(merged, reference) for name in ("source_map", "sizes", "anchors"))
        tokens = f"{sum(audio.tokens_in for audio in merged)} tokens -> {sum(audio.tokens_out for audio in merged)}"
        self.add("merge plan", level.name, "", float(different), 0.0, tokens)
        truth = [replace(audio, merged_embeds=self.reference.project(audio.merged_embeds)) for audio in reference]
        got, want = (np.concatenate([audio.merged_embeds for audio in side]) for side in (merged, truth))
        self.compare("projector", level.name, "", got, want)
        self._decode(level, truth)

    def _decode(self, level: Level, audios: list[MergedAudio]) -> None:
        """Each flavour over the reference's tokens: logits of prefill and of every step, and the greedy choice."""
        table = self.reference.token_embeds(np.arange(self.manifest.decoder.vocab_size))
        prefix = splice(self.prompt_ids, audios, self.manifest.prompt.audio_token_id, table, level)
        eos = self.manifest.prompt.eos_token_ids
        token_ids, want = self.reference.greedy(prefix, self.max_new_tokens, eos)
        for flavour in self.manifest.flavours:
            got = self._engine_logits(flavour, prefix, token_ids, table)
            self.compare("prefill", level.name, flavour, got[0], want[0])
            if len(got) > 1:
                self.compare("decode", level.name, flavour, got[1:], want[1:])
            self._tokens("greedy tokens", level.name, flavour, got, want)
        if level.ratio == 1:
            generated = self.reference.generate(prefix.token_ids.tolist(), self.samples, self.max_new_tokens, eos)
            wrong = sum(a != b for a, b in zip(generated, token_ids)) + abs(len(generated) - len(token_ids))
            self.add("generate", level.name, "torch", float(wrong), 0.0, f"reference against transformers' generate, {len(generated)} tokens")

    def _engine_logits(self, flavour: str, prefix: Prefix, token_ids: list[int], table: np.ndarray) -> np.ndarray:
        """Logits [steps, V] of the engine, fed the reference's tokens."""
        precision = np.dtype(self.manifest.precision.inputs_embeds)
        decoder = Decoder(self.engines[f"decoder.{flavour}"], self.manifest.decoder, len(prefix.token_ids) + len(token_ids))
        narrow = Prefix(prefix.token_ids, prefix.inputs_embeds.astype(precision), prefix.position_ids, prefix.key_bias, prefix.next_position)
        logits = [decoder.prefill([narrow])[0].copy()]
        logits += [decoder.step(table[[token]].astype(precision))[0].copy() for token in token_ids[:-1]]
        return np.stack(logits)

    def _tokens(self, stage: str, level: str, flavour: str, got: np.ndarray, want: np.ndarray) -> None:
        """Steps where the greedy choice differs; in float16 a tie within the tolerance does not count."""
        chosen, best = got.argmax(-1), want.argmax(-1)
        steps = np.arange(len(want))
        gap = want[steps, best] - want[steps, chosen]
        slack = 0.0 if self.manifest.precision.weights == "float32" else 2 * self.share * max(1.0, float(np.abs(want).max()))
        wrong = int((gap > slack).sum()) if slack else int((chosen != best).sum())
        self.add(stage, level, flavour, float(wrong), 0.0, f"{int((chosen == best).sum())} of {len(want)} equal")


def reference_merge(groups: list[EncodedRows], level: Level, step: tuple[int, int]) -> MergedAudio:
    """The numpy reference over the engine's own encoder output; merged_embeds are [K, D], before the projector."""
    rows = [x[:group.tokens] for group in groups for x in np.asarray(group.audio_embeds)]
    plans = [plan_merge(x, level.target(len(x)), level.merge_window, step) for x in rows]
    sizes, anchors, sources = (np.concatenate([getattr(plan, name) for plan in plans]) for name in ("sizes", "anchors", "source_map"))
    merged = np.concatenate([apply_plan(plan, x) for plan, x in zip(plans, rows)])
    return MergedAudio(merged, sizes, anchors, sources, tuple(Row(len(x), len(plan.sizes)) for plan, x in zip(plans, rows)))
