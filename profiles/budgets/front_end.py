"""What the convolutions before an encoder's blocks cost."""

from dataclasses import dataclass

from ...runtime.bundle import EncoderSpec
from ...runtime.token_rules import CHUNK_TOKENS, CONVOLUTION_STRIDE, TokenRule, strided

KERNEL = 3  # places of a convolution over time
KERNEL_2D = 9  # of one over time and mel
CONVOLUTIONS_2D = 3


@dataclass(frozen=True)
class FrontEnd:
    """weights: of convolutions and tables; the others are of one position of the blocks.

    products: multiplications; live_values: activations at their peak
    """

    weights: int
    products: float
    live_values: float = 0.0


def front_end(e: EncoderSpec, rule: TokenRule) -> FrontEnd:
    """Whisper's two convolutions over time, or those of chunks over time and mel."""
    if rule.chunk:
        return _chunked(e, rule.chunk)
    return FrontEnd(
        weights=KERNEL * e.width * (e.n_mels + e.width) + e.positions * e.width,
        products=KERNEL * e.width * (CONVOLUTION_STRIDE * e.n_mels + e.width),
    )


def _chunked(e: EncoderSpec, chunk: int) -> FrontEnd:
    """Each convolution halves time and mel; the first one's results are the most values, with their GELU."""
    weights = products = 0
    inputs = 1
    for times in range(1, CONVOLUTIONS_2D + 1):
        kernel = KERNEL_2D * inputs * e.channels
        weights += kernel
        products += kernel * strided(chunk, times) * strided(e.n_mels, times)
        inputs = e.channels
    out = e.channels * strided(e.n_mels, CONVOLUTIONS_2D) * e.width
    largest = e.channels * strided(chunk) * strided(e.n_mels)
    return FrontEnd(
        weights=weights + out + e.positions * e.width,
        products=products / CHUNK_TOKENS + out,
        live_values=2 * largest / CHUNK_TOKENS,
    )
