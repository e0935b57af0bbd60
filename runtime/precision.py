"""The types of a bundle's weights and values, and where such a bundle runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """The types of a bundle's weights and values: floats, or matrices quantised in blocks to int4 or int8."""

    encoder: str  # weights and matrix products of the encoder and merge stages; int8: of the encoder's layers
    activations: str  # inputs of the LLM's matrix products, and its KV cache
    weights: str  # the LLM's matrices
    lm_head: str
    embeddings: str  # rows of embeddings.npy; bfloat16 is stored as its bits in uint16
    block_size: int = 0  # weights that share a scale; 0 where nothing is quantised
    symmetric: bool = True  # blocks without a zero point of their own
    accuracy_level: int = 0  # of ONNX Runtime's MatMulNBits: 4 rounds activations to int8 within a product
    signed: bool = False  # codes around 0 with positive scales, for TensorRT; else as MatMulNBits reads them

    @property
    def inputs_embeds(self) -> str:
        """What passes between the stages on the host: float16, or float32 (numpy has no bfloat16)."""
        return "float16" if self.activations == "float16" else "float32"

    @property
    def encoder_activations(self) -> str:
        """Everything of the encoder and merge stages but the encoder's linear layers."""
        return "float32" if self.encoder == "int8" else self.encoder

    @property
    def audio_embeds(self) -> str:
        return "float16" if self.encoder == "float16" else "float32"

    @property
    def for_onnxruntime(self) -> bool:
        """The LLM is quantised as ONNX Runtime's own product reads it."""
        return self.block_size > 0 and not self.signed

    @property
    def kv_itemsize(self) -> int:
        """Bytes of a value in the KV cache."""
        return 4 if self.activations == "float32" else 2

    @property
    def runs_on(self) -> str:
        """Where such a bundle runs, in words."""
        if self.encoder == "int8":
            return "ONNX Runtime; CPUs only, for its int8 encoder"
        if self.signed:
            backends = "TensorRT"
        elif self.block_size:
            backends = "ONNX Runtime"
        else:
            backends = "ONNX Runtime, TensorRT"
        return f"{backends}; GPUs only, for its bfloat16" if self._on_gpus_only else backends

    def obstacle(self, device: str) -> str:
        """Why no bundle of this precision runs on `device`; empty where one does."""
        if device != "cpu":
            return "its int8 encoder is for CPUs" if self.encoder == "int8" else ""
        if self._on_gpus_only:
            return "ONNX Runtime computes no bfloat16 on the CPU"
        return "its codes are for TensorRT" if self.signed else ""

    @property
    def _on_gpus_only(self) -> bool:
        return "bfloat16" in (self.encoder, self.activations, self.lm_head)

    def __str__(self) -> str:
        parts = [self.weights + self._blocks()]
        for name in ("lm_head", "activations", "encoder", "embeddings"):
            if getattr(self, name) != self.weights:
                parts.append(f"{name} {getattr(self, name)}")
        return "; ".join(parts)

    def _blocks(self) -> str:
        """How the weights are quantised, in words; empty where they are not."""
        if not self.block_size:
            return ""
        asymmetric = "" if self.symmetric else "asymmetric, "
        kind = "signed, for TensorRT" if self.signed else f"accuracy level {self.accuracy_level}"
        return f" in blocks of {self.block_size}, {asymmetric}{kind}"
