"""What a plan knows of a model: its dimensions and how many bytes its weights take,
of a bundle or of a checkpoint's configuration alone."""

from dataclasses import dataclass, replace
from itertools import pairwise

from ...export.hub import checkpoint_folder
from ...runtime.bundle import AudioSpec, Bundle, DecoderSpec, EncoderSpec
from ...runtime.precision import Precision
from .front_end import front_end

VALUE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
QUANTISED_BYTES = {"int8": 1.0, "int4": 0.5}
ENCODER_WEIGHT_BYTES = VALUE_BYTES | {"int8": 1}  # a scale a column is less than a thousandth


@dataclass(frozen=True)
class StageBytes:
    """Bytes of weights."""

    encoder: float
    merge: float
    decoder: float

    @property
    def audio(self) -> float:
        return self.encoder + self.merge


@dataclass(frozen=True)
class Model:
    """What decides bytes and operations. `projector` counts weights, `weights` holds bytes."""

    name: str
    audio: AudioSpec
    encoder: EncoderSpec
    decoder: DecoderSpec
    projector: int
    precision: Precision
    weights: StageBytes

    @property
    def attention_in(self) -> int:
        """Weights of one LLM layer that make queries, keys and values."""
        d = self.decoder
        return d.hidden_size * (d.heads + 2 * d.kv_heads) * d.head_dim

    @property
    def layer_rest(self) -> int:
        """The other weights of one LLM layer: attention's output and the MLP."""
        d = self.decoder
        return d.hidden_size * (d.heads * d.head_dim + 3 * d.ffn)

    @property
    def head(self) -> int:
        return self.decoder.vocab_size * self.decoder.hidden_size

    @property
    def head_bytes(self) -> float:
        return self.head * weight_bytes(self.precision, self.precision.lm_head)

    @property
    def value_bytes(self) -> int:
        """Of the LLM's activations and KV cache."""
        return VALUE_BYTES[self.precision.activations]

    def kv_bytes(self, tokens: float) -> float:
        return self.decoder.kv_bytes(1, self.value_bytes) * tokens


def model_of_bundle(bundle: Bundle) -> Model:
    """Bytes as the weight files hold them."""
    manifest = bundle.manifest
    weights = StageBytes(
        *(manifest.files[f"{stage}.weights"].size for stage in ("encoder", "merge", "decoder"))
    )
    return Model(
        name=f"{manifest.family} from {manifest.source}",
        audio=manifest.audio,
        encoder=manifest.encoder,
        decoder=manifest.decoder,
        projector=int(weights.merge // VALUE_BYTES[manifest.precision.encoder_activations]),
        precision=manifest.precision,
        weights=weights,
    )


def model_of_checkpoint(source: str, precision: Precision) -> Model:
    """From config.json alone: of a hub id only the small files are downloaded.
    ValueError for what is not supported."""
    from ...export.configuration import read_json
    from ...export.shapes import projector_widths
    from ...export.specification import model_spec

    path = checkpoint_folder(source, ["*.json"])
    spec = model_spec(read_json(path / "config.json"), path)
    widths = projector_widths(spec)
    projector = sum(inputs * outputs for inputs, outputs in pairwise(widths))
    model = Model(
        name=f"{spec.family.model_type} from {source}",
        audio=spec.audio,
        encoder=spec.encoder,
        decoder=spec.decoder,
        projector=projector,
        precision=precision,
        weights=StageBytes(0, 0, 0),
    )
    return replace(model, weights=counted_bytes(model))


def counted_bytes(model: Model) -> StageBytes:
    """Bytes that the export writes for matrices, convolutions and tables;
    norms and biases are less than a thousandth."""
    e = model.encoder
    d = model.decoder
    p = model.precision
    encoder_layers = e.layers * (4 * e.width**2 + 2 * e.width * e.ffn)
    value = VALUE_BYTES[p.encoder_activations]
    layers = d.layers * (model.attention_in + model.layer_rest)
    rotary = d.max_positions * d.head_dim * model.value_bytes
    return StageBytes(
        encoder_layers * ENCODER_WEIGHT_BYTES[p.encoder] + front_end(e, model.audio.rule).weights * value,
        model.projector * value,
        layers * weight_bytes(p, p.weights) + model.head_bytes + rotary,
    )


def weight_bytes(precision: Precision, kind: str) -> float:
    """Bytes of one weight, its share of the block's scale (in the activations' type)
    and zero point with it."""
    if kind in VALUE_BYTES:
        return VALUE_BYTES[kind]
    code = QUANTISED_BYTES[kind]
    return (
        code
        + (VALUE_BYTES[precision.activations] + (0 if precision.symmetric else code)) / precision.block_size
    )
