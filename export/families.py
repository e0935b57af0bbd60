"""The supported families: a record each, which says all that differs between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..runtime.bundle import TranscriptSpec
from ..runtime.levels import DEFAULT_LEVEL
from .configuration import LLM_DEFAULTS
from .layouts import HUB, OMNI, OMNI_THINKER, OMNI_THINKER_5, QWEN3_ASR, TRANSFORMERS_5, Layout

NOTHING: Mapping[str, Any] = MappingProxyType({})
WHISPER_TOWER: Mapping[str, Any] = dict(
    num_hidden_layers=32,
    hidden_size=1280,
    num_attention_heads=20,
    intermediate_size=5120,
    num_mel_bins=128,
    max_source_positions=1500,
    activation_function="gelu",
    scale_embedding=False,
)
"""The sizes of Whisper large v3's encoder, which the classes in transformers assume."""


@dataclass(frozen=True)
class Tower:
    """The form of an audio tower: convolutions, positions, pre-norm blocks, pooling, a norm.

    token_rule: how frames become tokens (`ltbm.runtime.token_rules`): blocks, chunks, pooling
    positions: `stored` as a table, or `sinusoids` that are computed, from 0 on in each block
    norm: the LayerNorm after the pooling
    stacked: neighbouring positions that the projector takes side by side
    masks_frames: frames beyond the valid ones are zeros before each convolution
    key_bias: attention's keys have a bias, as queries and values do
    """

    token_rule: str
    positions: str = "stored"
    norm: str = "layer_norm"
    stacked: int = 1
    masks_frames: bool = False
    key_bias: bool = False


@dataclass(frozen=True)
class Sound:
    """How a family's processor reads sound; the fields of `AudioSpec`.

    segment_frames: of one segment; 0: as many as the tower has positions for
    longest: the key of processor_config.json that bounds an audio, and its default, in seconds
    chunk_is_longest: the feature extractor's chunk_length bounds an audio
    Without either the LLM's positions bound it, and where `one_segment`, a segment does.
    """

    segment_frames: int = 0
    one_segment: bool = False
    longest: tuple[str, float] | None = None
    chunk_is_longest: bool = False
    whole_audio: bool = False
    pads_to_segments: bool = False
    zeros_after: bool = False
    full_frames_only: bool = False
    shortest_audio: int = 0


@dataclass(frozen=True)
class PromptPieces:
    """What a family's prompts need beside the checkpoint's template; `PromptSpec` has the words.

    audio_around: keys of the configuration whose tokens go around each audio, with their defaults
    template: the family's own, for checkpoints without one
    transcript: how a model that only transcribes is asked and answers
    """

    audio_around: tuple[tuple[str, int], ...] = ()
    template: str = ""
    transcript: TranscriptSpec | None = None


@dataclass(frozen=True)
class Family:
    """A kind of audio-language model: an audio tower, a projector, an LLM.

    model_type: as config.json names it
    section: where config.json nests the part that hears and answers, if it does
    section_type: the model type of a config.json that is this part alone
    architecture: the class in transformers, for parity
    own_extractor: that of the features, where the model's own repository is not opened by transformers
    audio_type, llm_types: model types of the parts; type_names: what else repositories call them
    audio_defaults, text_defaults: what the class assumes where config.json says nothing
    whole_text_defaults: the same, of a configuration without any text section
    audio_token_id: its default; None where config.json must say it
    layouts: how checkpoints name the tensors
    projector: tensor names of the linear layers, applied in order with GELU between them
    projector_width: of their results before the last: `llm` or `tower`
    rotary_time: the tower's output is rotated by the time that it stands for
    frame_mask: what the class calls the mask of valid frames
    default_level: where a request names none
    """

    model_type: str
    architecture: str
    audio_type: str
    tower: Tower
    projector: tuple[str, ...]
    sound: Sound
    frame_mask: str
    llm_types: tuple[str, ...] = ("qwen2", "qwen3", "llama")
    type_names: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    projector_width: str = "llm"
    audio_defaults: Mapping[str, Any] = field(default_factory=lambda: WHISPER_TOWER)
    text_defaults: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    whole_text_defaults: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    audio_token_id: int | None = None
    end_token_ids: tuple[int, ...] = ()
    section: str = ""
    section_type: str = ""
    layouts: tuple[Layout, ...] = (HUB, TRANSFORMERS_5)
    rotary_time: bool = False
    prompt: PromptPieces = PromptPieces()
    default_level: str = DEFAULT_LEVEL
    own_extractor: str = ""

    def __post_init__(self) -> None:
        assert set(self.llm_types) <= set(LLM_DEFAULTS), "every backbone has its defaults"


VOXTRAL_LLM: Mapping[str, Any] = dict(
    vocab_size=131072,
    hidden_size=3072,
    intermediate_size=8192,
    num_hidden_layers=30,
    num_key_value_heads=8,
    max_position_embeddings=131072,
    rms_norm_eps=1e-5,
    rope_theta=1e8,
    head_dim=128,
)
VOXTRAL_TEMPLATE = """\
{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}[SYSTEM_PROMPT]\
{{ message['content'] if message['content'] is string else message['content'][0]['text'] }}[/SYSTEM_PROMPT]\
{% elif message['role'] == 'user' %}{% set request = namespace(words='', audios=0) %}[INST]\
{% if message['content'] is string %}{% set request.words = message['content'] %}{% else %}\
{% for part in message['content'] %}{% if part['type'] == 'audio' %}[BEGIN_AUDIO][AUDIO]\
{% set request.audios = request.audios + 1 %}{% else %}{% set request.words = part['text'] %}{% endif %}\
{% endfor %}{% endif %}{% set transcribes = request.audios and (not request.words or \
(request.words.startswith('lang:') and ' ' not in request.words)) %}{% if transcribes %}[/INST]\
{{ request.words }}[TRANSCRIBE]{% else %}{{ request.words }}[/INST]{% endif %}{% else %}\
{{ message['content'] if message['content'] is string else message['content'][0]['text'] }}{{ eos_token }}\
{% endif %}{% endfor %}"""
"""Mistral's instruct prompt; words that are empty, or `lang:en` alone, ask for a transcript."""

TWO_LINEARS = ("multi_modal_projector.linear_1", "multi_modal_projector.linear_2")
QWEN_AUDIO_TEMPLATE = """\
{% set audios = namespace(count=0) %}{% for message in messages %}
{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{{ '' }}{% endif %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}
{% if part['type'] == 'audio' %}{% set audios.count = audios.count + 1 %}Audio {{ audios.count }}: \
<|audio_bos|><|AUDIO|><|audio_eos|>
{{ '' }}{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{{ '' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{{ '' }}{% endif %}"""

QWEN3_ASR_TOWER: Mapping[str, Any] = dict(
    num_hidden_layers=24,
    hidden_size=1024,
    num_attention_heads=16,
    intermediate_size=4096,
    num_mel_bins=128,
    activation_function="gelu",
    scale_embedding=False,
    n_window=50,
    n_window_infer=800,
    downsample_hidden_size=480,
)
QWEN3_ASR_LLM: Mapping[str, Any] = dict(
    hidden_size=2048,
    intermediate_size=6144,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=65536,
    tie_word_embeddings=True,
)
QWEN3_ASR_TEMPLATE = """\
{% set said = namespace(context='', sounds='') %}{% for message in messages %}\
{% if message['content'] is string %}\
{% if message['role'] == 'system' %}{% set said.context = said.context + message['content'] %}{% endif %}\
{% else %}{% for part in message['content'] %}{% if part['type'] == 'audio' %}\
{% set said.sounds = said.sounds + '<|audio_start|><|audio_pad|><|audio_end|>' %}\
{% elif message['role'] == 'system' %}{% set said.context = said.context + part['text'] %}{% endif %}\
{% endfor %}{% endif %}{% endfor %}<|im_start|>system
{{ said.context }}<|im_end|>
<|im_start|>user
{{ said.sounds }}<|im_end|>
{% if add_generation_prompt %}<|im_start|>assistant
{{ '' }}{% endif %}"""
"""Context in the system's turn, sounds in the user's; what a user writes has no place."""
QWEN3_ASR_LANGUAGES: Mapping[str, str] = dict(
    ar="Arabic",
    yue="Cantonese",
    zh="Chinese",
    cs="Czech",
    da="Danish",
    nl="Dutch",
    en="English",
    fil="Filipino",
    fi="Finnish",
    fr="French",
    de="German",
    el="Greek",
    hi="Hindi",
    hu="Hungarian",
    id="Indonesian",
    it="Italian",
    ja="Japanese",
    ko="Korean",
    mk="Macedonian",
    ms="Malay",
    fa="Persian",
    pl="Polish",
    pt="Portuguese",
    ro="Romanian",
    ru="Russian",
    es="Spanish",
    sv="Swedish",
    th="Thai",
    tr="Turkish",
    vi="Vietnamese",
)

FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            model_type="qwen2_audio",
            architecture="Qwen2AudioForConditionalGeneration",
            audio_type="qwen2_audio_encoder",
            tower=Tower("whisper-conv2-pool2"),
            projector=("multi_modal_projector.linear",),
            sound=Sound(one_segment=True),
            frame_mask="feature_attention_mask",
            audio_token_id=151646,
            prompt=PromptPieces(template=QWEN_AUDIO_TEMPLATE),
        ),
        Family(
            model_type="audioflamingo3",
            architecture="AudioFlamingo3ForConditionalGeneration",
            audio_type="audioflamingo3_encoder",
            tower=Tower("whisper-conv2-pool2"),
            projector=TWO_LINEARS,
            sound=Sound(longest=("max_audio_len", 600.0)),
            frame_mask="input_features_mask",
            audio_token_id=151669,
        ),
        Family(
            model_type="musicflamingo",
            architecture="MusicFlamingoForConditionalGeneration",
            audio_type="audioflamingo3_encoder",
            tower=Tower("whisper-conv2-pool2"),
            projector=TWO_LINEARS,
            sound=Sound(longest=("max_audio_len", 1200.0)),
            frame_mask="input_features_mask",
            audio_token_id=151669,
            rotary_time=True,
            prompt=PromptPieces(
                audio_around=(("audio_bos_token_id", 151670), ("audio_eos_token_id", 151671)),
            ),
        ),
        Family(
            model_type="voxtral",
            architecture="VoxtralForConditionalGeneration",
            audio_type="voxtral_encoder",
            tower=Tower("whisper-conv2-stack4", stacked=4),
            projector=TWO_LINEARS,
            sound=Sound(whole_audio=True, pads_to_segments=True),
            frame_mask="",
            llm_types=("llama", "qwen2", "qwen3"),
            text_defaults=VOXTRAL_LLM,
            prompt=PromptPieces(template=VOXTRAL_TEMPLATE),
        ),
        Family(
            model_type="qwen2_5_omni",
            section="thinker_config",
            section_type="qwen2_5_omni_thinker",
            architecture="Qwen2_5OmniThinkerForConditionalGeneration",
            audio_type="qwen2_5_omni_audio_encoder",
            tower=Tower(
                "whisper-conv2-pool2-blocks200", positions="sinusoids", norm="ln_post", masks_frames=True
            ),
            projector=("multi_modal_projector.linear",),
            sound=Sound(segment_frames=3000, chunk_is_longest=True, whole_audio=True),
            frame_mask="feature_attention_mask",
            llm_types=("qwen2_5_omni_text",),
            audio_defaults=dict(WHISPER_TOWER, n_window=100),
            audio_token_id=151646,
            layouts=(OMNI, OMNI_THINKER, OMNI_THINKER_5),
        ),
        Family(
            model_type="qwen3_asr",
            architecture="Qwen3ASRForConditionalGeneration",
            audio_type="qwen3_asr_encoder",
            tower=Tower("conv2d3-chunks100", positions="sinusoids", norm="ln_post", key_bias=True),
            projector=TWO_LINEARS,
            projector_width="tower",
            sound=Sound(
                segment_frames=800,  # what attends to itself alone: a row of the encoder
                whole_audio=True,
                zeros_after=True,
                full_frames_only=True,
                shortest_audio=8000,
            ),
            frame_mask="input_features_mask",
            llm_types=("qwen3",),
            type_names={"qwen3_asr_audio_encoder": "qwen3_asr_encoder", "qwen3_asr_text": "qwen3"},
            audio_defaults=QWEN3_ASR_TOWER,
            text_defaults=dict(tie_word_embeddings=True),
            whole_text_defaults=QWEN3_ASR_LLM,
            audio_token_id=151676,
            end_token_ids=(151643, 151645),
            section="thinker_config",
            layouts=(TRANSFORMERS_5, QWEN3_ASR),
            prompt=PromptPieces(
                template=QWEN3_ASR_TEMPLATE,
                transcript=TranscriptSpec("<asr_text>", QWEN3_ASR_LANGUAGES),
            ),
            default_level="full",
            own_extractor="Qwen3ASRFeatureExtractor",
        ),
    )
}


def family_of(model_type: Any) -> Family | None:
    """The family of a config.json with this model type; None where no record has it."""
    for family in FAMILIES.values():
        if model_type and model_type in (family.model_type, family.section_type):
            return family
    return None
