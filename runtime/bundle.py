"""A bundle: the folder that `ltbm export` writes and everything else reads, with its manifest.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .files import file_sha256, read_text, refuse_lfs_pointers, require_utf8_name
from .levels import DEFAULT_LEVEL, NAMED_RATIOS
from .precision import Precision
from .records import check_types
from .token_rules import TOKEN_RULES, TokenRule

FORMAT_VERSION = 4
RENAMED_SINCE_2 = {"window_frames": "segment_frames", "max_windows": "max_segments"}  # of the audio section
MANIFEST_NAME = "manifest.json"
TOKEN_LENGTH_RULE = "whisper-conv2-pool2"  # of bundles that do not say


@dataclass(frozen=True)
class AudioSpec:
    """How sound becomes encoder input and how many tokens come out.

    whole_audio: log-mels are those of the whole audio (their floor, the frames at a cut), not of each segment
    audio_multiple: samples that an audio is padded with zeros to a multiple of; 0: to its last segment's end
    shortest_audio: samples; a shorter audio is padded with zeros, which count
    zeros_after: frames after the valid ones are zeros; else they are those of silence
    full_frames_only: samples that do not fill a hop give no frame
    numbered_segments: the encoder takes which segment of its audio a row is
    """

    sampling_rate: int  # Hz
    n_fft: int  # samples in one analysis frame
    hop_length: int  # samples between frames
    n_mels: int
    segment_frames: int  # mel frames in one full segment
    max_segments: int  # segments that one audio of a prompt may have
    encoder_width: int  # D
    token_length_rule: str = TOKEN_LENGTH_RULE
    whole_audio: bool = False
    audio_multiple: int = 0
    shortest_audio: int = 0
    zeros_after: bool = False
    full_frames_only: bool = False
    numbered_segments: bool = False

    @property
    def rule(self) -> TokenRule:
        return TOKEN_RULES[self.token_length_rule]

    @property
    def segment_tokens(self) -> int:
        """Tokens of a full segment."""
        return self.rule.tokens(self.segment_frames)

    def tokens(self, frame_length: int) -> int:
        """Valid encoder tokens of a segment with so many valid frames."""
        return self.segment_tokens if self.rule.whole and frame_length else self.rule.tokens(frame_length)

    def input_frames(self, frame_length: int) -> int:
        """Frames that the encoder is given of such a segment."""
        return self.rule.input_frames(frame_length, self.segment_frames)

    def rows(self, input_frames: int) -> int:
        """Tokens, padding included, that the encoder makes of so many frames."""
        return self.rule.tokens(input_frames)

    def frame_length(self, samples: int) -> int:
        """Valid mel frames of so many samples."""
        return samples // self.hop_length if self.full_frames_only else -(-samples // self.hop_length)

    @property
    def segment_samples(self) -> int:
        return self.segment_frames * self.hop_length

    @property
    def segment_seconds(self) -> float:
        return self.segment_samples / self.sampling_rate


@dataclass(frozen=True)
class EncoderSpec:
    """The audio tower's sizes: convolutions, pre-norm blocks, LayerNorm.

    channels: of the convolutions over time and mel; 0 where Whisper's two go over time alone
    """

    layers: int
    width: int  # D
    heads: int
    ffn: int
    n_mels: int
    positions: int  # rows of the position table, after the strided convolution
    channels: int = 0


@dataclass(frozen=True)
class DecoderSpec:
    """The LLM's dimensions, as far as the runtime needs them."""

    layers: int
    hidden_size: int  # H
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int  # rows of the rotary tables: no token may stand beyond
    ffn: int  # width of the MLP

    def kv_bytes(self, tokens: int, itemsize: int) -> int:
        """Bytes of KV cache that hold `tokens` tokens of one sequence, `itemsize` bytes a value."""
        return 2 * self.layers * self.kv_heads * self.head_dim * tokens * itemsize


@dataclass(frozen=True)
class TranscriptSpec:
    """How a model that only transcribes is asked and answers.

    mark: stands between an answer's language and its transcript
    languages: code -> the name by which the model knows it
    """

    mark: str
    languages: Mapping[str, str]

    def __post_init__(self) -> None:
        words = [self.mark, *self.languages, *self.languages.values()]
        if not all(isinstance(word, str) and word for word in words):
            raise TypeError(f"a transcript's mark and languages are {words!r}, not words")


@dataclass(frozen=True)
class PromptSpec:
    """Which token stands for audio, which tokens end an answer, and what is particular to a family's prompts.

    audio_prefix_ids, audio_suffix_ids: put around each audio, where the template does not
    transcript: of a model that only transcribes; what is written to it is context
    """

    audio_token: str
    audio_token_id: int
    eos_token_ids: tuple[int, ...]
    bos_token: str | None = None
    eos_token: str | None = None
    pad_token: str | None = None
    audio_prefix_ids: tuple[int, ...] = ()
    audio_suffix_ids: tuple[int, ...] = ()
    transcript: TranscriptSpec | None = None

    @classmethod
    def from_dict(cls, raw: dict) -> "PromptSpec":
        """JSON's lists as tuples."""
        lists = [name for name, value in raw.items() if isinstance(value, list)]
        values: dict[str, Any] = raw | {name: tuple(raw[name]) for name in lists}
        if values.get("transcript") is not None:
            values["transcript"] = TranscriptSpec(**values["transcript"])
        return cls(**values)


@dataclass(frozen=True)
class FileRecord:
    """What the manifest says of one file."""

    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class Manifest:
    """What manifest.json holds. `tensors` says how every tensor of the checkpoint was used; `default_level`
    is what a request gets that names none."""

    format_version: int
    family: str
    source: str  # the checkpoint's folder or hub id as given
    precision: Precision
    flavours: tuple[str, ...]  # decoder graphs, over one weight file
    audio: AudioSpec
    encoder: EncoderSpec
    decoder: DecoderSpec
    prompt: PromptSpec
    merge_step: tuple[int, int]  # LTBM's step, num and den
    opsets: dict[str, int]  # graph -> ONNX opset
    tools: dict[str, str]  # versions of what wrote the bundle
    files: dict[str, FileRecord]
    tensors: dict[str, str]
    default_level: str = DEFAULT_LEVEL

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, path: Path) -> "Manifest":
        """Of the file at `path`; ValueError with what to do if it is not a manifest that this ltbm reads."""
        try:
            raw = json.loads(text)
            version = raw["format_version"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{path} is not a bundle manifest ({error}); run `ltbm export` again") from None
        if version == 2:
            raw = _from_format_2(raw)
        elif version not in (3, FORMAT_VERSION):
            newer = isinstance(version, int) and version > FORMAT_VERSION
            advice = "upgrade ltbm, or export with this version" if newer else "run `ltbm export` again"
            raise ValueError(
                f"{path} has bundle format {version}, this ltbm reads formats 2 to {FORMAT_VERSION}; {advice}"
            )
        try:
            return cls._from_dict(raw)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path} lacks a field or has a wrong one ({error}); run `ltbm export` again"
            ) from None

    @classmethod
    def _from_dict(cls, raw: dict) -> "Manifest":
        raw = {"default_level": DEFAULT_LEVEL} | raw
        values = {field.name: raw[field.name] for field in fields(cls)}
        if values["default_level"] not in NAMED_RATIOS:
            raise TypeError(f"default_level is {values['default_level']!r}, not a named level")
        values["flavours"] = tuple(raw["flavours"])
        values["merge_step"] = tuple(raw["merge_step"])
        values["precision"] = Precision(**raw["precision"])
        values["audio"] = AudioSpec(**raw["audio"])
        values["encoder"] = EncoderSpec(**raw["encoder"])
        values["decoder"] = DecoderSpec(**raw["decoder"])
        values["prompt"] = PromptSpec.from_dict(raw["prompt"])
        for name in ("precision", "audio", "encoder", "decoder", "prompt"):
            check_types(values[name])
        values["files"] = {name: FileRecord(**record) for name, record in raw["files"].items()}
        return cls(**values)


def _from_format_2(raw: dict) -> dict:
    """A manifest of format 2 under the names of today's."""
    audio = {}
    for name, value in dict(raw.get("audio") or {}).items():
        audio[RENAMED_SINCE_2.get(name, name)] = value
    return raw | {"audio": audio, "format_version": FORMAT_VERSION}


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its manifest, with every file present at its recorded size."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path, verify: bool = False) -> "Bundle":
        """Read the manifest and check the files; `verify` hashes every byte (seconds per gigabyte).

        Raises FileNotFoundError for what is missing and ValueError for what is wrong, with what to do.
        """
        path = Path(path)
        manifest = path / MANIFEST_NAME
        if not path.is_dir():
            raise FileNotFoundError(f"no bundle at {path}; make one with `ltbm export CHECKPOINT {path}`")
        if not manifest.is_file():
            raise FileNotFoundError(
                f"{path} has no {MANIFEST_NAME}, so it is not a bundle; run `ltbm export CHECKPOINT {path}`"
            )
        require_utf8_name(path)
        bundle = cls(path, Manifest.from_json(read_text(manifest), manifest))
        for name, record in bundle.manifest.files.items():
            check_file(path / name, record, verify)
        rule = bundle.manifest.audio.token_length_rule
        if rule not in TOKEN_RULES:
            known = ", ".join(map(repr, TOKEN_RULES))
            raise ValueError(f"{manifest} has token length rule {rule!r}, known: {known}")
        return bundle

    def file(self, name: str) -> Path:
        """The path of one of its files; FileNotFoundError names those that it has."""
        if name not in self.manifest.files:
            raise FileNotFoundError(
                f"bundle {self.path} has no {name}; it has {', '.join(sorted(self.manifest.files))}"
            )
        return self.path / name

    def stage_bytes(self) -> dict[str, int]:
        """Bytes on disk per stage: encoder, merge, decoder, embeddings, tokenizer."""
        stages: dict[str, int] = {}
        for name, record in self.manifest.files.items():
            stage = name.split(".")[0]
            stages[stage] = stages.get(stage, 0) + record.size
        return stages


def check_file(path: Path, record: FileRecord, verify: bool) -> None:
    """FileNotFoundError or ValueError unless a file is as the manifest says; `verify` hashes it."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is named in the manifest but missing: half a bundle; run `ltbm export` again"
        )
    size = path.stat().st_size
    if size != record.size:
        refuse_lfs_pointers([path])
        raise ValueError(
            f"{path} has {size} bytes, the manifest says {record.size}: cut or changed; "
            "run `ltbm export` again"
        )
    if verify and file_sha256(path) != record.sha256:
        raise ValueError(
            f"{path} does not have the sha256 in the manifest: changed after export; run `ltbm export` again"
        )
