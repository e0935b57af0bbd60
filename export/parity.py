"""Parity: every engine of a bundle against the PyTorch model, as figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..plugins.merge import apply_plan, plan_merge
from ..runtime.backends.backend import EngineFiles
from ..runtime.backends.engines import Engines
from ..runtime.backends.opening import ONNX_FILES, open_engine
from ..runtime.bundle import Bundle
from ..runtime.engine import Engine
from ..runtime.levels import Budget, Level
from ..runtime.pipeline import Pipeline
from ..runtime.prompt import Turn
from ..runtime.request import DEFAULT_PROMPT
from ..runtime.stages.decoder import Decoder
from ..runtime.stages.encoder import EncodedRows, segment_tokens
from ..runtime.stages.layout import Layout
from ..runtime.stages.merge import MergedAudio
from ..runtime.stages.splice import Prefix, splice
from .checkpoint import Checkpoint
from .flavours import FLAVOURS
from .precision import FLOATS
from .reference import TorchReference

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "int8": 0.25, "int4": 1.0}
"""Largest absolute difference allowed, as a share of the reference's largest value, or absolute where that
is below 1.

int8 and int4 make another model: how far it is from the float32 one is a figure to read, with a wide bound.
What is held tightly is that the engine computes with the weights it was given: in the lines `rounded` PyTorch
computes with the same.
"""
ROUNDED_ACTIVATIONS = 0.1  # of quantised products at accuracy level 4, which round the activations to int8
NO_BFLOAT16 = "ONNX Runtime computes no bfloat16 on the CPU; parity of this bundle needs a GPU"
FEATURES_TOLERANCE = 1e-4  # transformers' torch path is float32: up to 7e-5 from its own numpy path


@dataclass(frozen=True)
class ParityLine:
    """One stage held against its reference."""

    stage: str
    level: str
    flavour: str
    difference: float  # largest absolute difference; for plans and tokens the number that differ
    tolerance: float
    detail: str = ""
    skipped: bool = False  # nothing was compared; `detail` says why

    @property
    def passed(self) -> bool:
        return self.skipped or bool(self.difference <= self.tolerance)  # NaN fails

    def __str__(self) -> str:
        where = f"{self.stage:<16}{self.level:<9}{self.flavour:<9}"
        if self.skipped:
            return f"{'skipped':<8}{where}{self.detail}"
        verdict = "ok" if self.passed else "FAILED"
        return (
            f"{verdict:<8}{where}difference {self.difference:<10.3g} tolerance {self.tolerance:<9.3g} "
            f"{self.detail}"
        )


def test_clip(sampling_rate: int, seconds: float = 5.0) -> np.ndarray:
    """A seeded clip [samples] float32: a rising tone, bursts and noise,
    so that neighbouring tokens are not all alike."""
    generator = np.random.default_rng(0)
    time = np.arange(int(seconds * sampling_rate)) / sampling_rate
    tone = np.sin(2 * np.pi * (200 + 150 * time) * time) * (np.sin(2 * np.pi * 0.7 * time) > 0)
    return (0.3 * tone + 0.05 * generator.standard_normal(len(time))).astype(np.float32)


def check_parity(
    checkpoint: Checkpoint,
    bundle: Bundle,
    levels: Sequence[Level | Budget],
    waveform: np.ndarray | None = None,
    prompt: str = DEFAULT_PROMPT,
    max_new_tokens: int = 8,
    report: Callable[[ParityLine], None] | None = None,
) -> list[ParityLine]:
    """Hold every stage of `bundle` against PyTorch on one clip, at each level;
    `report` sees each line as it comes.

    waveform: [samples] at the model's rate, a seeded clip of 5 s when left out
    """
    lines: list[ParityLine] = []

    def add(*fields) -> None:
        lines.append(ParityLine(*fields))
        if report:
            report(lines[-1])

    if waveform is None:
        waveform = test_clip(bundle.manifest.audio.sampling_rate)
    chain = _Chain(checkpoint, bundle, waveform, prompt, max_new_tokens, add)
    chain.compare_features()
    if bundle.manifest.precision.encoder == "bfloat16":
        add("encoder", "", "", 0.0, 0.0, NO_BFLOAT16, True)
        return lines
    chain.compare_encoder()
    for level in levels:
        chain.compare_level(level)
    chain.pipeline.close()
    for flavour in chain.flavours:
        chain.compare_decoder(flavour)
    if not chain.flavours:
        add("decoder", "", "", 0.0, 0.0, NO_BFLOAT16, True)
    elif bundle.manifest.precision.block_size:
        chain.compare_rounded()
    return lines


@dataclass(frozen=True)
class _Case:
    """A prefix, what the float32 reference answers greedily, and the logits [steps, V] of its steps."""

    level: str
    prefix: Prefix
    token_ids: list[int]
    logits: np.ndarray
    engine_logits: dict[str, np.ndarray] = field(default_factory=dict)  # of each flavour, fed the same tokens


class _Chain:
    """The engines and the reference side by side on one clip: each stage takes what the one before it gave.

    add: takes the fields of every line
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        bundle: Bundle,
        waveform: np.ndarray,
        prompt: str,
        max_new_tokens: int,
        add,
    ):
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.precision = bundle.manifest.precision
        self.add = add
        self.reference = TorchReference(checkpoint)
        self.max_new_tokens = max_new_tokens
        needs_gpu = "bfloat16" in (self.precision.activations, self.precision.lm_head)
        self.flavours = () if needs_gpu else self.manifest.flavours
        self.cases: list[_Case] = []
        self.encoded: list[list[EncodedRows]] = []  # of each audio, once the encoder was compared
        self.pipeline = audio_pipeline(bundle)
        self.audios = self.pipeline.segments(waveform, long_audio="segments")
        self.samples: list[list[np.ndarray]] = []
        self.segment_index: list[int] = []
        for audio in self.audios:
            self.samples.append([segment.samples for segment in audio])
            self.segment_index += [segment.index for segment in audio]
        self.turns = [Turn("user", prompt, len(self.audios))]

    def compare(
        self,
        stage: str,
        level: str,
        flavour: str,
        got: np.ndarray,
        want: np.ndarray,
        share: float,
        tolerance: float = 0.0,
    ) -> None:
        """`share` of the largest value is allowed, or `tolerance`."""
        got = got.astype(np.float64)
        want = want.astype(np.float64)
        scale = max(1.0, float(np.abs(want).max(initial=0.0)))
        norms = np.linalg.norm(got) * np.linalg.norm(want)
        cosine = float((got * want).sum() / norms) if norms else 1.0
        difference = float(np.abs(got - want).max(initial=0.0))
        self.add(stage, level, flavour, difference, tolerance or share * scale, f"cosine {cosine:.8f}")

    def compare_features(self) -> None:
        self.torch_features, self.frame_lengths = self.reference.features(self.samples)
        features: list[np.ndarray] = []
        for audio in self.audios:
            features += self.pipeline.features(audio)
        for got, want in zip(features, self.torch_features):
            self.compare("features", "", "", got, want[:, : got.shape[1]], 0.0, FEATURES_TOLERANCE)

    def compare_encoder(self) -> None:
        """Valid tokens only, against the tower run on clips padded to the whole segment."""
        self.encoded = [self.pipeline.encode(audio) for audio in self.audios]
        self._compare_encoded("encoder", TOLERANCE[self.precision.encoder])
        if self.precision.encoder == "int8":
            self.reference.round_encoder()
            self._compare_encoded("encoder rounded", ROUNDED_ACTIVATIONS)

    def _compare_encoded(self, stage: str, share: float) -> None:
        want = self.reference.audio_embeds(
            self.torch_features, self.frame_lengths, np.array(self.segment_index)
        )
        got: list[np.ndarray] = []
        for groups in self.encoded:
            got += segment_tokens(groups)
        valid = [padded[: len(tokens)] for tokens, padded in zip(got, want)]
        self.compare(stage, "", "", np.concatenate(got), np.concatenate(valid), share)

    def compare_level(self, unsettled: Level | Budget) -> None:
        layout = self.pipeline.lay_out(self.turns, self.audios, unsettled, self.max_new_tokens)
        level = layout.level
        merged = [self.pipeline.merge(groups, level) for groups in self.encoded]
        reference = [reference_merge(groups, level, self.manifest.merge_step) for groups in self.encoded]
        different = sum(_plan_differences(a, b) for a, b in zip(merged, reference))
        tokens = f"{layout.tokens_in} tokens -> {layout.tokens_out}"
        self.add("merge plan", level.name, "", float(different), 0.0, tokens)
        truth = []
        for audio in reference:
            projected = self.reference.project(np.asarray(audio.merged_embeds))
            truth.append(replace(audio, merged_embeds=projected))
        got = np.concatenate([np.asarray(audio.merged_embeds) for audio in merged])
        want = np.concatenate([audio.merged_embeds for audio in truth])
        self.compare("projector", level.name, "", got, want, TOLERANCE[self.precision.encoder_activations])
        if self.flavours:
            self.cases.append(self._case(layout, truth))

    def _case(self, layout: Layout, audios: list[MergedAudio]) -> "_Case":
        """What PyTorch makes of the reference's tokens, greedily."""
        prefix = splice(layout, audios, self.reference.table)
        level = layout.level
        eos = self.manifest.prompt.eos_token_ids
        token_ids, logits = self.reference.greedy(prefix, self.max_new_tokens, eos)
        if level.ratio == 1:
            generated = self.reference.generate(
                prefix.token_ids.tolist(), self.samples, self.max_new_tokens, eos
            )
            wrong = sum(a != b for a, b in zip(generated, token_ids)) + abs(len(generated) - len(token_ids))
            self.add(
                "generate",
                level.name,
                "torch",
                float(wrong),
                0.0,
                f"reference against transformers' generate, {len(generated)} tokens",
            )
        return _Case(level.name, prefix, token_ids, logits)

    def compare_decoder(self, flavour: str) -> None:
        """One flavour in every case: logits of prefill and of every step, and the greedy choice."""
        share = max(
            TOLERANCE[kind]
            for kind in (self.precision.weights, self.precision.lm_head, self.precision.activations)
        )
        if flavour not in FLAVOURS:  # the one with an int8 cache
            share = max(share, TOLERANCE["int8"])
        engine = open_engine(self.bundle.file(f"decoder.{flavour}.onnx"), device="cpu")
        for case in self.cases:
            got = case.engine_logits[flavour] = self._engine_logits(engine, case)
            self._steps("", case.level, flavour, got, case.logits, share)
            self._tokens(case.level, flavour, got, case.logits, share)
        engine.close()

    def compare_rounded(self) -> None:
        """The decoders' logits once more, against PyTorch with the weights that they were given;
        the reference stays changed."""
        self.reference.round_weights(self.precision)
        exact = max(
            TOLERANCE[kind]
            for kind in (self.precision.activations, self.precision.weights, self.precision.lm_head)
            if kind in FLOATS
        )
        for case in self.cases:
            want = self.reference.forced(case.prefix, case.token_ids)
            for flavour in filter(FLAVOURS.get, self.flavours):
                rounds = FLAVOURS[flavour].domains and self.precision.accuracy_level == 4
                self._steps(
                    " rounded",
                    case.level,
                    flavour,
                    case.engine_logits[flavour],
                    want,
                    ROUNDED_ACTIVATIONS if rounds else exact,
                )

    def _steps(
        self, kind: str, level: str, flavour: str, got: np.ndarray, want: np.ndarray, share: float
    ) -> None:
        self.compare("prefill" + kind, level, flavour, got[0], want[0], share)
        if len(got) > 1:
            self.compare("decode" + kind, level, flavour, got[1:], want[1:], share)

    def _engine_logits(self, engine: Engine, case: "_Case") -> np.ndarray:
        """Logits [steps, V] of the engine, fed the reference's tokens."""
        dtype = engine.inputs["inputs_embeds"].dtype
        prefix = case.prefix
        decoder = Decoder(engine, self.manifest.decoder, len(prefix) + len(case.token_ids))
        prefix = replace(prefix, inputs_embeds=np.asarray(prefix.inputs_embeds).astype(dtype))
        logits = [decoder.prefill([prefix])[0].copy()]
        for token in case.token_ids[:-1]:
            logits.append(decoder.step(self.reference.table[[token]].astype(dtype))[0].copy())
        return np.stack(logits)

    def _tokens(self, level: str, flavour: str, got: np.ndarray, want: np.ndarray, share: float) -> None:
        """Steps where the greedy choice differs; in less than float32 a tie within the tolerance does not
        count."""
        chosen = got.argmax(-1)
        best = want.argmax(-1)
        steps = np.arange(len(want))
        gap = want[steps, best] - want[steps, chosen]
        slack = 0.0 if share == TOLERANCE["float32"] else 2 * share * max(1.0, float(np.abs(want).max()))
        wrong = int((gap > slack).sum()) if slack else int((chosen != best).sum())
        self.add(
            "greedy tokens",
            level,
            flavour,
            float(wrong),
            0.0,
            f"{int((chosen == best).sum())} of {len(want)} equal",
        )


def _plan_differences(a: MergedAudio, b: MergedAudio) -> int:
    """Values in which two merge plans differ."""
    pairs = ((a.source_map, b.source_map), (a.sizes, b.sizes), (a.anchors, b.anchors))
    return sum(int((one != other).sum()) for one, other in pairs)


def audio_pipeline(bundle: Bundle) -> Pipeline:
    """The encoder and the merge on ONNX Runtime's CPU, whatever the LLM's weights are packed for."""
    files = EngineFiles("", {stage: bundle.file(name) for stage, name in ONNX_FILES.items()})
    return Pipeline(
        bundle, Engines(files, lambda stage, path: open_engine(path, device="cpu"), in_turn=False)
    )


def reference_merge(groups: list[EncodedRows], level: Level, step: tuple[int, int]) -> MergedAudio:
    """The numpy reference over the engine's own encoder output; merged_embeds are [K, D],
    before the projector."""
    rows = segment_tokens(groups)
    plans = [plan_merge(x, level.target(len(x)), level.merge_window, step) for x in rows]
    merged = np.concatenate([apply_plan(plan, x) for plan, x in zip(plans, rows)])
    return MergedAudio.of_plans(merged, plans)
